//! Headers about one connection (RFC 9110 section 7.6.1 and framing): they say nothing of the request
//! that a check is about, and nobody else may set them.

/// In lower case. `host` is not among them: it is told apart.
pub(crate) const NAMES: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
