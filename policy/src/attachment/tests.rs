use super::*;
use crate::diagnostic::Location;
use crate::resource::{Metadata, WorkloadKind};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn workload(namespace: &str, pairs: &[(&str, &str)]) -> Workload {
    Workload {
        kind: WorkloadKind::Pod,
        namespace: namespace.into(),
        name: "web".into(),
        labels: labels(pairs),
        service_account: "default".into(),
        addresses: Vec::new(),
        host_network: false,
        running: true,
        ports: Vec::new(),
        at: Location::default(),
    }
}

struct Policy {
    namespace: String,
    selector: Option<Selector>,
    target_refs: Vec<TargetRef>,
}

impl Policy {
    fn scope(&self) -> Scope<'_> {
        Scope {
            namespace: &self.namespace,
            selector: self.selector.as_ref(),
            target_refs: &self.target_refs,
        }
    }
}

#[derive(Clone, Copy)]
struct At<'a>(u32, &'a Policy);

impl Attached for At<'_> {
    fn scope(&self) -> Option<Scope<'_>> {
        Some(self.1.scope())
    }
}

fn places(index: &Index<At<'_>>, point: &EnforcementPoint<'_>) -> Vec<u32> {
    let mut places: Vec<u32> = index.attached(point).iter().map(|at| at.0).collect();
    places.sort_unstable();
    places
}

fn everywhere(namespace: &str) -> Policy {
    Policy {
        namespace: namespace.into(),
        selector: None,
        target_refs: Vec::new(),
    }
}

fn selecting(namespace: &str, pairs: &[(&str, &str)]) -> Policy {
    let selector = Selector {
        match_labels: labels(pairs),
        at: Location::default(),
    };
    Policy {
        selector: Some(selector),
        ..everywhere(namespace)
    }
}

fn targeting(namespace: &str, references: &[(&str, &str, &str)]) -> Policy {
    let target_refs = references
        .iter()
        .map(|(group, kind, name)| TargetRef {
            group: (*group).into(),
            kind: (*kind).into(),
            name: (*name).into(),
            namespace: String::new(),
            at: Location::default(),
        })
        .collect();
    Policy {
        target_refs,
        ..everywhere(namespace)
    }
}

fn gateway(name: &'static str) -> (&'static str, &'static str, &'static str) {
    ("gateway.networking.k8s.io", "Gateway", name)
}

/// What applies, by both ways of asking.
fn applies(
    policy: &Policy,
    workload: &Workload,
    target: Target,
    service: Option<ServiceRef<'_>>,
) -> bool {
    let point = EnforcementPoint {
        workload,
        target,
        service,
        root_namespace: "root",
    };
    let answer = attaches(&policy.scope(), &point);
    let indexed = Index::build([At(0, policy)]);
    assert_eq!(
        places(&indexed, &point),
        if answer { vec![0] } else { vec![] },
        "index and attaches disagree"
    );
    answer
}

fn service<'a>(namespace: &'a str, name: &'a str) -> Option<ServiceRef<'a>> {
    Some(ServiceRef {
        kind: ServiceKind::Service,
        namespace,
        name,
    })
}

fn entry<'a>(namespace: &'a str, name: &'a str) -> Option<ServiceRef<'a>> {
    Some(ServiceRef {
        kind: ServiceKind::ServiceEntry,
        namespace,
        name,
    })
}

const PLAIN: &[(&str, &str)] = &[("app", "web"), ("version", "v1")];
const GATEWAY_POD: &[(&str, &str)] = &[("app", "web"), (GATEWAY_NAME_LABEL, "gw")];

#[test]
fn a_policy_reaches_its_own_namespace_and_from_the_root_all() {
    for target in [Target::Sidecar, Target::Gateway, Target::Ztunnel] {
        let web = workload("foo", PLAIN);
        assert!(applies(&everywhere("foo"), &web, target, None));
        assert!(applies(&everywhere("root"), &web, target, None));
        assert!(!applies(&everywhere("bar"), &web, target, None));
        // a service in another namespace widens nothing outside waypoints
        assert!(!applies(
            &everywhere("bar"),
            &web,
            target,
            service("bar", "web")
        ));
    }
}

#[test]
fn a_selector_is_a_subset_match() {
    let web = workload("foo", PLAIN);
    for namespace in ["foo", "root"] {
        let applies = |pairs: &[(&str, &str)]| {
            applies(&selecting(namespace, pairs), &web, Target::Sidecar, None)
        };
        assert!(applies(&[]));
        assert!(applies(&[("app", "web")]));
        assert!(applies(&[("app", "web"), ("version", "v1")]));
        assert!(!applies(&[("app", "Web")]));
        assert!(!applies(&[("app", "web"), ("version", "v2")]));
        assert!(!applies(&[("app", "web"), ("tier", "x")]));
    }
    let bare = workload("foo", &[]);
    assert!(applies(
        &selecting("foo", &[]),
        &bare,
        Target::Sidecar,
        None
    ));
    assert!(!applies(
        &selecting("foo", &[("app", "")]),
        &bare,
        Target::Sidecar,
        None
    ));
}

