use serde_json::json;

use super::*;

fn cluster() -> Cluster {
    Cluster {
        trust_domain: "example.org".to_owned(),
        name: Some("east".to_owned()),
        domain: Some("cluster.local".to_owned()),
    }
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "0b1c",
            "labels": {"app": "web", "app.kubernetes.io/name": "shop-web", "empty": ""},
        },
        "spec": {"serviceAccountName": "web", "nodeName": "n1", "hostNetwork": true},
        "status": {"phase": "Running"},
    })
}

fn render(text: &str) -> Result<String, RenderError> {
    let (cluster, pod) = (cluster(), pod());
    let node = json!({"metadata": {"name": "n1", "uid": "9f"}});
    Text::parse(text)?.render(&Facts {
        cluster: &cluster,
        pod: &pod,
        node: Some(&node),
    })
}

#[test]
fn the_usual_templates_are_rendered() {
    for (text, rendered) in [
        (
            "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}",
            "spiffe://example.org/ns/shop/sa/web",
        ),
        (
            "{{.PodSpec.ServiceAccountName}}.{{ .PodMeta.Namespace }}.svc.{{ .ClusterDomain }}",
            "web.shop.svc.cluster.local",
        ),
        ("k8s:node-name:{{ .NodeMeta.Name }}", "k8s:node-name:n1"),
        ("{{ .ClusterName }}/{{ .NodeMeta.UID }}", "east/9f"),
        ("{{ .PodMeta.Labels.app }}", "web"),
        (
            r#"{{ index .PodMeta.Labels "app.kubernetes.io/name" }}"#,
            "shop-web",
        ),
        ("a/ {{- .PodMeta.Name -}} \n /b", "a/web-0/b"),
        ("{{- index .PodMeta.Labels `app` -}} \n", "web"),
        ("plain", "plain"),
        ("", ""),
    ] {
        assert_eq!(render(text).as_deref(), Ok(rendered), "{text}");
    }
}

#[test]
fn what_a_pod_has_not_makes_no_identity() {
    for text in [
        "{{ .PodMeta.Labels.absent }}",
        "{{ .PodMeta.Labels.empty }}",
        "{{ .PodMeta.Annotations.any }}",
        "{{ .NodeSpec.ProviderID }}",
        r#"{{ index .PodMeta.Labels "absent" }}"#,
    ] {
        assert!(
            matches!(render(text), Err(RenderError::Missing(_))),
            "{text}"
        );
    }
    assert!(matches!(
        render("{{ .PodMeta.Labels }}"),
        Err(RenderError::NoText(_))
    ));
    let long = format!("{}{{{{ .TrustDomain }}}}", "a".repeat(5000));
    assert_eq!(render(&long), Err(RenderError::TooLong));
}

#[test]
fn what_is_not_understood_is_refused_when_it_is_read() {
    for (text, offset, told) in [
        ("a{{ .PodMeta.Name", 0, "without its"),
        ("ab{{ .PodMeta.Nmae }}", 2, ".PodMeta has Name, Namespace"),
        ("{{ .Pod.Name }}", 0, "is unknown; there are .TrustDomain"),
        ("{{ .PodMeta }}", 0, "is no text"),
        ("{{ .PodMeta.Name.First }}", 0, "too deep"),
        ("{{ .PodMeta.Labels.a.b }}", 0, "too deep"),
        ("{{ .PodMeta.Name | upper }}", 0, "not understood"),
        ("{{ printf \"%s\" .PodMeta.Name }}", 0, "not understood"),
        ("{{-.PodMeta.Name }}", 0, "not understood"),
        ("{{ -}}", 0, "not understood"),
        ("{{ range .PodSpec.Containers }}", 0, "not understood"),
        (
            "{{ .PodSpec.Containers }}",
            0,
            ".PodSpec has ServiceAccountName",
        ),
        ("{{ .NodeSpec.Taints }}", 0, ".NodeSpec has ProviderID"),
        ("{{ if .PodMeta.Name }}x{{ end }}", 0, "not understood"),
        ("{{ }}", 0, "not understood"),
        ("{{ index .PodMeta.Labels app }}", 0, "double quotes"),
        ("{{ index .PodMeta.Name \"a\" }}", 0, "has no keys"),
        (
            "{{ index .PodMeta.Labels \"a\" \"b\" }}",
            0,
            "double quotes",
        ),
    ] {
        let error = Text::parse(text).unwrap_err();
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert!(error.message.contains(told), "{text}: {error}");
    }
}

#[test]
fn selectors_choose_pods_and_namespaces() {
    let selector = |value: Value| serde_json::from_value::<LabelSelector>(value).unwrap();
    let pod = pod();
    for (expected, value) in [
        (true, json!({})),
        (true, json!({"matchLabels": {"app": "web"}})),
        (false, json!({"matchLabels": {"app": "web", "tier": "x"}})),
        (
            true,
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}),
        ),
        (
            false,
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
        ),
        (
            true,
            json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}),
        ),
        (
            true,
            json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
        ),
        (
            false,
            json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
        ),
    ] {
        assert_eq!(selector(value.clone()).matches(&pod), expected, "{value}");
    }
    let mut template = EntryTemplate {
        spiffe_id: Text::parse("spiffe://{{ .TrustDomain }}/{{ .PodMeta.Name }}").unwrap(),
        dns_names: vec![Text::parse("{{ .PodMeta.Name }}").unwrap(); 2],
        selectors: vec![Text::parse("k8s:ns:{{ .PodMeta.Namespace }}").unwrap()],
        pods: LabelSelector::default(),
        namespaces: LabelSelector::default(),
    };
    assert!(template.selects(&pod, None));
    let mut over = pod.clone();
    over["status"]["phase"] = "Succeeded".into();
    assert!(!template.selects(&over, None));
    template.namespaces = selector(json!({"matchLabels": {"team": "a"}}));
    assert!(
        !template.selects(&pod, None),
        "nothing is known of its namespace"
    );
    let namespace = json!({"metadata": {"name": "shop", "labels": {"team": "a"}}});
    assert!(template.selects(&pod, Some(&namespace)));
    let cluster = cluster();
    let facts = Facts {
        cluster: &cluster,
        pod: &pod,
        node: None,
    };
    let rendered = template.render(&facts).unwrap();
    assert_eq!(rendered.spiffe_id, "spiffe://example.org/web-0");
    assert_eq!(rendered.dns_names, ["web-0"]);
    assert_eq!(rendered.selectors, ["k8s:pod-uid:0b1c", "k8s:ns:shop"]);
}
