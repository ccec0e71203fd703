//! The keys of issuers: fetched ahead, refreshed in the background, kept through an outage.
//!
//! ```text
//! snapshot published -> sources -> background: fetch, again every `refresh`, after a failure sooner
//! a token names a key that no set has -> one more fetch, at most every `refetch`
//! no fetch succeeds -> the last keys, until they are older than `keep`; then none: tokens are invalid
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use portcullis_policy::resource::JwtRule;
use portcullis_policy::snapshot::Snapshot;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fetch::{FetchError, Fetcher};
use super::json;
use super::jwks::{KeySet, Purpose};

/// Longest time of one fetch, where the rule has no `timeout` (Istio's default).
const FETCH: Duration = Duration::from_secs(5);
/// A rule's `timeout` never makes a fetch take longer than this.
const LONGEST_FETCH: Duration = Duration::from_secs(30);
/// Fetches at once.
const AT_ONCE: usize = 8;
/// First pause after a failure; each further one is twice as long, up to `refresh`.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Time between two fetches of one set.
    pub refresh: Duration,
    /// Age at which keys that could not be refreshed are no longer believed.
    pub keep: Duration,
    /// Shortest time between two fetches that tokens with unknown keys ask for.
    pub refetch: Duration,
    /// Longest time that a request waits for keys.
    pub wait: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            keep: Duration::from_secs(3600),
            refetch: Duration::from_secs(10),
            wait: Duration::from_secs(1),
        }
    }
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// They stand in the manifest.
    Inline(String),
    /// A key set at this address.
    Uri(String),
    /// The key set that the issuer's OpenID configuration names.
    Issuer(String),
}

impl Origin {
    /// Where the keys of a rule come from.
    #[must_use]
    pub fn of(rule: &JwtRule) -> Self {
        let spoken = |text: &Option<portcullis_policy::resource::Located<String>>| {
            let text = text.as_ref().map(|text| text.value.clone());
            text.filter(|text| !text.is_empty())
        };
        // As istiod: the address wins over the text.
        if let Some(uri) = spoken(&rule.jwks_uri) {
            return Self::Uri(uri);
        }
        match spoken(&rule.jwks) {
            Some(text) => Self::Inline(text),
            None => Self::Issuer(rule.issuer.value.clone()),
        }
    }

    /// What a log calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Inline(_) => "inline",
            Self::Uri(uri) => uri,
            Self::Issuer(issuer) => issuer,
        }
    }
}

/// One origin's state, for logs and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// Where the keys come from.
    pub origin: String,
    /// Keys that can be used now.
    pub keys: usize,
    /// When they were fetched.
    pub fetched: Option<SystemTime>,
    /// Why the last fetch failed; `None` when it succeeded.
    pub last_error: Option<String>,
    /// Fetches that succeeded.
    pub succeeded: u64,
    /// Fetches that failed.
    pub failed: u64,
}

/// The keys of one origin.
#[derive(Debug)]
pub struct Source {
    origin: Origin,
    /// In milliseconds: the longest that any rule gives it.
    timeout: AtomicU64,
    state: RwLock<State>,
    /// Held by whoever fetches.
    fetching: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// When `keys` came; `None`: they never age.
    fetched: Option<Instant>,
    /// When the last fetch ended.
    attempted: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
    status: SourceStatus,
}

impl Source {
    fn new(origin: Origin, timeout: Option<Duration>) -> Self {
        let mut state = State::default();
        if let Origin::Inline(text) = &origin {
            match KeySet::parse(text.as_bytes(), Purpose::Issuer) {
                Ok(keys) => state.keys = Some(Arc::new(keys)),
                Err(error) => {
                    tracing::warn!(
                        error,
                        "inline key set cannot be used: its tokens are invalid"
                    );
                    state.status.last_error = Some(error);
                }
            }
        }
        Self {
            timeout: AtomicU64::new(milliseconds(timeout)),
            origin,
            state: RwLock::new(state),
            fetching: Mutex::new(()),
        }
    }

    fn read(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A rule's wish never shortens the time that another rule for the same keys gives.
    fn wait_for(&self, timeout: Option<Duration>) {
        self.timeout
            .fetch_max(milliseconds(timeout), Ordering::Relaxed);
    }

    /// Longest time of one fetch.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.load(Ordering::Relaxed))
    }

    fn is_inline(&self) -> bool {
        matches!(self.origin, Origin::Inline(_))
    }

