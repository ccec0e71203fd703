//! What clap parses of `portcullis admission`.

use std::net::SocketAddr;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::ConfigArg;

/// Verbs of `admission`.
#[derive(Debug, Subcommand)]
pub enum AdmissionCommand {
    /// Serve the validating webhook, over https, until told to stop
    #[command(
        after_help = "Example:\n  portcullis admission serve --config portcullis.yaml\n  \
            portcullis admission serve --listen 127.0.0.1:9443"
    )]
    Serve(ServeArgs),
    /// Print the ValidatingWebhookConfiguration that has an API server ask this service
    #[command(
        after_help = "Example:\n  portcullis admission webhook-config | kubectl apply -f -\n  \
            portcullis admission webhook-config --url https://192.0.2.1:9443 --failure-policy ignore"
    )]
    WebhookConfig(WebhookConfigArgs),
}

/// `admission serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Address to serve on; in place of `admission.listen`
    #[arg(long, env = "PORTCULLIS_ADMISSION_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// `admission webhook-config`.
#[derive(Clone, Debug, Args)]
pub struct WebhookConfigArgs {
    /// Which configuration to read.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Name of the configuration; in place of `admission.webhook_configuration`
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Our own namespace, which is never sent to us; in place of `admission.namespace`
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Our own service account, whose changes are not sent to us
    #[arg(long, default_value = "portcullis-admission", value_name = "NAME")]
    pub service_account: String,
    /// URL of this service outside the cluster, `https://HOST:PORT`, in place of the Service
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// What the API server does when this service does not decide
    #[arg(long, value_enum, default_value_t = FailurePolicyArg::Fail, value_name = "POLICY")]
    pub failure_policy: FailurePolicyArg,
    /// How long the API server waits
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=30), value_name = "SECONDS")]
    pub timeout_seconds: u8,
}

/// `--failure-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailurePolicyArg {
    /// The change is refused.
    Fail,
    /// The change is made unseen.
    Ignore,
}
