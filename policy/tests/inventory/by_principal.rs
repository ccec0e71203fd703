use std::cell::RefCell;

use portcullis_policy::inventory::WorkloadFound;
use portcullis_policy::request::Target;

use crate::world::{World, deployment, pod};
use crate::{AMBIGUOUS, UNKNOWN, found, found_when, is, resolved, to_address, to_principal};

const WEB: &str = "spiffe://cluster.local/ns/foo/sa/web";

fn world() -> World {
    World::default().with(pod("foo", "web-0").account("web").at("10.0.0.1"))
}

#[test]
fn the_only_workload_of_the_service_account() {
    // names that would fit if a slash were one more character
    let world = world()
        .with(pod("foo", "x").account("web/x"))
        .with(pod("foo/x", "x").account("web"));
    assert_eq!(found(&world, &to_principal(WEB)), is("pod/foo/web-0"));
    assert_eq!(
        resolved(&world, &to_principal(WEB)).workload_found,
        WorkloadFound::ServiceAccount
    );
    for other in [
        "spiffe://cluster.local/ns/bar/sa/web",
        "spiffe://cluster.local/ns/foo/sa/api",
        "spiffe://other/ns/foo/sa/web",
        "cluster.local/ns/foo/sa/web",
        "spiffe://cluster.local/ns/foo/sa/web/x",
        "spiffe://cluster.local/ns/foo/x/sa/web",
        "spiffe://cluster.local/foo/web",
        "spiffe://cluster.local",
        "SPIFFE://cluster.local/ns/foo/sa/web",
        "",
    ] {
        assert_eq!(found(&world, &to_principal(other)), UNKNOWN, "{other}");
    }
}

#[test]
fn an_alias_is_the_meshs_own() {
    let world = world().trust_domains("td1", &["old"]);
    assert_eq!(
        found(&world, &to_principal("spiffe://td1/ns/foo/sa/web")),
        is("pod/foo/web-0")
    );
    assert_eq!(
        found(&world, &to_principal("spiffe://old/ns/foo/sa/web")),
        is("pod/foo/web-0")
    );
    assert_eq!(found(&world, &to_principal(WEB)), UNKNOWN);
}

#[test]
fn every_workload_of_the_account_must_be_alike() {
    let two = world().with(deployment("foo", "web").account("web"));
    assert_eq!(found(&two, &to_principal(WEB)), AMBIGUOUS);
    assert_eq!(
        found_when(&two, &to_principal(WEB), |_| true),
        is("pod/foo/web-0")
    );
    // one that ended does not count
    let ended = world().with(pod("foo", "old").account("web").ended());
    assert_eq!(found(&ended, &to_principal(WEB)), is("pod/foo/web-0"));
}

#[test]
fn the_address_is_stronger() {
    let world = world().with(pod("foo", "api").account("api").at("10.0.0.2"));
    let mut request = to_address("10.0.0.2");
    request.destination.principal = Some(WEB.into());
    assert_eq!(found(&world, &request), is("pod/foo/api"));
    request.destination.address = Some("10.0.0.3".parse().unwrap());
    assert_eq!(found(&world, &request), is("pod/foo/web-0"));
}

#[test]
fn likeness_is_asked_of_workloads_with_their_targets() {
    let gateway = pod("foo", "gw").account("web");
    let world = world().with(gateway.label("gateway.networking.k8s.io/gateway-name", "gw"));
    let asked = RefCell::new(Vec::new());
    let answer = found_when(&world, &to_principal(WEB), |candidates| {
        asked.borrow_mut().extend_from_slice(candidates);
        false
    });
    assert_eq!(answer, AMBIGUOUS);
    let asked = asked.into_inner();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].workload, asked[1].workload);
    assert_eq!(
        (asked[0].target, asked[1].target),
        (Target::Sidecar, Target::Gateway)
    );
}

#[test]
fn likeness_is_not_asked_of_one() {
    let answer = found_when(&world(), &to_principal(WEB), |candidates| {
        assert!(candidates.len() > 1, "{candidates:?}");
        false
    });
    assert_eq!(answer, is("pod/foo/web-0"));
}
