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
        "listeners[].tokens",
        "`proxy` or `verify`",
        "`proxy`",
        "Who verifies tokens: the proxy, whose `jwt_authn` filter hands the payload along (a token without one is `token_unverified`), or this service, which then believes nobody else",
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
        "tokens",
        "mapping",
        "empty",
        "How tokens are verified, for listeners with `tokens: verify`",
    ),
    key(
        "tokens.hosts",
        "list of `HOST`, `HOST:PORT` and `*.HOST`",
        "none",
        "The only hosts that key sets and OpenID configurations are fetched from, whatever a RequestAuthentication says; without a port, the scheme's own. Over https, except from this machine",
    ),
    key(
        "tokens.ca_file",
        "path",
        "none",
        "Certificate authorities of those hosts (PEM), beside the platform's",
    ),
    key(
        "tokens.algorithms",
        "list of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`, `Ed25519`",
        "all of them",
        "Algorithms that are verified. A token of any other is invalid",
    ),
    key(
        "tokens.clock_skew",
        "duration",
        "`60s`",
        "Difference of clocks that `exp` and `nbf` put up with",
    ),
    key(
        "tokens.keys",
        "mapping",
        "empty",
        "How long fetched keys live",
    ),
    key(
        "tokens.keys.refresh",
        "duration",
        "`5m`",
        "Time between two fetches of one key set",
    ),
    key(
        "tokens.keys.keep",
        "duration",
        "`60m`",
        "Age at which keys that could not be refreshed end; the issuer's tokens are invalid then",
    ),
    key(
        "tokens.keys.refetch",
        "duration",
        "`10s`",
        "Shortest time between two fetches that tokens with an unknown `kid` ask for",
    ),
    key(
        "tokens.keys.wait",
        "duration",
        "`1s`",
        "Longest time that a request waits for such a fetch",
    ),
    key(
        "tokens.jwt_svid",
        "mapping",
        "JWT-SVIDs are nobody's identity",
        "JWT-SVIDs whose SPIFFE ID counts as the peer's principal",
    ),
    key(
        "tokens.jwt_svid.audiences",
        "list of audiences",
        "required",
        "One of these must be among the token's",
    ),
    key(
        "tokens.jwt_svid.header",
        "name of a header",
        "`authorization`",
        "Where it stands",
    ),
    key(
        "tokens.jwt_svid.prefix",
        "text",
        "`Bearer ` in `authorization`, else none",
        "What stands before it there",
    ),
    key(
        "tokens.jwt_svid.forward",
        "boolean",
        "`false`",
        "Whether the workload gets it",
    ),
    key(
        "tokens.jwt_svid.bundles",
        "list",
        "required",
        "Where the trust domains' authorities come from",
    ),
    key(
        "tokens.jwt_svid.bundles[].trust_domain",
        "trust domain",
        "required with `file`",
        "Trust domain of the file",
    ),
    key(
        "tokens.jwt_svid.bundles[].file",
        "path",
        "none",
        "SPIFFE bundle document (JWKS); a change is noticed within seconds",
    ),
    key(
        "tokens.jwt_svid.bundles[].workload_api",
        "`unix:PATH` or `tcp:IP:PORT`",
        "none",
        "SPIFFE Workload API that hands out bundles, instead of a file",
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
