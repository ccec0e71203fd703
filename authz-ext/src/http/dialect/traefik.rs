//! Traefik forwardAuth. Without `trustForwardHeader` it writes every one of these itself; the Host of the check request is that of its own address.

pub(super) use super::forwarded::original;
