//! An object as the API server sends it: one that cannot be read spoils no list.
//!
//! What a tenant may write is more than a client reads: deeper nesting, later years. Such an object is taken for one that
//! is gone; all others are read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

type Fields = BTreeMap<String, Box<RawValue>>;

/// What names an object, and which writing of it this is.
const NAMES: [&str; 4] = ["name", "namespace", "uid", "resourceVersion"];
/// Who wrote which field when: nothing is read of it.
const BOOKKEEPING: &str = "managedFields";

/// An object, or what is left of one that cannot be read.
#[derive(Clone, Debug)]
pub struct Sent<K> {
    object: K,
    /// Why there is nothing but what names it.
    unreadable: Option<String>,
}

impl<K> Sent<K> {
    /// The object.
    ///
    /// # Errors
    /// It cannot be read: an object with nothing but its names, and why.
    pub(crate) fn read(self) -> Result<K, (K, String)> {
        match self.unreadable {
            None => Ok(self.object),
            Some(why) => Err((self.object, why)),
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Sent<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // To find its end takes no recursion.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let first = match serde_json::from_str(text.get()) {
            Ok(object) => {
                return Ok(Self {
                    object,
                    unreadable: None,
                });
            }
            Err(error) => error,
        };
        if let Ok(object) = with_metadata(&text, |name| name != BOOKKEEPING, |_| true) {
            return Ok(Self {
                object,
                unreadable: None,
            });
        }
        let named = |name: &str| NAMES.contains(&name);
        let typed = |name: &str| matches!(name, "apiVersion" | "kind");
        Ok(Self {
            object: with_metadata(&text, named, typed).map_err(D::Error::custom)?,
            unreadable: Some(first.to_string()),
        })
    }
}

/// Reads the object with these fields of its metadata, and these beside it.
fn with_metadata<K: DeserializeOwned>(
    text: &RawValue,
    of_metadata: impl Fn(&str) -> bool,
    beside: impl Fn(&str) -> bool,
) -> Result<K, serde_json::Error> {
    let mut fields: Fields = serde_json::from_str(text.get())?;
    fields.retain(|name, _| name == "metadata" || beside(name));
    if let Some(metadata) = fields.get_mut("metadata") {
        let mut kept: Fields = serde_json::from_str(metadata.get())?;
        kept.retain(|name, _| of_metadata(name));
        *metadata = serde_json::value::to_raw_value(&kept)?;
    }
    serde_json::from_str(&serde_json::to_string(&fields)?)
}

impl<K: Resource> Resource for Sent<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(resource: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(resource)
    }

    fn group(resource: &Self::DynamicType) -> Cow<'_, str> {
        K::group(resource)
    }

    fn version(resource: &Self::DynamicType) -> Cow<'_, str> {
        K::version(resource)
    }

    fn plural(resource: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{DynamicObject, ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    fn pod(more: &str) -> String {
        let text = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "a", "namespace": "shop", "uid": "1", "resourceVersion": "7", "labels": { "a": "b" } },
            "spec": { "nodeName": "n", "containers": [] },
        });
        let text = text.to_string();
        // At the end of the metadata.
        text.replace("\"uid\":\"1\"", &format!("\"uid\":\"1\"{more}"))
    }

    fn deep() -> String {
        format!(
            ",\"x\":{}{}",
            "{\"a\":".repeat(5000),
            "0".to_owned() + &"}".repeat(5000)
        )
    }

    #[test]
    fn one_that_cannot_be_read_keeps_its_name_and_spoils_no_list() {
        let late = ",\"creationTimestamp\":\"9999-12-31T23:59:59Z\"";
        let list = format!(
            "{{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"9\"}},\"items\":[{},{}]}}",
            pod(late),
            pod("")
        );
        let list: ObjectList<Sent<Pod>> = serde_json::from_str(&list).unwrap();
        let mut items = list.items.into_iter();
        let (bare, why) = items.next().unwrap().read().unwrap_err();
        assert!(!why.is_empty());
        assert_eq!(bare.metadata.uid.as_deref(), Some("1"));
        assert_eq!((bare.metadata.labels, bare.spec), (None, None));
        let good = items.next().unwrap().read().unwrap();
        assert!(good.metadata.labels.is_some() && good.spec.is_some());

        let event = format!("{{\"type\":\"ADDED\",\"object\":{}}}", pod(&deep()));
        let event: WatchEvent<Sent<DynamicObject>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Added(object) = event else {
            panic!("{event:?}")
        };
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn bookkeeping_that_cannot_be_read_is_left_out() {
        let late = ",\"managedFields\":[{\"manager\":\"m\",\"time\":\"9999-12-31T23:59:59Z\"}]";
        assert!(serde_json::from_str::<Pod>(&pod(late)).is_err());
        let sent: Sent<Pod> = serde_json::from_str(&pod(late)).unwrap();
        let pod = sent.read().unwrap();
        assert!(pod.metadata.labels.is_some() && pod.spec.is_some());
    }
}
