use std::sync::Arc;

use super::lint;
use crate::document::SourceText;
use crate::resource::{Resource, read};

/// Codes and lines of what the lint says of a set.
fn linted(text: &str) -> Vec<(&'static str, u32, String)> {
    let file = read(&SourceText {
        file: "set.yaml".into(),
        bytes: text.as_bytes().into(),
    });
    assert!(
        file.diagnostics.iter().all(|d| !d.is_error()),
        "{:?}",
        file.diagnostics
    );
    let resources: Vec<Arc<Resource>> = file.resources;
    lint(&resources, "istio-system", &["td1".to_owned()])
        .into_iter()
        .map(|d| (d.code, d.location.line, d.message))
        .collect()
}

fn codes(text: &str) -> Vec<(&'static str, u32)> {
    linted(text)
        .into_iter()
        .map(|(code, line, _)| (code, line))
        .collect()
}

const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: foo}
";
const STRICT: &str = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mesh, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

#[test]
fn the_same_object_twice_is_an_error_at_both_places() {
    let text = format!("{POLICY}spec: {{rules: [{{}}]}}\n---\n{POLICY}spec: {{rules: [{{}}]}}\n");
    let found = linted(&text);
    assert_eq!(found.len(), 1);
    let (code, line, message) = &found[0];
    assert_eq!((*code, *line), ("PC0503", 6));
    assert!(
        message.ends_with("stands here and at set.yaml:1:1"),
        "{message}"
    );
    let other = text.replacen("name: p,", "name: q,", 1);
    assert_eq!(codes(&other), []);
}

#[test]
fn a_selector_must_select_a_workload_if_there_are_any() {
    let pod = |labels: &str, namespace: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: {namespace}, labels: {labels}}}\n"
        )
    };
    let policy = format!(
        "{POLICY}spec:\n  selector: {{matchLabels: {{app: web, v: a}}}}\n  rules: [{{}}]\n"
    );
    assert_eq!(codes(&policy), [], "no inventory");
    assert_eq!(
        codes(&format!("{policy}{}", pod("{app: web, v: a, x: z}", "foo"))),
        []
    );
    assert_eq!(
        codes(&format!("{policy}{}", pod("{app: web}", "foo"))),
        [("PC0504", 5)]
    );
    assert_eq!(
        codes(&format!("{policy}{}", pod("{app: web, v: a}", "bar"))),
        [("PC0504", 5)]
    );
    let root = policy.replace("namespace: foo", "namespace: istio-system");
    assert_eq!(
        codes(&format!("{root}{}", pod("{app: web, v: a}", "bar"))),
        []
    );
}

#[test]
fn a_target_must_exist_if_its_kind_is_listed() {
    let policy =
        format!("{POLICY}spec:\n  targetRefs: [{{kind: Service, name: web}}]\n  rules: [{{}}]\n");
    let service = |name: &str| {
        format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: foo}}\n")
    };
    assert_eq!(codes(&policy), []);
    assert_eq!(codes(&format!("{policy}{}", service("web"))), []);
    assert_eq!(
        codes(&format!("{policy}{}", service("wob"))),
        [("PC0505", 5)]
    );
    let class = policy.replace(
        "kind: Service",
        "group: gateway.networking.k8s.io, kind: GatewayClass",
    );
    assert_eq!(codes(&class), [("PC0506", 5)]);
}

#[test]
fn names_must_exist_where_such_things_are_listed() {
    let policy = format!(
        "{POLICY}spec:\n  rules:\n  - from:\n    - source:\n        principals: [td1/ns/foo/sa/web]\n    - source:\n        serviceAccounts: [bar/web]\n{STRICT}"
    );
    assert_eq!(codes(&policy), []);
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: foo}\n";
    assert_eq!(codes(&format!("{policy}{namespace}")), [("PC0507", 10)]);
    let account =
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: foo}\n";
    assert_eq!(codes(&format!("{policy}{account}")), [("PC0508", 10)]);
    let foreign = policy.replace("td1/", "td2/");
    assert_eq!(codes(&foreign), [("PC0509", 8)]);
    assert_eq!(codes(&policy.replace("td1/", "cluster.local/")), []);
}

