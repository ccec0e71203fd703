//! The attestor `k8s`: which pod and container a process is in, and what the API server says of them.
//!
//! ```text
//! process -> control groups -> pod UID, container -> pods of this node (watched) -> selectors
//! ```
//!
//! Nobody is guessed: control groups that name two pods, a container that the pod's status does not have, a pod that is
//! gone or over make no selectors. What is not known yet is waited for, within a limit.

pub mod cgroup;
pub mod pod;
pub mod pods;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use self::cgroup::{Found, Place};
use self::pod::{Pod, Role};
use self::pods::NodePods;
use super::process::Process;
use super::{AttestError, Attestor, Observed};
use crate::selector::Selector;

/// What is decided about attestation in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestorOptions {
    /// Where the node's `/proc` is; `None`: it is our own, which it is in the node's PID namespace.
    pub proc_root: Option<PathBuf>,
    /// Whether a process must be in a container that the pod's status knows. Without, a pod is enough, and there are no
    /// selectors of the container.
    pub container_selectors: bool,
    /// How long a container that is not known yet is waited for.
    pub wait: Duration,
    /// For how long pods are taken to be as they were when the API server was last heard of.
    pub max_age: Duration,
}

impl Default for AttestorOptions {
    fn default() -> Self {
        Self {
            proc_root: None,
            container_selectors: true,
            wait: Duration::from_secs(10),
            max_age: Duration::from_secs(3600),
        }
    }
}

/// How attestations in the cluster ended, in the order of [`Attested::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attested {
    /// In a pod.
    Pod,
    /// In none.
    NoPod,
    /// In a pod that is gone or over, or in a container that has no identity.
    Refused,
    /// It could not be found out.
    Failed,
}

impl Attested {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pod, Self::NoPod, Self::Refused, Self::Failed];

    /// The word in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::NoPod => "no_pod",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Counts of [`Attested`], and of looks past the watch.
#[derive(Debug, Default)]
pub struct Counts {
    attested: [AtomicU64; Attested::ALL.len()],
    looks: AtomicU64,
}

impl Counts {
    /// How many ended so.
    #[must_use]
    pub fn attested(&self, how: Attested) -> u64 {
        let counter = self.attested.get(how as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// How often the API server was asked past the watch.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    fn count(&self, how: Attested) {
        if let Some(counter) = self.attested.get(how as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Selectors of type `k8s`, as SPIRE's agent names them.
#[derive(Debug)]
pub struct KubernetesAttestor {
    pods: Arc<NodePods>,
    counts: Arc<Counts>,
    options: AttestorOptions,
}

impl KubernetesAttestor {
    /// Attests by what `pods` knows.
    #[must_use]
    pub fn new(pods: Arc<NodePods>, options: AttestorOptions) -> Self {
        Self {
            pods,
            counts: Arc::default(),
            options,
        }
    }

    /// How attestations ended.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    fn read(&self, process: &Process, name: &str) -> Result<String, AttestError> {
        let Some(root) = &self.options.proc_root else {
            return process.read(name);
        };
        let path = root.join(process.pid().to_string()).join(name);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| AttestError::Failed(format!("`{}`: {error}", path.display())));
        // Read by number: it was this process's only if this process lives still.
        match process.is_alive() {
            true => text,
            false => Err(AttestError::Ended),
        }
    }

    fn place(&self, process: &Process) -> Result<Option<Place>, AttestError> {
        let failed = |error: cgroup::Ambiguous| AttestError::Failed(error.to_string());
        match cgroup::of_cgroups(&self.read(process, "cgroup")?).map_err(failed)? {
            Found::In(place) => Ok(Some(place)),
            Found::Nowhere => Ok(None),
            // The one who may mount there decides what mounts say: not a user who made a user namespace to do so.
            Found::Hidden if self.is_in_our_user_namespace(process) => {
                cgroup::of_mounts(&self.read(process, "mountinfo")?).map_err(failed)
            }
            Found::Hidden => Ok(None),
        }
    }

    fn is_in_our_user_namespace(&self, process: &Process) -> bool {
        let root = self.options.proc_root.as_deref();
        let root = root.unwrap_or(std::path::Path::new("/proc"));
        let theirs = root.join(process.pid().to_string()).join("ns/user");
        let theirs = std::fs::read_link(theirs);
        let ours = std::fs::read_link("/proc/self/ns/user");
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours) && process.is_alive()
    }

    /// The pod that a process is in, waited for until it is known.
    async fn pod(&self, place: &Place) -> Result<Option<Arc<Pod>>, AttestError> {
        let until = Instant::now() + self.options.wait;
        let mut changes = self.pods.subscribe();
        let mut has_looked = false;
        loop {
            changes.mark_unchanged();
            self.is_fresh()?;
            let mut found = match self.pods.is_known() {
                true => self.pods.find(place).map_err(two_pods)?,
                false => None,
            };
            let unsettled = |pod: &Arc<Pod>| !self.is_settled(pod, place);
            if found.as_ref().is_none_or(unsettled) && self.is_gone(place) {
                return Err(gone());
            }
            if found.as_ref().is_none_or(unsettled) && self.pods.is_known() && !has_looked {
                // The watch may be behind the kubelet: ask before anybody is denied.
                has_looked = true;
                self.counts.looks.fetch_add(1, Ordering::Relaxed);
                let now = self.pods.look().await;
                let now = now.map_err(|why| {
                    AttestError::Failed(format!("its pod cannot be asked for: {why}"))
                });
                match now {
                    Ok(now) => match now.find(place).map_err(two_pods)? {
                        Some(pod) => found = Some(Arc::clone(pod)),
                        None if place.pod.is_some() => return Err(gone()),
                        // A container of another runtime, or of a pod beside ours that is not listed yet.
                        None if !place.is_hidden => return Ok(None),
                        None => {}
                    },
                    Err(error) if found.is_none() => return Err(error),
                    Err(_) => {}
                }
            }
            if let Some(pod) = found.filter(|pod| self.is_settled(pod, place)) {
                return Ok(Some(pod));
            }
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                return Err(self.unknown(place));
            }
        }
    }

