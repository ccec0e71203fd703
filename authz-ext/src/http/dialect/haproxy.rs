//! HAProxy: the headers that our Lua action sets from the method, the whole URL and the Host header.

pub(super) use super::original::original;
