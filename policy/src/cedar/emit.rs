//! One rule, one Cedar policy, built as a public syntax tree.
//!
//! Scope: the action of the dialect, and the attachment that holds the workloads the manifest
//! selects. Conditions: one `when` each for `from`, `to` and `when`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::pst::{
    ActionConstraint, BinaryOp, Clause as PstClause, Effect, EntityOrSlot, EntityType, EntityUID,
    Expr, Literal, Name, PatternElem, PolicyID, PrincipalConstraint, PstConstructionError,
    ResourceConstraint, StaticPolicy, Template, UnaryOp, Var,
};
use smol_str::SmolStr;

use super::fact::{self, FactSet, Place};
use crate::model::{Alternative, Clause, Dialect, Matcher, Role, Rule};
use crate::text::{Form, Pattern};

/// Id of the attachment that holds every workload without an ALLOW policy.
pub const NO_ALLOW_POLICY: &str = "no-allow-policy";
/// Id of the attachment that holds the destination when its peer must have an identity.
pub const IDENTITY_REQUIRED: &str = "identity-required";
/// Id of the attachment that holds every workload whose tokens must be verified.
pub const TOKEN_VERIFIED: &str = "token-verified";

/// Id of the attachment of one policy in one dialect.
#[must_use]
pub fn attachment_id(namespace: &str, name: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Http | Dialect::Tcp => format!("{namespace}/{name}"),
        Dialect::Ztunnel => format!("{namespace}/{name}@ztunnel"),
    }
}

/// Id of the Cedar policy of a rule: unique within a snapshot.
#[must_use]
pub fn policy_id(rule: &Rule) -> String {
    match rule.dialect {
        Dialect::Http => rule.id.to_string(),
        Dialect::Tcp => format!("{}@tcp", rule.id),
        Dialect::Ztunnel => format!("{}@ztunnel", rule.id),
    }
}

/// The whole policy of a rule, scope and annotations included.
///
/// # Errors
/// When Cedar refuses the tree, which would be a defect of ours.
pub fn policy(rule: &Rule) -> Result<StaticPolicy, PstConstructionError> {
    let attachment = attachment_id(&rule.id.namespace, &rule.id.name, rule.dialect);
    let effect = match rule.role {
        Role::Deny | Role::Mtls | Role::Token => Effect::Forbid,
        // AUDIT and CUSTOM are sets of their own: a satisfied trigger is a permit nobody combines.
        Role::Allow | Role::Audit | Role::Custom(_) => Effect::Permit,
    };
    let mut annotations = BTreeMap::new();
    let mut note =
        |key: &str, value: &str| annotations.insert(key.to_owned(), SmolStr::from(value));
    note("id", &policy_id(rule));
    note("action", rule.role.as_str());
    if rule.at.line != 0 {
        note("origin", &rule.at.to_string());
    }
    if let Role::Custom(provider) = &rule.role {
        note("provider", provider);
    }
    if rule.dry_run {
        note("dry_run", "true");
    }
    let action = match rule.dialect {
        Dialect::Http => "http",
        Dialect::Tcp | Dialect::Ztunnel => "connect",
    };
    build(
        &policy_id(rule),
        effect,
        Some(action),
        &attachment,
        conditions(rule),
        annotations,
    )
}

/// The permit for workloads that no ALLOW policy selects.
///
/// # Errors
/// When Cedar refuses the tree, which would be a defect of ours.
pub fn no_allow_policy() -> Result<StaticPolicy, PstConstructionError> {
    let annotations = [("id", NO_ALLOW_POLICY), ("reason", "no_allow_policy")]
        .map(|(k, v)| (k.to_owned(), SmolStr::from(v)))
        .into();
    build(
        NO_ALLOW_POLICY,
        Effect::Permit,
        None,
        NO_ALLOW_POLICY,
        Vec::new(),
        annotations,
    )
}

