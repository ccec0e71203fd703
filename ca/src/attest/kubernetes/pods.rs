//! The pods of a node as they are now.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::cgroup::Place;
use super::pod::Pod;
use crate::kubernetes::follow::{Event, Following};
use crate::kubernetes::object::Sent;

/// UIDs of deleted pods that are remembered; a UID never comes back.
const GONE: usize = 1024;
/// Shortest time between two looks past the watch: whoever asks cannot make us ask for everybody.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for a look.
const LOOK: Duration = Duration::from_secs(5);

/// Pods, by what a control group tells of them.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    by_uid: HashMap<String, Arc<Pod>>,
    /// UIDs, by the hash of a static pod.
    by_hash: HashMap<String, HashSet<String>>,
    by_container: HashMap<String, HashSet<String>>,
}

/// Two pods for one container, or one static pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two pods have the {what} `{name}`: `{one}` and `{other}`")]
pub struct TwoPods {
    what: &'static str,
    name: String,
    one: String,
    other: String,
}

impl Pods {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// True without pods.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }

    /// The pod that a process is in.
    ///
    /// # Errors
    /// [`TwoPods`].
    pub fn find(&self, place: &Place) -> Result<Option<&Arc<Pod>>, TwoPods> {
        let (what, name, uids) = match &place.pod {
            Some(uid) => {
                if let Some(pod) = self.by_uid.get(uid) {
                    return Ok(Some(pod));
                }
                // The kubelet's hash has no hyphens.
                ("static pod", uid, self.by_hash.get(uid))
            }
            None => {
                let id = &place.container;
                ("container", id, self.by_container.get(id))
            }
        };
        let mut uids = uids.into_iter().flatten();
        match (uids.next(), uids.next()) {
            (Some(one), Some(other)) => Err(TwoPods {
                what,
                name: name.clone(),
                one: one.clone(),
                other: other.clone(),
            }),
            (Some(one), None) => Ok(self.by_uid.get(one)),
            (None, _) => Ok(None),
        }
    }

    fn put(&mut self, pod: Pod) -> bool {
        if self
            .by_uid
            .get(&pod.uid)
            .is_some_and(|known| **known == pod)
        {
            return false;
        }
        self.remove(&pod.uid);
        for id in pod.container_ids() {
            let uids = self.by_container.entry(id.to_owned()).or_default();
            uids.insert(pod.uid.clone());
        }
        if let Some(hash) = &pod.hash {
            let uids = self.by_hash.entry(hash.clone()).or_default();
            uids.insert(pod.uid.clone());
        }
        self.by_uid.insert(pod.uid.clone(), Arc::new(pod));
        true
    }

    fn remove(&mut self, uid: &str) -> bool {
        let Some(pod) = self.by_uid.remove(uid) else {
            return false;
        };
        for id in pod.container_ids() {
            forget(&mut self.by_container, id, uid);
        }
        if let Some(hash) = &pod.hash {
            forget(&mut self.by_hash, hash, uid);
        }
        true
    }
}

impl FromIterator<ApiPod> for Pods {
    fn from_iter<T: IntoIterator<Item = ApiPod>>(pods: T) -> Self {
        let mut all = Self::default();
        for pod in pods {
            all.put(pod.into());
        }
        all
    }
}

fn forget(index: &mut HashMap<String, HashSet<String>>, key: &str, uid: &str) {
    if let Some(uids) = index.get_mut(key) {
        uids.remove(uid);
        if uids.is_empty() {
            index.remove(key);
        }
    }
}

/// The pods of a node, kept up to date by a watch.
#[derive(Debug)]
pub struct NodePods {
    /// How the watch goes.
    pub following: Following,
    known: RwLock<Known>,
    /// Counts changes.
    changes: watch::Sender<u64>,
    api: Api<Sent<ApiPod>>,
    fields: String,
    /// When the last look past the watch began, and what it found.
    looked: Mutex<Option<Looked>>,
}

type Looked = (Instant, Result<Arc<Pods>, String>);

#[derive(Debug, Default)]
struct Known {
    /// All of them were listed.
    is_whole: bool,
    pods: Pods,
    gone: HashSet<String>,
    order: VecDeque<String>,
}

impl NodePods {
    /// Those that run on `node`; nothing is asked yet.
    #[must_use]
    pub fn new(api: Api<Sent<ApiPod>>, node: &str) -> Self {
        Self {
            following: Following::new("pods of this node"),
            known: RwLock::default(),
            changes: watch::channel(0).0,
            api,
            fields: format!("spec.nodeName={node}"),
            looked: Mutex::new(None),
        }
    }

    /// Follows them; `changed` is called after each change that attestation can tell. Never ends.
    pub async fn follow(&self, changed: impl Fn()) {
        let sink = |event| {
            if self.take(event) {
                changed();
            }
        };
        let fields = Some(self.fields.as_str());
        crate::kubernetes::follow::follow(self.api.clone(), fields, &self.following, sink).await;
    }

