//! JWT-SVIDs (SPIFFE JWT-SVID specification) that count as the peer's identity.
//!
//! For proxies behind which clients have no certificate: the SPIFFE ID of a valid JWT-SVID becomes a
//! principal, as if the peer's certificate had it. It is no certificate, though: mutual TLS where a
//! policy demands it (PeerAuthentication STRICT) is still missing. A token whose `sub` is no SPIFFE ID
//! of a configured trust domain is none of ours and left to the rules of RequestAuthentication.

mod workload_api;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_policy::request::{Identity, IdentityKind, Request};
use portcullis_policy::request_authentication::place::{self, Place};
use portcullis_policy::resource::HeaderLocation;
use serde_json::Value;
use tokio::task::JoinSet;

use super::jwks::{KeySet, Purpose, Signature};
use super::jws::Jws;
use super::{Options as Terms, TokenError, claims, crypto};
use crate::check::HeaderChange;

/// Longest bundle document, in octets.
const LONGEST_BUNDLE: u64 = 1 << 20;
/// Time between two looks at a bundle file.
const LOOK: Duration = Duration::from_secs(5);

/// Where the JWT authorities of trust domains come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleSource {
    /// The SPIFFE bundle document of one trust domain.
    File {
        /// Its trust domain.
        trust_domain: String,
        /// The file.
        path: PathBuf,
    },
    /// A SPIFFE Workload API, `unix:/path` or `tcp://IP:PORT`: every trust domain that it knows.
    WorkloadApi(String),
}

/// What is asked of JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Audiences, one of which each must have; at least one.
    pub audiences: Vec<String>,
    /// Header that holds it.
    pub header: HeaderLocation,
    /// Whether the workload gets it.
    pub forward: bool,
    /// Where authorities come from.
    pub bundles: Vec<BundleSource>,
}

/// What a request's JWT-SVID comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Svid {
    /// There is none.
    None,
    /// It is the peer's identity now.
    Valid,
    /// It is not valid.
    Invalid(TokenError),
    /// The peer's certificate says somebody else.
    TwoIdentities,
}

/// Verifies JWT-SVIDs by the bundles of their trust domains.
#[derive(Clone, Debug)]
pub struct Svids {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    terms: Terms,
    clock: fn() -> SystemTime,
    bundles: RwLock<BTreeMap<String, Arc<KeySet>>>,
    /// The Workload API, if there is one, has told its trust domains.
    told: AtomicBool,
}

impl Svids {
    /// A verifier that has no bundle yet; [`Self::run`] gets them.
    #[must_use]
    pub fn new(options: Options, terms: Terms, clock: fn() -> SystemTime) -> Self {
        crypto::install();
        let svids = Self {
            inner: Arc::new(Inner {
                options,
                terms,
                clock,
                bundles: RwLock::default(),
                told: AtomicBool::new(false),
            }),
        };
        // What can be had at once is there before the first request.
        for source in &svids.inner.options.bundles {
            if let BundleSource::File { trust_domain, path } = source {
                svids.load(trust_domain, path);
            }
        }
        svids
    }

    /// Puts a trust domain's bundle, a SPIFFE bundle document, in force.
    ///
    /// # Errors
    /// In words, when it has no JWT authority; what was in force stays.
    pub fn publish(&self, trust_domain: &str, document: &[u8]) -> Result<(), String> {
        let keys = Arc::new(KeySet::parse(document, Purpose::JwtSvid)?);
        let bundles = self.inner.bundles.write();
        let mut bundles = bundles.unwrap_or_else(PoisonError::into_inner);
        bundles.insert(trust_domain.to_ascii_lowercase(), keys);
        Ok(())
    }

    /// Follows the bundle files and the Workload API, until dropped.
    pub async fn run(self) {
        let apis = self.sources().iter().filter_map(|source| match source {
            BundleSource::WorkloadApi(address) => Some(address.clone()),
            BundleSource::File { .. } => None,
        });
        let followers = apis.map(|address| workload_api::follow(self.clone(), address));
        let mut following: JoinSet<()> = followers.collect();
        tokio::select! {
            () = self.clone().look() => {}
            // Neither ends by itself.
            _ = following.join_next(), if !following.is_empty() => {}
        }
    }

