//! What operators see.

use super::{Key, key};

/// The keys, parents before children.
pub const KEYS: &[Key] = &[
    key(
        "management",
        "mapping",
        "none",
        "The listener for operators and their tools: plain HTTP, so on this machine or in a network that may know",
    ),
    key(
        "management.address",
        "`IP:PORT` or `unix:PATH`",
        "none",
        "Address of the socket. `/decisions` is answered to this machine only",
    ),
    key("log", "mapping", "empty", "Logs, on standard error"),
    key(
        "log.level",
        "level or filter",
        "`info`",
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `portcullis_authz=debug`. `--log-level` and PORTCULLIS_LOG win",
    ),
    key(
        "log.format",
        "`auto`, `human` or `json`",
        "`auto`",
        "`auto`: human on a terminal, else JSON. `--log-format` and PORTCULLIS_LOG_FORMAT win",
    ),
];