    /// The keys, unless they are too old to be believed.
    #[must_use]
    pub fn keys(&self, lifetimes: &Lifetimes) -> Option<Arc<KeySet>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let old = state
            .fetched
            .is_some_and(|at| at.elapsed() > lifetimes.keep);
        state.keys.clone().filter(|_| !old)
    }

    /// When the background fetches next.
    fn due(&self, lifetimes: &Lifetimes) -> Option<Instant> {
        if self.is_inline() {
            return None;
        }
        let state = self.read();
        let Some(attempted) = state.attempted else {
            return Some(Instant::now());
        };
        let doubled = FIRST_PAUSE.saturating_mul(1 << state.failures.saturating_sub(1).min(16));
        let pause = if state.failures == 0 {
            lifetimes.refresh
        } else {
            doubled.min(lifetimes.refresh)
        };
        Some(attempted + pause)
    }
}

fn milliseconds(timeout: Option<Duration>) -> u64 {
    let timeout = timeout.unwrap_or(FETCH).min(LONGEST_FETCH);
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

/// The keys of every issuer that some snapshot in force names.
#[derive(Clone, Debug)]
pub struct Keys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fetcher: Fetcher,
    lifetimes: Lifetimes,
    sources: RwLock<HashMap<Origin, Arc<Source>>>,
    /// Told when a source is new.
    news: watch::Sender<u64>,
}

impl Keys {
    /// No keys yet.
    #[must_use]
    pub fn new(fetcher: Fetcher, lifetimes: Lifetimes) -> Self {
        Self {
            inner: Arc::new(Inner {
                fetcher,
                lifetimes,
                sources: RwLock::default(),
                news: watch::Sender::new(0),
            }),
        }
    }

