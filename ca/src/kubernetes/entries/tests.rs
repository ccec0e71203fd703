use serde_json::json;

use super::*;

fn entries() -> Entries {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    Entries::new(Settings {
        local_agent: crate::registry::local_agent(&trust_domain),
        trust_domain,
        cluster: Cluster {
            trust_domain: "example.org".to_owned(),
            name: Some("east".to_owned()),
            domain: Some("cluster.local".to_owned()),
        },
        parent: None,
        class: String::new(),
        takes_classless: false,
        ignored: vec!["kube-*".to_owned()],
    })
}

fn uid(number: u32) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

fn pod(number: u32, namespace: &str, labels: Value) -> Value {
    json!({
        "metadata": {"name": format!("p{number}"), "namespace": namespace, "uid": uid(number), "labels": labels},
        "spec": {"nodeName": "n1", "serviceAccountName": "web"},
        "status": {"phase": "Running"},
    })
}

fn id(name: &str, created: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec.get("spiffeIDTemplate").is_none() {
        spec["spiffeIDTemplate"] = json!(
            "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}"
        );
    }
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created},
        "spec": spec,
    })
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

fn paths(changes: &Changes) -> Vec<String> {
    let paths = changes.wanted.iter();
    let mut paths: Vec<String> = paths.map(|e| e.spiffe_id.path().to_owned()).collect();
    paths.sort();
    paths
}

fn stats(entries: &Entries, name: &str) -> Stats {
    let all = entries.stats();
    all.iter().find(|(found, _, _)| found == name).unwrap().1
}

#[test]
fn a_labelled_pod_gets_its_entry_and_a_change_touches_its_own_alone() {
    let mut entries = entries();
    entries.put_namespace(namespace("shop", json!({})));
    entries.put_cluster_spiffe_id(&id(
        "mesh",
        "2026-01-01T00:00:00Z",
        json!({"podSelector": {"matchLabels": {"spiffe": "yes"}}, "ttl": "30m", "hint": "h"}),
    ));
    entries.all_pods(vec![
        pod(1, "shop", json!({"spiffe": "yes"})),
        pod(2, "shop", json!({})),
        pod(3, "shop", json!({"spiffe": "yes"})),
    ]);
    let changes = entries.changes();
    assert_eq!(paths(&changes), ["/ns/shop/sa/web"; 2]);
    assert!(changes.unwanted.is_empty());
    let first = changes
        .wanted
        .iter()
        .find(|e| e.id.contains(&uid(1)))
        .unwrap();
    assert!(first.id.starts_with(PREFIX));
    assert_eq!(
        first.selectors[0].to_string(),
        format!("k8s:pod-uid:{}", uid(1))
    );
    assert_eq!(first.parent_id.path(), "/spire/agent/local");
    assert_eq!(first.x509_ttl.unwrap().as_secs(), 1800);
    assert_eq!(
        stats(&entries, "mesh"),
        Stats {
            namespaces_selected: 1,
            pods_selected: 2,
            entries_to_set: 2,
            ..Stats::default()
        }
    );
    // Nothing changed, nothing to do.
    entries.put_pod(pod(1, "shop", json!({"spiffe": "yes"})));
    assert!(entries.changes().wanted.is_empty());
    // One pod changes.
    let id = first.id.clone();
    entries.put_pod(pod(1, "shop", json!({})));
    let changes = entries.changes();
    assert_eq!((changes.wanted.len(), changes.unwanted), (0, vec![id]));
    // One goes, one is over.
    entries.put_pod(pod(2, "shop", json!({"spiffe": "yes"})));
    assert_eq!(entries.changes().wanted.len(), 1);
    entries.remove_pod(&uid(3));
    let mut over = pod(2, "shop", json!({"spiffe": "yes"}));
    over["status"]["phase"] = "Succeeded".into();
    entries.put_pod(over);
    assert_eq!(entries.changes().unwanted.len(), 2);
    assert_eq!(entries.wanted().count(), 0);
}

#[test]
fn the_entry_of_a_cluster_spiffe_id_goes_with_it_and_another_takes_over_without_a_gap() {
    let mut entries = entries();
    entries.put_pod(pod(1, "shop", json!({})));
    entries.put_cluster_spiffe_id(&id("old", "2026-01-01T00:00:00Z", json!({"ttl": "1h"})));
    entries.put_cluster_spiffe_id(&id("new", "2026-02-01T00:00:00Z", json!({"ttl": "2h"})));
    let changes = entries.changes();
    assert_eq!(
        changes.wanted.len(),
        1,
        "the same identity for the same pod is one entry"
    );
    assert_eq!(
        changes.wanted[0].x509_ttl.unwrap().as_secs(),
        3600,
        "the older one's"
    );
    assert_eq!(stats(&entries, "new").entries_masked, 1);
    let entry = changes.wanted[0].id.clone();
    entries.remove_cluster_spiffe_id("uid-old");
    let changes = entries.changes();
    assert_eq!(changes.wanted[0].id, entry);
    assert_eq!(changes.wanted[0].x509_ttl.unwrap().as_secs(), 7200);
    assert!(changes.unwanted.is_empty());
    entries.all_cluster_spiffe_ids(&[]);
    assert_eq!(entries.changes().unwanted, [entry]);
}

