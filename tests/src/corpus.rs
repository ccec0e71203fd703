//! Corpora: what real components answered, kept as data under tests/corpora.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::naive::{Facts, Http, Mesh, Target, Workload, World};

/// A policy set, the filters Istio made of it and what a real Envoy answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// Name of the set.
    pub id: String,
    /// Mesh configuration.
    pub mesh: CaseMesh,
    /// Destination.
    pub workload: CaseWorkload,
    /// The filters read the identity from filter state, as a waypoint's do: URI SAN only.
    pub use_filter_state: bool,
    /// Manifests.
    pub policies: Vec<Value>,
    /// What Istio's webhook says of them.
    pub validation: Option<Vec<Validation>>,
    /// Traffic.
    pub requests: Vec<CaseRequest>,
}

/// Mesh configuration of a [`Case`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseMesh {
    /// Root namespace.
    pub root_namespace: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Aliases.
    #[serde(default)]
    pub trust_domain_aliases: Vec<String>,
    /// Mode of path normalisation.
    pub path_normalization: String,
}

/// Destination of a [`Case`].
#[derive(Clone, Debug, Deserialize)]
pub struct CaseWorkload {
    /// Namespace.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What Istio's webhook says of one policy.
#[derive(Clone, Debug, Deserialize)]
pub struct Validation {
    /// `namespace/name`.
    pub policy: String,
    /// Refused.
    pub error: Option<String>,
    /// Accepted with a warning.
    pub warning: Option<String>,
}

/// One request and Envoy's answer.
#[derive(Clone, Debug, Deserialize)]
pub struct CaseRequest {
    /// `http` or `tcp`.
    pub protocol: String,
    /// Peer.
    pub source: CaseSource,
    /// Client behind trusted proxies.
    pub remote_ip: String,
    /// Local address.
    pub destination: CaseDestination,
    /// TLS server name.
    pub sni: Option<String>,
    /// HTTP part.
    pub request: Option<CaseHttp>,
    /// Verified JWT payload.
    pub jwt: Option<Value>,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Envoy id of the rule that denied.
    pub matched: Option<String>,
    /// Envoy id of the ALLOW rule that matched (HTTP only).
    pub matched_allow: Option<String>,
    /// An AUDIT rule matched.
    pub audit: bool,
    /// Shadow results, `allow` and `deny`.
    pub dry_run: Option<BTreeMap<String, CaseShadow>>,
}

/// Peer of a [`CaseRequest`].
#[derive(Clone, Debug, Deserialize)]
pub struct CaseSource {
    /// First URI SAN.
    pub principal: Option<String>,
    /// Physical peer.
    pub ip: String,
    /// The connection was TLS.
    pub tls: bool,
    /// Name of the client certificate used.
    pub identity: String,
    /// URI SANs where there are several.
    pub uri_sans: Option<Vec<String>>,
    /// DNS SANs.
    #[serde(default)]
    pub dns_sans: Vec<String>,
    /// Subject, where it is told.
    pub subject: Option<String>,
}

/// Local address of a [`CaseRequest`].
#[derive(Clone, Debug, Deserialize)]
pub struct CaseDestination {
    /// Address.
    pub ip: String,
    /// Port.
    pub port: u16,
}

/// HTTP part of a [`CaseRequest`].
#[derive(Clone, Debug, Deserialize)]
pub struct CaseHttp {
    /// Method.
    pub method: String,
    /// Authority.
    pub host: String,
    /// Path as sent.
    pub path: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Path as RBAC saw it.
    pub path_seen: Option<String>,
}

/// A shadow result.
#[derive(Clone, Debug, Deserialize)]
pub struct CaseShadow {
    /// `allowed` or `denied`.
    pub result: String,
    /// Envoy id of the rule that matched.
    pub policy: Option<String>,
}

/// A set that Istio's webhook lets through and that makes Envoy abort, or refuse the listener.
#[derive(Clone, Debug, Deserialize)]
pub struct Abort {
    /// Name of the set.
    pub id: String,
    /// Manifests.
    pub policies: Vec<Value>,
    /// What Istio's webhook says of them.
    pub validation: Option<Vec<Validation>>,
}

/// One path through Envoy's normalisation.
#[derive(Clone, Debug, Deserialize)]
pub struct PathCase {
    /// Mode.
    pub mode: String,
    /// Path as sent.
    #[serde(rename = "in")]
    pub raw: String,
    /// Path without query as RBAC saw it; `None` where Envoy answered 400.
    pub out: Option<String>,
    /// HTTP status.
    pub status: u16,
}

/// One `when` entry against one request.
#[derive(Clone, Debug, Deserialize)]
pub struct ConditionCase {
    /// `when[].key`.
    pub key: String,
    /// The only entry of `when[].values`.
    pub value: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// Path as sent.
    pub path: String,
    /// Dynamic metadata by filter.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
    /// Whether Envoy let it pass.
    pub allow: bool,
}

fn file(name: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpora")
        .join(name);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn lines<T: DeserializeOwned>(name: &str) -> Result<Vec<T>> {
    file(name)?
        .lines()
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("{name}:{}", index + 1))
        })
        .collect()
}

