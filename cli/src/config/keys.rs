//! Every key of `portcullis.yaml`: the reader refuses what is not here, and the reference
//! documents what is.

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Path, `[]` for each entry of a list, `{}` for each entry of a mapping with free names.
    pub path: &'static str,
    /// Type of the value, in words.
    pub kind: &'static str,
    /// What holds when the key is absent.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        meaning,
    }
}

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
        "listeners",
        "list",
        "one, with every default",
        "Where ext_authz is served. `--listen` and PORTCULLIS_LISTEN replace the list",
    ),
    key(
        "listeners[].address",
        "`IP:PORT` or `unix:PATH`",
        "`127.0.0.1:9191`",
        "Address of the socket. A unix socket's path is relative to this file",
    ),
    key(
        "listeners[].socket_mode",
        "octal number",
        "`0660`",
        "Permissions of a unix socket",
    ),
    key(
        "listeners[].dialect",
        "`grpc`, `envoy-http`, `nginx`, `ingress-nginx`, `traefik`, `caddy`, `haproxy` or `apache`",
        "`grpc`",
        "How the proxy asks: Envoy's ext_authz over gRPC, or over HTTP in the way of one proxy. It is never guessed: headers of another dialect refuse the request",
    ),
    key(
        "listeners[].path_prefix",
        "path",
        "none",
        "`envoy-http`: Envoy's `path_prefix`, which stands before the path that is asked about",
    ),
    key(
        "listeners[].path",
        "`raw` or `normalised`",
        "`normalised` for Envoy, else `raw`",
        "How paths arrive: after the proxy's own normalisation (Envoy with `normalize_path`), or as the client sent them. Other proxies than Envoy always hand over what the client sent",
    ),
    key(
        "listeners[].workload",
        "`NAMESPACE/NAME` or `KIND/NAMESPACE/NAME`",
        "`default_workload`",
        "HTTP dialects: destination of every request of this listener, where the proxy states none",
    ),
    key(
        "listeners[].port",
        "port number",
        "none",
        "HTTP dialects: the workload's port, which `ports` and `destination.port` match. Without it no rule about ports matches",
    ),
    key(
        "listeners[].identity",
        "mapping",
        "nobody has an identity",
        "HTTP dialects: where the identity of the original client comes from",
    ),
    key(
        "listeners[].identity.source",
        "`xfcc`, `certificate` or `peer`",
        "required",
        "X-Forwarded-Client-Cert; a header that holds the client's certificate; or the proxy's own mutual TLS with this service. Any other identity in a request refuses it as `ambiguous_identity`",
    ),
    key(
        "listeners[].identity.header",
        "name of a header",
        "required with `certificate`",
        "The header: PEM, percent-encoded PEM, or Base64 of DER",
    ),
    key(
        "listeners[].identity.trusted_hops",
        "number",
        "`0`",
        "`xfcc`: elements at the right that proxies between the client and yours have added. The one before them counts; 0 is the right-most",
    ),
    key(
        "listeners[].identity.require_svid",
        "boolean",
        "`false`",
        "Whether a certificate with two URI names is refused (`ambiguous_identity`)",
    ),
    key(
        "listeners[].trusted_peers",
        "list of addresses, blocks, `uid:NUMBER` and SPIFFE IDs",
        "nobody",
        "HTTP dialects: the proxies whose identity headers and stated facts are believed. From others they refuse the request (`untrusted_identity_source`)",
    ),
    key(
        "listeners[].stated",
        "list of `workload`, `target`, `service`, `remote_address`, `direct_address`",
        "none",
        "HTTP dialects: the `x-portcullis-*` headers that are read, from trusted peers. The proxy must overwrite each. Others of that name are dropped",
    ),
    key(
        "listeners[].target",
        "`auto`, `sidecar`, `gateway`, `waypoint` or `ztunnel`",
        "`auto`",
        "Which proxy asks, where the request does not say it. `auto` looks at the workload's labels and the gateways that select it",
    ),
    key(
        "listeners[].body",
        "`none`, `decision` or a text",
        "`none`",
        "Body of a denial: nothing, the decision as JSON (for development: it tells callers about your policies), or this text",
    ),
    key(
        "listeners[].debug_headers",
        "boolean",
        "`false`",
        "Whether answers carry `x-portcullis-*` headers with decision, reason and policy. For development",
    ),
    key(
        "listeners[].missing_token_status",
        "`401` or `403`",
        "`403`",
        "Status of a denial because a policy needs a token and there is none. 401 asks the client for one",
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
        "Providers that CUSTOM policies may name; `name` and one of `envoyExtAuthzGrpc`, `envoyExtAuthzHttp` are read",
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
        "`self`: this service is that provider; `proxy`: the proxy asks it; both are only reported. `call`: this service asks it. A server denies what a provider without an entry would decide",
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
    key("limits", "mapping", "empty", "Bounds of the server"),
    key(
        "limits.message_bytes",
        "number",
        "`4194304`",
        "Longest request message, in bytes; a longer one is refused unread",
    ),
    key(
        "limits.header_bytes",
        "number",
        "`65536`",
        "HTTP dialects: longest request line with headers, in bytes; a longer one is answered with 431",
    ),
    key(
        "limits.header_timeout",
        "duration",
        "`10s`",
        "HTTP dialects: longest time in which the headers of a request must arrive",
    ),
    key(
        "limits.idle_timeout",
        "duration",
        "`10m`",
        "HTTP dialects: longest time that a connection may stay open without a request",
    ),
    key(
        "limits.drain",
        "duration",
        "`10s`",
        "Longest time that open requests get at shutdown",
    ),
    key("log", "mapping", "empty", "Logs, on standard error"),
    key(
        "log.level",
        "level or filter",
        "`info`",
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `portcullis_authz=debug`. `--log-level` and PORTCULLIS_LOG win",
    ),
    key(
        "log.format",
        "`auto`, `human` or `json`",
        "`auto`",
        "`auto`: human on a terminal, else JSON. `--log-format` and PORTCULLIS_LOG_FORMAT win",
    ),
];
