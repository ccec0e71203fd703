//! The kinds that are followed: what the engine reads, and how the API server is asked for it.

use kube::core::{ApiResource, GroupVersionKind};

/// How an object's first list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstList {
    /// Page by page, each a consistent read: kinds that decide are never read from a cache that lags.
    Paged,
    /// As a stream of events (watch-list), where the server has it: kinds of which there are many.
    Streamed,
}

/// One kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty is core.
    pub group: &'static str,
    /// Versions that are read, the best first.
    pub versions: &'static [&'static str],
    /// `Pod`
    pub name: &'static str,
    /// `pods`
    pub plural: &'static str,
    /// It lives in namespaces.
    pub namespaced: bool,
    /// It decides, rather than says what is there.
    pub is_policy: bool,
    /// Names, labels and annotations are all that is read: nothing else is asked for.
    pub(crate) metadata_only: bool,
    pub(crate) first_list: FirstList,
}

impl Kind {
    /// `authorizationpolicies.security.istio.io`, as roles and errors name it.
    #[must_use]
    pub fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `security.istio.io/v1`.
    #[must_use]
    pub(crate) fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    pub(crate) fn api_resource(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, version, self.name);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

const fn policy(
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        versions,
        name,
        plural,
        namespaced: true,
        is_policy: true,
        metadata_only: false,
        first_list: FirstList::Paged,
    }
}

const fn inventory(
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        is_policy: false,
        first_list: FirstList::Streamed,
        ..policy(group, versions, name, plural)
    }
}

const ISTIO: &[&str] = &["v1", "v1beta1"];
const ISTIO_NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const OURS: &[&str] = &["v1alpha1"];
const GATEWAY_API: &[&str] = &["v1", "v1beta1"];

/// Every kind, policies first. Each has its place in it.
pub static KINDS: [Kind; 16] = [
    policy(
        "security.istio.io",
        ISTIO,
        "AuthorizationPolicy",
        "authorizationpolicies",
    ),
    policy(
        "security.istio.io",
        ISTIO,
        "PeerAuthentication",
        "peerauthentications",
    ),
    policy(
        "security.istio.io",
        ISTIO,
        "RequestAuthentication",
        "requestauthentications",
    ),
    policy("portcullis.dev", OURS, "CedarPolicy", "cedarpolicies"),
    policy("portcullis.dev", OURS, "PolicyTest", "policytests"),
    inventory("", &["v1"], "Pod", "pods"),
    Kind {
        namespaced: false,
        metadata_only: true,
        ..inventory("", &["v1"], "Namespace", "namespaces")
    },
    Kind {
        metadata_only: true,
        ..inventory("", &["v1"], "ServiceAccount", "serviceaccounts")
    },
    inventory("", &["v1"], "Service", "services"),
    inventory(
        "discovery.k8s.io",
        &["v1"],
        "EndpointSlice",
        "endpointslices",
    ),
    inventory(
        "gateway.networking.k8s.io",
        GATEWAY_API,
        "Gateway",
        "gateways",
    ),
    Kind {
        namespaced: false,
        ..inventory(
            "gateway.networking.k8s.io",
            GATEWAY_API,
            "GatewayClass",
            "gatewayclasses",
        )
    },
    inventory(
        "networking.istio.io",
        ISTIO_NETWORKING,
        "Gateway",
        "gateways",
    ),
    inventory(
        "networking.istio.io",
        ISTIO_NETWORKING,
        "ServiceEntry",
        "serviceentries",
    ),
    inventory(
        "networking.istio.io",
        ISTIO_NETWORKING,
        "WorkloadEntry",
        "workloadentries",
    ),
    Kind {
        first_list: FirstList::Paged,
        ..inventory("", &["v1"], "ConfigMap", "configmaps")
    },
];

/// Of ConfigMaps, only the one that holds the mesh is read.
pub(crate) fn is_mesh_config(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.name == "ConfigMap"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_there_once_and_named_as_roles_name_it() {
        let mut names: Vec<String> = KINDS.iter().map(Kind::resource).collect();
        assert!(names.contains(&"pods".to_owned()));
        assert!(names.contains(&"gateways.networking.istio.io".to_owned()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn what_decides_is_read_whole_and_consistently() {
        for kind in KINDS.iter().filter(|kind| kind.is_policy) {
            assert_eq!(kind.first_list, FirstList::Paged, "{}", kind.name);
            assert!(!kind.metadata_only, "{}", kind.name);
        }
    }
}
