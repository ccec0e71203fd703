//! What is said of policies where the workloads that they select, their ports and their proxies are known.

use crate::source;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::settings::Settings;

/// Codes PC0123 and PC0514 to PC0518 with their messages, of a set of documents.
fn said(documents: &[&str]) -> Vec<(&'static str, String)> {
    let text = documents.join("\n---\n");
    let documents = Documents {
        base: vec![source("set.yaml", text.as_bytes())],
        candidate: None,
    };
    let snapshot = compile(&documents, &Settings::default()).unwrap_or_else(|e| panic!("{e:#?}"));
    let ours = ["PC0123", "PC0514", "PC0515", "PC0516", "PC0517", "PC0518"];
    let found = snapshot.diagnostics().iter();
    found
        .filter(|d| ours.contains(&d.code))
        .map(|d| (d.code, d.message.clone()))
        .collect()
}

fn codes(documents: &[&str]) -> Vec<&'static str> {
    said(documents).into_iter().map(|(code, _)| code).collect()
}

/// The one thing that is said holds all of `words`.
fn one(documents: &[&str], code: &str, words: &[&str]) {
    let said = said(documents);
    let [(found, message)] = said.as_slice() else {
        panic!("{said:#?}");
    };
    assert_eq!(*found, code, "{message}");
    for word in words {
        assert!(message.contains(word), "{message}");
    }
}

fn pod(namespace: &str, app: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {app}-1, namespace: {namespace}, labels: {{app: {app}}}}}\n\
         spec: {{containers: [{{name: c, ports: [{ports}]}}]}}"
    )
}

fn service(app: &str, ports: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {app}, namespace: shop}}\n\
         spec: {{selector: {{app: {app}}}, ports: [{ports}]}}"
    )
}

fn namespace(labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}")
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}"
    )
}

const ECHO: &str = "selector: {matchLabels: {app: echo}}";

#[test]
fn a_field_that_its_not_excludes_is_told() {
    let told = |rule: &str| {
        let text = policy(&format!("rules: [{{{rule}}}]"));
        let read = portcullis_policy::resource::read(&source("p.yaml", text.as_bytes()));
        let found = read.diagnostics.iter();
        found.filter(|d| d.code == "PC0134").count()
    };
    let operation = |words: &str| format!("to: [{{operation: {{{words}}}}}]");
    let from = |words: &str| format!("from: [{{source: {{{words}}}}}]");
    let when = |words: &str| format!("when: [{{key: \"request.headers[a]\", {words}}}]");
    for never in [
        operation("methods: [GET], notMethods: [GET]"),
        operation("methods: [GET, PUT], notMethods: [PUT, GET, HEAD]"),
        operation("paths: [/a/b], notPaths: [\"/a*\"]"),
        operation("hosts: [h], notHosts: [h]"),
        operation("ports: [\"80\"], notPorts: [\"80\"]"),
        from("principals: [td/ns/a/sa/b], notPrincipals: [\"*\"]"),
        from("namespaces: [a], notNamespaces: [a]"),
        from("requestPrincipals: [i/s], notRequestPrincipals: [i/s]"),
        from("ipBlocks: [10.0.0.0/8], notIpBlocks: [10.0.0.0/8]"),
        when("values: [b], notValues: [b]"),
    ] {
        assert_eq!(told(&never), 1, "{never}");
    }
    for sometimes in [
        operation("methods: [GET, PUT], notMethods: [GET]"),
        operation("paths: [\"/a*\"], notPaths: [/a/b]"),
        from("namespaces: [a], notPrincipals: [a]"),
        when("values: [b, c], notValues: [b]"),
    ] {
        assert_eq!(told(&sometimes), 0, "{sometimes}");
    }
}

