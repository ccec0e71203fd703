//! `ClusterSPIFFEID` documents, and the pods, namespaces and nodes that they are rendered for.

use anyhow::{Context as _, anyhow, bail};
use portcullis_ca::proto::types;
use portcullis_ca::template::{Cluster, EntryTemplate, Facts, LabelSelector, Text};
use portcullis_policy::document::{Mark, Node, Value};

use super::{apply, fields};

/// The one version of `ClusterSPIFFEID` that there is.
const VERSION: &str = "spire.spiffe.io/v1alpha1";
const KINDS: &str = "ClusterSPIFFEID, Pod, Namespace, Node and lists of them";
const SPEC: &str = "spiffeIDTemplate, podSelector, namespaceSelector, dnsNameTemplates, workloadSelectorTemplates, ttl, \
                    jwtTtl, federatesWith, hint, admin, downstream";

/// Everything of Kubernetes that was read.
#[derive(Debug, Default)]
pub struct Kubernetes {
    templates: Vec<Template>,
    pods: Vec<serde_json::Value>,
    namespaces: Vec<serde_json::Value>,
    nodes: Vec<serde_json::Value>,
}

/// One `ClusterSPIFFEID`.
#[derive(Debug)]
struct Template {
    /// `FILE:LINE:COLUMN: ClusterSPIFFEID NAME`
    name: String,
    entry: EntryTemplate,
    /// What is the same for every pod.
    fixed: types::Entry,
}

/// A place, for messages.
struct At<'a>(&'a str, Mark);

impl At<'_> {
    fn error(&self, message: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("{}:{}:{}: {message}", self.0, self.1.line, self.1.column)
    }
}

impl Kubernetes {
    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty() && self.pods.is_empty()
    }

    /// Takes one document of `file`.
    ///
    /// # Errors
    /// With the place of what is unknown.
    pub fn read(&mut self, file: &str, document: &Node) -> anyhow::Result<()> {
        let kind = document.get("kind").and_then(Node::as_str);
        let kind = kind.ok_or_else(|| At(file, document.at).error("`kind` is missing"))?;
        self.take(file, kind, document)
    }

    fn take(&mut self, file: &str, kind: &str, document: &Node) -> anyhow::Result<()> {
        match kind {
            "Pod" => self.pods.push(apply::json(document)),
            "Namespace" => self.namespaces.push(apply::json(document)),
            "Node" => self.nodes.push(apply::json(document)),
            "ClusterSPIFFEID" => self.templates.push(template(file, document)?),
            "List" | "PodList" | "NamespaceList" | "NodeList" | "ClusterSPIFFEIDList" => {
                let of = kind.strip_suffix("List").filter(|of| !of.is_empty());
                let items = document.get("items").and_then(Node::as_list);
                for item in items.unwrap_or_default() {
                    match (item.get("kind").and_then(Node::as_str), of) {
                        (Some(kind), _) | (None, Some(kind)) if !kind.ends_with("List") => {
                            self.take(file, kind, item)?;
                        }
                        _ => return Err(At(file, item.at).error("`kind` is missing")),
                    }
                }
            }
            other => {
                return Err(At(file, document.at).error(format!(
                    "`{other}` is no kind that entries are made of; there are {KINDS}"
                )));
            }
        }
        Ok(())
    }

    /// The entries of all pods, in the order of templates and pods. `parent` names who attests a pod; without it the
    /// local agent does.
    ///
    /// # Errors
    /// When a pod has not what a template asks for, or what came of it is no entry.
    pub fn render(
        &self,
        cluster: &Cluster,
        parent: Option<&Text>,
    ) -> anyhow::Result<Vec<types::Entry>> {
        let mut entries = Vec::new();
        for template in &self.templates {
            for pod in &self.pods {
                let meta = |key: &str| text(pod, &["metadata", key]).unwrap_or_default();
                let namespace = named(&self.namespaces, meta("namespace"));
                if !template.entry.selects(pod, namespace) {
                    continue;
                }
                let node = text(pod, &["spec", "nodeName"]);
                let facts = Facts {
                    cluster,
                    pod,
                    node: node.and_then(|name| named(&self.nodes, name)),
                };
                let entry = template.render(&facts, parent).with_context(|| {
                    format!(
                        "{}, pod {}/{}",
                        template.name,
                        meta("namespace"),
                        meta("name")
                    )
                })?;
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

impl Template {
    fn render(&self, facts: &Facts<'_>, parent: Option<&Text>) -> anyhow::Result<types::Entry> {
        let rendered = self.entry.render(facts)?;
        let parent = parent.map(|text| text.render(facts)).transpose()?;
        Ok(types::Entry {
            spiffe_id: Some(fields::spiffe_id(&rendered.spiffe_id)?),
            parent_id: parent.as_deref().map(fields::spiffe_id).transpose()?,
            selectors: fields::selectors(&rendered.selectors)?,
            dns_names: rendered.dns_names,
            ..self.fixed.clone()
        })
    }
}

fn text<'a>(object: &'a serde_json::Value, path: &[&str]) -> Option<&'a str> {
    path.iter()
        .try_fold(object, |value, key| value.get(key))?
        .as_str()
}

fn named<'a>(objects: &'a [serde_json::Value], name: &str) -> Option<&'a serde_json::Value> {
    let mut objects = objects.iter();
    objects.find(|object| text(object, &["metadata", "name"]) == Some(name))
}

