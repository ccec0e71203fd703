//! A small authority of our own, kept in a Secret, for clusters without another: it signs our serving certificates and
//! nothing else.
//!
//! ```text
//! first: active at once -> half its life: a successor, published -> after the lead: active, the key before it erased
//!                                                -> when nothing it signed is valid any more: gone
//! ```
//!
//! What is next follows from the Secret and the clock alone, and is written under its version: every instance does the
//! same, whoever is first. Keys of serving certificates never leave their process.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Error, Material, Source, ends};
use crate::metrics::{Metrics, count};

/// Key of the Secret's data.
const FIELD: &str = "authorities.json";
/// Clocks differ: what we sign is valid a little before now.
const BACKDATE: Duration = Duration::from_secs(300);
/// How often the Secret is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Largest Secret that is read.
const LARGEST: usize = 256 << 10;

/// Lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Of an authority.
    pub authority: Duration,
    /// Of a serving certificate.
    pub certificate: Duration,
    /// How long an authority is published before it signs.
    pub lead: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            authority: 90 * day,
            certificate: day,
            lead: Duration::from_secs(600),
        }
    }
}

/// One authority, as the Secret keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Record {
    /// Certificate, PEM.
    certificate: String,
    /// Private key, PEM; empty once it no longer signs.
    key: String,
    /// When it was published, in seconds since 1970.
    published: u64,
}

/// The Secret. A fake one in tests.
pub trait Keep: Send {
    /// What is in it, with its version; `None` when it does not exist.
    fn read(&self) -> impl Future<Output = Result<Option<(String, Vec<u8>)>, Error>> + Send;

    /// Puts `octets` in the place of what `version` was read with, or makes the Secret; `false` when somebody else was
    /// faster.
    fn write(
        &self,
        version: Option<&str>,
        octets: Vec<u8>,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// A Secret of our own namespace.
#[derive(Clone)]
pub struct OfSecret {
    api: Api<Secret>,
    name: String,
}

impl OfSecret {
    /// The Secret `name` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
        }
    }

    fn failed(&self, verb: &str, cause: &kube::Error) -> Error {
        Error::Cluster {
            what: format!("cannot {verb} the secret `{}`", self.name),
            cause: cause.to_string(),
        }
    }
}

impl Keep for OfSecret {
    async fn read(&self) -> Result<Option<(String, Vec<u8>)>, Error> {
        let found = self.api.get_opt(&self.name).await;
        let found = found.map_err(|e| self.failed("get", &e))?;
        Ok(found.map(|secret| {
            let octets = secret.data.and_then(|mut data| data.remove(FIELD));
            let version = secret.metadata.resource_version.unwrap_or_default();
            (version, octets.map(|o| o.0).unwrap_or_default())
        }))
    }

