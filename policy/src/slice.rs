//! A slice: every rule that applies to one destination, in one dialect, with its index.
//!
//! Workloads with the same policies share a slice, so a mesh of thousands of workloads has few.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::attachment::{self, EnforcementPoint};
use crate::closing::Closing;
use crate::index::Index;
use crate::model::{Alternative, Clause, Dialect, Matcher, Role, Rule, RuleId};
use crate::peer_authentication::{Effective, PeerAuthentications, SetBy};
use crate::policy_set::{Policy, PolicySet};
use crate::reads::Reads;
use crate::request::Target;
use crate::request_authentication::TokenRules;
use crate::resource::{MtlsMode, Resource};
use crate::user::UserPolicy;

/// One of a kind: equal to itself alone, whatever it holds.
#[derive(Debug)]
pub struct Same<T>(pub Arc<T>);

impl<T> Clone for Same<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Same<T> {}

impl<T> Hash for Same<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.0) as usize).hash(state);
    }
}

/// What a destination's rules depend on: equal contents are one slice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Contents {
    /// Which reading of the policies.
    pub dialect: Dialect,
    /// AuthorizationPolicies that apply, in document order.
    pub policies: Vec<Same<Policy>>,
    /// RequestAuthentications that apply, in document order.
    pub tokens: Vec<Same<Resource>>,
    /// User policies that can apply.
    pub user: Vec<Same<UserPolicy>>,
    /// Peer identity demanded, by port; `None`: any other port, or unknown.
    pub mtls: Vec<(Port, MtlsMode, Option<String>)>,
    /// Policies left out closed that select the destination.
    pub closings: Vec<Same<Closing>>,
}

/// A port, or the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// This port.
    Is(u16),
    /// A known port that is not named.
    Other,
    /// The request does not tell its port.
    Unknown,
}

impl Contents {
    /// Gathers what applies at `point`.
    #[must_use]
    pub fn at(point: &EnforcementPoint<'_>, dialect: Dialect, set: &PolicySet) -> Self {
        fn same<T>(items: Vec<Arc<T>>) -> Vec<Same<T>> {
            items.into_iter().map(Same).collect()
        }
        let mut policies = set.policies_at(point);
        policies.retain(|policy| attachment::enforces(point.target, policy.action()));
        let tokens = if dialect == Dialect::Http {
            set.tokens_at(point)
        } else {
            Vec::new()
        };
        Self {
            dialect,
            policies: same(policies),
            tokens: same(tokens),
            user: same(set.user_policies_at(point)),
            mtls: mtls(
                point,
                set.peer_authentications(),
                set.peer_authentication_ports(),
            ),
            closings: same(set.closings_at(point)),
        }
    }
}

fn mtls(
    point: &EnforcementPoint<'_>,
    all: &PeerAuthentications,
    ports: &[u16],
) -> Vec<(Port, MtlsMode, Option<String>)> {
    let entry = |key: Port, effective: Effective| {
        let policy = match effective.set_by {
            SetBy::Policy { policy, .. } => Some(policy),
            SetBy::Default | SetBy::Gateway | SetBy::WaypointListener => None,
        };
        (key, effective.mode, policy)
    };
    let at = |port: Option<u16>| all.effective(point.workload, port, point.target);
    let unnamed = (1..=u16::MAX).find(|p| ports.binary_search(p).is_err());
    let other = entry(Port::Other, at(unnamed));
    let mut table = vec![entry(Port::Unknown, at(None))];
    for port in ports {
        let named = entry(Port::Is(*port), at(Some(*port)));
        if (named.1, &named.2) != (other.1, &other.2) {
            table.push(named);
        }
    }
    table.push(other);
    table
}

/// The rules of one destination.
#[derive(Debug)]
pub struct Slice {
    /// What it was made from.
    pub contents: Contents,
    /// Rules in Envoy's order within each role; places in here are what the index names.
    pub rules: Vec<Arc<Rule>>,
    /// The index over `rules`.
    pub index: Index,
    /// An enforced ALLOW policy applies, rules or not.
    pub has_allow: bool,
    /// An ALLOW policy applies, enforced or on trial.
    pub has_allow_on_trial: bool,
    /// Some policy that applies is on trial.
    pub has_trial: bool,
    /// User policies that can apply.
    pub user: Vec<Arc<UserPolicy>>,
    /// What `rules` look at.
    pub rules_read: Reads,
    /// What `user` looks at.
    pub user_reads: Reads,
    /// Policies left out closed that select the destination: every request is denied.
    pub closed_by: Vec<Arc<Closing>>,
    /// Where tokens are looked for.
    pub tokens: Option<TokenRules>,
    mtls: BTreeMap<Port, (MtlsMode, Option<Arc<Rule>>)>,
    token_rule: Option<Arc<Rule>>,
}

