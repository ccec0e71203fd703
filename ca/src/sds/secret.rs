//! From a caller's state to the secrets of the names it asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message as _;
use prost_types::Any;
use ring::digest::{SHA256, digest};
use tonic::Status;

use super::name::{SecretNames, Validation, Wanted};
use crate::bundle::Bundle;
use crate::identities::{X509Context, X509Svid};
use crate::proto::sds::data_source::Specifier;
use crate::proto::sds::secret::Type;
use crate::proto::sds::spiffe_cert_validator_config::TrustDomain;
use crate::proto::sds::{
    CertificateValidationContext, DataSource, Secret, SpiffeCertValidatorConfig, TlsCertificate,
    TypedExtensionConfig,
};

/// Type of the only resource that SDS knows.
pub(super) const SECRET: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_CONFIG: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// What one client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    /// Without duplicates, in the order of the request; none means everything.
    pub(super) names: Vec<String>,
    pub(super) validation: Validation,
}

/// The secrets that answer a subscription.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Each with its name and the version of its content.
    pub(super) all: Vec<VersionedSecret>,
    /// Sequence of our own bundle, if it is among them.
    pub(super) sequence: Option<u64>,
}

#[derive(Debug)]
pub(super) struct VersionedSecret {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) resource: Any,
}

impl Subscription {
    /// The secrets that answer it.
    ///
    /// # Errors
    /// `InvalidArgument` when a name means nothing, or something that the caller is not entitled to.
    pub(super) fn secrets(
        &self,
        context: &X509Context,
        known: &SecretNames,
    ) -> Result<Secrets, Status> {
        let mut builder = Builder {
            context,
            validation: self.validation,
            secrets: Secrets {
                all: Vec::new(),
                sequence: None,
            },
        };
        if self.names.is_empty() {
            builder.everything(known);
        }
        let mut refused = Vec::new();
        for name in &self.names {
            let wanted = known.wanted(name)?;
            if wanted == Wanted::AllBundles && self.validation == Validation::PlainCa {
                return Err(Status::invalid_argument(format!(
                    "`{name}` keeps trust domains apart, which plain CA certificates cannot: use Envoy's SPIFFE certificate validator, or ask for one trust domain"
                )));
            }
            if !builder.add(name, &wanted) {
                refused.push(format!("`{name}`"));
            }
        }
        if refused.is_empty() {
            return Ok(builder.secrets);
        }
        Err(Status::invalid_argument(format!(
            "the caller is not entitled to {}",
            refused.join(", ")
        )))
    }
}

struct Builder<'a> {
    context: &'a X509Context,
    validation: Validation,
    secrets: Secrets,
}

