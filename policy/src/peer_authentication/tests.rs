mod diagnose;

use std::collections::BTreeMap;

use super::*;
use crate::resource::{Metadata, Selector, WorkloadKind};

use MtlsMode::{Disable, Permissive, Strict, Unset};

fn web(namespace: &str) -> Workload {
    Workload {
        kind: WorkloadKind::Pod,
        namespace: namespace.into(),
        name: "web".into(),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        service_account: "default".into(),
        addresses: Vec::new(),
        host_network: false,
        running: true,
        ports: Vec::new(),
        at: Location::default(),
    }
}

fn policy(namespace: &str, name: &str, mode: MtlsMode) -> PeerAuthentication {
    PeerAuthentication {
        meta: Metadata {
            namespace: namespace.into(),
            name: name.into(),
            ..Metadata::default()
        },
        selector: None,
        mode,
        port_level: BTreeMap::new(),
    }
}

fn selecting(app: &str, mut policy: PeerAuthentication) -> PeerAuthentication {
    let match_labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    policy.selector = Some(Selector {
        match_labels,
        at: Location::default(),
    });
    policy
}

fn empty_selector(mut policy: PeerAuthentication) -> PeerAuthentication {
    policy.selector = Some(Selector {
        match_labels: BTreeMap::new(),
        at: Location::default(),
    });
    policy
}

fn ports(mut policy: PeerAuthentication, modes: &[(u16, MtlsMode)]) -> PeerAuthentication {
    policy.port_level = modes.iter().copied().collect();
    policy
}

fn created(mut policy: PeerAuthentication, year: u16) -> PeerAuthentication {
    policy.meta.creation_timestamp = Some(format!("{year}-01-01T00:00:00Z"));
    policy
}

fn set(policies: Vec<PeerAuthentication>) -> PeerAuthentications {
    let resources: Vec<Arc<Resource>> = policies
        .into_iter()
        .map(|p| Arc::new(Resource::PeerAuthentication(p)))
        .collect();
    PeerAuthentications::build(&resources, "root")
}

/// `Mode, namespace/name#field` of the sidecar on a port.
fn sidecar(policies: Vec<PeerAuthentication>, port: u16) -> (MtlsMode, String) {
    told(set(policies).effective(&web("foo"), Some(port), Target::Sidecar))
}

fn ztunnel(policies: Vec<PeerAuthentication>, port: u16) -> (MtlsMode, String) {
    told(set(policies).effective(&web("foo"), Some(port), Target::Ztunnel))
}

fn told(effective: Effective) -> (MtlsMode, String) {
    let by = match effective.set_by {
        SetBy::Policy { policy, field, .. } => format!("{policy}#{field}"),
        other => format!("{other:?}"),
    };
    (effective.mode, by)
}

fn says(mode: MtlsMode, by: &str) -> (MtlsMode, String) {
    (mode, by.to_owned())
}

#[test]
fn permissive_where_nothing_is_said() {
    assert_eq!(sidecar(vec![], 80), says(Permissive, "Default"));
    assert_eq!(
        sidecar(vec![policy("root", "p", Unset)], 80),
        says(Permissive, "Default")
    );
    assert_eq!(ztunnel(vec![], 80), says(Permissive, "Default"));
    assert_eq!(
        sidecar(vec![policy("bar", "p", Strict)], 80),
        says(Permissive, "Default")
    );
}

#[test]
fn the_narrowest_level_that_says_something_wins() {
    let mesh = || policy("root", "mesh", Strict);
    let namespace = |mode| policy("foo", "ns", mode);
    let workload = |mode| selecting("web", policy("foo", "wl", mode));
    for target in [sidecar, ztunnel] {
        assert_eq!(
            target(vec![mesh()], 80),
            says(Strict, "root/mesh#spec.mtls.mode")
        );
        assert_eq!(
            target(vec![mesh(), namespace(Permissive)], 80),
            says(Permissive, "foo/ns#spec.mtls.mode")
        );
        assert_eq!(
            target(vec![mesh(), namespace(Unset)], 80),
            says(Strict, "root/mesh#spec.mtls.mode")
        );
        assert_eq!(
            target(vec![mesh(), namespace(Permissive), workload(Strict)], 80),
            says(Strict, "foo/wl#spec.mtls.mode")
        );
        assert_eq!(
            target(vec![mesh(), namespace(Unset), workload(Unset)], 80),
            says(Strict, "root/mesh#spec.mtls.mode")
        );
    }
    assert_eq!(
        sidecar(vec![namespace(Disable)], 80),
        says(Disable, "foo/ns#spec.mtls.mode")
    );
    // ztunnel has no DISABLE
    assert_eq!(
        ztunnel(vec![namespace(Disable)], 80),
        says(Permissive, "foo/ns#spec.mtls.mode")
    );
}

