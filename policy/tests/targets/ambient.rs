use crate::{WEB, at_port, decide, get, on, plaintext, snapshot};
use portcullis_policy::request::{Request, Target};

const OPEN: &str = "allow no_allow_policy";

fn policy(spec: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: foo}}
spec: {spec}
"
    )
}

fn check(spec: &str, request: &Request, sidecar: &str, ztunnel: &str) {
    let snapshot = snapshot(&[WEB, &policy(spec)]);
    assert_eq!(
        decide(&snapshot, &on(Target::Sidecar, request.clone())),
        sidecar,
        "{spec}"
    );
    assert_eq!(
        decide(&snapshot, &on(Target::Ztunnel, request.clone())),
        ztunnel,
        "{spec}"
    );
}

#[test]
fn ztunnel_enforces_layer_four() {
    let denied = "deny denied_by foo/p#rule[0]";
    let spec = "{action: DENY, rules: [{to: [{operation: {ports: ['8080']}}]}]}";
    check(spec, &get("foo/web"), denied, denied);
    check(spec, &at_port(8081, get("foo/web")), OPEN, OPEN);
    let spec = "{rules: [{from: [{source: {namespaces: [foo]}}]}]}";
    let allowed = "allow allowed_by foo/p#rule[0]";
    check(spec, &get("foo/web"), allowed, allowed);
    let refused = "deny no_allow_matched";
    check(spec, &plaintext(get("foo/web")), refused, refused);
}

#[test]
fn a_deny_of_http_alone_is_nothing_to_ztunnel() {
    let spec = "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}";
    check(spec, &get("foo/web"), "deny denied_by foo/p#rule[0]", OPEN);
}

#[test]
fn an_allow_with_http_never_matches_on_ztunnel() {
    let spec =
        "{rules: [{from: [{source: {namespaces: [foo]}}], to: [{operation: {methods: [GET]}}]}]}";
    check(
        spec,
        &get("foo/web"),
        "allow allowed_by foo/p#rule[0]",
        "deny no_allow_matched",
    );
}

#[test]
fn target_refs_and_foreign_actions_never_reach_ztunnel() {
    let spec = "{action: DENY, rules: [{}], targetRefs: [{kind: Service, name: web}]}";
    check(spec, &get("foo/web"), OPEN, OPEN);
    let spec = "{action: AUDIT, rules: [{}]}";
    check(spec, &get("foo/web"), OPEN, OPEN);
    let decision = snapshot(&[WEB, &policy(spec)]).decide(&on(Target::Ztunnel, get("foo/web")));
    assert!(decision.audit.is_empty());
    let decision = snapshot(&[WEB, &policy(spec)]).decide(&on(Target::Sidecar, get("foo/web")));
    assert_eq!(decision.audit, ["foo/p#rule[0]"]);
}
