//! The certificate authority itself: everything that is behind the sockets, wired together.

mod issue;
mod revocation;
mod rotation;
mod schedule;
mod serve;
mod svids;
mod wit;

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, watch};

use crate::authority::set::AuthoritySet;
use crate::authority::upstream::Upstream;
use crate::authority::{self, Authority, AuthorityError};
use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::delivery::Deliveries;
use crate::federation::{Refresher, Roots, RootsError};
use crate::journal::{self, Journal, JournalError, Record};
use crate::jwt_svid::JwtProfile;
use crate::key::disk::{KeyFolder, Secret};
use crate::key::{KeyAlgorithm, KeyError, MemoryKey, SigningKey};
use crate::observe::Observer;
use crate::registry::Registry;
use crate::store::{self, AuthorityKind, AuthorityRow, AuthorityState, Meta, Store, StoreError};
use crate::trust_domain::TrustDomain;
use crate::wit_svid::WitProfile;
use crate::x509::profile::X509Profile;

pub(crate) use issue::let_others;
pub use issue::{IssuedJwt, IssuedX509, JwtRequest, Requester, X509Request};
pub use revocation::{LIST_LIFE, RevocationError};
pub use schedule::{RotationTimes, Tick, rotation_times};

use revocation::Revocations;
use svids::SvidCache;
use wit::WitCache;

/// How often a data folder that another process holds is looked at again, and the rest in between.
const LOCK_LOOKS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where the private keys of authorities are.
#[derive(Clone)]
pub enum KeyStorage {
    /// In memory: they end with the process.
    Memory,
    /// In encrypted files below the data folder.
    Disk(Secret),
}

/// What a certificate authority is made from.
#[derive(Clone)]
pub struct Options {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Folder of database, journal and keys.
    pub data: PathBuf,
    /// Where private keys are.
    pub keys: KeyStorage,
    /// Kind of key of new X.509 authorities.
    pub x509_key: KeyAlgorithm,
    /// Kind of key of new JWT authorities.
    pub jwt_key: KeyAlgorithm,
    /// How long an authority lives.
    pub authority_ttl: Duration,
    /// Lifetime of X.509-SVIDs whose entry says nothing.
    pub x509_ttl: Duration,
    /// Longest lifetime of an X.509-SVID.
    pub max_x509_ttl: Duration,
    /// Lifetime of JWT-SVIDs whose entry says nothing.
    pub jwt_ttl: Duration,
    /// Longest lifetime of a JWT-SVID.
    pub max_jwt_ttl: Duration,
    /// How far the start of a certificate lies back, for clocks that are behind.
    pub backdate: Duration,
    /// How often those who poll our bundle should look.
    pub refresh_hint: Duration,
    /// `iss` of JWT-SVIDs.
    pub jwt_issuer: Option<String>,
    /// How long a new authority is published before it signs, for those who poll: at least three refresh hints where
    /// our bundle has an endpoint, and the longest age of the OIDC keys (SPIFFE Federation §4.1).
    pub propagation: Duration,
    /// Authorities that hosts of federated bundle endpoints (https_web) are verified with, beside the platform's; PEM.
    pub federation_roots: Option<PathBuf>,
    /// Whether WIT-SVIDs are issued; the standard is not finished yet.
    pub wit_svid: bool,
    /// How long a revocation list is good for; `None`: there are none.
    pub revocation: Option<Duration>,
    /// No federated bundle is fetched more often than this.
    pub federation_interval: Duration,
    /// Certificate (chain) and key of the upstream authority, PEM files.
    pub upstream: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// The defaults: SPIRE's lifetimes, P-256, keys on disk encrypted with a file key.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, data: PathBuf) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            trust_domain,
            data,
            keys: KeyStorage::Disk(Secret::File),
            x509_key: KeyAlgorithm::P256,
            jwt_key: KeyAlgorithm::P256,
            authority_ttl: 24 * HOUR,
            x509_ttl: HOUR,
            max_x509_ttl: 24 * HOUR,
            jwt_ttl: HOUR / 12,
            max_jwt_ttl: HOUR,
            backdate: Duration::from_secs(60),
            refresh_hint: HOUR / 12,
            jwt_issuer: None,
            propagation: Duration::ZERO,
            federation_roots: None,
            revocation: None,
            wit_svid: false,
            federation_interval: Duration::from_secs(30),
            upstream: None,
        }
    }
}

