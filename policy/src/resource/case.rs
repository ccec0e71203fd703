//! Decision cases: a request and the decision that it must get, in the format of policies/README.md.
//!
//! The request stays a value: what a CheckRequest is, only the crate that speaks ext_authz knows.

mod expected;
mod patch;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::path::Path;
use super::reader::Reader;
use crate::decision::Decision;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::document::{self, Excerpt, Node, SourceText};
use crate::request::{PathForm, Target};

pub use expected::{Expected, ExpectedTrial};

/// Most cases of one test; the schema of the kind has the same bound.
pub const MAX_CASES: usize = 500;
/// What the requests of one test may hold together, in octets of JSON, once `like` has been filled in.
const MAX_REQUESTS: usize = 16 << 20;

/// Keys beside `cases`.
const SPEC: &[&str] = &["target", "path", "cases"];
const CASE: &[&str] = &[
    "name", "request", "like", "change", "target", "path", "decision", "reason", "policies",
    "audit", "provider", "dry_run", "explain",
];
const TARGETS: &[(&str, Option<Target>)] = &[
    ("auto", None),
    ("sidecar", Some(Target::Sidecar)),
    ("gateway", Some(Target::Gateway)),
    ("waypoint", Some(Target::Waypoint)),
    ("ztunnel", Some(Target::Ztunnel)),
];
const PATHS: &[(&str, PathForm)] = &[("raw", PathForm::Raw), ("normalised", PathForm::Normalised)];

/// One request and what must become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionCase {
    /// Finishes a sentence; unique among its cases.
    pub name: String,
    /// Where the case starts.
    pub at: Location,
    /// Its field, such as `spec.cases[0]`.
    pub field: String,
    /// CheckRequest in protobuf JSON; with `like`, that case's request with the change made.
    pub request: Value,
    /// Proxy that enforces; `None` is `auto`.
    pub target: Option<Target>,
    /// How the path of the request arrives.
    pub path_form: PathForm,
    /// What the decision must be.
    pub expected: Expected,
    /// The explanation is wanted too.
    pub explain: bool,
}

/// What became of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseOutcome {
    /// `namespace/name` of the PolicyTest.
    pub test: String,
    /// Name of the case.
    pub name: String,
    /// Where the case stands.
    pub at: Location,
    /// Its field in the test.
    pub field: String,
    /// What the decision must be.
    pub wanted: Expected,
    /// What it is; words where the case's request is no CheckRequest.
    pub got: Result<Decision, String>,
    /// Whether it is what it must be.
    pub holds: bool,
}

impl CaseOutcome {
    /// What the decision is, in the words of [`Expected`].
    #[must_use]
    pub fn got_in_words(&self) -> String {
        match &self.got {
            Ok(got) => expected::words(got),
            Err(why) => format!("no CheckRequest: {why}"),
        }
    }

    /// The outcome as a diagnostic about the test; `None` for a case that holds.
    #[must_use]
    pub fn diagnostic(&self) -> Option<Diagnostic> {
        if self.holds {
            return None;
        }
        let found = match &self.got {
            Ok(got) => {
                let message = format!(
                    "the case `{}` does not hold: wanted {}, got {}",
                    Excerpt(&self.name),
                    self.wanted,
                    expected::words(got)
                );
                code::CASE_FAILS.at(self.at.clone(), message).with_hint(
                    "`portcullis policy test` tells the nearest rule; mend the policy, or the case",
                )
            }
            Err(why) => code::CASE_REQUEST
                .at(
                    self.at.clone(),
                    format!("the request of the case `{}`: {why}", Excerpt(&self.name)),
                )
                .with_hint("a request is Envoy's CheckRequest in protobuf JSON"),
        };
        Some(
            found
                .with_resource(format!("PolicyTest/{}", self.test))
                .with_field(&*self.field),
        )
    }
}

/// Cases and the other keys of the same object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseFile {
    /// The cases, in order.
    pub cases: Vec<DecisionCase>,
    /// The other keys, as they are.
    pub settings: Map<String, Value>,
}

/// Reads a file of cases, such as `cases.yaml`: one document with `cases`, and what else `settings` names.
///
/// # Errors
/// Located diagnostics.
pub fn read_case_file(source: &SourceText, settings: &[&str]) -> Result<CaseFile, Vec<Diagnostic>> {
    let documents = document::parse(source)?;
    let mut reader = Reader::new(&source.file);
    reader.begin(String::new());
    let mut file = None;
    if let [root] = documents.as_slice() {
        file = read(root, &Path::Root, settings, &mut reader).map(|cases| CaseFile {
            cases,
            settings: root
                .as_mapping()
                .unwrap_or_default()
                .iter()
                .filter(|entry| settings.contains(&entry.key.as_str()))
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        });
    } else {
        let at = Location {
            file: Arc::clone(&source.file),
            line: 1,
            column: 1,
        };
        let message = format!("{} documents where there must be one", documents.len());
        reader.push(code::NOT_AN_OBJECT.at(at, message));
    }
    let diagnostics = reader.finish();
    match file {
        Some(file) if !diagnostics.iter().any(Diagnostic::is_error) => Ok(file),
        _ => Err(diagnostics),
    }
}

