//! Caddy `forward_auth`, which writes method and URI itself; X-Forwarded-Host is its own unless `trusted_proxies` says otherwise.

pub(super) use super::forwarded::original;