#[test]
fn identities_need_mtls() {
    let allow = format!(
        "{POLICY}spec:\n  rules: [{{from: [{{source: {{principals: [td1/ns/foo/sa/web]}}}}]}}]\n"
    );
    let deny = allow.replace("spec:\n", "spec:\n  action: DENY\n");
    assert_eq!(codes(&allow), []);
    assert_eq!(codes(&deny), [("PC0510", 6)]);
    assert_eq!(codes(&format!("{allow}{STRICT}")), []);
    assert_eq!(codes(&format!("{deny}{STRICT}")), []);
    let permissive = STRICT.replace("STRICT", "PERMISSIVE");
    let found = linted(&format!("{allow}{permissive}"));
    assert!(
        found[0].2.ends_with("this rule does not let them in"),
        "{found:?}"
    );
    let found = linted(&format!("{deny}{permissive}"));
    assert!(
        found[0].2.ends_with("this rule does not stop them"),
        "{found:?}"
    );
}

#[test]
fn the_oldest_mode_of_these_workloads_counts() {
    let deny = format!(
        "{POLICY}spec:\n  action: DENY\n  selector: {{matchLabels: {{app: web}}}}\n  rules: [{{from: [{{source: {{principals: [cluster.local/ns/foo/sa/web]}}}}]}}]\n"
    );
    let mode = |name: &str, namespace: &str, year: u32, spec: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: \"{year}-01-01T00:00:00Z\"}}\nspec: {{selector: {{matchLabels: {{app: web}}}}, {spec}}}\n"
        )
    };
    let said = |modes: &[String]| {
        let found = linted(&format!("{deny}{STRICT}{}", modes.concat()));
        found.iter().any(|(code, ..)| *code == "PC0510")
    };
    let strict = "mtls: {mode: STRICT}";
    let permissive = "mtls: {mode: PERMISSIVE}";
    assert!(!said(&[]));
    assert!(said(&[mode("a", "foo", 2024, permissive)]));
    let younger = [
        mode("a", "foo", 2024, permissive),
        mode("b", "foo", 2023, strict),
    ];
    assert!(!said(&younger));
    // In the root namespace a selector selects nothing.
    assert!(!said(&[mode("a", "istio-system", 2024, permissive)]));
    let one_port = "mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}";
    assert!(said(&[mode("a", "foo", 2024, one_port)]));
    let inherited = "portLevelMtls: {8080: {mode: STRICT}}";
    assert!(!said(&[mode("a", "foo", 2024, inherited)]));
}

#[test]
fn a_provider_must_be_in_mesh_config() {
    let policy =
        format!("{POLICY}spec:\n  action: CUSTOM\n  provider: {{name: authz}}\n  rules: [{{}}]\n");
    let mesh =
        |providers: &str| format!("---\nkind: MeshConfig\nextensionProviders: {providers}\n");
    assert_eq!(codes(&policy), []);
    let known = mesh("[{name: authz, envoyExtAuthzGrpc: {service: a, port: 1}}]");
    assert_eq!(codes(&format!("{policy}{known}")), []);
    assert_eq!(codes(&format!("{policy}{}", mesh("[]"))), [("PC0511", 6)]);
    let other = mesh("[{name: authz, zipkin: {}}]");
    assert_eq!(codes(&format!("{policy}{other}")), [("PC0511", 6)]);
}

#[test]
fn rules_that_add_nothing_are_named() {
    let policy = |rules: &str| format!("{POLICY}spec:\n  rules:\n{rules}");
    let get = "  - to: [{operation: {methods: [GET, POST]}}]\n";
    let same = "  - to: [{operation: {methods: [POST, GET]}}]\n";
    let narrower = "  - {to: [{operation: {methods: [GET, POST]}}], from: [{source: {ipBlocks: [10.0.0.1]}}]}\n";
    let other = "  - to: [{operation: {methods: [PUT]}}]\n";
    assert_eq!(codes(&policy(&format!("{get}{same}"))), [("PC0512", 7)]);
    assert_eq!(codes(&policy(&format!("{narrower}{get}"))), [("PC0512", 6)]);
    assert_eq!(codes(&policy(&format!("{get}{other}"))), []);
    assert_eq!(codes(&policy(&format!("{get}  - {{}}\n"))), [("PC0512", 6)]);
}

