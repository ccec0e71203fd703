//! The attestor `unix`: what the operating system says of a process.

use std::fmt::Display;

use async_trait::async_trait;

use super::executable::Digests;
use super::names::Names;
use super::{AttestError, Attestor, Observed};
use crate::selector::Selector;

/// Largest executable whose SHA-256 is taken, bytes: 1 GiB takes about a second, once per file.
pub const SHA256_LIMIT: u64 = 1 << 30;

/// Selectors of type `unix`: `uid`, `gid`, `user`, `group`, `supplementary_gid`, `supplementary_group`,
/// `path`, `sha256`.
///
/// A user or group without a name has no selector of it; an executable that we are not allowed to see has
/// neither `path` nor `sha256`, one that is too large no `sha256`.
#[derive(Debug)]
pub struct UnixAttestor {
    names: Names,
    digests: Digests,
}

impl UnixAttestor {
    /// An attestor that takes the SHA-256 of executables up to `sha256_limit` bytes; zero: of none.
    #[must_use]
    pub fn new(sha256_limit: u64) -> Self {
        Self {
            names: Names::default(),
            digests: Digests::new(sha256_limit),
        }
    }
}

impl Default for UnixAttestor {
    fn default() -> Self {
        Self::new(SHA256_LIMIT)
    }
}

#[async_trait]
impl Attestor for UnixAttestor {
    fn name(&self) -> &'static str {
        "unix"
    }

    async fn attest(&self, caller: &Observed<'_>) -> Result<Vec<Selector>, AttestError> {
        let credentials = &caller.credentials;
        let mut found = Found(Vec::with_capacity(10 + 2 * credentials.groups.len()));
        found.add("uid", credentials.uid);
        found.add("gid", credentials.gid);
        if let Some(name) = self.names.user(credentials.uid).await? {
            found.add("user", name);
        }
        if let Some(name) = self.names.group(credentials.gid).await? {
            found.add("group", name);
        }
        for gid in &credentials.groups {
            found.add("supplementary_gid", gid);
            if let Some(name) = self.names.group(*gid).await? {
                found.add("supplementary_group", name);
            }
        }
        if let Some(executable) = &caller.executable {
            found.add("path", &executable.path);
            if let Some(digest) = self.digests.of(caller.process, executable).await? {
                found.add("sha256", digest);
            }
        }
        Ok(found.0)
    }
}

struct Found(Vec<Selector>);

impl Found {
    fn add(&mut self, what: &str, value: impl Display) {
        // Only an overlong path is refused: no entry can name it, either.
        if let Ok(selector) = Selector::new("unix", &format!("{what}:{value}")) {
            self.0.push(selector);
        }
    }
}
