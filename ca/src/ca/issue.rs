//! Issuing: profile, prepare, journal, sign, conform, journal, serve.
//!
//! What is about to be signed is on disk before a key is used, and what was signed is on disk before
//! anybody gets it: a crash in between leaves a trace, and nothing that was served lacks its record.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::Ca;
use crate::authority::Authority;
use crate::caller::Caller;
use crate::entry::Entry;
use crate::fail;
use crate::identities::IssueError;
use crate::journal::{JournalError, Record, rfc3339};
use crate::jwt_svid::PreparedJwt;
use crate::key::SigningKey;
use crate::spiffe_id::SpiffeId;
use crate::store::AuthorityKind;
use crate::x509::certificate::hex;
use crate::x509::conform;
use crate::x509::profile::{LeafRequest, Prepared};

/// Who asks, for the journal: a JSON object.
#[derive(Clone, Debug)]
pub struct Requester(Arc<str>);

/// What the journal says of a workload.
#[derive(Serialize)]
struct Workload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    selectors: Vec<String>,
}

impl Requester {
    /// A workload on the socket.
    #[must_use]
    pub fn caller(caller: &Caller) -> Self {
        Self::from_fields(&Workload {
            pid: caller.pid,
            uid: caller.uid,
            gid: caller.gid,
            path: caller.path.as_deref(),
            selectors: caller.selectors.iter().map(ToString::to_string).collect(),
        })
    }

    /// An operator on the admin socket.
    #[must_use]
    pub fn admin(actor: &str) -> Self {
        Self::from_fields(&json!({"admin": actor}))
    }

    fn from_fields(fields: &impl Serialize) -> Self {
        // Numbers and texts always are JSON.
        Self(serde_json::to_string(fields).unwrap_or_default().into())
    }

    pub(super) fn record(&self, event: &'static str) -> Record {
        Record::new(event).with_json("caller", &self.0)
    }
}

/// An X.509-SVID to be issued.
#[derive(Clone, Debug)]
pub struct X509Request {
    /// What it is to be.
    pub leaf: LeafRequest,
    /// The entry that entitles to it; `None` when an operator mints.
    pub entry: Option<Arc<Entry>>,
}

/// An X.509-SVID that was issued.
#[derive(Clone, Debug)]
pub struct IssuedX509 {
    /// Certificates, DER, leaf first, without the root.
    pub chain: Vec<Bytes>,
    /// Whose.
    pub spiffe_id: SpiffeId,
    /// End of its validity.
    pub not_after: SystemTime,
    /// Identifier of the authority that signed.
    pub authority: String,
}

/// A JWT-SVID to be issued.
#[derive(Clone, Debug)]
pub struct JwtRequest {
    /// `sub`.
    pub spiffe_id: SpiffeId,
    /// `aud`.
    pub audiences: Vec<String>,
    /// Lifetime that was asked for.
    pub ttl: Option<Duration>,
    /// The entry that entitles to it; `None` when an operator mints.
    pub entry: Option<Arc<Entry>>,
}

/// A JWT-SVID that was issued.
#[derive(Clone, Debug)]
pub struct IssuedJwt {
    /// The token.
    pub token: String,
    /// `sub`.
    pub spiffe_id: SpiffeId,
    /// `iat`.
    pub issued_at: SystemTime,
    /// `exp`.
    pub expires_at: SystemTime,
}

/// One result for each request, in order; the outer error is that nothing could be issued at all.
type Issued<T> = Result<Vec<Result<T, IssueError>>, IssueError>;

impl From<JournalError> for IssueError {
    fn from(error: JournalError) -> Self {
        tracing::error!(%error, "nothing is issued that cannot be recorded");
        Self::Unavailable("the audit journal cannot be written".to_owned())
    }
}