    /// Puts what a Workload API tells in force: all of its trust domains.
    fn told(&self, bundles: BTreeMap<String, KeySet>) {
        let files = |domain: &String| {
            self.sources().iter().any(|source| {
                matches!(source, BundleSource::File { trust_domain, .. } if trust_domain == domain)
            })
        };
        let now = self.inner.bundles.write();
        let mut now = now.unwrap_or_else(PoisonError::into_inner);
        now.retain(|domain, _| files(domain) || bundles.contains_key(domain));
        for (domain, keys) in bundles {
            // A file was chosen for this one by name.
            if !files(&domain) {
                now.insert(domain, Arc::new(keys));
            }
        }
        self.inner.told.store(true, Ordering::Relaxed);
    }

    /// Looks at the bundle files now and then.
    async fn look(self) {
        let mut seen: BTreeMap<PathBuf, Option<SystemTime>> = BTreeMap::new();
        loop {
            for source in self.inner.options.bundles.clone() {
                let BundleSource::File { trust_domain, path } = source else {
                    continue;
                };
                let svids = self.clone();
                let last = seen.get(&path).copied().flatten();
                let file = path.clone();
                let look = tokio::task::spawn_blocking(move || {
                    let changed = std::fs::metadata(&file).and_then(|m| m.modified()).ok();
                    if changed != last {
                        svids.load(&trust_domain, &file);
                    }
                    changed
                });
                seen.insert(path, look.await.ok().flatten());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn load(&self, trust_domain: &str, path: &Path) {
        use std::io::Read as _;
        let mut document = Vec::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST_BUNDLE).read_to_end(&mut document))
            .map_err(|error| error.to_string());
        if let Err(error) = read.and_then(|_| self.publish(trust_domain, &document)) {
            tracing::warn!(
                trust_domain,
                path = %path.display(),
                error,
                "bundle cannot be used: JWT-SVIDs of this trust domain are verified by the last good one, if any"
            );
        }
    }

    /// Where its authorities come from.
    #[must_use]
    pub fn sources(&self) -> &[BundleSource] {
        &self.inner.options.bundles
    }

    /// Takes the JWT-SVID out of the request, and its SPIFFE ID for the peer's if it is valid.
    pub fn check(&self, request: &mut Request, changes: &mut Vec<HeaderChange>) -> Svid {
        let options = &self.inner.options;
        let Some(http) = &mut request.http else {
            return Svid::None;
        };
        let found = place::in_one_header(&options.header, http);
        let Some(found) = found else {
            return Svid::None;
        };
        let id = match found.text.as_deref().map(|text| self.verify(text)) {
            // Several: one of them may be a JWT-SVID, and which one the workload reads nobody knows.
            None => return Svid::Invalid(TokenError::Several),
            Some(Ok(Some(id))) => id,
            Some(Ok(None)) => return Svid::None,
            Some(Err(error)) => return Svid::Invalid(error),
        };
        // The rules of RequestAuthentication must not look at it again.
        place::remove(http, &found.place);
        if let (false, Place::Header(name)) = (options.forward, found.place) {
            changes.push(HeaderChange::Remove { name });
        }
        let source = &mut request.source;
        if source.identities.iter().any(|known| known.value == id) {
            return Svid::Valid;
        }
        if source.certificate_presented || !source.identities.is_empty() {
            return Svid::TwoIdentities;
        }
        source.identities.push(Identity {
            kind: IdentityKind::JwtSvid,
            value: id,
        });
        Svid::Valid
    }

    /// True where the header holds nothing but JWT-SVIDs.
    fn is_alone(&self) -> bool {
        !self
            .inner
            .options
            .header
            .name
            .eq_ignore_ascii_case("authorization")
    }

    /// True for a text whose middle names an ID of a trust domain of ours, whatever else it is.
    fn claims_to_be(&self, text: &str) -> bool {
        let payload = text.split('.').nth(1).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('='));
        let payload = payload.ok().and_then(|p| serde_json::from_slice(&p).ok());
        let payload: Value = payload.unwrap_or_default();
        let id = payload.get("sub").and_then(Value::as_str);
        id.and_then(spiffe_id)
            .is_some_and(|(_, domain)| self.may_know(domain))
    }

