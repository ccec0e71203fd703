//! `ca`: what the certificate authority is made from.

mod kubernetes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_policy::document::Node;

use super::read::Reader;
pub use kubernetes::CaKubernetesConfig;

/// `ca` of the configuration; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaConfig {
    /// `ca.trust_domain`.
    pub trust_domain: Option<String>,
    /// `ca.data`.
    pub data: Option<PathBuf>,
    /// `ca.socket`.
    pub socket: Option<PathBuf>,
    /// `ca.x509_ttl`.
    pub x509_ttl: Option<Duration>,
    /// `ca.jwt_ttl`.
    pub jwt_ttl: Option<Duration>,
    /// `ca.authority_ttl`.
    pub authority_ttl: Option<Duration>,
    /// `ca.x509_key`.
    pub x509_key: Option<String>,
    /// `ca.jwt_key`.
    pub jwt_key: Option<String>,
    /// `ca.jwt_issuer`.
    pub jwt_issuer: Option<String>,
    /// `ca.keys` is `memory`.
    pub keys_in_memory: bool,
    /// `ca.passphrase_file`.
    pub passphrase_file: Option<PathBuf>,
    /// `ca.upstream.certificate`.
    pub upstream_certificate: Option<PathBuf>,
    /// `ca.upstream.key`.
    pub upstream_key: Option<PathBuf>,
    /// `ca.refresh_hint`.
    pub refresh_hint: Option<Duration>,
    /// `ca.bundle_endpoint`.
    pub bundle_endpoint: Option<WebConfig>,
    /// `ca.oidc`.
    pub oidc: Option<WebConfig>,
    /// `ca.experimental.wit_svid`.
    pub wit_svid: bool,
    /// `ca.revocation`.
    pub revocation: bool,
    /// `ca.management.address`.
    pub management: Option<String>,
    /// `ca.federation.authorities`.
    pub federation_roots: Option<PathBuf>,
    /// `ca.federation.interval`.
    pub federation_interval: Option<Duration>,
    /// `ca.kubernetes`.
    pub kubernetes: Option<CaKubernetesConfig>,
}

/// A web listener: `ca.bundle_endpoint`, `ca.oidc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// `listen`.
    pub listen: Option<String>,
    /// `certificate`.
    pub certificate: Option<PathBuf>,
    /// `key`.
    pub key: Option<PathBuf>,
    /// `issuer`.
    pub issuer: Option<String>,
}

/// Reads the section; relative paths are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> CaConfig {
    let mut ca = CaConfig::default();
    for (name, node) in reader.fields(node, "ca") {
        match name {
            "data" => ca.data = path(reader, node, folder),
            "socket" => ca.socket = path(reader, node, folder),
            "passphrase_file" => ca.passphrase_file = path(reader, node, folder),
            "trust_domain" => ca.trust_domain = reader.text(node, "a trust domain").map(Into::into),
            "x509_ttl" => ca.x509_ttl = lifetime(reader, node),
            "jwt_ttl" => ca.jwt_ttl = lifetime(reader, node),
            "authority_ttl" => ca.authority_ttl = lifetime(reader, node),
            "x509_key" => ca.x509_key = reader.text(node, "a key type").map(Into::into),
            "jwt_key" => ca.jwt_key = reader.text(node, "a key type").map(Into::into),
            "jwt_issuer" => ca.jwt_issuer = reader.text(node, "an issuer").map(Into::into),
            "keys" => {
                let words = [("disk", false), ("memory", true)];
                ca.keys_in_memory = reader.word(node, &words).unwrap_or_default();
            }
            "refresh_hint" => ca.refresh_hint = lifetime(reader, node),
            "bundle_endpoint" => {
                ca.bundle_endpoint = Some(web(reader, node, "ca.bundle_endpoint", folder));
            }
            "experimental" => {
                for (name, node) in reader.fields(node, "ca.experimental") {
                    if name == "wit_svid" {
                        ca.wit_svid = reader.boolean(node);
                    }
                }
            }
            "revocation" => ca.revocation = reader.boolean(node),
            "management" => {
                for (name, node) in reader.fields(node, "ca.management") {
                    if name == "address" {
                        ca.management = address(reader, node, folder);
                    }
                }
            }
            "kubernetes" => ca.kubernetes = Some(kubernetes::read(reader, node, folder)),
            "oidc" => ca.oidc = Some(web(reader, node, "ca.oidc", folder)),
            "federation" => {
                for (name, node) in reader.fields(node, "ca.federation") {
                    match name {
                        "authorities" => ca.federation_roots = path(reader, node, folder),
                        "interval" => ca.federation_interval = lifetime(reader, node),
                        _ => {}
                    }
                }
            }
            "upstream" => {
                for (name, node) in reader.fields(node, "ca.upstream") {
                    let path = path(reader, node, folder);
                    match name {
                        "certificate" => ca.upstream_certificate = path,
                        "key" => ca.upstream_key = path,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    ca
}

fn web(reader: &mut Reader, node: &Node, section: &str, folder: &Path) -> WebConfig {
    let mut web = WebConfig::default();
    for (name, node) in reader.fields(node, section) {
        match name {
            "listen" => web.listen = address(reader, node, folder),
            "certificate" => web.certificate = path(reader, node, folder),
            "key" => web.key = path(reader, node, folder),
            "issuer" => web.issuer = reader.text(node, "an issuer").map(Into::into),
            _ => {}
        }
    }
    web
}

/// An address to listen on; the path of a unix socket is relative to `folder`.
fn address(reader: &mut Reader, node: &Node, folder: &Path) -> Option<String> {
    let text = reader.text(node, "an address")?;
    Some(match text.strip_prefix("unix:") {
        Some(path) => format!("unix:{}", folder.join(path).display()),
        None => text.to_owned(),
    })
}

pub(super) fn path(reader: &mut Reader, node: &Node, folder: &Path) -> Option<PathBuf> {
    reader.text(node, "a path").map(|path| folder.join(path))
}

/// Lifetimes are longer than the other durations: hours and days, too, up to 100 years.
pub(super) fn lifetime(reader: &mut Reader, node: &Node) -> Option<Duration> {
    const LONGEST: u64 = 100 * 366 * 86_400;
    let text = reader.text(node, "a lifetime, such as `1h`,")?;
    let unit = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let number = text
        .strip_suffix(unit)
        .and_then(|number| number.parse::<u64>().ok());
    let lifetime = number
        .zip(seconds)
        .and_then(|(number, seconds)| number.checked_mul(seconds))
        .filter(|seconds| (1..=LONGEST).contains(seconds));
    if lifetime.is_none() {
        let message = format!(
            "`{text}` is no lifetime; write a number with `s`, `m`, `h` or `d`, such as `1h`"
        );
        reader.mistake(node.at, message);
    }
    lifetime.map(Duration::from_secs)
}
