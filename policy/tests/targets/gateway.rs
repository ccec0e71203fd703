use crate::{decide, get, on, snapshot};
use portcullis_policy::request::{Request, Target};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: foo}
spec: {gatewayClassName: istio, listeners: [{name: h, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: gw, namespace: foo, labels: {app: gw, gateway.networking.k8s.io/gateway-name: gw}}
spec: {containers: [{name: c, image: i}]}
";

const WAYPOINT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: foo}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: h, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: wp, namespace: foo, labels: {app: wp, gateway.networking.k8s.io/gateway-name: wp}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: foo}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: foo}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: foo}
spec: {hosts: [api.example.com], addresses: [240.0.0.1], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC}
";

fn deny(name: &str, namespace: &str, attachment: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  action: DENY
  rules: [{{}}]
  {attachment}
"
    )
}

const TO_GATEWAY: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]";
const TO_WAYPOINT: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}]";
const TO_CLASS: &str =
    "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]";
const TO_REVIEWS: &str = "targetRefs: [{kind: Service, name: reviews}]";
const TO_API: &str = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api}]";

const OPEN: &str = "allow no_allow_policy";

fn check(manifests: &[&str], request: &Request, expected: &str) {
    assert_eq!(
        decide(&snapshot(manifests), request),
        expected,
        "{}",
        manifests.join("\n---\n")
    );
}

#[test]
fn a_gateway_is_met_by_target_ref_and_by_selector() {
    let request = get("foo/gw");
    for (attachment, namespace, expected) in [
        (TO_GATEWAY, "foo", "deny denied_by foo/p#rule[0]"),
        (TO_WAYPOINT, "foo", OPEN),
        (TO_GATEWAY, "istio-system", OPEN),
        (
            "selector: {matchLabels: {app: gw}}",
            "foo",
            "deny denied_by foo/p#rule[0]",
        ),
        ("selector: {matchLabels: {app: web}}", "foo", OPEN),
        ("", "istio-system", "deny denied_by istio-system/p#rule[0]"),
        ("", "bar", OPEN),
        (TO_CLASS, "istio-system", OPEN),
    ] {
        check(
            &[GATEWAY, &deny("p", namespace, attachment)],
            &request,
            expected,
        );
    }
}

#[test]
fn a_pod_without_the_label_ignores_target_refs() {
    for attachment in [TO_GATEWAY, TO_REVIEWS, TO_CLASS] {
        check(
            &[crate::WEB, &deny("p", "foo", attachment)],
            &get("foo/web"),
            OPEN,
        );
    }
    check(
        &[crate::WEB, &deny("p", "foo", "")],
        &get("foo/web"),
        "deny denied_by foo/p#rule[0]",
    );
}

fn for_service(name: &str) -> Request {
    let mut request = get("foo/wp");
    request.destination.service = Some(name.into());
    request
}

fn for_address(address: &str) -> Request {
    let mut request = get("foo/wp");
    request.destination.address = Some(address.parse().unwrap());
    request
}

fn for_host(host: &str) -> Request {
    let mut request = get("foo/wp");
    if let Some(http) = &mut request.http {
        http.host = host.into();
    }
    request
}

#[test]
fn a_waypoint_is_met_by_its_service_only() {
    let denied = "deny denied_by foo/p#rule[0]";
    let unknown = "deny unknown_destination";
    let reviews = deny("p", "foo", TO_REVIEWS);
    for (request, expected) in [
        (for_service("foo/reviews"), denied),
        (for_service("foo/ratings"), OPEN),
        (for_service("foo/nope"), unknown),
        (for_address("10.96.0.1"), denied),
        (for_address("10.96.0.2"), OPEN),
        (for_host("reviews.foo.svc.cluster.local:80"), denied),
        (for_host("ratings.foo.svc.cluster.local:80"), OPEN),
        (for_host("nope.foo.svc.cluster.local:80"), unknown),
        (for_host("example.com"), OPEN),
    ] {
        check(&[WAYPOINT, &reviews], &request, expected);
    }
    let api = deny("p", "foo", TO_API);
    check(&[WAYPOINT, &api], &for_service("foo/api"), denied);
    check(&[WAYPOINT, &api], &for_address("240.0.0.1"), denied);
    check(&[WAYPOINT, &api], &for_host("api.example.com"), denied);
    check(&[WAYPOINT, &api], &for_service("foo/reviews"), OPEN);
}

#[test]
fn a_waypoint_never_uses_selectors() {
    let request = for_service("foo/reviews");
    for (attachment, namespace, expected) in [
        ("selector: {matchLabels: {app: wp}}", "foo", OPEN),
        ("", "foo", OPEN),
        ("", "istio-system", OPEN),
        (TO_WAYPOINT, "foo", "deny denied_by foo/p#rule[0]"),
        (TO_GATEWAY, "foo", OPEN),
        (
            TO_CLASS,
            "istio-system",
            "deny denied_by istio-system/p#rule[0]",
        ),
        (TO_CLASS, "foo", OPEN),
    ] {
        check(
            &[WAYPOINT, &deny("p", namespace, attachment)],
            &request,
            expected,
        );
    }
}

#[test]
fn what_the_proxy_states_is_believed() {
    let by_selector = deny("p", "foo", "selector: {matchLabels: {app: wp}}");
    let denied = "deny denied_by foo/p#rule[0]";
    check(
        &[WAYPOINT, &by_selector],
        &on(Target::Gateway, get("foo/wp")),
        denied,
    );
    check(
        &[WAYPOINT, &by_selector],
        &on(Target::Waypoint, get("foo/wp")),
        OPEN,
    );
    check(&[WAYPOINT, &by_selector], &get("foo/wp"), OPEN);
}

#[test]
fn a_service_without_an_address_is_noted_where_a_waypoint_serves_it() {
    let noted = |manifests: &[&str]| {
        let snapshot = snapshot(manifests);
        let found = snapshot.diagnostics().iter().filter(|d| d.code == "PC0404");
        found.map(|d| d.message.clone()).collect::<Vec<_>>()
    };
    let policy = deny("p", "foo", TO_REVIEWS);
    let unaddressed = WAYPOINT.replace("clusterIP: 10.96.0.1, ", "");
    assert_eq!(
        noted(&[&unaddressed, &policy]),
        ["a waypoint knows `foo/reviews` by the request's host alone"]
    );
    assert!(noted(&[WAYPOINT, &policy]).is_empty());
    assert!(noted(&[&unaddressed, &deny("p", "foo", TO_WAYPOINT)]).is_empty());
    let without_waypoint = unaddressed.replace("istio-waypoint", "istio");
    assert!(noted(&[&without_waypoint, &policy]).is_empty());
}
