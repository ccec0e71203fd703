//! CUSTOM providers that are asked by us (`custom_providers: {name: call}`).
//!
//! ```text
//! request, extensionProvider of MeshConfig -> grpc or http -> allowed with changes, denied, unavailable
//! ```
//!
//! What Envoy does for Istio's `envoyExtAuthzGrpc` and `envoyExtAuthzHttp`, done where the proxy asks
//! nobody but us. A provider must not be ourselves: an address of ours is never connected to, and a
//! check that comes back to us by another way is recognised.

mod connect;
mod grpc;
mod http;
mod message;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::decision::Reason;
use portcullis_policy::request::Request;
use portcullis_policy::request_authentication::place::{self, Place};
use portcullis_policy::resource::{ExtAuthz, ExtensionProvider};
use portcullis_policy::settings::CustomProvider;
use portcullis_policy::snapshot::Snapshot;

use crate::check::{Denied, HeaderChange, Refusal};
use crate::observe::metrics;

use self::connect::Connector;

/// Header and gRPC metadata by which a check of ours is recognised.
pub const ASKED_BY: &str = "x-portcullis-asked-by";

/// Longest wait for a provider whose `timeout` is not set. Istio's own default, ten minutes, is longer
/// than any proxy waits for us.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Refuses a check that we sent to a provider, which turned out to be ourselves.
pub(crate) fn led_back() -> Refusal {
    Refusal::new(
        Reason::CustomProviderUnavailable,
        "a CUSTOM provider led back to this service",
    )
}

/// What a provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request may pass.
    Allowed(Allowed),
    /// It may not, in these words.
    Denied(Denied),
    /// Nothing.
    Unavailable(Unavailable),
}

impl Verdict {
    /// What it is counted as.
    #[must_use]
    pub fn kind(&self) -> metrics::Custom {
        match self {
            Self::Allowed(_) => metrics::Custom::Allowed,
            Self::Denied(_) => metrics::Custom::Denied,
            Self::Unavailable(why) if why.fail_open => metrics::Custom::FailedOpen,
            Self::Unavailable(_) => metrics::Custom::Unavailable,
        }
    }
}

/// What an allowed request takes along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Changes to its headers, names in lower case.
    pub changes: Vec<Change>,
    /// Headers added to the workload's response.
    pub response_headers: Vec<(String, String)>,
    /// Query parameters that go.
    pub removed_parameters: Vec<String>,
}

/// One change to a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this one value.
    Set(String, String),
    /// It has this value, too.
    Append(String, String),
    /// It has this value unless it has another.
    Add(String, String),
    /// It has this value if it has one at all.
    Replace(String, String),
    /// It is gone.
    Remove(String),
}

/// Why there is no answer, and what then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// `failOpen`.
    pub fail_open: bool,
    /// `statusOnError`.
    pub status: Option<u16>,
    /// For the log.
    pub error: String,
}

impl Allowed {
    /// Changes the request for whoever decides next, and notes the changes for the proxy.
    pub fn apply(&self, request: &mut Request, changes: &mut Vec<HeaderChange>) {
        let Some(http) = &mut request.http else {
            return;
        };
        for name in &self.removed_parameters {
            place::remove(http, &Place::Param(name.clone()));
        }
        for change in &self.changes {
            let (Change::Set(name, _)
            | Change::Append(name, _)
            | Change::Add(name, _)
            | Change::Replace(name, _)
            | Change::Remove(name)) = change;
            // Pseudo-headers say where the request goes, ours say what we know of it.
            if name.starts_with(':') || name == "host" || name.starts_with("x-portcullis-") {
                continue;
            }
            let entries = &mut http.headers.entries;
            let old: Vec<&str> = entries
                .iter()
                .filter(|(entry, _)| entry == name)
                .map(|(_, value)| value.as_str())
                .collect();
            let value = match change {
                Change::Remove(_) => None,
                Change::Add(..) if !old.is_empty() => continue,
                Change::Replace(..) if old.is_empty() => continue,
                Change::Append(_, value) if !old.is_empty() => {
                    let separator = if name == "cookie" { "; " } else { "," };
                    Some([old.join(separator).as_str(), value].join(separator))
                }
                Change::Set(_, value)
                | Change::Append(_, value)
                | Change::Add(_, value)
                | Change::Replace(_, value) => Some(value.clone()),
            };
            entries.retain(|(entry, _)| entry != name);
            match value {
                Some(value) => {
                    entries.push((name.clone(), value.clone()));
                    changes.push(HeaderChange::Set {
                        name: name.clone(),
                        value,
                    });
                }
                None => changes.push(HeaderChange::Remove { name: name.clone() }),
            }
        }
    }
}

