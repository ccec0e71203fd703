//! Identities that a test arranges: real certificates, no storage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use portcullis_ca::bundle::{Bundle, X509Authority};
use portcullis_ca::caller::Caller;
use portcullis_ca::delivery::Deliveries;
use portcullis_ca::identities::{
    BundlesContext, Identities, IssueError, JwtSvid, ValidatedJwtSvid, X509Context, X509Svid,
};
use portcullis_ca::selector::Selector;
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::trust_domain::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub struct Fake {
    domain: TrustDomain,
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    deliveries: Deliveries,
}

struct State {
    entries: Vec<(Selector, SpiffeId)>,
    bundle: Arc<Bundle>,
    federated: Vec<Arc<Bundle>>,
    authority: Authority,
    svids: HashMap<SpiffeId, Arc<X509Svid>>,
    crls: Vec<Bytes>,
    unavailable: bool,
    /// Every caller that asked.
    callers: Vec<Caller>,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(domain: &TrustDomain, number: u64) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{domain} {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&domain.id_string())];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn x509_authority(authority: &Authority) -> X509Authority {
    X509Authority {
        der: Bytes::copy_from_slice(authority.der()),
        tainted: false,
    }
}

pub fn bundle_of(domain: &str, authorities: usize) -> Bundle {
    let domain = TrustDomain::new(domain).unwrap();
    let all = (0..authorities as u64).map(|number| x509_authority(&authority(&domain, number)));
    Bundle {
        x509_authorities: all.collect(),
        sequence: 1,
        ..Bundle::empty(domain)
    }
}

impl Fake {
    pub fn new() -> Arc<Self> {
        let domain = TrustDomain::new("example.org").unwrap();
        let authority = authority(&domain, 0);
        let bundle = Bundle {
            x509_authorities: vec![x509_authority(&authority)],
            sequence: 1,
            ..Bundle::empty(domain.clone())
        };
        Arc::new(Self {
            domain,
            state: Mutex::new(State {
                entries: Vec::new(),
                bundle: Arc::new(bundle),
                federated: Vec::new(),
                authority,
                svids: HashMap::new(),
                crls: Vec::new(),
                unavailable: false,
                callers: Vec::new(),
            }),
            revision: watch::Sender::new(0),
            deliveries: Deliveries::default(),
        })
    }

    /// An entry for everybody of our own user.
    pub fn entry(&self, id: &str) {
        let uid = rustix::process::geteuid().as_raw();
        self.entry_for(&format!("unix:uid:{uid}"), id);
    }

    pub fn entry_for(&self, selector: &str, id: &str) {
        self.change(|state| {
            let entry = (selector.parse().unwrap(), SpiffeId::parse(id).unwrap());
            state.entries.push(entry);
        });
    }

    pub fn remove(&self, id: &str) {
        self.change(|state| state.entries.retain(|(_, known)| known.as_str() != id));
    }

    pub fn federate(&self, bundle: Bundle) {
        self.change(|state| state.federated.push(Arc::new(bundle)));
    }

    pub fn unavailable(&self, unavailable: bool) {
        self.change(|state| state.unavailable = unavailable);
    }

    pub fn crl(&self, crl: &'static [u8]) {
        self.change(|state| state.crls.push(crl.into()));
    }

    /// A new authority joins the bundle, and signs new SVIDs at once.
    pub fn rotate(&self) {
        let domain = self.domain.clone();
        self.change(|state| {
            let sequence = state.bundle.sequence + 1;
            state.authority = authority(&domain, sequence);
            let mut bundle = Bundle::clone(&state.bundle);
            bundle
                .x509_authorities
                .push(x509_authority(&state.authority));
            bundle.sequence = sequence;
            state.bundle = Arc::new(bundle);
            state.svids.clear();
        });
    }

    /// Something changed that no caller can see.
    pub fn touch(&self) {
        self.change(|_| {});
    }

    pub fn sequence(&self) -> u64 {
        self.state.lock().unwrap().bundle.sequence
    }

