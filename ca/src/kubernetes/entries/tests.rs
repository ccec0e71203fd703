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
    entries.stats()[format!("uid-{name}").as_str()]
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
    let (report, before) = entries.untold().remove(0);
    let mut told = of("ours");
    told["status"] = report.status(&before, &json!("2026-01-01T00:00:00Z"));
    entries.put_cluster_spiffe_id(&told);
    assert!(entries.changes().wanted.is_empty());
    assert_eq!(entries.untold(), []);
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
    let (report, _) = entries.untold().remove(0);
    entries.told(report.clone());
    assert_eq!(entries.untold(), []);
    entries.tell_again();
    assert_eq!(entries.untold().len(), 1);
    // What changes is told at once.
    entries.told(report);
    entries.put_namespace(namespace("shop", json!({})));
    assert_eq!(entries.untold().len(), 1);
}

#[test]
fn the_status_says_what_is_wrong_and_since_when() {
    let mut entries = entries();
    let mut object = id("x", "2026-01-01T00:00:00Z", json!({"onlyOn": "mondays"}));
    object["metadata"]["generation"] = json!(3);
    entries.put_cluster_spiffe_id(&object);
    let status = |entries: &Entries, now: &str| {
        let (report, before) = entries.untold().remove(0);
        report.status(&before, &json!(now))
    };
    let first = status(&entries, "2026-02-01T00:00:00Z");
    assert_eq!(first["observedGeneration"], 3);
    let [accepted] = first["conditions"].as_array().unwrap().as_slice() else {
        panic!("{first}");
    };
    assert_eq!(accepted["type"], "Accepted");
    assert_eq!(
        (&accepted["status"], &accepted["reason"]),
        (&json!("False"), &json!("Invalid"))
    );
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("unknown field `onlyOn`"), "{message}");
    // Another mistake: since when it is wrong stays.
    object["status"] = first;
    object["spec"] =
        json!({"spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Name | upper }}"});
    entries.put_cluster_spiffe_id(&object);
    let second = status(&entries, "2026-02-02T00:00:00Z");
    let accepted = &second["conditions"][0];
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .contains("not understood"),
        "{second}"
    );
    assert_eq!(accepted["lastTransitionTime"], "2026-02-01T00:00:00Z");
    // Now it is right, and a pod is not.
    object["status"] = second;
    object["spec"] =
        json!({"spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/{{ .PodMeta.Labels.app }}"});
    entries.put_cluster_spiffe_id(&object);
    entries.put_pod(pod(1, "shop", json!({})));
    entries.put_pod(pod(2, "shop", json!({"app": "web"})));
    entries.changes();
    let third = status(&entries, "2026-02-03T00:00:00Z");
    let [accepted, enforced] = third["conditions"].as_array().unwrap().as_slice() else {
        panic!("{third}");
    };
    assert_eq!(accepted["status"], "True");
    assert_eq!(accepted["lastTransitionTime"], "2026-02-03T00:00:00Z");
    assert_eq!(
        (&enforced["status"], &enforced["reason"]),
        (&json!("False"), &json!("EntriesFailed"))
    );
    assert_eq!(
        enforced["message"],
        "1 of 2 pods have no entry: `shop/p1`: `{{ .PodMeta.Labels.app }}` is nothing here"
    );
    // The registry's refusals count, too, and with the failures they go.
    entries.put_pod(pod(1, "shop", json!({"app": "cart"})));
    entries.changes();
    let ids: Vec<String> = entries.wanted().map(|entry| entry.id.clone()).collect();
    entries.answered(&ids[0], Some("similar entry already exists".to_owned()));
    let fourth = status(&entries, "2026-02-04T00:00:00Z");
    let told = fourth["conditions"][1]["message"].as_str().unwrap();
    assert!(
        told.starts_with("1 of 2 pods") && told.ends_with("already exists"),
        "{told}"
    );
    entries.answered(&ids[0], None);
    let fifth = status(&entries, "2026-02-05T00:00:00Z");
    assert_eq!(fifth["conditions"][1]["status"], "True");
    // A definition without conditions gets none.
    entries.has_no_conditions();
    let sixth = status(&entries, "2026-02-06T00:00:00Z");
    assert!(
        sixth.get("conditions").is_none() && sixth["stats"].is_object(),
        "{sixth}"
    );
}

#[test]
fn a_long_spec_makes_no_long_status() {
    let mut entries = entries();
    let long = "é".repeat(100_000);
    entries.put_cluster_spiffe_id(&id("x", "2026-01-01T00:00:00Z", json!({"ttl": long})));
    let (report, before) = entries.untold().remove(0);
    let status = report.status(&before, &json!("2026-02-01T00:00:00Z"));
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert!((2000..=2048).contains(&message.len()), "{}", message.len());
}
