//! Random worlds and requests that hurt: values from small pools, so that prefixes, suffixes,
//! not-forms and overlaps meet; every kind of policy, target, identity, path and header.

#![allow(
    clippy::indexing_slicing,
    reason = "tests only: a panic is a failed test"
)]

pub mod manifest;
mod policy;
mod pools;
mod request;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::naive::{Facts, Mesh, Service, Target, Workload, World};

/// A world and the requests to put to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Policies, mesh, workload, target.
    pub world: World,
    /// Requests.
    pub requests: Vec<Facts>,
}

/// Worlds with `requests` requests each.
pub fn scenario(requests: usize) -> impl Strategy<Value = Scenario> {
    (world(), vec(request::facts(), requests))
        .prop_map(|(world, requests)| Scenario { world, requests })
}

fn world() -> impl Strategy<Value = World> {
    let target = prop_oneof![
        6 => Just(Target::Sidecar),
        2 => Just(Target::Gateway),
        2 => Just(Target::Waypoint),
        2 => Just(Target::Ztunnel),
    ];
    let of_target = |target: Target| {
        // where only targetRefs count, most policies have some
        let refers = match target {
            Target::Waypoint => 0.85,
            Target::Gateway => 0.4,
            Target::Sidecar | Target::Ztunnel => 0.08,
        };
        (Just(target), policy::policies(refers))
    };
    (
        target.prop_flat_map(of_target),
        mesh(),
        select(vec!["foo", "foo", "foo", "foo", "bar", "root-ns"]),
        subsequence(vec![("app", "web"), ("version", "v1"), ("tier", "")], 1..=3),
        any::<bool>(),
        select(vec![
            ("Service", "foo", "svc"),
            ("Service", "foo", "svc"),
            ("Service", "bar", "svc"),
            ("ServiceEntry", "foo", "svc"),
        ]),
    )
        .prop_map(
            |((target, policies), mesh, namespace, labels, labelled, service)| {
                let mut labels: BTreeMap<String, String> = labels
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect();
                if target == Target::Waypoint || (target == Target::Gateway && labelled) {
                    let label = "gateway.networking.k8s.io/gateway-name";
                    labels.insert(label.to_owned(), "gw".to_owned());
                }
                let (kind, home, name) = service;
                World {
                    policies,
                    mesh,
                    workload: Workload {
                        namespace: namespace.to_owned(),
                        labels,
                    },
                    target,
                    service: (target == Target::Waypoint).then(|| Service {
                        kind: kind.to_owned(),
                        namespace: home.to_owned(),
                        name: name.to_owned(),
                    }),
                }
            },
        )
}

fn mesh() -> impl Strategy<Value = Mesh> {
    (
        select(vec!["cluster.local", "td1", "new-td"]),
        subsequence(vec!["old-td", "td1", "cluster.local"], 0..=2),
        select(vec![
            "BASE",
            "BASE",
            "MERGE_SLASHES",
            "DECODE_AND_MERGE_SLASHES",
            "NONE",
        ]),
    )
        .prop_map(|(trust_domain, aliases, paths)| Mesh {
            root_namespace: "root-ns".to_owned(),
            trust_domain: trust_domain.to_owned(),
            aliases: aliases
                .into_iter()
                .filter(|alias| *alias != trust_domain)
                .map(str::to_owned)
                .collect(),
            path_normalization: paths.to_owned(),
            providers: vec!["authz".to_owned(), "b-authz".to_owned()],
        })
}

/// One of the pool, as it is or in a wildcard form.
fn pattern(pool: &'static [&'static str]) -> impl Strategy<Value = String> {
    (select(pool), 0..12u8, 0..6usize).prop_map(|(text, form, cut)| {
        let letters: Vec<char> = text.chars().collect();
        let cut = cut.min(letters.len());
        let head: String = letters[..letters.len() - cut].iter().collect();
        let tail: String = letters[cut..].iter().collect();
        match form {
            0 | 1 => format!("{head}*"),
            2 | 3 => format!("*{tail}"),
            4 => "*".to_owned(),
            5 => format!("*{tail}*"),
            6 if cut > 0 => format!("{}*{}", letters[0], &tail),
            _ => text.to_owned(),
        }
    })
}

/// A field: absent, empty, or a few patterns.
fn field(
    pool: &'static [&'static str],
    probability: f64,
) -> impl Strategy<Value = Option<Vec<String>>> {
    weighted(
        probability,
        prop_oneof![1 => Just(Vec::new()), 12 => vec(pattern(pool), 1..4)],
    )
}
