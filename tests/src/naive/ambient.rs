//! PeerAuthentication at ztunnel, as istiod hands it over: a reference to a fixed STRICT policy, to
//! a DENY policy made of the workload's own, or to one that was never made, which then denies
//! nothing (istio:pilot/pkg/serviceregistry/ambient at 86c9f01f).

use serde_json::Value;

use super::{Facts, World, attach, mtls, ztunnel};

/// Whether ztunnel refuses a peer for want of an identity.
#[must_use]
pub fn refuses(world: &World, facts: &Facts) -> bool {
    let named = ztunnel::identity(facts).is_some();
    let root = &world.mesh.root_namespace;
    let own = &world.workload.namespace;
    let mesh = mtls::oldest(world, |policy| {
        attach::namespace(policy) == root
            && attach::labels(policy).is_empty()
            && (own == root || policy["spec"]["selector"].is_null())
    });
    let namespace = mtls::oldest(world, |policy| {
        own != root && attach::namespace(policy) == own && attach::labels(policy).is_empty()
    });
    let workload = mtls::oldest(world, |policy| {
        own != root && attach::namespace(policy) == own && !attach::labels(policy).is_empty()
    });

    let mut strict = mesh.is_some_and(|policy| mode(policy) == "STRICT");
    for policy in [namespace, workload].into_iter().flatten() {
        if mode(policy) != "UNSET" {
            strict = mode(policy) == "STRICT";
        }
    }
    let Some(policy) = workload.filter(|policy| !ports(policy).is_empty()) else {
        return strict && !named;
    };
    let has = |wanted: &str| ports(policy).iter().any(|(_, mode)| mode == wanted);
    let refers = match mode(policy) {
        "STRICT" => has("PERMISSIVE") || has("DISABLE"),
        "UNSET" if strict => has("PERMISSIVE"),
        _ => has("STRICT"),
    };
    if !refers {
        return strict && !named;
    }
    made(world, policy).iter().any(|group| {
        group.iter().all(|clause| match clause {
            Clause::Nameless => !named,
            Clause::NamelessOn(port) => !named && facts.destination_port == Some(*port),
            Clause::Not(port) => facts.destination_port != Some(*port),
        })
    })
}

/// One condition of a DENY policy that istiod makes.
enum Clause {
    Nameless,
    NamelessOn(u16),
    Not(u16),
}

/// The DENY policy made of a workload policy: any group denies, all its clauses must hold.
fn made(world: &World, policy: &Value) -> Vec<Vec<Clause>> {
    let of = |namespace: &str| {
        let policy = mtls::oldest(world, |policy| {
            attach::namespace(policy) == namespace && policy["spec"]["selector"].is_null()
        });
        policy.map(mode)
    };
    let namespace = of(&world.workload.namespace);
    let root = of(&world.mesh.root_namespace);
    let own = mode(policy);
    let unset = |mode: Option<&str>| mode.is_none_or(|mode| mode == "UNSET");

    let mut rules = Vec::new();
    let mut groups = Vec::new();
    let mut excepted = false;
    if own == "STRICT" {
        rules.push(Clause::Nameless);
    }
    for (port, port_mode) in ports(policy) {
        match port_mode.as_str() {
            "STRICT" => {
                let covered = own == "STRICT"
                    || (own == "UNSET" && namespace == Some("STRICT"))
                    || (unset(namespace) && root == Some("STRICT"));
                if !covered {
                    groups.push(vec![Clause::NamelessOn(port)]);
                }
            }
            "PERMISSIVE" | "DISABLE" => {
                let idle = match own {
                    "STRICT" => false,
                    "UNSET" => match namespace {
                        Some(mode) => mode != "STRICT",
                        None => root != Some("STRICT"),
                    },
                    _ => true,
                };
                if !idle {
                    excepted = true;
                    rules.push(Clause::Not(port));
                }
            }
            _ => {}
        }
    }
    if (own == "STRICT" && !excepted) || (rules.is_empty() && groups.is_empty()) {
        return Vec::new();
    }
    let merged = (root == Some("STRICT") && (unset(namespace) || namespace == Some("STRICT")))
        || namespace == Some("STRICT");
    if merged && excepted {
        rules.push(Clause::Nameless);
    }
    if !rules.is_empty() {
        groups.push(rules);
    }
    groups
}

fn mode(policy: &Value) -> &str {
    policy["spec"]["mtls"]["mode"].as_str().unwrap_or("UNSET")
}

fn ports(policy: &Value) -> Vec<(u16, String)> {
    let ports = policy["spec"]["portLevelMtls"].as_object();
    ports
        .into_iter()
        .flatten()
        .filter_map(|(port, mtls)| {
            let mode = mtls["mode"].as_str().unwrap_or("UNSET");
            Some((port.parse().ok()?, mode.to_owned()))
        })
        .collect()
}
