//! A naive evaluator of Istio policy: plain functions over manifests as JSON values, no index, no
//! Cedar, and not one line shared with the engine.
//!
//! It exists to be compared: with the verdicts of a real Envoy (tests/parity.rs), which proves the
//! evaluator, and with the engine on random policies and requests (tests/properties.rs), which
//! proves the engine. Clarity is worth more here than speed; nothing is compiled ahead, except
//! that regular expressions are kept per thread.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::result_unit_err,
    reason = "tests only: a panic is a failed test, and an unusable value needs no words"
)]

pub mod address;
pub mod ambient;
pub mod attach;
pub mod claims;
pub mod identity;
pub mod mtls;
pub mod path;
pub mod rule;
pub mod template;
pub mod text;
pub mod token;
pub mod ztunnel;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

/// The policy target that enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An Envoy beside the workload.
    Sidecar,
    /// A gateway.
    Gateway,
    /// An ambient waypoint: sees only the URI SAN.
    Waypoint,
    /// The ambient node proxy.
    Ztunnel,
}

/// The part of MeshConfig that verdicts depend on.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// `rootNamespace`.
    pub root_namespace: String,
    /// `trustDomain`.
    pub trust_domain: String,
    /// `trustDomainAliases`.
    pub aliases: Vec<String>,
    /// `pathNormalization.normalization`: `NONE`, `BASE`, `MERGE_SLASHES` or
    /// `DECODE_AND_MERGE_SLASHES`.
    pub path_normalization: String,
    /// Names of the `extensionProviders` that can serve CUSTOM.
    pub providers: Vec<String>,
}

impl Mesh {
    /// The local trust domain and its aliases.
    #[must_use]
    pub fn trust_domains(&self) -> Vec<&str> {
        let mut all = vec![self.trust_domain.as_str()];
        all.extend(self.aliases.iter().map(String::as_str));
        all
    }
}

/// The destination.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// Pod labels.
    pub labels: BTreeMap<String, String>,
}

/// The service that a waypoint serves, for targetRefs.
#[derive(Clone, Debug)]
pub struct Service {
    /// `Service` or `ServiceEntry`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Everything that stays the same between requests.
#[derive(Clone, Debug)]
pub struct World {
    /// Manifests: AuthorizationPolicy, PeerAuthentication, RequestAuthentication.
    pub policies: Vec<Value>,
    /// Mesh configuration.
    pub mesh: Mesh,
    /// Destination workload.
    pub workload: Workload,
    /// Who enforces.
    pub target: Target,
    /// Service behind a waypoint.
    pub service: Option<Service>,
}

/// The HTTP part of a request.
#[derive(Clone, Debug, Default)]
pub struct Http {
    /// Method.
    pub method: String,
    /// `:authority`.
    pub host: String,
    /// Path with query, as the client sent it.
    pub path: String,
    /// Headers, in order, repeats kept.
    pub headers: Vec<(String, String)>,
}

/// What is known of one request or connection.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The downstream connection is TLS.
    pub tls: bool,
    /// URI SANs of the peer's certificate.
    pub uri_sans: Vec<String>,
    /// DNS SANs of the peer's certificate.
    pub dns_sans: Vec<String>,
    /// Subject of the peer's certificate.
    pub subject: Option<String>,
    /// Physical peer.
    pub source_ip: Option<IpAddr>,
    /// Client behind trusted proxies.
    pub remote_ip: Option<IpAddr>,
    /// Local address.
    pub destination_ip: Option<IpAddr>,
    /// Local port.
    pub destination_port: Option<u16>,
    /// Server name of the TLS handshake.
    pub sni: Option<String>,
    /// HTTP request; `None` is a TCP connection.
    pub http: Option<Http>,
    /// Verified JWT payload.
    pub jwt: Option<Value>,
    /// Dynamic metadata by filter.
    pub metadata: BTreeMap<String, Value>,
}