#[test]
fn a_selector_must_match_and_an_empty_one_is_none() {
    let other = selecting("other", policy("foo", "wl", Strict));
    assert_eq!(sidecar(vec![other], 80), says(Permissive, "Default"));
    let whole = || empty_selector(policy("foo", "ns", Strict));
    assert_eq!(
        sidecar(vec![whole()], 80),
        says(Strict, "foo/ns#spec.mtls.mode")
    );
    assert_eq!(
        ztunnel(vec![whole()], 80),
        says(Strict, "foo/ns#spec.mtls.mode")
    );
    // a root policy with an empty selector: the sidecar takes it for the mesh's, ztunnel for nobody's
    let mesh = || empty_selector(policy("root", "mesh", Strict));
    assert_eq!(
        sidecar(vec![mesh()], 80),
        says(Strict, "root/mesh#spec.mtls.mode")
    );
    assert_eq!(ztunnel(vec![mesh()], 80), says(Permissive, "Default"));
}

#[test]
fn a_selector_in_the_root_namespace_is_ignored_even_at_home() {
    let policies = || vec![selecting("web", policy("root", "wl", Strict))];
    for target in [Target::Sidecar, Target::Ztunnel] {
        for namespace in ["foo", "root"] {
            let effective = set(policies()).effective(&web(namespace), Some(80), target);
            assert_eq!(
                told(effective),
                says(Permissive, "Default"),
                "{target:?} {namespace}"
            );
        }
        // while the mesh's own policy binds the root namespace too
        let mesh = set(vec![policy("root", "mesh", Strict)]);
        assert!(
            mesh.effective(&web("root"), Some(80), target)
                .requires_identity()
        );
    }
}

#[test]
fn the_oldest_of_a_level_wins_then_the_first_name() {
    let strict = |name, year| created(policy("foo", name, Strict), year);
    let permissive = |name, year| created(policy("foo", name, Permissive), year);
    assert_eq!(
        sidecar(vec![strict("a", 2024), permissive("b", 2023)], 80).0,
        Permissive
    );
    assert_eq!(
        sidecar(vec![strict("a", 2022), permissive("b", 2023)], 80).0,
        Strict
    );
    assert_eq!(
        sidecar(vec![permissive("b", 2023), strict("a", 2023)], 80).0,
        Strict
    );
    // off-line there are no times
    let timeless = vec![policy("foo", "b", Strict), policy("foo", "a", Permissive)];
    assert_eq!(sidecar(timeless, 80).0, Permissive);
    // the chosen one may be silent: the younger does not step in
    let silent = vec![created(policy("foo", "a", Unset), 2022), strict("b", 2023)];
    assert_eq!(sidecar(silent, 80), says(Permissive, "Default"));
    // at the workload level too
    let at_workload = vec![
        selecting("web", strict("a", 2024)),
        selecting("web", permissive("b", 2023)),
    ];
    assert_eq!(
        sidecar(at_workload, 80),
        says(Permissive, "foo/b#spec.mtls.mode")
    );
}

