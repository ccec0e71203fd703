use portcullis_policy::inventory::WorkloadFound;

use crate::world::{World, deployment, pod};
use crate::{AMBIGUOUS, UNKNOWN, found, found_when, is, resolved, to_address};

fn slice(pod: Option<(&str, &str)>) -> World {
    World::default()
        .service("foo", "web", &[("app", "web")], &[])
        .endpoint("foo", Some("web"), "10.0.0.9", pod)
}

#[test]
fn an_endpoint_names_its_pod() {
    let world = slice(Some(("foo", "web-0")))
        .with(pod("foo", "web-0"))
        .with(pod("foo", "web-1"));
    assert_eq!(found(&world, &to_address("10.0.0.9")), is("pod/foo/web-0"));
    assert_eq!(
        found(&world, &to_address("::ffff:10.0.0.9")),
        is("pod/foo/web-0")
    );
    assert_eq!(found(&world, &to_address("10.0.0.8")), UNKNOWN);
    let how = resolved(&world, &to_address("10.0.0.9")).workload_found;
    assert_eq!(
        how,
        WorkloadFound::EndpointAddress("10.0.0.9".parse().unwrap())
    );
}

#[test]
fn a_pods_own_address_is_stronger() {
    let world = slice(Some(("foo", "web-0")))
        .with(pod("foo", "web-0"))
        .with(pod("foo", "other").at("10.0.0.9"));
    assert_eq!(found(&world, &to_address("10.0.0.9")), is("pod/foo/other"));
}

#[test]
fn an_ended_or_host_network_pod_has_no_endpoint() {
    let world = slice(Some(("foo", "web-0")));
    for web in [
        pod("foo", "web-0").ended(),
        pod("foo", "web-0").host_network(),
    ] {
        assert_eq!(
            found(&world.clone().with(web), &to_address("10.0.0.9")),
            UNKNOWN
        );
    }
    assert_eq!(
        found(&world.with(pod("foo", "web-0")), &to_address("10.0.0.9")),
        is("pod/foo/web-0")
    );
}

#[test]
fn an_undescribed_pod_is_its_controllers() {
    let world = slice(Some(("foo", "web-5d4f-x2x9p")))
        .with(deployment("foo", "web").label("app", "web"))
        .with(deployment("foo", "api").label("app", "web"))
        .with(deployment("foo", "we").label("app", "web"))
        .with(deployment("bar", "web").label("app", "web"));
    assert_eq!(
        found(&world, &to_address("10.0.0.9")),
        is("deployment/foo/web")
    );
    // nor one of another namespace
    let abroad = slice(Some(("bar", "web-5d4f-x2x9p")))
        .with(deployment("foo", "web").label("app", "web"))
        .with(deployment("bar", "web").label("app", "web"));
    assert_eq!(found(&abroad, &to_address("10.0.0.9")), UNKNOWN);
    // one that the service does not select cannot have made it
    let unselected = slice(Some(("foo", "web-5d4f-x2x9p"))).with(deployment("foo", "web"));
    assert_eq!(found(&unselected, &to_address("10.0.0.9")), UNKNOWN);
    // another pod of the service is no stand-in
    let sibling = slice(Some(("foo", "web-1"))).with(pod("foo", "web").label("app", "web"));
    assert_eq!(found(&sibling, &to_address("10.0.0.9")), UNKNOWN);
}

#[test]
fn an_endpoint_without_a_pod_is_any_workload_of_its_service() {
    let one = slice(None).with(deployment("foo", "web").label("app", "web"));
    assert_eq!(
        found(&one, &to_address("10.0.0.9")),
        is("deployment/foo/web")
    );
    let two = one.with(deployment("foo", "canary").label("app", "web"));
    assert_eq!(found(&two, &to_address("10.0.0.9")), AMBIGUOUS);
    assert_eq!(
        found_when(&two, &to_address("10.0.0.9"), |_| true),
        is("deployment/foo/web")
    );
    // a service without a selector has no workloads
    let manual = World::default()
        .service("foo", "web", &[], &[])
        .endpoint("foo", Some("web"), "10.0.0.9", None)
        .with(pod("foo", "web"));
    assert_eq!(found(&manual, &to_address("10.0.0.9")), UNKNOWN);
}
