use portcullis_policy::inventory::TargetFound;
use portcullis_policy::request::Target;

use crate::world::{World, pod};
use crate::{resolved, to_workload};

const NAME: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
const MANAGED: &str = "gateway.istio.io/managed";

const SIDECAR: (Target, TargetFound) = (Target::Sidecar, TargetFound::Workload);
const WAYPOINT: (Target, TargetFound) = (Target::Waypoint, TargetFound::WaypointClass);
const GATEWAY: (Target, TargetFound) = (Target::Gateway, TargetFound::GatewayLabel);

fn of(world: &World) -> (Target, TargetFound) {
    let resolved = resolved(world, &to_workload("foo/w"));
    (resolved.target, resolved.target_found)
}

fn labelled(labels: &[(&str, &str)]) -> World {
    let pod = labels
        .iter()
        .fold(pod("foo", "w"), |pod, (k, v)| pod.label(k, v));
    World::default().with(pod)
}

#[test]
fn a_workload_is_a_sidecars() {
    assert_eq!(of(&labelled(&[])), SIDECAR);
    // without the name the other labels make no gateway
    assert_eq!(of(&labelled(&[(CLASS, "istio-waypoint")])), SIDECAR);
    assert_eq!(
        of(&labelled(&[(MANAGED, "istio.io-mesh-controller")])),
        SIDECAR
    );
}

#[test]
fn what_the_proxy_states_stands() {
    for target in [
        Target::Sidecar,
        Target::Gateway,
        Target::Waypoint,
        Target::Ztunnel,
    ] {
        for world in [
            labelled(&[]),
            labelled(&[(NAME, "gw"), (CLASS, "istio-waypoint")]),
        ] {
            let mut request = to_workload("foo/w");
            request.target = Some(target);
            let resolved = resolved(&world, &request);
            assert_eq!(
                (resolved.target, resolved.target_found),
                (target, TargetFound::Stated)
            );
        }
    }
}

#[test]
fn the_class_of_the_gateway_tells_a_waypoint() {
    let pod = || labelled(&[(NAME, "gw")]);
    assert_eq!(of(&pod()), GATEWAY);
    assert_eq!(of(&pod().gateway("foo", "gw", "istio-waypoint")), WAYPOINT);
    assert_eq!(of(&pod().gateway("foo", "gw", "istio-east-west")), WAYPOINT);
    assert_eq!(of(&pod().gateway("foo", "gw", "istio")), GATEWAY);
    assert_eq!(of(&pod().gateway("bar", "gw", "istio-waypoint")), GATEWAY);
    assert_eq!(of(&pod().gateway("foo", "x", "istio-waypoint")), GATEWAY);
}

#[test]
fn labels_tell_a_waypoint_without_the_gateway_document() {
    assert_eq!(
        of(&labelled(&[(NAME, "gw"), (CLASS, "istio-waypoint")])),
        WAYPOINT
    );
    assert_eq!(of(&labelled(&[(NAME, "gw"), (CLASS, "istio")])), GATEWAY);
    assert_eq!(
        of(&labelled(&[
            (NAME, "gw"),
            (MANAGED, "istio.io-mesh-controller")
        ])),
        WAYPOINT
    );
    assert_eq!(
        of(&labelled(&[
            (NAME, "gw"),
            (MANAGED, "istio.io-gateway-controller")
        ])),
        GATEWAY
    );
    // the document is what the label was copied from
    let both = labelled(&[(NAME, "gw"), (CLASS, "istio-waypoint")]);
    assert_eq!(of(&both.gateway("foo", "gw", "istio")), GATEWAY);
}

#[test]
fn a_class_of_the_mesh_controller_is_a_waypoint_class() {
    let world = |controller| {
        labelled(&[(NAME, "gw")])
            .gateway("foo", "gw", "mine")
            .gateway_class("mine", controller)
    };
    assert_eq!(of(&world("istio.io/mesh-controller")), WAYPOINT);
    assert_eq!(of(&world("istio.io/gateway-controller")), GATEWAY);
}

#[test]
fn an_istio_gateway_selects_its_pods_anywhere() {
    let found = |selector: &[(&str, &str)]| {
        let ingress = labelled(&[("istio", "ingressgateway"), ("app", "x")]);
        of(&ingress.istio_gateway("bar", selector))
    };
    let selected = (Target::Gateway, TargetFound::IstioGateway);
    assert_eq!(found(&[("istio", "ingressgateway")]), selected);
    assert_eq!(
        found(&[("app", "x"), ("istio", "ingressgateway")]),
        selected
    );
    assert_eq!(found(&[("istio", "egressgateway")]), SIDECAR);
    assert_eq!(found(&[("app", "y"), ("istio", "ingressgateway")]), SIDECAR);
    // no selector means every gateway, not every workload
    assert_eq!(found(&[]), SIDECAR);
}

#[test]
fn a_gateway_makes_no_gateway_of_another_namespaces_workload() {
    let db = || labelled(&[("app", "db")]);
    let selector = [("app", "db")];
    assert_eq!(of(&db().istio_gateway("evil", &selector)), SIDECAR);
    let selected = (Target::Gateway, TargetFound::IstioGateway);
    assert_eq!(of(&db().istio_gateway("foo", &selector)), selected);
    assert_eq!(of(&db().istio_gateway("istio-system", &selector)), selected);
    // Its own pod says that it is one, whatever the Gateway goes by.
    let ingress = labelled(&[("app", "db"), ("istio", "ingress")]);
    assert_eq!(of(&ingress.istio_gateway("bar", &selector)), selected);
}
