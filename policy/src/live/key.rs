//! What names an object of an API server, and the kinds among them that decide.

use std::sync::Arc;

/// Group of Portcullis's own kinds.
pub(crate) const OWN_GROUP: &str = "portcullis.dev";
const SECURITY_GROUP: &str = "security.istio.io";

/// Names one object of an API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// API group; empty is core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Names an object.
    #[must_use]
    pub fn new(group: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            group: Arc::from(group),
            kind: Arc::from(kind),
            namespace: Arc::from(namespace),
            name: Arc::from(name),
        }
    }

    /// What diagnostics show in place of a path: `kubernetes:AuthorizationPolicy.security.istio.io/shop/web`.
    #[must_use]
    pub fn file(&self) -> Arc<str> {
        let dot = if self.group.is_empty() { "" } else { "." };
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        let (kind, group, namespace) = (&self.kind, &self.group, &self.namespace);
        format!(
            "kubernetes:{kind}{dot}{group}/{namespace}{slash}{}",
            self.name
        )
        .into()
    }

    /// `Kind/namespace/name`, as diagnostics name resources.
    #[must_use]
    pub fn resource(&self) -> String {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        format!("{}/{}{slash}{}", self.kind, self.namespace, self.name)
    }

    /// The kind of policy that this is; `None` for what only describes the inventory or the mesh.
    #[must_use]
    pub fn policy_kind(&self) -> Option<PolicyKind> {
        Some(match (self.group.as_ref(), self.kind.as_ref()) {
            (SECURITY_GROUP, "AuthorizationPolicy") => PolicyKind::AuthorizationPolicy,
            (SECURITY_GROUP, "PeerAuthentication") => PolicyKind::PeerAuthentication,
            (SECURITY_GROUP, "RequestAuthentication") => PolicyKind::RequestAuthentication,
            (OWN_GROUP, "CedarPolicy") => PolicyKind::CedarPolicy,
            (OWN_GROUP, "PolicyTest") => PolicyKind::PolicyTest,
            _ => return None,
        })
    }
}

/// A kind whose author is told what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// security.istio.io AuthorizationPolicy.
    AuthorizationPolicy,
    /// security.istio.io PeerAuthentication.
    PeerAuthentication,
    /// security.istio.io RequestAuthentication.
    RequestAuthentication,
    /// portcullis.dev CedarPolicy.
    CedarPolicy,
    /// portcullis.dev PolicyTest: decides nothing, so it closes nothing either.
    PolicyTest,
}