    /// Takes over a change; true when attestation can tell.
    pub(super) fn take(&self, event: Event<ApiPod>) -> bool {
        let is_change = self.is_change(event);
        if is_change {
            self.changes.send_modify(|version| *version += 1);
        }
        is_change
    }

    fn is_change(&self, event: Event<ApiPod>) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Put(pod) => known.pods.put(pod.into()),
            Event::Gone(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                known.bury(&uid);
                known.pods.remove(&uid)
            }
            Event::All(pods) => {
                known.is_whole = true;
                let all: Pods = pods.into_iter().collect();
                let before = std::mem::replace(&mut known.pods, all);
                for uid in before.by_uid.into_keys() {
                    if !known.pods.by_uid.contains_key(&uid) {
                        known.bury(&uid);
                    }
                }
                // The first list may change nothing, and yet whoever waits for it waits no longer.
                true
            }
        }
    }

    /// What changes count up.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many pods there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known().pods.len()
    }

    /// True without pods.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod that a process is in, as far as the watch knows.
    ///
    /// # Errors
    /// [`TwoPods`].
    pub fn find(&self, place: &Place) -> Result<Option<Arc<Pod>>, TwoPods> {
        Ok(self.known().pods.find(place)?.cloned())
    }

    /// True once all pods of the node were listed.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known().is_whole
    }

    /// True for the UID of a pod that was seen to go.
    #[must_use]
    pub fn is_gone(&self, uid: &str) -> bool {
        self.known().gone.contains(uid)
    }

    /// Asks the API server now, past the watch. Many who ask together get one answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn look(&self) -> Result<Arc<Pods>, String> {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if let Some((started, found)) = &*looked {
            // Begun after we came: as good as our own.
            if *started > asked {
                return found.clone();
            }
            sleep_until(*started + PAUSE).await;
        }
        let started = Instant::now();
        let params = ListParams::default().fields(&self.fields);
        let found = match timeout(LOOK, self.api.list(&params)).await {
            Ok(Ok(list)) => Ok(Arc::new(
                list.items
                    .into_iter()
                    .flat_map(Sent::read)
                    .collect::<Pods>(),
            )),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        };
        *looked = Some((started, found.clone()));
        found
    }
}

impl Known {
    fn bury(&mut self, uid: &str) {
        if uid.is_empty() || !self.gone.insert(uid.to_owned()) {
            return;
        }
        self.order.push_back(uid.to_owned());
        if self.order.len() > GONE
            && let Some(oldest) = self.order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, container: &str) -> ApiPod {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "shop", "uid": uid},
            "status": {"containerStatuses": [{
                "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{container}"),
            }]},
        }))
        .unwrap()
    }

    fn place(pod: Option<&str>, container: &str) -> Place {
        Place {
            pod: pod.map(str::to_owned),
            container: container.to_owned(),
            is_hidden: false,
        }
    }

    #[test]
    fn a_pod_is_found_by_its_uid_or_by_a_container_of_its_own() {
        let mut pods: Pods = [pod("a", "1"), pod("b", "2")].into_iter().collect();
        let find = |pods: &Pods, place: Place| {
            pods.find(&place)
                .map(|found| found.map(|pod| pod.uid.clone()))
        };
        assert_eq!(find(&pods, place(Some("a"), "9")), Ok(Some("a".to_owned())));
        assert_eq!(find(&pods, place(None, "2")), Ok(Some("b".to_owned())));
        assert_eq!(find(&pods, place(Some("c"), "2")), Ok(None));
        assert_eq!(find(&pods, place(None, "9")), Ok(None));
        // A container that started again has another identifier.
        assert!(pods.put(pod("b", "3").into()));
        assert!(!pods.put(pod("b", "3").into()), "nothing changed");
        assert_eq!(find(&pods, place(None, "2")), Ok(None));
        assert_eq!(find(&pods, place(None, "3")), Ok(Some("b".to_owned())));
        // One container in two pods is nobody's.
        assert!(pods.put(pod("c", "3").into()));
        let error = pods.find(&place(None, "3")).unwrap_err().to_string();
        assert!(error.contains("two pods"), "{error}");
        assert!(pods.remove("c"));
        assert_eq!(find(&pods, place(None, "3")), Ok(Some("b".to_owned())));
        assert!(pods.remove("b") && !pods.remove("b"));
        assert_eq!(pods.len(), 1);
        assert_eq!(pods.by_container.len(), 1, "nothing is left behind");
    }

    #[test]
    fn the_deleted_are_remembered_up_to_a_limit() {
        let mut known = Known::default();
        for number in 0..GONE + 5 {
            known.bury(&number.to_string());
            known.bury(&number.to_string());
        }
        assert_eq!((known.gone.len(), known.order.len()), (GONE, GONE));
        assert!(!known.gone.contains("4") && known.gone.contains("5"));
    }
}
