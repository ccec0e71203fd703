//! From an object to the text that the engine reads: only what it looks at, so that thousands of pods stay small, and a
//! change of anything else is no change.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portcullis_policy::live::ObjectKey;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::kind::{Kind, is_mesh_config};
use crate::object::{Body, Object};

/// What `kubectl apply` leaves behind: the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub key: ObjectKey,
    /// As JSON. Equal texts are one object to the engine.
    pub text: Arc<[u8]>,
    /// What a status refers to.
    pub written: Written,
}

/// Which writing of an object this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub uid: String,
    pub generation: i64,
    /// Its `resourceVersion`.
    pub version: Arc<str>,
    /// `security.istio.io/v1`.
    pub api_version: Arc<str>,
    /// Of a policy: `status.conditions` as they are.
    pub conditions: Option<Arc<Value>>,
}

/// The key alone, of an object that is gone.
pub(crate) fn key(kind: &Kind, meta: &ObjectMeta) -> ObjectKey {
    ObjectKey {
        group: Arc::from(kind.group),
        kind: Arc::from(kind.name),
        namespace: Arc::from(meta.namespace.as_deref().unwrap_or_default()),
        name: Arc::from(meta.name.as_deref().unwrap_or_default()),
    }
}

/// What is kept of `object`, which was asked for in `version` of its API.
pub(crate) fn trim<const METADATA: bool>(
    kind: &Kind,
    version: &str,
    object: Object<METADATA>,
) -> Trimmed {
    let key = key(kind, &object.metadata);
    let api_version = kind.api_version(version);
    let conditions = match kind.is_policy {
        true => object.body.status.as_deref().and_then(conditions),
        false => None,
    };
    let text = Text {
        api_version: &api_version,
        kind: kind.name,
        metadata: metadata(kind, &object.metadata),
        body: body(kind, object.body),
    };
    let text = serde_json::to_vec(&text).unwrap_or_default();
    Trimmed {
        key,
        text: Arc::from(text),
        written: Written {
            uid: object.metadata.uid.unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            version: Arc::from(object.metadata.resource_version.unwrap_or_default()),
            api_version: Arc::from(api_version),
            conditions,
        },
    }
}

/// `status.conditions`; none where the status cannot be read, which says nothing against the object.
fn conditions(status: &RawValue) -> Option<Arc<Value>> {
    #[derive(serde::Deserialize)]
    struct Status {
        conditions: Option<Value>,
    }
    let status: Status = serde_json::from_str(status.get()).ok()?;
    status.conditions.map(Arc::new)
}

/// What the engine reads.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Value,
    #[serde(flatten)]
    body: BTreeMap<&'static str, Part>,
}

/// One field beside the metadata.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Part {
    /// What is read of it.
    Read(Value),
    /// As it came: the engine's own reader says what is wrong with it, if anything is.
    Whole(Box<RawValue>),
}

impl Part {
    /// What `keep` leaves of `field`; the whole of what cannot be read.
    fn of(field: Box<RawValue>, keep: impl FnOnce(Value) -> Value) -> Self {
        match serde_json::from_str(field.get()) {
            Ok(value) => Self::Read(keep(value)),
            Err(_) => Self::Whole(field),
        }
    }
}

fn metadata(kind: &Kind, meta: &ObjectMeta) -> Value {
    let mut kept = Map::new();
    kept.insert("name".to_owned(), json!(meta.name));
    if let Some(namespace) = &meta.namespace {
        kept.insert("namespace".to_owned(), json!(namespace));
    }
    // Of an EndpointSlice, its Service is read.
    let is_read = |label: &str| match kind.name {
        "EndpointSlice" => label == "kubernetes.io/service-name",
        "ServiceAccount" | "ConfigMap" => false,
        _ => true,
    };
    let labels = meta.labels.iter().flatten();
    let labels: Map<String, Value> = labels
        .filter(|(name, _)| is_read(name))
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    if !labels.is_empty() {
        kept.insert("labels".to_owned(), Value::Object(labels));
    }
    // Age tells which of two policies wins; annotations put one on trial.
    if kind.is_policy {
        let annotations = meta.annotations.iter().flatten();
        let annotations: Map<String, Value> = annotations
            .filter(|(name, _)| *name != LAST_APPLIED)
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        if !annotations.is_empty() {
            kept.insert("annotations".to_owned(), Value::Object(annotations));
        }
        if let Some(created) = &meta.creation_timestamp {
            kept.insert("creationTimestamp".to_owned(), json!(created));
        }
    }
    Value::Object(kept)
}

/// What is kept beside the metadata.
fn body(kind: &Kind, body: Body) -> BTreeMap<&'static str, Part> {
    let Body {
        spec,
        status,
        data,
        endpoints,
    } = body;
    let mut kept = BTreeMap::new();
    let mut put = |name, field: Option<Box<RawValue>>, keep: &dyn Fn(Value) -> Value| {
        if let Some(field) = field {
            kept.insert(name, Part::of(field, keep));
        }
    };
    let only = |read: &'static [&'static str]| move |value| fields(value, read);
    if is_mesh_config(kind) {
        put("data", data, &only(&["mesh"]));
        return kept;
    }
    if kind.metadata_only {
        return kept;
    }
    match kind.name {
        "Pod" => {
            put("spec", spec, &pod_spec);
            put("status", status, &only(&["phase", "podIP", "podIPs"]));
        }
        "Service" => {
            let read = &["selector", "clusterIP", "clusterIPs", "ports"];
            put("spec", spec, &only(read));
        }
        "EndpointSlice" => put("endpoints", endpoints, &each_endpoint),
        "Gateway" if kind.group == "gateway.networking.k8s.io" => {
            put("spec", spec, &only(&["gatewayClassName"]));
        }
        "Gateway" => put("spec", spec, &only(&["selector"])),
        "GatewayClass" => put("spec", spec, &only(&["controllerName"])),
        "ServiceEntry" => {
            let read = &["hosts", "addresses", "workloadSelector"];
            put("spec", spec, &only(read));
        }
        "WorkloadEntry" => {
            let read = &["address", "ports", "labels", "serviceAccount"];
            put("spec", spec, &only(read));
        }
        // Policies are read whole: what is not known in one is an error.
        _ => put("spec", spec, &|spec| spec),
    }
    kept
}

/// `value` with nothing but the fields `read`; what is no object is left for the engine to complain of.
fn fields(value: Value, read: &[&str]) -> Value {
    let Value::Object(mut all) = value else {
        return value;
    };
    all.retain(|name, _| read.contains(&name.as_str()));
    Value::Object(all)
}

fn pod_spec(spec: Value) -> Value {
    let read = [
        "serviceAccountName",
        "serviceAccount",
        "hostNetwork",
        "containers",
        "initContainers",
    ];
    let mut spec = fields(spec, &read);
    for name in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(name) else {
            continue;
        };
        for container in containers.iter_mut() {
            *container = fields(container.take(), &["ports"]);
        }
        // Those without ports say nothing.
        containers.retain(|container| container.get("ports").is_some());
    }
    spec
}

fn each_endpoint(endpoints: Value) -> Value {
    let Value::Array(mut endpoints) = endpoints else {
        return endpoints;
    };
    for endpoint in &mut endpoints {
        *endpoint = fields(endpoint.take(), &["addresses", "targetRef"]);
        if let Some(target) = endpoint.get_mut("targetRef") {
            *target = fields(target.take(), &["kind", "namespace", "name"]);
        }
    }
    Value::Array(endpoints)
}

#[cfg(test)]
mod tests;
