//! `ca entry create -f` with ClusterSPIFFEIDs: an entry for each pod, as often as one likes.

use crate::svid::Authority;

const TEMPLATES: &str = r#"
apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: {name: by-service-account}
spec:
  spiffeIDTemplate: "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
  podSelector: {matchLabels: {spiffe: "true"}}
  namespaceSelector:
    matchExpressions: [{key: team, operator: In, values: [shop]}]
  dnsNameTemplates: ["{{ .PodSpec.ServiceAccountName }}.{{ .PodMeta.Namespace }}.svc.{{ .ClusterDomain }}"]
  workloadSelectorTemplates: ["k8s:ns:{{ .PodMeta.Namespace }}"]
  ttl: 1h30m
  hint: web
"#;

const INVENTORY: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: PodList
items:
  - metadata: {name: web-0, namespace: shop, uid: u1, labels: {spiffe: "true"}}
    spec: {serviceAccountName: web, nodeName: n1}
  - metadata: {name: web-1, namespace: shop, uid: u2, labels: {spiffe: "true"}}
    spec: {serviceAccountName: web, nodeName: n1}
    status: {phase: Succeeded}
  - metadata: {name: db-0, namespace: shop, uid: u3}
    spec: {serviceAccountName: db, nodeName: n1}
  - metadata: {name: web-0, namespace: other, uid: u4, labels: {spiffe: "true"}}
    spec: {serviceAccountName: web, nodeName: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n1, uid: node-1}
"#;

#[test]
fn each_pod_that_is_meant_has_its_entry() {
    let authority = Authority::with(
        &[("templates.yaml", TEMPLATES), ("pods.yaml", INVENTORY)],
        &[],
    );
    let parent =
        "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}";
    let arguments = [
        "entry",
        "create",
        "-f",
        "templates.yaml",
        "-f",
        "pods.yaml",
        "--cluster-name",
        "east",
        "--parent-id",
        parent,
    ];
    let applied = authority.ca(&arguments);
    assert_eq!(applied.code, 0, "{applied:?}");
    assert!(applied.stdout.starts_with("created "), "{applied:?}");
    assert_eq!(applied.stdout.lines().count(), 1, "{applied:?}");
    let list = authority.ca(&["entry", "list", "--output", "json"]);
    let entries = &list.json()[0];
    assert_eq!(entries.as_array().unwrap().len(), 1, "{list:?}");
    let entry = &entries[0];
    assert_eq!(entry["spiffe_id"], "spiffe://example.org/ns/shop/sa/web");
    assert_eq!(
        entry["parent_id"],
        "spiffe://example.org/spire/agent/k8s_psat/east/node-1"
    );
    assert_eq!(
        entry["selectors"],
        serde_json::json!(["k8s:ns:shop", "k8s:pod-uid:u1"])
    );
    assert_eq!(
        entry["dns_names"],
        serde_json::json!(["web.shop.svc.cluster.local"])
    );
    assert_eq!(
        (&entry["x509_svid_ttl"], &entry["hint"]),
        (&5400.into(), &"web".into())
    );
    let again = authority.ca(&arguments);
    assert!(again.stdout.starts_with("unchanged "), "{again:?}");

    authority
        .folder
        .write("templates.yaml", TEMPLATES.replace("1h30m", "30m"));
    let updated = authority.ca(&arguments);
    assert!(updated.stdout.starts_with("updated "), "{updated:?}");
}

#[test]
fn what_is_not_understood_is_told_with_its_place() {
    let authority = Authority::with(&[("pods.yaml", INVENTORY)], &[]);
    for (from, to, told) in [
        (
            "hint: web",
            "hnit: web",
            "t.yaml:13:3: unknown field `hnit`; there are spiffeIDTemplate",
        ),
        ("ttl: 1h30m", "ttl: 1.5h", "t.yaml:12:8: "),
        (
            "v1alpha1",
            "v9",
            "t.yaml:2:1: a ClusterSPIFFEID has `apiVersion",
        ),
        (
            "matchLabels: {spiffe",
            "matchLabel: {spiffe",
            "t.yaml:7:16: no label selector: unknown field `matchLabel`",
        ),
        (
            ".PodMeta.Namespace }}/sa",
            ".PodMeta.Nmespace }}/sa",
            "t.yaml:6:21: at character 32 of ",
        ),
        (
            "k8s:ns:{{ .PodMeta.Namespace }}",
            "k8s:ns:{{ .PodMeta.Namespace | upper }}",
            "no other functions, pipes or conditions",
        ),
        (
            "{{ .PodMeta.Namespace }}/sa",
            "{{ .PodMeta.Labels.none }}/sa",
            "pod shop/web-0: `{{ .PodMeta.Labels.none }}` is nothing here",
        ),
        (
            "kind: ClusterSPIFFEID",
            "kind: Deployment",
            "t.yaml:2:1: `Deployment` is no kind that entries are made of",
        ),
        (
            "spiffe://{{ .TrustDomain",
            "spiffe://elsewhere{{ .TrustDomain",
            "elsewhereexample.org",
        ),
    ] {
        assert!(TEMPLATES.contains(from), "{from}");
        authority
            .folder
            .write("t.yaml", TEMPLATES.replacen(from, to, 1));
        let refused = authority.ca(&["entry", "create", "-f", "t.yaml", "-f", "pods.yaml"]);
        assert_ne!(refused.code, 0, "{to}: {refused:?}");
        assert!(refused.stderr.contains(told), "{told}: {refused:?}");
    }
    let list = authority.ca(&["entry", "list", "--output", "json"]);
    assert_eq!(list.stdout, "[]\n", "nothing was stored");
}
