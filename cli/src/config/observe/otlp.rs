//! `otlp`, and what the variables of OpenTelemetry say where it says nothing.

use std::env::VarError;
use std::path::Path;
use std::time::Duration;

use portcullis_authz::observe::Options;
use portcullis_authz::observe::otlp::{self, ClientFiles, Compression, Header, HeaderValue};
use portcullis_policy::document::{Mark, Node, Value};

use crate::config::read::Reader;

/// Words of `otlp.compression` and of its variable.
const COMPRESSIONS: &[(&str, Compression)] =
    &[("none", Compression::None), ("gzip", Compression::Gzip)];

/// What is left of a value that is no text.
const NO_TEXT: &str = "\u{fffd}";

/// Looks up a variable of the environment.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads `otlp`; the paths of files are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path, options: &mut Options) {
    let variable = |name: &str| match std::env::var(name) {
        Ok(value) => Some(value).filter(|value| !value.is_empty()),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => Some(NO_TEXT.to_owned()),
    };
    options.otlp = Some(collector(reader, node, folder, &variable));
}

fn collector(
    reader: &mut Reader,
    node: &Node,
    folder: &Path,
    variable: Variables<'_>,
) -> otlp::Options {
    let mut options = otlp::Options::new("");
    let collector = &mut options.collector;
    let fields = reader.fields(node, "otlp");
    let (mut certificate, mut key) = (None, None);
    for (name, node) in &fields {
        let path = |reader: &mut Reader| reader.text(node, "a path").map(|p| folder.join(p));
        match *name {
            "endpoint" => {
                let endpoint = reader.text(node, "the address of a collector");
                collector.endpoint = endpoint.unwrap_or_default().to_owned();
            }
            "ca_file" => collector.ca_file = path(reader),
            "certificate_file" => certificate = path(reader),
            "key_file" => key = path(reader),
            "headers" => headers(reader, node, folder, variable, &mut collector.headers),
            "compression" => {
                let word = reader.word(node, COMPRESSIONS);
                collector.compression = word.unwrap_or_default();
            }
            "timeout" => {
                if let Some(timeout) = reader.duration(node) {
                    collector.timeout = timeout;
                }
            }
            "traces" => options.traces = reader.boolean(node),
            "service_name" => {
                if let Some(name) = reader.text(node, "a name") {
                    options.service = name.to_owned();
                }
            }
            _ => {}
        }
    }
    let filled = Filled {
        given: &|name| fields.contains_key(name),
        at: node.at,
        variable,
    };
    filled.fill(reader, &mut options, &mut certificate, &mut key);
    options.collector.client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientFiles { certificate, key }),
        (None, None) => None,
        _ => {
            let message = "`certificate_file` and `key_file` belong together";
            reader.mistake(node.at, message.to_owned());
            None
        }
    };
    options
}

/// Reads `otlp.headers`.
fn headers(
    reader: &mut Reader,
    node: &Node,
    folder: &Path,
    variable: Variables<'_>,
    headers: &mut Vec<Header>,
) {
    for (name, node) in reader.entries(node) {
        let value = match &node.value {
            Value::Mapping(_) => {
                let fields = reader.fields(node, "otlp.headers{}");
                let file = fields
                    .get("file")
                    .and_then(|node| reader.text(node, "a path"));
                let named = fields
                    .get("env")
                    .and_then(|node| reader.text(node, "the name of a variable"));
                match (file, named) {
                    (Some(file), None) => Some(HeaderValue::File(folder.join(file))),
                    (None, Some(named)) => match variable(named) {
                        Some(value) => Some(HeaderValue::Text(value)),
                        None => {
                            reader.mistake(node.at, format!("the variable `{named}` is not set"));
                            None
                        }
                    },
                    _ => {
                        let message = "a header has a text, or one of `file` and `env`";
                        reader.mistake(node.at, message.to_owned());
                        None
                    }
                }
            }
            _ => reader
                .text(node, "a text, `{file: PATH}` or `{env: NAME}`")
                .map(|text| HeaderValue::Text(text.to_owned())),
        };
        let Some(value) = value else { continue };
        match Header::new(name, value) {
            Ok(header) => headers.push(header),
            Err(error) => reader.mistake(node.at, error.to_string()),
        }
    }
}

