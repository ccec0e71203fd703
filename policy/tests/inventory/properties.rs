//! Whatever a request says, it is answered, and equal facts are answered equally.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_policy::request::{Http, Request, Target};
use proptest::prelude::*;

use crate::found;
use crate::world::{World, deployment, pod};

fn world() -> World {
    World::default()
        .with(pod("foo", "web").at("10.0.0.1").account("web"))
        .with(deployment("foo", "web").account("web"))
        .with(
            pod("foo", "wp")
                .at("10.0.0.2")
                .label("gateway.networking.k8s.io/gateway-name", "wp")
                .label(
                    "gateway.networking.k8s.io/gateway-class-name",
                    "istio-waypoint",
                ),
        )
        .service("foo", "web", &[("app", "web")], &["10.0.0.3"])
        .service_entry(
            "foo",
            "api",
            &["api.example.com", "*.example.com"],
            &["10.0.0.3"],
        )
        .endpoint("foo", Some("web"), "10.0.0.4", Some(("foo", "web")))
}

/// Mostly pieces of names, so that look-ups hit, and some arbitrary text.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("foo"),
        Just("web"),
        Just("wp"),
        Just("pod"),
        Just("deployment"),
        Just("/"),
        Just("."),
        Just("svc"),
        Just("cluster"),
        Just("local"),
        Just(":80"),
        Just("["),
        Just("]"),
        Just("::1"),
        Just("spiffe://"),
        Just("cluster.local"),
        Just("ns/"),
        Just("/sa/"),
        Just("é"),
        Just("*"),
        Just("api.example.com"),
        Just("10.0.0.3"),
        Just("%"),
        Just("\u{0}"),
    ];
    prop_oneof![
        9 => proptest::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

fn target() -> impl Strategy<Value = Option<Target>> {
    prop_oneof![
        Just(None),
        Just(Some(Target::Sidecar)),
        Just(Some(Target::Gateway)),
        Just(Some(Target::Waypoint)),
        Just(Some(Target::Ztunnel)),
    ]
}

prop_compose! {
    fn request()(
        workload in proptest::option::of(text()),
        service in proptest::option::weighted(0.2, text()),
        principal in proptest::option::of(text()),
        host in proptest::option::of(text()),
        last in proptest::option::of(0u8..6),
        target in target(),
    ) -> Request {
        let mut request = Request::empty();
        request.destination.workload = workload;
        request.destination.service = service;
        request.destination.principal = principal;
        request.destination.address = last.map(|last| Ipv4Addr::new(10, 0, 0, last).into());
        request.http = host.map(|host| Http { host, ..Http::default() });
        request.target = target;
        request
    }
}

proptest! {
    #[test]
    fn equal_addresses_and_hosts_are_answered_equally(request in request()) {
        let world = world();
        let answer = found(&world, &request);
        let mut mapped = request.clone();
        if let Some(IpAddr::V4(address)) = mapped.destination.address {
            mapped.destination.address = Some(address.to_ipv6_mapped().into());
        }
        if let Some(http) = &mut mapped.http {
            http.host = http.host.to_ascii_uppercase();
        }
        prop_assert_eq!(found(&world, &mapped), answer);
    }

    /// A name that the proxy states decides alone: no other fact turns an unknown one into a known.
    #[test]
    fn a_stated_name_decides_alone(request in request(), name in text()) {
        let world = world();
        let mut alone = Request::empty();
        alone.destination.workload = Some(name.clone());
        alone.target = Some(Target::Sidecar);
        let mut beside = request;
        beside.destination.workload = Some(name);
        beside.target = Some(Target::Sidecar);
        prop_assert_eq!(found(&world, &beside), found(&world, &alone));
    }
}
