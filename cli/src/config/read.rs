//! From the tree to the configuration as meant, gathering every mistake.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use portcullis_authz::endpoint::Endpoint;
use portcullis_policy::settings::{CustomProvider, DeclaredWorkload};

use super::keys::keys;
use super::{Config, admission, ca, kubernetes, listener, mesh, observe, tokens};
use crate::args::LogFormat;
use portcullis_policy::document::{Mark, Node, Value};

/// Reads the whole file. Relative paths are relative to `folder`; `file` names the configuration
/// where mesh settings meet those of a document.
pub fn config(root: &Node, folder: &Path, file: &str) -> Result<Config, Vec<Mistake>> {
    let mut reader = Reader::default();
    let config = reader.config(root, folder, file);
    if reader.mistakes.is_empty() {
        Ok(config)
    } else {
        reader.mistakes.sort_by_key(|mistake| mistake.at);
        Err(reader.mistakes)
    }
}

/// A mistake and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub at: Mark,
    /// What, and what to do.
    pub message: String,
}

/// Gathers mistakes on the way.
#[derive(Debug, Default)]
pub struct Reader {
    pub(super) mistakes: Vec<Mistake>,
}

/// The fields of a mapping whose names have been checked.
pub type Fields<'a> = BTreeMap<&'a str, &'a Node>;

impl Reader {
    fn config(&mut self, root: &Node, folder: &Path, file: &str) -> Config {
        let mut config = Config::default();
        for (name, node) in self.fields(root, "") {
            match name {
                "policies" => {
                    config.policies = self
                        .texts(node, "a path")
                        .into_iter()
                        .map(|path| folder.join(path))
                        .collect();
                }
                "candidate" => {
                    config.candidate = self
                        .texts(node, "a path")
                        .into_iter()
                        .map(|path| folder.join(path))
                        .collect();
                }
                "listeners" => {
                    config.listeners = listener::read(self, node, folder);
                }
                "mesh" => config.mesh = mesh::read(self, node, file),
                "workloads" => {
                    config.workloads = self
                        .items(node)
                        .iter()
                        .map(|item| self.workload(item))
                        .collect();
                }
                "custom_providers" => config.custom_providers = self.custom_providers(node),
                "tokens" => config.tokens = tokens::read(self, node, folder),
                "default_workload" => config.default_workload = self.workload_name(node),
                "identity" => {
                    for (name, node) in self.fields(node, "identity") {
                        if name == "require_svid" {
                            config.require_svid = self.boolean(node);
                        }
                    }
                }
                "reload" => {
                    for (name, node) in self.fields(node, "reload") {
                        match (name, self.duration(node)) {
                            ("settle", Some(settle)) => config.reload.settle = settle,
                            ("poll", Some(poll)) => config.reload.poll = poll,
                            _ => {}
                        }
                    }
                }
                "limits" => {
                    for (name, node) in self.fields(node, "limits") {
                        match name {
                            "message_bytes" => config.message_bytes = self.bytes(node),
                            "concurrent_checks" => {
                                if let Some(checks) = self.count(node) {
                                    config.limits.concurrent_checks = checks;
                                }
                            }
                            "connections" => {
                                if let Some(connections) = self.count(node) {
                                    config.limits.connections = connections;
                                }
                            }
                            "headers" => {
                                if let Some(headers) = self.count(node) {
                                    config.limits.headers = headers;
                                }
                            }
                            "deadline" => {
                                if let Some(time) = self.duration(node) {
                                    config.limits.deadline = time;
                                }
                            }
                            "drain_delay" => config.drain_delay = self.duration(node),
                            "drain" => config.drain = self.duration(node),
                            "header_bytes" => {
                                if let Some(bytes) = self.bytes(node) {
                                    config.http_limits.header_bytes = bytes;
                                    config.limits.header_bytes = bytes;
                                }
                            }
                            "header_timeout" => {
                                if let Some(time) = self.duration(node) {
                                    config.http_limits.header_timeout = time;
                                    config.limits.header_timeout = time;
                                }
                            }
                            "idle_timeout" => {
                                if let Some(time) = self.duration(node) {
                                    config.http_limits.idle_timeout = time;
                                }
                            }
                            _ => {}
                        }
                    }
                }
                "decision_log" => {
                    observe::decision_log(self, node, folder, &mut config.observe);
                }
                "otlp" => observe::otlp(self, node, folder, &mut config.observe),
                "management" => observe::management(self, node, folder, &mut config.observe),
                "kubernetes" => config.kubernetes = Some(kubernetes::read(self, node, folder)),
                "ca" => config.ca = ca::read(self, node, folder),
                "admission" => config.admission = admission::read(self, node, folder),
                "log" => self.log(node, &mut config),
                _ => {}
            }
        }
        config
    }

