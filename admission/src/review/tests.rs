use serde_json::json;

use super::*;

fn review(change: impl FnOnce(&mut Value)) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5", "operation": "CREATE", "name": "web", "namespace": "shop",
            "kind": { "group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy" },
            "resource": { "group": "security.istio.io", "version": "v1", "resource": "authorizationpolicies" },
            "userInfo": { "username": "ann", "groups": ["dev"] },
            "object": { "metadata": { "name": "web" } }, "oldObject": null, "dryRun": false, "options": null,
        },
    });
    change(&mut review);
    review
}

fn read(value: &Value) -> Result<Request, Malformed> {
    parse(value.to_string().as_bytes())
}

#[test]
fn a_review_is_read() {
    let request = read(&review(|_| {})).unwrap();
    assert_eq!(
        (request.uid.as_str(), request.operation),
        ("705ab4f5", Operation::Create)
    );
    assert_eq!(
        (request.namespace.as_str(), request.kind.as_str()),
        ("shop", "AuthorizationPolicy")
    );
    assert_eq!(request.user.groups, ["dev"]);
    assert!(request.object.is_some() && request.old_object.is_none() && !request.dry_run);
    let anonymous = read(&review(|r| r["request"]["userInfo"] = Value::Null)).unwrap();
    assert_eq!(anonymous.user, User::default());
}

#[test]
fn what_is_no_review_is_none() {
    for (body, words) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "a list in JSON"),
        ("null", "null in JSON"),
        ("{}", "not an AdmissionReview of `admission.k8s.io/v1`"),
        (
            r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"1"}}"#,
            "v1beta1",
        ),
        (
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
            "no usable `request`",
        ),
        (
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#,
            "request.uid",
        ),
        (
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}"#,
            "request.uid",
        ),
    ] {
        let refused = parse(body.as_bytes()).unwrap_err();
        assert!(!matches!(refused, Malformed::Unreadable { .. }), "{body}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let long = review(|r| r["request"]["uid"] = json!("u".repeat(257)));
    assert!(matches!(
        read(&long),
        Err(Malformed::Missing("request.uid"))
    ));
}

#[test]
fn what_has_a_uid_can_be_answered() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 9] = [
        (|r| r["operation"] = json!("PATCH"), "`PATCH`"),
        (|r| r["operation"] = Value::Null, "operation"),
        (|r| r["kind"] = json!("AuthorizationPolicy"), "request.kind"),
        (|r| r["kind"]["kind"] = json!(""), "request.kind.kind"),
        (
            |r| r["object"] = json!([1]),
            "`request.object` is not an object",
        ),
        (
            |r| r["object"]["metadata"] = json!(7),
            "`metadata` is not an object",
        ),
        (|r| r["dryRun"] = json!("yes"), "dryRun"),
        (|r| r["userInfo"]["groups"] = json!([1]), "groups"),
        (|r| r["namespace"] = json!({}), "namespace"),
    ];
    for (change, words) in cases {
        let refused = read(&review(|r| change(&mut r["request"]))).unwrap_err();
        let Malformed::Unreadable { uid, why } = refused else {
            panic!("{refused}")
        };
        assert_eq!(uid, "705ab4f5");
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn an_object_that_nests_too_deep_is_answered_and_not_followed_down() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = review(|r| r["request"]["object"]["spec"] = json!("DEEP")).to_string();
    let refused = parse(body.replace("\"DEEP\"", &deep).as_bytes()).unwrap_err();
    let Malformed::Unreadable { uid, why } = refused else {
        panic!("{refused}")
    };
    assert_eq!(uid, "705ab4f5");
    assert!(why.contains("recursion"), "{why}");
}

#[test]
fn an_answer_is_a_review() {
    let refusal = Refusal {
        code: 403,
        reason: "Forbidden",
        message: "no".to_owned(),
        details: Some(Details {
            name: "web".to_owned(),
            group: "g".to_owned(),
            kind: "K".to_owned(),
            causes: vec![DetailCause {
                reason: "PC0102".to_owned(),
                message: "m".to_owned(),
                field: "spec.rules".to_owned(),
            }],
        }),
    };
    let mut answer = Answer {
        refusal: Some(refusal),
        ..Answer::default()
    };
    answer.warnings.push("w".to_owned());
    answer
        .audit_annotations
        .insert("decision", "deny".to_owned());
    let said: Value = serde_json::from_slice(&answer.to_json("u")).unwrap();
    let cause = json!({ "reason": "PC0102", "message": "m", "field": "spec.rules" });
    let details = json!({ "name": "web", "group": "g", "kind": "K", "causes": [cause] });
    let status = json!({
        "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no", "details": details,
    });
    let response = json!({
        "uid": "u", "allowed": false, "status": status, "warnings": ["w"], "auditAnnotations": { "decision": "deny" },
    });
    assert_eq!(
        said,
        json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response })
    );
    let said: Value = serde_json::from_slice(&Answer::default().to_json("u")).unwrap();
    assert_eq!(said["response"], json!({ "uid": "u", "allowed": true }));
}
