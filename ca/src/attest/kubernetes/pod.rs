//! What is known of one pod, and the selectors of a process in one of its containers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod};

use crate::selector::Selector;

/// The type of the selectors: SPIRE's.
pub const KIND: &str = "k8s";
/// The hash by which the kubelet names a static pod, on the copy of it that it shows to the API server.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What attestation needs of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// UID.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The kubelet's hash, if it is a static pod: its control group has this in the UID's place.
    pub hash: Option<String>,
    /// None of its containers will run again.
    pub is_over: bool,
    service_account: String,
    node: String,
    labels: BTreeMap<String, String>,
    /// Kind, name, UID.
    owners: Vec<(String, String, String)>,
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Container {
    role: Role,
    id: String,
    name: String,
    image: String,
    image_id: String,
}

/// What a container is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The pod's work.
    #[default]
    Main,
    /// Runs before the others, or beside them (sidecar).
    Init,
    /// Somebody looks into a running pod.
    Ephemeral,
}

impl From<ApiPod> for Pod {
    fn from(pod: ApiPod) -> Self {
        let (meta, spec, status) = (
            pod.metadata,
            pod.spec.unwrap_or_default(),
            pod.status.unwrap_or_default(),
        );
        let owners = meta.owner_references.unwrap_or_default();
        let node = spec.node_name.unwrap_or_default();
        let is_of_node = owners
            .iter()
            .any(|owner| owner.kind == "Node" && owner.api_version == "v1" && owner.name == node);
        let mut annotations = meta.annotations.unwrap_or_default();
        // Others than nodes may write the annotation, but a node owns its copies of static pods.
        let hash = annotations.remove(MIRROR).filter(|_| is_of_node);
        let lists = [
            (Role::Main, status.container_statuses),
            (Role::Init, status.init_container_statuses),
            (Role::Ephemeral, status.ephemeral_container_statuses),
        ];
        let containers = lists.into_iter().flat_map(|(role, statuses)| {
            let statuses = statuses.unwrap_or_default().into_iter();
            statuses.map(move |status| container(role, status))
        });
        Self {
            uid: meta.uid.unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            hash,
            is_over: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            service_account: spec.service_account_name.unwrap_or_default(),
            node,
            labels: meta.labels.unwrap_or_default(),
            owners: owners
                .into_iter()
                .map(|owner| (owner.kind, owner.name, owner.uid))
                .collect(),
            containers: containers.collect(),
        }
    }
}

fn container(role: Role, status: ContainerStatus) -> Container {
    // `containerd://ID`; empty until it was made.
    let id = status.container_id.unwrap_or_default();
    let id = id.split_once("://").map_or("", |(_, id)| id);
    Container {
        role,
        id: id.to_owned(),
        name: status.name,
        image: status.image,
        image_id: status.image_id,
    }
}

impl Pod {
    /// What the container is there for; `None` while the pod's status does not know it.
    #[must_use]
    pub fn role(&self, container: &str) -> Option<Role> {
        self.container(container).map(|found| found.role)
    }

    /// Identifiers of its containers.
    pub fn container_ids(&self) -> impl Iterator<Item = &str> {
        let ids = self.containers.iter().map(|found| found.id.as_str());
        ids.filter(|id| !id.is_empty())
    }

    fn container(&self, id: &str) -> Option<&Container> {
        let mut all = self.containers.iter();
        all.find(|found| !id.is_empty() && found.id == id)
    }

    /// The selectors of the pod, as SPIRE's agent names them.
    #[must_use]
    pub fn selectors(&self) -> Vec<Selector> {
        let mut found = Vec::with_capacity(16 + self.labels.len());
        let mut add = |what: &str, value: &str| {
            // Only what is empty or overlong is refused: no entry can name it, either.
            if let (false, Ok(selector)) = (
                value.is_empty(),
                Selector::new(KIND, &format!("{what}:{value}")),
            ) {
                found.push(selector);
            }
        };
        add("sa", &self.service_account);
        add("ns", &self.namespace);
        add("node-name", &self.node);
        add("pod-uid", &self.uid);
        add("pod-name", &self.name);
        for (role, count, image) in [
            (Role::Main, "pod-image-count", "pod-image"),
            (Role::Init, "pod-init-image-count", "pod-init-image"),
        ] {
            let of_role = || self.containers.iter().filter(move |one| one.role == role);
            add(count, &of_role().count().to_string());
            let images: BTreeSet<&str> = of_role().flat_map(Container::images).collect();
            for name in images {
                add(image, name);
            }
        }
        for (key, value) in &self.labels {
            // A label without value is a fact, too.
            add("pod-label", &format!("{key}:{value}"));
        }
        for (kind, name, uid) in &self.owners {
            add("pod-owner", &format!("{kind}:{name}"));
            add("pod-owner-uid", &format!("{kind}:{uid}"));
        }
        found
    }

    /// The selectors of one of its containers.
    #[must_use]
    pub fn container_selectors(&self, id: &str) -> Vec<Selector> {
        let Some(container) = self.container(id) else {
            return Vec::new();
        };
        let name = [("container-name", container.name.as_str())];
        let images = container.images().map(|image| ("container-image", image));
        let all = name.into_iter().chain(images);
        all.filter(|(_, value)| !value.is_empty())
            .filter_map(|(what, value)| Selector::new(KIND, &format!("{what}:{value}")).ok())
            .collect()
    }
}

