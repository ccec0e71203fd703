//! What time alone does: successors are prepared and take over, what is over is forgotten.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Ca;
use super::rotation::{Plan, changed};
use crate::authority::{Authority, AuthorityError};
use crate::journal::rfc3339;
use crate::observe::metrics::Step;
use crate::store::{AuthorityKind, AuthorityRow, AuthorityState};

const DAY: Duration = Duration::from_secs(86_400);

/// What [`Ca::tick`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// Authorities that were prepared.
    pub prepared: Vec<String>,
    /// Authorities that were activated.
    pub activated: Vec<String>,
    /// Authorities that were removed, long after their end.
    pub pruned: Vec<String>,
}

/// How long before its end an active authority's successor is prepared, takes over, and takes over in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationTimes {
    /// Prepared: half its life, at most 30 days.
    pub prepare: Duration,
    /// Takes over when every live stream has it, and everybody who polls: a sixth, at most 7 days.
    pub activate: Duration,
    /// Takes over although a stream does not have it: a twelfth, at most 3.5 days.
    pub activate_anyway: Duration,
}

/// The times of an authority's rotation.
#[must_use]
pub fn rotation_times(row: &AuthorityRow) -> RotationTimes {
    let life = row
        .not_after
        .duration_since(row.prepared_at)
        .unwrap_or_default();
    RotationTimes {
        prepare: (life / 2).min(30 * DAY),
        activate: (life / 6).min(7 * DAY),
        activate_anyway: (life / 12).min(7 * DAY / 2),
    }
}

impl Ca {
    /// Does what the time asks for: prepares, activates and prunes authorities, removes expired entries.
    ///
    /// An authority's successor is prepared when less than half its life is left (at most 30 days), and takes over when
    /// less than a sixth is left (at most 7 days) and every live stream has it. Half of that before the end it takes over anyway.
    ///
    /// # Errors
    /// When nothing could be stored; the next tick tries again.
    pub async fn tick(&self) -> Result<Tick, AuthorityError> {
        let now = self.clock.now();
        self.prune_svids(now);
        self.registry
            .prune()
            .await
            .map_err(|error| AuthorityError::Store(error.to_string()))?;
        self.renew_lists().await?;
        let mut done = Tick::default();
        for kind in self.kinds() {
            let set = self.authorities();
            let Some(active) = set.active(kind).filter(|active| active.can_sign(now)) else {
                tracing::error!(%kind, "no authority can sign: making one at once");
                self.ensure_active().await?;
                continue;
            };
            let left = active.row.not_after.duration_since(now).unwrap_or_default();
            let times = rotation_times(&active.row);
            match set.newest(kind, AuthorityState::Prepared) {
                None if left < times.prepare && self.would_outlive(kind, active, now) => {
                    let next = self.prepare(kind, "rotation").await?;
                    done.prepared.push(next.row.id.clone());
                }
                Some(next) if left < times.activate => {
                    let is_delivered = self.deliveries.behind(next.row.published) == 0
                        && self.until_propagated(&next.row).is_zero();
                    if is_delivered || left < times.activate_anyway {
                        let _changing = self.changing.lock().await;
                        let id = next.row.id.clone();
                        self.activate_alone(kind, &id, "rotation", is_delivered)
                            .await?;
                        done.activated.push(id);
                    }
                }
                _ => {}
            }
        }
        done.pruned = self.prune(now).await?;
        Ok(done)
    }

    /// False, with an alarm, when the upstream authority ends too early for a successor to help.
    fn would_outlive(&self, kind: AuthorityKind, active: &Authority, now: SystemTime) -> bool {
        let Some(upstream) = self
            .upstream
            .as_ref()
            .filter(|_| kind == AuthorityKind::X509)
        else {
            return true;
        };
        let is_longer = upstream.not_after() > active.row.not_after;
        if !is_longer {
            let left = upstream.not_after().duration_since(now).unwrap_or_default();
            tracing::error!(
                expires = rfc3339(upstream.not_after()),
                left_seconds = left.as_secs(),
                "the upstream authority ends before the next rotation: replace it now"
            );
        }
        is_longer
    }

    /// Forgets authorities whose end is over: nothing that they signed is valid.
    async fn prune(&self, now: SystemTime) -> Result<Vec<String>, AuthorityError> {
        let _changing = self.changing.lock().await;
        let set = self.authorities();
        let over = set
            .all()
            .iter()
            .filter(|known| known.row.not_after < now)
            // One that signs is replaced first, unless its kind was switched off.
            .filter(|known| {
                known.row.state != AuthorityState::Active
                    || !self.kinds().any(|kind| kind == known.row.kind)
            });
        let over: Vec<&Arc<Authority>> = over.collect();
        let ids: Vec<String> = over.iter().map(|known| known.row.id.clone()).collect();
        if !ids.is_empty() {
            let records = over.iter().map(|known| changed(known, "authority_pruned"));
            let plan = Plan {
                authorities: Vec::new(),
                records: records.collect(),
                forget: ids.clone(),
                publishes: true,
            };
            let pruned = self.carry_out(plan).await;
            self.observer.metrics().step(Step::Prune, &pruned);
            pruned?;
            for id in &ids {
                self.forget_key(id);
            }
        }
        Ok(ids)
    }
}