#[test]
fn a_fallback_is_for_pods_that_no_other_means() {
    let mut entries = entries();
    let fallback = json!({"fallback": true, "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/any"});
    // Although it is the oldest.
    entries.put_cluster_spiffe_id(&id("any", "2025-01-01T00:00:00Z", fallback));
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    entries.put_cluster_spiffe_id(&id("web", "2026-01-01T00:00:00Z", web));
    entries.put_pod(pod(1, "shop", json!({"app": "web"})));
    entries.put_pod(pod(2, "shop", json!({})));
    assert_eq!(paths(&entries.changes()), ["/any", "/ns/shop/sa/web"]);
    entries.remove_cluster_spiffe_id("uid-web");
    let changes = entries.changes();
    assert_eq!(paths(&changes), ["/any", "/any"]);
    assert_eq!(changes.unwanted.len(), 1);
}

#[test]
fn namespaces_select_and_are_ignored() {
    let mut entries = entries();
    let spec = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
    entries.put_cluster_spiffe_id(&id("mesh", "2026-01-01T00:00:00Z", spec));
    entries.put_namespace(namespace("shop", json!({})));
    entries.put_namespace(namespace("kube-system", json!({"team": "a"})));
    entries.put_pod(pod(1, "shop", json!({})));
    entries.put_pod(pod(2, "kube-system", json!({})));
    assert_eq!(entries.changes().wanted.len(), 0);
    entries.put_namespace(namespace("shop", json!({"team": "a"})));
    assert_eq!(paths(&entries.changes()), ["/ns/shop/sa/web"]);
    assert_eq!(
        stats(&entries, "mesh"),
        Stats {
            namespaces_selected: 2,
            namespaces_ignored: 1,
            pods_selected: 1,
            entries_to_set: 1,
            ..Stats::default()
        }
    );
    entries.remove_namespace("shop");
    assert_eq!(entries.changes().unwanted.len(), 1);
}

#[test]
fn services_give_dns_names_where_they_are_asked_for() {
    let mut entries = entries();
    let spec =
        json!({"autoPopulateDNSNames": true, "dnsNameTemplates": ["{{ .PodMeta.Name }}", "WEB"]});
    entries.put_cluster_spiffe_id(&id("mesh", "2026-01-01T00:00:00Z", spec));
    entries.put_pod(pod(1, "shop", json!({})));
    let slice = |uid: &str, pods: &[u32]| {
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| json!({"targetRef": {"kind": "Pod", "uid": self::uid(*pod)}}))
            .collect();
        json!({
            "metadata": {
                "uid": uid, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
            },
            "endpoints": endpoints,
        })
    };
    // Two slices of one service, one of them without the pod later on.
    entries.all_slices(&[slice("s1", &[1, 2]), slice("s2", &[1])]);
    let all = [
        "p1",
        "WEB",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
    ];
    assert_eq!(entries.changes().wanted[0].dns_names, all);
    entries.put_slice(&slice("s2", &[]));
    assert_eq!(entries.changes().wanted[0].dns_names, all);
    entries.remove_slice("s1");
    assert_eq!(entries.changes().wanted[0].dns_names, ["p1", "WEB"]);
    entries.all_slices(&[]);
    assert!(entries.services.is_empty(), "nothing is left behind");
}