impl Container {
    /// By its tag, and by its digest.
    fn images(&self) -> impl Iterator<Item = &str> {
        [self.image_id.as_str(), self.image.as_str()].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(selectors: &[Selector]) -> Vec<String> {
        let mut texts: Vec<String> = selectors.iter().map(ToString::to_string).collect();
        texts.sort();
        texts
    }

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value::<ApiPod>(value).unwrap().into()
    }

    fn blog() -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "blog-24ck7", "namespace": "default", "uid": "2c48913c-b29f-11e7-9350-020968147796",
                "labels": {"k8s-app": "blog", "version": "v0", "bare": ""},
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "ReplicationController", "name": "blog",
                    "uid": "2c401175-b29f-11e7-9350-020968147796",
                }],
            },
            "spec": {"nodeName": "k8s-node-1", "serviceAccountName": "default", "containers": []},
            "status": {
                "phase": "Running",
                "initContainerStatuses": [{
                    "name": "install", "image": "install:1", "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": "containerd://11",
                }],
                "containerStatuses": [
                    {
                        "name": "blog", "image": "localhost/spiffe/blog:latest", "ready": true, "restartCount": 0,
                        "imageID": "docker-pullable://localhost/spiffe/blog@sha256:0cfd",
                        "containerID": "docker://9bca",
                    },
                    {
                        "name": "ghostunnel", "image": "localhost/spiffe/ghostunnel:latest", "ready": false,
                        "restartCount": 0, "imageID": "", "containerID": "",
                    },
                ],
                "ephemeralContainerStatuses": [{
                    "name": "look", "image": "busybox", "imageID": "", "ready": true, "restartCount": 0,
                    "containerID": "docker://eeee",
                }],
            },
        })
    }

    #[test]
    fn selectors_are_those_that_spire_s_agent_finds() {
        let pod = pod(blog());
        assert_eq!(
            texts(&pod.selectors()),
            [
                "k8s:node-name:k8s-node-1",
                "k8s:ns:default",
                "k8s:pod-image-count:2",
                "k8s:pod-image:docker-pullable://localhost/spiffe/blog@sha256:0cfd",
                "k8s:pod-image:localhost/spiffe/blog:latest",
                "k8s:pod-image:localhost/spiffe/ghostunnel:latest",
                "k8s:pod-init-image-count:1",
                "k8s:pod-init-image:install:1",
                "k8s:pod-label:bare:",
                "k8s:pod-label:k8s-app:blog",
                "k8s:pod-label:version:v0",
                "k8s:pod-name:blog-24ck7",
                "k8s:pod-owner-uid:ReplicationController:2c401175-b29f-11e7-9350-020968147796",
                "k8s:pod-owner:ReplicationController:blog",
                "k8s:pod-uid:2c48913c-b29f-11e7-9350-020968147796",
                "k8s:sa:default",
            ]
        );
        assert_eq!(
            texts(&pod.container_selectors("9bca")),
            [
                "k8s:container-image:docker-pullable://localhost/spiffe/blog@sha256:0cfd",
                "k8s:container-image:localhost/spiffe/blog:latest",
                "k8s:container-name:blog",
            ]
        );
        assert!(pod.container_selectors("9bcb").is_empty());
    }

    #[test]
    fn containers_are_known_once_they_have_an_identifier() {
        let pod = pod(blog());
        assert_eq!(pod.role("9bca"), Some(Role::Main));
        assert_eq!(pod.role("11"), Some(Role::Init));
        assert_eq!(pod.role("eeee"), Some(Role::Ephemeral));
        assert_eq!(pod.role("9bcb"), None);
        assert_eq!(pod.role(""), None, "one that was not made yet is nobody's");
        assert_eq!(pod.container_ids().count(), 3);
    }

    #[test]
    fn only_a_node_has_static_pods() {
        let mut mirror = blog();
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "1f4d"});
        assert_eq!(pod(mirror.clone()).hash, None);
        let node = mirror["spec"]["nodeName"].clone();
        let owner = |version: &str, name: serde_json::Value| json!([{"apiVersion": version, "kind": "Node", "name": name, "uid": "n"}]);
        // A kind of that name in another group, and another node, are not it.
        mirror["metadata"]["ownerReferences"] = owner("example.com/v1", node.clone());
        assert_eq!(pod(mirror.clone()).hash, None);
        mirror["metadata"]["ownerReferences"] = owner("v1", "other".into());
        assert_eq!(pod(mirror.clone()).hash, None);
        mirror["metadata"]["ownerReferences"] = owner("v1", node);
        assert_eq!(pod(mirror).hash.as_deref(), Some("1f4d"));
    }

    #[test]
    fn a_pod_that_ended_is_over() {
        for (phase, is_over) in [
            ("Pending", false),
            ("Running", false),
            ("Unknown", false),
            ("Succeeded", true),
            ("Failed", true),
        ] {
            let mut ended = blog();
            ended["status"]["phase"] = phase.into();
            assert_eq!(pod(ended).is_over, is_over, "{phase}");
        }
        let bare = json!({"metadata": {"name": "x"}});
        assert!(!pod(bare).is_over);
    }
}