impl Slice {
    /// Builds the slice with these contents.
    #[must_use]
    pub fn build(contents: Contents) -> Self {
        let dialect = contents.dialect;
        let mut rules: Vec<(String, Arc<Rule>)> = Vec::new();
        let (mut has_allow, mut has_allow_on_trial, mut has_trial) = (false, false, false);
        for Same(policy) in &contents.policies {
            let lowered = policy.lowered(dialect);
            if !lowered.applies {
                continue;
            }
            let dry_run = policy.dry_run();
            has_trial |= dry_run;
            if policy.action() == crate::resource::Action::Allow {
                has_allow_on_trial = true;
                has_allow |= !dry_run;
            }
            rules.extend(
                lowered
                    .rules
                    .iter()
                    .map(|r| (r.id.envoy_key(), Arc::clone(r))),
            );
        }
        let user: Vec<Arc<UserPolicy>> = contents.user.iter().map(|u| Arc::clone(&u.0)).collect();
        for user in &user {
            has_trial |= user.rule.dry_run;
            if user.is_permit() {
                has_allow |= !user.rule.dry_run;
                has_allow_on_trial = true;
            }
        }
        rules.sort_by(|(a, _), (b, _)| a.cmp(b));
        let rules: Vec<Arc<Rule>> = rules.into_iter().map(|(_, rule)| rule).collect();
        let rules_read = rules
            .iter()
            .fold(Reads::NONE, |reads, r| reads.and(Reads::of_rule(r)));
        let user_reads = user.iter().fold(Reads::NONE, |reads, u| reads.and(u.reads));
        let index = Index::build(rules.iter().map(AsRef::as_ref));
        let tokens = contents.tokens.iter().filter_map(|t| match t.0.as_ref() {
            Resource::RequestAuthentication(policy) => Some(policy),
            _ => None,
        });
        let tokens = TokenRules::combine(tokens);
        let mtls = contents
            .mtls
            .iter()
            .map(|(port, mode, policy)| {
                let rule = (*mode == MtlsMode::Strict)
                    .then(|| Arc::new(synthetic(Role::Mtls, dialect, policy.as_deref())));
                (*port, (*mode, rule))
            })
            .collect();
        let token_rule = tokens.as_ref().map(|t| {
            // Whichever was read first: the same set has the same answers.
            let first = t.policies().iter().min().map(String::as_str);
            Arc::new(synthetic(Role::Token, dialect, first))
        });
        let closings = contents.closings.iter();
        let closed_by = closings.map(|c| Arc::clone(&c.0)).collect();
        Self {
            contents,
            rules,
            closed_by,
            index,
            has_allow,
            has_allow_on_trial,
            has_trial,
            user,
            rules_read,
            user_reads,
            tokens,
            mtls,
            token_rule,
        }
    }

    /// The mode of peer authentication on a port, and the rule that enforces it.
    #[must_use]
    pub fn mtls(&self, port: Option<u16>) -> (MtlsMode, Option<&Arc<Rule>>) {
        let key = port.map_or(Port::Unknown, Port::Is);
        let found = self.mtls.get(&key).or_else(|| self.mtls.get(&Port::Other));
        match found {
            Some((mode, rule)) => (*mode, rule.as_ref()),
            None => (MtlsMode::Permissive, None),
        }
    }

    /// The rule that refuses unverified tokens.
    #[must_use]
    pub fn token_rule(&self) -> Option<&Arc<Rule>> {
        self.token_rule.as_ref()
    }
}

/// A rule that no manifest spells out: a peer without identity, a token without a verdict.
fn synthetic(role: Role, dialect: Dialect, policy: Option<&str>) -> Rule {
    let (namespace, name) = policy.and_then(|p| p.split_once('/')).unwrap_or_default();
    let (field, matcher, negated) = match role {
        Role::Mtls => ("mtls", Matcher::PeerCertificate, true),
        _ => ("jwtRules", Matcher::UnverifiedToken, false),
    };
    let clause = Clause {
        field: Arc::from(field),
        when_index: None,
        negated,
        any: vec![matcher],
        at: crate::diagnostic::Location::default(),
    };
    Rule {
        id: RuleId {
            namespace: Arc::from(namespace),
            name: Arc::from(name),
            index: None,
        },
        role,
        dialect,
        dry_run: false,
        at: crate::diagnostic::Location::default(),
        from: vec![Alternative {
            index: 0,
            clauses: vec![clause],
            never: false,
        }],
        to: Vec::new(),
        when: Vec::new(),
        never: false,
    }
}

/// The dialect in which a target reads policies.
#[must_use]
pub fn dialect(target: Target, http: bool) -> Dialect {
    match (target, http) {
        (Target::Ztunnel, _) => Dialect::Ztunnel,
        (_, true) => Dialect::Http,
        (_, false) => Dialect::Tcp,
    }
}
