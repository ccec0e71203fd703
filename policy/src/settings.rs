//! What a compilation depends on beside the documents.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::resource::MeshConfig;

/// What to do when a CUSTOM rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CustomProvider {
    /// We are the provider: only reported.
    Own,
    /// The proxy asks the provider itself: only reported.
    Proxy,
    /// We ask the provider and fold its answer in.
    Call,
}

/// A workload outside Kubernetes, declared under `workloads:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredWorkload {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    pub service_account: String,
    /// Addresses at which it is reached.
    pub addresses: Vec<IpAddr>,
}

/// Everything beside the documents that a snapshot depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `mesh:` of the configuration: wins over MeshConfig documents, field by field, with a note.
    pub mesh: MeshConfig,
    /// `workloads:`.
    pub workloads: Vec<DeclaredWorkload>,
    /// `custom_providers:`.
    pub custom_providers: BTreeMap<String, CustomProvider>,
    /// Workload that decides where no other fact names one: `namespace/name` or `kind/namespace/name`.
    pub default_workload: Option<String>,
    /// `identity.require_svid`: a peer with more than one URI SAN has no identity to decide by.
    pub require_svid: bool,
    /// A server denies what an unconfigured provider would decide; off-line it is only reported.
    pub serving: bool,
    /// Lower policies that validation refuses as istiod would (policy.md 1.15.8). Never in a server.
    pub accept_invalid: bool,
    /// Remember Cedar's answers to equal questions. Off only to measure without.
    pub memo: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mesh: MeshConfig::default(),
            workloads: Vec::new(),
            custom_providers: BTreeMap::new(),
            default_workload: None,
            require_svid: false,
            serving: false,
            accept_invalid: false,
            memo: true,
        }
    }
}
