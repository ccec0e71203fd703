//! Which workload, target and service a request means, and when it means none.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

mod by_address;
mod by_endpoint;
mod by_name;
mod by_principal;
mod istio;
mod properties;
mod service;
mod target;
mod world;

use portcullis_policy::decision::Reason;
use portcullis_policy::inventory::{Candidate, Resolved, Unresolved, WorkloadFound};
use portcullis_policy::request::Request;

use world::{World, pod};

/// Every candidate has policies of its own.
fn all_differ(_: &[Candidate]) -> bool {
    false
}

fn to_address(address: &str) -> Request {
    let mut request = Request::empty();
    request.destination.address = Some(address.parse().unwrap());
    request
}

fn to_workload(name: &str) -> Request {
    let mut request = Request::empty();
    request.destination.workload = Some(name.into());
    request
}

fn to_principal(principal: &str) -> Request {
    let mut request = Request::empty();
    request.destination.principal = Some(principal.into());
    request
}

/// `kind/namespace/name`, or the reason.
type Found = Result<String, Reason>;

fn found(world: &World, request: &Request) -> Found {
    found_when(world, request, all_differ)
}

fn found_when(world: &World, request: &Request, same: impl Fn(&[Candidate]) -> bool) -> Found {
    let inventory = world.inventory();
    let resolved = inventory
        .resolve(request, same)
        .map_err(|unresolved| unresolved.reason())?;
    let workload = inventory.workload(resolved.workload).unwrap();
    Ok(format!(
        "{}/{}/{}",
        workload.kind.as_str(),
        workload.namespace,
        workload.name
    ))
}

fn resolved(world: &World, request: &Request) -> Resolved {
    world.inventory().resolve(request, all_differ).unwrap()
}

fn is(name: &str) -> Found {
    Ok(name.to_owned())
}

const UNKNOWN: Found = Err(Reason::UnknownDestination);
const AMBIGUOUS: Found = Err(Reason::DestinationAmbiguous);

#[test]
fn the_default_decides_where_nothing_else_does() {
    let world = World::default()
        .with(pod("foo", "web").at("10.0.0.1"))
        .default_workload("foo/web");
    for request in [
        Request::empty(),
        to_address("10.9.9.9"),
        to_principal("spiffe://other/ns/foo/sa/web"),
    ] {
        assert_eq!(found(&world, &request), is("pod/foo/web"));
        assert_eq!(
            resolved(&world, &request).workload_found,
            WorkloadFound::Default
        );
    }
    let unknown = World::default()
        .with(pod("foo", "web"))
        .default_workload("foo/nope");
    assert_eq!(found(&unknown, &Request::empty()), UNKNOWN);
    assert_eq!(
        unknown.inventory().resolve(&Request::empty(), all_differ),
        Err(Unresolved::UnknownDefault("foo/nope".into()))
    );
    assert_eq!(found(&World::default(), &Request::empty()), UNKNOWN);
}

#[test]
fn an_inventory_lists_what_it_holds() {
    let world = World::default()
        .with(pod("foo", "web"))
        .service("foo", "web", &[], &[])
        .declare("foo", "vm", &["10.0.0.1"]);
    let inventory = world.inventory();
    assert_eq!(inventory.len(), 2);
    assert!(!inventory.is_empty());
    let names: Vec<_> = inventory
        .workloads()
        .map(|(_, workload)| workload.name.as_str())
        .collect();
    assert_eq!(names, ["web", "vm"]);
    for (id, workload) in inventory.workloads() {
        assert_eq!(inventory.workload(id), Some(workload));
    }
    let services: Vec<_> = inventory
        .services()
        .map(|(_, service)| service.to_string())
        .collect();
    assert_eq!(services, ["service/foo/web"]);
}

#[test]
fn what_will_find_no_destination_is_told() {
    let told = |world: &World| {
        let found = world.diagnose();
        found
            .iter()
            .map(|d| format!("{} {}", d.code, d.message))
            .collect::<Vec<_>>()
    };
    let clean = World::default()
        .with(pod("foo", "a").at("10.0.0.1"))
        .with(pod("foo", "b").at("10.0.0.1").ended())
        .with(pod("foo", "c").at("10.0.0.1").host_network())
        .declare("foo", "vm", &["10.0.0.1"])
        .default_workload("foo/a");
    assert!(told(&clean).is_empty());
    let shared = clean
        .with(pod("foo", "d").at("::ffff:10.0.0.1"))
        .default_workload("foo/x");
    assert_eq!(
        told(&shared),
        [
            "PC0402 `pod/foo/d` has the address `10.0.0.1` of `pod/foo/a`",
            "PC0403 no workload `foo/x`, the configured default",
        ]
    );
}
