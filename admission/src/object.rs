//! An object inside a review: what the verdict needs of its metadata, and its text for the engine.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Longest `generateName` that the API server keeps in front of its five letters.
const LONGEST_BASE: usize = 58;
/// Stands where the API server puts five letters of its own, which never are vowels.
const PLACEHOLDER: &str = "aaaaa";
/// What `kubectl apply` rewrites with every change; nothing reads it here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A Kubernetes object in JSON whose metadata has the right types.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Map<String, Value>);

impl Object {
    /// Checks the types of what is looked at here.
    ///
    /// # Errors
    /// One line that says which field is what it should not be.
    pub fn new(fields: Map<String, Value>) -> Result<Self, String> {
        let strings = |map: &Map<String, Value>, path: &str, keys: &[&str]| {
            for key in keys {
                if !matches!(map.get(*key), None | Some(Value::Null | Value::String(_))) {
                    return Err(format!("`{path}{key}` is not a string"));
                }
            }
            Ok(())
        };
        strings(&fields, "", &["apiVersion", "kind"])?;
        let meta = match fields.get("metadata") {
            None | Some(Value::Null) => return Ok(Self(fields)),
            Some(Value::Object(meta)) => meta,
            Some(_) => return Err("`metadata` is not an object".to_owned()),
        };
        let texts = ["name", "namespace", "generateName", "deletionTimestamp"];
        strings(meta, "metadata.", &texts)?;
        for key in ["labels", "annotations"] {
            match meta.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::Object(map)) if map.values().all(Value::is_string) => {}
                Some(_) => return Err(format!("`metadata.{key}` is not a map of strings")),
            }
        }
        Ok(Self(fields))
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn meta(&self, key: &str) -> Option<&Value> {
        self.0.get("metadata")?.get(key)
    }

    fn meta_text(&self, key: &str) -> &str {
        self.meta(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// API group and kind, as the object itself says.
    #[must_use]
    pub fn group_kind(&self) -> (&str, &str) {
        let version = self.text("apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        (group, self.text("kind"))
    }

    /// `metadata.name`; where there is only a `generateName`, one that the API server never makes.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        let name = self.meta_text("name");
        let base = self.meta_text("generateName");
        if !name.is_empty() || base.is_empty() {
            return Cow::Borrowed(name);
        }
        let base: String = base.chars().take(LONGEST_BASE).collect();
        Cow::Owned(base + PLACEHOLDER)
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.meta_text("namespace")
    }

    /// An annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.meta("annotations")?.get(key)?.as_str()
    }

    /// It is gone once its finalizers are.
    #[must_use]
    pub fn is_being_deleted(&self) -> bool {
        !self.meta_text("deletionTimestamp").is_empty()
    }

    /// True when `self` and `other` mean the same: what they differ in is bookkeeping.
    #[must_use]
    pub fn means_the_same_as(&self, other: &Self) -> bool {
        let annotations = |object: &Self| -> Vec<(String, Value)> {
            let map = object.meta("annotations").and_then(Value::as_object);
            let mut all: Vec<(String, Value)> = map
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key != LAST_APPLIED)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        let rest = |object: &Self| -> Vec<(String, Value)> {
            let bookkeeping = ["metadata", "status", "apiVersion"];
            let fields = object.0.iter();
            let mut all: Vec<(String, Value)> = fields
                .filter(|(key, _)| !bookkeeping.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        rest(self) == rest(other) && annotations(self) == annotations(other)
    }

    /// The object for the engine, named `name` in `namespace`, without what others write into it.
    #[must_use]
    pub fn document(&self, namespace: &str, name: &str) -> Vec<u8> {
        let mut fields = self.0.clone();
        fields.remove("status");
        let meta = fields
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if !meta.is_object() {
            *meta = Value::Object(Map::new());
        }
        if let Value::Object(meta) = meta {
            meta.remove("managedFields");
            meta.insert("name".to_owned(), Value::from(name));
            if !namespace.is_empty() {
                meta.insert("namespace".to_owned(), Value::from(namespace));
            }
        }
        Value::Object(fields).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        let Value::Object(fields) = value else {
            panic!("an object")
        };
        Object::new(fields).unwrap()
    }

    #[test]
    fn a_name_that_is_to_be_generated_has_a_placeholder() {
        let name = |meta: Value| object(json!({ "metadata": meta })).name().into_owned();
        assert_eq!(name(json!({ "name": "web", "generateName": "w-" })), "web");
        assert_eq!(name(json!({ "generateName": "w-" })), "w-aaaaa");
        assert_eq!(name(json!({ "generateName": "w".repeat(300) })).len(), 63);
        assert_eq!(name(json!({})), "");
    }

    #[test]
    fn bookkeeping_is_no_change_but_annotations_and_the_spec_are() {
        let one = object(json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": "web", "resourceVersion": "1", "annotations": { (LAST_APPLIED): "x" } },
            "spec": { "action": "DENY", "rules": [{}] },
        }));
        let other = object(json!({
            "spec": { "rules": [{}], "action": "DENY" },
            "metadata": { "name": "web", "resourceVersion": "2", "finalizers": ["a"], "labels": { "a": "b" } },
            "apiVersion": "security.istio.io/v1beta1", "kind": "AuthorizationPolicy", "status": {},
        }));
        assert!(one.means_the_same_as(&other));
        let on_trial = object(json!({
            "kind": "AuthorizationPolicy",
            "metadata": { "name": "web", "annotations": { "istio.io/dry-run": "true" } },
            "spec": { "action": "DENY", "rules": [{}] },
        }));
        assert!(!one.means_the_same_as(&on_trial));
        let wider = object(json!({
            "kind": "AuthorizationPolicy", "metadata": { "name": "web" },
            "spec": { "action": "DENY", "rules": [{}, {}] },
        }));
        assert!(!other.means_the_same_as(&wider));
    }

    #[test]
    fn the_engine_gets_it_named_and_without_what_others_write() {
        let given = object(json!({
            "kind": "AuthorizationPolicy", "metadata": { "generateName": "w-", "managedFields": [{}] },
            "spec": {}, "status": { "conditions": [] },
        }));
        let document: Value = serde_json::from_slice(&given.document("shop", "w-aaaaa")).unwrap();
        let meta = json!({ "generateName": "w-", "name": "w-aaaaa", "namespace": "shop" });
        assert_eq!(
            document,
            json!({ "kind": "AuthorizationPolicy", "metadata": meta, "spec": {} })
        );
    }

    #[test]
    fn metadata_of_the_wrong_type_is_refused() {
        for wrong in [
            json!({ "metadata": [] }),
            json!({ "metadata": { "name": 1 } }),
            json!({ "metadata": { "annotations": { "a": 1 } } }),
            json!({ "metadata": { "labels": "a" } }),
            json!({ "kind": {} }),
        ] {
            let Value::Object(fields) = wrong.clone() else {
                panic!("an object")
            };
            assert!(Object::new(fields).is_err(), "{wrong}");
        }
    }
}
