//! How soon a workload has its identity.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Measuring;
use super::channel::{Channel, DENIED, Refused};
use super::protocol::{Empty, Entry, FETCH_X509, X509Answer};
use super::report::{Unit, quantile};
use super::server::Server;
use crate::load::{Caller, Requests, full};

/// Callers that open and close streams.
const CALLERS: usize = 32;
/// Workloads that wait for one entry.
const WAITING: usize = 10;
/// Entries that they wait for, one after the other.
const ENTRIES: u32 = 30;

/// Opens a stream and reads the first message; a refusal is asked again at once, as a waiting workload does.
async fn first(channel: &Channel) -> anyhow::Result<X509Answer> {
    loop {
        let refused = match once(channel).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match refused.downcast::<Refused>() {
            Ok(Refused { code: DENIED, .. }) => {}
            Ok(other) => return Err(other.into()),
            Err(other) => return Err(other),
        }
    }
}

/// Opens a stream, reads and checks the first message, and closes it.
async fn once(channel: &Channel) -> anyhow::Result<X509Answer> {
    let mut answers = channel.call(FETCH_X509, &Empty {}).await?;
    let answer: X509Answer = answers.next().await?.context("the stream ended")?;
    let svid = answer.svids.first().context("no SVID")?;
    ensure!(
        !(svid.chain.is_empty() || svid.key.is_empty() || svid.bundle.is_empty()),
        "an SVID lacks a part"
    );
    Ok(answer)
}

/// From the admin API's answer to an entry to the SVID of those who waited for it.
pub async fn for_an_entry(measuring: &mut Measuring) -> anyhow::Result<()> {
    let server = Server::start(&measuring.executable).await?;
    let mut times = Vec::new();
    for number in 0..ENTRIES {
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..WAITING {
            let channel = server.workload().await?;
            waiting.spawn(async move {
                first(&channel).await?;
                anyhow::Ok(Instant::now())
            });
        }
        // Some wait for a moment, some longer than a call without identity is held.
        tokio::time::sleep(Duration::from_millis(u64::from(20 + number % 10 * 130))).await;
        let id = format!("waiting-{number}");
        let entry = Entry::new(&id, "/waiting", &[("unix", "uid:0")]);
        server.create(vec![super::own(entry)]).await?;
        let created = Instant::now();
        while let Some(received) = waiting.join_next().await {
            times.push(received??.saturating_duration_since(created));
        }
        server.delete(vec![id]).await?;
    }
    let report = &mut measuring.report;
    report.tell(
        "identity for a workload already waiting, p50",
        Unit::Millis,
        quantile(&mut times, 0.5),
    );
    report.at_most(
        "identity for a workload already waiting, p99",
        Unit::Millis,
        0.1,
        quantile(&mut times, 0.99),
    );
    Ok(())
}

/// From connect to SVID, one after the other, each on a connection of its own.
pub async fn with_an_entry(measuring: &mut Measuring, server: &Server) -> anyhow::Result<()> {
    let end = Instant::now() + measuring.length;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        once(&server.workload().await?).await?;
        times.push(start.elapsed());
        // At some distance from each other, as callers come.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = &mut measuring.report;
    report.tell(
        "connect to SVID, p50",
        Unit::Millis,
        quantile(&mut times, 0.5),
    );
    report.at_most(
        "connect to SVID, p99",
        Unit::Millis,
        0.005,
        quantile(&mut times, 0.99),
    );
    Ok(())
}

#[derive(Clone)]
struct OnOneConnection(Channel);

impl Caller for OnOneConnection {
    async fn ask(&self, _: Option<u64>) -> anyhow::Result<()> {
        once(&self.0).await.map(drop)
    }
}

#[derive(Clone)]
struct OnNewConnections(std::path::PathBuf);

impl Caller for OnNewConnections {
    async fn ask(&self, _: Option<u64>) -> anyhow::Result<()> {
        once(&Channel::open(&self.0).await?).await.map(drop)
    }
}

/// Streams opened and closed, as fast as it goes.
pub async fn open_and_close(measuring: &mut Measuring, server: &Server) -> anyhow::Result<()> {
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(OnOneConnection(server.workload().await?));
    }
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..measuring.rounds {
        let measured = full(
            &server.process,
            &callers,
            1,
            Requests::Repeated,
            measuring.length,
        )
        .await?;
        rates.push(measured.rate);
        costs.push(measured.cpu.as_secs_f64());
    }
    let report = &mut measuring.report;
    report.at_least(
        "FetchX509SVID opened and closed, 32 callers",
        Unit::Rate,
        12_000.0,
        super::report::median(&rates),
    );
    report.tell(
        "server CPU of each",
        Unit::Micros,
        super::report::median(&costs),
    );
    let callers = vec![OnNewConnections(server.workloads()); CALLERS];
    let measured = full(
        &server.process,
        &callers,
        1,
        Requests::Repeated,
        measuring.length,
    )
    .await?;
    let report = &mut measuring.report;
    report.tell("the same, a connection each", Unit::Rate, measured.rate);
    report.tell(
        "server CPU of each",
        Unit::Micros,
        measured.cpu.as_secs_f64(),
    );
    Ok(())
}
