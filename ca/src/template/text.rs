//! One text with placeholders: a strict subset of Go's templates.
//!
//! `{{ .PodMeta.Name }}` and `{{ index .PodMeta.Labels "app.kubernetes.io/name" }}` are all there is. What a Go template
//! could do besides (pipes, functions, conditions) is refused by name when the template is read, not when a pod comes.

use serde_json::Value;

use super::Facts;

/// Longest text that is made, bytes: a SPIFFE ID has 2,048 at most.
const LONGEST: usize = 4096;

/// White space, as Go's templates have it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Names of Go's fields and of JSON's.
const META: &[(&str, &str)] = &[
    ("Name", "name"),
    ("Namespace", "namespace"),
    ("UID", "uid"),
    ("GenerateName", "generateName"),
    ("Labels", "labels"),
    ("Annotations", "annotations"),
];
const POD: &[(&str, &str)] = &[
    ("ServiceAccountName", "serviceAccountName"),
    ("NodeName", "nodeName"),
    ("Hostname", "hostname"),
    ("Subdomain", "subdomain"),
    ("SchedulerName", "schedulerName"),
    ("PriorityClassName", "priorityClassName"),
];
const NODE: &[(&str, &str)] = &[("ProviderID", "providerID"), ("PodCIDR", "podCIDR")];

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    Place(Place),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// As it was written.
    written: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    TrustDomain,
    ClusterName,
    ClusterDomain,
    Field { node: bool, path: Vec<String> },
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// Where in the text, bytes.
    pub offset: usize,
    /// What is wrong, and what to write.
    pub message: String,
}

/// Why there is no text for a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The pod has not what is asked for.
    #[error("`{{{{ {0} }}}}` is nothing here")]
    Missing(String),
    /// What is asked for is no text.
    #[error("`{{{{ {0} }}}}` is no text; name what is in it: `index {0} \"KEY\"`")]
    NoText(String),
    /// Too long.
    #[error("the text has more than 4,096 bytes")]
    TooLong,
    /// The template itself.
    #[error(transparent)]
    Template(#[from] ParseError),
}

impl Text {
    /// Reads a template.
    ///
    /// # Errors
    /// [`ParseError`], for everything that is not understood.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let offset = text.len() - rest.len();
            let error = |message: String| ParseError { offset, message };
            let Some((plain, after)) = rest.split_once("{{") else {
                if !rest.is_empty() {
                    parts.push(Part::Plain(rest.to_owned()));
                }
                return Ok(Self(parts));
            };
            let Some((inner, after)) = after.split_once("}}") else {
                return Err(error("`{{` without its `}}`".to_owned()));
            };
            let start = offset + plain.len();
            // Go: `{{- ` drops white space before it, ` -}}` that after it.
            let before = inner
                .strip_prefix('-')
                .filter(|rest| rest.starts_with(SPACE));
            let plain = before.map_or(plain, |_| plain.trim_end_matches(SPACE));
            let inner = before.unwrap_or(inner);
            let behind = inner.strip_suffix('-').filter(|rest| rest.ends_with(SPACE));
            let after = behind.map_or(after, |_| after.trim_start_matches(SPACE));
            let inner = behind.unwrap_or(inner);
            if !plain.is_empty() {
                parts.push(Part::Plain(plain.to_owned()));
            }
            let what = place(inner.trim()).map_err(|message| ParseError {
                offset: start,
                message,
            })?;
            parts.push(Part::Place(Place {
                written: inner.trim().to_owned(),
                what,
            }));
            rest = after;
        }
    }

    /// The text for a pod.
    ///
    /// # Errors
    /// [`RenderError`] when the pod has not what is asked for: nobody gets an identity with a hole in it.
    pub fn render(&self, facts: &Facts<'_>) -> Result<String, RenderError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Plain(plain) => text.push_str(plain),
                Part::Place(place) => text.push_str(place.find(facts)?),
            }
            if text.len() > LONGEST {
                return Err(RenderError::TooLong);
            }
        }
        Ok(text)
    }
}