#[test]
fn a_workload_without_the_gateway_label_ignores_target_refs() {
    let web = workload("foo", PLAIN);
    let policies = [
        targeting("foo", &[gateway("gw")]),
        targeting("foo", &[("", "Service", "web")]),
        targeting(
            "root",
            &[(
                "gateway.networking.k8s.io",
                "GatewayClass",
                "istio-waypoint",
            )],
        ),
    ];
    for policy in &policies {
        for target in [Target::Sidecar, Target::Gateway, Target::Ztunnel] {
            assert!(
                !applies(policy, &web, target, service("foo", "web")),
                "{target:?}"
            );
        }
    }
}

#[test]
fn a_gateway_is_met_by_name_in_its_own_namespace() {
    let pod = workload("foo", GATEWAY_POD);
    for target in [Target::Gateway, Target::Sidecar, Target::Waypoint] {
        assert!(applies(
            &targeting("foo", &[gateway("gw")]),
            &pod,
            target,
            None
        ));
        assert!(applies(
            &targeting("foo", &[gateway("x"), gateway("gw")]),
            &pod,
            target,
            None
        ));
        assert!(!applies(
            &targeting("foo", &[gateway("x")]),
            &pod,
            target,
            None
        ));
        assert!(!applies(
            &targeting("bar", &[gateway("gw")]),
            &pod,
            target,
            None
        ));
        assert!(!applies(
            &targeting("root", &[gateway("gw")]),
            &pod,
            target,
            None
        ));
        for wrong in [
            ("", "Gateway", "gw"),
            ("networking.istio.io", "Gateway", "gw"),
            ("gateway.networking.k8s.io", "gateway", "gw"),
        ] {
            assert!(
                !applies(&targeting("foo", &[wrong]), &pod, target, None),
                "{wrong:?}"
            );
        }
    }
    assert!(!applies(
        &targeting("foo", &[gateway("gw")]),
        &pod,
        Target::Ztunnel,
        None
    ));
}

#[test]
fn a_reference_into_another_namespace_meets_no_gateway() {
    let pod = workload("foo", GATEWAY_POD);
    let mut policy = targeting("foo", &[gateway("gw")]);
    policy.target_refs[0].namespace = "foo".into();
    assert!(applies(&policy, &pod, Target::Gateway, None));
    policy.target_refs[0].namespace = "bar".into();
    assert!(!applies(&policy, &pod, Target::Gateway, None));
}

#[test]
fn a_gateway_falls_back_to_selectors_and_a_waypoint_never() {
    let pod = workload("foo", GATEWAY_POD);
    for policy in [
        everywhere("foo"),
        everywhere("root"),
        selecting("foo", &[("app", "web")]),
    ] {
        assert!(applies(&policy, &pod, Target::Gateway, None));
        assert!(applies(&policy, &pod, Target::Ztunnel, None));
        assert!(!applies(&policy, &pod, Target::Waypoint, None));
        assert!(!applies(
            &policy,
            &pod,
            Target::Waypoint,
            service("foo", "web")
        ));
        assert!(!applies(
            &policy,
            &workload("foo", PLAIN),
            Target::Waypoint,
            None
        ));
    }
}

#[test]
fn a_waypoint_is_met_by_the_service_it_serves() {
    let pod = workload("foo", GATEWAY_POD);
    let applies = |policy: &Policy, service| applies(policy, &pod, Target::Waypoint, service);
    let reviews = targeting("foo", &[("", "Service", "reviews")]);
    assert!(applies(&reviews, service("foo", "reviews")));
    assert!(applies(
        &targeting("foo", &[("core", "Service", "reviews")]),
        service("foo", "reviews")
    ));
    assert!(!applies(&reviews, service("foo", "ratings")));
    assert!(!applies(&reviews, service("bar", "reviews")));
    assert!(!applies(&reviews, entry("foo", "reviews")));
    assert!(!applies(&reviews, None));
    // the policy lives beside its service, which need not live beside the waypoint
    let abroad = targeting("bar", &[("", "Service", "reviews")]);
    assert!(applies(&abroad, service("bar", "reviews")));
    assert!(!applies(&abroad, service("foo", "reviews")));
    // not even the root namespace may name another's service
    assert!(!applies(
        &targeting("root", &[("", "Service", "reviews")]),
        service("foo", "reviews")
    ));
    let external = targeting("foo", &[("networking.istio.io", "ServiceEntry", "api")]);
    assert!(applies(&external, entry("foo", "api")));
    assert!(!applies(&external, service("foo", "api")));
}

#[test]
fn a_gateway_serves_no_service() {
    let pod = workload("foo", GATEWAY_POD);
    let reviews = targeting("foo", &[("", "Service", "reviews")]);
    assert!(!applies(
        &reviews,
        &pod,
        Target::Gateway,
        service("foo", "reviews")
    ));
}