    /// True when waiting would tell nothing more.
    fn is_settled(&self, pod: &Pod, place: &Place) -> bool {
        let is_enough = !self.options.container_selectors && place.pod.is_some();
        pod.is_over || is_enough || pod.role(&place.container).is_some()
    }

    fn is_gone(&self, place: &Place) -> bool {
        place.pod.as_ref().is_some_and(|uid| self.pods.is_gone(uid))
    }

    fn is_fresh(&self) -> Result<(), AttestError> {
        match self.pods.following.age() {
            Some(age) if age > self.options.max_age => Err(AttestError::Failed(format!(
                "nothing was heard of the API server for {} s, and pods are believed for {} s",
                age.as_secs(),
                self.options.max_age.as_secs()
            ))),
            _ => Ok(()),
        }
    }

    fn unknown(&self, place: &Place) -> AttestError {
        let why = match self.pods.is_known() {
            true => format!(
                "the API server knows no container `{}` on this node",
                place.container
            ),
            false => {
                let trouble = self.pods.following.trouble();
                trouble.unwrap_or_else(|| "the pods of this node are not known yet".to_owned())
            }
        };
        AttestError::Failed(why)
    }

    fn selectors(&self, pod: &Pod, place: &Place) -> Result<Vec<Selector>, AttestError> {
        let refused = |why: &str| {
            let (namespace, name) = (&pod.namespace, &pod.name);
            Err(AttestError::Refused(format!(
                "the pod `{namespace}/{name}` {why}"
            )))
        };
        if pod.is_over {
            return refused("is over");
        }
        if pod.role(&place.container) == Some(Role::Ephemeral) {
            return refused("gives its identity to no ephemeral container");
        }
        let mut selectors = pod.selectors();
        if self.options.container_selectors {
            selectors.extend(pod.container_selectors(&place.container));
        }
        Ok(selectors)
    }

    async fn find_out(&self, process: &Process) -> Result<Option<Vec<Selector>>, AttestError> {
        let Some(place) = self.place(process)? else {
            return Ok(None);
        };
        let Some(pod) = self.pod(&place).await? else {
            return Ok(None);
        };
        // It took a while: still the process, and still there.
        match self.place(process)? {
            Some(now) if now == place => self.selectors(&pod, &place).map(Some),
            _ => Err(AttestError::Changed("control group")),
        }
    }
}

fn gone() -> AttestError {
    AttestError::Refused("its pod is gone".to_owned())
}

fn two_pods(error: pods::TwoPods) -> AttestError {
    AttestError::Failed(error.to_string())
}

#[async_trait]
impl Attestor for KubernetesAttestor {
    fn name(&self) -> &'static str {
        pod::KIND
    }

    async fn attest(&self, caller: &Observed<'_>) -> Result<Vec<Selector>, AttestError> {
        let found = self.find_out(caller.process).await;
        self.counts.count(match &found {
            Ok(Some(_)) => Attested::Pod,
            Ok(None) => Attested::NoPod,
            Err(AttestError::Refused(_)) => Attested::Refused,
            Err(_) => Attested::Failed,
        });
        Ok(found?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
