//! Resources: one typed value per manifest of a kind we know, each remembering where it stood.
//!
//! The [`Node`](crate::document::Node) of a document enters, a [`Resource`] or diagnostics leave. The types
//! keep what Istio's API would have decoded, nil entries included, so that a policy which bypassed
//! the webhook can be lowered exactly as istiod would lower it. Checking is the business of
//! the per-kind `validate` functions; nothing here is dropped because it is wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::Location;

mod annotations;
mod attachment;
mod authorization_policy;
mod case;
mod cedar_policy;
mod extension_provider;
pub(crate) mod fields;
mod inventory;
mod kind;
mod mesh_config;
mod metadata;
mod path;
mod peer_authentication;
mod policy_test;
mod read;
mod reader;
mod request_authentication;

pub(crate) use annotations::{DRY_RUN, parse_bool};
pub(crate) use attachment::attachment_of;
pub use case::{
    CaseFile, CaseOutcome, DecisionCase, Expected, ExpectedTrial, MAX_CASES, read_case_file,
};
pub use cedar_policy::{CedarPolicy, CedarText, MAX_CEDAR};
pub use extension_provider::{
    BodyInCheck, ExtAuthz, ExtAuthzCall, ExtensionProvider, read as read_extension_providers,
};
pub use policy_test::PolicyTest;
pub use read::{FileResources, read};

/// A value and where it stood.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stood.
    pub at: Location,
}

/// `metadata` of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` when absent on a namespaced kind.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, Located<String>>,
    /// `creationTimestamp` as written (RFC 3339 sorts as text); `None` off-line.
    pub creation_timestamp: Option<String>,
    /// Where the document starts.
    pub at: Location,
}

/// `selector.matchLabels`; present but empty selects all of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must all be there.
    pub match_labels: BTreeMap<String, String>,
    /// Where the selector stood.
    pub at: Location,
}

/// One entry of `targetRefs` (or the old singular `targetRef`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// API group; empty is core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace, which Istio does not support: such a reference never matches.
    pub namespace: String,
    /// Where it stood.
    pub at: Location,
}

/// `spec.action` of an AuthorizationPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The default.
    #[default]
    Allow,
    /// Refuses what matches.
    Deny,
    /// Records what matches.
    Audit,
    /// Delegates what matches to a provider.
    Custom,
}

/// A list field: `None` when absent or null, else every entry with its location.
pub type Values = Vec<Located<String>>;

/// `from[].source`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMatch {
    /// Peer identities, without `spiffe://`.
    pub principals: Values,
    /// Negated `principals`.
    pub not_principals: Values,
    /// JWT `iss/sub`.
    pub request_principals: Values,
    /// Negated `requestPrincipals`.
    pub not_request_principals: Values,
    /// Peer namespaces.
    pub namespaces: Values,
    /// Negated `namespaces`.
    pub not_namespaces: Values,
    /// `name` or `namespace/name`.
    pub service_accounts: Values,
    /// Negated `serviceAccounts`.
    pub not_service_accounts: Values,
    /// Peer trust domains.
    pub trust_domains: Values,
    /// Negated `trustDomains`.
    pub not_trust_domains: Values,
    /// Direct peer addresses.
    pub ip_blocks: Values,
    /// Negated `ipBlocks`.
    pub not_ip_blocks: Values,
    /// Client addresses behind trusted proxies.
    pub remote_ip_blocks: Values,
    /// Negated `remoteIpBlocks`.
    pub not_remote_ip_blocks: Values,
}

/// `to[].operation`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationMatch {
    /// Hosts.
    pub hosts: Values,
    /// Negated `hosts`.
    pub not_hosts: Values,
    /// Destination ports, as text.
    pub ports: Values,
    /// Negated `ports`.
    pub not_ports: Values,
    /// Methods.
    pub methods: Values,
    /// Negated `methods`.
    pub not_methods: Values,
    /// Paths.
    pub paths: Values,
    /// Negated `paths`.
    pub not_paths: Values,
}

/// One entry of `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionMatch {
    /// The attribute, such as `request.headers[x-token]`.
    pub key: Located<String>,
    /// Values, ORed.
    pub values: Values,
    /// Values that must not match.
    pub not_values: Values,
}

