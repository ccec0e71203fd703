//! A decision becomes Envoy's `CheckResponse`.

use std::collections::HashMap;

use envoy_types::ext_authz::v3::pb::{
    CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption,
    HttpResponse, HttpStatus, OkHttpResponse,
};
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc::Status;
use portcullis_policy::decision::{Decision, DryRun, Reason, Verdict};
use tonic::Code;

use crate::check::{Answer, HeaderChange};

/// Headers that only we or the proxy may state; a client's own never reach the upstream.
const RESERVED: [&str; 8] = [
    DECISION,
    REASON,
    POLICY,
    "x-portcullis-workload",
    "x-portcullis-target",
    "x-portcullis-service",
    "x-portcullis-remote-address",
    "x-portcullis-direct-address",
];
const DECISION: &str = "x-portcullis-decision";
const REASON: &str = "x-portcullis-reason";
const POLICY: &str = "x-portcullis-policy";

/// Body of a denial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeniedBody {
    /// None: nothing about the policies leaves the mesh.
    #[default]
    Empty,
    /// This text, the same for every denial.
    Text(String),
    /// The decision as JSON: for development, since it names policies.
    Decision,
}

/// What an answer says beside the verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Body of a denial.
    pub denied_body: DeniedBody,
    /// Adds `x-portcullis-decision`, `-reason` and `-policy`, for client and upstream.
    pub debug_headers: bool,
    /// Status of a denial as `token_missing`: 401 asks the client for a token, the default is 403.
    pub missing_token_status: Option<u16>,
}

impl Options {
    /// HTTP status of a denial: 401 where a credential is at fault, else 403.
    #[must_use]
    pub fn status(&self, reason: Reason) -> u16 {
        match (reason, self.missing_token_status) {
            (Reason::TokenMissing, Some(status)) => status,
            _ => reason.http_status().unwrap_or(403),
        }
    }

    /// HTTP status of a denial: the CUSTOM provider's, where it spoke.
    #[must_use]
    pub fn denied_status(&self, answer: &Answer) -> u16 {
        match &answer.denied {
            Some(denied) => denied.status,
            None => self.status(answer.decision.reason),
        }
    }

    /// Content type and text of a denial's body; `None` for none.
    #[must_use]
    pub fn body(&self, decision: &Decision) -> Option<(&'static str, String)> {
        match &self.denied_body {
            DeniedBody::Empty => None,
            DeniedBody::Text(text) => Some(("text/plain; charset=utf-8", text.clone())),
            DeniedBody::Decision => Some((
                "application/json",
                serde_json::to_string(decision).unwrap_or_default() + "\n",
            )),
        }
    }
}

/// Headers of a denial for the client, beside those of debugging: a 401 has a challenge.
#[must_use]
pub fn denied_headers(answer: &Answer, status: u16) -> Vec<(&str, &str)> {
    let stated = answer.denied_headers.iter();
    let mut headers: Vec<(&str, &str)> = stated
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    if answer.denied.is_none()
        && status == 401
        && !headers.iter().any(|(name, _)| *name == "www-authenticate")
    {
        headers.push(("www-authenticate", "Bearer"));
    }
    headers
}

/// `x-portcullis-decision`, `-reason` and `-policy`: for development, since they tell of policies.
#[must_use]
pub fn debug_headers(decision: &Decision) -> Vec<(&'static str, &str)> {
    let mut headers = vec![
        (DECISION, decision.decision.as_str()),
        (REASON, decision.reason.as_str()),
    ];
    if let Some(policy) = decision.policies.first() {
        headers.push((POLICY, policy));
    }
    headers
}

