use portcullis_policy::decision::Reason;
use portcullis_policy::inventory::ServiceFound;
use portcullis_policy::request::{Http, Request, Target};

use crate::world::{World, pod};
use crate::{AMBIGUOUS, UNKNOWN, all_differ, found, found_when, is, resolved, to_workload};

fn world() -> World {
    let waypoint = pod("foo", "wp")
        .label("gateway.networking.k8s.io/gateway-name", "wp")
        .label(
            "gateway.networking.k8s.io/gateway-class-name",
            "istio-waypoint",
        );
    World::default()
        .with(waypoint)
        .with(pod("foo", "backend").at("10.0.0.7"))
        .service("foo", "reviews", &[], &["10.96.0.1", "fd00:96::1"])
        .service("bar", "reviews", &[], &["10.96.0.2"])
        .service("foo", "headless", &[], &[])
        .service_entry(
            "foo",
            "api",
            &["api.example.com", "*.wild.example.com"],
            &["240.0.0.1"],
        )
        .service_entry("foo", "deep", &["*.deep.wild.example.com"], &[])
}

/// `kind/namespace/name` of the service that the waypoint serves, if any.
type Served = Result<Option<String>, Reason>;

fn served(world: &World, change: impl FnOnce(&mut Request)) -> Served {
    let mut request = to_workload("foo/wp");
    change(&mut request);
    let inventory = world.inventory();
    let resolved = inventory
        .resolve(&request, all_differ)
        .map_err(|error| error.reason())?;
    Ok(resolved
        .service
        .map(|id| inventory.service(id).unwrap().to_string()))
}

fn with_host(request: &mut Request, host: &str) {
    request.http = Some(Http {
        host: host.into(),
        ..Http::default()
    });
}

fn named(world: &World, name: &str) -> Served {
    served(world, |request| {
        request.destination.service = Some(name.into())
    })
}

fn hosted(world: &World, host: &str) -> Served {
    served(world, |request| with_host(request, host))
}

fn some(name: &str) -> Served {
    Ok(Some(name.to_owned()))
}

#[test]
fn it_is_named() {
    let world = world();
    assert_eq!(named(&world, "foo/reviews"), some("service/foo/reviews"));
    assert_eq!(named(&world, "bar/reviews"), some("service/bar/reviews"));
    assert_eq!(named(&world, "foo/api"), some("serviceentry/foo/api"));
    assert_eq!(
        named(&world, "serviceentry/foo/api"),
        some("serviceentry/foo/api")
    );
    for unknown in [
        "foo/ratings",
        "reviews",
        "",
        "service/foo/api",
        "foo/reviews/x",
    ] {
        assert_eq!(
            named(&world, unknown),
            Err(Reason::UnknownDestination),
            "{unknown}"
        );
    }
}

#[test]
fn a_name_shared_by_both_kinds_is_ambiguous() {
    let world = world().service_entry("foo", "reviews", &["x.example.com"], &[]);
    assert_eq!(
        named(&world, "foo/reviews"),
        Err(Reason::DestinationAmbiguous)
    );
    assert_eq!(
        named(&world, "service/foo/reviews"),
        some("service/foo/reviews")
    );
}

#[test]
fn its_cluster_address_is_stronger_than_the_host() {
    let world = world();
    let at = |address: &str, host: &str| {
        served(&world, |request| {
            request.destination.address = Some(address.parse().unwrap());
            with_host(request, host);
        })
    };
    assert_eq!(at("10.96.0.1", "reviews.bar"), some("service/foo/reviews"));
    assert_eq!(
        at("::ffff:10.96.0.1", "reviews.bar"),
        some("service/foo/reviews")
    );
    assert_eq!(at("fd00:96::1", "x"), some("service/foo/reviews"));
    assert_eq!(at("240.0.0.1", "x"), some("serviceentry/foo/api"));
    assert_eq!(at("10.96.0.9", "reviews.bar"), some("service/bar/reviews"));
}