/// One entry of `rules`. `None` inside `from` and `to` is a null entry, or one without
/// `source`/`operation`; the location is that of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Where the rule starts.
    pub at: Location,
    /// Sources, ORed; empty: any.
    pub from: Vec<Located<Option<SourceMatch>>>,
    /// Operations, ORed; empty: any.
    pub to: Vec<Located<Option<OperationMatch>>>,
    /// Conditions, ANDed.
    pub when: Vec<ConditionMatch>,
}

/// security.istio.io AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Name, namespace, annotations.
    pub meta: Metadata,
    /// `spec.selector`.
    pub selector: Option<Selector>,
    /// `spec.targetRefs`, or `spec.targetRef` as its only entry.
    pub target_refs: Vec<TargetRef>,
    /// `spec.action`.
    pub action: Action,
    /// `spec.provider.name`.
    pub provider: Option<Located<String>>,
    /// `spec.rules`; `None` when absent. A `None` entry is a null rule, skipped by istiod but
    /// counted in rule indexes.
    pub rules: Option<Vec<Located<Option<RuleSpec>>>>,
    /// Value of the annotation `istio.io/dry-run` after Go's ParseBool; `None` when absent,
    /// `Some(false)` when it cannot be parsed (an error, and enforced).
    pub dry_run: Option<bool>,
}

/// `mtls.mode` of a PeerAuthentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// Inherit from the wider level.
    #[default]
    Unset,
    /// Plaintext only: the proxy cannot see identities.
    Disable,
    /// Both.
    Permissive,
    /// mTLS only.
    Strict,
}

/// security.istio.io PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Name, namespace, creation time.
    pub meta: Metadata,
    /// `spec.selector`; an empty one counts as none.
    pub selector: Option<Selector>,
    /// `spec.mtls.mode`.
    pub mode: MtlsMode,
    /// `spec.portLevelMtls`, by workload port.
    pub port_level: BTreeMap<u16, MtlsMode>,
}

/// Where a token is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLocation {
    /// Header name.
    pub name: String,
    /// Prefix to strip, such as `Bearer `.
    pub prefix: String,
}

/// One entry of `jwtRules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// `issuer`.
    pub issuer: Located<String>,
    /// `audiences`; empty: any.
    pub audiences: Values,
    /// `jwksUri`.
    pub jwks_uri: Option<Located<String>>,
    /// `jwks`, inline.
    pub jwks: Option<Located<String>>,
    /// `fromHeaders`.
    pub from_headers: Vec<HeaderLocation>,
    /// `fromParams`.
    pub from_params: Values,
    /// `fromCookies`.
    pub from_cookies: Values,
    /// `outputPayloadToHeader`.
    pub output_payload_to_header: Option<String>,
    /// `outputClaimToHeaders`, as (header, claim).
    pub output_claim_to_headers: Vec<(String, String)>,
    /// `forwardOriginalToken`.
    pub forward_original_token: bool,
    /// `timeout` of fetching keys.
    pub timeout: Option<Duration>,
    /// `spaceDelimitedClaims`, beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
}

/// security.istio.io RequestAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Name, namespace.
    pub meta: Metadata,
    /// `spec.selector`.
    pub selector: Option<Selector>,
    /// `spec.targetRefs`.
    pub target_refs: Vec<TargetRef>,
    /// `spec.jwtRules`.
    pub jwt_rules: Vec<JwtRule>,
}

/// Mode of path normalisation (`meshConfig.pathNormalization.normalization`; policy.md 1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathNormalization {
    /// Paths are taken as they are.
    None,
    /// RFC 3986 normalisation. `DEFAULT` means this.
    #[default]
    Base,
    /// And runs of slashes become one.
    MergeSlashes,
    /// And `%2F`, `%5C` are decoded first.
    DecodeAndMergeSlashes,
}

/// The part of MeshConfig that policy depends on. `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshConfig {
    /// `rootNamespace`.
    pub root_namespace: Option<String>,
    /// `trustDomain`.
    pub trust_domain: Option<String>,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Option<Vec<String>>,
    /// `pathNormalization`, both forms.
    pub path_normalization: Option<PathNormalization>,
    /// `defaultConfig.gatewayTopology.numTrustedProxies`.
    pub num_trusted_proxies: Option<u32>,
    /// `extensionProviders`.
    pub extension_providers: Option<Vec<ExtensionProvider>>,
    /// Where it stood.
    pub at: Location,
}