fn template(file: &str, document: &Node) -> anyhow::Result<Template> {
    let at = At(file, document.at);
    let version = document.get("apiVersion").and_then(Node::as_str);
    if version != Some(VERSION) {
        return Err(at.error(format!("a ClusterSPIFFEID has `apiVersion: {VERSION}`")));
    }
    let name = document.get("metadata").and_then(|meta| meta.get("name"));
    let name = name.and_then(Node::as_str).unwrap_or("without a name");
    let spec = document.get("spec").and_then(Node::as_mapping);
    let spec = spec.ok_or_else(|| at.error("`spec` is missing"))?;
    let mut entry = EntryTemplate {
        spiffe_id: Text::parse("")?,
        dns_names: Vec::new(),
        selectors: Vec::new(),
        pods: LabelSelector::default(),
        namespaces: LabelSelector::default(),
    };
    let mut fixed = types::Entry::default();
    let mut has_id = false;
    for field in spec {
        let value = &field.value;
        if value.is_null() {
            continue;
        }
        let here = At(file, value.at);
        match field.key.as_str() {
            "spiffeIDTemplate" => {
                entry.spiffe_id = template_text(file, value)?;
                has_id = true;
            }
            "dnsNameTemplates" => entry.dns_names = list(file, value, template_text)?,
            "workloadSelectorTemplates" => entry.selectors = list(file, value, template_text)?,
            "podSelector" => entry.pods = selector(file, value)?,
            "namespaceSelector" => entry.namespaces = selector(file, value)?,
            "ttl" => fixed.x509_svid_ttl = duration(file, value)?,
            "jwtTtl" => fixed.jwt_svid_ttl = duration(file, value)?,
            "federatesWith" => {
                fixed.federates_with = list(file, value, |file, value| {
                    fields::trust_domain(string(file, value)?)
                        .map_err(|error| At(file, value.at).error(error))
                })?;
            }
            "hint" => fixed.hint = string(file, value)?.to_owned(),
            "admin" => fixed.admin = flag(file, value)?,
            "downstream" => fixed.downstream = flag(file, value)?,
            // Who renders it: here we do.
            "className" => {
                string(file, value)?;
            }
            "autoPopulateDNSNames" | "fallback" => {
                if flag(file, value)? {
                    return Err(here.error(format!(
                        "`{}` needs more than the pod to be known; name it yourself, or leave it out",
                        field.key
                    )));
                }
            }
            unknown => {
                return Err(At(file, field.key_at)
                    .error(format!("unknown field `{unknown}`; there are {SPEC}")));
            }
        }
    }
    if !has_id {
        return Err(at.error("`spec.spiffeIDTemplate` is missing"));
    }
    Ok(Template {
        name: format!(
            "{file}:{}:{}: ClusterSPIFFEID {name}",
            document.at.line, document.at.column
        ),
        entry,
        fixed,
    })
}

fn string<'a>(file: &str, node: &'a Node) -> anyhow::Result<&'a str> {
    let found = || At(file, node.at).error(format!("expected a text, found {}", node.described()));
    node.as_str().ok_or_else(found)
}

fn flag(file: &str, node: &Node) -> anyhow::Result<bool> {
    match node.value {
        Value::Bool(flag, _) => Ok(flag),
        _ => Err(At(file, node.at).error(format!(
            "expected true or false, found {}",
            node.described()
        ))),
    }
}

fn list<T>(
    file: &str,
    node: &Node,
    each: impl Fn(&str, &Node) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let found = || At(file, node.at).error(format!("expected a list, found {}", node.described()));
    let items = node.as_list().ok_or_else(found)?;
    items.iter().map(|item| each(file, item)).collect()
}

fn template_text(file: &str, node: &Node) -> anyhow::Result<Text> {
    let text = string(file, node)?;
    Text::parse(text).map_err(|error| {
        let before = text.get(..error.offset).unwrap_or_default().chars().count();
        let character = before + 1;
        At(file, node.at).error(format!("at character {character} of `{text}`: {error}"))
    })
}

fn selector(file: &str, node: &Node) -> anyhow::Result<LabelSelector> {
    let read = serde_json::from_value(apply::json(node));
    read.map_err(|error| At(file, node.at).error(format!("no label selector: {error}")))
}

/// A Go duration of whole seconds: `1h`, `90s`, `1h30m`.
fn duration(file: &str, node: &Node) -> anyhow::Result<i32> {
    let text = string(file, node)?;
    seconds(text).map_err(|error| At(file, node.at).error(error))
}

fn seconds(text: &str) -> anyhow::Result<i32> {
    let mut rest = text;
    let mut all = 0_i32;
    while let Some(end) = rest.find(['h', 'm', 's']) {
        let (part, after) = rest.split_at_checked(end + 1).unwrap_or((rest, ""));
        // `ms` would be read as minutes.
        if after.starts_with('s') && part.ends_with('m') {
            break;
        }
        let part = fields::ttl(part)?;
        all = all.checked_add(part).context("it is too long")?;
        rest = after;
    }
    if rest.is_empty() && !text.is_empty() {
        return Ok(all);
    }
    bail!("`{text}` is no lifetime: write `90s`, `30m`, `1h` or `1h30m`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_go_s() {
        for (text, expected) in [("1h", 3600), ("90s", 90), ("1h30m", 5400), ("1h1m1s", 3661)] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        for text in ["", "5", "1d", "100ms", "1.5h", "-1h", "h", "1h30"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