#[test]
fn a_host_in_every_form_of_cluster_name() {
    let world = world();
    for form in [
        "reviews.foo.svc.cluster.local",
        "reviews.foo.svc.cluster.local:9080",
        "reviews.foo.svc.cluster.local.",
        "Reviews.Foo.SVC.cluster.local",
        "reviews.foo.svc",
        "reviews.foo",
        "reviews.foo:80",
        "reviews",
        "reviews:80",
        "10.96.0.1",
        "10.96.0.1:80",
        "[fd00:96::1]:80",
        "[fd00:96::1]",
    ] {
        assert_eq!(hosted(&world, form), some("service/foo/reviews"), "{form}");
    }
    assert_eq!(hosted(&world, "reviews.bar"), some("service/bar/reviews"));
    assert_eq!(hosted(&world, "headless"), some("service/foo/headless"));
    let mut request = to_workload("foo/wp");
    with_host(&mut request, "reviews");
    assert_eq!(
        resolved(&world, &request).service_found,
        Some(ServiceFound::Host)
    );
}

#[test]
fn a_host_of_a_service_entry() {
    let world = world();
    for (host, service) in [
        ("api.example.com", "serviceentry/foo/api"),
        ("API.example.com:443", "serviceentry/foo/api"),
        ("a.wild.example.com", "serviceentry/foo/api"),
        ("a.b.wild.example.com", "serviceentry/foo/api"),
        ("a.deep.wild.example.com", "serviceentry/foo/deep"),
    ] {
        assert_eq!(hosted(&world, host), some(service), "{host}");
    }
    assert_eq!(hosted(&world, "wild.example.com"), Ok(None));
}

#[test]
fn a_cluster_name_of_no_service_is_unknown_and_any_other_host_is_none() {
    let world = world();
    for unknown in [
        "ratings.foo.svc.cluster.local",
        "ratings.foo.svc",
        "reviews.nope.svc.cluster.local:80",
        "a.b.c.svc.cluster.local",
        "reviews.svc.cluster.local",
        "api.foo.svc.cluster.local",
    ] {
        assert_eq!(
            hosted(&world, unknown),
            Err(Reason::UnknownDestination),
            "{unknown}"
        );
    }
    for none in [
        "ratings",
        "www.example.com",
        "",
        ":80",
        "10.1.2.3",
        "[::1]:80",
        "::1",
    ] {
        assert_eq!(hosted(&world, none), Ok(None), "{none}");
    }
    assert_eq!(
        served(&world, |_| ()),
        Ok(None),
        "tcp without a cluster address"
    );
}

#[test]
fn a_shared_address_is_ambiguous_unless_alike() {
    let world = world().service_entry("bar", "twin", &["twin.example.com"], &["240.0.0.1"]);
    let mut request = to_workload("foo/wp");
    request.destination.address = Some("240.0.0.1".parse().unwrap());
    assert_eq!(found(&world, &request), AMBIGUOUS);
    assert_eq!(found_when(&world, &request, |_| true), is("pod/foo/wp"));
}

#[test]
fn a_service_entry_takes_no_services_place() {
    let world = world().service_entry(
        "evil",
        "twin",
        &[
            "reviews.foo.svc.cluster.local",
            "reviews.foo",
            "reviews",
            "*",
        ],
        &["10.96.0.1"],
    );
    let mut request = to_workload("foo/wp");
    request.destination.address = Some("10.96.0.1".parse().unwrap());
    assert_eq!(
        served(&world, |r| *r = request),
        some("service/foo/reviews")
    );
    for host in ["reviews.foo.svc.cluster.local", "reviews.foo", "reviews"] {
        assert_eq!(hosted(&world, host), some("service/foo/reviews"), "{host}");
    }
}

#[test]
fn only_a_waypoint_serves_services() {
    let world = world();
    let mut request = to_workload("foo/backend");
    request.destination.service = Some("foo/nope".into());
    let how = resolved(&world, &request);
    assert_eq!((how.service, how.service_found), (None, None));
    request.target = Some(Target::Waypoint);
    assert_eq!(found(&world, &request), UNKNOWN);
}
