//! What belongs to the HTTP dialects of a listener.

use portcullis_authz::http::identity::{self, CERTIFICATE_HEADERS, IdentitySource};
use portcullis_authz::http::{Dialect, Options, StatedFact, TrustList};
use portcullis_policy::document::{Node, Value};

use crate::config::read::{Fields, Reader};

/// Keys that gRPC does not have: Envoy sends what they are for.
const HTTP_ONLY: [&str; 7] = [
    "path_prefix",
    "workload",
    "port",
    "identity",
    "trusted_peers",
    "stated",
    "dialect",
];

/// Reads the HTTP part of the listener at `node`; `None` where it speaks gRPC.
pub fn read(reader: &mut Reader, node: &Node, fields: &Fields<'_>) -> Option<Options> {
    let dialect = match fields.get("dialect") {
        Some(node) => dialect(reader, node)?,
        None => None,
    };
    let Some(dialect) = dialect else {
        for name in HTTP_ONLY.iter().filter(|name| **name != "dialect") {
            if let Some(node) = fields.get(name) {
                reader.mistake(
                    node.at,
                    format!("`{name}` needs an HTTP `dialect`; over gRPC Envoy itself says it"),
                );
            }
        }
        return None;
    };
    let mut options = Options::new(dialect);
    if let Some(node) = fields.get("path_prefix") {
        options.path_prefix = path_prefix(reader, node, dialect);
    }
    if let Some(node) = fields.get("workload") {
        options.workload = reader.workload_name(node);
    }
    if let Some(node) = fields.get("port") {
        options.port = port(reader, node);
    }
    if let Some(node) = fields.get("identity") {
        options.identity = identity(reader, node);
    }
    if let Some(node) = fields.get("trusted_peers") {
        options.trusted = trusted(reader, node);
    }
    if let Some(node) = fields.get("stated") {
        options.stated = stated(reader, node);
    }
    let believes = match options.identity.as_ref().map(|identity| &identity.source) {
        None | Some(IdentitySource::Peer) => !options.stated.is_empty(),
        Some(_) => true,
    };
    if believes && !fields.contains_key("trusted_peers") {
        reader.mistake(
            node.at,
            "`identity` and `stated` need `trusted_peers`: whose word is believed?".to_owned(),
        );
    }
    Some(options)
}

/// Outer `None`: a mistake.
fn dialect(reader: &mut Reader, node: &Node) -> Option<Option<Dialect>> {
    let mut words = vec![("grpc", None)];
    words.extend(Dialect::ALL.map(|dialect| (dialect.as_str(), Some(dialect))));
    reader.word(node, &words)
}

fn path_prefix(reader: &mut Reader, node: &Node, dialect: Dialect) -> String {
    let Some(text) = reader.text(node, "a path") else {
        return String::new();
    };
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~/".contains(&octet);
    if !text.starts_with('/') || !text.bytes().all(plain) {
        reader.mistake(
            node.at,
            format!("`{text}` is no path; write `/` and letters, digits, `-`, `.`, `_`, `~`, `/`"),
        );
    }
    if dialect != Dialect::Envoy {
        reader.mistake(
            node.at,
            format!(
                "`path_prefix` belongs to `envoy-http`; `{dialect}` carries the path in a header"
            ),
        );
    }
    text.to_owned()
}

fn port(reader: &mut Reader, node: &Node) -> Option<u16> {
    let number = reader.number(node, u32::from(u16::MAX))?;
    if number == 0 {
        reader.mistake(node.at, "`0` is no port of a workload".to_owned());
    }
    u16::try_from(number).ok()
}

fn identity(reader: &mut Reader, node: &Node) -> Option<identity::Options> {
    #[derive(Clone, Copy, PartialEq)]
    enum Source {
        Xfcc,
        Certificate,
        Peer,
    }
    const SOURCES: &[(&str, Source)] = &[
        ("xfcc", Source::Xfcc),
        ("certificate", Source::Certificate),
        ("peer", Source::Peer),
    ];
    let fields = reader.fields(node, "listeners[].identity");
    if !matches!(node.value, Value::Mapping(_)) {
        return None;
    }
    let Some(named) = fields.get("source") else {
        reader.mistake(
            node.at,
            "`identity` needs a `source`: `xfcc`, `certificate` or `peer`".to_owned(),
        );
        return None;
    };
    let source = reader.word(named, SOURCES)?;
    let mut header = None;
    let mut trusted_hops = 0;
    let mut require_svid = false;
    for (name, node) in &fields {
        match *name {
            "header" if source == Source::Certificate => header = header_name(reader, node),
            "trusted_hops" if source == Source::Xfcc => {
                trusted_hops = reader.number(node, 32).unwrap_or(0);
            }
            "header" | "trusted_hops" => {
                let owner = if *name == "header" {
                    "certificate"
                } else {
                    "xfcc"
                };
                reader.mistake(node.at, format!("`{name}` belongs to `source: {owner}`"));
            }
            "require_svid" => require_svid = reader.boolean(node),
            _ => {}
        }
    }
    let source = match source {
        Source::Xfcc => IdentitySource::ForwardedClientCert {
            trusted_hops: usize::try_from(trusted_hops).unwrap_or(0),
        },
        Source::Peer => IdentitySource::Peer,
        Source::Certificate => {
            if !fields.contains_key("header") {
                reader.mistake(
                    node.at,
                    format!(
                        "`source: certificate` needs the `header` that holds it, such as `{}`",
                        CERTIFICATE_HEADERS.join("`, `")
                    ),
                );
            }
            IdentitySource::Certificate { header: header? }
        }
    };
    Some(identity::Options {
        source,
        require_svid,
    })
}

fn header_name(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.text(node, "the name of a header")?;
    let token = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    if !text.bytes().all(token) {
        reader.mistake(
            node.at,
            format!("`{text}` is no name of a header; write letters, digits and `-`"),
        );
    }
    Some(text.to_ascii_lowercase())
}

fn trusted(reader: &mut Reader, node: &Node) -> TrustList {
    let mut peers = Vec::new();
    for item in reader.items(node) {
        if let Some(text) = reader.text(item, "an address, a block, `uid:NUMBER` or a SPIFFE ID") {
            match text.parse() {
                Ok(peer) => peers.push(peer),
                Err(error) => {
                    let error: portcullis_authz::http::peer::NotAPeer = error;
                    reader.mistake(item.at, error.to_string());
                }
            }
        }
    }
    TrustList::new(peers)
}

fn stated(reader: &mut Reader, node: &Node) -> Vec<StatedFact> {
    let words = StatedFact::ALL.map(|fact| (fact.as_str(), fact));
    let items = reader.items(node).iter();
    items.filter_map(|item| reader.word(item, &words)).collect()
}
