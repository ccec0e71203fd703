//! Who is asking on a socket.

use std::sync::Arc;

use crate::selector::Selector;

/// A caller that was attested: what is known of it, and who it was, for the audit journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Everything that attestation found out, sorted, without duplicates. [`Caller::new`] sees to it.
    pub selectors: Arc<[Selector]>,
    /// Process ID as the kernel told it; `None` where there is no local process.
    pub pid: Option<u32>,
    /// User ID as the kernel told it.
    pub uid: Option<u32>,
    /// Group ID as the kernel told it.
    pub gid: Option<u32>,
    /// Path of the executable, where it is known.
    pub path: Option<Arc<str>>,
}

impl Caller {
    /// A caller with `selectors`, of which nothing else is known yet.
    #[must_use]
    pub fn new(mut selectors: Vec<Selector>) -> Self {
        selectors.sort_unstable();
        selectors.dedup();
        Self {
            selectors: selectors.into(),
            ..Self::default()
        }
    }
}