#[test]
fn principals_of_cedar_are_held_against_who_is_there() {
    let told = |principal: &str, selector: &str, scope: &str| {
        let cedar = format!(
            "apiVersion: portcullis.dev/v1alpha1\nkind: CedarPolicy\nmetadata: {{name: c, namespace: shop}}\nspec:\n  \
             selector: {{matchLabels: {{app: {selector}}}}}\n  policies: |\n    \
             permit (principal == Workload::\"{principal}\", action, {scope});"
        );
        let account =
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: cart, namespace: shop}";
        let text = [pod("shop", "echo", ""), account.to_owned(), cedar].join("\n---\n");
        let documents = Documents {
            base: vec![source("set.yaml", text.as_bytes())],
            candidate: None,
        };
        let snapshot =
            compile(&documents, &Settings::default()).unwrap_or_else(|e| panic!("{e:#?}"));
        let found: Vec<_> = snapshot.diagnostics().iter().map(|d| d.code).collect();
        found
    };
    let none: [&str; 0] = [];
    assert_eq!(
        told("spiffe://cluster.local/ns/shop/sa/cart", "echo", "resource"),
        none
    );
    assert_eq!(
        told("spiffe://cluster.local/ns/shop/sa/crat", "echo", "resource"),
        ["PC0508"]
    );
    assert_eq!(
        told("spiffe://other/ns/shop/sa/crat", "echo", "resource"),
        none
    );
    assert_eq!(
        told("cluster.local/ns/shop/sa/cart", "echo", "resource"),
        ["PC0610"]
    );
    assert_eq!(
        told("cart.shop.example", "echo", "resource"),
        none,
        "a DNS name"
    );
    // One cause, one warning.
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(told(cart, "ecko", "resource"), ["PC0504"]);
    assert_eq!(
        told(cart, "echo", "resource in Namespace::\"bar\""),
        ["PC0608"]
    );
}

#[test]
fn http_fields_on_a_tcp_port_are_told() {
    let pod = pod(
        "shop",
        "echo",
        "{containerPort: 9000}, {containerPort: 9001}",
    );
    let tcp = service(
        "echo",
        "{name: tcp, port: 9000}, {name: http-admin, port: 80, targetPort: 9001}",
    );
    let rule = |action: &str, operation: &str| {
        policy(&format!(
            "{ECHO}, action: {action}, rules: [{{to: [{{operation: {{{operation}}}}}]}}]"
        ))
    };
    let on = |port: &str| format!("methods: [GET], ports: [\"{port}\"]");
    let allow = rule("ALLOW", &on("9000"));
    one(
        &[&pod, &tcp, &allow],
        "PC0514",
        &["`9000`", "`pod/shop/echo-1`", "`methods`", "lets nobody in"],
    );
    let deny = rule("DENY", &on("9000"));
    one(
        &[&pod, &tcp, &deny],
        "PC0514",
        &["ignores `methods`", "denies what is left"],
    );
    // HTTP, nothing known of it, or nothing of HTTP: nothing is wrong.
    for silent in [
        rule("ALLOW", &on("9001")),
        rule("DENY", &on("9001")),
        rule("DENY", "ports: [\"9000\"]"),
    ] {
        assert_eq!(codes(&[&pod, &tcp, &silent]), [] as [&str; 0], "{silent}");
    }
    assert_eq!(codes(&[&pod, &allow]), [] as [&str; 0]);
    assert_eq!(
        codes(&[&pod, &service("echo", "{name: web, port: 9000}"), &deny]),
        [] as [&str; 0]
    );
    // `appProtocol` comes before the name, and a second Service may say another thing.
    let speaks = "{name: tcp, appProtocol: http, port: 9000}";
    assert_eq!(
        codes(&[&pod, &service("echo", speaks), &deny]),
        [] as [&str; 0]
    );
    let other = service("echo", "{name: http, port: 9000}").replace("name: echo,", "name: other,");
    assert_eq!(codes(&[&pod, &tcp, &other, &deny]), [] as [&str; 0]);
    // Without ports: an ALLOW rule where all is TCP.
    let only = service(
        "echo",
        "{name: tcp, port: 9000}, {name: tcp-other, port: 9001}",
    );
    let get = rule("ALLOW", "methods: [GET]");
    one(&[&pod, &only, &get], "PC0514", &["lets nobody in"]);
    assert_eq!(codes(&[&pod, &tcp, &get]), [] as [&str; 0]);
}

