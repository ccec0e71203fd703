//! Load: as fast as answers come, or at a rate; what is measured is the same.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::contender::Contender;

/// Whether a request is one that was asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// Each differs from all others: nothing can be remembered.
    Fresh,
    /// All are the same.
    Repeated,
}

/// One connection that asks one question after the other, or several at once.
pub trait Caller: Clone + Send + 'static {
    /// Asks once; an answer that is not the expected one is an error.
    fn ask(&self, number: Option<u64>) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Answers in a second.
    pub rate: f64,
    /// Time to an answer that half of them had.
    pub p50: Duration,
    /// Time to an answer that 99 of 100 had.
    pub p99: Duration,
    /// The server's processor time for one answer.
    pub cpu: Duration,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

fn number(requests: Requests) -> Option<u64> {
    (requests == Requests::Fresh).then(|| NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    // Nanoseconds, up to a minute, two digits.
    Histogram::new_with_bounds(1, 60_000_000_000, 2).context("a histogram")
}

fn record(histogram: &mut Histogram<u64>, since: Instant) {
    let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(nanos);
}

fn measured(all: &Histogram<u64>, took: Duration, cpu: Duration) -> Measured {
    let at = |quantile| Duration::from_nanos(all.value_at_quantile(quantile));
    let answers = all.len().max(1);
    Measured {
        rate: all.len() as f64 / took.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu / u32::try_from(answers).unwrap_or(u32::MAX),
    }
}

/// Keeps `at_once` questions open on every connection for `length`, after a tenth of it to warm up.
pub async fn full<C: Caller>(
    server: &Contender,
    callers: &[C],
    at_once: usize,
    requests: Requests,
    length: Duration,
) -> anyhow::Result<Measured> {
    let warm = Instant::now() + length / 10;
    let end = warm + length;
    let mut tasks = tokio::task::JoinSet::new();
    for caller in callers {
        for _ in 0..at_once {
            let caller = caller.clone();
            tasks.spawn(async move {
                let mut seen = histogram()?;
                loop {
                    let sent = Instant::now();
                    if sent >= end {
                        return anyhow::Ok(seen);
                    }
                    caller.ask(number(requests)).await?;
                    if sent >= warm {
                        record(&mut seen, sent);
                    }
                }
            });
        }
    }
    tokio::time::sleep_until(warm.into()).await;
    let before = server.cpu()?;
    tokio::time::sleep_until(end.into()).await;
    let cpu = server.cpu()?.saturating_sub(before);
    let mut all = histogram()?;
    while let Some(seen) = tasks.join_next().await {
        all.add(seen??)?;
    }
    Ok(measured(&all, length, cpu))
}

/// Asks `rate` times a second for `length`, whether or not answers come.
pub async fn at_rate<C: Caller>(
    server: &Contender,
    callers: &[C],
    rate: f64,
    requests: Requests,
    length: Duration,
) -> anyhow::Result<Measured> {
    let all = Arc::new(std::sync::Mutex::new(histogram()?));
    let mut tasks = tokio::task::JoinSet::new();
    let before = server.cpu()?;
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let (mut sent, mut next) = (0_u64, callers.iter().cycle());
    while start.elapsed() < length {
        tick.tick().await;
        let due = (start.elapsed().as_secs_f64() * rate) as u64;
        while sent < due {
            sent += 1;
            let caller = next.next().context("no caller")?.clone();
            let all = Arc::clone(&all);
            tasks.spawn(async move {
                let sent = Instant::now();
                caller.ask(number(requests)).await?;
                if let Ok(mut all) = all.lock() {
                    record(&mut all, sent);
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let took = start.elapsed();
    let cpu = server.cpu()?.saturating_sub(before);
    let all = all
        .lock()
        .map_err(|_| anyhow::anyhow!("a caller panicked"))?;
    Ok(measured(&all, took, cpu))
}
