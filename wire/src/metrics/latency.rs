//! How long something takes: a histogram of atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds, in microseconds: from a signature out of memory to a disk that is about to fail.
const BOUNDS: [u64; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// A histogram that never locks.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// One for each bound, and one for what is above all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// What a [`Latency`] holds at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound in seconds, and how many are above the one before it.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Latency {
    pub(crate) fn observe(&self, elapsed: Duration) {
        let micros = elapsed.as_nanos().div_ceil(1000);
        let place = BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        super::add(self.buckets.get(place), 1);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn observed(&self) -> Observed {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6);
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        Observed {
            sum: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9,
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}
