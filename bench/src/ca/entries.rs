//! Many entries: how long they take to create, what they occupy, what a look-up among them costs.

use std::fmt::Write as _;
use std::time::Instant;

use super::protocol::Entry;
use super::report::{Unit, quantile};
use super::server::Server;
use super::{Measuring, TRUST_DOMAIN, own};

/// Entries of one batch when a hundred thousand are created.
const BATCH: usize = 10_000;
/// Look-ups that are timed.
const LOOKS: u32 = 500;

fn entry(number: usize) -> Entry {
    let pod = format!("pod-name:app-{number}");
    Entry::new(
        "",
        &format!("/ns/default/sa/app-{number}"),
        &[("k8s", "ns:default"), ("k8s", &pod)],
    )
}

/// Creating ten thousand, over the API and from a file.
pub async fn create(measuring: &mut Measuring) -> anyhow::Result<()> {
    const COUNT: usize = 10_000;
    let server = Server::start(&measuring.executable).await?;
    let entries = (0..COUNT).map(entry).collect();
    let start = Instant::now();
    server.create(entries).await?;
    let report = &mut measuring.report;
    let took = start.elapsed().as_secs_f64();
    report.at_most(
        "10,000 entries by BatchCreateEntry",
        Unit::Seconds,
        2.0,
        took,
    );
    let mut text = String::from("entries:\n");
    for number in 0..COUNT {
        write!(
            text,
            "- spiffe_id: spiffe://{TRUST_DOMAIN}/file/{number}\n  selectors: [\"unix:uid:{}\"]\n",
            number + 1_000_000
        )?;
    }
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let path = file.path().display().to_string();
    let start = Instant::now();
    server.run(&["entry", "create", "-f", &path])?;
    let took = start.elapsed().as_secs_f64();
    report.at_most(
        "10,000 more by `ca entry create -f`",
        Unit::Seconds,
        2.0,
        took,
    );
    Ok(())
}

/// A hundred thousand: memory, start, look-ups.
pub async fn hold(measuring: &mut Measuring) -> anyhow::Result<()> {
    let mut server = Server::start(&measuring.executable).await?;
    let start = Instant::now();
    let count = measuring.entries;
    for first in (0..count).step_by(BATCH) {
        let last = count.min(first + BATCH);
        server.create((first..last).map(entry).collect()).await?;
    }
    server
        .create(vec![own(Entry::new(super::ENTRY, "/found", &[]))])
        .await?;
    let report = &mut measuring.report;
    let took = start.elapsed().as_secs_f64();
    report.tell(&format!("{count} entries created"), Unit::Seconds, took);
    report.at_most(
        &format!("resident after {count} were created"),
        Unit::Megabytes,
        500e6,
        server.resident()?,
    );
    server = server.restart().await?;
    report.at_most(
        &format!("start with {count} entries"),
        Unit::Seconds,
        3.0,
        server.took.as_secs_f64(),
    );
    super::fetch(&server).await?;
    report.at_most(
        "resident after that",
        Unit::Megabytes,
        500e6,
        server.resident()?,
    );
    // From the open connection: attestation, look-up and answer together.
    let channel = server.workload().await?;
    let mut times = Vec::new();
    for _ in 0..LOOKS {
        let start = Instant::now();
        super::fetch_on(&channel).await?;
        times.push(start.elapsed());
    }
    let p50 = quantile(&mut times, 0.5);
    report.at_most(
        &format!("look-up for a caller among {count} entries, stream and answer included, p50"),
        Unit::Millis,
        0.001,
        p50,
    );
    report.tell("the same, p99", Unit::Millis, quantile(&mut times, 0.99));
    Ok(())
}
