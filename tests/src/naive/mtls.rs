//! PeerAuthentication (policy.md 1.11): which mode binds a port, and whether it refuses the peer.

use serde_json::Value;

use super::{Facts, Target, World, ambient, attach};

/// Whether the connection is refused for want of an identity.
#[must_use]
pub fn refuses(world: &World, facts: &Facts) -> bool {
    let named = !facts.uri_sans.is_empty() || !facts.dns_sans.is_empty() || facts.subject.is_some();
    match world.target {
        Target::Sidecar => mode(world, facts.destination_port) == "STRICT" && !named,
        Target::Ztunnel => ambient::refuses(world, facts),
        Target::Waypoint => facts.uri_sans.is_empty(),
        Target::Gateway => false,
    }
}

/// The mode in force on a sidecar's port: `STRICT`, `PERMISSIVE` or `DISABLE`.
#[must_use]
pub fn mode(world: &World, port: Option<u16>) -> String {
    if world.target != Target::Sidecar {
        return "PERMISSIVE".to_owned();
    }
    let mut mode = "PERMISSIVE".to_owned();
    let root = &world.mesh.root_namespace;
    let own = &world.workload.namespace;
    let levels = [
        oldest(world, |policy| {
            attach::namespace(policy) == root && wide(policy)
        }),
        oldest(world, |policy| {
            attach::namespace(policy) == own && own != root && wide(policy)
        }),
        oldest(world, |policy| {
            attach::namespace(policy) == own && own != root && !wide(policy)
        }),
    ];
    for level in levels.iter().flatten() {
        if let Some(set) = set_mode(&level["spec"]["mtls"]) {
            set.clone_into(&mut mode);
        }
    }
    let per_port = levels[2].zip(port).and_then(|(policy, port)| {
        let ports = &policy["spec"]["portLevelMtls"];
        set_mode(&ports[port.to_string().as_str()])
    });
    per_port.map_or(mode, str::to_owned)
}

fn wide(policy: &Value) -> bool {
    attach::labels(policy).is_empty()
}

fn set_mode(mtls: &Value) -> Option<&str> {
    mtls["mode"].as_str().filter(|mode| *mode != "UNSET")
}

/// The oldest PeerAuthentication that applies and passes; ties go by name, then namespace.
#[must_use]
pub fn oldest(world: &World, passes: impl Fn(&Value) -> bool) -> Option<&Value> {
    let text =
        |policy: &Value, field: &str| policy["metadata"][field].as_str().unwrap_or("").to_owned();
    world
        .policies
        .iter()
        .filter(|policy| policy["kind"] == "PeerAuthentication")
        .filter(|policy| passes(policy))
        .filter(|policy| {
            attach::labels(policy)
                .iter()
                .all(|(key, value)| world.workload.labels.get(key) == Some(value))
        })
        .min_by_key(|policy| {
            (
                text(policy, "creationTimestamp"),
                text(policy, "name"),
                text(policy, "namespace"),
            )
        })
}