/// Reads the cases of `spec`; `None` when one of them cannot be read, which is reported. `others` are keys
/// that are somebody else's.
pub(super) fn read(
    spec: &Node,
    path: &Path<'_>,
    others: &[&str],
    reader: &mut Reader<'_>,
) -> Option<Vec<DecisionCase>> {
    let mut target = None;
    let mut path_form = PathForm::Raw;
    let mut list = None;
    for entry in reader.object(spec, path)? {
        let (node, field) = (&entry.value, path.key(&entry.key));
        if node.is_null() && SPEC.contains(&entry.key.as_str()) {
            continue;
        }
        match entry.key.as_str() {
            "target" => target = reader.word(node, &field, TARGETS)?,
            "path" => path_form = reader.word(node, &field, PATHS)?,
            "cases" => list = Some((reader.list(node, &field)?, node)),
            key if others.contains(&key) => {}
            _ => reader.unknown_field(entry, path, SPEC),
        }
    }
    let at = list.map_or(spec.at, |(_, node)| node.at);
    let nodes = list.map_or(&[][..], |(nodes, _)| nodes);
    let field = path.key("cases");
    if nodes.is_empty() {
        reader.report(
            &code::MISSING_FIELD,
            reader.location(at),
            &field,
            "a test without cases",
            "write at least one case under `cases`",
        );
        return None;
    }
    if nodes.len() > MAX_CASES {
        reader.report(
            &code::OUT_OF_BOUNDS,
            reader.location(at),
            &field,
            format!("{} cases, more than {MAX_CASES}", nodes.len()),
            "split them into several tests",
        );
        return None;
    }
    let mut cases = Cases {
        read: Vec::new(),
        places: BTreeMap::new(),
        room: MAX_REQUESTS,
        target,
        path_form,
    };
    let mut whole = true;
    for (index, node) in nodes.iter().enumerate() {
        match cases.case(node, &field.index(index), reader) {
            Some(case) => {
                cases.places.insert(case.name.clone(), cases.read.len());
                cases.read.push(case);
            }
            None => whole = false,
        }
    }
    (whole && !reader.is_unreadable()).then_some(cases.read)
}

/// The cases read so far.
struct Cases {
    read: Vec<DecisionCase>,
    places: BTreeMap<String, usize>,
    /// Octets of requests that may still come.
    room: usize,
    target: Option<Target>,
    path_form: PathForm,
}

impl Cases {
    fn case(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        reader: &mut Reader<'_>,
    ) -> Option<DecisionCase> {
        let entries = reader.object(node, path)?;
        let at = reader.location(node.at);
        for entry in entries {
            if !CASE.contains(&entry.key.as_str()) {
                reader.unknown_field(entry, path, CASE);
            }
        }
        let name = self.name(node, path, reader)?;
        let mut explain = false;
        let (mut target, mut path_form) = (self.target, self.path_form);
        if let Some(node) = node.get("target") {
            target = reader.word(node, &path.key("target"), TARGETS)?;
        }
        if let Some(node) = node.get("path") {
            path_form = reader.word(node, &path.key("path"), PATHS)?;
        }
        if let Some(node) = node.get("explain") {
            explain = reader.boolean(node, &path.key("explain"))?;
        }
        let expected = expected::read(node, path, reader);
        let request = self.request(node, path, reader)?;
        let size = patch::size(&request);
        if size > self.room {
            reader.report(
                &code::OUT_OF_BOUNDS,
                at,
                path,
                format!("the requests of this test hold more than {MAX_REQUESTS} octets together"),
                "split the test, or shorten its requests",
            );
            return None;
        }
        self.room = self.room.saturating_sub(size);
        Some(DecisionCase {
            name,
            at,
            field: path.to_string(),
            request,
            target,
            path_form,
            expected: expected?,
            explain,
        })
    }

    fn name(&self, case: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<String> {
        let Some(node) = case.get("name") else {
            reader.report(
                &code::MISSING_FIELD,
                reader.location(case.at),
                &path.key("name"),
                "a case without a name",
                "say in a few words what it shows",
            );
            return None;
        };
        let name = reader.string(node, &path.key("name"))?;
        let refused = if name.value.trim().is_empty() {
            Some("the name of a case is empty".to_owned())
        } else {
            let twice = self.places.contains_key(&name.value);
            twice.then(|| format!("two cases are called `{}`", Excerpt(&name.value)))
        };
        if let Some(message) = refused {
            let hint = "give each case a name of its own: `like` and reports use it";
            reader.report(&code::CASE_NAME, name.at, &path.key("name"), message, hint);
            return None;
        }
        Some(name.value)
    }

    /// The request that the case writes, or that of the case it is like, changed.
    fn request(&self, case: &Node, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Value> {
        let (like, change) = (case.get("like"), case.get("change"));
        let (like, change) = match (case.get("request"), like, change) {
            (Some(request), None, None) => {
                reader.object(request, &path.key("request"))?;
                return Some(request.to_json());
            }
            (None, Some(like), Some(change)) => (like, change),
            _ => {
                reader.report(
                    &code::CASE_SHAPE,
                    reader.location(case.at),
                    path,
                    "a case has either `request`, or `like` and `change`",
                    "`like` names an earlier case, `change` is a JSON merge patch of its request",
                );
                return None;
            }
        };
        let name = reader.string(like, &path.key("like"))?;
        reader.object(change, &path.key("change"))?;
        let before = self.places.get(&name.value).and_then(|i| self.read.get(*i));
        let Some(before) = before else {
            let known: Vec<&str> = self.places.keys().map(String::as_str).collect();
            let hint = match super::reader::nearest(&name.value, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a case that stands above this one".to_owned(),
            };
            reader.report(
                &code::CASE_LIKE,
                name.at,
                &path.key("like"),
                format!("no case above is called `{}`", Excerpt(&name.value)),
                hint,
            );
            return None;
        };
        let mut request = before.request.clone();
        patch::merge(&mut request, change.to_json());
        if request == before.request {
            reader.report(
                &code::CASE_LIKE,
                reader.location(change.at),
                &path.key("change"),
                format!(
                    "the change leaves the request of `{}` as it is",
                    Excerpt(&name.value)
                ),
                "change something: equal requests get equal decisions",
            );
            return None;
        }
        Some(request)
    }
}