/// The forbid for peers without an identity, where one is required.
///
/// # Errors
/// When Cedar refuses the tree, which would be a defect of ours.
pub fn identity_required() -> Result<StaticPolicy, PstConstructionError> {
    let annotations = [("id", IDENTITY_REQUIRED), ("reason", "mtls_required")]
        .map(|(k, v)| (k.to_owned(), SmolStr::from(v)))
        .into();
    let peer = context(&["source", "certificate"]);
    let none = Expr::UnaryOp {
        op: UnaryOp::Not,
        expr: Arc::new(peer),
    };
    build(
        IDENTITY_REQUIRED,
        Effect::Forbid,
        None,
        IDENTITY_REQUIRED,
        vec![none],
        annotations,
    )
}

/// The forbid for tokens that nobody verified, where they must be.
///
/// # Errors
/// When Cedar refuses the tree, which would be a defect of ours.
pub fn token_verified() -> Result<StaticPolicy, PstConstructionError> {
    let annotations = [("id", TOKEN_VERIFIED), ("reason", "token_unverified")]
        .map(|(k, v)| (k.to_owned(), SmolStr::from(v)))
        .into();
    let unverified = in_set(FactSet::Facts, fact::UNVERIFIED_TOKEN);
    build(
        TOKEN_VERIFIED,
        Effect::Forbid,
        Some("http"),
        TOKEN_VERIFIED,
        vec![unverified],
        annotations,
    )
}

fn build(
    id: &str,
    effect: Effect,
    action: Option<&str>,
    attachment: &str,
    conditions: Vec<Expr>,
    annotations: BTreeMap<String, SmolStr>,
) -> Result<StaticPolicy, PstConstructionError> {
    let (action_type, attachment_type) = types()?;
    let uid = |ty: &EntityType, id: &str| EntityUID {
        ty: ty.clone(),
        eid: SmolStr::from(id),
    };
    let action = match action {
        Some(id) => ActionConstraint::Eq(uid(action_type, id)),
        None => ActionConstraint::Any,
    };
    let attachment = EntityOrSlot::Entity(uid(attachment_type, attachment));
    let resource = ResourceConstraint::In(attachment);
    let template = Template::new(
        PolicyID(SmolStr::from(id)),
        effect,
        PrincipalConstraint::Any,
        action,
        resource,
    )
    .try_with_clauses(conditions.into_iter().map(|e| PstClause::When(Arc::new(e))))?
    .with_annotations(annotations);
    Ok(StaticPolicy::try_from(template)?)
}

/// Types of the entities in scopes. Cedar checks each name by a regular expression, which would cost
/// more than the rest of a policy.
static TYPES: LazyLock<Result<(EntityType, EntityType), PstConstructionError>> =
    LazyLock::new(|| {
        let named = |name| Name::unqualified(name).map(EntityType::from_name);
        Ok((named("Action")?, named("Attachment")?))
    });

fn types() -> Result<&'static (EntityType, EntityType), PstConstructionError> {
    TYPES.as_ref().map_err(Clone::clone)
}

/// The conditions of a rule, ANDed: what decides once the scope is known to hold.
#[must_use]
pub fn conditions(rule: &Rule) -> Vec<Expr> {
    if rule.never {
        return vec![Expr::Literal(Literal::Bool(false))];
    }
    let mut all = Vec::with_capacity(3);
    let alternatives = |list: &[Alternative], place: fn(u32) -> Place| {
        let any: Vec<Expr> = list
            .iter()
            .map(|a| alternative(rule, a, place(a.index)))
            .collect();
        join(BinaryOp::Or, any)
    };
    all.extend(alternatives(&rule.from, Place::From));
    all.extend(alternatives(&rule.to, Place::To));
    all.extend(join(
        BinaryOp::And,
        rule.when
            .iter()
            .map(|c| clause(rule, Place::When, c))
            .collect(),
    ));
    all
}

fn alternative(rule: &Rule, alternative: &Alternative, place: Place) -> Expr {
    if alternative.never {
        return boolean(false);
    }
    let all = alternative
        .clauses
        .iter()
        .map(|c| clause(rule, place, c))
        .collect();
    join(BinaryOp::And, all).unwrap_or_else(|| boolean(true))
}

fn clause(rule: &Rule, place: Place, clause: &Clause) -> Expr {
    let any = if fact::is_long(clause) {
        in_set(FactSet::Lists, &fact::list_name(rule, place, clause))
    } else {
        let values = clause
            .any
            .iter()
            .map(|m| matcher(rule, clause, m))
            .collect();
        join(BinaryOp::Or, values).unwrap_or_else(|| boolean(false))
    };
    if clause.negated {
        Expr::UnaryOp {
            op: UnaryOp::Not,
            expr: Arc::new(any),
        }
    } else {
        any
    }
}

