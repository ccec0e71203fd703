//! Which decisions are told: a share of the allows, a share of the denials.

use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _};

/// A share, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// None.
    pub const NONE: Self = Self(0);
    /// One in a hundred.
    pub const PERCENT: Self = Self(10_000);
    /// All.
    pub const ALL: Self = Self(1_000_000);

    /// A share in millionths; more than all is all.
    #[must_use]
    pub fn millionths(millionths: u32) -> Self {
        Self(millionths).min(Self::ALL)
    }

    /// True for this share of the calls.
    #[must_use]
    pub fn draw(self) -> bool {
        match self {
            Self::ALL => true,
            Self::NONE => false,
            Self(share) => u64::from(share) > random() % u64::from(Self::ALL.0),
        }
    }
}

/// A span's name: eight bytes, not all zero.
pub(super) fn id() -> [u8; 8] {
    (random() << 32 ^ random()).max(1).to_be_bytes()
}

/// Numbers that are spread well and nobody relies on: an xorshift for each thread.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(
            std::hash::RandomState::new().build_hasher().finish() | 1,
        );
    }
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        // The low bits of a xorshift are its worst.
        x >> 11
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_about_its_share() {
        let drawn = |share: Share| (0..200_000).filter(|_| share.draw()).count();
        assert_eq!(drawn(Share::ALL), 200_000);
        assert_eq!(drawn(Share::NONE), 0);
        assert_eq!(Share::millionths(2_000_000), Share::ALL);
        // Twelve standard deviations.
        assert!((1460..=2540).contains(&drawn(Share::PERCENT)));
    }
}
