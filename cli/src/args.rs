//! The command line: nouns, then verbs. What clap parses and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portcullis_policy::request::{PathForm, Target};

/// Decides mesh policies for any proxy: Istio manifests in, a verdict with its reason out.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Example:\n  portcullis dev\n\n\
        Exit codes: 0 yes or clean, 1 could not run, 2 the answer is no (deny, errors)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How everything is printed.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Flags that every command takes; its help tells of its own first.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Form of the output: for people, or JSON lines for scripts
    #[arg(long, global = true, display_order = 900, value_enum, default_value_t = Output::Human, value_name = "FORM")]
    pub output: Output,
    /// When to use colour; `auto` means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, display_order = 901, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Least severe log line on standard error: error, warn, info, debug, trace, or a filter such as `portcullis_authz=debug`
    #[arg(
        long,
        global = true,
        display_order = 902,
        env = "PORTCULLIS_LOG",
        value_name = "LEVEL"
    )]
    pub log_level: Option<String>,
    /// Form of log lines; `auto` means human on a terminal, else JSON
    #[arg(
        long,
        global = true,
        display_order = 903,
        env = "PORTCULLIS_LOG_FORMAT",
        value_enum,
        value_name = "FORM"
    )]
    pub log_format: Option<LogFormat>,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    #[default]
    Auto,
    /// One line of text.
    Human,
    /// One JSON object per line.
    Json,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check, decide, explain and translate policies
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis policy check manifests/"
    )]
    Policy(PolicyCommand),
    /// Answer Envoy's external authorization requests
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis authz serve --config portcullis.yaml"
    )]
    Authz(AuthzCommand),
    /// Judge changes of policies before a cluster makes them: the validating webhook
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis admission webhook-config | kubectl apply -f -"
    )]
    Admission(crate::admission::args::AdmissionCommand),
    /// Print the custom resource definitions to install in a cluster: CedarPolicy, PolicyTest, ClusterSPIFFEID
    #[command(after_help = "Example:\n  portcullis crds | kubectl apply --server-side -f -")]
    Crds,
    /// Give workloads identities: the SPIFFE certificate authority
    #[command(subcommand, after_help = "Example:\n  portcullis ca serve")]
    Ca(crate::ca::args::CaCommand),
    /// Fetch, watch, validate and inspect SVIDs: the workload's side
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis svid inspect certs/svid.pem"
    )]
    Svid(crate::svid::args::SvidCommand),
    /// Try it: serve the shipped examples, replay requests, give services identities, reload as you edit
    #[command(
        after_help = "Example:\n  portcullis dev\n  ENVOY=/usr/bin/envoy portcullis dev --envoy"
    )]
    Dev(DevArgs),
    /// A service of `dev`'s example
    #[command(
        hide = true,
        after_help = "Example:\n  portcullis dev-service --name frontend --socket portcullis-dev/ca/workload.sock"
    )]
    DevService(DevServiceArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  portcullis completions bash > ~/.local/share/bash-completion/completions/portcullis"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Verbs of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Find what is wrong with manifests, before a cluster does
    #[command(
        after_help = "Example:\n  portcullis policy check manifests/\n  kustomize build . | portcullis policy check --deny-warnings -"
    )]
    Check(CheckArgs),
    /// Decide requests, one Envoy CheckRequest in JSON per line
    #[command(
        after_help = "Example:\n  portcullis policy decide --policies manifests/ --requests requests.jsonl\n  \
            portcullis policy decide --policies manifests/ --candidate change.yaml < requests.jsonl"
    )]
    Decide(DecideArgs),
    /// Tell why a request is allowed or denied, field by field
    #[command(
        after_help = "Example:\n  portcullis policy explain --policies manifests/ --requests request.json --all"
    )]
    Explain(ExplainArgs),
    /// Print the Cedar policies that manifests mean
    #[command(
        after_help = "Example:\n  portcullis policy translate manifests/\n  portcullis policy translate --schema"
    )]
    Translate(TranslateArgs),
    /// Run the cases of PolicyTests: what must be decided, is it?
    #[command(
        after_help = "Example:\n  portcullis policy test manifests/\n  portcullis policy test --output json policies.yaml tests.yaml"
    )]
    Test(TestArgs),
    /// Tell what a diagnostic's code means and what to do
    #[command(after_help = "Example:\n  portcullis policy explain-code PC0001")]
    ExplainCode {
        /// The code; without one, every code is listed
        #[arg(value_name = "PCxxxx")]
        code: Option<String>,
    },
}

