//! Statuses: what [`crate::report`] has to tell, written by the leader where it is not told already.
//!
//! What a policy's status says now came with the policy itself, so nothing is read before it is written, and a status that
//! somebody else overwrites is written again. Ours are applied (server-side apply, conditions by type). Istio's `conditions` are
//! one list to the API server, whose writer owns all of it: there ours join those of istiod, under the version that was seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, Error};
use portcullis_policy::live::ObjectKey;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cases::{Found, RunCases};
use crate::kind::KINDS;
use crate::lease::Leadership;
use crate::report::{Report, Told, Verdict};
use crate::state::Board;

/// Field manager of what we apply.
const MANAGER: &str = "portcullis";
/// Time between two writes.
const PACE: Duration = Duration::from_millis(40);
/// Longest write: with the time at which a leader steps down it ends before another may lead.
const WRITE: Duration = Duration::from_secs(4);
/// After a refusal for want of a role, a kind is left alone for so long.
const REFUSED: Duration = Duration::from_secs(60);
/// Before the same status is written again, should it not come back to us.
const AGAIN: Duration = Duration::from_secs(30);
/// Group of our own kinds.
const OWN: &str = "portcullis.dev";

/// Who writes statuses, and of what.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Tells replicas apart; must be no other's.
    pub identity: String,
    /// How long a lease is good without renewal; whole seconds.
    pub lease_duration: Duration,
    /// Statuses of Istio's kinds, too.
    pub istio: bool,
    /// Runs the cases of PolicyTests, whose statuses then tell whether they hold.
    pub cases: Option<RunCases>,
    /// The time that is written into the Lease. Nothing is decided by it: clocks need not agree.
    pub clock: fn() -> SystemTime,
}

impl StatusOptions {
    /// With the usual names.
    #[must_use]
    pub fn new(namespace: String, identity: String) -> Self {
        Self {
            namespace,
            lease: "portcullis-status".to_owned(),
            identity,
            lease_duration: crate::lease::DURATION,
            istio: true,
            cases: None,
            clock: SystemTime::now,
        }
    }
}

/// Writes what it is told of while it leads.
pub(crate) struct Writer {
    pub client: Client,
    pub board: Arc<Board>,
    pub leadership: Leadership,
    pub istio: bool,
    /// Whether the cases of PolicyTests hold; `None` where they are not run.
    pub cases: Option<watch::Receiver<Arc<Found>>>,
}

/// What was written, in which of the object's writings, and when.
type Written = BTreeMap<ObjectKey, (Value, Instant)>;

