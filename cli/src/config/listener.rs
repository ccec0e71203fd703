//! `listeners`: where ext_authz is served, and how.

use std::path::Path;

use portcullis_authz::http::{Dialect, Options};
use portcullis_authz::respond::DeniedBody;
use portcullis_policy::document::{Node, Value};
use portcullis_policy::request::{PathForm, Target};

mod http;
mod tls;

use super::read::Reader;
use super::{Listener, tokens};

/// Reads `listeners`; the paths of sockets are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> Vec<Listener> {
    let items = reader.items(node);
    if items.is_empty() && node.value != Value::Null {
        reader.mistake(
            node.at,
            "no listener; name one, or leave `listeners` out".to_owned(),
        );
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for item in items {
        let mistakes = reader.mistakes();
        let listener = listener(reader, item, folder);
        // One that is wrong itself is not held against the others.
        if reader.mistakes() > mistakes {
            continue;
        }
        if listeners
            .iter()
            .any(|other| other.endpoint == listener.endpoint)
        {
            reader.mistake(item.at, format!("two listeners on `{}`", listener.endpoint));
        }
        listeners.push(listener);
    }
    listeners
}

fn listener(reader: &mut Reader, node: &Node, folder: &Path) -> Listener {
    let mut listener = Listener::default();
    let fields = reader.fields(node, "listeners[]");
    listener.http = http::read(reader, node, &fields);
    for (name, node) in fields {
        match name {
            "address" => {
                if let Some(endpoint) = reader.endpoint(node, folder) {
                    listener.endpoint = endpoint;
                }
            }
            "socket_mode" => {
                if let Some(text) = reader.text(node, "an octal number") {
                    let digits = text.strip_prefix("0o").unwrap_or(text);
                    match u32::from_str_radix(digits, 8) {
                        Ok(mode) if mode <= 0o777 => listener.socket_mode = mode,
                        _ => reader.mistake(
                            node.at,
                            format!("`{text}` is no file mode; write octal digits, such as `0660`"),
                        ),
                    }
                }
            }
            "tls" => listener.tls = tls::read(reader, node, folder),
            "tokens" => {
                if let Some(who) = reader.word(node, tokens::WHO) {
                    listener.tokens = who;
                }
            }
            "path" => {
                const FORMS: &[(&str, PathForm)] =
                    &[("raw", PathForm::Raw), ("normalised", PathForm::Normalised)];
                if let Some(path) = reader.word(node, FORMS) {
                    let raw_only = |http: &Options| http.dialect != Dialect::Envoy;
                    if path == PathForm::Normalised && listener.http.as_ref().is_some_and(raw_only)
                    {
                        reader.mistake(
                            node.at,
                            "only Envoy normalises before it asks; leave `path` out".to_owned(),
                        );
                    }
                    listener.path = Some(path);
                }
            }
            "target" => {
                const TARGETS: &[(&str, Option<Target>)] = &[
                    ("auto", None),
                    ("sidecar", Some(Target::Sidecar)),
                    ("gateway", Some(Target::Gateway)),
                    ("waypoint", Some(Target::Waypoint)),
                    ("ztunnel", Some(Target::Ztunnel)),
                ];
                if let Some(target) = reader.word(node, TARGETS) {
                    listener.target = target;
                }
            }
            "body" => {
                listener.body = match reader.text(node, "`none`, `decision` or a text") {
                    Some("decision") => DeniedBody::Decision,
                    Some("none") | None => DeniedBody::Empty,
                    Some(text) => DeniedBody::Text(text.to_owned()),
                };
            }
            "debug_headers" => listener.debug_headers = reader.boolean(node),
            "missing_token_status" => {
                const STATUSES: &[(&str, Option<u16>)] = &[("401", Some(401)), ("403", None)];
                listener.missing_token_status = reader.word(node, STATUSES).flatten();
            }
            _ => {}
        }
    }
    listener
}