/// Every policy set with its traffic.
///
/// # Errors
/// The file is missing or not of the expected form.
pub fn cases() -> Result<Vec<Case>> {
    lines("real-envoy/cases.jsonl")
}

/// Every set that makes Envoy abort.
///
/// # Errors
/// The file is missing or not of the expected form.
pub fn aborts() -> Result<Vec<Abort>> {
    lines("real-envoy/aborts-envoy.jsonl")
}

/// Every condition that was measured beside the policy sets.
///
/// # Errors
/// The file is missing or not of the expected form.
pub fn conditions() -> Result<Vec<ConditionCase>> {
    lines("measured/conditions.jsonl")
}

/// Every path.
///
/// # Errors
/// The file is missing or not of the expected form.
pub fn paths() -> Result<Vec<PathCase>> {
    serde_json::from_str(&file("real-envoy/paths.json")?).context("paths.json")
}

impl Case {
    /// The set as the naive evaluator sees it.
    #[must_use]
    pub fn world(&self) -> World {
        let gateway = self
            .workload
            .labels
            .contains_key("gateway.networking.k8s.io/gateway-name");
        World {
            policies: self.policies.clone(),
            mesh: Mesh {
                root_namespace: self.mesh.root_namespace.clone(),
                trust_domain: self.mesh.trust_domain.clone(),
                aliases: self.mesh.trust_domain_aliases.clone(),
                path_normalization: self.mesh.path_normalization.clone(),
                providers: Vec::new(),
            },
            workload: Workload {
                namespace: self.workload.namespace.clone(),
                labels: self.workload.labels.clone(),
            },
            target: if gateway {
                Target::Gateway
            } else {
                Target::Sidecar
            },
            service: None,
        }
    }
}

impl CaseRequest {
    /// The request as the naive evaluator sees it. Filter state holds the URI SANs as one text, and
    /// nothing else of the certificate.
    ///
    /// # Errors
    /// An address cannot be read.
    pub fn facts(&self, filter_state: bool) -> Result<Facts> {
        let first: Vec<String> = self.source.principal.iter().cloned().collect();
        let source = &self.source;
        Ok(Facts {
            tls: source.tls,
            uri_sans: match &source.uri_sans {
                Some(all) if filter_state => vec![all.join(",")],
                Some(all) => all.clone(),
                None => first,
            },
            dns_sans: if filter_state {
                Vec::new()
            } else {
                source.dns_sans.clone()
            },
            subject: source.subject.clone().filter(|_| !filter_state),
            source_ip: Some(source.ip.parse()?),
            remote_ip: Some(self.remote_ip.parse()?),
            destination_ip: Some(self.destination.ip.parse()?),
            destination_port: Some(self.destination.port),
            sni: self.sni.clone(),
            http: self.request.as_ref().map(|request| Http {
                method: request.method.clone(),
                host: request.host.clone(),
                path: request.path.clone(),
                headers: request.headers.clone(),
            }),
            jwt: self.jwt.clone(),
            metadata: BTreeMap::new(),
        })
    }
}