impl Writer {
    /// Writes for ever.
    pub(crate) async fn run(mut self, mut told: watch::Receiver<Told>) {
        let mut written = Written::new();
        let mut refused: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
        loop {
            // Whoever begins to lead looks at everything, and from time to time a leader does.
            tokio::select! {
                changed = told.changed() => if changed.is_err() {
                    return;
                },
                () = cases_changed(self.cases.as_mut()) => {}
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
            let leads = self.leadership.leads();
            self.board.modify(|status| status.leads = Some(leads));
            if !leads {
                written.clear();
                continue;
            }
            let all = Arc::clone(&told.borrow_and_update().reports);
            let cases = self.cases.as_mut();
            let cases = cases.map(|cases| Arc::clone(&cases.borrow_and_update()));
            let cases = cases.unwrap_or_default();
            written.retain(|key, _| all.contains_key(key));
            for (key, report) in all.iter() {
                if !self.leadership.leads() || told.has_changed().unwrap_or(true) {
                    break;
                }
                let is_refused = refused.get(&key.kind);
                if is_refused.is_some_and(|at| at.elapsed() < REFUSED) {
                    continue;
                }
                let Some(status) = self.wanted(key, report, cases.get(key)) else {
                    continue;
                };
                let just_written = written.get(key);
                if just_written.is_some_and(|(was, at)| *was == status && at.elapsed() < AGAIN) {
                    continue;
                }
                match self.write(key, report, &status).await {
                    Ok(()) => {
                        self.board.counters.statuses.fetch_add(1, Ordering::Relaxed);
                        written.insert(key.clone(), (status, Instant::now()));
                    }
                    Err(error) => self.complain(key, &error, &mut refused),
                }
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// The status that the object should have; `None` where it has it.
    fn wanted(
        &self,
        key: &ObjectKey,
        report: &Report,
        found: Option<&(i64, Verdict)>,
    ) -> Option<Value> {
        let own = key.group.as_ref() == OWN;
        if !own && !self.istio {
            return None;
        }
        let before = report.written.conditions.as_deref();
        let before = before.and_then(Value::as_array);
        let before = before.map(Vec::as_slice).unwrap_or_default();
        let mut conditions = Vec::new();
        for (word, verdict) in [
            ("Accepted", Some(&report.accepted)),
            ("Enforced", report.enforced.as_ref()),
        ] {
            let Some(verdict) = verdict else { continue };
            let name = match own {
                true => word.to_owned(),
                // Istio's own controllers write there as well.
                false => format!("{OWN}/{word}"),
            };
            conditions.push(condition(name, verdict, report, own, before));
        }
        if key.kind.as_ref() == "PolicyTest" && self.cases.is_some() {
            // Until this generation was run, what was said of the one before stays.
            let name = "Holds".to_owned();
            let run = found.filter(|(generation, _)| *generation == report.written.generation);
            let old = before
                .iter()
                .find(|old| old.get("type") == Some(&json!(name)));
            conditions.extend(match run {
                Some((_, verdict)) => Some(condition(name, verdict, report, own, before)),
                None => old.cloned(),
            });
        }
        let is_there = |condition: &Value| before.iter().any(|old| old == condition);
        if conditions.iter().all(is_there) {
            return None;
        }
        if !own {
            let others = before.iter().filter(|old| {
                let name = old.get("type").and_then(Value::as_str);
                !name.is_some_and(|name| name.starts_with("portcullis.dev/"))
            });
            let all: Vec<Value> = others.cloned().chain(conditions).collect();
            return Some(json!({ "conditions": all }));
        }
        let mut status = json!({
            "observedGeneration": report.written.generation,
            "conditions": conditions,
        });
        if let (Some(workloads), Some(fields)) = (report.workloads, status.as_object_mut()) {
            fields.insert("workloads".to_owned(), json!(workloads));
        }
        Some(status)
    }

    async fn write(&self, key: &ObjectKey, report: &Report, status: &Value) -> Result<(), Error> {
        let of_key = |kind: &&crate::kind::Kind| {
            (kind.group, kind.name) == (key.group.as_ref(), key.kind.as_ref())
        };
        let Some(kind) = KINDS.iter().find(of_key) else {
            return Ok(());
        };
        let version = report.written.api_version.as_ref();
        let version = version.rsplit('/').next().unwrap_or(version);
        let resource = kind.api_resource(version);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let own = kind.group == OWN;
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": key.name },
            "status": status,
        });
        let params = match own {
            true => PatchParams::apply(MANAGER).force(),
            false => PatchParams::default(),
        };
        let patch = if own {
            Patch::Apply(body)
        } else {
            // The list is written whole: not over what somebody else has added to it meanwhile.
            if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("resourceVersion".into(), json!(report.written.version));
            }
            Patch::Merge(body)
        };
        let patching = api.patch_status(&key.name, &params, &patch);
        match tokio::time::timeout(WRITE, patching).await {
            Ok(answered) => answered.map(drop),
            Err(_) => Err(Error::Service("no answer in time".into())),
        }
    }

    fn complain(&self, key: &ObjectKey, error: &Error, refused: &mut BTreeMap<Arc<str>, Instant>) {
        match error {
            // It is gone, or another than the one that was reported on: its next report is on its way.
            Error::Api(status) if matches!(status.code, 404 | 409) => return,
            Error::Api(status) if status.code == 403 => {
                if !refused.contains_key(&key.kind) {
                    tracing::warn!(
                        kind = %key.kind,
                        error = status.message,
                        "no statuses of this kind: grant `patch` on its `status`, or turn `kubernetes.status` off"
                    );
                }
                refused.insert(Arc::clone(&key.kind), Instant::now());
            }
            error => tracing::warn!(resource = key.resource(), %error, "its status is not written"),
        }
        let counters = &self.board.counters;
        counters.statuses_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns once other cases hold than did; never where none are run.
async fn cases_changed(cases: Option<&mut watch::Receiver<Arc<Found>>>) {
    if let Some(cases) = cases
        && cases.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// One condition as it should be; the time of its last transition is kept while its status is.
fn condition(
    name: String,
    verdict: &Verdict,
    report: &Report,
    own: bool,
    before: &[Value],
) -> Value {
    let holds = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let was = before
        .iter()
        .find(|old| old.get("type").and_then(Value::as_str) == Some(&name));
    let same = was.filter(|old| old.get("status").and_then(Value::as_str) == Some(holds));
    let since = same.and_then(|old| old.get("lastTransitionTime")).cloned();
    let generation = match own {
        true => json!(report.written.generation),
        // As Istio has it: an integer that may be written as a text.
        false => observed(report, was),
    };
    json!({
        "type": name,
        "status": holds,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or_else(now),
    })
}

/// The generation, in the form in which it stands there already.
fn observed(report: &Report, was: Option<&Value>) -> Value {
    let generation = report.written.generation;
    match was.and_then(|old| old.get("observedGeneration")) {
        Some(Value::String(_)) => json!(generation.to_string()),
        _ => json!(generation),
    }
}

fn now() -> Value {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    // Whole seconds, as the API server keeps them.
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
    json!(whole.to_string())
}