#[test]
fn a_port_exception_counts_only_on_the_chosen_workload_policy() {
    let workload =
        |modes: &[(u16, MtlsMode)]| selecting("web", ports(policy("foo", "wl", Strict), modes));
    let modes = [(80, Permissive), (81, Disable), (82, Unset)];
    assert_eq!(
        sidecar(vec![workload(&modes)], 80),
        says(Permissive, "foo/wl#spec.portLevelMtls.80.mode")
    );
    assert_eq!(
        sidecar(vec![workload(&modes)], 81),
        says(Disable, "foo/wl#spec.portLevelMtls.81.mode")
    );
    assert_eq!(
        sidecar(vec![workload(&modes)], 82),
        says(Strict, "foo/wl#spec.mtls.mode")
    );
    assert_eq!(
        sidecar(vec![workload(&modes)], 83),
        says(Strict, "foo/wl#spec.mtls.mode")
    );
    // a namespace policy's ports mean nothing
    let at_namespace = ports(policy("foo", "ns", Strict), &[(80, Permissive)]);
    assert_eq!(
        sidecar(vec![at_namespace], 80),
        says(Strict, "foo/ns#spec.mtls.mode")
    );
    // nor do those of the younger workload policy
    let elder = created(selecting("web", policy("foo", "elder", Strict)), 2020);
    let younger = created(workload(&modes), 2021);
    assert_eq!(
        sidecar(vec![younger, elder], 80),
        says(Strict, "foo/elder#spec.mtls.mode")
    );
}

#[test]
fn an_unset_port_inherits_what_the_workload_inherits() {
    let mesh = policy("root", "mesh", Strict);
    let workload = selecting("web", ports(policy("foo", "wl", Unset), &[(80, Unset)]));
    assert_eq!(
        sidecar(vec![mesh, workload], 80),
        says(Strict, "root/mesh#spec.mtls.mode")
    );
}

#[test]
fn an_unknown_port_gets_the_strictest_mode() {
    let at = |port, modes: &[(u16, MtlsMode)], target| {
        let policy = selecting("web", ports(policy("foo", "wl", Permissive), modes));
        set(vec![policy]).effective(&web("foo"), port, target).mode
    };
    for target in [Target::Sidecar, Target::Ztunnel] {
        assert_eq!(at(None, &[(80, Strict)], target), Strict);
        assert_eq!(at(Some(81), &[(80, Strict)], target), Permissive);
        assert_eq!(at(None, &[(80, Permissive)], target), Permissive);
    }
}

#[test]
fn gateways_take_no_notice_and_waypoints_always_demand() {
    let strict = set(vec![policy("root", "mesh", Strict)]);
    let gateway = strict.effective(&web("foo"), Some(80), Target::Gateway);
    assert_eq!(
        (gateway.mode, &gateway.set_by),
        (Permissive, &SetBy::Gateway)
    );
    let none = set(vec![policy("root", "mesh", Disable)]);
    let waypoint = none.effective(&web("foo"), Some(80), Target::Waypoint);
    assert_eq!(
        (waypoint.mode, &waypoint.set_by),
        (Strict, &SetBy::WaypointListener)
    );
}

// ztunnel: (mesh, namespace, workload) modes, ports, and which ports demand an identity

fn ambient(levels: [Option<MtlsMode>; 3], modes: &[(u16, MtlsMode)]) -> PeerAuthentications {
    let [mesh, namespace, workload] = levels;
    let mut policies = Vec::new();
    policies.extend(mesh.map(|mode| policy("root", "mesh", mode)));
    policies.extend(namespace.map(|mode| policy("foo", "ns", mode)));
    policies.extend(workload.map(|mode| selecting("web", ports(policy("foo", "wl", mode), modes))));
    set(policies)
}

fn strict_ports(set: &PeerAuthentications) -> Vec<u16> {
    (80..84)
        .filter(|port| {
            set.effective(&web("foo"), Some(*port), Target::Ztunnel)
                .requires_identity()
        })
        .collect()
}

