//! `admission`: what the validating webhook is made from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_admission::enforcement::Level;
use portcullis_policy::diagnostic::code;
use portcullis_policy::document::Node;

use super::ca::{lifetime, path};
use super::read::Reader;

/// `admission` of the configuration; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// `listen`.
    pub listen: Option<SocketAddr>,
    /// `management`.
    pub management: Option<SocketAddr>,
    /// `namespace`.
    pub namespace: Option<String>,
    /// `service`.
    pub service: Option<String>,
    /// `names`.
    pub names: Vec<String>,
    /// `webhook_configuration`.
    pub webhook_configuration: Option<String>,
    /// `ca_bundle` is `external`.
    pub external_bundle: bool,
    /// `propagation`.
    pub propagation: Option<Duration>,
    /// `retire`.
    pub retire: Option<Duration>,
    /// `certificate`.
    pub certificate: CertificateConfig,
    /// `enforcement`.
    pub enforcement: Option<Level>,
    /// `floor`.
    pub floor: Option<Level>,
    /// `codes`.
    pub codes: BTreeMap<String, Level>,
    /// `break_glass.groups`.
    pub break_glass: Vec<String>,
    /// `limits.body_bytes`.
    pub body_bytes: Option<usize>,
    /// `limits.reviews`.
    pub reviews: Option<usize>,
    /// `limits.connections`.
    pub connections: Option<usize>,
    /// `limits.cases`.
    pub cases: Option<usize>,
    /// `limits.deadline`.
    pub deadline: Option<Duration>,
    /// `limits.drain_delay`.
    pub drain_delay: Option<Duration>,
    /// `limits.drain`.
    pub drain: Option<Duration>,
}

/// `admission.certificate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateConfig {
    /// `files`.
    Files {
        /// `certificate`.
        certificate: PathBuf,
        /// `key`.
        key: PathBuf,
        /// `authorities`.
        authorities: Option<PathBuf>,
    },
    /// `workload_api`.
    WorkloadApi {
        /// `endpoint`.
        endpoint: Option<String>,
        /// `hint`.
        hint: Option<String>,
    },
    /// `secret`, which is also the default.
    Secret {
        /// `name`.
        name: Option<String>,
        /// `authority_ttl`.
        authority_ttl: Option<Duration>,
        /// `certificate_ttl`.
        certificate_ttl: Option<Duration>,
        /// `lead`.
        lead: Option<Duration>,
    },
}

impl Default for CertificateConfig {
    fn default() -> Self {
        Self::Secret {
            name: None,
            authority_ttl: None,
            certificate_ttl: None,
            lead: None,
        }
    }
}

const LEVELS: &[(&str, Level)] = &[
    ("deny", Level::Deny),
    ("warn", Level::Warn),
    ("audit", Level::Audit),
];

/// Reads the section; relative paths are relative to `folder`.
pub fn read(reader: &mut Reader, node: &Node, folder: &Path) -> AdmissionConfig {
    let mut config = AdmissionConfig::default();
    for (name, node) in reader.fields(node, "admission") {
        match name {
            "listen" => config.listen = address(reader, node),
            "management" => config.management = address(reader, node),
            "namespace" => config.namespace = reader.text(node, "a namespace").map(Into::into),
            "service" => config.service = reader.text(node, "a name").map(Into::into),
            "names" => {
                let names = reader.texts(node, "a name or an address").into_iter();
                config.names = names.map(str::to_owned).collect();
            }
            "webhook_configuration" => {
                config.webhook_configuration = reader.text(node, "a name").map(Into::into);
            }
            "ca_bundle" => {
                let words = [("inject", false), ("external", true)];
                config.external_bundle = reader.word(node, &words).unwrap_or_default();
            }
            "propagation" => config.propagation = reader.duration(node),
            "retire" => config.retire = reader.duration(node),
            "certificate" => config.certificate = certificate(reader, node, folder),
            "enforcement" => config.enforcement = reader.word(node, LEVELS),
            "floor" => config.floor = reader.word(node, LEVELS),
            "codes" => {
                for (name, node) in reader.entries(node) {
                    let level = reader.word(node, LEVELS);
                    if code::find(name).is_none() {
                        let what = format!(
                            "there is no code `{name}`; `portcullis policy explain-code` lists them"
                        );
                        reader.mistake(node.at, what);
                    }
                    config
                        .codes
                        .extend(level.map(|level| (name.to_owned(), level)));
                }
            }
            "break_glass" => {
                for (_, node) in reader.fields(node, "admission.break_glass") {
                    let groups = reader.texts(node, "a group").into_iter();
                    config.break_glass = groups.map(str::to_owned).collect();
                }
            }
            "limits" => limits(reader, node, &mut config),
            _ => {}
        }
    }
    config
}