    /// How long keys live.
    #[must_use]
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.inner.lifetimes
    }

    /// The source of a rule's keys.
    #[must_use]
    pub fn source(&self, rule: &JwtRule) -> Arc<Source> {
        let origin = Origin::of(rule);
        let known = |sources: &HashMap<Origin, Arc<Source>>| sources.get(&origin).map(Arc::clone);
        let sources = &self.inner.sources;
        if let Some(source) = known(&sources.read().unwrap_or_else(PoisonError::into_inner)) {
            source.wait_for(rule.timeout);
            return source;
        }
        let mut sources = sources.write().unwrap_or_else(PoisonError::into_inner);
        let source = sources.entry(origin.clone()).or_insert_with(|| {
            self.warn(&origin);
            Arc::new(Source::new(origin, rule.timeout))
        });
        self.inner.news.send_modify(|news| *news += 1);
        Arc::clone(source)
    }

    fn warn(&self, origin: &Origin) {
        let url = match origin {
            Origin::Inline(_) => return,
            Origin::Uri(uri) => uri.clone(),
            Origin::Issuer(issuer) => discovery(issuer),
        };
        if let Err(error) = self.inner.fetcher.allows(&url) {
            tracing::warn!(%error, "keys of an issuer cannot be had: its tokens are invalid");
        }
    }

    /// Names the sources of a snapshot and forgets all others; what was fetched stays.
    pub fn follow(&self, snapshot: &Snapshot) {
        let mut rules: Vec<&JwtRule> = Vec::new();
        for policies in [
            Some(snapshot.policies()),
            snapshot.candidate().map(|c| c.policies()),
        ] {
            let policies = policies
                .into_iter()
                .flat_map(|p| p.request_authentications());
            rules.extend(policies.flat_map(|policy| &policy.jwt_rules));
        }
        let wanted: Vec<Arc<Source>> = rules.into_iter().map(|rule| self.source(rule)).collect();
        let mut sources = self
            .inner
            .sources
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        sources.retain(|_, source| wanted.iter().any(|kept| Arc::ptr_eq(kept, source)));
    }

    /// What is known of every origin, ordered by name.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        let sources = self
            .inner
            .sources
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<SourceStatus> = sources
            .values()
            .map(|source| SourceStatus {
                origin: source.origin.name().to_owned(),
                keys: source
                    .keys(&self.inner.lifetimes)
                    .map_or(0, |keys| keys.len()),
                ..source.read().status
            })
            .collect();
        all.sort_by(|a, b| a.origin.cmp(&b.origin));
        all
    }

    /// Fetches in the background, until dropped. `published` tells of new snapshots.
    pub async fn run(self, mut published: watch::Receiver<Option<Arc<Snapshot>>>) {
        let mut news = self.inner.news.subscribe();
        if let Some(snapshot) = published.borrow_and_update().clone() {
            self.follow(&snapshot);
        }
        loop {
            news.borrow_and_update();
            let next = self.fetch_due().await;
            let rest = next.unwrap_or_else(|| Instant::now() + self.inner.lifetimes.refresh);
            tokio::select! {
                () = tokio::time::sleep_until(rest) => {}
                changed = news.changed() => if changed.is_err() { return },
                changed = published.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(snapshot) = published.borrow_and_update().clone() {
                        self.follow(&snapshot);
                    }
                }
            }
        }
    }

    /// Fetches what is due; returns when the next one is.
    async fn fetch_due(&self) -> Option<Instant> {
        let lifetimes = self.inner.lifetimes;
        let all = || -> Vec<Arc<Source>> {
            let sources = self
                .inner
                .sources
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            sources.values().map(Arc::clone).collect()
        };
        let mut running = JoinSet::new();
        for source in all() {
            if source
                .due(&lifetimes)
                .is_some_and(|due| due <= Instant::now())
            {
                if running.len() >= AT_ONCE {
                    running.join_next().await;
                }
                let keys = self.clone();
                running.spawn(async move { keys.fetch(&source, Duration::ZERO).await });
            }
        }
        while running.join_next().await.is_some() {}
        all()
            .iter()
            .filter_map(|source| source.due(&lifetimes))
            .min()
    }

    /// Asks for newer keys on behalf of a token: waits for a fetch that runs, else makes one, unless
    /// the last one ended less than `refetch` ago.
    pub async fn renew(&self, source: &Arc<Source>) {
        if source.is_inline() {
            return;
        }
        let (keys, source) = (self.clone(), Arc::clone(source));
        let refetch = self.inner.lifetimes.refetch;
        // A task of its own: a request that no longer waits must not break the fetch off.
        let fetch = tokio::spawn(async move { keys.fetch(&source, refetch).await });
        let _ = tokio::time::timeout(self.inner.lifetimes.wait, fetch).await;
    }

    /// Whether [`Self::renew`] would do anything now.
    #[must_use]
    pub fn may_renew(&self, source: &Source) -> bool {
        let recent = |at: Instant| at.elapsed() < self.inner.lifetimes.refetch;
        !source.is_inline()
            && (source.fetching.try_lock().is_err() || !source.read().attempted.is_some_and(recent))
    }

    async fn fetch(&self, source: &Source, at_most_every: Duration) {
        let _alone = source.fetching.lock().await;
        let recent = |at: Instant| at.elapsed() < at_most_every;
        if source.read().attempted.is_some_and(recent) {
            return;
        }
        let fetched = self.key_set(source).await;
        let now = Instant::now();
        source.update(|state| {
            state.attempted = Some(now);
            match fetched {
                Ok(keys) => {
                    let (origin, number) = (source.origin.name(), keys.len());
                    if number == 0 {
                        tracing::warn!(
                            origin,
                            "keys fetched: none can be used, so its tokens are invalid"
                        );
                    } else {
                        tracing::info!(origin, keys = number, "keys fetched");
                    }
                    state.keys = Some(Arc::new(keys));
                    state.fetched = Some(now);
                    state.failures = 0;
                    state.status.fetched = Some(SystemTime::now());
                    state.status.last_error = None;
                    state.status.succeeded += 1;
                }
                Err(error) => {
                    tracing::warn!(
                        origin = source.origin.name(),
                        error,
                        kept = state.keys.is_some(),
                        "keys not fetched"
                    );
                    state.failures = state.failures.saturating_add(1);
                    state.status.last_error = Some(error);
                    state.status.failed += 1;
                }
            }
        });
    }

    async fn key_set(&self, source: &Source) -> Result<KeySet, String> {
        let fetcher = &self.inner.fetcher;
        let words = |error: FetchError| error.to_string();
        let uri = match &source.origin {
            Origin::Inline(_) => return Err("inline keys are not fetched".to_owned()),
            Origin::Uri(uri) => uri.clone(),
            Origin::Issuer(issuer) => {
                let url = discovery(issuer);
                let document = fetcher.get(&url, source.timeout()).await.map_err(words)?;
                jwks_uri(&document, issuer).map_err(|why| format!("`{url}`: {why}"))?
            }
        };
        let document = fetcher.get(&uri, source.timeout()).await.map_err(words)?;
        KeySet::parse(&document, Purpose::Issuer)
            .map_err(|why| format!("`{uri}` is no key set: {why}"))
    }
}

/// Address of an issuer's OpenID configuration (OpenID Connect Discovery 1.0, section 4).
fn discovery(issuer: &str) -> String {
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
    format!("{issuer}/.well-known/openid-configuration")
}

/// The address of the key set; the document must be the issuer's own (section 4.3).
fn jwks_uri(document: &[u8], issuer: &str) -> Result<String, &'static str> {
    let document = json::object(document).ok_or("it is no JSON object, or has a name twice")?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let own = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
    if text("issuer").map(own) != Some(own(issuer)) {
        return Err("it is of another issuer");
    }
    let uri = text("jwks_uri").ok_or("it has no `jwks_uri`")?;
    Ok(uri.to_owned())
}