impl Builder<'_> {
    fn everything(&mut self, known: &SecretNames) {
        let mut wanted = vec![
            (known.svid.clone(), Wanted::FirstSvid),
            (known.bundle.clone(), Wanted::OwnBundle),
        ];
        if self.validation == Validation::Spiffe {
            wanted.push((known.all_bundles.clone(), Wanted::AllBundles));
        }
        for svid in &self.context.svids {
            let id = svid.spiffe_id.clone();
            wanted.push((id.to_string(), Wanted::Svid(id)));
        }
        for bundle in std::iter::once(&self.context.bundle).chain(&self.context.federated) {
            let domain = bundle.trust_domain.clone();
            wanted.push((domain.id_string(), Wanted::BundleOf(domain)));
        }
        for (name, wanted) in wanted {
            // Two entries may give one ID: the first is the one that its name means.
            if self.secrets.all.iter().all(|known| known.name != name) {
                self.add(&name, &wanted);
            }
        }
    }

    /// False when the caller is not entitled to it.
    fn add(&mut self, name: &str, wanted: &Wanted) -> bool {
        let context = self.context;
        match wanted {
            Wanted::FirstSvid => match context.svids.first() {
                Some(svid) => self.push_svid(name, svid),
                None => return false,
            },
            Wanted::Svid(id) => match context.svids.iter().find(|svid| svid.spiffe_id == *id) {
                Some(svid) => self.push_svid(name, svid),
                None => return false,
            },
            Wanted::OwnBundle => self.push_bundles(name, &[&context.bundle]),
            Wanted::BundleOf(domain) => {
                let mut all = std::iter::once(&context.bundle).chain(&context.federated);
                match all.find(|bundle| bundle.trust_domain == *domain) {
                    Some(bundle) => self.push_bundles(name, &[bundle]),
                    None => return false,
                }
            }
            Wanted::AllBundles => {
                let all: Vec<&Bundle> = std::iter::once(&context.bundle)
                    .chain(&context.federated)
                    .map(|bundle| &**bundle)
                    .collect();
                self.push_bundles(name, &all);
            }
        }
        true
    }

    fn push_svid(&mut self, name: &str, svid: &X509Svid) {
        let chain: String = svid
            .chain
            .iter()
            .map(|certificate| pem("CERTIFICATE", certificate))
            .collect();
        // The version tells of the certificates alone: a new key has a new certificate.
        let version = version(&[chain.as_bytes()]);
        let certificate = TlsCertificate {
            certificate_chain: Some(inline(chain)),
            private_key: Some(inline(pem("PRIVATE KEY", &svid.key))),
        };
        self.push(name, version, Type::TlsCertificate(certificate));
    }

    fn push_bundles(&mut self, name: &str, bundles: &[&Bundle]) {
        for bundle in bundles {
            if bundle.trust_domain == self.context.bundle.trust_domain {
                self.secrets.sequence = Some(bundle.sequence);
            }
        }
        let context = match self.validation {
            Validation::PlainCa => CertificateValidationContext {
                trusted_ca: Some(inline(bundles.iter().map(|bundle| roots(bundle)).collect())),
                ..CertificateValidationContext::default()
            },
            Validation::Spiffe => {
                let trust_domains = bundles
                    .iter()
                    // Envoy refuses a domain without certificates; without the domain it trusts nobody of it.
                    .filter(|bundle| !bundle.x509_authorities.is_empty())
                    .map(|bundle| TrustDomain {
                        name: bundle.trust_domain.as_str().to_owned(),
                        trust_bundle: Some(inline(roots(bundle))),
                    });
                let config = SpiffeCertValidatorConfig {
                    trust_domains: trust_domains.collect(),
                };
                CertificateValidationContext {
                    custom_validator_config: Some(TypedExtensionConfig {
                        name: VALIDATOR.to_owned(),
                        typed_config: Some(any(VALIDATOR_CONFIG, &config)),
                    }),
                    ..CertificateValidationContext::default()
                }
            }
        };
        let version = version(&[&context.encode_to_vec()]);
        self.push(name, version, Type::ValidationContext(context));
    }

    fn push(&mut self, name: &str, version: String, content: Type) {
        let secret = Secret {
            name: name.to_owned(),
            r#type: Some(content),
        };
        self.secrets.all.push(VersionedSecret {
            name: name.to_owned(),
            version,
            resource: any(SECRET, &secret),
        });
    }
}

fn roots(bundle: &Bundle) -> String {
    let authorities = bundle.x509_authorities.iter();
    authorities
        .map(|authority| pem("CERTIFICATE", &authority.der))
        .collect()
}

fn any(type_url: &str, message: &impl prost::Message) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value: message.encode_to_vec(),
    }
}

fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(Bytes::from(text))),
    }
}

/// Textual encoding of RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 octets make a line of 64 characters.
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn version(content: &[&[u8]]) -> String {
    let digest = digest(&SHA256, &content.concat());
    let short = digest.as_ref().iter().take(8);
    short.map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_has_lines_of_64() {
        let text = pem("CERTIFICATE", &[7; 100]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"-----BEGIN CERTIFICATE-----"));
        assert_eq!(lines.last(), Some(&"-----END CERTIFICATE-----"));
        assert_eq!(lines[1].len(), 64);
        assert_eq!(lines.len(), 5);
        let (_, parsed) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        assert_eq!(parsed.contents, [7; 100]);
    }
}
