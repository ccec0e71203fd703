//! `extensionProviders` of MeshConfig: the external authorizers that CUSTOM policies name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::mesh_config::{keys, known_or_report, whole};
use super::path::Path;
use super::reader::Reader;
use super::request_authentication::milliseconds;
use crate::diagnostic::{Diagnostic, code};
use crate::document::{Entry, Excerpt, Node, Value};

/// How a CUSTOM provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtAuthz {
    /// `envoyExtAuthzGrpc`: HTTP and TCP.
    Grpc,
    /// `envoyExtAuthzHttp`: HTTP alone; on TCP its CUSTOM policies do nothing.
    Http,
}

/// An `extensionProviders` entry of MeshConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionProvider {
    /// `name`.
    pub name: String,
    /// How it is asked; `None`: it cannot serve CUSTOM.
    pub ext_authz: Option<ExtAuthz>,
    /// What asking it takes; `None` where MeshConfig does not say where it is.
    pub call: Option<ExtAuthzCall>,
}

/// `includeRequestBodyInCheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyInCheck {
    /// `maxRequestBytes`.
    pub max_request_bytes: u32,
    /// `allowPartialMessage`.
    pub allow_partial_message: bool,
    /// `packAsBytes`.
    pub pack_as_bytes: bool,
}

/// `envoyExtAuthzGrpc` or `envoyExtAuthzHttp`: where the authorizer is and what it gets.
///
/// Lists of headers hold names, `prefix*` or `*suffix`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtAuthzCall {
    /// `service`: a host, or `namespace/host`.
    pub service: String,
    /// `port`.
    pub port: u16,
    /// `timeout`.
    pub timeout: Option<Duration>,
    /// `failOpen`: without an answer the request passes.
    pub fail_open: bool,
    /// `statusOnError`: HTTP status without an answer.
    pub status_on_error: Option<u16>,
    /// `includeRequestBodyInCheck`.
    pub body: Option<BodyInCheck>,
    /// `pathPrefix`; HTTP alone, as all below.
    pub path_prefix: String,
    /// `includeRequestHeadersInCheck` and the retired `includeHeadersInCheck`.
    pub include_request_headers: Vec<String>,
    /// `includeAdditionalHeadersInCheck`.
    pub include_additional_headers: BTreeMap<String, String>,
    /// `headersToUpstreamOnAllow`.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// `headersToDownstreamOnDeny`; empty: all.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// `headersToDownstreamOnAllow`.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// Reads `extensionProviders` as they stand in a configuration.
#[must_use]
pub fn read(node: &Node, file: &Arc<str>) -> (Vec<ExtensionProvider>, Vec<Diagnostic>) {
    let mut reader = Reader::new(file);
    let root = Path::Root;
    let mesh = root.key("mesh");
    let providers = providers(node, &mesh.key("extensionProviders"), &mut reader);
    (providers, reader.finish())
}

/// Reads `extensionProviders`.
pub(super) fn providers(
    node: &Node,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Vec<ExtensionProvider> {
    let mut providers: Vec<ExtensionProvider> = Vec::new();
    for (index, node) in reader
        .list(node, path)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        let Some(entries) = reader.object(node, &path) else {
            continue;
        };
        let mut provider = ExtensionProvider::default();
        for entry in entries {
            let field = path.key(&entry.key);
            let kind = match entry.key.as_str() {
                "name" => {
                    if let Some(name) = reader.string(&entry.value, &field) {
                        provider.name = name.value;
                    }
                    continue;
                }
                "envoyExtAuthzHttp" | "envoy_ext_authz_http" => ExtAuthz::Http,
                "envoyExtAuthzGrpc" | "envoy_ext_authz_grpc" => ExtAuthz::Grpc,
                _ => {
                    known_or_report(entry, &path, keys::PROVIDER, reader);
                    continue;
                }
            };
            provider.ext_authz = Some(kind);
            provider.call = call(kind, &entry.value, &field, reader);
        }
        if provider.name.is_empty() {
            reader.report(
                &code::MISSING_FIELD,
                reader.location(node.at),
                &path.key("name"),
                "an extension provider without a name",
                "name it: policies refer to it by name",
            );
        }
        providers.push(provider);
    }
    providers
}

