//! `portcullis admission webhook-config`: what an API server is told of this service.

use std::io::Write as _;

use portcullis_admission::webhook::{self, Destination, FailurePolicy, Options};

use super::args::{FailurePolicyArg, WebhookConfigArgs};
use crate::config::Config;
use crate::exit::Exit;
use crate::out;

/// Prints the configuration.
///
/// # Errors
/// When the configuration cannot be read.
pub fn run(args: &WebhookConfigArgs) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?.admission;
    let usual = Options::default();
    let namespace = args.namespace.clone().or(config.namespace);
    let namespace = namespace.unwrap_or(usual.namespace);
    let destination = match &args.url {
        Some(url) => {
            anyhow::ensure!(
                url.starts_with("https://"),
                "`{url}` is no https URL: API servers speak to webhooks over TLS only"
            );
            Destination::Url(url.clone())
        }
        None => Destination::Service {
            namespace: namespace.clone(),
            name: config
                .service
                .unwrap_or_else(|| webhook::CONFIGURATION.to_owned()),
        },
    };
    let options = Options {
        name: args
            .name
            .clone()
            .or(config.webhook_configuration)
            .unwrap_or(usual.name),
        destination,
        namespace,
        service_account: Some(args.service_account.clone()),
        failure_policy: match args.failure_policy {
            FailurePolicyArg::Fail => FailurePolicy::Fail,
            FailurePolicyArg::Ignore => FailurePolicy::Ignore,
        },
        timeout_seconds: args.timeout_seconds,
    };
    let mut stdout = out::stdout();
    stdout.write_all(webhook::yaml(&options).as_bytes())?;
    stdout.flush()?;
    Ok(Exit::Yes)
}