/// A certificate authority that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be had.
    #[error("data folder `{path}`: {cause}")]
    Data {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
    /// Another process has it.
    #[error("data folder `{0}`: another certificate authority is running on it")]
    Locked(String),
    /// It belongs to another trust domain.
    #[error(
        "data folder `{path}` belongs to the trust domain `{stored}`, not to `{wanted}`: name another folder, or that trust domain"
    )]
    OtherTrustDomain {
        /// Which folder.
        path: String,
        /// Whose it is.
        stored: String,
        /// Who asked.
        wanted: TrustDomain,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Authorities of the web.
    #[error(transparent)]
    Roots(#[from] RootsError),
}

/// A certificate authority.
pub struct Ca {
    options: Options,
    clock: Arc<dyn Clock>,
    store: Arc<Store>,
    journal: Journal,
    registry: Registry,
    keys: Option<KeyFolder>,
    upstream: Option<Upstream>,
    authorities: RwLock<Arc<AuthoritySet>>,
    /// Who changes authorities holds it.
    changing: Mutex<()>,
    x509_profile: X509Profile,
    jwt_profile: JwtProfile,
    svids: SvidCache,
    revocations: Revocations,
    wit_profile: WitProfile,
    wits: WitCache,
    changes: watch::Sender<u64>,
    deliveries: Deliveries,
    refresher: Refresher,
    observer: Observer,
    started: SystemTime,
    /// Locked as long as the process lives.
    _lock: File,
}

impl Ca {
    /// Opens the data folder, made when missing, and makes the first authorities of an empty one. Those are active at
    /// once: nobody holds an older bundle.
    ///
    /// # Errors
    /// When anything of it cannot be read, written or trusted.
    pub async fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let lock = lock(&options.data).await?;
        let journal = Journal::open(&journal::path_in(&options.data), Arc::clone(&clock))?;
        let store = Arc::new(Store::open(&options.data.join(store::FILE_NAME)).await?);
        claim(&store, &options).await?;
        let upstream = match &options.upstream {
            Some((certificate, key)) => {
                Some(Upstream::read(certificate, key, &options.trust_domain)?)
            }
            None => None,
        };
        let keys = match &options.keys {
            KeyStorage::Memory => None,
            KeyStorage::Disk(secret) => Some(KeyFolder::open(&options.data.join("keys"), secret)?),
        };
        let roots = Roots::read(options.federation_roots.as_deref())?;
        let refresher = Refresher::new(roots, options.federation_interval);
        let (changes, _) = watch::channel(1);
        let registry = Registry::open(
            options.trust_domain.clone(),
            Arc::clone(&store),
            journal.clone(),
            Arc::clone(&clock),
            changes.clone(),
        )
        .await?;
        let trust_domain = options.trust_domain.clone();
        let revocations = Revocations::load(&store).await?;
        let ca = Self {
            wit_profile: WitProfile::new(
                trust_domain.clone(),
                options.x509_ttl,
                options.max_x509_ttl,
                options.backdate,
            ),
            x509_profile: X509Profile::new(
                trust_domain.clone(),
                options.x509_ttl,
                options.max_x509_ttl,
                options.backdate,
            ),
            jwt_profile: JwtProfile::new(
                trust_domain.clone(),
                options.jwt_ttl,
                options.max_jwt_ttl,
                options.jwt_issuer.clone(),
            ),
            authorities: RwLock::new(Arc::new(AuthoritySet::new(
                Vec::new(),
                &trust_domain,
                0,
                options.refresh_hint,
            ))),
            started: clock.now(),
            options,
            clock,
            store,
            journal,
            registry,
            keys,
            upstream,
            changing: Mutex::new(()),
            svids: SvidCache::default(),
            revocations,
            wits: WitCache::default(),
            changes,
            deliveries: Deliveries::default(),
            refresher,
            observer: Observer::default(),
            _lock: lock,
        };
        ca.load_authorities().await?;
        ca.ensure_active().await?;
        ca.renew_lists().await?;
        let started = Record::new("ca_started").with("trust_domain", trust_domain.as_str());
        ca.journal.append(vec![started]).await?;
        Ok(ca)
    }

    async fn load_authorities(&self) -> Result<(), OpenError> {
        let (rows, sequence) = {
            let mut writer = self.store.writer().await;
            let mut transaction = writer.begin().await?;
            let sequence = store::meta(&mut transaction, Meta::BundleSequence).await?;
            (
                AuthorityRow::all(&mut transaction).await?,
                sequence.unwrap_or(0),
            )
        };
        let mut authorities = Vec::with_capacity(rows.len());
        for row in rows {
            let key = self.load_key(&row)?;
            authorities.push(Arc::new(match row.kind {
                AuthorityKind::X509 => authority::x509::from_row(row, key)?,
                AuthorityKind::Jwt | AuthorityKind::Wit => authority::jwt::from_row(row, key),
            }));
        }
        self.swap(authorities, sequence);
        Ok(())
    }

    fn load_key(&self, row: &AuthorityRow) -> Result<Option<Arc<dyn SigningKey>>, OpenError> {
        let may_sign = match row.state {
            AuthorityState::Prepared | AuthorityState::Active => true,
            AuthorityState::Old => self.signs_lists(row.kind),
            AuthorityState::Tainted | AuthorityState::Revoked => false,
        };
        let Some(keys) = self.keys.as_ref().filter(|_| may_sign) else {
            return Ok(None);
        };
        let Some(key) = keys.load(&row.id)? else {
            return Ok(None);
        };
        if key.public_key() != &row.public_key {
            return Err(KeyError::Unusable(format!(
                "the stored key of authority `{}` is another one",
                row.id
            ))
            .into());
        }
        Ok(Some(Arc::new(key)))
    }

    /// Our trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.options.trust_domain
    }

    /// Everything that it was made from.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Entries and foreign bundles.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What fetches the bundles of other trust domains.
    #[must_use]
    pub fn refresher(&self) -> &Refresher {
        &self.refresher
    }

    /// What counts and traces.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// End of the upstream authority; `None` where ours are roots.
    #[must_use]
    pub fn upstream_not_after(&self) -> Option<SystemTime> {
        self.upstream.as_ref().map(Upstream::not_after)
    }

    /// How many X.509-SVIDs are in memory, to be served again.
    #[must_use]
    pub fn svids_held(&self) -> usize {
        self.svids.len()
    }

    #[cfg(test)]
    pub(crate) fn refresher_mut(&mut self) -> &mut Refresher {
        &mut self.refresher
    }

    /// Authorities, as they are now.
    #[must_use]
    pub fn authorities(&self) -> Arc<AuthoritySet> {
        Arc::clone(
            &self
                .authorities
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Our bundle, as it is now.
    #[must_use]
    pub fn bundle(&self) -> Arc<Bundle> {
        Arc::clone(self.authorities().bundle())
    }

    /// The clock that it goes by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// When it was opened.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The audit journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Has everybody ask again who waits for a change: facts about callers are others now.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn wake(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    fn swap(&self, authorities: Vec<Arc<Authority>>, sequence: u64) {
        let set = AuthoritySet::new(
            authorities,
            &self.options.trust_domain,
            sequence,
            self.options.refresh_hint,
        );
        *self
            .authorities
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        self.changes.send_modify(|version| *version += 1);
    }

    /// Kinds of authorities that there are here.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = AuthorityKind> + use<> {
        let has_wit = self.options.wit_svid;
        AuthorityKind::ALL
            .into_iter()
            .filter(move |kind| *kind != AuthorityKind::Wit || has_wit)
    }

    /// True where an authority that issues no more still has to tell what it revoked.
    fn signs_lists(&self, kind: AuthorityKind) -> bool {
        self.options.revocation.is_some() && kind == AuthorityKind::X509
    }

    fn new_key(&self, algorithm: KeyAlgorithm) -> Result<Arc<MemoryKey>, KeyError> {
        Ok(Arc::new(MemoryKey::generate(algorithm)?))
    }
}