/// Verbs of `authz`.
#[derive(Debug, Subcommand)]
pub enum AuthzCommand {
    /// Serve ext_authz, over gRPC and HTTP, until told to stop
    #[command(
        after_help = "Example:\n  portcullis authz serve --config portcullis.yaml\n  \
            portcullis authz serve --policies manifests/ --listen 127.0.0.1:9191"
    )]
    Serve(ServeArgs),
    /// Print the proxy's side of the configuration: what deploy/proxies ships, filled in
    #[command(
        after_help = "Example:\n  portcullis authz config nginx --config portcullis.yaml\n  \
            portcullis authz config haproxy --config portcullis.yaml --into haproxy/"
    )]
    Config(ConfigArgs),
    /// Follow the decisions of a running service, as they happen
    #[command(
        after_help = "Example:\n  portcullis authz tail --management 127.0.0.1:9901 --denied\n  \
            portcullis authz tail --config portcullis.yaml --denied --explain"
    )]
    Tail(TailArgs),
    /// Watch a running service: rates, latency, who is denied and why
    #[command(
        after_help = "Example:\n  portcullis authz top --management 127.0.0.1:9901\n  \
            portcullis authz top --config portcullis.yaml --once"
    )]
    Top(TopArgs),
}

/// `policy check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Files, folders (recursive) or `-` for standard input: YAML, JSON and Cedar
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Exit with 2 on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `--config`.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArg {
    /// Configuration file (YAML)
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What `decide` and `explain` read.
#[derive(Clone, Debug, Args)]
pub struct InputArgs {
    /// What is in force: files, folders (recursive) or `-` for standard input [env: PORTCULLIS_POLICIES=]
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub policies: Vec<PathBuf>,
    /// What is proposed: replaces its namesakes in --policies, or joins; each answer then carries both verdicts
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub candidate: Vec<PathBuf>,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Proxy that enforces, for requests that do not say it themselves
    #[arg(long, env = "PORTCULLIS_TARGET", value_enum, value_name = "TARGET")]
    pub target: Option<TargetArg>,
    /// How paths in the requests arrive: as the client sent them, or after the proxy's normalisation
    #[arg(long, env = "PORTCULLIS_PATH", value_enum, value_name = "FORM")]
    pub path: Option<PathArg>,
    /// Requests, one Envoy CheckRequest in protobuf JSON per line; `-` for standard input
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub requests: PathBuf,
    /// Decide as Envoy would with policies that got past Istio's webhook, errors included
    #[arg(long)]
    pub accept_invalid: bool,
}

/// `policy decide`.
#[derive(Clone, Debug, Args)]
pub struct DecideArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
}

/// `policy explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// Show every rule that selects the workload, not only those that told
    #[arg(long)]
    pub all: bool,
}

/// `policy translate`.
#[derive(Clone, Debug, Args)]
pub struct TranslateArgs {
    /// Files, folders (recursive) or `-` for standard input
    #[arg(required_unless_present = "schema", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print the Cedar schema that every policy is validated against
    #[arg(long, conflicts_with = "paths")]
    pub schema: bool,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `policy test`.
#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// Policies, inventory and PolicyTests: files, folders (recursive) or `-` for standard input; in place of `policies`
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `authz serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Address to serve on, `IP:PORT` or `unix:PATH`; in place of `listeners`
    #[arg(long, env = "PORTCULLIS_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,
    /// Files and folders to serve and watch; in place of `policies` [env: PORTCULLIS_POLICIES=]
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub policies: Vec<PathBuf>,
    /// Follow the Kubernetes API server of the current context, or of our own pod; `kubernetes` says more
    #[arg(long)]
    pub from_cluster: bool,
}

/// `authz tail`.
#[derive(Clone, Debug, Args)]
pub struct TailArgs {
    /// Where the service is seen from.
    #[command(flatten)]
    pub management: ManagementArg,
    /// Denials only
    #[arg(long)]
    pub denied: bool,
    /// Tell why, rule by rule, field by field
    #[arg(long)]
    pub explain: bool,
    /// End after this many decisions
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `authz top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Where the service is seen from.
    #[command(flatten)]
    pub management: ManagementArg,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub interval: f64,
    /// Print the view once, after one interval, instead of showing it
    #[arg(long)]
    pub once: bool,
}