    fn workload(&mut self, node: &Node) -> DeclaredWorkload {
        let mut workload = DeclaredWorkload {
            service_account: "default".to_owned(),
            ..DeclaredWorkload::default()
        };
        for (name, node) in self.fields(node, "workloads[]") {
            match name {
                "namespace" => workload.namespace = self.owned(node, "a name"),
                "name" => workload.name = self.owned(node, "a name"),
                "serviceAccount" => workload.service_account = self.owned(node, "a name"),
                "labels" => workload.labels = self.labels(node),
                "addresses" => {
                    for item in self.items(node) {
                        let Some(text) = self.text(item, "an address") else {
                            continue;
                        };
                        match text.parse::<IpAddr>() {
                            Ok(address) => workload.addresses.push(address),
                            Err(_) => self.mistake(
                                item.at,
                                format!("`{text}` is no IPv4 or IPv6 address; write it without port and prefix length"),
                            ),
                        }
                    }
                }
                _ => {}
            }
        }
        for (value, field) in [(&workload.namespace, "namespace"), (&workload.name, "name")] {
            if value.is_empty() && matches!(node.value, Value::Mapping(_)) {
                self.mistake(node.at, format!("a workload needs a `{field}`"));
            }
        }
        workload
    }

    fn labels(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (name, node) in self.entries(node) {
            match (&node.value, scalar(node)) {
                (Value::Null, _) => {
                    labels.insert(name.to_owned(), String::new());
                }
                (_, Some(text)) => {
                    labels.insert(name.to_owned(), text.to_owned());
                }
                _ => self.mistake(node.at, format!("label `{name}` is no text")),
            }
        }
        labels
    }

    fn custom_providers(&mut self, node: &Node) -> BTreeMap<String, CustomProvider> {
        const WAYS: &[(&str, CustomProvider)] = &[
            ("self", CustomProvider::Own),
            ("proxy", CustomProvider::Proxy),
            ("call", CustomProvider::Call),
        ];
        let mut providers = BTreeMap::new();
        for (name, node) in self.entries(node) {
            if let Some(way) = self.word(node, WAYS) {
                providers.insert(name.to_owned(), way);
            }
        }
        providers
    }

    /// `NAMESPACE/NAME` or `KIND/NAMESPACE/NAME`.
    pub fn workload_name(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "a workload")?;
        let parts: Vec<&str> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || parts.iter().any(|part| part.is_empty()) {
            self.mistake(
                node.at,
                format!(
                    "`{text}` names no workload; write `NAMESPACE/NAME` or `KIND/NAMESPACE/NAME`"
                ),
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn log(&mut self, node: &Node, config: &mut Config) {
        const FORMATS: &[(&str, LogFormat)] = &[
            ("auto", LogFormat::Auto),
            ("human", LogFormat::Human),
            ("json", LogFormat::Json),
        ];
        for (name, node) in self.fields(node, "log") {
            match name {
                "level" => config.log_level = self.text(node, "a level").map(str::to_owned),
                "format" => config.log_format = self.word(node, FORMATS),
                _ => {}
            }
        }
    }

    /// The fields of a mapping at `path`; names that are no key are mistakes.
    pub fn fields<'a>(&mut self, node: &'a Node, path: &str) -> Fields<'a> {
        let known: Vec<&str> = keys().filter_map(|key| child(key.path, path)).collect();
        self.fields_among(node, &known)
    }