fn address(reader: &mut Reader, node: &Node) -> Option<SocketAddr> {
    let text = reader.text(node, "an address")?;
    let address = text.parse().ok();
    if address.is_none() {
        let what = format!("`{text}` is no `IP:PORT`, such as `0.0.0.0:9443`");
        reader.mistake(node.at, what);
    }
    address
}

fn limits(reader: &mut Reader, node: &Node, config: &mut AdmissionConfig) {
    for (name, node) in reader.fields(node, "admission.limits") {
        match name {
            "body_bytes" => config.body_bytes = reader.bytes(node),
            "reviews" => config.reviews = reader.count(node),
            "connections" => config.connections = reader.count(node),
            "cases" => config.cases = reader.count(node),
            "deadline" => config.deadline = reader.duration(node),
            "drain_delay" => config.drain_delay = reader.duration(node),
            "drain" => config.drain = reader.duration(node),
            _ => {}
        }
    }
}

fn certificate(reader: &mut Reader, node: &Node, folder: &Path) -> CertificateConfig {
    let fields = reader.fields(node, "admission.certificate");
    if fields.len() > 1 {
        let what = "one source is enough: of `files`, `workload_api` and `secret` one";
        reader.mistake(node.at, what.to_owned());
    }
    let Some((name, node)) = fields.into_iter().next() else {
        return CertificateConfig::default();
    };
    match name {
        "files" => files(reader, node, folder),
        "workload_api" => {
            let (mut endpoint, mut hint) = (None, None);
            for (name, node) in reader.fields(node, "admission.certificate.workload_api") {
                let text = reader.text(node, "a text").map(str::to_owned);
                match name {
                    "endpoint" => endpoint = text,
                    _ => hint = text,
                }
            }
            CertificateConfig::WorkloadApi { endpoint, hint }
        }
        _ => secret(reader, node),
    }
}

fn files(reader: &mut Reader, node: &Node, folder: &Path) -> CertificateConfig {
    let (mut certificate, mut key, mut authorities) = (None, None, None);
    for (name, node) in reader.fields(node, "admission.certificate.files") {
        let path = path(reader, node, folder);
        match name {
            "certificate" => certificate = path,
            "key" => key = path,
            _ => authorities = path,
        }
    }
    for (path, name) in [(&certificate, "certificate"), (&key, "key")] {
        if path.is_none() {
            reader.mistake(node.at, format!("`files` needs a `{name}`"));
        }
    }
    CertificateConfig::Files {
        certificate: certificate.unwrap_or_default(),
        key: key.unwrap_or_default(),
        authorities,
    }
}

fn secret(reader: &mut Reader, node: &Node) -> CertificateConfig {
    let mut secret = (None, None, None, None);
    for (name, node) in reader.fields(node, "admission.certificate.secret") {
        match name {
            "name" => secret.0 = reader.text(node, "a name").map(str::to_owned),
            "authority_ttl" => secret.1 = lifetime(reader, node),
            "certificate_ttl" => secret.2 = lifetime(reader, node),
            "lead" => secret.3 = lifetime(reader, node),
            _ => {}
        }
    }
    let (name, authority_ttl, certificate_ttl, lead) = secret;
    CertificateConfig::Secret {
        name,
        authority_ttl,
        certificate_ttl,
        lead,
    }
}