#[test]
fn what_cannot_be_rendered_is_told_and_nobody_else_suffers() {
    let mut entries = entries();
    let spec = json!({"spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.app }}"});
    entries.put_cluster_spiffe_id(&id("app", "2026-01-01T00:00:00Z", spec));
    entries.put_cluster_spiffe_id(&id(
        "broken",
        "2026-01-02T00:00:00Z",
        json!({"ttl": "soon"}),
    ));
    let other = json!({"spiffeIDTemplate": "spiffe://other.org/x"});
    entries.put_cluster_spiffe_id(&id("other", "2026-01-03T00:00:00Z", other));
    let reserved = json!({"spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/spire/server"});
    entries.put_cluster_spiffe_id(&id("reserved", "2026-01-04T00:00:00Z", reserved));
    entries.put_pod(pod(1, "shop", json!({"app": "web"})));
    entries.put_pod(pod(2, "shop", json!({"app": "a b"})));
    entries.put_pod(pod(3, "shop", json!({})));
    let mut early = pod(4, "shop", json!({"app": "early"}));
    early["spec"]["nodeName"] = Value::Null;
    entries.put_pod(early);
    assert_eq!(paths(&entries.changes()), ["/web"]);
    let app = stats(&entries, "app");
    assert_eq!((app.pods_selected, app.entries_to_set), (4, 1));
    assert_eq!(app.pod_entry_render_failures, 2);
    assert_eq!(stats(&entries, "other").pod_entry_render_failures, 3);
    assert_eq!(stats(&entries, "reserved").pod_entry_render_failures, 3);
    assert_eq!(stats(&entries, "broken"), Stats::default());
    let troubles = entries.troubles();
    assert!(
        troubles[0].contains("`broken`") && troubles[0].contains("soon"),
        "{troubles:?}"
    );
    assert!(troubles.len() <= 9, "{troubles:?}");
    // What the registry refuses is told, too, until it does not.
    let entry = entries.wanted().next().unwrap().id.clone();
    entries.answered(&entry, Some("similar entry already exists".to_owned()));
    assert_eq!(stats(&entries, "app").entry_failures, 1);
    entries.answered(&entry, None);
    assert_eq!(stats(&entries, "app").entry_failures, 0);
}

#[test]
fn a_class_says_whose_it_is_and_our_own_status_is_no_change() {
    let mut entries = entries();
    entries.settings.class = "ours".to_owned();
    let of = |class: &str| {
        let mut object = id("x", "2026-01-01T00:00:00Z", json!({}));
        object["spec"]["className"] = class.into();
        object
    };
    entries.put_pod(pod(1, "shop", json!({})));
    entries.put_cluster_spiffe_id(&of("theirs"));
    assert_eq!(entries.len(), 0);
    entries.put_cluster_spiffe_id(&of(""));
    assert_eq!(entries.len(), 0);
    entries.put_cluster_spiffe_id(&of("ours"));
    assert_eq!(entries.changes().wanted.len(), 1);
    let stats = entries.stats();
    assert!(stats[0].2, "the API server does not have them");
    let mut told = of("ours");
    told["status"] = json!({"stats": stats[0].1});
    entries.put_cluster_spiffe_id(&told);
    assert!(entries.changes().wanted.is_empty());
    assert!(!entries.stats()[0].2);
    // It changes hands.
    entries.put_cluster_spiffe_id(&of("theirs"));
    assert_eq!(entries.changes().unwanted.len(), 1);
    entries.settings.takes_classless = true;
    entries.put_cluster_spiffe_id(&of(""));
    assert_eq!(entries.len(), 1);
}

#[test]
fn a_parent_may_be_a_node_s() {
    let mut entries = entries();
    let parent =
        "spiffe://{{ .TrustDomain }}/spire/agent/k8s_psat/{{ .ClusterName }}/{{ .NodeMeta.UID }}";
    entries.settings.parent = Some(Text::parse(parent).unwrap());
    entries.put_cluster_spiffe_id(&id("x", "2026-01-01T00:00:00Z", json!({})));
    entries.put_pod(pod(1, "shop", json!({})));
    assert_eq!(entries.changes().wanted.len(), 0);
    assert_eq!(stats(&entries, "x").pod_entry_render_failures, 1);
    entries.put_node(json!({"metadata": {"name": "n1", "uid": "9f"}}));
    let changes = entries.changes();
    assert_eq!(
        changes.wanted[0].parent_id.path(),
        "/spire/agent/k8s_psat/east/9f"
    );
}

#[test]
fn five_thousand_pods_are_rendered_at_once_and_one_alone() {
    let mut entries = entries();
    entries.put_cluster_spiffe_id(&id("x", "2026-01-01T00:00:00Z", json!({})));
    entries.all_pods((0..5000).map(|n| pod(n, "shop", json!({}))).collect());
    assert_eq!(entries.changes().wanted.len(), 5000);
    for number in 0..50 {
        entries.put_pod(pod(number, "shop", json!({"changed": "yes"})));
    }
    assert_eq!(entries.changes().wanted.len(), 50);
}

#[test]
fn a_status_that_does_not_stick_is_not_written_in_a_circle() {
    let mut entries = entries();
    entries.put_cluster_spiffe_id(&id("x", "2026-01-01T00:00:00Z", json!({})));
    let (name, stats, differs) = entries.stats().remove(0);
    assert!(differs);
    entries.told(&name, stats);
    assert!(!entries.stats()[0].2);
    entries.tell_again();
    assert!(entries.stats()[0].2);
    // What changes is told at once.
    entries.told(&name, stats);
    entries.put_namespace(namespace("shop", json!({})));
    assert!(entries.stats()[0].2);
}
