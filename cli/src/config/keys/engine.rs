//! What is decided: policies, mesh, workloads outside Kubernetes.

use super::{Key, key};

/// The keys, parents before children.
pub const KEYS: &[Key] = &[
    key(
        "policies",
        "list of paths",
        "none",
        "Files and folders (recursive) that hold what is in force, relative to this file. `--policies` and PORTCULLIS_POLICIES win",
    ),
    key(
        "candidate",
        "list of paths",
        "none",
        "Files and folders on trial: they replace their namesakes in `policies`, or join. Every decision then carries both verdicts, and only that of `policies` counts",
    ),
    key(
        "mesh",
        "mapping",
        "empty",
        "Keys of Istio's MeshConfig; they win over MeshConfig documents. Published keys that policy does not depend on are accepted and unused",
    ),
    key(
        "mesh.rootNamespace",
        "name",
        "`istio-system`",
        "Namespace whose policies hold for the whole mesh",
    ),
    key(
        "mesh.trustDomain",
        "trust domain",
        "`cluster.local`",
        "Trust domain of the mesh",
    ),
    key(
        "mesh.trustDomainAliases",
        "list of trust domains",
        "none",
        "Former trust domains: principals of one match those of all",
    ),
    key(
        "mesh.pathNormalization",
        "mapping",
        "empty",
        "How raw paths are normalised before a rule sees them",
    ),
    key(
        "mesh.pathNormalization.normalization",
        "`NONE`, `BASE`, `MERGE_SLASHES`, `DECODE_AND_MERGE_SLASHES` or `DEFAULT`",
        "`BASE`",
        "The mode",
    ),
    key("mesh.defaultConfig", "mapping", "empty", "Proxy defaults"),
    key(
        "mesh.defaultConfig.gatewayTopology",
        "mapping",
        "empty",
        "What stands in front of the gateways",
    ),
    key(
        "mesh.defaultConfig.gatewayTopology.numTrustedProxies",
        "number",
        "unknown",
        "Proxies in front whose X-Forwarded-For entries are trusted",
    ),
    key(
        "mesh.extensionProviders",
        "list",
        "none",
        "Providers that CUSTOM policies may name: `name` and one of `envoyExtAuthzGrpc`, `envoyExtAuthzHttp`, in full where it is `custom_providers`' `call`",
    ),
    key("workloads", "list", "none", "Workloads outside Kubernetes"),
    key(
        "workloads[].namespace",
        "name",
        "required",
        "Namespace that policies select it by",
    ),
    key("workloads[].name", "name", "required", "Its name"),
    key(
        "workloads[].labels",
        "mapping",
        "none",
        "Labels that selectors match",
    ),
    key("workloads[].labels{}", "text", "", "A label's value"),
    key(
        "workloads[].serviceAccount",
        "name",
        "`default`",
        "Service account",
    ),
    key(
        "workloads[].addresses",
        "list of addresses",
        "none",
        "IPv4 or IPv6 addresses at which it is reached",
    ),
    key(
        "custom_providers",
        "mapping",
        "none",
        "What to do when a CUSTOM rule matches, by provider",
    ),
    key(
        "custom_providers{}",
        "`self`, `proxy` or `call`",
        "",
        "`self`: this service is that provider; `proxy`: the proxy asks it; both are only reported. `call`: this service asks it, as its entry in `extensionProviders` says. A server denies what a provider without an entry would decide",
    ),
    key(
        "default_workload",
        "`NAMESPACE/NAME` or `KIND/NAMESPACE/NAME`",
        "none",
        "Destination of requests that name none and whose address belongs to none",
    ),
    key("identity", "mapping", "empty", "Which identities count"),
    key(
        "identity.require_svid",
        "boolean",
        "`false`",
        "Whether a peer whose certificate has more than one URI SAN is refused (`ambiguous_identity`): by the SPIFFE standard such a certificate is no SVID, while Envoy tries each name",
    ),
    key(
        "reload",
        "mapping",
        "empty",
        "How changes of the files are noticed",
    ),
    key(
        "reload.settle",
        "duration",
        "`100ms`",
        "How long files must stay the same before they are read",
    ),
    key(
        "reload.poll",
        "duration",
        "`5s`",
        "Longest time between two looks at the files, whether or not the operating system told of a change",
    ),
];