/// `--management`.
#[derive(Clone, Debug, Args)]
pub struct ManagementArg {
    /// Address of the service's management listener; in place of `management.address`
    #[arg(long, env = "PORTCULLIS_MANAGEMENT", value_name = "ADDR")]
    pub management: Option<String>,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// `authz config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The proxy that asks
    #[arg(value_enum, value_name = "PROXY")]
    pub proxy: ProxyArg,
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Address of the listener that it asks, as `listeners` says it; else the first that it can ask
    #[arg(long, value_name = "ADDR")]
    pub listener: Option<String>,
    /// Write the files into this folder instead of printing them
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
}

/// A proxy that `authz config` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyArg {
    /// Envoy: ext_authz over gRPC, else its `http_service`.
    Envoy,
    /// nginx: `auth_request`.
    Nginx,
    /// ingress-nginx: annotations of an Ingress.
    IngressNginx,
    /// HAProxy: a Lua action.
    Haproxy,
    /// Apache httpd: a Lua hook.
    Apache,
    /// Traefik: forwardAuth.
    Traefik,
    /// Caddy: `forward_auth`.
    Caddy,
    /// Istio: an extension provider and a CUSTOM policy.
    Istio,
    /// Contour: an ExtensionService and an HTTPProxy.
    Contour,
    /// Envoy Gateway: a SecurityPolicy.
    EnvoyGateway,
}

/// `dev-service`: what `dev` starts.
#[derive(Debug, clap::Args)]
pub struct DevServiceArgs {
    /// Its name, the hint of its identity
    #[arg(long)]
    pub name: String,
    /// Socket of the Workload API
    #[arg(long)]
    pub socket: PathBuf,
    /// The ext_authz service to ask; without one it asks others
    #[arg(long)]
    pub authz: Option<SocketAddr>,
}

/// `dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Start a real Envoy too (on PATH, or ENVOY=/path/to/envoy) in front of an echo service
    #[arg(long)]
    pub envoy: bool,
    /// Address to serve ext_authz on
    #[arg(
        long,
        env = "PORTCULLIS_LISTEN",
        default_value = "127.0.0.1:9191",
        value_name = "ADDR"
    )]
    pub listen: String,
    /// Address of that Envoy
    #[arg(
        long,
        default_value = "127.0.0.1:10000",
        value_name = "ADDR",
        requires = "envoy"
    )]
    pub envoy_listen: SocketAddr,
    /// Policies to serve instead of the shipped examples
    #[arg(long, num_args = 1.., value_name = "PATH")]
    pub policies: Vec<PathBuf>,
    /// Folder that the shipped examples are written to, for you to edit, with the data of a certificate authority
    /// beside them; existing files are kept
    #[arg(long, default_value = "portcullis-dev", value_name = "DIR")]
    pub dir: PathBuf,
    /// Lifetime of the SVIDs of the example's services: short, so that one sees them renewed
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = crate::ca::entry::lifetime)]
    pub svid_ttl: std::time::Duration,
    /// Follow the cluster of this kubeconfig's current context in place of the examples: its policies are served, beside
    /// those of --policies, and an admission webhook judges changes of them
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of that webhook
    #[arg(
        long,
        default_value = "127.0.0.1:9443",
        value_name = "ADDR",
        requires = "kubeconfig"
    )]
    pub admission_listen: SocketAddr,
    /// Stop after the requests have been replayed
    #[arg(long)]
    pub once: bool,
}

/// `--target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// Told by the workload's labels and the gateways that select it.
    Auto,
    /// An Envoy beside the workload.
    Sidecar,
    /// A gateway.
    Gateway,
    /// An ambient waypoint.
    Waypoint,
    /// The ambient node proxy.
    Ztunnel,
}

impl TargetArg {
    /// The engine's target; `None` is `auto`.
    #[must_use]
    pub fn target(self) -> Option<Target> {
        match self {
            Self::Auto => None,
            Self::Sidecar => Some(Target::Sidecar),
            Self::Gateway => Some(Target::Gateway),
            Self::Waypoint => Some(Target::Waypoint),
            Self::Ztunnel => Some(Target::Ztunnel),
        }
    }
}

/// `--path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PathArg {
    /// As the client sent it.
    Raw,
    /// After the proxy's own normalisation.
    Normalised,
}

impl From<PathArg> for PathForm {
    fn from(path: PathArg) -> Self {
        match path {
            PathArg::Raw => Self::Raw,
            PathArg::Normalised => Self::Normalised,
        }
    }
}
