use portcullis_policy::inventory::WorkloadFound;
use portcullis_policy::request::Request;
use portcullis_policy::resource::WorkloadKind;

use crate::world::{World, pod};
use crate::{AMBIGUOUS, UNKNOWN, found, found_when, is, resolved, to_address};

#[test]
fn a_running_pod_has_its_address() {
    let world = World::default()
        .with(pod("foo", "web").at("10.0.0.1").at("fd00::1"))
        .with(pod("foo", "api").at("10.0.0.2"));
    assert_eq!(found(&world, &to_address("10.0.0.1")), is("pod/foo/web"));
    assert_eq!(found(&world, &to_address("fd00::1")), is("pod/foo/web"));
    assert_eq!(found(&world, &to_address("10.0.0.2")), is("pod/foo/api"));
    assert_eq!(found(&world, &to_address("10.0.0.3")), UNKNOWN);
    let how = resolved(&world, &to_address("10.0.0.1")).workload_found;
    assert_eq!(how, WorkloadFound::PodAddress("10.0.0.1".parse().unwrap()));
}

#[test]
fn an_ipv4_mapped_address_is_its_ipv4() {
    let world = World::default()
        .with(pod("foo", "web").at("10.0.0.1"))
        .with(pod("foo", "api").at("::ffff:10.0.0.2"));
    assert_eq!(
        found(&world, &to_address("::ffff:10.0.0.1")),
        is("pod/foo/web")
    );
    assert_eq!(found(&world, &to_address("10.0.0.2")), is("pod/foo/api"));
    assert_eq!(found(&world, &to_address("::10.0.0.1")), UNKNOWN);
}

#[test]
fn a_pod_that_ended_or_shares_its_node_has_none() {
    let ended = World::default().with(pod("foo", "web").at("10.0.0.1").ended());
    assert_eq!(found(&ended, &to_address("10.0.0.1")), UNKNOWN);
    let on_node = World::default().with(pod("foo", "web").at("10.0.0.1").host_network());
    assert_eq!(found(&on_node, &to_address("10.0.0.1")), UNKNOWN);
    // so the address can pass on
    let reused = World::default()
        .with(pod("foo", "old").at("10.0.0.1").ended())
        .with(pod("bar", "new").at("10.0.0.1"))
        .with(pod("foo", "agent").at("10.0.0.1").host_network());
    assert_eq!(found(&reused, &to_address("10.0.0.1")), is("pod/bar/new"));
}

#[test]
fn two_running_pods_at_one_address_are_ambiguous_unless_alike() {
    let world = World::default()
        .with(pod("foo", "b").at("10.0.0.1"))
        .with(pod("foo", "a").at("10.0.0.1"));
    assert_eq!(found(&world, &to_address("10.0.0.1")), AMBIGUOUS);
    // the first document stands for all of them
    assert_eq!(
        found_when(&world, &to_address("10.0.0.1"), |_| true),
        is("pod/foo/b")
    );
    // a default does not settle it
    let world = world.default_workload("foo/a");
    assert_eq!(found(&world, &to_address("10.0.0.1")), AMBIGUOUS);
}

#[test]
fn one_workload_with_an_address_twice_is_one() {
    let web = pod("foo", "a")
        .at("10.0.0.1")
        .at("::ffff:10.0.0.1")
        .at("10.0.0.1");
    assert_eq!(
        found(&World::default().with(web), &to_address("10.0.0.1")),
        is("pod/foo/a")
    );
}

#[test]
fn entries_and_declared_workloads_come_last() {
    let entry = pod("foo", "entry").kind(WorkloadKind::WorkloadEntry);
    let world = World::default()
        .with(pod("foo", "pod").at("10.0.0.1"))
        .with(entry.at("10.0.0.1").at("10.0.0.2"))
        .declare("foo", "vm", &["10.0.0.1", "10.0.0.3"]);
    assert_eq!(found(&world, &to_address("10.0.0.1")), is("pod/foo/pod"));
    assert_eq!(
        found(&world, &to_address("10.0.0.2")),
        is("workloadentry/foo/entry")
    );
    assert_eq!(
        found(&world, &to_address("10.0.0.3")),
        is("declared/foo/vm")
    );
    let how = resolved(&world, &to_address("10.0.0.3")).workload_found;
    assert_eq!(
        how,
        WorkloadFound::EntryAddress("10.0.0.3".parse().unwrap())
    );
}