/// What kind of object a [`Workload`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadKind {
    /// A pod.
    Pod,
    /// The pod template of a Deployment.
    Deployment,
    /// The pod template of a StatefulSet.
    StatefulSet,
    /// The pod template of a DaemonSet.
    DaemonSet,
    /// The pod template of a Job.
    Job,
    /// A WorkloadEntry.
    WorkloadEntry,
    /// Declared under `workloads:` in the configuration.
    Declared,
}

impl WorkloadKind {
    /// Lower-case word for `kind/namespace/name`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::Job => "job",
            Self::WorkloadEntry => "workloadentry",
            Self::Declared => "declared",
        }
    }
}

/// Something that receives requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind.
    pub kind: WorkloadKind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels of the pod (template), not of the controller.
    pub labels: BTreeMap<String, String>,
    /// Service account; `default` when absent.
    pub service_account: String,
    /// Pod IPs, WorkloadEntry address, declared addresses.
    pub addresses: Vec<IpAddr>,
    /// Shares the node's address, which therefore does not identify it.
    pub host_network: bool,
    /// False once a pod has succeeded or failed: its address may be another's.
    pub running: bool,
    /// Container ports, named or not.
    pub ports: Vec<(Option<String>, u16)>,
    /// Where it stood.
    pub at: Location,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`.
    pub name: Option<String>,
    /// `appProtocol`, which says what it speaks before the name does.
    pub app_protocol: Option<String>,
    /// False for UDP and SCTP.
    pub is_tcp: bool,
    /// `port`.
    pub port: u16,
    /// `targetPort`, a number or a container port's name; absent: `port`.
    pub target_port: Option<String>,
}

/// core Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, namespace, labels (`istio.io/use-waypoint` among them).
    pub meta: Metadata,
    /// `spec.selector`; empty: none.
    pub selector: BTreeMap<String, String>,
    /// Cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `targetRef` when it is a Pod: (namespace, name).
    pub pod: Option<(String, String)>,
}

/// discovery.k8s.io EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name, namespace.
    pub meta: Metadata,
    /// Label `kubernetes.io/service-name`.
    pub service: Option<String>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// networking.istio.io ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Name, namespace.
    pub meta: Metadata,
    /// `spec.hosts`.
    pub hosts: Vec<String>,
    /// `spec.addresses` that are plain addresses.
    pub addresses: Vec<IpAddr>,
    /// `spec.workloadSelector.labels`.
    pub workload_selector: BTreeMap<String, String>,
}

/// gateway.networking.k8s.io Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Name, namespace, labels.
    pub meta: Metadata,
    /// `spec.gatewayClassName`.
    pub class: String,
}

/// gateway.networking.k8s.io GatewayClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayClass {
    /// Name.
    pub meta: Metadata,
    /// `spec.controllerName`.
    pub controller: String,
}

/// networking.istio.io Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IstioGateway {
    /// Name, namespace.
    pub meta: Metadata,
    /// `spec.selector`: pods anywhere with these labels are gateways.
    pub selector: BTreeMap<String, String>,
}

/// A file of user-written Cedar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CedarFile {
    /// Path, as given.
    pub file: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
    /// Namespace the policies live in: none means the root namespace.
    pub namespace: Option<String>,
}

/// One manifest of a kind we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// security.istio.io AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// security.istio.io PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// security.istio.io RequestAuthentication.
    RequestAuthentication(RequestAuthentication),
    /// MeshConfig, or the `istio` ConfigMap.
    MeshConfig(MeshConfig),
    /// core Namespace.
    Namespace(Metadata),
    /// core ServiceAccount.
    ServiceAccount(Metadata),
    /// Pod, a controller's pod template, or WorkloadEntry.
    Workload(Workload),
    /// core Service.
    Service(Service),
    /// EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// ServiceEntry.
    ServiceEntry(ServiceEntry),
    /// Gateway API Gateway.
    Gateway(Gateway),
    /// Gateway API GatewayClass.
    GatewayClass(GatewayClass),
    /// Istio Gateway.
    IstioGateway(IstioGateway),
    /// User-written Cedar.
    Cedar(CedarFile),
    /// portcullis.dev CedarPolicy.
    CedarPolicy(CedarPolicy),
    /// portcullis.dev PolicyTest.
    PolicyTest(PolicyTest),
}
