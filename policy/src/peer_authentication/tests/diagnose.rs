use super::*;
use crate::diagnostic::Diagnostic;
use crate::inventory::Inventory;
use crate::mesh::Mesh;
use crate::settings::Settings;

fn diagnose(policies: Vec<PeerAuthentication>, ambient: bool) -> Vec<Diagnostic> {
    let mut resources = vec![Arc::new(Resource::Workload(web("foo")))];
    if ambient {
        let labels = BTreeMap::from([("istio.io/dataplane-mode".to_owned(), "ambient".to_owned())]);
        let meta = Metadata {
            name: "foo".into(),
            labels,
            ..Metadata::default()
        };
        resources.push(Arc::new(Resource::Namespace(meta)));
    }
    let policies = policies
        .into_iter()
        .map(|p| Arc::new(Resource::PeerAuthentication(p)));
    resources.extend(policies);
    let inventory = Inventory::build(&resources, &Mesh::default(), &Settings::default());
    PeerAuthentications::build(&resources, "root").diagnose(&inventory, &resources)
}

fn check(policies: Vec<PeerAuthentication>, ambient: bool, expected: &[(&str, &str, &str)]) {
    let found = diagnose(policies, ambient);
    let found: Vec<_> = found
        .iter()
        .map(|d| {
            (
                d.code,
                d.resource.as_deref().unwrap_or_default(),
                d.message.as_str(),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_policy_that_counts_needs_no_word() {
    let all = vec![
        policy("root", "mesh", Strict),
        policy("foo", "ns", Permissive),
        selecting("web", policy("foo", "wl", Strict)),
        selecting("other", policy("foo", "wl2", Strict)),
    ];
    check(all, true, &[]);
}

#[test]
fn a_selector_in_the_root_namespace() {
    check(
        vec![selecting("web", policy("root", "wl", Strict))],
        false,
        &[(
            "PC0203",
            "PeerAuthentication/root/wl",
            "ignored: a selector in the root namespace selects no workload",
        )],
    );
}

#[test]
fn a_younger_policy_of_the_same_level() {
    check(
        vec![
            created(policy("foo", "b", Strict), 2020),
            created(policy("foo", "a", Strict), 2021),
        ],
        false,
        &[(
            "PC0204",
            "PeerAuthentication/foo/a",
            "ignored: `foo/b` is older or comes first",
        )],
    );
    check(
        vec![
            selecting("web", policy("foo", "b", Strict)),
            selecting("web", policy("foo", "a", Strict)),
        ],
        false,
        &[(
            "PC0204",
            "PeerAuthentication/foo/b",
            "ignored for `foo/web`: `foo/a` is older or comes first",
        )],
    );
}

#[test]
fn ports_that_ztunnel_leaves_open() {
    let policies = || {
        let ports = ports(policy("foo", "wl", Permissive), &[(80, Strict)]);
        vec![policy("root", "mesh", Strict), selecting("web", ports)]
    };
    check(
        policies(),
        true,
        &[(
            "PC0205",
            "PeerAuthentication/foo/wl",
            "ztunnel demands no identity on any port of `foo/web`",
        )],
    );
    check(policies(), false, &[]);
}
