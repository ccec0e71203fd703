//! Every kind, created, changed and deleted.

use portcullis_source::KindState;
use serde_json::json;

use super::followed::{Followed, allow, bad, decide_by, options, paths, policy};
use crate::cluster::{apply, delete, make_namespace, namespace, pod, shared, until};

const OPEN: &str = "allow no_allow_policy";
const CLOSED: &str = "deny no_allow_matched";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_decides_until_it_is_deleted() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "live").await;
    let followed = Followed::synced(client.clone(), &options()).await;
    assert_eq!(followed.state("pods"), KindState::Following);

    pod(&client, &shop, "web", "10.20.0.1").await;
    let web = format!("{shop}/web");
    followed.decides(&web, "/a", OPEN).await;

    apply(&client, &allow(&shop, "p", "web", &["/a"]))
        .await
        .unwrap();
    followed.decides(&web, "/a", "allow allowed_by").await;
    assert_eq!(followed.verdict(&web, "/b"), CLOSED);
    // Changed.
    apply(&client, &allow(&shop, "p", "web", &["/b"]))
        .await
        .unwrap();
    followed.decides(&web, "/b", "allow allowed_by").await;
    assert_eq!(followed.verdict(&web, "/a"), CLOSED);
    // A second one, and the first is gone.
    let deny = policy(
        &shop,
        "q",
        json!({ "action": "DENY", "rules": paths(&["/c"]) }),
    );
    apply(&client, &deny).await.unwrap();
    followed.decides(&web, "/c", "deny denied_by").await;
    delete(&client, &allow(&shop, "p", "web", &["/b"])).await;
    followed.decides(&web, "/a", OPEN).await;
    delete(&client, &deny).await;
    followed.decides(&web, "/c", OPEN).await;
    // And the pod.
    let gone = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": shop, "name": "web" } });
    delete(&client, &gone).await;
    followed
        .decides(&web, "/a", "deny unknown_destination")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_update_keeps_the_last_good_version_and_one_never_good_closes() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "bad").await;
    let followed = Followed::synced(client.clone(), &options()).await;
    for (name, address) in [("web", "10.20.1.1"), ("db", "10.20.1.2")] {
        pod(&client, &shop, name, address).await;
    }
    let (web, db) = (format!("{shop}/web"), format!("{shop}/db"));
    apply(&client, &allow(&shop, "web", "web", &["/a"]))
        .await
        .unwrap();
    followed.decides(&web, "/a", "allow allowed_by").await;
    let before = followed.status();

    // Of `web` a good version was seen, of `db` none.
    apply(&client, &bad(&shop, "web", "web")).await.unwrap();
    apply(&client, &bad(&shop, "db", "db")).await.unwrap();
    followed.decides(&db, "/a", "deny invalid_resource").await;
    until("one is kept", async || followed.status().kept > before.kept).await;
    assert_eq!(followed.verdict(&web, "/a"), "allow allowed_by");
    assert_eq!(followed.verdict(&web, "/b"), CLOSED);
    assert!(followed.status().closed > before.closed);

    // Everything else moves on.
    apply(&client, &allow(&shop, "more", "web", &["/b"]))
        .await
        .unwrap();
    followed.decides(&web, "/b", "allow allowed_by").await;
    // Mended, they are as if nothing had happened.
    apply(&client, &allow(&shop, "web", "web", &["/c"]))
        .await
        .unwrap();
    apply(&client, &allow(&shop, "db", "db", &["/a"]))
        .await
        .unwrap();
    followed.decides(&web, "/c", "allow allowed_by").await;
    followed.decides(&db, "/a", "allow allowed_by").await;
    assert_eq!(followed.verdict(&web, "/a"), CLOSED);
    // A bad one that is deleted closes nothing any more.
    apply(&client, &bad(&shop, "worse", "db")).await.unwrap();
    followed.decides(&db, "/a", "deny invalid_resource").await;
    delete(&client, &bad(&shop, "worse", "db")).await;
    followed.decides(&db, "/a", "allow allowed_by").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_endpoints_gateways_and_entries_are_followed() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let shop = namespace(&client, "kinds").await;
    let followed = Followed::synced(client.clone(), &options()).await;
    let meta = |name: &str| json!({ "namespace": shop, "name": name });
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("sa") }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta("svc"),
            "spec": { "selector": { "app": "x" }, "ports": [{ "port": 80 }] } }),
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("slice"),
            "addressType": "IPv4", "endpoints": [{ "addresses": ["10.20.2.9"] }] }),
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta("gw"),
            "spec": { "gatewayClassName": "istio-waypoint" } }),
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": { "name": format!("class-{shop}") }, "spec": { "controllerName": "istio.io/gateway-controller" } }),
        json!({ "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": meta("igw"),
            "spec": { "selector": { "istio": "ingress" }, "servers": [
                { "port": { "number": 80, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] }] } }),
        json!({ "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": meta("entry"),
            "spec": { "hosts": ["a.example"], "ports": [{ "number": 80, "name": "http", "protocol": "HTTP" }] } }),
        json!({ "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": meta("vm"),
            "spec": { "address": "10.20.2.7", "labels": { "app": "vm" } } }),
        json!({ "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta("pa"),
            "spec": { "mtls": { "mode": "STRICT" } } }),
        json!({ "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": meta("ra"),
            "spec": { "selector": { "matchLabels": { "app": "nobody" } },
                "jwtRules": [{ "issuer": "https://i.example", "jwksUri": "https://i.example/k" }] } }),
    ];
    let held = |resource: &str| {
        let status = followed.status();
        let mut kinds = status.kinds.iter();
        kinds
            .find(|kind| kind.kind.resource() == resource)
            .unwrap()
            .objects
    };
    for object in &objects {
        let (kind, group) = (
            object["kind"].as_str().unwrap(),
            object["apiVersion"].as_str().unwrap(),
        );
        let group = group.split_once('/').map_or("", |(group, _)| group);
        let followed_kind = portcullis_source::KINDS
            .iter()
            .find(|k| (k.name, k.group) == (kind, group))
            .unwrap();
        let resource = followed_kind.resource();
        let before = held(&resource);
        apply(&client, object).await.unwrap();
        until(&format!("{resource} came"), async || {
            held(&resource) > before
        })
        .await;
    }
    // The workload entry is a destination, and STRICT wants an identity of its peers.
    followed
        .decides(&format!("{shop}/vm"), "/", "deny mtls_required")
        .await;
    for object in &objects {
        delete(&client, object).await;
    }
    followed
        .decides(&format!("{shop}/vm"), "/", "deny unknown_destination")
        .await;
}

