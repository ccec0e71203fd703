//! Which kind a document is, by API group and kind: other APIs have an AuthorizationPolicy too.

use super::WorkloadKind;
use super::metadata::Shape;

/// A kind that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    MeshConfig,
    IstioOperator,
    ConfigMap,
    Namespace,
    ServiceAccount,
    Pod,
    Controller(WorkloadKind),
    Service,
    EndpointSlice,
    ServiceEntry,
    WorkloadEntry,
    Gateway,
    GatewayClass,
    IstioGateway,
    CedarPolicy,
    PolicyTest,
}

/// Kinds of security.istio.io.
const SECURITY: &[&str] = &[
    "AuthorizationPolicy",
    "PeerAuthentication",
    "RequestAuthentication",
];

/// The group whose policies decide.
pub(super) const SECURITY_GROUP: &str = "security.istio.io";

/// Kinds of portcullis.dev.
const OWN: &[&str] = &["CedarPolicy", "PolicyTest"];

/// The groups all of whose kinds are known, with those kinds and a version that they have.
pub(super) const CLOSED_GROUPS: &[(&str, &[&str], &str)] = &[
    (SECURITY_GROUP, SECURITY, "v1"),
    ("portcullis.dev", OWN, "v1alpha1"),
];

/// The kind with this group and name.
pub(super) fn find(group: &str, kind: &str) -> Option<Kind> {
    Some(match (group, kind) {
        (SECURITY_GROUP, "AuthorizationPolicy") => Kind::AuthorizationPolicy,
        (SECURITY_GROUP, "PeerAuthentication") => Kind::PeerAuthentication,
        (SECURITY_GROUP, "RequestAuthentication") => Kind::RequestAuthentication,
        (_, "MeshConfig") => Kind::MeshConfig,
        ("install.istio.io", "IstioOperator") => Kind::IstioOperator,
        ("", "ConfigMap") => Kind::ConfigMap,
        ("", "Namespace") => Kind::Namespace,
        ("", "ServiceAccount") => Kind::ServiceAccount,
        ("", "Pod") => Kind::Pod,
        ("", "Service") => Kind::Service,
        ("apps", "Deployment") => Kind::Controller(WorkloadKind::Deployment),
        ("apps", "StatefulSet") => Kind::Controller(WorkloadKind::StatefulSet),
        ("apps", "DaemonSet") => Kind::Controller(WorkloadKind::DaemonSet),
        ("batch", "Job") => Kind::Controller(WorkloadKind::Job),
        ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
        ("networking.istio.io", "ServiceEntry") => Kind::ServiceEntry,
        ("networking.istio.io", "WorkloadEntry") => Kind::WorkloadEntry,
        ("networking.istio.io", "Gateway") => Kind::IstioGateway,
        ("gateway.networking.k8s.io", "Gateway") => Kind::Gateway,
        ("gateway.networking.k8s.io", "GatewayClass") => Kind::GatewayClass,
        ("portcullis.dev", "CedarPolicy") => Kind::CedarPolicy,
        ("portcullis.dev", "PolicyTest") => Kind::PolicyTest,
        _ => return None,
    })
}

impl Kind {
    /// What its metadata must look like.
    pub(super) fn shape(self) -> Shape {
        let policy = |kind| Shape {
            kind,
            namespaced: true,
            label_names: false,
            strict: true,
        };
        let inventory = |kind| Shape {
            strict: false,
            ..policy(kind)
        };
        let cluster = |kind| Shape {
            namespaced: false,
            ..inventory(kind)
        };
        match self {
            Self::AuthorizationPolicy => policy("AuthorizationPolicy"),
            Self::PeerAuthentication => policy("PeerAuthentication"),
            Self::RequestAuthentication => policy("RequestAuthentication"),
            Self::MeshConfig => cluster("MeshConfig"),
            Self::IstioOperator => inventory("IstioOperator"),
            Self::ConfigMap => inventory("ConfigMap"),
            Self::Namespace => Shape {
                label_names: true,
                ..cluster("Namespace")
            },
            Self::ServiceAccount => inventory("ServiceAccount"),
            Self::Pod => inventory("Pod"),
            Self::Controller(WorkloadKind::StatefulSet) => inventory("StatefulSet"),
            Self::Controller(WorkloadKind::DaemonSet) => inventory("DaemonSet"),
            Self::Controller(WorkloadKind::Job) => inventory("Job"),
            Self::Controller(_) => inventory("Deployment"),
            Self::Service => Shape {
                label_names: true,
                ..inventory("Service")
            },
            Self::EndpointSlice => inventory("EndpointSlice"),
            Self::ServiceEntry => inventory("ServiceEntry"),
            Self::WorkloadEntry => inventory("WorkloadEntry"),
            Self::Gateway | Self::IstioGateway => inventory("Gateway"),
            Self::GatewayClass => cluster("GatewayClass"),
            Self::CedarPolicy => policy("CedarPolicy"),
            Self::PolicyTest => policy("PolicyTest"),
        }
    }

    /// Versions that the API has; `None` where we do not mind.
    pub(super) fn versions(self) -> Option<&'static [&'static str]> {
        match self {
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => {
                Some(&["v1", "v1beta1"])
            }
            Self::CedarPolicy | Self::PolicyTest => Some(&["v1alpha1"]),
            _ => None,
        }
    }
}