    pub fn last_caller(&self) -> Option<Caller> {
        self.state.lock().unwrap().callers.last().cloned()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn entitled(&self, caller: &Caller) -> Result<Vec<SpiffeId>, IssueError> {
        let mut state = self.state.lock().unwrap();
        state.callers.push(caller.clone());
        if state.unavailable {
            return Err(IssueError::Unavailable(
                "the journal cannot be written".into(),
            ));
        }
        let ids: Vec<SpiffeId> = state
            .entries
            .iter()
            .filter(|(selector, _)| caller.selectors.contains(selector))
            .map(|(_, id)| id.clone())
            .collect();
        if ids.is_empty() {
            return Err(IssueError::NoIdentity);
        }
        Ok(ids)
    }
}

impl State {
    fn svid(&mut self, id: &SpiffeId) -> Arc<X509Svid> {
        if let Some(svid) = self.svids.get(id) {
            return Arc::clone(svid);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![uri(id.as_str())];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        let svid = Arc::new(X509Svid {
            spiffe_id: id.clone(),
            chain: vec![Bytes::copy_from_slice(leaf.der())],
            key: Zeroizing::new(key.serialize_der()),
            hint: String::new(),
            entry_id: id.path().to_owned(),
            not_after: SystemTime::now() + Duration::from_secs(3600),
        });
        self.svids.insert(id.clone(), Arc::clone(&svid));
        svid
    }
}

#[async_trait]
impl Identities for Fake {
    fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    fn is_entitled(&self, caller: &Caller) -> bool {
        let state = self.state.lock().unwrap();
        let mut entries = state.entries.iter();
        entries.any(|(selector, _)| caller.selectors.contains(selector))
    }

    async fn x509_context(&self, caller: &Caller) -> Result<X509Context, IssueError> {
        let ids = self.entitled(caller)?;
        let mut state = self.state.lock().unwrap();
        Ok(X509Context {
            svids: ids.iter().map(|id| state.svid(id)).collect(),
            bundle: Arc::clone(&state.bundle),
            federated: state.federated.clone(),
            crls: state.crls.clone(),
            renew_at: SystemTime::now() + Duration::from_secs(1800),
        })
    }

    async fn bundles(&self, caller: &Caller) -> Result<BundlesContext, IssueError> {
        self.entitled(caller)?;
        let state = self.state.lock().unwrap();
        Ok(BundlesContext {
            bundle: Arc::clone(&state.bundle),
            federated: state.federated.clone(),
            crls: state.crls.clone(),
        })
    }

    async fn jwt_svids(
        &self,
        caller: &Caller,
        audiences: &[String],
        spiffe_id: Option<&SpiffeId>,
    ) -> Result<Vec<JwtSvid>, IssueError> {
        let mut ids = self.entitled(caller)?;
        if let Some(wanted) = spiffe_id {
            ids.retain(|id| id == wanted);
            if ids.is_empty() {
                return Err(IssueError::NotEntitled(wanted.clone()));
            }
        }
        let svids = ids.into_iter().map(|id| JwtSvid {
            token: format!("{id} for {}", audiences.join(",")),
            spiffe_id: id,
            hint: String::new(),
            expires_at: SystemTime::now() + Duration::from_secs(300),
        });
        Ok(svids.collect())
    }

    async fn validate_jwt_svid(
        &self,
        _: &Caller,
        audience: &str,
        token: &str,
    ) -> Result<ValidatedJwtSvid, IssueError> {
        let (id, _) = token
            .split_once(" for ")
            .filter(|(_, audiences)| audiences.split(',').any(|one| one == audience))
            .ok_or_else(|| IssueError::InvalidArgument("the token is for somebody else".into()))?;
        let claims = serde_json::json!({
            "sub": id, "aud": [audience], "exp": 1_700_000_000, "x": {"y": [null, true, 1.5]}
        });
        Ok(ValidatedJwtSvid {
            spiffe_id: SpiffeId::parse(id).unwrap(),
            claims: claims.as_object().unwrap().clone(),
        })
    }
}
