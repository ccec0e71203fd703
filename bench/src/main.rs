//! Side by side: `portcullis authz serve` and servers that decide nothing, under the same load.
//!
//! ```text
//! portcullis-bench serving   -> starts each contender as a process, drives it, prints the ratios
//! portcullis-bench null-grpc -> a tonic server that decodes every CheckRequest and allows it
//! portcullis-bench null-http -> an axum server that answers 200
//! ```

mod contender;
mod grpc;
mod http1;
mod load;
mod null;
mod policies;
mod report;
mod serving;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
        Duration::try_from_secs_f64(self.seconds.max(0.1)).unwrap_or(Duration::from_secs(5))
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match Arguments::parse().command {
                Command::Serving(options) => serving::run(&options).await,
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
