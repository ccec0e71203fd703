//! `tokens`: how tokens are verified, for listeners with `tokens: verify`.

use std::path::Path;

use portcullis_authz::server::TokensBy;
use portcullis_authz::token::crypto::ALGORITHMS;
use portcullis_authz::token::{Settings, svid};
use portcullis_policy::document::{Node, Value};
use portcullis_policy::resource::HeaderLocation;

use super::read::Reader;

/// Words of `listeners[].tokens`.
pub const WHO: &[(&str, TokensBy)] = &[("proxy", TokensBy::Proxy), ("verify", TokensBy::Us)];

/// Reads `tokens`; the paths of files are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> Settings {
    let mut settings = Settings::default();
    for (name, node) in reader.fields(node, "tokens") {
        match name {
            "hosts" => {
                for item in reader.items(node) {
                    match reader.text(item, "a host").map(str::parse) {
                        Some(Ok(host)) => settings.hosts.push(host),
                        Some(Err(error)) => reader.mistake(item.at, format!("{error}")),
                        None => {}
                    }
                }
            }
            "ca_file" => settings.ca_file = reader.text(node, "a path").map(|p| folder.join(p)),
            "algorithms" => {
                let items = reader.items(node);
                settings.terms.algorithms = items
                    .iter()
                    .filter_map(|item| reader.word(item, &ALGORITHMS))
                    .collect();
                if items.is_empty() && node.value != Value::Null {
                    reader.mistake(
                        node.at,
                        "no algorithm; name one, or leave `algorithms` out".to_owned(),
                    );
                }
            }
            "clock_skew" => {
                if let Some(skew) = reader.duration(node) {
                    settings.terms.clock_skew = skew;
                }
            }
            "keys" => {
                for (name, node) in reader.fields(node, "tokens.keys") {
                    let lifetimes = &mut settings.lifetimes;
                    match (name, reader.duration(node)) {
                        ("refresh", Some(time)) => lifetimes.refresh = time,
                        ("keep", Some(time)) => lifetimes.keep = time,
                        ("refetch", Some(time)) => lifetimes.refetch = time,
                        ("wait", Some(time)) => lifetimes.wait = time,
                        _ => {}
                    }
                }
                if settings.lifetimes.keep < settings.lifetimes.refresh {
                    let message =
                        "`keep` is shorter than `refresh`: keys would end between two fetches";
                    reader.mistake(node.at, message.to_owned());
                }
            }
            "jwt_svid" => settings.svids = Some(svids(reader, node, folder)),
            _ => {}
        }
    }
    settings
}

fn svids(reader: &mut Reader, node: &Node, folder: &Path) -> svid::Options {
    let mut options = svid::Options {
        audiences: Vec::new(),
        header: HeaderLocation {
            name: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        },
        forward: false,
        bundles: Vec::new(),
    };
    let fields = reader.fields(node, "tokens.jwt_svid");
    for (name, node) in &fields {
        match *name {
            "audiences" => {
                let audiences = reader.texts(node, "an audience").into_iter();
                options.audiences = audiences.map(str::to_owned).collect();
            }
            "header" => {
                if let Some(header) = reader.text(node, "a header's name") {
                    options.header.name = header.to_ascii_lowercase();
                    // The prefix is that of `Authorization` alone.
                    if !fields.contains_key("prefix") && options.header.name != "authorization" {
                        options.header.prefix = String::new();
                    }
                }
            }
            "prefix" => {
                if let Value::String(prefix, _) = &node.value {
                    options.header.prefix.clone_from(prefix);
                } else {
                    reader.mistake(node.at, "a text is expected here".to_owned());
                }
            }
            "forward" => options.forward = reader.boolean(node),
            "bundles" => {
                for item in reader.items(node) {
                    options.bundles.extend(bundle(reader, item, folder));
                }
            }
            _ => {}
        }
    }
    for (missing, what) in [
        (options.audiences.is_empty(), "audiences"),
        (options.bundles.is_empty(), "bundles"),
    ] {
        if missing {
            reader.mistake(node.at, format!("`jwt_svid` needs `{what}`"));
        }
    }
    options
}

fn bundle(reader: &mut Reader, node: &Node, folder: &Path) -> Option<svid::BundleSource> {
    let fields = reader.fields(node, "tokens.jwt_svid.bundles[]");
    let mut text = |name: &str, what| {
        let node = fields.get(name)?;
        reader.text(node, what).map(str::to_owned)
    };
    let trust_domain = text("trust_domain", "a trust domain");
    let file = text("file", "a path");
    let workload_api = text("workload_api", "an address");
    match (trust_domain, file, workload_api) {
        (Some(trust_domain), Some(file), None) => Some(svid::BundleSource::File {
            trust_domain: trust_domain.to_ascii_lowercase(),
            path: folder.join(file),
        }),
        (None, None, Some(address)) => Some(svid::BundleSource::WorkloadApi(address)),
        _ => {
            let message = "a bundle is `trust_domain` with `file`, or `workload_api` alone";
            reader.mistake(node.at, message.to_owned());
            None
        }
    }
}
