//! AdmissionReview of admission.k8s.io/v1, as it comes in and goes out.
//!
//! Nothing about what comes in is believed: an API server prunes and validates, others that reach the port do not.

mod json;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object::Object;

/// The only version that is spoken; what `admissionReviewVersions` of the webhook says.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// Longest uid that is sent back: the API server's are 36 characters.
const LONGEST_UID: usize = 256;
/// Groups of a user that are looked at.
const MOST_GROUPS: usize = 10_000;

/// What somebody wants to do to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A new object.
    Create,
    /// Another version of an object.
    Update,
    /// An object goes.
    Delete,
    /// A connection to an object; policies have none.
    Connect,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Connect];

    /// As AdmissionReview writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `userInfo.username`; empty when the review does not say.
    pub name: String,
    /// `userInfo.groups`.
    pub groups: Vec<String>,
}

/// One question of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Names this question in the answer.
    pub uid: String,
    /// API group of the object's kind.
    pub group: String,
    /// Version of the object as it is sent here.
    pub version: String,
    /// Kind of the object.
    pub kind: String,
    /// `status`, for example; empty for the object itself.
    pub sub_resource: String,
    /// Name; empty where the API server makes one up.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// What is to happen.
    pub operation: Operation,
    /// Who asks.
    pub user: User,
    /// The object as it will be.
    pub object: Option<Object>,
    /// The object as it is.
    pub old_object: Option<Object>,
    /// Nothing will be stored, so nothing else may be either.
    pub dry_run: bool,
}

/// What is no question that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON.
    #[error("the body is not JSON that can be read: {0}")]
    NotJson(String),
    /// JSON, but not an AdmissionReview that is spoken here.
    #[error("the body is {found}, not an AdmissionReview of `{API_VERSION}`")]
    NotAReview {
        /// What it is.
        found: String,
    },
    /// There is nothing to answer to.
    #[error("the AdmissionReview has no usable `{0}`")]
    Missing(&'static str),
    /// A review that can be answered, but not decided.
    #[error("{why}")]
    Unreadable {
        /// Names the question.
        uid: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a body.
///
/// # Errors
/// [`Malformed`]; an [`Malformed::Unreadable`] one has a uid to answer to.
pub fn parse(body: &[u8]) -> Result<Request, Malformed> {
    let root = match json::read(body) {
        Ok(root) => root,
        Err(error) => return Err(not_parsed(body, &error)),
    };
    let Value::Object(mut root) = root else {
        let found = format!("{} in JSON", described(&root));
        return Err(Malformed::NotAReview { found });
    };
    let text = |key: &str| root.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version != API_VERSION || kind != "AdmissionReview" {
        let found = format!("`{}` of `{}`", excerpt(kind), excerpt(version));
        return Err(Malformed::NotAReview { found });
    }
    let Some(Value::Object(request)) = root.remove("request") else {
        return Err(Malformed::Missing("request"));
    };
    let uid = match request.get("uid").and_then(Value::as_str) {
        Some(uid) if !uid.is_empty() && uid.len() <= LONGEST_UID => uid.to_owned(),
        _ => return Err(Malformed::Missing("request.uid")),
    };
    read(uid.clone(), request).map_err(|why| Malformed::Unreadable { uid, why })
}

/// What nests deeper than 128 levels, or names a key twice, is refused; the uid is there all the same.
fn not_parsed(body: &[u8], error: &serde_json::Error) -> Malformed {
    #[derive(serde::Deserialize)]
    struct Outer {
        #[serde(rename = "apiVersion")]
        api_version: String,
        kind: String,
        request: Inner,
    }
    // What is not named here is skipped, however deep it nests.
    #[derive(serde::Deserialize)]
    struct Inner {
        uid: String,
    }
    let refused = Malformed::NotJson(error.to_string());
    let Ok(outer) = serde_json::from_slice::<Outer>(body) else {
        return refused;
    };
    let uid = outer.request.uid;
    let is_review = outer.api_version == API_VERSION && outer.kind == "AdmissionReview";
    if !is_review || uid.is_empty() || uid.len() > LONGEST_UID {
        return refused;
    }
    let why = format!("the review cannot be read: {error}");
    Malformed::Unreadable { uid, why }
}

fn read(uid: String, mut request: Map<String, Value>) -> Result<Request, String> {
    let kind = match request.remove("kind") {
        Some(Value::Object(kind)) => kind,
        _ => return Err("`request.kind` is not an object".to_owned()),
    };
    let of_kind = |key: &str| match kind.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`request.kind.{key}` is not a string")),
    };
    let (group, version, kind) = (of_kind("group")?, of_kind("version")?, of_kind("kind")?);
    if kind.is_empty() {
        return Err("`request.kind.kind` is empty".to_owned());
    }
    let operation = text(&mut request, "operation")?;
    let found = Operation::ALL.into_iter().find(|o| o.as_str() == operation);
    let operation = found.ok_or_else(|| {
        format!(
            "`request.operation` is `{}`, which is no operation",
            excerpt(&operation)
        )
    })?;
    let dry_run = match request.remove("dryRun") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(dry_run)) => dry_run,
        Some(_) => return Err("`request.dryRun` is neither true nor false".to_owned()),
    };
    Ok(Request {
        uid,
        group,
        version,
        kind,
        sub_resource: text(&mut request, "subResource")?,
        name: text(&mut request, "name")?,
        namespace: text(&mut request, "namespace")?,
        operation,
        user: user(request.remove("userInfo"))?,
        object: object(&mut request, "object")?,
        old_object: object(&mut request, "oldObject")?,
        dry_run,
    })
}