/// What the file leaves out, from the variables that every program with OpenTelemetry reads
/// (OpenTelemetry specification, "OpenTelemetry Protocol Exporter").
struct Filled<'a> {
    given: &'a dyn Fn(&str) -> bool,
    at: Mark,
    variable: Variables<'a>,
}

impl Filled<'_> {
    /// The variable, if the file does not have `key`.
    fn value(&self, key: &str, name: &str) -> Option<String> {
        if (self.given)(key) {
            return None;
        }
        (self.variable)(name)
    }

    fn fill(
        &self,
        reader: &mut Reader,
        options: &mut otlp::Options,
        certificate: &mut Option<std::path::PathBuf>,
        key: &mut Option<std::path::PathBuf>,
    ) {
        let mut wrong = |message: String| reader.mistake(self.at, message);
        let collector = &mut options.collector;
        match self.value("endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT") {
            Some(endpoint) => {
                // The protocol is said apart, and only for whom the address does not say enough.
                let protocol = (self.variable)("OTEL_EXPORTER_OTLP_PROTOCOL");
                if let Some(other) = protocol.filter(|protocol| protocol != "grpc") {
                    wrong(format!(
                        "`OTEL_EXPORTER_OTLP_PROTOCOL` is `{other}`, and only `grpc` is spoken; set `otlp.endpoint` to the collector's gRPC port, usually 4317"
                    ));
                }
                collector.endpoint = endpoint;
            }
            None if !(self.given)("endpoint") => {
                wrong("`otlp` needs an `endpoint`, such as `http://127.0.0.1:4317`".to_owned());
            }
            None => {}
        }
        if let Some(file) = self.value("ca_file", "OTEL_EXPORTER_OTLP_CERTIFICATE") {
            collector.ca_file = Some(file.into());
        }
        // Certificate and key are one thing: never one from here and the other from there.
        if !(self.given)("certificate_file") && !(self.given)("key_file") {
            let path = |name| (self.variable)(name).map(Into::into);
            *certificate = path("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE");
            *key = path("OTEL_EXPORTER_OTLP_CLIENT_KEY");
        }
        if let Some(word) = self.value("compression", "OTEL_EXPORTER_OTLP_COMPRESSION") {
            match COMPRESSIONS.iter().find(|(known, _)| *known == word) {
                Some((_, compression)) => collector.compression = *compression,
                None => wrong(format!(
                    "`OTEL_EXPORTER_OTLP_COMPRESSION` is `{word}`: it can be `none` or `gzip`"
                )),
            }
        }
        if let Some(text) = self.value("timeout", "OTEL_EXPORTER_OTLP_TIMEOUT") {
            match text.parse().ok().filter(|ms| (1..=86_400_000).contains(ms)) {
                Some(ms) => collector.timeout = Duration::from_millis(ms),
                None => wrong(format!(
                    "`OTEL_EXPORTER_OTLP_TIMEOUT` is `{text}`: it is a number of milliseconds"
                )),
            }
        }
        if let Some(name) = self.value("service_name", "OTEL_SERVICE_NAME") {
            options.service = name;
        }
        if let Some(list) = self.value("headers", "OTEL_EXPORTER_OTLP_HEADERS") {
            match listed(&list) {
                Ok(headers) => collector.headers = headers,
                Err(cause) => wrong(format!("`OTEL_EXPORTER_OTLP_HEADERS`: {cause}")),
            }
        }
    }
}