/// What asking takes; `None` where no service and port is named.
fn call(
    kind: ExtAuthz,
    node: &Node,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<ExtAuthzCall> {
    if node.is_null() {
        return None;
    }
    let known = match kind {
        ExtAuthz::Grpc => keys::EXT_AUTHZ_GRPC,
        ExtAuthz::Http => keys::EXT_AUTHZ_HTTP,
    };
    let mut call = ExtAuthzCall::default();
    for entry in reader.object(node, path)? {
        let (value, field) = (&entry.value, path.key(&entry.key));
        if value.is_null() {
            continue;
        }
        let camel = super::mesh_config::camel_case(&entry.key);
        let texts = |reader: &mut Reader<'_>| -> Vec<String> {
            let texts = reader.strings(value, &field).into_iter();
            texts.map(|text| text.value).collect()
        };
        match camel.as_str() {
            key if !known.contains(&key) => known_or_report(entry, path, known, reader),
            "service" => {
                call.service = reader.string(value, &field).unwrap_or_else(nowhere).value;
            }
            "port" => call.port = port(value, &field, reader).unwrap_or_default(),
            "timeout" => call.timeout = timeout(value, &field, reader),
            "failOpen" => call.fail_open = reader.boolean(value, &field).unwrap_or_default(),
            "statusOnError" => call.status_on_error = status(value, &field, reader),
            "includeRequestBodyInCheck" => call.body = body(value, &field, reader),
            "pathPrefix" => {
                call.path_prefix = reader.string(value, &field).unwrap_or_else(nowhere).value;
            }
            "includeHeadersInCheck" | "includeRequestHeadersInCheck" => {
                call.include_request_headers.extend(texts(reader));
            }
            "includeAdditionalHeadersInCheck" => {
                call.include_additional_headers = reader.string_map(value, &field);
            }
            "headersToUpstreamOnAllow" => call.headers_to_upstream_on_allow = texts(reader),
            "headersToDownstreamOnDeny" => call.headers_to_downstream_on_deny = texts(reader),
            "headersToDownstreamOnAllow" => call.headers_to_downstream_on_allow = texts(reader),
            // `clearRouteCache` is about the proxy's routes, which we do not have.
            _ => {}
        }
    }
    (!call.service.is_empty() && call.port != 0).then_some(call)
}

fn nowhere() -> super::Located<String> {
    super::Located {
        value: String::new(),
        at: crate::diagnostic::Location::default(),
    }
}

fn port(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<u16> {
    let port = whole(node, path, reader)?;
    let found = u16::try_from(port).ok().filter(|port| *port != 0);
    if found.is_none() {
        reader.wrong_type(node, path, "a port from 1 to 65535");
    }
    found
}

fn timeout(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Duration> {
    let text = reader.string(node, path)?;
    let found = milliseconds(&text.value).filter(|ms| *ms > 0);
    if found.is_none() {
        reader.report(
            &code::DURATION,
            text.at.clone(),
            path,
            format!(
                "`{}` is not a duration of at least 1 ms",
                Excerpt(&text.value)
            ),
            "write seconds, as in `5s` or `0.250s`",
        );
    }
    found.map(Duration::from_millis)
}

/// A text in MeshConfig; a plain number is taken, too.
fn status(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<u16> {
    let text = match &node.value {
        Value::String(text, _) => text.as_str(),
        Value::Integer(_, text) => text,
        _ => {
            reader.wrong_type(node, path, "a string");
            return None;
        }
    };
    let status = text.parse().ok().filter(|code| (200..600).contains(code));
    if status.is_none() {
        reader.wrong_type(node, path, "an HTTP status from 200 to 599");
    }
    status
}

fn body(node: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<BodyInCheck> {
    let mut body = BodyInCheck::default();
    for entry in reader.object(node, path)? {
        let Entry { key, value, .. } = entry;
        let field = path.key(key);
        match super::mesh_config::camel_case(key).as_str() {
            _ if value.is_null() => {}
            "maxRequestBytes" => {
                body.max_request_bytes = whole(value, &field, reader).unwrap_or_default();
            }
            "allowPartialMessage" => {
                body.allow_partial_message = reader.boolean(value, &field).unwrap_or_default();
            }
            "packAsBytes" => {
                body.pack_as_bytes = reader.boolean(value, &field).unwrap_or_default();
            }
            _ => known_or_report(entry, path, keys::BODY, reader),
        }
    }
    Some(body)
}