#[test]
fn a_deny_without_ports_is_told_where_it_denies_more() {
    let deny = policy(&format!(
        "{ECHO}, action: DENY, rules: [{{to: [{{operation: {{paths: [/admin]}}}}]}}]"
    ));
    let echo = pod("shop", "echo", "{containerPort: 9000}");
    let general = ["PC0123"];
    assert_eq!(codes(&[&deny]), general, "nothing is known");
    assert_eq!(
        codes(&[&echo, &deny]),
        general,
        "no Service says what it speaks"
    );
    let tcp = service("echo", "{name: tcp, port: 9000}");
    one(
        &[&echo, &tcp, &deny],
        "PC0123",
        &["every connection", "`9000` of `pod/shop/echo-1`"],
    );
    let http = service("echo", "{name: http, port: 9000}");
    assert_eq!(
        codes(&[&echo, &http, &deny]),
        [] as [&str; 0],
        "all of it speaks HTTP"
    );
    // Gateways and waypoints see HTTP, whether by selector or by target.
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: shop}\n\
                   spec: {selector: {app: echo}}";
    assert_eq!(codes(&[&echo, gateway, &deny]), [] as [&str; 0]);
    let ingress = echo.replace("app: echo}", "app: echo, istio: ingressgateway}");
    assert_eq!(
        codes(&[
            &ingress,
            &service("echo", "{name: https, port: 443}"),
            &deny
        ]),
        [] as [&str; 0]
    );
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]";
    assert_eq!(
        codes(&[&echo, &deny.replace(ECHO, target)]),
        [] as [&str; 0]
    );
}

#[test]
fn what_ztunnel_cannot_see_is_told() {
    let ambient = namespace("istio.io/dataplane-mode: ambient");
    let echo = pod("shop", "echo", "{containerPort: 9000}");
    let rule = |action: &str, words: &str| {
        policy(&format!("{ECHO}, action: {action}, rules: [{{{words}}}]"))
    };
    let get = "to: [{operation: {methods: [GET]}}]";
    let allow = rule("ALLOW", get);
    one(
        &[&ambient, &echo, &allow],
        "PC0515",
        &["`methods`", "leaves this ALLOW rule out"],
    );
    one(
        &[&ambient, &echo, &rule("DENY", get)],
        "PC0515",
        &["denies nothing"],
    );
    let ports = rule(
        "DENY",
        "to: [{operation: {paths: [/a], ports: [\"9000\"]}}]",
    );
    one(
        &[&ambient, &echo, &ports],
        "PC0515",
        &["`paths`", "denies what is left"],
    );
    let domains = rule("DENY", "from: [{source: {trustDomains: [td1]}}]");
    one(
        &[&ambient, &echo, &domains],
        "PC0515",
        &["`trustDomains`", "denies nothing"],
    );
    one(
        &[&ambient, &echo, &rule("AUDIT", get)],
        "PC0515",
        &["no AUDIT policies"],
    );
    let clients = rule(
        "ALLOW",
        "from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]",
    );
    assert_eq!(codes(&[&ambient, &echo, &clients]), [] as [&str; 0]);
    // A sidecar, and what is out of the mesh.
    let injected = namespace("istio.io/dataplane-mode: ambient, istio-injection: enabled");
    assert_eq!(codes(&[&injected, &echo, &allow]), [] as [&str; 0]);
    let out = echo.replace("app: echo}", "app: echo, istio.io/dataplane-mode: none}");
    assert_eq!(codes(&[&ambient, &out, &allow]), [] as [&str; 0]);
}

#[test]
fn a_target_without_a_waypoint_is_told() {
    let web = service("web", "{name: http, port: 80}");
    let used = |value: &str| {
        web.replace(
            "name: web,",
            &format!("name: web, labels: {{istio.io/use-waypoint: {value}}},"),
        )
    };
    let target = policy("targetRefs: [{kind: Service, name: web}], rules: [{}]");
    one(
        &[&namespace(""), &web, &target],
        "PC0516",
        &["no waypoint serves Service `shop/web`"],
    );
    one(
        &[
            &namespace("istio.io/use-waypoint: w"),
            &used("none"),
            &target,
        ],
        "PC0516",
        &["no waypoint"],
    );
    let gateway = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{gatewayClassName: istio-waypoint}}"
        )
    };
    one(
        &[&namespace(""), &used("w"), &gateway("v"), &target],
        "PC0516",
        &["`shop/w`"],
    );
    let silent: [&[&str]; 4] = [
        &[&web, &target],
        &[&namespace("istio.io/use-waypoint: w"), &web, &target],
        &[&namespace(""), &used("w"), &gateway("w"), &target],
        &[&namespace(""), &used("w"), &target],
    ];
    for set in silent {
        assert_eq!(codes(set), [] as [&str; 0], "{set:?}");
    }
}