/// The answer to Envoy. Never an `error_response`: that would be subject to `failure_mode_allow`.
#[must_use]
pub fn respond(answer: &Answer, options: &Options) -> CheckResponse {
    let decision = &answer.decision;
    let debug = if options.debug_headers {
        let headers = debug_headers(decision).into_iter();
        headers.map(|(name, value)| header(name, value)).collect()
    } else {
        Vec::new()
    };
    let (code, http_response) = match decision.decision {
        Verdict::Allow => (Code::Ok, HttpResponse::OkResponse(ok(answer, debug))),
        Verdict::Deny => {
            let status = options.denied_status(answer);
            let code = if status == 401 {
                Code::Unauthenticated
            } else {
                Code::PermissionDenied
            };
            let denied = denied(answer, status, debug, options);
            (code, HttpResponse::DeniedResponse(denied))
        }
    };
    CheckResponse {
        status: Some(Status {
            code: code as i32,
            message: match decision.decision {
                Verdict::Allow => String::new(),
                Verdict::Deny => decision.reason.as_str().to_owned(),
            },
            details: Vec::new(),
        }),
        dynamic_metadata: Some(dynamic_metadata(decision)),
        http_response: Some(http_response),
    }
}

fn ok(answer: &Answer, debug: Vec<HeaderValueOption>) -> OkHttpResponse {
    let mut headers = debug.clone();
    let mut removed = Vec::new();
    for change in &answer.request_headers {
        match change {
            HeaderChange::Set { name, value } => headers.push(header(name, value)),
            HeaderChange::Remove { name } => removed.push(name.clone()),
        }
    }
    removed.extend(RESERVED.map(str::to_owned));
    // Envoy removes after it adds: a header that is set must not be on the list.
    removed.retain(|name| {
        let set = headers.iter().filter_map(|option| option.header.as_ref());
        !set.into_iter().any(|header| header.key == *name)
    });
    let added = answer.response_headers.iter();
    let added = added.map(|(name, value)| appended(name, value));
    OkHttpResponse {
        headers_to_remove: removed,
        response_headers_to_add: debug.into_iter().chain(added).collect(),
        query_parameters_to_remove: answer.removed_parameters.clone(),
        headers,
        ..OkHttpResponse::default()
    }
}

fn denied(
    answer: &Answer,
    status: u16,
    mut headers: Vec<HeaderValueOption>,
    options: &Options,
) -> DeniedHttpResponse {
    let stated = denied_headers(answer, status).into_iter();
    headers.extend(stated.map(|(name, value)| header(name, value)));
    if let Some(denied) = &answer.denied {
        // Several values of one header are several headers, as of `set-cookie`.
        let stated = denied.headers.iter();
        headers.extend(stated.map(|(name, value)| appended(name, value)));
        return DeniedHttpResponse {
            status: Some(HttpStatus {
                code: i32::from(status),
            }),
            headers,
            body: denied.body.clone(),
        };
    }
    let (content_type, body) = options.body(&answer.decision).unwrap_or_default();
    if !body.is_empty() {
        headers.push(header("content-type", content_type));
    }
    DeniedHttpResponse {
        status: Some(HttpStatus {
            code: i32::from(status),
        }),
        headers,
        body,
    }
}

fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    }
}

fn appended(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        append_action: HeaderAppendAction::AppendIfExistsOrAdd as i32,
        ..header(name, value)
    }
}

/// One field, `portcullis`, that holds the whole decision in the shape of its JSON. Envoy files it
/// under `envoy.filters.http.ext_authz` (or `.network.ext_authz`).
fn dynamic_metadata(decision: &Decision) -> Struct {
    // Every field by name: a new one must be sent, too.
    let Decision {
        decision: answer,
        reason,
        policies,
        audit,
        provider,
        dry_run,
        snapshot,
    } = decision;
    let fields = structure([
        ("decision", text(answer.as_str())),
        ("reason", text(reason.as_str())),
        ("policies", texts(policies)),
        ("audit", texts(audit)),
        ("provider", optional(provider.as_deref())),
        ("dry_run", dry_run.as_ref().map_or_else(null, trial)),
        ("snapshot", text(snapshot)),
    ]);
    Struct {
        fields: HashMap::from([("portcullis".to_owned(), fields)]),
    }
}

