//! An upstream authority from disk: a root, or an intermediate with its chain up to one.

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::AuthorityError;
use crate::clock::from_unix_seconds;
use crate::key::{MemoryKey, SigningKey, pem};
use crate::trust_domain::TrustDomain;
use crate::x509::certificate::key_id;
use crate::x509::conform;

/// Longest file that is read, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Who signs our X.509 authorities.
pub struct Upstream {
    key: MemoryKey,
    subject: Bytes,
    key_id: Bytes,
    not_after: SystemTime,
    intermediates: Vec<Bytes>,
    root: Bytes,
}

impl Upstream {
    /// Reads certificate and key, PEM. The certificate's file may go on with the chain up to the root; what
    /// comes last stands in the bundle.
    ///
    /// # Errors
    /// When a file cannot be read, the key belongs to another certificate, a certificate does not follow from the next,
    /// or cannot sign ours.
    pub fn read(
        certificate: &Path,
        key: &Path,
        trust_domain: &TrustDomain,
    ) -> Result<Self, AuthorityError> {
        let failed = |path: &Path, cause: String| {
            AuthorityError::Upstream(format!("`{}`: {cause}", path.display()))
        };
        let text = read(certificate).map_err(|cause| failed(certificate, cause))?;
        let chain =
            pem::certificates(&text).map_err(|cause| failed(certificate, cause.to_string()))?;
        let key_text = read(key).map_err(|cause| failed(key, cause))?;
        let key_read = pem::private_key(&zeroize::Zeroizing::new(key_text))
            .and_then(MemoryKey::from_pkcs8)
            .map_err(|cause| failed(key, cause.to_string()))?;
        Self::new(chain, key_read, trust_domain).map_err(|cause| failed(certificate, cause))
    }

    fn new(chain: Vec<Bytes>, key: MemoryKey, trust_domain: &TrustDomain) -> Result<Self, String> {
        for (index, der) in chain.iter().enumerate() {
            conform::authority(der, trust_domain)
                .map_err(|refusal| format!("certificate {index}: {refusal}"))?;
        }
        let parsed: Vec<X509Certificate<'_>> = chain
            .iter()
            .filter_map(|der| {
                X509Certificate::from_der(der)
                    .ok()
                    .map(|(_, parsed)| parsed)
            })
            .collect();
        let (Some(first), Some(root)) = (parsed.first(), chain.last()) else {
            return Err("there is no certificate in it".to_owned());
        };
        if first.public_key().raw != &key.public_key()[..] {
            return Err("the private key is that of another certificate".to_owned());
        }
        // Raw names: what a printed name would not show may still be different.
        for (child, parent) in parsed.iter().zip(parsed.iter().skip(1)) {
            if child.issuer().as_raw() != parent.subject().as_raw() {
                return Err(format!(
                    "`{}` was not issued by `{}`, which follows it",
                    child.subject(),
                    parent.subject()
                ));
            }
        }
        for certificate in &parsed {
            let constraints = certificate.basic_constraints().ok().flatten();
            if constraints.is_some_and(|found| found.value.path_len_constraint == Some(0)) {
                return Err(format!(
                    "`{}` has pathLenConstraint 0: it cannot sign signing certificates",
                    certificate.subject()
                ));
            }
        }
        let ends = parsed
            .iter()
            .map(|certificate| certificate.validity().not_after.timestamp());
        let not_after = from_unix_seconds(ends.min().unwrap_or(0));
        let own_key_id =
            first
                .iter_extensions()
                .find_map(|extension| match extension.parsed_extension() {
                    x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                        Some(Bytes::copy_from_slice(id.0))
                    }
                    _ => None,
                });
        let computed = || Bytes::from(key_id(&first.public_key().subject_public_key.data));
        Ok(Self {
            subject: Bytes::copy_from_slice(first.subject().as_raw()),
            key_id: own_key_id.unwrap_or_else(computed),
            not_after,
            root: root.clone(),
            intermediates: chain.get(..chain.len() - 1).unwrap_or_default().to_vec(),
            key,
        })
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &dyn SigningKey {
        &self.key
    }

    /// Its subject, DER, as it stands in its certificate.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// Its subject key identifier: that of its certificate, else the one its key has.
    #[must_use]
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// When the first certificate of its chain ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Certificates between ours and the root.
    #[must_use]
    pub fn intermediates(&self) -> &[Bytes] {
        &self.intermediates
    }

    /// What stands in the bundle.
    #[must_use]
    pub fn root(&self) -> &Bytes {
        &self.root
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|cause| cause.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|cause| cause.to_string())?;
    match text.len() as u64 > MAX_FILE {
        true => Err("it has more than 1 MiB".to_owned()),
        false => Ok(text),
    }
}
