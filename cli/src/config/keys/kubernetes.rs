//! The API server that is followed.

use super::{Key, key};

/// The keys, parents before children.
pub const KEYS: &[Key] = &[
    key(
        "kubernetes",
        "mapping",
        "none",
        "Follow a Kubernetes API server: its policies, and the pods, services and the rest that they apply to. `{}` for everything with its default. `policies` may be given beside it: the same documents, all in force",
    ),
    key(
        "kubernetes.kubeconfig",
        "path",
        "`$KUBECONFIG`, `~/.kube/config`, then the pod's own service account",
        "How the API server is reached, relative to this file",
    ),
    key(
        "kubernetes.context",
        "name",
        "the kubeconfig's current one",
        "A context of the kubeconfig",
    ),
    key(
        "kubernetes.namespaces",
        "list of names",
        "all",
        "Namespaces to follow; the root namespace is always among them",
    ),
    key(
        "kubernetes.root_namespace",
        "name",
        "`mesh.rootNamespace`, else `istio-system`",
        "Namespace of the ConfigMap with the mesh configuration",
    ),
    key(
        "kubernetes.mesh_config",
        "name",
        "`istio`",
        "Name of that ConfigMap; another for each revision of Istio, such as `istio-canary`",
    ),
    key(
        "kubernetes.status",
        "`all`, `own` or `none`",
        "`all`",
        "Whose statuses are written, by one replica at a time: of all policies, of CedarPolicy and PolicyTest only, or of none",
    ),
    key(
        "kubernetes.lease_namespace",
        "name",
        "our own namespace",
        "Namespace of the Lease `portcullis-status`, by which the replicas agree who writes statuses",
    ),
];
