//! Logs go to standard error: text for a person, JSON for a collector.

use std::io::IsTerminal;
use std::str::FromStr as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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

/// A word alone that is no level would be a part of the program, and silence all others.
fn is_no_level(word: &str) -> bool {
    let word = word.trim();
    !word.is_empty() && !word.contains(['=', '[']) && LevelFilter::from_str(word).is_err()
}

/// Starts logging. `level` is a level or a filter such as `portcullis_authz=debug`.
///
/// # Errors
/// When `level` is neither.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    if let Some(word) = level.split(',').find(|word| is_no_level(word)) {
        anyhow::bail!(
            "log level `{word}` is not one: use error, warn, info, debug, trace or off; for a part of the program \
             write `{word}=debug`"
        );
    }
    // The watcher of kube says of each attempt what we say once, its client the whole of what it cannot read.
    let quiet = match level.contains("kube") {
        true => "",
        false => ",kube_runtime=error,kube_client=error",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_none() {
        for level in [
            "info",
            "WARN",
            "off",
            "portcullis_authz=debug",
            "",
            " debug ",
        ] {
            assert!(!is_no_level(level), "{level}");
        }
        for level in ["verbose", "infos", "portcullis_authz"] {
            assert!(is_no_level(level), "{level}");
        }
        assert!(start("warn,verbose", LogFormat::Json).is_err());
    }
}
