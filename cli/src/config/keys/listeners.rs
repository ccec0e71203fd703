//! Where and how it is served.

use super::{Key, key};

/// The keys, parents before children.
pub const KEYS: &[Key] = &[
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
];
