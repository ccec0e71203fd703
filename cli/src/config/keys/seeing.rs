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
    key(
        "decision_log",
        "mapping",
        "empty",
        "What is told of decisions. What it says of queries, headers and claims holds for `/decisions` and for spans, too",
    ),
    key(
        "decision_log.output",
        "`none`, `stdout`, `file` or `otlp`",
        "`none`",
        "Where the decision log goes: JSON lines, or OTLP logs",
    ),
    key(
        "decision_log.file",
        "path",
        "required with `file`",
        "The file, relative to this one. A file that somebody else has put aside is opened anew within a second",
    ),
    key(
        "decision_log.rotate_bytes",
        "number",
        "`104857600`",
        "Size at which the file is put aside, as `FILE.1` and so on",
    ),
    key(
        "decision_log.keep",
        "number",
        "`5`",
        "Files that are kept beside the one that is written",
    ),
    key(
        "decision_log.allows",
        "percentage",
        "`1%`",
        "Share of the allows that are logged",
    ),
    key(
        "decision_log.denies",
        "percentage",
        "`100%`",
        "Share of the denials that are logged",
    ),
    key(
        "decision_log.queue",
        "number",
        "`4096`",
        "Decisions that wait to be written, at most. More are lost, and counted: a verdict never waits for the log",
    ),
    key(
        "decision_log.query",
        "`drop`, `names` or `keep`",
        "`drop`",
        "What is told of query strings: nothing, the names of the parameters, or all but what looks like a credential",
    ),
    key(
        "decision_log.headers",
        "list of names, or `*`",
        "none",
        "Headers that are told. Values of `authorization`, `proxy-authorization`, `cookie` and `set-cookie`, and whatever looks like a token, show as `***`",
    ),
    key(
        "decision_log.claims",
        "list of names, or `*`",
        "none",
        "Claims of verified tokens that are told",
    ),
    key(
        "decision_log.mask",
        "list of names",
        "none",
        "Headers and claims among them whose values show as `***`",
    ),
    key("otlp", "mapping", "none", "The OpenTelemetry collector"),
    key(
        "otlp.endpoint",
        "`http://HOST:PORT` or `https://HOST:PORT`",
        "`OTEL_EXPORTER_OTLP_ENDPOINT`",
        "Its address for OTLP over gRPC, usually port 4317. Where this and the keys beside it are left out, the variables of OpenTelemetry count, if `otlp` is there at all",
    ),
    key(
        "otlp.ca_file",
        "path",
        "`OTEL_EXPORTER_OTLP_CERTIFICATE`, else the platform's",
        "Certificate authorities of the collector (PEM), relative to this file",
    ),
    key(
        "otlp.certificate_file",
        "path",
        "`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, else none",
        "Our certificate for the collector (PEM), relative to this file. Files of TLS are read again when the collector cannot be reached",
    ),
    key(
        "otlp.key_file",
        "path",
        "`OTEL_EXPORTER_OTLP_CLIENT_KEY`, else none",
        "Its private key (PEM)",
    ),
    key(
        "otlp.headers",
        "mapping",
        "`OTEL_EXPORTER_OTLP_HEADERS`, else none",
        "What each message is sent with, by name, such as `authorization`. Values are never logged",
    ),
    key(
        "otlp.headers{}",
        "text, `{file: PATH}` or `{env: NAME}`",
        "-",
        "The value, or where it is",
    ),
    key(
        "otlp.headers{}.file",
        "path",
        "none",
        "File with the value, relative to this one, read again within a second of a change",
    ),
    key(
        "otlp.headers{}.env",
        "name",
        "none",
        "Variable of the environment with the value",
    ),
    key(
        "otlp.compression",
        "`none` or `gzip`",
        "`OTEL_EXPORTER_OTLP_COMPRESSION`, else `none`",
        "How messages are compressed",
    ),
    key(
        "otlp.timeout",
        "duration",
        "`OTEL_EXPORTER_OTLP_TIMEOUT`, else `10s`",
        "Longest time of one message; after three tries it is lost, and counted",
    ),
    key(
        "otlp.traces",
        "boolean",
        "`true`",
        "Whether it gets a span for each check that belongs to a recorded trace: W3C `traceparent`, or B3 in one header or in several; of the certificate authority one for each call with a recorded `traceparent`, and for each step of rotation",
    ),
    key(
        "otlp.service_name",
        "text",
        "`OTEL_SERVICE_NAME`, else `portcullis-authz`, of the certificate authority `portcullis-ca`",
        "`service.name` of spans and log records",
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