#[test]
fn a_rule_that_another_covers_by_its_words_is_named() {
    let policy = |action: &str, rules: &[&str]| {
        let rules: Vec<String> = rules.iter().map(|r| format!("  - {{{r}}}\n")).collect();
        codes(&format!(
            "{POLICY}spec:\n  action: {action}\n  rules:\n{}",
            rules.concat()
        ))
    };
    let get = "to: [{operation: {methods: [GET]}}]";
    let of = |more: &str| format!("to: [{{operation: {{methods: [GET], {more}}}}}]");
    assert_eq!(policy("ALLOW", &[get, &of("paths: [/a]")]), [("PC0512", 8)]);
    assert_eq!(policy("ALLOW", &[&of("paths: [/a]"), get]), [("PC0512", 7)]);
    let prefix = of("paths: [\"/a*\"]");
    assert_eq!(
        policy("ALLOW", &[&prefix, &of("paths: [/a/b]")]),
        [("PC0512", 8)]
    );
    assert_eq!(policy("ALLOW", &[&prefix, &of("paths: [/b]")]), []);
    assert_eq!(
        policy(
            "ALLOW",
            &[get, "to: [{operation: {methods: [PUT], paths: [/a]}}]"]
        ),
        []
    );
    // At ztunnel the first denies nothing, the second the port.
    assert_eq!(policy("DENY", &[get, &of("ports: [\"80\"]")]), []);
    assert_eq!(policy("DENY", &[get, &of("paths: [/a]")]), [("PC0512", 8)]);
}

#[test]
fn an_allow_rule_that_a_deny_covers_is_told() {
    let set = |deny: &str, place: &str, allow: &str| {
        let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
        codes(&format!(
            "{head}metadata: {{name: d, namespace: {place}}}\nspec: {{action: DENY, {deny}}}\n---\n\
             {head}metadata: {{name: a, namespace: foo}}\nspec:\n  {allow}\n"
        ))
    };
    let shadowed = [("PC0513", 10)];
    let get = "rules: [{to: [{operation: {methods: [GET], paths: [/a/b]}}]}]";
    let rules = |words: &str| format!("rules: [{{{words}}}]");
    for deny in [
        "",
        "to: [{operation: {methods: [GET]}}]",
        "to: [{operation: {methods: [PUT, GET]}}]",
        "to: [{operation: {methods: [PUT]}}, {operation: {paths: [\"/a*\"]}}]",
        "to: [{operation: {methods: [\"*\"], paths: [/a/b, /c]}}]",
    ] {
        for place in ["foo", "istio-system"] {
            let found = set(&rules(deny), place, get);
            assert_eq!(found, shadowed, "{deny} in {place}");
        }
        assert_eq!(set(&rules(deny), "bar", get), [], "{deny} elsewhere");
        let narrower = format!("selector: {{matchLabels: {{app: web}}}}, {}", rules(deny));
        assert_eq!(set(&narrower, "foo", get), [], "{deny} of some workloads");
    }
    for deny in [
        "to: [{operation: {methods: [PUT]}}]",
        "to: [{operation: {methods: [GET], hosts: [h]}}]",
        "to: [{operation: {paths: [\"/b*\"]}}]",
        "from: [{source: {ipBlocks: [10.0.0.1]}}]",
        "when: [{key: \"request.headers[a]\", values: [b]}]",
        "to: [{operation: {notMethods: [GET]}}]",
    ] {
        assert_eq!(set(&rules(deny), "foo", get), [], "{deny}");
    }
    let not = "rules: [{to: [{operation: {notMethods: [GET, PUT], paths: [/a]}}]}]";
    let wide = "to: [{operation: {notMethods: [GET]}}]";
    assert_eq!(set(&rules(wide), "foo", not), shadowed);
    let wide = "to: [{operation: {notMethods: [GET, POST]}}]";
    assert_eq!(set(&rules(wide), "foo", not), []);
    let of = |principal: &str| format!("from: [{{source: {{principals: [\"{principal}\"]}}}}]");
    let one = rules(&of("cluster.local/ns/a/sa/b"));
    assert!(set(&rules(&of("*")), "foo", &one).contains(&shadowed[0]));
    let prefix = set(&rules(&of("cluster.local/ns/a/*")), "foo", &one);
    assert!(!prefix.contains(&shadowed[0]), "{prefix:?}");
}

#[test]
fn a_pattern_of_namespaces_must_match_one() {
    let set = |pattern: &str| {
        codes(&format!(
            "{POLICY}spec: {{rules: [{{from: [{{source: {{namespaces: [\"{pattern}\"]}}}}]}}]}}\n{STRICT}---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: foo}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: prod-web}}\n"
        ))
    };
    for known in ["*", "prod-*", "*-web", "*d-w*", "p*d*b", "prod-web", "f*"] {
        assert_eq!(set(known), [], "{known}");
    }
    for unknown in ["bogus-*", "*-bogus", "p*x*", "*prod", "fo"] {
        assert_eq!(set(unknown), [("PC0507", 4)], "{unknown}");
    }
}
