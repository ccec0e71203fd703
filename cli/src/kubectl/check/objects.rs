//! The objects of files as changes of a cluster, and the way back from a diagnostic about one to its line.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::{self, Mark, Node, SourceText, Value};
use portcullis_policy::live::{Change, ObjectKey};
use portcullis_policy::resource;

/// Kinds without a namespace, of those that are read.
const CLUSTER_SCOPED: &[&str] = &["Namespace", "GatewayClass"];

/// One object of a file.
struct Object {
    key: ObjectKey,
    text: SourceText,
    /// The file that it stands in, and its tree.
    file: Arc<str>,
    node: Node,
}

/// The objects of files that the engine reads.
pub struct Objects {
    by_file: BTreeMap<Arc<str>, Object>,
    /// As they stand in the files.
    order: Vec<Arc<str>>,
}

impl Objects {
    /// The objects of `sources`; those that name no namespace are of `namespace`, as kubectl has it.
    pub fn of(sources: &[SourceText], namespace: &str) -> Self {
        let mut objects = Self {
            by_file: BTreeMap::new(),
            order: Vec::new(),
        };
        for source in sources {
            // What cannot be parsed was told before.
            for document in document::parse(source).unwrap_or_default() {
                objects.take(document, None, &source.file, namespace);
            }
        }
        objects
    }

    /// `inherited`: `apiVersion` and `kind` of the items of a list that says them once, for all.
    fn take(
        &mut self,
        document: Node,
        inherited: Option<(&str, &str)>,
        file: &Arc<str>,
        namespace: &str,
    ) {
        let text = |node: Option<&Node>| node.and_then(Node::as_str).unwrap_or_default().to_owned();
        let of = |key: &str, inherited: Option<&str>| match document.get(key) {
            None => inherited.unwrap_or_default().to_owned(),
            some => text(some),
        };
        let kind = of("kind", inherited.map(|(_, kind)| kind));
        let version = of("apiVersion", inherited.map(|(version, _)| version));
        if let Some(of) = kind.strip_suffix("List")
            && let Some(items) = document.get("items").and_then(Node::as_list)
        {
            let inherited = (!of.is_empty()).then_some((version.as_str(), of));
            for item in items {
                self.take(item.clone(), inherited, file, namespace);
            }
            return;
        }
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let meta = document.get("metadata");
        let name = text(meta.and_then(|meta| meta.get("name")));
        let mut of = text(meta.and_then(|meta| meta.get("namespace")));
        let mut json = document.to_json();
        if let Some(fields) = json.as_object_mut() {
            fields.insert("apiVersion".to_owned(), version.as_str().into());
            fields.insert("kind".to_owned(), kind.as_str().into());
        }
        if CLUSTER_SCOPED.contains(&kind.as_str()) {
            of.clear();
        } else if of.is_empty() {
            namespace.clone_into(&mut of);
            let meta = json
                .get_mut("metadata")
                .and_then(|meta| meta.as_object_mut());
            if let Some(meta) = meta {
                meta.insert("namespace".to_owned(), namespace.into());
            }
        }
        let key = ObjectKey::new(group, &kind, &of, &name);
        let text = SourceText {
            file: key.file(),
            bytes: json.to_string().into_bytes().into(),
        };
        // Of kinds that decide nothing there is nothing to propose.
        if resource::read(&text).resources.is_empty() {
            return;
        }
        let object = Object {
            key: key.clone(),
            text,
            file: Arc::clone(file),
            node: document,
        };
        if self.by_file.insert(key.file(), object).is_none() {
            self.order.push(key.file());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_file.len()
    }

    /// As they would be applied, in that order.
    pub fn changes(&self) -> Vec<Change> {
        let objects = self.order.iter().filter_map(|file| self.by_file.get(file));
        let changes = objects.map(|object| Change::Apply {
            key: object.key.clone(),
            text: object.text.clone(),
        });
        changes.collect()
    }

    /// The diagnostic at the line of the file, where it is about an object of one.
    pub fn place(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        if let Some(object) = self.by_file.get(&diagnostic.location.file) {
            let mark = locate(
                &object.node,
                diagnostic.field.as_deref().unwrap_or_default(),
            );
            diagnostic.location = mark.in_file(&object.file);
        }
        diagnostic
    }
}

/// Where the field `path`, such as `spec.rules[0].to`, stands; what holds it, where it is absent.
fn locate(root: &Node, path: &str) -> Mark {
    let mut at = root;
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
            inner.split_once(']').unwrap_or((inner, ""))
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            rest.split_at_checked(end).unwrap_or((rest, ""))
        };
        let next = match &at.value {
            Value::Sequence(items) => step.parse().ok().and_then(|i: usize| items.get(i)),
            _ => at.get(step),
        };
        match next {
            Some(next) => (at, rest) = (next, after),
            None => break,
        }
    }
    at.at
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v1
kind: List
items:
- apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata:
    name: a
    annotations: {istio.io/dry-run: \"true\"}
  spec:
    rules:
    - to:
      - operation: {methods: [GET, PUT]}
- {apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: other}}
";

    fn objects() -> Objects {
        let source = SourceText {
            file: "a.yaml".into(),
            bytes: TEXT.as_bytes().into(),
        };
        Objects::of(&[source], "shop")
    }

    #[test]
    fn an_object_without_a_namespace_is_of_the_one_that_was_named() {
        let objects = objects();
        assert_eq!(objects.len(), 1);
        let changes = objects.changes();
        assert_eq!(
            &*changes[0].key().file(),
            "kubernetes:AuthorizationPolicy.security.istio.io/shop/a"
        );
    }

    #[test]
    fn a_field_is_found_by_its_path() {
        let objects = objects();
        let object = objects.by_file.values().next().unwrap();
        for (path, line, column) in [
            ("", 4, 3),
            ("spec.rules[0].to[0].operation.methods[1]", 12, 36),
            ("metadata.annotations[istio.io/dry-run]", 8, 37),
            ("spec.rules[0].from[0]", 11, 7),
            ("spec.selector", 10, 5),
        ] {
            let mark = locate(&object.node, path);
            assert_eq!((mark.line, mark.column), (line, column), "{path}");
        }
    }
}