impl Place {
    fn find<'a>(&self, facts: &Facts<'a>) -> Result<&'a str, RenderError> {
        let missing = || RenderError::Missing(self.written.clone());
        let cluster = facts.cluster;
        let found = match &self.what {
            What::TrustDomain => Some(cluster.trust_domain.as_str()),
            What::ClusterName => cluster.name.as_deref(),
            What::ClusterDomain => cluster.domain.as_deref(),
            What::Field { node, path } => {
                let object = if *node { facts.node } else { Some(facts.pod) };
                let start = object.ok_or_else(missing)?;
                let mut value = start;
                for key in path {
                    value = value.get(key).ok_or_else(missing)?;
                }
                match value {
                    Value::String(text) => Some(text.as_str()),
                    Value::Null => None,
                    _ => return Err(RenderError::NoText(self.written.clone())),
                }
            }
        };
        // An empty value would leave an empty segment, or an identity that others share.
        found.filter(|text| !text.is_empty()).ok_or_else(missing)
    }
}

fn place(inner: &str) -> Result<What, String> {
    if let Some(path) = inner.strip_prefix("index ") {
        let path = path.trim();
        let end = path.find(char::is_whitespace).unwrap_or(path.len());
        let (path, key) = path.split_at_checked(end).unwrap_or((path, ""));
        let key = key.trim();
        let quoted = |quote: char| key.strip_prefix(quote)?.strip_suffix(quote);
        let key = quoted('"').or_else(|| quoted('`'));
        let plain = |key: &&str| !key.is_empty() && !key.contains(['"', '\\', '`']);
        let Some(key) = key.filter(plain) else {
            return Err(format!(
                "`{inner}`: write `index .PodMeta.Labels \"KEY\"`, one key in double quotes"
            ));
        };
        return match field(path)? {
            What::Field { node, mut path } if is_map(&path) => {
                path.push(key.to_owned());
                Ok(What::Field { node, path })
            }
            _ => Err(format!("`{path}` has no keys; labels and annotations have")),
        };
    }
    if !inner.starts_with('.')
        || inner.contains(|c: char| c.is_whitespace() || "|()\"$-".contains(c))
    {
        return Err(format!(
            "`{inner}` is not understood: only fields such as `.PodMeta.Name` and `index .PodMeta.Labels \"KEY\"` are, no other functions, pipes or conditions"
        ));
    }
    field(inner)
}

fn is_map(path: &[String]) -> bool {
    matches!(path, [meta, map] if meta == "metadata" && (map == "labels" || map == "annotations"))
}

fn field(path: &str) -> Result<What, String> {
    let known = |names: &[(&str, &str)]| {
        let names: Vec<&str> = names.iter().map(|(go, _)| *go).collect();
        names.join(", ")
    };
    let mut segments = path.trim_start_matches('.').split('.');
    let root = segments.next().unwrap_or_default();
    let rest: Vec<&str> = segments.collect();
    let (node, section, names) = match (root, rest.is_empty()) {
        ("TrustDomain", true) => return Ok(What::TrustDomain),
        ("ClusterName", true) => return Ok(What::ClusterName),
        ("ClusterDomain", true) => return Ok(What::ClusterDomain),
        ("PodMeta", _) => (false, "metadata", META),
        ("PodSpec", _) => (false, "spec", POD),
        ("NodeMeta", _) => (true, "metadata", META),
        ("NodeSpec", _) => (true, "spec", NODE),
        _ => {
            return Err(format!(
                "`{path}` is unknown; there are .TrustDomain, .ClusterName, .ClusterDomain, .PodMeta, .PodSpec, .NodeMeta and .NodeSpec"
            ));
        }
    };
    let (name, keys) = match &rest[..] {
        [] => {
            return Err(format!(
                "`{path}` is no text; its fields are {}",
                known(names)
            ));
        }
        [name, keys @ ..] => (*name, keys),
    };
    let Some((_, json)) = names.iter().find(|(go, _)| *go == name) else {
        return Err(format!("`{path}` is unknown; .{root} has {}", known(names)));
    };
    let mut path_in = vec![section.to_owned(), (*json).to_owned()];
    match keys {
        [] => {}
        [key] if is_map(&path_in) && !key.is_empty() => path_in.push((*key).to_owned()),
        _ => return Err(format!("`{path}` goes too deep")),
    }
    Ok(What::Field {
        node,
        path: path_in,
    })
}