/// What a shadow engine reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Whether the shadow engine would have allowed.
    pub allowed: bool,
    /// Envoy id of the rule that matched.
    pub policy: Option<String>,
}

/// The verdict of one set of rules, dry-run policies either ignored or enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Verdict.
    pub allow: bool,
    /// The contract's reason word.
    pub reason: &'static str,
    /// Envoy ids of every determining rule, in Envoy's order; the first is the one reported.
    pub policies: Vec<String>,
    /// The CUSTOM provider that has to be asked first, or the one that cannot be asked.
    pub provider: Option<String>,
    /// Envoy ids of the AUDIT rules that matched, in Envoy's order.
    pub audit: Vec<String>,
}

impl Ruling {
    /// A denial without rules.
    fn new(reason: &'static str) -> Self {
        Self {
            allow: false,
            reason,
            policies: Vec::new(),
            provider: None,
            audit: Vec::new(),
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is enforced.
    pub enforced: Ruling,
    /// Shadow DENY result: present when dry-run DENY policies apply and nothing earlier denied.
    pub shadow_deny: Option<Shadow>,
    /// Shadow ALLOW result: present when dry-run ALLOW policies apply and nothing earlier denied.
    pub shadow_allow: Option<Shadow>,
    /// The ruling with dry-run policies enforced too; `None` when none apply, or the request never
    /// reached a rule.
    pub trial: Option<Ruling>,
}

/// Decides one request. Where PeerAuthentication turns mTLS off, an identity cannot have been seen:
/// the request is decided with and without it, and allow needs both.
#[must_use]
pub fn evaluate(world: &World, facts: &Facts) -> Answer {
    let Some(facts) = &normalised(world, facts) else {
        return Answer {
            enforced: Ruling::new("invalid_request"),
            shadow_deny: None,
            shadow_allow: None,
            trial: None,
        };
    };
    let seen = reading(world, facts);
    if mtls::mode(world, facts.destination_port) != "DISABLE" {
        return seen;
    }
    let mut hidden = facts.clone();
    hidden.uri_sans.clear();
    hidden.dns_sans.clear();
    hidden.subject = None;
    let hidden = reading(world, &hidden);
    let trial = |answer: &Answer| answer.trial.as_ref().is_some_and(|trial| trial.allow);
    let (trial, shadows) = if trial(&seen) {
        (&hidden.trial, &hidden)
    } else {
        (&seen.trial, &seen)
    };
    Answer {
        enforced: if seen.enforced.allow {
            hidden.enforced.clone()
        } else {
            seen.enforced.clone()
        },
        shadow_deny: shadows.shadow_deny.clone(),
        shadow_allow: shadows.shadow_allow.clone(),
        trial: trial.clone(),
    }
}

/// Decides one reading of a request.
fn reading(world: &World, facts: &Facts) -> Answer {
    let enforced = ruling(world, facts, Trial::Ignored);
    let stop = enforced.reason;
    let early = !matches!(
        stop,
        "allowed_by" | "no_allow_policy" | "denied_by" | "no_allow_matched"
    );
    let deny = attach::policies(world, "DENY", true);
    let allow = attach::policies(world, "ALLOW", true);
    let matched = |policies: &[&Value], action| first(&hits(world, facts, policies, action));
    let shadow_deny = (!early && !deny.is_empty()).then(|| {
        let policy = matched(&deny, "DENY");
        Shadow {
            allowed: policy.is_none(),
            policy,
        }
    });
    let shadow_allow = (!early && stop != "denied_by" && !allow.is_empty()).then(|| {
        let policy = matched(&allow, "ALLOW");
        Shadow {
            allowed: policy.is_some(),
            policy,
        }
    });
    Answer {
        enforced,
        shadow_deny,
        shadow_allow,
        trial: on_trial(world).then(|| ruling(world, facts, Trial::Enforced)),
    }
}

/// What becomes of policies annotated with dry-run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trial {
    Ignored,
    Enforced,
}

/// Whether a dry-run policy applies that the target knows at all.
fn on_trial(world: &World) -> bool {
    let actions: &[&str] = match world.target {
        Target::Ztunnel => &["ALLOW", "DENY"],
        _ => &["ALLOW", "DENY", "AUDIT", "CUSTOM"],
    };
    actions
        .iter()
        .any(|action| !attach::policies(world, action, true).is_empty())
}

/// The facts as a rule sees them: path normalised, server name in lower case, nothing of HTTP on
/// layer 4. `None` for a path that Envoy refuses.
fn normalised(world: &World, facts: &Facts) -> Option<Facts> {
    let mut facts = facts.clone();
    if world.target == Target::Ztunnel {
        facts.http = None;
    }
    if let Some(http) = &mut facts.http {
        http.path = path::normalise(&http.path, &world.mesh.path_normalization)?;
    }
    facts.sni = facts.sni.map(|name| name.to_lowercase());
    Some(facts)
}

/// Envoy ids of the rules of `policies` that match, in Envoy's order: sorted as text.
fn hits(world: &World, facts: &Facts, policies: &[&Value], action: &str) -> Vec<String> {
    let mut ids: Vec<String> = policies
        .iter()
        .flat_map(|policy| {
            let rules = policy["spec"]["rules"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let name = format!(
                "ns[{}]-policy[{}]",
                attach::namespace(policy),
                attach::name(policy)
            );
            rules
                .into_iter()
                .enumerate()
                .filter(|(_, rule)| {
                    let home = attach::namespace(policy);
                    if world.target == Target::Ztunnel {
                        ztunnel::matches(rule, home, action, facts)
                    } else {
                        rule::matches(rule, home, action, world, facts)
                    }
                })
                .map(move |(index, _)| format!("{name}-rule[{index}]"))
                .collect::<Vec<_>>()
        })
        .collect();
    ids.sort();
    ids
}

fn first(ids: &[String]) -> Option<String> {
    ids.first().cloned()
}

/// Everything in Envoy's order: connection, token, CUSTOM, AUDIT, DENY, ALLOW.
fn ruling(world: &World, facts: &Facts, trial: Trial) -> Ruling {
    let policies = |action| {
        let mut all = attach::policies(world, action, false);
        if trial == Trial::Enforced {
            all.extend(attach::policies(world, action, true));
        }
        all
    };
    let mut out = Ruling::new("mtls_required");
    if mtls::refuses(world, facts) {
        return out;
    }
    if token::unverified(world, facts) {
        out.reason = "token_unverified";
        return out;
    }
    if world.target != Target::Ztunnel {
        let custom = policies("CUSTOM");
        let mut providers: Vec<&str> = custom.iter().copied().map(attach::provider).collect();
        providers.sort_unstable();
        providers.dedup();
        for provider in providers {
            let own: Vec<&Value> = custom
                .iter()
                .copied()
                .filter(|policy| attach::provider(policy) == provider)
                .collect();
            let matched = hits(world, facts, &own, "CUSTOM");
            if matched.is_empty() {
                continue;
            }
            if world.mesh.providers.iter().any(|name| name == provider) {
                out.provider = out.provider.or_else(|| Some(provider.to_owned()));
                continue;
            }
            out.reason = "custom_provider_unavailable";
            out.provider = Some(provider.to_owned());
            out.policies = matched;
            return out;
        }
        out.audit = hits(world, facts, &policies("AUDIT"), "AUDIT");
    }
    out.policies = hits(world, facts, &policies("DENY"), "DENY");
    if !out.policies.is_empty() {
        out.reason = "denied_by";
        return out;
    }
    let allow = policies("ALLOW");
    out.policies = hits(world, facts, &allow, "ALLOW");
    (out.allow, out.reason) = match (allow.is_empty(), out.policies.is_empty()) {
        (true, _) => (true, "no_allow_policy"),
        (false, true) => (false, "no_allow_matched"),
        (false, false) => (true, "allowed_by"),
    };
    out
}