    /// True for a trust domain whose tokens are ours to judge: it has a bundle, or is to have one.
    fn may_know(&self, trust_domain: &str) -> bool {
        let here = |bundles: &BTreeMap<String, Arc<KeySet>>| bundles.contains_key(trust_domain);
        let bundles = self.inner.bundles.read();
        let known = here(&bundles.unwrap_or_else(PoisonError::into_inner));
        let told = self.inner.told.load(Ordering::Relaxed);
        known
            || self.sources().iter().any(|source| match source {
                BundleSource::File {
                    trust_domain: of, ..
                } => of == trust_domain,
                // Until it has told which trust domains there are, it may be any.
                BundleSource::WorkloadApi(_) => !told,
            })
    }

    /// The SPIFFE ID of a valid JWT-SVID; `None` for a token that is not one of ours.
    fn verify(&self, text: &str) -> Result<Option<String>, TokenError> {
        let token = match Jws::parse(text) {
            Ok(token) => token,
            // In a header of their own there is nothing else; elsewhere it is one if it says so.
            Err(error) if self.is_alone() || self.claims_to_be(text) => return Err(error),
            Err(_) => return Ok(None),
        };
        let subject = token.payload.get("sub").and_then(Value::as_str);
        let Some((id, trust_domain)) = subject.and_then(spiffe_id) else {
            return Ok(None);
        };
        let keys = {
            let bundles = self.inner.bundles.read();
            let bundles = bundles.unwrap_or_else(PoisonError::into_inner);
            bundles.get(trust_domain).map(Arc::clone)
        };
        let Some(keys) = keys else {
            return if self.may_know(trust_domain) {
                Err(TokenError::NoKeys)
            } else {
                Ok(None)
            };
        };
        if !self.inner.terms.algorithms.contains(&token.algorithm) {
            return Err(TokenError::AlgorithmNotAllowed);
        }
        // Section 2.3: `typ`, if there, is one of these two.
        if token
            .kind
            .as_deref()
            .is_some_and(|kind| kind != "JWT" && kind != "JOSE")
        {
            return Err(TokenError::Svid("its `typ` is neither `JWT` nor `JOSE`"));
        }
        // Section 3.3: `exp` must be there.
        if !token.payload.contains_key("exp") {
            return Err(TokenError::Svid("it has no `exp`"));
        }
        let now = (self.inner.clock)();
        claims::check_time(&token.payload, now, self.inner.terms.clock_skew)?;
        // Section 3.2: compared as they are.
        let audiences = claims::audiences(&token.payload)?;
        let wanted = &self.inner.options.audiences;
        if !audiences
            .iter()
            .any(|given| wanted.iter().any(|w| w == given))
        {
            return Err(TokenError::Audience);
        }
        match keys.verify(&token) {
            Signature::Valid => Ok(Some(id.to_owned())),
            Signature::Invalid => Err(TokenError::Signature),
            Signature::NoKey => Err(TokenError::UnknownKey),
        }
    }
}

/// A workload's SPIFFE ID and its trust domain (SPIFFE ID, section 2): anything else is none.
fn spiffe_id(text: &str) -> Option<(&str, &str)> {
    /// Longest SPIFFE ID, in octets (section 2.3).
    const LONGEST: usize = 2048;
    let rest = text.strip_prefix("spiffe://")?;
    let (trust_domain, path) = rest.split_once('/')?;
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(in_segment);
    let ok = text.len() <= LONGEST
        && !trust_domain.is_empty()
        && trust_domain.len() <= 255
        && trust_domain.bytes().all(in_domain)
        && path.split('/').all(segment);
    ok.then_some((text, trust_domain))
}
