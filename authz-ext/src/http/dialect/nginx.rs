//! nginx `auth_request`: `$request_method`, `$request_uri` (as the client sent it, not `$uri`) and `$http_host`.

pub(super) use super::original::original;
