//! `ClusterSPIFFEID` documents, and the pods, namespaces, nodes and EndpointSlices that they are rendered for.

use anyhow::{Context as _, anyhow, bail};
use portcullis_ca::proto::types;
use portcullis_ca::template::{Cluster, EntryTemplate, Facts, LabelSelector, Services, Text};
use portcullis_policy::document::{Mark, Node, Value};

use super::{apply, fields};

/// The one version of `ClusterSPIFFEID` that there is.
const VERSION: &str = "spire.spiffe.io/v1alpha1";
const KINDS: &str = "ClusterSPIFFEID, Pod, Namespace, Node, EndpointSlice and lists of them";
const SPEC: &str = "spiffeIDTemplate, podSelector, namespaceSelector, dnsNameTemplates, workloadSelectorTemplates, ttl, \
                    jwtTtl, federatesWith, hint, admin, downstream, className, fallback, autoPopulateDNSNames";

/// Everything of Kubernetes that was read.
#[derive(Debug, Default)]
pub struct Kubernetes {
    templates: Vec<Template>,
    pods: Vec<serde_json::Value>,
    namespaces: Vec<serde_json::Value>,
    nodes: Vec<serde_json::Value>,
    /// `None` where no EndpointSlice was read.
    services: Option<Services>,
}

