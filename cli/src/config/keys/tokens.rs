//! Which tokens are verified, and where their keys come from.

use super::{Key, key};

/// The keys, parents before children.
pub const KEYS: &[Key] = &[
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
];