    async fn write(&self, version: Option<&str>, octets: Vec<u8>) -> Result<bool, Error> {
        let mut secret = Secret {
            data: Some([(FIELD.to_owned(), ByteString(octets))].into()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        secret.metadata.name = Some(self.name.clone());
        secret.metadata.resource_version = version.map(str::to_owned);
        let params = PostParams {
            field_manager: Some(super::ca_bundle::FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let (verb, written) = match version {
            None => ("create", self.api.create(&params, &secret).await),
            Some(_) => (
                "update",
                self.api.replace(&self.name, &params, &secret).await,
            ),
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.failed(verb, &error)),
        }
    }
}

/// Signs serving certificates for `names`.
pub struct Authority<K> {
    keep: K,
    names: Vec<String>,
    times: Times,
}

/// What was signed last.
struct Signed {
    material: Arc<Material>,
    /// Certificate of the authority.
    by: String,
    renew: SystemTime,
}

impl<K: Keep> Authority<K> {
    /// Certificates for `names`: DNS names and addresses.
    #[must_use]
    pub fn new(keep: K, names: Vec<String>, times: Times) -> Self {
        Self { keep, names, times }
    }

    /// Signs, and signs again, until the receiver is gone.
    pub fn follow(self, metrics: Arc<Metrics>) -> (Source, impl Future<Output = ()> + Send)
    where
        K: Sync,
    {
        let (sender, receiver) = watch::channel(None);
        let following = async move {
            let mut signed: Option<Signed> = None;
            let mut said = String::new();
            while !sender.is_closed() {
                match self.step(&mut signed, SystemTime::now()).await {
                    Ok(None) => said.clear(),
                    Ok(Some(material)) => {
                        said.clear();
                        sender.send_replace(Some(material));
                    }
                    Err(error) => {
                        count(&metrics.certificates_failed);
                        if said != error.to_string() {
                            said = error.to_string();
                            tracing::error!(%error, "trying again");
                        }
                    }
                }
                tokio::time::sleep(LOOK.min(self.times.lead / 4).max(Duration::from_millis(50)))
                    .await;
            }
        };
        (receiver, following)
    }

    /// Looks at the Secret once; a material where there is a new one.
    async fn step(
        &self,
        signed: &mut Option<Signed>,
        now: SystemTime,
    ) -> Result<Option<Arc<Material>>, Error> {
        let records = self.records(now).await?;
        let roots: Result<Vec<_>, _> = records.iter().map(root).collect();
        let roots = roots?;
        let Some(active) = active(&records, &self.times, now) else {
            return Err(Error::Authority(
                "the secret holds none that signs".to_owned(),
            ));
        };
        if let Some(signed) = signed
            && signed.by == active.certificate
            && now < signed.renew
        {
            if signed.material.roots == roots {
                return Ok(None);
            }
            // The same certificate, with other roots around it.
            let material = Arc::new(Material {
                chain: signed.material.chain.clone(),
                key: signed.material.key.clone_key(),
                roots,
            });
            signed.material = Arc::clone(&material);
            return Ok(Some(material));
        }
        let (chain, key) = sign(active, &self.names, &self.times, now)?;
        let material = Arc::new(Material { chain, key, roots });
        let life = material.ends().duration_since(now).unwrap_or_default();
        *signed = Some(Signed {
            material: Arc::clone(&material),
            by: active.certificate.clone(),
            renew: now + life / 2,
        });
        Ok(Some(material))
    }

    /// The authorities, after what is due has been done.
    async fn records(&self, now: SystemTime) -> Result<Vec<Record>, Error> {
        // Whoever loses a race looks again.
        for _ in 0..10 {
            let found = self.keep.read().await?;
            let mut records = match &found {
                Some((_, octets)) => parse(octets)?,
                None => Vec::new(),
            };
            if !advance(&mut records, &self.times, now)? {
                return Ok(records);
            }
            let octets =
                serde_json::to_vec(&records).map_err(|e| Error::Authority(e.to_string()))?;
            let version = found.as_ref().map(|(version, _)| version.as_str());
            if self.keep.write(version, octets).await? {
                tracing::info!(
                    authorities = records.len(),
                    "the authorities of the webhook are changed"
                );
                return Ok(records);
            }
        }
        Err(Error::Authority(
            "the secret is changed by somebody else, again and again".to_owned(),
        ))
    }
}

/// What the Secret holds. What cannot be read is not thrown away: certificates of it may be in use.
fn parse(octets: &[u8]) -> Result<Vec<Record>, Error> {
    if octets.is_empty() {
        return Ok(Vec::new());
    }
    if octets.len() > LARGEST {
        return Err(Error::Authority(format!(
            "the secret is longer than {LARGEST} octets"
        )));
    }
    serde_json::from_slice(octets).map_err(|e| {
        Error::Authority(format!(
            "`{FIELD}` of the secret cannot be read: {e}; delete the secret to begin anew"
        ))
    })
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

fn root(record: &Record) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(record.certificate.as_bytes())
        .map_err(|e| Error::Authority(format!("a certificate of the secret cannot be read: {e}")))
}

/// The authority that signs now: the newest that was published long enough ago, else the oldest.
fn active<'r>(records: &'r [Record], times: &Times, now: SystemTime) -> Option<&'r Record> {
    let signs = |record: &&Record| !record.key.is_empty();
    let ripe = records
        .iter()
        .rev()
        .filter(signs)
        .find(|r| at(r.published) + times.lead <= now);
    ripe.or_else(|| records.iter().find(signs))
}

/// Does what is due; true when something changed.
fn advance(records: &mut Vec<Record>, times: &Times, now: SystemTime) -> Result<bool, Error> {
    let before = records.clone();
    records.sort_by_key(|record| record.published);
    let is_valid = |record: &Record| root(record).is_ok_and(|root| ends(&root) > now);
    records.retain(is_valid);
    if !records.iter().any(|record| !record.key.is_empty()) {
        // The first, or the first after all ended: nobody holds an older bundle that is worth anything.
        records.push(create(times, now)?);
    }
    let successor_due = records.last().is_some_and(|newest| {
        let half = at(newest.published) + times.authority / 2;
        half <= now
    });
    if successor_due {
        records.push(create(times, now)?);
    }
    let signs = active(records, times, now).map(|record| record.published);
    if let Some(signs) = signs {
        for record in records.iter_mut().filter(|record| record.published < signs) {
            record.key.zeroize();
        }
        // From then on nothing that one before it signed is valid.
        let over = at(signs) + times.lead + times.certificate + BACKDATE;
        if over <= now {
            records.retain(|record| record.published >= signs);
        }
    }
    Ok(*records != before)
}

/// What the certificates of an authority have in common.
fn authority(published: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Names differ, so that a verifier finds the right one at once.
    params.distinguished_name = DistinguishedName::new();
    let name = format!("Portcullis admission authority {published}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn create(times: &Times, now: SystemTime) -> Result<Record, Error> {
    let failed = |e: rcgen::Error| Error::Authority(e.to_string());
    let published = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = authority(published);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + times.authority).into();
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Record {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        published,
    })
}

type Signature = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn sign(by: &Record, names: &[String], times: &Times, now: SystemTime) -> Result<Signature, Error> {
    let failed = |e: rcgen::Error| Error::Authority(e.to_string());
    let key = KeyPair::from_pem(&by.key).map_err(failed)?;
    let issuer = Issuer::new(authority(by.published), key);
    let own = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - BACKDATE).into();
    let end = ends(&root(by)?);
    params.not_after = end.min(now + times.certificate).into();
    let certificate = params.signed_by(&own, &issuer).map_err(failed)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
    Ok((vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests;