impl Ca {
    pub(super) fn signer(
        &self,
        kind: AuthorityKind,
    ) -> Result<(Arc<Authority>, Arc<dyn SigningKey>), IssueError> {
        let set = self.authorities();
        let active = set
            .active(kind)
            .filter(|authority| authority.can_sign(self.clock.now()));
        match active.and_then(|authority| Some((authority, authority.key.as_ref()?))) {
            Some((authority, key)) => Ok((Arc::clone(authority), Arc::clone(key))),
            None => Err(IssueError::Unavailable(format!(
                "there is no active {kind} authority"
            ))),
        }
    }

    /// Issues X.509-SVIDs.
    ///
    /// # Errors
    /// When there is no active authority, or the journal cannot be written.
    pub async fn issue_x509(
        &self,
        requests: Vec<X509Request>,
        requester: &Requester,
    ) -> Issued<IssuedX509> {
        let asked = requests.len();
        let issuing = self.issue_x509_unseen(requests, requester);
        let observer = &self.observer;
        observer.issuing(AuthorityKind::X509, asked, issuing).await
    }

    async fn issue_x509_unseen(
        &self,
        requests: Vec<X509Request>,
        requester: &Requester,
    ) -> Issued<IssuedX509> {
        let (authority, key) = self.signer(AuthorityKind::X509)?;
        let issuer = authority.issuer().ok_or_else(|| {
            IssueError::Unavailable("the authority has no certificate".to_owned())
        })?;
        let now = self.clock.now();
        let chain = authority
            .x509
            .as_ref()
            .map(|parts| parts.chain.as_slice())
            .unwrap_or_default();
        let record = |leaf: &Prepared, entry: Option<&Arc<Entry>>| {
            with_entry(requester.record("x509_prepared"), entry)
                .with("spiffe_id", leaf.request().spiffe_id.as_str())
                .with("serial", leaf.serial().to_hex())
                .with("spki_sha256", leaf.public_key_hash())
                .with("not_after", rfc3339(leaf.not_after()))
                .with("authority", authority.row.id.as_str())
        };
        let mut prepared = Vec::with_capacity(requests.len());
        for request in requests {
            let X509Request { leaf, entry } = request;
            prepared.push(
                self.x509_profile
                    .prepare(leaf, issuer, now)
                    .map(|leaf| (record(&leaf, entry.as_ref()), leaf))
                    .map_err(|error| IssueError::InvalidArgument(error.to_string())),
            );
        }
        let intents = prepared.iter().flatten();
        let intents = intents.map(|(intent, _)| intent.clone());
        self.journal.append(intents.collect()).await?;
        fail::point("intended");
        let mut issued = Vec::with_capacity(prepared.len());
        let mut records = Vec::with_capacity(prepared.len());
        for (place, item) in prepared.into_iter().enumerate() {
            let_others(place).await;
            let (intent, leaf) = match item {
                Ok(item) => item,
                Err(error) => {
                    issued.push(Err(error));
                    continue;
                }
            };
            let signed = match key.sign(leaf.to_be_signed()).await {
                Ok(signature) => {
                    let der = leaf.clone().with_signature(&signature);
                    conform::leaf(&der, &leaf, issuer)
                        .map(|()| der)
                        .map_err(|refusal| refusal.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match signed {
                Ok(der) => {
                    records.push(intent.of("x509_issued"));
                    issued.push(Ok(IssuedX509 {
                        chain: [&[Bytes::from(der)][..], chain].concat(),
                        spiffe_id: leaf.request().spiffe_id.clone(),
                        not_after: leaf.not_after(),
                        authority: authority.row.id.clone(),
                    }));
                }
                Err(cause) => {
                    tracing::error!(%cause, "a certificate was not served");
                    records.push(intent.of("x509_failed").with("cause", &cause));
                    issued.push(Err(IssueError::Unavailable(format!(
                        "signing failed: {cause}"
                    ))));
                }
            }
        }
        fail::point("signed");
        self.journal.append(records).await?;
        fail::point("issued");
        Ok(issued)
    }

    /// Issues JWT-SVIDs.
    ///
    /// # Errors
    /// When there is no active authority, or the journal cannot be written.
    pub async fn issue_jwt(
        &self,
        requests: Vec<JwtRequest>,
        requester: &Requester,
    ) -> Issued<IssuedJwt> {
        let asked = requests.len();
        let issuing = self.issue_jwt_unseen(requests, requester);
        let observer = &self.observer;
        observer.issuing(AuthorityKind::Jwt, asked, issuing).await
    }

    async fn issue_jwt_unseen(
        &self,
        requests: Vec<JwtRequest>,
        requester: &Requester,
    ) -> Issued<IssuedJwt> {
        let (authority, key) = self.signer(AuthorityKind::Jwt)?;
        let now = self.clock.now();
        let signer = (
            authority.row.id.as_str(),
            key.algorithm(),
            authority.row.not_after,
        );
        let record = |token: &PreparedJwt, audiences: &[String], entry: Option<&Arc<Entry>>| {
            with_entry(requester.record("jwt_prepared"), entry)
                .with("spiffe_id", token.spiffe_id.as_str())
                .with("audience", audiences)
                .with("not_after", rfc3339(token.expires_at))
                .with("authority", authority.row.id.as_str())
        };
        let prepared: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let JwtRequest {
                    spiffe_id,
                    audiences,
                    ttl,
                    entry,
                } = request;
                self.jwt_profile
                    .prepare(&spiffe_id, &audiences, ttl, signer, now)
                    .map(|token| (record(&token, &audiences, entry.as_ref()), token))
                    .map_err(|error| IssueError::InvalidArgument(error.to_string()))
            })
            .collect();
        let intents = prepared.iter().flatten();
        let intents = intents.map(|(intent, _)| intent.clone());
        self.journal.append(intents.collect()).await?;
        fail::point("intended");
        let mut issued = Vec::with_capacity(prepared.len());
        let mut records = Vec::with_capacity(prepared.len());
        for (place, item) in prepared.into_iter().enumerate() {
            let_others(place).await;
            let (intent, token) = match item {
                Ok(item) => item,
                Err(error) => {
                    issued.push(Err(error));
                    continue;
                }
            };
            let signed = match key.sign(token.signing_input()).await {
                Ok(signature) => token
                    .clone()
                    .with_signature(&signature)
                    .ok_or_else(|| "the signature has an unknown form".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            match signed {
                Ok(text) => {
                    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                    records.push(
                        intent
                            .of("jwt_issued")
                            .with("token_sha256", hex(hash.as_ref())),
                    );
                    issued.push(Ok(IssuedJwt {
                        token: text,
                        spiffe_id: token.spiffe_id,
                        issued_at: token.issued_at,
                        expires_at: token.expires_at,
                    }));
                }
                Err(cause) => {
                    tracing::error!(%cause, "a token was not served");
                    records.push(intent.of("jwt_failed").with("cause", &cause));
                    issued.push(Err(IssueError::Unavailable(format!(
                        "signing failed: {cause}"
                    ))));
                }
            }
        }
        fail::point("signed");
        self.journal.append(records).await?;
        fail::point("issued");
        Ok(issued)
    }

    /// Records that somebody did not get what it asked for.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn record_denial(
        &self,
        requester: &Requester,
        what: &str,
        cause: &IssueError,
    ) -> Result<(), IssueError> {
        self.observer.metrics().refused(what, cause);
        let record = requester
            .record("denied")
            .with("what", what)
            .with("cause", cause.to_string());
        Ok(self.journal.append(vec![record]).await?)
    }
}

/// A long batch lets other callers of this processor have their turn.
pub(crate) async fn let_others(place: usize) {
    const TURN: usize = 32;
    if place % TURN == TURN - 1 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn with_entry(record: Record, entry: Option<&Arc<Entry>>) -> Record {
    match entry {
        Some(entry) => record
            .with("entry", entry.id.as_str())
            .with("entry_revision", entry.revision_number),
        None => record.with("minted", true),
    }
}