/// One `ClusterSPIFFEID`.
#[derive(Debug)]
struct Template {
    /// `FILE:LINE:COLUMN: ClusterSPIFFEID NAME`
    name: String,
    entry: EntryTemplate,
    /// What is the same for every pod.
    fixed: types::Entry,
    /// `fallback`: only for pods that no other one means.
    is_fallback: bool,
    /// `autoPopulateDNSNames`
    names_services: bool,
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
            "EndpointSlice" => {
                let slices = self.services.get_or_insert_default();
                slices.put(&apply::json(document));
            }
            "ClusterSPIFFEID" => self.templates.push(template(file, document)?),
            "List"
            | "PodList"
            | "NamespaceList"
            | "NodeList"
            | "EndpointSliceList"
            | "ClusterSPIFFEIDList" => {
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
        if let (None, Some(template)) = (
            &self.services,
            self.templates.iter().find(|one| one.names_services),
        ) {
            bail!(
                "{}: `autoPopulateDNSNames` needs the services of its pods: add the cluster's EndpointSlices to the files \
                 (`kubectl get endpointslices -A -o yaml`)",
                template.name
            );
        }
        let (fallbacks, others): (Vec<_>, Vec<_>) =
            self.templates.iter().partition(|one| one.is_fallback);
        let mut entries = Vec::new();
        // Pods that have an entry which is no fallback, by their place in the list.
        let mut has_other = vec![false; self.pods.len()];
        for template in others.into_iter().chain(fallbacks) {
            for (pod, has_other) in self.pods.iter().zip(&mut has_other) {
                let meta = |key: &str| text(pod, &["metadata", key]).unwrap_or_default();
                let namespace = named(&self.namespaces, meta("namespace"));
                let is_meant = template.entry.selects(pod, namespace);
                if !is_meant || (template.is_fallback && *has_other) {
                    continue;
                }
                *has_other |= !template.is_fallback;
                let node = text(pod, &["spec", "nodeName"]);
                let facts = Facts {
                    cluster,
                    pod,
                    node: node.and_then(|name| named(&self.nodes, name)),
                };
                let services = self.services.as_ref().filter(|_| template.names_services);
                let services = services
                    .map(|services| services.names_of(meta("uid"), cluster.domain.as_deref()));
                let services = services.unwrap_or_default();
                let entry = template.render(&facts, services, parent).with_context(|| {
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
    fn render(
        &self,
        facts: &Facts<'_>,
        services: Vec<String>,
        parent: Option<&Text>,
    ) -> anyhow::Result<types::Entry> {
        let mut rendered = self.entry.render(facts)?;
        for name in services {
            let is_there = |one: &String| one.eq_ignore_ascii_case(&name);
            if !rendered.dns_names.iter().any(is_there) {
                rendered.dns_names.push(name);
            }
        }
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
    let mut is_fallback = false;
    let mut names_services = false;
    for field in spec {
        let value = &field.value;
        if value.is_null() {
            continue;
        }
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
            "autoPopulateDNSNames" => names_services = flag(file, value)?,
            "fallback" => is_fallback = flag(file, value)?,
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
        is_fallback,
        names_services,
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
    let read = serde_json::from_value::<LabelSelector>(apply::json(node));
    let read = read.map_err(|error| error.to_string());
    read.and_then(LabelSelector::validated)
        .map_err(|error| At(file, node.at).error(format!("no label selector: {error}")))
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
    use portcullis_policy::document::SourceText;

    use super::*;

    const PODS: &str = "\
kind: PodList
items:
- metadata: {name: web, namespace: shop, uid: u1, labels: {app: web}}
  spec: {serviceAccountName: web}
- metadata: {name: cart, namespace: shop, uid: u2, labels: {app: cart}}
  spec: {serviceAccountName: cart}
";
    const SLICES: &str = "\
kind: EndpointSliceList
items:
- metadata: {name: web-1, namespace: shop, uid: s1, labels: {kubernetes.io/service-name: front}}
  endpoints: [{targetRef: {kind: Pod, name: web, uid: u1}}]
";

    fn spiffe_id(name: &str, more: &str) -> String {
        format!(
            "apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\nmetadata: {{name: {name}}}\nspec:\n  \
             spiffeIDTemplate: 'spiffe://{{{{ .TrustDomain }}}}/{name}/{{{{ .PodMeta.Name }}}}'\n{more}"
        )
    }

    /// Paths and DNS names, or what is told.
    fn rendered(texts: &[&str]) -> Result<Vec<String>, String> {
        let mut kubernetes = Kubernetes::default();
        let cluster = Cluster {
            trust_domain: "td".to_owned(),
            name: None,
            domain: Some("cluster.local".to_owned()),
        };
        for text in texts {
            let source = SourceText {
                file: "f.yaml".into(),
                bytes: text.as_bytes().into(),
            };
            for document in &portcullis_policy::document::parse(&source).unwrap() {
                let read = kubernetes.read("f.yaml", document);
                read.map_err(|error| error.to_string())?;
            }
        }
        let entries = kubernetes.render(&cluster, None);
        let entries = entries.map_err(|error| format!("{error:#}"))?;
        let line = |one: types::Entry| {
            format!(
                "{} {}",
                one.spiffe_id.unwrap().path,
                one.dns_names.join(" ")
            )
        };
        Ok(entries.into_iter().map(line).collect())
    }

    #[test]
    fn a_fallback_is_for_pods_that_no_other_one_of_the_files_means() {
        let rest = spiffe_id("rest", "  fallback: true\n");
        let web = spiffe_id("web", "  podSelector: {matchLabels: {app: web}}\n");
        let both = rendered(&[&rest, &web, PODS]).unwrap();
        assert_eq!(both, ["/web/web ", "/rest/cart "]);
        let alone = rendered(&[&rest, PODS]).unwrap();
        assert_eq!(alone, ["/rest/web ", "/rest/cart "]);
    }

    #[test]
    fn services_name_pods_where_their_slices_are_read() {
        let names = spiffe_id("x", "  autoPopulateDNSNames: true\n");
        let all = rendered(&[&names, PODS, SLICES]).unwrap();
        assert_eq!(
            all,
            [
                "/x/web front front.shop front.shop.svc front.shop.svc.cluster.local",
                "/x/cart ",
            ]
        );
        let refused = rendered(&[&names, PODS]).unwrap_err();
        assert!(
            refused.starts_with("f.yaml:1:1: ClusterSPIFFEID x: `autoPopulateDNSNames` needs")
                && refused.contains("kubectl get endpointslices"),
            "{refused}"
        );
        let plain = spiffe_id("x", "  autoPopulateDNSNames: false\n");
        assert_eq!(rendered(&[&plain, PODS]).unwrap(), ["/x/web ", "/x/cart "]);
    }

    #[test]
    fn what_is_not_understood_is_refused_where_it_stands() {
        for (more, told) in [
            ("  fallback: maybe\n", "f.yaml:6:13: expected true or false"),
            ("  onlyOn: mondays\n", "f.yaml:6:3: unknown field `onlyOn`"),
            (
                "  podSelector: {matchExpressions: [{key: a, operator: In}]}\n",
                "`In` of the label `a` needs `values`",
            ),
        ] {
            let refused = rendered(&[&spiffe_id("x", more), PODS]).unwrap_err();
            assert!(refused.contains(told), "{more}: {refused}");
        }
    }

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
