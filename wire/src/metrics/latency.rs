//! How long something takes: a histogram of atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds, in microseconds: from a decision out of memory to a provider or a disk that does not answer.
const BOUNDS: [u64; 17] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// A histogram that never locks.
#[derive(Debug, Default)]
pub struct Latency {
    /// One for each bound, and one for what is above all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// What a [`Latency`] holds at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// All of them together, in seconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
    /// Upper bound in seconds, and how many are above the one before it.
    pub buckets: Vec<(f64, u64)>,
}

impl Latency {
    /// Counts one that took `elapsed`.
    pub fn observe(&self, elapsed: Duration) {
        let micros = elapsed.as_nanos().div_ceil(1000);
        let place = BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn observed(&self) -> Observed {
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
