//! authz-ext
