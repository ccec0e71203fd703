//! An object as the API server sends it, read no further than is needed: what stands beside the metadata stays text, so
//! that one object that nobody can read, nested a thousand levels deep for example, is alone in that and spoils no list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object of any kind; `METADATA` asks the server for nothing but its metadata. What is not named here, such as
/// `managedFields`, is skipped while reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object<const METADATA: bool> {
    pub metadata: ObjectMeta,
    pub body: Body,
}

/// What stands beside the metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub spec: Option<Box<RawValue>>,
    pub status: Option<Box<RawValue>>,
    /// Of ConfigMaps.
    pub data: Option<Box<RawValue>>,
    /// Of EndpointSlices.
    pub endpoints: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
    data: Option<Box<RawValue>>,
    endpoints: Option<Box<RawValue>>,
}

impl<'de, const METADATA: bool> Deserialize<'de> for Object<METADATA> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Fields::deserialize(deserializer)?;
        Ok(Self {
            metadata: read.metadata.into(),
            body: Body {
                spec: read.spec,
                status: read.status,
                data: read.data,
                endpoints: read.endpoints,
            },
        })
    }
}

impl<const METADATA: bool> Resource for Object<METADATA> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn metadata_api() -> bool {
        METADATA
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is read of `metadata`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Value>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        let created = read.creation_timestamp.unwrap_or(Value::Null);
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            generation: read.generation,
            creation_timestamp: serde_json::from_value(created).unwrap_or_default(),
            labels: read.labels,
            annotations: read.annotations,
            ..Self::default()
        }
    }
}
