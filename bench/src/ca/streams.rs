//! Many streams: what they occupy, and how soon all of them know of a change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

use super::channel::Channel;
use super::protocol::{
    ACTIVATE, AUTHORITIES, Authorities, Empty, FETCH_X509, Name, OneAuthority, PREPARE, TAINT,
    X509Answer,
};
use super::report::{Unit, quantile};
use super::server::Server;
use super::{Measuring, own};

/// Longest wait for one message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Streams, and what they were told since.
struct Streams {
    told: mpsc::UnboundedReceiver<Told>,
    tasks: tokio::task::JoinSet<()>,
}

struct Told {
    stream: usize,
    at: Instant,
    answer: X509Answer,
}

impl Streams {
    /// Opens `count` more, each on a connection of its own, and waits until each has its first message.
    async fn open(count: usize, server: &Server) -> anyhow::Result<Self> {
        let (tell, told) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        let socket: Arc<std::path::Path> = server.workloads().into();
        // Not all at once: a socket's queue is short.
        let turns = Arc::new(tokio::sync::Semaphore::new(64));
        for stream in 0..count {
            let (tell, socket, turns) = (tell.clone(), Arc::clone(&socket), Arc::clone(&turns));
            tasks.spawn(async move {
                let Ok(turn) = turns.acquire().await else {
                    return;
                };
                let Ok(channel) = Channel::open(&socket).await else {
                    return;
                };
                let Ok(mut answers) = channel.call(FETCH_X509, &Empty {}).await else {
                    return;
                };
                let mut turn = Some(turn);
                while let Ok(Some(answer)) = answers.next().await {
                    turn = None;
                    let _ = tell.send(Told {
                        stream,
                        at: Instant::now(),
                        answer,
                    });
                }
                drop(turn);
            });
        }
        let mut streams = Self { told, tasks };
        streams.all(|_| true).await?;
        Ok(streams)
    }

    /// Waits until each has been told something that `counts`; says when each was.
    async fn all(&mut self, counts: impl Fn(&X509Answer) -> bool) -> anyhow::Result<Vec<Instant>> {
        let mut when = vec![None; self.tasks.len()];
        let mut missing = when.len();
        while missing > 0 {
            let Ok(told) = tokio::time::timeout(PATIENCE, self.told.recv()).await else {
                bail!("{missing} of {} streams were told nothing", when.len());
            };
            let told = told.context("every stream has ended")?;
            let place = when.get_mut(told.stream).context("a stream")?;
            if place.is_none() && counts(&told.answer) {
                *place = Some(told.at);
                missing -= 1;
            }
        }
        Ok(when.into_iter().flatten().collect())
    }
}

/// Memory of idle streams, and a bundle that changes for all of them.
pub async fn idle(measuring: &mut Measuring) -> anyhow::Result<()> {
    let server = Server::start(&measuring.executable).await?;
    server
        .create(vec![own(super::protocol::Entry::new(
            super::ENTRY,
            "/idle",
            &[],
        ))])
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = &mut measuring.report;
    report.at_most("resident, idle", Unit::Megabytes, 30e6, server.resident()?);
    super::fetch(&server).await?;
    let before = server.resident()?;
    let some = 1_000.min(measuring.streams);
    let first = Streams::open(some, &server).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    report.at_most(
        &format!("{some} idle streams, a connection each, occupy"),
        Unit::Megabytes,
        20e6,
        server.resident()? - before,
    );
    drop(first);
    let count = measuring.streams;
    let start = Instant::now();
    let mut all = Streams::open(count, &server).await?;
    report.tell(
        &format!("{count} streams opened"),
        Unit::Seconds,
        start.elapsed().as_secs_f64(),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    report.at_most(
        &format!("{count} idle streams, a connection each, occupy"),
        Unit::Megabytes,
        200e6,
        server.resident()? - before,
    );
    let admin = server.admin().await?;
    let start = Instant::now();
    let cpu = server.process.cpu()?;
    let _: OneAuthority = admin.unary(PREPARE, &Empty {}).await?;
    let mut times: Vec<Duration> = all
        .all(|_| true)
        .await?
        .into_iter()
        .map(|at| at.saturating_duration_since(start))
        .collect();
    report.at_most(
        &format!("a bundle change reaches the last of {count} streams after"),
        Unit::Seconds,
        2.0,
        quantile(&mut times, 1.0),
    );
    report.tell(
        "server CPU for it",
        Unit::Seconds,
        server.process.cpu()?.saturating_sub(cpu).as_secs_f64(),
    );
    report.at_most(
        "resident after that",
        Unit::Megabytes,
        200e6 + before,
        server.resident()?,
    );
    Ok(())
}

/// From the order to taint an authority to the new SVID of a hundred streams.
pub async fn taint(measuring: &mut Measuring) -> anyhow::Result<()> {
    let server = Server::start(&measuring.executable).await?;
    server
        .create(vec![own(super::protocol::Entry::new(
            super::ENTRY,
            "/tainted",
            &[],
        ))])
        .await?;
    let admin = server.admin().await?;
    let mut times = Vec::new();
    for _ in 0..measuring.rounds.max(3) {
        let state: Authorities = admin.unary(AUTHORITIES, &Empty {}).await?;
        let old = state.active.context("an active authority")?.id;
        let mut streams = Streams::open(100, &server).await?;
        let next: OneAuthority = admin.unary(PREPARE, &Empty {}).await?;
        // The bundle has grown, the SVID is the same.
        streams.all(|_| true).await?;
        let id = next.authority.context("a prepared authority")?.id;
        let _: OneAuthority = admin.unary(ACTIVATE, &Name { authority_id: id }).await?;
        let before = super::fetch(&server).await?;
        let start = Instant::now();
        let _: OneAuthority = admin.unary(TAINT, &Name { authority_id: old }).await?;
        let told = streams
            .all(|answer| {
                answer
                    .svids
                    .first()
                    .is_some_and(|svid| svid.chain != before)
            })
            .await?;
        times.extend(
            told.into_iter()
                .map(|at| at.saturating_duration_since(start)),
        );
    }
    let report = &mut measuring.report;
    report.tell(
        "taint to new SVID, 100 streams, p50",
        Unit::Millis,
        quantile(&mut times, 0.5),
    );
    report.at_most(
        "taint to new SVID, the last of 100 streams",
        Unit::Millis,
        0.2,
        quantile(&mut times, 1.0),
    );
    Ok(())
}