/// `name=value,name=value` with values percent-encoded, as W3C Baggage has it without properties.
fn listed(list: &str) -> Result<Vec<Header>, String> {
    let mut headers = Vec::new();
    for pair in list.split(',').filter(|pair| !pair.trim().is_empty()) {
        // A part without a name may be a piece of a credential: it is not shown.
        let (name, value) = pair
            .split_once('=')
            .ok_or("each part is `name=value`, and a comma in a value is `%2C`")?;
        let value = percent_encoding::percent_decode_str(value.trim())
            .decode_utf8()
            .map_err(|_| format!("the value of `{}` is no text", name.trim()))?;
        let value = HeaderValue::Text(value.into_owned());
        headers.push(Header::new(name.trim(), value).map_err(|error| error.to_string())?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use portcullis_policy::document::{self, SourceText};

    use portcullis_authz::observe::otlp::Collector;

    use super::*;

    /// What becomes of `text` below `otlp` in an environment, and the mistakes.
    fn read(text: &str, variables: &[(&str, &str)]) -> (otlp::Options, Vec<String>) {
        let source = SourceText {
            file: "a".into(),
            bytes: text.as_bytes().to_vec().into(),
        };
        let documents = document::parse(&source).unwrap();
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let mut reader = Reader::default();
        let options = collector(&mut reader, &documents[0], Path::new("/etc/p"), &variable);
        let mistakes = reader.mistakes.into_iter();
        (options, mistakes.map(|mistake| mistake.message).collect())
    }

    fn header(name: &str, value: HeaderValue) -> Header {
        Header::new(name, value).unwrap()
    }

    const ALL: &[(&str, &str)] = &[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20a%2Cb=, x-tenant = shop",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/run/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/run/tls.crt"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/run/tls.key"),
        ("OTEL_SERVICE_NAME", "edge"),
    ];

    #[test]
    fn variables_fill_what_the_file_leaves_out() {
        let (options, mistakes) = read("{traces: false}", ALL);
        assert_eq!(mistakes, [""; 0]);
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let expected = otlp::Options {
            collector: Collector {
                ca_file: Some("/run/ca.pem".into()),
                client: Some(ClientFiles {
                    certificate: "/run/tls.crt".into(),
                    key: "/run/tls.key".into(),
                }),
                headers: vec![
                    header("authorization", text("Bearer a,b=")),
                    header("x-tenant", text("shop")),
                ],
                compression: Compression::Gzip,
                timeout: Duration::from_millis(2500),
                ..Collector::new("https://collector:4317")
            },
            traces: false,
            service: "edge".to_owned(),
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn the_file_wins() {
        let text = "
endpoint: http://127.0.0.1:4317
compression: none
timeout: 1s
service_name: mine
ca_file: ca.pem
certificate_file: a.crt
key_file: a.key
headers:
  authorization: {file: token}
  x-key: {env: KEY}
  x-tenant: shop
";
        let mut variables = ALL.to_vec();
        variables.push(("KEY", "secret"));
        variables.retain(|(name, _)| *name != "OTEL_EXPORTER_OTLP_PROTOCOL");
        // Said of another address than ours.
        variables.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"));
        let (options, mistakes) = read(text, &variables);
        assert_eq!(mistakes, [""; 0]);
        let expected = otlp::Options {
            collector: Collector {
                ca_file: Some("/etc/p/ca.pem".into()),
                client: Some(ClientFiles {
                    certificate: "/etc/p/a.crt".into(),
                    key: "/etc/p/a.key".into(),
                }),
                headers: vec![
                    header("authorization", HeaderValue::File("/etc/p/token".into())),
                    header("x-key", HeaderValue::Text("secret".to_owned())),
                    header("x-tenant", HeaderValue::Text("shop".to_owned())),
                ],
                timeout: Duration::from_secs(1),
                ..Collector::new("http://127.0.0.1:4317")
            },
            traces: true,
            service: "mine".to_owned(),
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn what_nobody_can_mean_is_said_without_a_value() {
        let (_, mistakes) = read(
            "headers: {authorization: {env: NOT_SET}, a b: hush, x: {file: f, env: e}, x-a: \"hush\\u0007\"}",
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k"),
            ],
        );
        let words = mistakes.join("\n");
        for expected in [
            "the variable `NOT_SET` is not set",
            "`a b` is no name of a header",
            "a header has a text, or one of `file` and `env`",
            "the value of the header `x-a`",
            "`OTEL_EXPORTER_OTLP_PROTOCOL` is `http/protobuf`, and only `grpc` is spoken",
            "`OTEL_EXPORTER_OTLP_COMPRESSION` is `zstd`",
            "`OTEL_EXPORTER_OTLP_TIMEOUT` is `10s`",
            "`certificate_file` and `key_file` belong together",
        ] {
            assert!(words.contains(expected), "{expected}: {words}");
        }
        assert!(!words.contains("hush"), "{words}");
        for list in ["hush", "a=b,hush", "authorization=%ff%fehush"] {
            let (_, mistakes) = read(
                "{endpoint: \"http://a:1\"}",
                &[("OTEL_EXPORTER_OTLP_HEADERS", list)],
            );
            assert_eq!(mistakes.len(), 1, "{list}");
            assert!(!mistakes[0].contains("hush"), "{mistakes:?}");
        }
        assert_eq!(read("{}", &[]).1.len(), 1);
    }
}
