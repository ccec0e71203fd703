//! Resources to rules: what istiod does when it turns a manifest into RBAC filters, and what
//! ztunnel does with the rest.
//!
//! Sources: policy.md 1.3, 1.4, 1.7, 1.8, 1.9 and the measured 1.15. Bad values that got past
//! validation are treated as istiod treats them (1.15.8): in an ALLOW the rule is dropped, elsewhere
//! only the value.

mod condition;
mod envoy;
mod ztunnel;

pub(crate) use ztunnel::layer_7;

use std::sync::Arc;

use crate::diagnostic::Location;
use crate::mesh::Mesh;
use crate::model::{Dialect, Role, Rule, RuleId};
use crate::resource::{Action, AuthorizationPolicy, ExtAuthz, RuleSpec};

pub use envoy::fact;

/// A rule that has no counterpart in a dialect, and why: explain reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Index in `spec.rules`.
    pub index: u32,
    /// Where it stands.
    pub at: Location,
    /// Why, for people.
    pub why: String,
}

/// One policy in one dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lowered {
    /// Its rules.
    pub rules: Vec<Arc<Rule>>,
    /// The rules that fell away.
    pub dropped: Vec<Dropped>,
    /// False when the dialect does not know the action at all: the policy does not exist there.
    pub applies: bool,
}

/// Lowers one policy for one dialect.
#[must_use]
pub fn authorization_policy(
    policy: &AuthorizationPolicy,
    dialect: Dialect,
    mesh: &Mesh,
) -> Lowered {
    // A dry-run CUSTOM only exists where the webhook was bypassed. istiod then puts its rules into an
    // enforced DENY filter before the provider's, or nowhere if the provider is unknown.
    let custom_trial = policy.action == Action::Custom && policy.dry_run == Some(true);
    let provider = policy.provider.as_ref().map_or("", |p| p.value.as_str());
    let asked = mesh
        .extension_providers
        .iter()
        .find(|p| p.name == provider)
        .and_then(|p| p.ext_authz);
    let http_only = dialect == Dialect::Tcp && asked == Some(ExtAuthz::Http);
    if policy.action == Action::Custom && (http_only || (custom_trial && asked.is_none())) {
        return Lowered::default();
    }
    let role = match policy.action {
        Action::Custom if custom_trial => Role::Deny,
        Action::Allow => Role::Allow,
        Action::Deny => Role::Deny,
        Action::Audit => Role::Audit,
        Action::Custom => Role::Custom(Arc::from(provider)),
    };
    if dialect == Dialect::Ztunnel && !matches!(role, Role::Allow | Role::Deny) {
        return Lowered::default();
    }
    let namespace: Arc<str> = Arc::from(policy.meta.namespace.as_str());
    let name: Arc<str> = Arc::from(policy.meta.name.as_str());
    let mut lowered = Lowered {
        applies: true,
        ..Lowered::default()
    };
    let rules = policy.rules.as_deref().unwrap_or_default();
    let blank = |index: u32, at: Location| Rule {
        id: RuleId {
            namespace: Arc::clone(&namespace),
            name: Arc::clone(&name),
            index: Some(index),
        },
        role: role.clone(),
        dialect,
        dry_run: policy.dry_run == Some(true) && !custom_trial,
        at,
        from: Vec::new(),
        to: Vec::new(),
        when: Vec::new(),
        never: false,
    };
    if rules.is_empty() {
        // istiod emits a policy that never matches, so that an ALLOW closes the workload.
        let mut rule = blank(0, policy.meta.at.clone());
        rule.never = true;
        lowered.rules.push(Arc::new(rule));
        return lowered;
    }
    for (index, entry) in rules.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let spec = match &entry.value {
            Some(spec) => spec,
            None => {
                lowered.dropped.push(Dropped {
                    index,
                    at: entry.at.clone(),
                    why: "the rule is null and is skipped".to_owned(),
                });
                continue;
            }
        };
        match fill(blank(index, entry.at.clone()), spec, mesh) {
            Ok(rule) => lowered.rules.push(Arc::new(rule)),
            Err(why) => lowered.dropped.push(Dropped {
                index,
                at: entry.at.clone(),
                why,
            }),
        }
    }
    lowered
}

fn fill(rule: Rule, spec: &RuleSpec, mesh: &Mesh) -> Result<Rule, String> {
    match rule.dialect {
        Dialect::Http | Dialect::Tcp => envoy::fill(rule, spec, mesh),
        Dialect::Ztunnel => ztunnel::fill(rule, spec),
    }
}