/// Makes the folder, and locks it for this process. Its mode lets others through to the workload socket, and no further:
/// what is in it has modes of its own.
async fn lock(data: &Path) -> Result<File, OpenError> {
    let failed = |cause: std::io::Error| OpenError::Data {
        path: data.display().to_string(),
        cause: cause.to_string(),
    };
    if !data.exists() {
        fs::create_dir_all(data).map_err(failed)?;
        fs::set_permissions(data, fs::Permissions::from_mode(0o711)).map_err(failed)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(data.join("lock"))
        .map_err(failed)?;
    // A moment: the one before may be about to end, or a program that it started about to begin.
    let mut left = LOCK_LOOKS;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if left > 0 => left -= 1,
            Err(fs::TryLockError::WouldBlock) => {
                return Err(OpenError::Locked(data.display().to_string()));
            }
            Err(fs::TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// A store belongs to one trust domain, from its first start on.
async fn claim(store: &Store, options: &Options) -> Result<(), OpenError> {
    let mut writer = store.writer().await;
    let mut transaction = writer.begin().await?;
    let stored: Option<String> = store::meta(&mut transaction, Meta::TrustDomain).await?;
    match stored {
        Some(stored) if stored == options.trust_domain.as_str() => Ok(()),
        Some(stored) => Err(OpenError::OtherTrustDomain {
            path: options.data.display().to_string(),
            stored,
            wanted: options.trust_domain.clone(),
        }),
        None => {
            store::set_meta(
                &mut transaction,
                Meta::TrustDomain,
                options.trust_domain.as_str(),
            )
            .await?;
            transaction.commit().await?;
            Ok(())
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
