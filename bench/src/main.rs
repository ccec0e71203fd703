//! Our servers measured: `portcullis ca serve` by what is wanted of it; side by side, `portcullis authz serve` and servers that decide nothing, under the same load.
//!
//! ```text
//! portcullis-bench ca        -> starts `portcullis ca serve`, drives it through its sockets, compares with what is wanted
//! portcullis-bench kubernetes -> starts `portcullis authz serve` on an API server with thousands of objects, changes pods
//! portcullis-bench serving   -> starts each contender as a process, drives it, prints the ratios
//! portcullis-bench null-grpc -> a tonic server that decodes every CheckRequest and allows it
//! portcullis-bench null-http -> an axum server that answers 200
//! ```

mod ca;
mod contender;
mod grpc;
mod http1;
mod kubernetes;
mod load;
mod null;
mod policies;
mod report;
mod serving;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

/// The allocator of the `portcullis` binary, so that the contenders differ in what they do alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures servers side by side.
#[derive(Debug, Parser)]
#[command(name = "portcullis-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Throughput, latency and memory of `authz serve`, against servers that decide nothing
    Serving(Serving),
    /// Identities, issuing, entries and streams of `ca serve`, against what is wanted of it
    Ca(ca::Options),
    /// Lag, processor time and memory of `authz serve` that follows an API server
    Kubernetes(kubernetes::Options),
    /// Serves gRPC Check: decodes the request and allows it
    #[command(hide = true)]
    NullGrpc,
    /// Serves HTTP: answers 200
    #[command(hide = true)]
    NullHttp,
}

/// What `serving` measures, and how.
#[derive(Debug, clap::Args)]
struct Serving {
    /// The `portcullis` executable [default: the one beside this executable]
    #[arg(long)]
    portcullis: Option<PathBuf>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Measurements of each contender, taken in turns; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of policies
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    policies: Vec<usize>,
    /// Open connections for the measurement of memory; 0 leaves it out
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Measure the servers that decide nothing alone, as a check of the harness
    #[arg(long)]
    null_only: bool,
}

impl Serving {
    fn length(&self) -> Duration {
        length(self.seconds)
    }
}

/// How long a measurement takes.
fn length(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.1)).unwrap_or(Duration::from_secs(5))
}

/// Thousands of connections are as many files, here and in the contenders. Root may have more than it was given.
fn more_files() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let many = Rlimit {
        current: Some(1 << 18),
        maximum: Some(1 << 18),
    };
    if setrlimit(Resource::Nofile, many).is_ok() {
        return Ok(());
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the number of open files")
}

/// The `portcullis` executable that was named, or the one beside this executable.
fn executable(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe()?;
            own.parent().unwrap_or(Path::new("")).join("portcullis")
        }
    };
    ensure!(
        path.is_file(),
        "there is no `{}`; build it with `cargo build --release -p portcullis`, or name it by `--portcullis`",
        path.display()
    );
    Ok(path)
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match Arguments::parse().command {
                Command::Serving(options) => serving::run(&options).await,
                Command::Ca(options) => ca::run(&options).await,
                Command::Kubernetes(options) => {
                    let portcullis = executable(options.portcullis.as_ref())?;
                    kubernetes::run(&options, &portcullis).await
                }
                Command::NullGrpc => null::grpc().await,
                Command::NullHttp => null::http().await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