/// A request to an address, with the certificate of a service account.
fn to_address_as(address: &str, account: &str) -> Request {
    let mut request = to_address(address);
    request.destination.principal = Some(format!("spiffe://cluster.local/ns/{account}"));
    request
}

#[test]
fn what_anybody_may_write_takes_no_address_of_a_node_or_service() {
    let entry = pod("evil", "entry").kind(WorkloadKind::WorkloadEntry);
    let world = World::default()
        .with(pod("foo", "edge").at("10.0.0.1").host_network())
        .with(pod("evil", "pod").at("10.1.0.1"))
        .service("foo", "web", &[], &["10.96.0.1"])
        .with(entry.at("10.0.0.1").at("10.96.0.1").at("10.0.0.9"))
        .endpoint("evil", None, "10.0.0.1", Some(("evil", "pod")))
        .endpoint("evil", None, "10.96.0.1", Some(("evil", "pod")));
    for taken in ["10.0.0.1", "10.96.0.1", "::ffff:10.0.0.1"] {
        assert_eq!(found(&world, &to_address(taken)), UNKNOWN, "{taken}");
    }
    let to_edge = to_address_as("10.0.0.1", "foo/sa/default");
    assert_eq!(found(&world, &to_edge), is("pod/foo/edge"));
    assert_eq!(
        found(&world, &to_address("10.0.0.9")),
        is("workloadentry/evil/entry")
    );
    // Where it ended, the address is free.
    let ended = World::default()
        .with(pod("foo", "edge").at("10.0.0.1").host_network().ended())
        .with(
            pod("foo", "vm")
                .kind(WorkloadKind::WorkloadEntry)
                .at("10.0.0.1"),
        );
    assert_eq!(
        found(&ended, &to_address("10.0.0.1")),
        is("workloadentry/foo/vm")
    );
}

#[test]
fn the_proxys_certificate_is_stronger_than_a_claim() {
    let vm = |namespace: &str, account: &str| {
        let vm = pod(namespace, account).kind(WorkloadKind::WorkloadEntry);
        vm.account(account).at("10.0.0.9")
    };
    let world = World::default()
        .with(vm("foo", "db"))
        .with(vm("evil", "db"))
        .with(pod("foo", "web").account("web").at("10.0.0.1"))
        .declare("ops", "backup", &["10.0.0.7"]);
    assert_eq!(found(&world, &to_address("10.0.0.9")), AMBIGUOUS);
    let to = |account: &str| found(&world, &to_address_as("10.0.0.9", account));
    assert_eq!(to("foo/sa/db"), is("workloadentry/foo/db"));
    assert_eq!(to("foo/sa/web"), is("pod/foo/web"));
    // An account that nothing is known of settles nothing.
    assert_eq!(to("foo/sa/other"), AMBIGUOUS);
    // An address of a running pod, and what the operator declares, are facts.
    let of_pod = to_address_as("10.0.0.1", "foo/sa/db");
    assert_eq!(found(&world, &of_pod), is("pod/foo/web"));
    let declared = to_address_as("10.0.0.7", "foo/sa/db");
    assert_eq!(found(&world, &declared), is("declared/ops/backup"));
}

#[test]
fn an_ambiguous_answer_names_its_candidates() {
    let world = ["a", "b", "c", "d", "e"]
        .into_iter()
        .fold(World::default(), |world, name| {
            world.with(pod("foo", name).at("10.0.0.1"))
        });
    let told = world
        .inventory()
        .resolve(&to_address("10.0.0.1"), crate::all_differ)
        .unwrap_err();
    assert_eq!(
        told.to_string(),
        "`pod/foo/a`, `pod/foo/b`, `pod/foo/c` and 2 more with different policies could be the \
         destination"
    );
}
