use crate::{WEB, at_port, decide, get, on, plaintext, snapshot, snapshot_with, tcp};
use portcullis_policy::request::{Identity, Request, Target};
use portcullis_policy::settings::Settings;

const OPEN: &str = "allow no_allow_policy";

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

fn check(manifests: &[&str], request: &Request, expected: &str) {
    assert_eq!(
        decide(&snapshot(manifests), request),
        expected,
        "{}",
        manifests.join("\n---\n")
    );
}

#[test]
fn strict_refuses_a_peer_without_identity() {
    let strict = peer("default", "foo", "{mtls: {mode: STRICT}}");
    let refused = "deny mtls_required foo/default";
    for request in [get("foo/web"), tcp("foo/web")] {
        check(&[WEB, &strict], &request, OPEN);
        check(&[WEB, &strict], &plaintext(request.clone()), refused);
        check(&[WEB], &plaintext(request.clone()), OPEN);
        let elsewhere = peer("default", "bar", "{mtls: {mode: STRICT}}");
        check(&[WEB, &elsewhere], &plaintext(request.clone()), OPEN);
        let mesh = peer("default", "istio-system", "{mtls: {mode: STRICT}}");
        let by_mesh = "deny mtls_required istio-system/default";
        check(&[WEB, &mesh], &plaintext(request.clone()), by_mesh);
        let permissive = peer("default", "foo", "{mtls: {mode: PERMISSIVE}}");
        check(&[WEB, &mesh, &permissive], &plaintext(request), OPEN);
    }
}

#[test]
fn a_port_is_excepted_by_the_workloads_policy() {
    let spec = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, \
                portLevelMtls: {8080: {mode: PERMISSIVE}}}";
    let policy = peer("p", "foo", spec);
    let request = plaintext(get("foo/web"));
    check(&[WEB, &policy], &at_port(8080, request.clone()), OPEN);
    check(
        &[WEB, &policy],
        &at_port(8081, request.clone()),
        "deny mtls_required foo/p",
    );
    let mut unknown = request;
    unknown.destination.port = None;
    check(&[WEB, &policy], &unknown, "deny mtls_required foo/p");
}

#[test]
fn a_gateway_takes_no_notice_and_a_waypoint_always_demands() {
    let mesh = peer("default", "istio-system", "{mtls: {mode: STRICT}}");
    let open = peer("default", "istio-system", "{mtls: {mode: DISABLE}}");
    let request = plaintext(get("foo/web"));
    check(&[WEB, &mesh], &on(Target::Gateway, request.clone()), OPEN);
    check(
        &[WEB, &mesh],
        &on(Target::Sidecar, request.clone()),
        "deny mtls_required istio-system/default",
    );
    check(
        &[WEB, &mesh],
        &on(Target::Ztunnel, request.clone()),
        "deny mtls_required istio-system/default",
    );
    check(
        &[WEB, &open],
        &on(Target::Waypoint, request.clone()),
        "deny mtls_required",
    );
    check(&[WEB, &open], &on(Target::Sidecar, request), OPEN);
    check(&[WEB, &open], &on(Target::Waypoint, get("foo/web")), OPEN);
}

#[test]
fn mtls_comes_before_an_allow_and_a_deny() {
    let strict = peer("default", "foo", "{mtls: {mode: STRICT}}");
    let policy = |action: &str| {
        format!(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: foo}}
spec: {{action: {action}, rules: [{{}}]}}
"
        )
    };
    for action in ["ALLOW", "DENY"] {
        let refused = "deny mtls_required foo/default";
        check(
            &[WEB, &strict, &policy(action)],
            &plaintext(get("foo/web")),
            refused,
        );
    }
    check(
        &[WEB, &strict, &policy("ALLOW")],
        &get("foo/web"),
        "allow allowed_by foo/p#rule[0]",
    );
    check(
        &[WEB, &strict, &policy("DENY")],
        &get("foo/web"),
        "deny denied_by foo/p#rule[0]",
    );
}

#[test]
fn a_certificate_with_two_ids_is_no_svid_where_one_is_required() {
    let mut request = get("foo/web");
    let second = Identity {
        value: "spiffe://cluster.local/ns/foo/sa/second".into(),
        ..request.source.identities[0].clone()
    };
    let settings = Settings {
        require_svid: true,
        ..Settings::default()
    };
    let strict = snapshot_with(&[WEB], &settings);
    assert_eq!(decide(&strict, &request), "allow no_allow_policy");
    request.source.identities.push(second);
    assert_eq!(decide(&strict, &request), "deny ambiguous_identity");
    assert_eq!(decide(&snapshot(&[WEB]), &request), "allow no_allow_policy");
}