#[test]
fn the_waypoint_class_is_named_from_the_root_only() {
    let pod = workload("foo", GATEWAY_POD);
    let class = |namespace, name| {
        targeting(
            namespace,
            &[("gateway.networking.k8s.io", "GatewayClass", name)],
        )
    };
    assert!(applies(
        &class("root", "istio-waypoint"),
        &pod,
        Target::Waypoint,
        None
    ));
    assert!(!applies(
        &class("root", "istio"),
        &pod,
        Target::Waypoint,
        None
    ));
    assert!(!applies(
        &class("foo", "istio-waypoint"),
        &pod,
        Target::Waypoint,
        None
    ));
    assert!(!applies(
        &class("root", "istio-waypoint"),
        &pod,
        Target::Gateway,
        None
    ));
}

#[test]
fn ztunnel_knows_only_allow_and_deny() {
    for action in [Action::Allow, Action::Deny] {
        assert!(enforces(Target::Ztunnel, action));
    }
    for action in [Action::Audit, Action::Custom] {
        assert!(!enforces(Target::Ztunnel, action));
        assert!(enforces(Target::Sidecar, action));
        assert!(enforces(Target::Waypoint, action));
        assert!(enforces(Target::Gateway, action));
    }
}

/// Small worlds, every combination: the index finds what asking each policy finds.
#[test]
fn the_index_equals_asking_every_policy() {
    let namespaces = ["root", "foo", "bar"];
    let selectors: [&[(&str, &str)]; 5] = [
        &[],
        &[("a", "1")],
        &[("a", "2")],
        &[("b", "1")],
        &[("a", "1"), ("b", "1")],
    ];
    let references = [
        gateway("gw"),
        gateway("x"),
        ("", "Service", "web"),
        ("networking.istio.io", "ServiceEntry", "web"),
        (
            "gateway.networking.k8s.io",
            "GatewayClass",
            "istio-waypoint",
        ),
        ("apps", "Deployment", "web"),
    ];
    let mut policies = Vec::new();
    for namespace in namespaces {
        policies.push(everywhere(namespace));
        policies.extend(selectors.iter().map(|pairs| selecting(namespace, pairs)));
        policies.extend(
            references
                .iter()
                .map(|reference| targeting(namespace, &[*reference])),
        );
        policies.push(targeting(namespace, &references));
        policies.push(targeting(namespace, &[gateway("gw"), gateway("gw")]));
    }
    let at = || {
        (0u32..)
            .zip(&policies)
            .map(|(place, policy)| At(place, policy))
    };
    let index = Index::build(at());
    let (mut grown, all) = (Index::default(), at().collect::<Vec<_>>());
    for namespace in namespaces {
        grown.replace(namespace, &all);
    }
    let workloads: Vec<Workload> = namespaces
        .iter()
        .flat_map(|namespace| {
            let sets: [&[(&str, &str)]; 5] = [
                &[],
                &[("a", "1")],
                &[("a", "1"), ("b", "1")],
                &[("a", "2"), (GATEWAY_NAME_LABEL, "gw")],
                &[("a", "1"), ("b", "1"), (GATEWAY_NAME_LABEL, "x")],
            ];
            sets.map(|pairs| workload(namespace, pairs))
        })
        .collect();
    let services = [
        None,
        service("foo", "web"),
        entry("bar", "web"),
        service("root", "web"),
    ];
    let mut attached = 0;
    for workload in &workloads {
        for target in [
            Target::Sidecar,
            Target::Gateway,
            Target::Waypoint,
            Target::Ztunnel,
        ] {
            for service in services {
                let point = EnforcementPoint {
                    workload,
                    target,
                    service,
                    root_namespace: "root",
                };
                let asked: Vec<u32> = (0u32..)
                    .zip(&policies)
                    .filter(|(_, policy)| attaches(&policy.scope(), &point))
                    .map(|(place, _)| place)
                    .collect();
                attached += asked.len();
                assert_eq!(places(&index, &point), asked, "{point:?}");
                assert_eq!(places(&grown, &point), asked, "{point:?}");
            }
        }
    }
    assert!(attached > 500, "{attached}: the worlds must not be empty");
}

#[test]
fn namespaces_are_looked_at_once() {
    let look = |namespace: &str, service| {
        let workload = workload(namespace, &[]);
        let point = EnforcementPoint {
            workload: &workload,
            target: Target::Waypoint,
            service,
            root_namespace: "root",
        };
        point.namespaces().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(look("foo", service("bar", "x")), ["root", "foo", "bar"]);
    assert_eq!(look("foo", service("foo", "x")), ["root", "foo"]);
    assert_eq!(look("root", service("root", "x")), ["root"]);
    assert_eq!(look("root", service("foo", "x")), ["root", "foo"]);
    assert_eq!(look("foo", service("root", "x")), ["root", "foo"]);
}

#[test]
fn metadata_carries_the_scope() {
    let policy = RequestAuthentication {
        meta: Metadata {
            namespace: "foo".into(),
            ..Metadata::default()
        },
        selector: Some(Selector {
            match_labels: labels(PLAIN),
            at: Location::default(),
        }),
        target_refs: Vec::new(),
        jwt_rules: Vec::new(),
    };
    let scope = Scope::from(&policy);
    assert_eq!(scope.namespace, "foo");
    assert_eq!(
        scope.selector.map(|selector| selector.match_labels.len()),
        Some(2)
    );
}
