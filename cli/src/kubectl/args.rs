//! The command line of `kubectl portcullis`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::args::{ConfigArg, GlobalArgs, TargetArg};

/// Tells why a request is decided as it is in the cluster, and what a change would do there.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl portcullis",
    bin_name = "kubectl portcullis",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Example:\n  kubectl portcullis explain -n shop deploy/web --from ns/shop/sa/cart GET /orders\n  \
        kubectl portcullis check -f change.yaml\n\n\
        Exit codes: 0 yes or clean, 1 could not run, 2 the answer is no (deny, errors, broken tests)."
)]
pub struct Kubectl {
    /// What to do.
    #[command(subcommand)]
    pub command: KubectlCommand,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How everything is printed.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Which cluster, as kubectl has it.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// The kubeconfig; without it $KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true, display_order = 800, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it the current one
    #[arg(long, global = true, display_order = 801, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace; without it the context's
    #[arg(long, short, global = true, display_order = 802, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How long the cluster may take to be read
    #[arg(long, global = true, display_order = 803, default_value = "60s", value_name = "TIME", value_parser = crate::ca::entry::lifetime)]
    pub request_timeout: std::time::Duration,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum KubectlCommand {
    /// Tell why a request to a workload is allowed or denied, by what is in force in the cluster
    #[command(
        after_help = "Example:\n  kubectl portcullis explain -n shop deploy/web --from ns/shop/sa/cart GET /orders\n  \
            kubectl portcullis explain pod/db-0 --from spiffe://cluster.local/ns/shop/sa/web --tcp --port 5432"
    )]
    Explain(ExplainArgs),
    /// Check a change against the cluster: what is wrong with it, and which tests it would break
    #[command(
        after_help = "Example:\n  kubectl portcullis check -f change.yaml\n  kustomize build . | kubectl portcullis check -f -"
    )]
    Check(CheckArgs),
}

/// `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The destination: a pod's name, or pod/NAME, svc/NAME, deploy/NAME, sts/NAME, ds/NAME, job/NAME
    #[arg(value_name = "WORKLOAD")]
    pub workload: String,
    /// Method and path of the request: GET / where nothing is said
    #[arg(value_name = "METHOD | PATH", num_args = 0..=2)]
    pub request: Vec<String>,
    /// Who asks: ns/NAMESPACE/sa/ACCOUNT or spiffe://...; without it a client without identity
    #[arg(long, value_name = "IDENTITY")]
    pub from: Option<String>,
    /// Address of the peer; without it that of a running pod of the identity
    #[arg(long, value_name = "IP")]
    pub from_ip: Option<IpAddr>,
    /// Host of the request; without it the workload's name, or the service's
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// A header of the request; may be given again
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE")]
    pub headers: Vec<String>,
    /// Port of the workload (of the service, for svc/NAME); without it the only one that it has
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// A TCP connection instead of an HTTP request
    #[arg(long, conflicts_with_all = ["request", "host", "headers"])]
    pub tcp: bool,
    /// Proxy that enforces; auto tells it by the workload's labels
    #[arg(long, value_enum, value_name = "TARGET")]
    pub target: Option<TargetArg>,
    /// Show every rule that selects the workload, not only those that told
    #[arg(long)]
    pub all: bool,
}

/// `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Files, folders (recursive) or `-` for standard input: the objects as they would be applied
    #[arg(long, short, required = true, num_args = 1.., value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// Exit with 2 on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
}
