//! What time alone does: successors are prepared and take over, what is over is forgotten.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Ca;
use super::rotation::{KINDS, Plan, changed};
use crate::authority::{Authority, AuthorityError};
use crate::journal::rfc3339;
use crate::store::{AuthorityKind, AuthorityState};

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
        let mut done = Tick::default();
        for kind in KINDS {
            let set = self.authorities();
            let Some(active) = set.active(kind).filter(|active| active.can_sign(now)) else {
                tracing::error!(%kind, "no authority can sign: making one at once");
                self.ensure_active().await?;
                continue;
            };
            let left = active.row.not_after.duration_since(now).unwrap_or_default();
            let life = active
                .row
                .not_after
                .duration_since(active.row.prepared_at)
                .unwrap_or_default();
            match set.newest(kind, AuthorityState::Prepared) {
                None if left < (life / 2).min(30 * DAY)
                    && self.would_outlive(kind, active, now) =>
                {
                    let next = self.prepare(kind, "rotation").await?;
                    done.prepared.push(next.row.id.clone());
                }
                Some(next) if left < (life / 6).min(7 * DAY) => {
                    let is_delivered = self.deliveries.behind(next.row.published) == 0;
                    if is_delivered || left < (life / 12).min(7 * DAY / 2) {
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
            .filter(|known| known.row.not_after < now && known.row.state != AuthorityState::Active);
        let over: Vec<&Arc<Authority>> = over.collect();
        let ids: Vec<String> = over.iter().map(|known| known.row.id.clone()).collect();
        if !ids.is_empty() {
            let records = over.iter().map(|known| changed(known, "authority_pruned"));
            self.carry_out(Plan {
                authorities: Vec::new(),
                records: records.collect(),
                forget: ids.clone(),
                publishes: true,
            })
            .await?;
            for id in &ids {
                self.forget_key(id);
            }
        }
        Ok(ids)
    }
}
