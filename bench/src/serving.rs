//! `portcullis-bench serving`: who is measured, in which order, and what is made of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::Serving;
use crate::contender::Contender;
use crate::load::{Caller, Requests, at_rate, full};
use crate::report::{Row, table};
use crate::{grpc, http1, policies};

/// gRPC connections, and questions at once on each.
const GRPC: (usize, usize) = (8, 8);
/// HTTP connections.
const HTTP: usize = 32;

/// Shares of the allows in the decision log: the default, and all.
const LOGGED: [&str; 2] = ["1%", "100%"];

/// Rest after a contender was started, and after each measurement.
const REST: Duration = Duration::from_millis(200);

/// A contender and the requests it is driven with.
struct Entry {
    row: Row,
    server: usize,
    listener: usize,
    requests: Requests,
}

/// Measures and prints.
pub async fn run(options: &Serving) -> anyhow::Result<()> {
    crate::more_files()?;
    let executable = executable(options)?;
    let mut servers = vec![Contender::null("null-grpc")?, Contender::null("null-http")?];
    let mut grpc_rows = vec![entry("null tonic server", 0, 0, Requests::Fresh)];
    let mut http_rows = vec![entry("null axum server", 1, 0, Requests::Fresh)];
    // Their files live as long as they do.
    let mut folders: Vec<TempDir> = Vec::new();
    let mut flat = Vec::new();
    if let Some(executable) = &executable {
        let mut sets: Vec<(usize, Option<&str>)> =
            options.policies.iter().map(|n| (*n, None)).collect();
        if let Some(count) = options.policies.iter().find(|n| **n == 100) {
            sets.extend(LOGGED.map(|share| (*count, Some(share))));
        }
        for (count, logged) in sets {
            let folder = tempfile::tempdir()?;
            let config = policies::write(folder.path(), count, logged)?;
            servers.push(Contender::portcullis(executable, &config, 2)?);
            folders.push(folder);
            let server = servers.len() - 1;
            let seen = logged.map_or(String::new(), |share| format!(", {share} of allows logged"));
            let name = |how: &str| format!("portcullis, {count} policies{seen}{how}");
            if logged.is_none() {
                flat.push((count, grpc_rows.len()));
            }
            grpc_rows.push(entry(&name(""), server, 0, Requests::Fresh));
            grpc_rows.push(entry(&name(", remembered"), server, 0, Requests::Repeated));
            http_rows.push(entry(&name(""), server, 1, Requests::Fresh));
        }
    }
    tokio::time::sleep(REST).await;
    let grpc = drive(options, &servers, grpc_rows, GRPC, grpc::Connection::open).await?;
    let http = drive(
        options,
        &servers,
        http_rows,
        (HTTP, 1),
        http1::Connection::open,
    )
    .await?;
    table("gRPC Check", &grpc);
    table("HTTP", &http);
    flatness(&flat, &grpc);
    drop(servers);
    if options.connections > 0 {
        memory(executable.as_deref(), options.connections).await?;
    }
    Ok(())
}

fn entry(name: &str, server: usize, listener: usize, requests: Requests) -> Entry {
    Entry {
        row: Row::new(name),
        server,
        listener,
        requests,
    }
}

/// Measures every entry in turn, round after round: what else the machine does hits all alike.
async fn drive<C, F>(
    options: &Serving,
    servers: &[Contender],
    mut entries: Vec<Entry>,
    (connections, at_once): (usize, usize),
    open: impl Fn(std::net::SocketAddr) -> F,
) -> anyhow::Result<Vec<Row>>
where
    C: Caller,
    F: Future<Output = anyhow::Result<C>>,
{
    let length = options.length();
    for round in 0..options.rounds.max(1) {
        let mut null_rate = None;
        for entry in &mut entries {
            eprintln!("round {}: {}", round + 1, entry.row.name);
            let server = servers.get(entry.server).context("a server")?;
            let address = server.address(entry.listener)?;
            let mut callers = Vec::new();
            for _ in 0..connections {
                callers.push(open(address).await?);
            }
            let measured = full(server, &callers, at_once, entry.requests, length).await?;
            // The first is the server that decides nothing.
            let rate = *null_rate.get_or_insert(measured.rate) / 2.0;
            entry.row.full.push(measured);
            // Where a connection takes one question at a time, a question waits for the one before it: with
            // more connections, what is measured is the server and not the queue in front of it.
            while at_once == 1 && callers.len() < 4 * connections {
                callers.push(open(address).await?);
            }
            tokio::time::sleep(REST).await;
            let measured = at_rate(server, &callers, rate, entry.requests, length).await?;
            entry.row.half.push(measured);
            drop(callers);
            tokio::time::sleep(REST).await;
        }
    }
    Ok(entries.into_iter().map(|entry| entry.row).collect())
}

/// Prints what the most policies cost, measured by what few cost.
fn flatness(flat: &[(usize, usize)], rows: &[Row]) {
    let few = flat.iter().find(|(count, _)| *count == 10).or(flat.first());
    let (Some((few, one)), Some((many, other))) = (few, flat.last()) else {
        return;
    };
    if let (Some(one), Some(other)) = (rows.get(*one), rows.get(*other)) {
        println!(
            "\nCPU per answer at {many} policies: {:.2} x that at {few}; throughput: {:.2} x.",
            other.cpu() / one.cpu(),
            other.rate() / one.rate()
        );
    }
}

/// Prints resident memory of new processes with many open connections, each of which has asked once.
async fn memory(executable: Option<&Path>, connections: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = policies::write(folder.path(), 100, None)?;
    let start = |null| match executable {
        Some(executable) => Contender::portcullis(executable, &config, 2),
        None => Contender::null(null),
    };
    let server = start("null-grpc")?;
    held(
        &server,
        "gRPC",
        connections,
        server.address(0)?,
        grpc::Connection::open,
    )
    .await?;
    let server = start("null-http")?;
    let last = server.addresses.len().saturating_sub(1);
    held(
        &server,
        "HTTP",
        connections,
        server.address(last)?,
        http1::Connection::open,
    )
    .await
}

async fn held<C, F>(
    server: &Contender,
    what: &str,
    connections: usize,
    address: std::net::SocketAddr,
    open: impl Fn(std::net::SocketAddr) -> F,
) -> anyhow::Result<()>
where
    C: Caller,
    F: Future<Output = anyhow::Result<C>>,
{
    tokio::time::sleep(REST).await;
    let before = server.resident()?;
    let mut all = Vec::new();
    for _ in 0..connections {
        let caller = open(address).await?;
        caller.ask(None).await?;
        all.push(caller);
    }
    tokio::time::sleep(REST).await;
    println!(
        "\nResident with {connections} open {what} connections: {:.1} MB; before them: {:.1} MB.",
        server.resident()? as f64 / 1e6,
        before as f64 / 1e6
    );
    Ok(())
}

/// `None` where it is not to be measured.
fn executable(options: &Serving) -> anyhow::Result<Option<PathBuf>> {
    if options.null_only {
        return Ok(None);
    }
    crate::executable(options.portcullis.as_ref()).map(Some)
}
