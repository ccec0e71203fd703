//! What a server is told about tokens, and what it makes of it.

use std::path::PathBuf;
use std::time::SystemTime;

use tokio::task::JoinSet;

use super::fetch::{AllowedHost, Fetcher, FetcherError};
use super::keys::{Keys, Lifetimes};
use super::svid::{self, Svids};
use super::{Options, Verifier};
use crate::live::Live;

/// How tokens are verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What tokens must satisfy.
    pub terms: Options,
    /// Hosts that are asked for keys.
    pub hosts: Vec<AllowedHost>,
    /// Certificate authorities of those hosts, beside the platform's.
    pub ca_file: Option<PathBuf>,
    /// How long keys live.
    pub lifetimes: Lifetimes,
    /// JWT-SVIDs that count as the peer's identity.
    pub svids: Option<svid::Options>,
}

/// Why tokens cannot be verified as told.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Keys cannot be fetched.
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
}

/// What verifies the tokens of a server.
#[derive(Clone, Debug)]
pub struct Verification {
    /// Tokens of RequestAuthentication.
    pub verifier: Verifier,
    /// JWT-SVIDs.
    pub svids: Option<Svids>,
}

impl Verification {
    /// Made from its settings; nothing is fetched yet.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let Settings {
            terms,
            hosts,
            ca_file,
            lifetimes,
            svids,
        } = settings;
        let keys = Keys::new(Fetcher::new(hosts, ca_file)?, lifetimes);
        let svids = svids.map(|options| Svids::new(options, terms.clone(), SystemTime::now));
        Ok(Self {
            verifier: Verifier::new(keys, terms, SystemTime::now),
            svids,
        })
    }

    /// Fetches and follows keys and bundles in the background.
    pub fn run(self, live: &Live, tasks: &mut JoinSet<()>) {
        tasks.spawn(self.verifier.keys().clone().run(live.subscribe()));
        if let Some(svids) = self.svids {
            tasks.spawn(svids.run());
        }
    }
}
