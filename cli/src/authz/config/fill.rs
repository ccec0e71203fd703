//! The example's addresses, modes and names become those of the configuration.

use std::net::IpAddr;

use anyhow::bail;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::http::StatedFact;
use portcullis_authz::http::identity::IdentitySource;
use portcullis_policy::resource::PathNormalization;

use super::snippet::{Identity, Snippet};
use crate::args::ProxyArg;
use crate::config::{Config, Listener};

/// The workload of the examples.
const EXAMPLE: &str = "shop/web";

/// Name and text of each file, filled in.
///
/// # Errors
/// When the proxy cannot ask where the listener is.
pub fn files(
    snippet: &Snippet,
    listener: &Listener,
    config: &Config,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut files = Vec::with_capacity(snippet.files.len());
    for (name, text) in snippet.files {
        let mut text = with_address(snippet.proxy, text, &listener.endpoint)?;
        if snippet.proxy == ProxyArg::Envoy {
            text = with_mode(&text, config.mesh.path_normalization.unwrap_or_default());
            if let Some(http) = &listener.http {
                text = match http.path_prefix.as_str() {
                    "" => text.replace("                path_prefix: /authz\n", ""),
                    prefix => {
                        text.replace("path_prefix: /authz", &format!("path_prefix: {prefix}"))
                    }
                };
            }
        }
        if let Some(workload) = workload(listener, config) {
            text = text.replace(
                &format!("portcullis.workload: {EXAMPLE}"),
                &format!("portcullis.workload: {workload}"),
            );
            text = text.replace(
                &format!("value: {EXAMPLE} }}"),
                &format!("value: {workload} }}"),
            );
        }
        files.push((*name, text));
    }
    Ok(files)
}

/// What the configuration must say, too, for the files to do what they promise.
pub fn notes(snippet: &Snippet, listener: &Listener, config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let text: String = snippet.files.iter().map(|(_, text)| *text).collect();
    if text.contains(EXAMPLE) && workload(listener, config).is_none() && snippet.identity.is_none()
    {
        notes.push(format!(
            "`{EXAMPLE}` stands for the workload behind the proxy: write yours, or set `default_workload`"
        ));
    }
    if snippet.proxy == ProxyArg::Istio && !config.custom_providers.contains_key("portcullis") {
        notes.push(
            "set `custom_providers: {portcullis: self}`: this service is that provider".to_owned(),
        );
    }
    let Some(http) = &listener.http else {
        return notes;
    };
    if let Some(handed) = snippet.identity {
        let source = http.identity.as_ref().map(|identity| &identity.source);
        let agree = match (handed, source) {
            (Identity::Xfcc, Some(IdentitySource::ForwardedClientCert { .. })) => true,
            (Identity::Certificate(name), Some(IdentitySource::Certificate { header })) => {
                name == header
            }
            _ => false,
        };
        let wanted = match handed {
            Identity::Xfcc => "{source: xfcc}".to_owned(),
            Identity::Certificate(name) => format!("{{source: certificate, header: {name}}}"),
        };
        if !agree {
            notes.push(format!(
                "clients have no identity until the listener says `identity: {wanted}` and names the proxy in `trusted_peers`"
            ));
        }
    }
    let states = [StatedFact::DirectAddress, StatedFact::RemoteAddress];
    if snippet.proxy == ProxyArg::Envoy && !states.iter().all(|fact| http.stated.contains(fact)) {
        notes.push(
            "rules on addresses see Envoy's own until the listener says `stated: [direct_address, remote_address]`"
                .to_owned(),
        );
    }
    if http.workload.is_none() && config.default_workload.is_none() {
        notes.push(
            "nothing says who is asked: set the listener's `workload`, or `default_workload`"
                .to_owned(),
        );
    }
    notes
}

fn workload<'a>(listener: &'a Listener, config: &'a Config) -> Option<&'a str> {
    let own = listener
        .http
        .as_ref()
        .and_then(|http| http.workload.as_deref());
    own.or(config.default_workload.as_deref())
}

/// Where the proxy asks. A listener on every address is asked on loopback.
fn with_address(proxy: ProxyArg, text: &str, endpoint: &Endpoint) -> anyhow::Result<String> {
    let (host, port) = match endpoint {
        Endpoint::Unix(path) => return over_socket(proxy, text, &path.display().to_string()),
        Endpoint::Activated(name) => bail!(
            "`systemd:{name}` has its address from a socket unit; give the listener's `address` here to fill it in"
        ),
        Endpoint::Tcp(address) => {
            let host = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
                IpAddr::V6(ip) if ip.is_unspecified() => "::1".to_owned(),
                ip => ip.to_string(),
            };
            (host, address.port())
        }
    };
    let url_host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.clone(),
    };
    let mut text = text
        .replace("127.0.0.1:9191", &format!("{url_host}:{port}"))
        .replace("127.0.0.1:9192", &format!("{url_host}:{port}"))
        .replace("\"127.0.0.1\", 9192", &format!("\"{host}\", {port}"))
        .replace("cluster.local:9192", &format!("cluster.local:{port}"))
        .replace("port: 9191", &format!("port: {port}"));
    for example in [9191, 9192] {
        text = text.replace(
            &format!("address: 127.0.0.1, port_value: {example} "),
            &format!("address: \"{host}\", port_value: {port} "),
        );
    }
    Ok(text)
}

fn over_socket(proxy: ProxyArg, text: &str, path: &str) -> anyhow::Result<String> {
    Ok(match proxy {
        ProxyArg::Nginx => text.replace("server 127.0.0.1:9192;", &format!("server unix:{path};")),
        ProxyArg::Caddy => text.replace("127.0.0.1:9192", &format!("unix/{path}")),
        ProxyArg::Envoy => {
            let pipe = format!("pipe: {{ path: \"{path}\" }}");
            let socket =
                |port| format!("socket_address: {{ address: 127.0.0.1, port_value: {port} }}");
            text.replace(&socket(9191), &pipe)
                .replace(&socket(9192), &pipe)
        }
        _ => bail!(
            "this proxy cannot ask over the unix socket `{path}`: add a listener with an address and a port"
        ),
    })
}

/// Envoy's words for the mesh's mode.
fn with_mode(text: &str, mode: PathNormalization) -> String {
    const BASE: &str = "normalize_path: true\n";
    const KEEP: &str = "path_with_escaped_slashes_action: KEEP_UNCHANGED";
    let merging = "normalize_path: true\n          merge_slashes: true\n";
    let comment = "What `pathNormalization: BASE` of the mesh means";
    let (word, text) = match mode {
        PathNormalization::Base => return text.to_owned(),
        PathNormalization::None => ("NONE", text.replace(BASE, "normalize_path: false\n")),
        PathNormalization::MergeSlashes => ("MERGE_SLASHES", text.replace(BASE, merging)),
        PathNormalization::DecodeAndMergeSlashes => (
            "DECODE_AND_MERGE_SLASHES",
            text.replace(BASE, merging).replace(
                KEEP,
                "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD",
            ),
        ),
    };
    text.replace(
        comment,
        &format!("What `pathNormalization: {word}` of the mesh means"),
    )
}
