use portcullis_policy::inventory::WorkloadFound;
use portcullis_policy::resource::WorkloadKind;

use crate::world::{World, deployment, pod};
use crate::{
    AMBIGUOUS, UNKNOWN, all_differ, found, found_when, is, resolved, to_address, to_workload,
};

fn world() -> World {
    World::default()
        .with(deployment("foo", "web"))
        .with(pod("foo", "web"))
        .with(deployment("foo", "api"))
        .with(pod("bar", "api"))
        .with(pod("foo", "api-1"))
        .declare("foo", "vm", &[])
}

#[test]
fn a_pod_comes_first_then_controllers_and_declared_workloads() {
    let world = world();
    assert_eq!(found(&world, &to_workload("foo/web")), is("pod/foo/web"));
    assert_eq!(
        found(&world, &to_workload("foo/api")),
        is("deployment/foo/api")
    );
    assert_eq!(found(&world, &to_workload("bar/api")), is("pod/bar/api"));
    assert_eq!(found(&world, &to_workload("foo/vm")), is("declared/foo/vm"));
    let how = resolved(&world, &to_workload("foo/web")).workload_found;
    assert_eq!(how, WorkloadFound::Named);
    assert_eq!(how.to_string(), "named by `portcullis.workload`");
}

#[test]
fn a_kind_in_front_is_exact() {
    let world = world();
    assert_eq!(
        found(&world, &to_workload("deployment/foo/web")),
        is("deployment/foo/web")
    );
    assert_eq!(
        found(&world, &to_workload("pod/foo/web")),
        is("pod/foo/web")
    );
    assert_eq!(
        found(&world, &to_workload("Pod/foo/web")),
        is("pod/foo/web")
    );
    assert_eq!(
        found(&world, &to_workload("declared/foo/vm")),
        is("declared/foo/vm")
    );
    assert_eq!(found(&world, &to_workload("pod/foo/api")), UNKNOWN);
    assert_eq!(found(&world, &to_workload("service/foo/web")), UNKNOWN);
}

#[test]
fn a_name_that_leads_nowhere_does_not_fall_through() {
    let world = world()
        .with(pod("foo", "here").at("10.0.0.1"))
        .default_workload("foo/web");
    for name in [
        "foo/nope",
        "nope/web",
        "web",
        "",
        "/",
        "foo/",
        "pod/foo/web/",
        "a/b/c/d",
    ] {
        let mut request = to_address("10.0.0.1");
        request.destination.principal = Some("spiffe://cluster.local/ns/foo/sa/default".into());
        request.destination.workload = Some(name.into());
        assert_eq!(found(&world, &request), UNKNOWN, "{name}");
        request.destination.workload = None;
        assert_eq!(found(&world, &request), is("pod/foo/here"));
    }
    let unresolved = world
        .inventory()
        .resolve(&to_workload("foo/nope"), all_differ);
    assert_eq!(
        unresolved.unwrap_err().to_string(),
        "no workload `foo/nope`, which `portcullis.workload` names"
    );
}

#[test]
fn two_controllers_of_one_name_are_ambiguous_unless_alike() {
    let world = World::default()
        .with(deployment("foo", "web"))
        .with(deployment("foo", "web").kind(WorkloadKind::StatefulSet));
    assert_eq!(found(&world, &to_workload("foo/web")), AMBIGUOUS);
    assert_eq!(
        found_when(&world, &to_workload("foo/web"), |_| true),
        is("deployment/foo/web")
    );
    assert_eq!(
        found(&world, &to_workload("statefulset/foo/web")),
        is("statefulset/foo/web")
    );
}

#[test]
fn a_named_pod_need_not_run() {
    let world = World::default().with(pod("foo", "web").ended());
    assert_eq!(found(&world, &to_workload("foo/web")), is("pod/foo/web"));
}
