//! `portcullis-bench ca`: the certificate authority, a process of its own, measured through its own sockets.

mod channel;
mod entries;
mod issuing;
mod protocol;
mod report;
mod server;
mod streams;
mod waiting;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use prost::bytes::Bytes;

use channel::Channel;
use protocol::{Empty, Entry, FETCH_X509, Selector, X509Answer};
use report::Report;
use server::Server;

/// The trust domain of every server here.
const TRUST_DOMAIN: &str = "bench.example";
/// Identifier of the entry that the caller has.
const ENTRY: &str = "bench";

/// What `ca` measures, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The `portcullis` executable [default: the one beside this executable]
    #[arg(long)]
    portcullis: Option<PathBuf>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Measurements of each throughput; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Themes to be measured, all of them by default
    #[arg(long, value_delimiter = ',')]
    only: Vec<Theme>,
    /// Entries of the large registry
    #[arg(long, default_value_t = 100_000)]
    entries: usize,
    /// Idle streams
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Theme {
    /// Identities for workloads
    Workloads,
    /// SVIDs from CSRs, and tokens
    Issuing,
    /// Registration entries
    Entries,
    /// Idle streams, and changes for all of them
    Streams,
}

/// What every measurement needs.
struct Measuring {
    executable: PathBuf,
    length: Duration,
    rounds: usize,
    entries: usize,
    streams: usize,
    report: Report,
}

/// Measures and prints.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    crate::more_files()?;
    let mut measuring = Measuring {
        executable: crate::executable(options.portcullis.as_ref())?,
        length: crate::length(options.seconds),
        rounds: options.rounds.max(1),
        entries: options.entries,
        streams: options.streams,
        report: Report::default(),
    };
    let wanted = |theme| options.only.is_empty() || options.only.contains(&theme);
    if wanted(Theme::Streams) {
        streams::idle(&mut measuring).await?;
        streams::taint(&mut measuring).await?;
    }
    if wanted(Theme::Entries) {
        entries::create(&mut measuring).await?;
        entries::hold(&mut measuring).await?;
    }
    if wanted(Theme::Workloads) {
        waiting::for_an_entry(&mut measuring).await?;
    }
    if wanted(Theme::Workloads) || wanted(Theme::Issuing) {
        let server = Server::start(&measuring.executable).await?;
        server
            .create(vec![own(Entry::new(ENTRY, "/bench", &[]))])
            .await?;
        fetch(&server).await?;
        if wanted(Theme::Workloads) {
            waiting::with_an_entry(&mut measuring, &server).await?;
            waiting::open_and_close(&mut measuring, &server).await?;
        }
        if wanted(Theme::Issuing) {
            issuing::run(&mut measuring, &server).await?;
        }
    }
    measuring.report.print();
    Ok(())
}

/// The entry, for this process: whoever measures is the workload.
fn own(mut entry: Entry) -> Entry {
    let uid = rustix::process::geteuid().as_raw();
    entry.selectors = vec![Selector {
        kind: "unix".to_owned(),
        value: format!("uid:{uid}"),
    }];
    entry
}

/// The chain of the first SVID, on a new connection.
async fn fetch(server: &Server) -> anyhow::Result<Bytes> {
    fetch_on(&server.workload().await?).await
}

async fn fetch_on(channel: &Channel) -> anyhow::Result<Bytes> {
    let mut answers = channel.call(FETCH_X509, &Empty {}).await?;
    let answer: X509Answer = answers.next().await?.context("the stream ended")?;
    Ok(answer.svids.into_iter().next().context("no SVID")?.chain)
}