    /// The fields of a mapping; names that are not among `known` are mistakes.
    pub fn fields_among<'a>(&mut self, node: &'a Node, known: &[&str]) -> Fields<'a> {
        let mut fields = Fields::new();
        if node.value == Value::Null {
            return fields;
        }
        let Value::Mapping(entries) = &node.value else {
            let keys = quoted(known.iter().take(6).copied());
            self.mistake(
                node.at,
                format!("a mapping is expected here, with keys such as {keys}"),
            );
            return fields;
        };
        for entry in entries {
            if known.contains(&entry.key.as_str()) {
                fields.insert(&entry.key, &entry.value);
            } else {
                self.mistake(
                    entry.key_at,
                    unknown("key", &entry.key, known.iter().copied()),
                );
            }
        }
        fields
    }

    /// The fields of a part of MeshConfig at `path`. Published keys that policy does not depend on
    /// pass; what looks like a misspelt key of ours is a mistake.
    pub fn fields_among_published<'a>(&mut self, node: &'a Node, path: &str) -> Fields<'a> {
        let mut fields = Fields::new();
        for (name, at, value) in self.named_entries(node) {
            let near = keys()
                .filter_map(|key| child(key.path, path))
                .find(|known| *known != name && nearness(known, name) <= 2);
            match near {
                Some(known) => {
                    self.mistake(at, format!("unknown key `{name}`; did you mean `{known}`?"));
                }
                None => {
                    fields.insert(name, value);
                }
            }
        }
        fields
    }

    /// The entries of a mapping whose names are free.
    pub fn entries<'a>(&mut self, node: &'a Node) -> Vec<(&'a str, &'a Node)> {
        let entries = self.named_entries(node);
        entries
            .into_iter()
            .map(|(name, _, node)| (name, node))
            .collect()
    }

    fn named_entries<'a>(&mut self, node: &'a Node) -> Vec<(&'a str, Mark, &'a Node)> {
        match &node.value {
            Value::Null => Vec::new(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|entry| (entry.key.as_str(), entry.key_at, &entry.value))
                .collect(),
            _ => {
                self.mistake(node.at, "a mapping is expected here".to_owned());
                Vec::new()
            }
        }
    }

    /// The items of a list.
    pub fn items<'a>(&mut self, node: &'a Node) -> &'a [Node] {
        match &node.value {
            Value::Null => &[],
            Value::Sequence(items) => items,
            _ => {
                self.mistake(
                    node.at,
                    "a list is expected here; start each entry with `- `".to_owned(),
                );
                &[]
            }
        }
    }

    /// The address of a socket; the path of a unix socket is relative to `folder`.
    pub fn endpoint(&mut self, node: &Node, folder: &Path) -> Option<Endpoint> {
        match self.text(node, "an address")?.parse() {
            Ok(Endpoint::Unix(path)) => Some(Endpoint::Unix(folder.join(path))),
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                self.mistake(node.at, error.to_string());
                None
            }
        }
    }

    /// A list of non-empty texts.
    pub fn texts<'a>(&mut self, node: &'a Node, what: &str) -> Vec<&'a str> {
        self.items(node)
            .iter()
            .filter_map(|item| self.text(item, what))
            .collect()
    }

    /// A non-empty text.
    pub fn text<'a>(&mut self, node: &'a Node, what: &str) -> Option<&'a str> {
        let text = scalar(node).filter(|text| !text.is_empty());
        if text.is_none() {
            self.mistake(node.at, format!("{what} is expected here"));
        }
        text
    }

    fn owned(&mut self, node: &Node, what: &str) -> String {
        self.text(node, what).unwrap_or_default().to_owned()
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, node: &Node, words: &[(&str, T)]) -> Option<T> {
        let names = words.iter().map(|(word, _)| *word);
        let Some(text) = scalar(node) else {
            self.mistake(
                node.at,
                format!("one of {} is expected here", quoted(names)),
            );
            return None;
        };
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            self.mistake(node.at, format!("`{text}` is none of {}", quoted(names)));
        }
        found.map(|(_, value)| *value)
    }

    /// A number with a unit: `100ms`, `5s`, `2m`; at least a millisecond, at most a day.
    pub fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node, "a duration, such as `5s`,")?;
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let millis = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            _ => None,
        };
        let number = text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok());
        let duration = number
            .zip(millis)
            .and_then(|(number, millis)| number.checked_mul(millis))
            .filter(|millis| (1..=86_400_000).contains(millis))
            .map(Duration::from_millis);
        if duration.is_none() {
            self.mistake(
                node.at,
                format!("`{text}` is no duration; write a number with `ms`, `s` or `m`, such as `5s`, up to a day"),
            );
        }
        duration
    }

    /// A number of bytes above zero.
    pub fn bytes(&mut self, node: &Node) -> Option<usize> {
        let text = self.text(node, "a number of bytes")?;
        let bytes = text.parse().ok().filter(|bytes| *bytes > 0);
        if bytes.is_none() {
            self.mistake(
                node.at,
                format!("`{text}` is no number of bytes above zero"),
            );
        }
        bytes
    }

    /// How many of something, at least one and at most a million.
    pub fn count(&mut self, node: &Node) -> Option<usize> {
        let text = self.text(node, "a number")?;
        let count = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
        if count.is_none() {
            self.mistake(node.at, format!("`{text}` is no number from 1 to 1000000"));
        }
        count
    }

    /// A number of at most `max`.
    pub fn number(&mut self, node: &Node, max: u32) -> Option<u32> {
        let text = self.text(node, "a number")?;
        let number = text.parse().ok().filter(|number| *number <= max);
        if number.is_none() {
            self.mistake(node.at, format!("`{text}` is no number from 0 to {max}"));
        }
        number
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node) -> bool {
        let Value::Bool(value, _) = node.value else {
            self.mistake(node.at, "`true` or `false` is expected here".to_owned());
            return false;
        };
        value
    }

    /// How many mistakes there are so far.
    pub fn mistakes(&self) -> usize {
        self.mistakes.len()
    }

    /// Notes a mistake.
    pub fn mistake(&mut self, at: Mark, message: String) {
        self.mistakes.push(Mistake { at, message });
    }
}

/// The text of a scalar, as it was written.
fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Bool(_, text) | Value::Integer(_, text) | Value::Float(text) => Some(text),
        Value::String(text, _) => Some(text),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// The name of the field directly below `parent`, if `path` is one.
fn child<'a>(path: &'a str, parent: &str) -> Option<&'a str> {
    let rest = if parent.is_empty() {
        path
    } else {
        path.strip_prefix(parent)?.strip_prefix('.')?
    };
    (!rest.contains(['.', '[', '{'])).then_some(rest)
}

/// Says that `given` is not known, and which known name is nearest.
pub fn unknown<'a>(
    what: &str,
    given: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let nearest = known
        .clone()
        .map(|name| (nearness(given, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(given.len()).div_ceil(3))
        .min();
    match nearest {
        Some((_, name)) => format!("unknown {what} `{given}`; did you mean `{name}`?"),
        None => format!("unknown {what} `{given}`; known here: {}", quoted(known)),
    }
}

/// Number of edits between two names, whatever their case.
fn nearness(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(&one.to_lowercase(), &other.to_lowercase())
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