/// Asks providers.
#[derive(Clone, Debug)]
pub struct Providers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Names this server, and nobody else can say it.
    instance: String,
    connector: Connector,
    grpc: grpc::Channels,
    http: http::Client,
}

/// A provider that is ourselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the CUSTOM provider `{provider}` at `{address}` is this service itself: it would ask itself without end; set `custom_providers.{provider}` to `self`"
)]
pub struct Loop {
    /// Its name.
    pub provider: String,
    /// Where it is.
    pub address: SocketAddr,
}

impl Providers {
    /// Asks from a server that listens at `own`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(own: Vec<SocketAddr>) -> std::io::Result<Self> {
        let mut instance = [0u8; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut instance)
            .map_err(|_| std::io::Error::other("the system gives no randomness"))?;
        let connector = Connector::new(own);
        Ok(Self {
            inner: Arc::new(Inner {
                instance: instance.iter().map(|b| format!("{b:02x}")).collect(),
                http: http::Client::new(connector.clone()),
                grpc: grpc::Channels::default(),
                connector,
            }),
        })
    }

    /// True for what [`ASKED_BY`] says in a check that we sent ourselves.
    #[must_use]
    pub fn is_own(&self, asked_by: &[u8]) -> bool {
        asked_by == self.inner.instance.as_bytes()
    }

    /// Refuses a mesh in which a provider that we ask is ourselves. An address that cannot be found
    /// now is looked at again when it is asked.
    ///
    /// # Errors
    /// [`Loop`].
    pub async fn refuse_loops(&self, snapshot: &Snapshot) -> Result<(), Loop> {
        for provider in &snapshot.mesh().extension_providers {
            let asked = snapshot.custom_provider(&provider.name) == Some(CustomProvider::Call);
            let (true, Some(call)) = (asked, &provider.call) else {
                continue;
            };
            if call.body.is_some() {
                let provider = &provider.name;
                tracing::warn!(
                    provider,
                    "`includeRequestBodyInCheck` is left out: no proxy's question carries the body to this service, and the provider is asked without it"
                );
            }
            let host = connect::host(&call.service);
            if let Some(address) = self.inner.connector.own_address(host, call.port).await {
                return Err(Loop {
                    provider: provider.name.clone(),
                    address,
                });
            }
        }
        Ok(())
    }

    /// Asks about a request; `provider` is the entry of MeshConfig.
    pub async fn ask(&self, provider: Option<&ExtensionProvider>, request: &Request) -> Verdict {
        let known = provider.and_then(|p| Some((p.ext_authz?, p.call.as_ref()?)));
        let Some((kind, call)) = known else {
            return Verdict::Unavailable(Unavailable {
                fail_open: false,
                status: None,
                error: "MeshConfig does not say where it is".to_owned(),
            });
        };
        let limit = call.timeout.unwrap_or(TIMEOUT);
        let inner = &self.inner;
        let instance = &inner.instance;
        let answer = match kind {
            ExtAuthz::Grpc => {
                let (channels, connector) = (&inner.grpc, &inner.connector);
                let asking = grpc::ask(channels, connector, instance, call, request);
                let answer = tokio::time::timeout(limit, asking).await;
                answer.unwrap_or_else(|_| Err(Failure::late(limit)))
            }
            ExtAuthz::Http => http::ask(&inner.http, instance, call, request, limit).await,
        };
        answer.unwrap_or_else(|failure| {
            Verdict::Unavailable(Unavailable {
                // A question that cannot be put is no outage of whom it is for: a client who can bring
                // that about must not get past the provider by it.
                fail_open: call.fail_open && !failure.ours,
                status: call.status_on_error,
                error: failure.error,
            })
        })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    error: String,
    /// Nobody was asked: it would have been ourselves, or the question cannot be put.
    ours: bool,
}

impl Failure {
    fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            ours: false,
        }
    }

    fn late(limit: Duration) -> Self {
        Self::new(format!("no answer within {limit:?}"))
    }

    /// The question cannot be put.
    fn question(error: impl std::fmt::Display) -> Self {
        Self {
            error: format!("it cannot be asked about this request: {error}"),
            ours: true,
        }
    }

    /// With every cause, so that the log tells "connection refused" from "no such host".
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut words = error.to_string();
        let mut ours = error.is::<connect::OwnAddress>();
        let mut cause = error.source();
        while let Some(error) = cause {
            ours |= is_own(error);
            words = format!("{words}: {error}");
            cause = error.source();
        }
        Self { error: words, ours }
    }
}

fn is_own(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error
        .downcast_ref::<std::io::Error>()
        .and_then(|e| e.get_ref());
    error.is::<connect::OwnAddress>() || inner.is_some_and(|e| e.is::<connect::OwnAddress>())
}

#[cfg(test)]
mod tests;
