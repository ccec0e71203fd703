//! Logs go to standard error: text for a person, JSON for a collector.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::{GlobalArgs, LogFormat};
use crate::config::Config;
use crate::out;

/// Starts the logging of a server: flags win over the configuration.
///
/// # Errors
/// As [`start`].
pub fn start_server(global: &GlobalArgs, config: &Config) -> anyhow::Result<()> {
    let level = global.log_level.as_deref().or(config.log_level.as_deref());
    let format = global.log_format.or(config.log_format);
    start(level.unwrap_or("info"), format.unwrap_or_default())
}

/// Starts logging. `level` is a level or a filter such as `portcullis_authz=debug`.
///
/// # Errors
/// When `level` is neither.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    // The watcher of kube says of each attempt what we say once.
    let quiet = match level.contains("kube") {
        true => "",
        false => ",kube_runtime=error",
    };
    let filter = EnvFilter::try_new(format!("{level}{quiet}")).map_err(|error| {
        anyhow::anyhow!(
            "log level `{level}` is not one: {error}; use error, warn, info, debug, trace, or a filter such as `portcullis_authz=debug`"
        )
    })?;
    let human = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(out::stderr_has_color());
    // A second start (a test calling `main` twice) keeps the first.
    let _ = if human {
        lines.with_target(false).try_init()
    } else {
        lines.json().flatten_event(true).try_init()
    };
    Ok(())
}
