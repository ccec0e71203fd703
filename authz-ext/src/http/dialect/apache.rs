//! Apache httpd: the headers that our Lua hook sets from the method, the unparsed URI and the Host header.

pub(super) use super::original::original;