fn matcher(rule: &Rule, clause: &Clause, matcher: &Matcher) -> Expr {
    if let Some((set, text)) = fact::of(rule, clause, matcher) {
        return in_set(set, &text);
    }
    match matcher {
        Matcher::Identity(_, pattern) => {
            let id = match pattern.form() {
                Form::Exact(id) => id.as_str(),
                _ => pattern.text(),
            };
            contains(context(&["source", "identities"]), id)
        }
        Matcher::Sni(pattern) => text(context(&["connection", "sni"]), pattern),
        Matcher::Method(pattern) => text(context(&["http", "method"]), pattern),
        Matcher::Host(pattern) => text(context(&["http", "host"]), pattern),
        Matcher::Path(pattern) => text(context(&["http", "path"]), pattern),
        Matcher::PeerCertificate => context(&["source", "certificate"]),
        // Every other kind is a fact.
        _ => boolean(false),
    }
}

/// A single text against a pattern of the plain forms.
fn text(found: Expr, pattern: &Pattern) -> Expr {
    let string = |s: &str| Expr::Literal(Literal::String(SmolStr::from(s)));
    let chars = |s: &str| s.chars().map(PatternElem::Char).collect::<Vec<_>>();
    let like = |pattern: Vec<PatternElem>| Expr::Like {
        expr: Arc::new(found.clone()),
        pattern,
    };
    let not_empty = || binary(BinaryOp::NotEq, found.clone(), string(""));
    match pattern.form() {
        Form::Any => not_empty(),
        Form::Present => {
            // RE2's `.` does not match a newline.
            let newline = like(vec![
                PatternElem::Wildcard,
                PatternElem::Char('\n'),
                PatternElem::Wildcard,
            ]);
            let none = Expr::UnaryOp {
                op: UnaryOp::Not,
                expr: Arc::new(newline),
            };
            binary(BinaryOp::And, not_empty(), none)
        }
        Form::Exact(s) => binary(BinaryOp::Eq, found, string(s)),
        Form::Prefix(s) => {
            let mut elements = chars(s);
            elements.push(PatternElem::Wildcard);
            like(elements)
        }
        Form::Suffix(s) => {
            let mut elements = vec![PatternElem::Wildcard];
            elements.extend(chars(s));
            like(elements)
        }
        // Identities only, and those are facts.
        Form::Joined(_) | Form::ServiceAccount { .. } | Form::TrustDomain { .. } => boolean(false),
    }
}

fn in_set(set: FactSet, text: &str) -> Expr {
    contains(context(set.path()), text)
}

fn contains(set: Expr, text: &str) -> Expr {
    binary(
        BinaryOp::Contains,
        set,
        Expr::Literal(Literal::String(SmolStr::from(text))),
    )
}

fn context(path: &[&str]) -> Expr {
    path.iter()
        .fold(Expr::Var(Var::Context), |expr, attr| Expr::GetAttr {
            expr: Arc::new(expr),
            attr: SmolStr::from(*attr),
        })
}

fn boolean(value: bool) -> Expr {
    Expr::Literal(Literal::Bool(value))
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        op,
        left: Arc::new(left),
        right: Arc::new(right),
    }
}

/// Longest chain of one operator. Cedar walks trees by recursion, so a chain as long as a list in a
/// manifest could exhaust a thread's stack; chains of chains stay shallow.
const LONGEST_RUN: usize = 32;

/// `None` for an empty list.
fn join(op: BinaryOp, mut list: Vec<Expr>) -> Option<Expr> {
    while list.len() > LONGEST_RUN {
        let mut runs = Vec::with_capacity(list.len().div_ceil(LONGEST_RUN));
        let mut rest = list.into_iter().peekable();
        while rest.peek().is_some() {
            let run = rest.by_ref().take(LONGEST_RUN);
            runs.extend(run.reduce(|left, right| binary(op, left, right)));
        }
        list = runs;
    }
    list.into_iter()
        .reduce(|left, right| binary(op, left, right))
}