#[test]
fn claims_that_nobody_verifies_are_told() {
    let echo = pod("shop", "echo", "");
    let rule = |action: &str, words: &str| {
        policy(&format!("{ECHO}, action: {action}, rules: [{{{words}}}]"))
    };
    let some = "from: [{source: {requestPrincipals: [\"*\"]}}]";
    let not = "from: [{source: {notRequestPrincipals: [\"*\"]}}]";
    let claim = "when: [{key: \"request.auth.claims[groups]\", values: [g]}], to: [{operation: {ports: [\"80\"]}}]";
    let allow = rule("ALLOW", some);
    one(
        &[&echo, &allow],
        "PC0517",
        &["`pod/shop/echo-1`", "a request principal", "lets nobody in"],
    );
    one(
        &[&echo, &rule("ALLOW", claim)],
        "PC0517",
        &["`request.auth.claims[groups]`"],
    );
    let denies = said(&[&echo, &rule("DENY", not)]);
    assert!(
        denies
            .iter()
            .any(|(c, m)| *c == "PC0517" && m.contains("denies whatever")),
        "{denies:?}"
    );
    let jwt = |namespace: &str, attach: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: j, namespace: {namespace}}}\n\
             spec: {{{attach}jwtRules: [{{issuer: i, jwksUri: \"https://i/keys\"}}]}}"
        )
    };
    for there in [
        jwt("shop", ""),
        jwt("istio-system", ""),
        jwt("shop", &format!("{ECHO}, ")),
    ] {
        assert_eq!(codes(&[&echo, &allow, &there]), [] as [&str; 0], "{there}");
    }
    let elsewhere = jwt("shop", "selector: {matchLabels: {app: web}}, ");
    assert_eq!(codes(&[&echo, &allow, &elsewhere]), ["PC0517"]);
    assert_eq!(codes(&[&allow]), [] as [&str; 0], "no workload is known");
    // A root policy for a gateway of another namespace, and targets.
    let gateway = pod("shop", "gw", "");
    let root = allow
        .replace("namespace: shop", "namespace: istio-system")
        .replace("app: echo", "app: gw");
    let of_root = jwt("istio-system", "selector: {matchLabels: {app: gw}}, ");
    assert_eq!(codes(&[&gateway, &root, &of_root]), [] as [&str; 0]);
    let labelled = gateway.replace("app: gw}", "gateway.networking.k8s.io/gateway-name: gw}");
    let reference = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]";
    let targeted = allow.replace(ECHO, reference);
    assert_eq!(
        codes(&[
            &labelled,
            &targeted,
            &jwt("shop", &format!("{reference}, "))
        ]),
        [] as [&str; 0]
    );
    assert_eq!(codes(&[&labelled, &targeted]), ["PC0517"]);
}

#[test]
fn the_port_of_a_service_is_told_from_the_workloads() {
    let echo = pod("shop", "echo", "{name: web, containerPort: 8080}");
    let mapped = service("echo", "{name: http, port: 80, targetPort: web}");
    let ports = |port: &str| {
        policy(&format!(
            "{ECHO}, rules: [{{to: [{{operation: {{ports: [\"{port}\"]}}}}]}}]"
        ))
    };
    one(
        &[&echo, &mapped, &ports("80")],
        "PC0518",
        &["`80`", "Service `echo`", "allows nothing"],
    );
    assert_eq!(codes(&[&echo, &mapped, &ports("8080")]), [] as [&str; 0]);
    // The proxy's own ports, ports that no Service has, and what is not known.
    assert_eq!(codes(&[&echo, &mapped, &ports("15020")]), [] as [&str; 0]);
    assert_eq!(codes(&[&echo, &ports("80")]), [] as [&str; 0]);
    let unknown = service("echo", "{name: http, port: 80, targetPort: other}");
    assert_eq!(codes(&[&echo, &unknown, &ports("80")]), [] as [&str; 0]);
    let both = pod(
        "shop",
        "echo",
        "{containerPort: 80}, {name: web, containerPort: 8080}",
    );
    assert_eq!(codes(&[&both, &mapped, &ports("80")]), [] as [&str; 0]);
    // One of the workloads that are selected may listen on it.
    let all = ports("80").replace(&format!("{ECHO}, "), "");
    assert_eq!(
        codes(&[&echo, &mapped, &pod("shop", "other", ""), &all]),
        [] as [&str; 0]
    );
    let peers = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: m, namespace: shop}\n\
                 spec: {selector: {matchLabels: {app: echo}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}";
    one(
        &[&echo, &mapped, peers],
        "PC0518",
        &["`80`", "says nothing"],
    );
    assert_eq!(
        codes(&[&echo, &mapped, &peers.replace("80:", "8080:")]),
        [] as [&str; 0]
    );
}