fn trial(dry_run: &DryRun) -> Value {
    let DryRun {
        decision,
        reason,
        policies,
        shadow,
    } = dry_run;
    structure([
        ("decision", text(decision.as_str())),
        ("reason", text(reason.as_str())),
        ("policies", texts(policies)),
        (
            "shadow",
            structure([
                ("allow", optional(shadow.allow.as_deref())),
                ("deny", optional(shadow.deny.as_deref())),
            ]),
        ),
    ])
}

fn structure<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter();
    value(Kind::StructValue(Struct {
        fields: fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }))
}

fn texts(items: &[String]) -> Value {
    value(Kind::ListValue(ListValue {
        values: items.iter().map(|item| text(item)).collect(),
    }))
}

fn optional(item: Option<&str>) -> Value {
    item.map_or_else(null, text)
}

fn text(item: &str) -> Value {
    value(Kind::StringValue(item.to_owned()))
}

fn null() -> Value {
    value(Kind::NullValue(0))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use portcullis_policy::decision::Shadow;

    use super::*;

    fn decision(reason: Reason) -> Decision {
        Decision {
            policies: vec!["foo/a#rule[0]".to_owned()],
            ..Decision::closed(reason, "r1")
        }
    }

    fn answer(reason: Reason) -> Answer {
        decision(reason).into()
    }

    fn names(headers: &[HeaderValueOption]) -> Vec<(&str, &str)> {
        let headers = headers.iter().filter_map(|option| option.header.as_ref());
        headers
            .map(|header| (header.key.as_str(), header.value.as_str()))
            .collect()
    }

    fn ok_response(response: CheckResponse) -> OkHttpResponse {
        match response.http_response {
            Some(HttpResponse::OkResponse(ok)) => ok,
            other => panic!("{other:?}"),
        }
    }

    fn denied_response(response: CheckResponse) -> DeniedHttpResponse {
        match response.http_response {
            Some(HttpResponse::DeniedResponse(denied)) => denied,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_allow_is_ok_and_strips_forged_headers() {
        let response = respond(&answer(Reason::AllowedBy), &Options::default());
        assert_eq!(response.status.as_ref().unwrap().code, 0);
        let ok = ok_response(response);
        assert_eq!(ok.headers_to_remove, RESERVED);
        assert!(ok.headers.is_empty() && ok.response_headers_to_add.is_empty());
    }

    #[test]
    fn a_denial_is_403_without_body_or_headers() {
        let response = respond(&answer(Reason::DeniedBy), &Options::default());
        assert_eq!(response.status.as_ref().unwrap().code, 7);
        assert_eq!(response.status.as_ref().unwrap().message, "denied_by");
        let denied = denied_response(response);
        assert_eq!(denied.status.unwrap().code, 403);
        assert_eq!((denied.body.as_str(), denied.headers.len()), ("", 0));
    }

    #[test]
    fn a_token_at_fault_is_401_with_a_challenge() {
        for reason in [Reason::TokenUnverified, Reason::TokenInvalid] {
            let response = respond(&answer(reason), &Options::default());
            assert_eq!(response.status.as_ref().unwrap().code, 16);
            let denied = denied_response(response);
            assert_eq!(denied.status.unwrap().code, 401);
            assert_eq!(names(&denied.headers), [("www-authenticate", "Bearer")]);
        }
    }

    #[test]
    fn a_missing_token_is_403_unless_told_otherwise() {
        let asked = |options: &Options| {
            let denied = denied_response(respond(&answer(Reason::TokenMissing), options));
            (denied.status.unwrap().code, denied.headers.len())
        };
        assert_eq!(asked(&Options::default()), (403, 0));
        let options = Options {
            missing_token_status: Some(401),
            ..Options::default()
        };
        assert_eq!(asked(&options), (401, 1));
    }

    #[test]
    fn changes_reach_the_request_and_a_stated_challenge_the_client() {
        let mut answer = answer(Reason::AllowedBy);
        answer.request_headers = vec![
            HeaderChange::Set {
                name: "x-claim".to_owned(),
                value: "a".to_owned(),
            },
            HeaderChange::Remove {
                name: "authorization".to_owned(),
            },
        ];
        let ok = ok_response(respond(&answer, &Options::default()));
        assert_eq!(names(&ok.headers), [("x-claim", "a")]);
        assert_eq!(ok.headers_to_remove[0], "authorization");
        assert_eq!(ok.headers_to_remove[1..], RESERVED);

        let challenge = ("www-authenticate".to_owned(), "Bearer realm=a".to_owned());
        let invalid = Answer {
            denied_headers: vec![challenge],
            ..decision(Reason::TokenInvalid).into()
        };
        let denied = denied_response(respond(&invalid, &Options::default()));
        assert_eq!(
            names(&denied.headers),
            [("www-authenticate", "Bearer realm=a")]
        );
    }

    #[test]
    fn debug_headers_overwrite_and_are_not_removed_again() {
        let options = Options {
            debug_headers: true,
            ..Options::default()
        };
        let headers = [
            ("x-portcullis-decision", "allow"),
            ("x-portcullis-reason", "allowed_by"),
            ("x-portcullis-policy", "foo/a#rule[0]"),
        ];
        let ok = ok_response(respond(&answer(Reason::AllowedBy), &options));
        assert_eq!(names(&ok.headers), headers);
        assert_eq!(names(&ok.response_headers_to_add), headers);
        assert_eq!(ok.headers_to_remove, &RESERVED[3..]);
        let overwrite = HeaderAppendAction::OverwriteIfExistsOrAdd as i32;
        assert!(ok.headers.iter().all(|h| h.append_action == overwrite));

        // Without a policy to name, a client's own x-portcullis-policy must still go.
        let none = Decision::closed(Reason::NoAllowPolicy, "r1").into();
        let ok = ok_response(respond(&none, &options));
        assert!(ok.headers_to_remove.contains(&POLICY.to_owned()));

        let denied = denied_response(respond(&answer(Reason::DeniedBy), &options));
        assert_eq!(
            names(&denied.headers)[1],
            ("x-portcullis-reason", "denied_by")
        );
    }

    #[test]
    fn a_body_is_sent_only_as_configured() {
        let text = Options {
            denied_body: DeniedBody::Text("no".to_owned()),
            ..Options::default()
        };
        let denied = denied_response(respond(&answer(Reason::DeniedBy), &text));
        assert_eq!(denied.body, "no");
        assert_eq!(
            names(&denied.headers),
            [("content-type", "text/plain; charset=utf-8")]
        );
        let json = Options {
            denied_body: DeniedBody::Decision,
            ..Options::default()
        };
        let denied = denied_response(respond(&answer(Reason::DeniedBy), &json));
        let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
        assert_eq!(body["reason"], "denied_by");
    }

    #[test]
    fn dynamic_metadata_has_the_shape_of_the_decisions_json() {
        let decision = Decision {
            audit: vec!["foo/audit#rule[0]".to_owned()],
            provider: Some("ext".to_owned()),
            dry_run: Some(DryRun {
                decision: Verdict::Deny,
                reason: Reason::DeniedBy,
                policies: vec!["foo/try#rule[1]".to_owned()],
                shadow: Shadow {
                    allow: None,
                    deny: Some("foo/try#rule[1]".to_owned()),
                },
            }),
            ..decision(Reason::AllowedBy)
        };
        for decision in [decision, Decision::closed(Reason::NoSnapshot, "")] {
            let response = respond(&decision.clone().into(), &Options::default());
            let fields = response.dynamic_metadata.unwrap().fields;
            assert_eq!(fields.len(), 1);
            let sent = json(fields["portcullis"].clone());
            assert_eq!(sent, serde_json::to_value(&decision).unwrap());
        }
    }

    fn json(value: Value) -> serde_json::Value {
        match value.kind.unwrap() {
            Kind::NullValue(_) => serde_json::Value::Null,
            Kind::StringValue(text) => text.into(),
            Kind::ListValue(list) => list.values.into_iter().map(json).collect(),
            Kind::StructValue(fields) => {
                let fields = fields.fields.into_iter();
                serde_json::Value::Object(fields.map(|(k, v)| (k, json(v))).collect())
            }
            other => panic!("{other:?}"),
        }
    }
}