/// What else is in the cluster is seen by a source of few namespaces as little as if it were not there; the root namespace
/// always is.
#[tokio::test(flavor = "multi_thread")]
async fn few_namespaces_and_another_root_are_followed_alone() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let (mine, other) = (
        namespace(&client, "mine").await,
        namespace(&client, "other").await,
    );
    let root = namespace(&client, "root").await;
    for (namespace, address) in [(&mine, "10.20.3.1"), (&other, "10.20.3.2")] {
        pod(&client, namespace, "web", address).await;
    }
    // The mesh calls another namespace its root, and moves the trust domain.
    let mesh = |domain: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": root, "name": "istio-canary" },
            "data": { "mesh": format!("rootNamespace: {root}\ntrustDomain: {domain}\n") } })
    };
    apply(&client, &mesh("one.example")).await.unwrap();
    let everywhere = policy(
        &root,
        "deny-admin",
        json!({ "action": "DENY", "rules": paths(&["/admin"]) }),
    );
    apply(&client, &everywhere).await.unwrap();

    let mut chosen = options();
    chosen.namespaces = [mine.clone()].into();
    chosen.root_namespace = Some(root.clone());
    chosen.mesh_config = "istio-canary".to_owned();
    let followed = Followed::synced(client.clone(), &chosen).await;
    assert_eq!(
        followed.verdict(&format!("{mine}/web"), "/admin"),
        "deny denied_by"
    );
    assert_eq!(followed.verdict(&format!("{mine}/web"), "/"), OPEN);
    assert_eq!(
        followed.verdict(&format!("{other}/web"), "/"),
        "deny unknown_destination"
    );

    // Another cluster-wide source has its own root: for it that policy is one of a namespace.
    let all = Followed::synced(client.clone(), &options()).await;
    assert_eq!(all.verdict(&format!("{mine}/web"), "/admin"), OPEN);
    assert_eq!(all.verdict(&format!("{other}/web"), "/"), OPEN);

    let domain = || followed.snapshot().mesh().trust_domain.to_string();
    assert_eq!(domain(), "one.example");
    apply(&client, &mesh("two.example")).await.unwrap();
    until("the mesh has moved", async || domain() == "two.example").await;
    let by_mesh = policy(
        &mine,
        "by",
        json!({ "action": "ALLOW",
        "rules": [{ "from": [{ "source": { "principals": ["two.example/ns/a/sa/b"] } }] }] }),
    );
    apply(&client, &by_mesh).await.unwrap();
    let web = format!("{mine}/web");
    followed.decides(&web, "/", CLOSED).await;
    let snapshot = followed.snapshot();
    let allowed = decide_by(&snapshot, &web, "spiffe://two.example/ns/a/sa/b", "/");
    assert_eq!(allowed.reason.as_str(), "allowed_by");
    make_namespace(&client, &root).await;
}