fn text(request: &mut Map<String, Value>, key: &str) -> Result<String, String> {
    match request.remove(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`request.{key}` is not a string")),
    }
}

fn object(request: &mut Map<String, Value>, key: &str) -> Result<Option<Object>, String> {
    match request.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(fields)) => {
            let object = Object::new(fields).map_err(|why| format!("`request.{key}`: {why}"))?;
            Ok(Some(object))
        }
        Some(_) => Err(format!("`request.{key}` is not an object")),
    }
}

fn user(info: Option<Value>) -> Result<User, String> {
    let mut info = match info {
        None | Some(Value::Null) => return Ok(User::default()),
        Some(Value::Object(info)) => info,
        Some(_) => return Err("`request.userInfo` is not an object".to_owned()),
    };
    let name = match info.remove("username") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(name)) => name,
        Some(_) => return Err("`request.userInfo.username` is not a string".to_owned()),
    };
    let groups = match info.remove("groups") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(groups)) => groups
            .into_iter()
            .take(MOST_GROUPS)
            .map(|group| match group {
                Value::String(group) => Ok(group),
                _ => Err("`request.userInfo.groups` holds what is no string".to_owned()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err("`request.userInfo.groups` is not a list".to_owned()),
    };
    Ok(User { name, groups })
}

/// Why something is refused, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the client's own request.
    pub code: u16,
    /// One word of metav1.StatusReason.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// What a program reads.
    pub details: Option<Details>,
}

impl Refusal {
    /// As other validating webhooks refuse: `kubectl` prints the message of `Forbidden` whole, and none that comes with
    /// `Invalid`, which is for the API server's own validation.
    #[must_use]
    pub fn forbidden(message: String, details: Option<Details>) -> Self {
        Self {
            code: 403,
            reason: "Forbidden",
            message,
            details,
        }
    }
}

/// Which object is refused, and why: metav1.StatusDetails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Its name.
    pub name: String,
    /// Its API group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Each finding that refuses it.
    pub causes: Vec<DetailCause>,
}

/// One reason for a refusal: metav1.StatusCause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetailCause {
    /// A diagnostic's code, or `PolicyTest`.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Path of the field; empty where no field is at fault.
    pub field: String,
}

impl Details {
    fn to_json(&self) -> Value {
        let causes = self.causes.iter().map(|cause| {
            json!({ "reason": cause.reason, "message": cause.message, "field": cause.field })
        });
        let causes: Vec<Value> = causes.collect();
        json!({ "name": self.name, "group": self.group, "kind": self.kind, "causes": causes })
    }
}

/// The answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `None` allows.
    pub refusal: Option<Refusal>,
    /// What `kubectl` prints.
    pub warnings: Vec<String>,
    /// What the audit log of the API server keeps, under the webhook's name.
    pub audit_annotations: BTreeMap<&'static str, String>,
}

impl Answer {
    /// The AdmissionReview that goes back for `uid`.
    #[must_use]
    pub fn to_json(&self, uid: &str) -> Vec<u8> {
        let mut response = json!({ "uid": uid, "allowed": self.refusal.is_none() });
        if let Some(fields) = response.as_object_mut() {
            if let Some(refusal) = &self.refusal {
                let mut status = json!({
                    "status": "Failure", "code": refusal.code,
                    "reason": refusal.reason, "message": refusal.message,
                });
                if let (Some(status), Some(details)) = (status.as_object_mut(), &refusal.details) {
                    status.insert("details".to_owned(), details.to_json());
                }
                fields.insert("status".to_owned(), status);
            }
            if !self.warnings.is_empty() {
                fields.insert("warnings".to_owned(), json!(self.warnings));
            }
            if !self.audit_annotations.is_empty() {
                fields.insert("auditAnnotations".to_owned(), json!(self.audit_annotations));
            }
        }
        let review = json!({
            "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response,
        });
        review.to_string().into_bytes()
    }
}

/// Input in a message: one line, not too long.
#[must_use]
pub fn excerpt(text: &str) -> String {
    portcullis_policy::document::Excerpt(text).to_string()
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