#[test]
fn ztunnel_honours_port_exceptions_as_istiod_converts_them() {
    let check = |levels, modes: &[(u16, MtlsMode)], expected: &[u16]| {
        let set = ambient(levels, modes);
        assert_eq!(strict_ports(&set), expected, "{levels:?} {modes:?}");
        assert_eq!(set.dangling(&web("foo")), None, "{levels:?} {modes:?}");
    };
    // STRICT with open ports, both words for open
    check(
        [None, None, Some(Strict)],
        &[(80, Permissive), (81, Disable), (82, Strict)],
        &[82, 83],
    );
    check(
        [None, None, Some(Strict)],
        &[(82, Strict)],
        &[80, 81, 82, 83],
    );
    // open with STRICT ports
    check(
        [None, None, Some(Permissive)],
        &[(80, Strict), (81, Disable)],
        &[80],
    );
    check(
        [None, Some(Permissive), Some(Disable)],
        &[(80, Strict), (81, Unset)],
        &[80],
    );
    check([None, None, Some(Permissive)], &[(80, Permissive)], &[]);
    // inherited STRICT
    check(
        [Some(Strict), None, Some(Unset)],
        &[(80, Permissive)],
        &[81, 82, 83],
    );
    check(
        [None, Some(Strict), Some(Unset)],
        &[(80, Permissive), (81, Disable)],
        &[82, 83],
    );
    check(
        [Some(Strict), None, Some(Unset)],
        &[(80, Strict)],
        &[80, 81, 82, 83],
    );
    // a namespace that opens what the mesh closed
    check(
        [Some(Strict), Some(Permissive), Some(Unset)],
        &[(80, Strict)],
        &[80],
    );
    check(
        [Some(Strict), Some(Permissive), Some(Unset)],
        &[(80, Permissive)],
        &[],
    );
    // nothing to inherit
    check(
        [None, None, Some(Unset)],
        &[(80, Strict), (81, Permissive)],
        &[80],
    );
}

#[test]
fn a_lone_disable_is_overlooked_under_an_inherited_strict() {
    let lone = ambient([Some(Strict), None, Some(Unset)], &[(80, Disable)]);
    assert_eq!(strict_ports(&lone), [80, 81, 82, 83]);
    // beside a PERMISSIVE the same port is open
    let beside = ambient(
        [Some(Strict), None, Some(Unset)],
        &[(80, Disable), (81, Permissive)],
    );
    assert_eq!(strict_ports(&beside), [82, 83]);
    // and a sidecar opens it either way
    let sidecar = lone.effective(&web("foo"), Some(80), Target::Sidecar);
    assert_eq!(sidecar.mode, Disable);
}

/// No port demands an identity of ztunnel's, and the reference to nothing is told.
fn assert_open(set: &PeerAuthentications) {
    assert!(strict_ports(set).is_empty());
    let dangling = set.dangling(&web("foo"));
    assert!(matches!(dangling, Some(SetBy::Policy { policy, .. }) if policy == "foo/wl"));
}

#[test]
fn a_dangling_reference_opens_every_port_and_is_told() {
    // An UNSET namespace policy between a STRICT mesh and a workload's exception: istiod points the
    // workload to a converted policy that it does not make.
    let set = ambient(
        [Some(Strict), Some(Unset), Some(Unset)],
        &[(80, Permissive)],
    );
    assert_open(&set);
    // So does a STRICT mesh for a STRICT port of a workload policy that says PERMISSIVE or DISABLE.
    for mode in [Permissive, Disable] {
        for namespace in [None, Some(Unset)] {
            assert_open(&ambient(
                [Some(Strict), namespace, Some(mode)],
                &[(80, Strict)],
            ));
        }
        let answered = ambient(
            [Some(Strict), Some(Permissive), Some(mode)],
            &[(80, Strict)],
        );
        assert_eq!(strict_ports(&answered), [80]);
        assert_eq!(answered.dangling(&web("foo")), None);
    }
    // without the silent namespace policy, and for a sidecar, only port 80 is open
    let plain = ambient([Some(Strict), None, Some(Unset)], &[(80, Permissive)]);
    assert_eq!(strict_ports(&plain), [81, 82, 83]);
    assert!(
        set.effective(&web("foo"), Some(81), Target::Sidecar)
            .requires_identity()
    );
}

#[test]
fn a_strict_ztunnel_port_names_where_it_comes_from() {
    let set = ambient([Some(Strict), None, Some(Unset)], &[(80, Permissive)]);
    let at = |port| told(set.effective(&web("foo"), Some(port), Target::Ztunnel));
    assert_eq!(
        at(80),
        says(Permissive, "foo/wl#spec.portLevelMtls.80.mode")
    );
    assert_eq!(at(81), says(Strict, "root/mesh#spec.mtls.mode"));
}

#[test]
fn the_location_is_that_of_the_policy() {
    let mut strict = policy("foo", "ns", Strict);
    strict.meta.at.line = 7;
    let effective = set(vec![strict]).effective(&web("foo"), Some(80), Target::Sidecar);
    assert!(matches!(effective.set_by, SetBy::Policy { at, .. } if at.line == 7));
}