/// What the kubelet and others write every few seconds makes no snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_policy_reads_makes_no_snapshot() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let quiet = namespace(&client, "quiet").await;
    let mut chosen = options();
    chosen.namespaces = [quiet.clone()].into();
    pod(&client, &quiet, "web", "10.20.4.1").await;
    let followed = Followed::synced(client.clone(), &chosen).await;
    followed.decides(&format!("{quiet}/web"), "/", OPEN).await;
    let before = followed.snapshot();
    let events = || {
        let counters = followed.source.counters();
        let place = portcullis_source::KINDS
            .iter()
            .position(|k| k.name == "Pod")
            .unwrap();
        counters.events[place].load(std::sync::atomic::Ordering::Relaxed)
    };
    let seen = events();
    for beat in 0..3 {
        let status = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": quiet, "name": "web" },
            "status": { "phase": "Running", "podIP": "10.20.4.1", "podIPs": [{ "ip": "10.20.4.1" }],
                "message": format!("beat {beat}") } });
        crate::cluster::apply_status(&client, &status)
            .await
            .unwrap();
    }
    until("the pod's events came", async || events() >= seen + 3).await;
    assert!(std::sync::Arc::ptr_eq(&before, &followed.snapshot()));
}

/// By another trust domain and root namespace than were meant, policies could mean the opposite.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_by_a_mesh_that_cannot_be_read() {
    let Some(cluster) = shared() else { return };
    let client = cluster.client().await;
    let root = namespace(&client, "mesh").await;
    let mesh = |text: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": root, "name": "istio" },
            "data": { "mesh": text } })
    };
    apply(&client, &mesh("trustDomain: [oops")).await.unwrap();
    let mut chosen = options();
    chosen.root_namespace = Some(root.clone());
    let followed = Followed::start(client.clone(), &chosen);
    until("the mesh is told to be missing", async || {
        let missing = followed.status().missing().join("\n");
        missing.contains(&format!("the mesh in ConfigMap/{root}/istio is refused"))
            && missing.contains("is not closed")
    })
    .await;
    assert!(!followed.status().synced);

    apply(&client, &mesh("trustDomain: td1")).await.unwrap();
    until("the source is synced", async || followed.status().synced).await;
    assert_eq!(followed.status().failure, None);
    assert_eq!(followed.snapshot().mesh().trust_domain, "td1");

    apply(&client, &mesh("trustDomain: [oops")).await.unwrap();
    let says = |what: &str| {
        followed
            .status()
            .failure
            .is_some_and(|why| why.contains(what))
    };
    until("the refusal is told", async || says("the last good one")).await;
    assert_eq!(followed.snapshot().mesh().trust_domain, "td1");
    apply(&client, &mesh("trustDomain: td2")).await.unwrap();
    until("the mesh is accepted", async || {
        followed.status().failure.is_none() && followed.snapshot().mesh().trust_domain == "td2"
    })
    .await;
}
