//! One leader among replicas, by a Lease.
//!
//! Whoever holds it renews it; whoever does not takes it once it has not changed for its whole duration *by the watcher's own
//! clock*, so that clocks need not agree. Every write names the version that was read, so of two takers one loses. A holder
//! that cannot renew steps down well before others may take over.

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;

/// How long a lease is good without renewal.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// A holder that has not renewed for so long does not write any more.
const STEP_DOWN: Duration = Duration::from_secs(10);
/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// Longest request.
const REQUEST: Duration = Duration::from_secs(4);

/// Which lease, and as whom.
#[derive(Clone)]
pub(crate) struct Election {
    pub client: Client,
    pub namespace: String,
    pub name: String,
    pub identity: String,
    pub duration: Duration,
    /// What is written into the lease for people; nothing is decided by it.
    pub clock: fn() -> SystemTime,
}

/// Whether we lead, at any moment.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// True while we surely lead.
    pub(crate) fn leads(&self) -> bool {
        self.until
            .borrow()
            .is_some_and(|until| Instant::now() < until)
    }
}

/// What was seen of the lease last, and when it changed.
#[derive(Debug)]
struct Seen {
    version: Option<String>,
    at: Instant,
}

impl Election {
    /// Runs for ever; leadership is what comes out.
    pub(crate) fn start(self) -> (Leadership, impl Future<Output = ()>) {
        let (sender, until) = watch::channel(None);
        (Leadership { until }, self.run(sender))
    }

    async fn run(self, until: watch::Sender<Option<Instant>>) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut seen: Option<Seen> = None;
        let mut complained = false;
        let shorter =
            |limit: Duration| limit.mul_f64(self.duration.as_secs_f64() / DURATION.as_secs_f64());
        loop {
            // The lease counts from before it was written.
            let asked = Instant::now();
            let turn = tokio::time::timeout(shorter(REQUEST), self.turn(&api, &mut seen)).await;
            match turn {
                Ok(Ok(true)) => {
                    complained = false;
                    let led = until.send_replace(Some(asked + shorter(STEP_DOWN)));
                    if led.is_none() {
                        tracing::info!(lease = self.name, "leads: this replica writes statuses");
                    }
                }
                Ok(Ok(false)) => {
                    complained = false;
                    if until.send_replace(None).is_some() {
                        tracing::info!(lease = self.name, "does not lead any more");
                    }
                }
                // Whether it holds is not known: what was promised lasts until it ends by itself.
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(lease = self.name, %error, "cannot renew or take the lease");
                    }
                }
                Err(_) => {}
            }
            let over = until.borrow().is_some_and(|until| Instant::now() >= until);
            if over {
                until.send_replace(None);
                tracing::warn!(
                    lease = self.name,
                    "steps down: the lease could not be renewed"
                );
            }
            tokio::time::sleep(shorter(PERIOD)).await;
        }
    }

    /// One look; true if we hold it.
    async fn turn(&self, api: &Api<Lease>, seen: &mut Option<Seen>) -> Result<bool, Error> {
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return won(api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone();
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() {
            let fresh = match seen {
                Some(seen) if seen.version == version => seen.at,
                _ => {
                    *seen = Some(Seen {
                        version,
                        at: Instant::now(),
                    });
                    return Ok(false);
                }
            };
            // Its holder may have asked for longer than we would.
            let asked = spec.lease_duration_seconds.unwrap_or_default();
            let asked = Duration::from_secs(u64::try_from(asked).unwrap_or_default());
            if fresh.elapsed() < asked.max(self.duration) {
                return Ok(false);
            }
        }
        lease.spec = Some(self.spec(Some(spec)));
        // The version that was read goes along: whoever was quicker wins.
        won(api
            .replace(&self.name, &PostParams::default(), &lease)
            .await)
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = micro_time((self.clock)());
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        let seconds = i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds.max(1)),
            acquire_time: if ours {
                before.acquire_time
            } else {
                now.clone()
            },
            renew_time: now,
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub(crate) async fn release(&self) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let giving = async {
            let mut lease = api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            let params = PostParams::default();
            api.replace(&self.name, &params, &lease).await.map(drop)
        };
        let given: Result<Result<(), Error>, _> = tokio::time::timeout(REQUEST, giving).await;
        if let Ok(Err(error)) = given {
            tracing::debug!(%error, "the lease is left to end by itself");
        }
    }
}

/// A conflict is a race that another has won.
fn won(written: Result<Lease, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn micro_time(at: SystemTime) -> Option<MicroTime> {
    Timestamp::try_from(at).ok().map(MicroTime)
}
