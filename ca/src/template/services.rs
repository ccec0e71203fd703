//! Which services lead to which pods, by their EndpointSlices.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

/// The services of each pod.
#[derive(Debug, Default)]
pub struct Services {
    /// Service and UIDs of pods, by UID of the slice.
    slices: HashMap<String, (String, Vec<String>)>,
    /// `name.namespace` of the services that lead to a pod, by its UID, and in how many slices.
    by_pod: HashMap<String, BTreeMap<String, usize>>,
}

impl Services {
    /// A new or changed slice; returns the UIDs of pods whose services may be others now.
    pub fn put(&mut self, slice: &Value) -> Vec<String> {
        let Some(uid) = text(slice, &["metadata", "uid"]) else {
            return Vec::new();
        };
        let mut changed = self.remove(uid);
        let label = ["metadata", "labels", "kubernetes.io/service-name"];
        let (Some(service), Some(namespace)) =
            (text(slice, &label), text(slice, &["metadata", "namespace"]))
        else {
            return changed;
        };
        let service = format!("{service}.{namespace}");
        let endpoints = slice.get("endpoints").and_then(Value::as_array);
        let pods = endpoints.into_iter().flatten().filter_map(|endpoint| {
            let is_pod = text(endpoint, &["targetRef", "kind"]) == Some("Pod");
            text(endpoint, &["targetRef", "uid"]).filter(|_| is_pod)
        });
        let pods: Vec<String> = pods.map(str::to_owned).collect();
        for pod in &pods {
            let services = self.by_pod.entry(pod.clone()).or_default();
            *services.entry(service.clone()).or_default() += 1;
        }
        changed.extend(pods.iter().cloned());
        self.slices.insert(uid.to_owned(), (service, pods));
        changed
    }

    /// A slice is gone; returns the UIDs of its pods.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some((service, pods)) = self.slices.remove(uid) else {
            return Vec::new();
        };
        for pod in &pods {
            if let Some(services) = self.by_pod.get_mut(pod) {
                // The same pod may stand in several slices of a service.
                if let Some(count) = services.get_mut(&service) {
                    *count -= 1;
                    if *count == 0 {
                        services.remove(&service);
                    }
                }
                if services.is_empty() {
                    self.by_pod.remove(pod);
                }
            }
        }
        pods
    }

    /// UIDs of slices that are not among these.
    #[must_use]
    pub fn others(&self, there: &HashSet<String>) -> Vec<String> {
        let others = self.slices.keys().filter(|uid| !there.contains(*uid));
        others.cloned().collect()
    }

    /// DNS names of the services that lead to a pod, by its UID, as SPIRE's controller makes them; `domain` is the cluster's.
    #[must_use]
    pub fn names_of(&self, pod: &str, domain: Option<&str>) -> Vec<String> {
        let services = self.by_pod.get(pod).into_iter().flat_map(BTreeMap::keys);
        let mut names = BTreeSet::new();
        for service in services {
            let (name, _) = service.split_once('.').unwrap_or((service, ""));
            names.extend([name.to_owned(), service.clone(), format!("{service}.svc")]);
            if let Some(domain) = domain {
                names.insert(format!("{service}.svc.{domain}"));
            }
        }
        names.into_iter().collect()
    }

    /// True when nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.by_pod.is_empty()
    }
}

fn text<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter()
        .try_fold(object, |value, key| value.get(key))?
        .as_str()
}
