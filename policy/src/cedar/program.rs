//! A rule's Cedar condition made ready for one worker, with everything that evaluating it reads.
//!
//! The scope is left out: a slice holds only rules whose scope is known to hold. The context is flat:
//! `context["http.path"]` for `context.http.path`, and a fact is an attribute that is true or false
//! instead of an element of a set. The evaluator's cost follows the number of nodes, and hashing costs
//! more than comparing. A program belongs to one thread: sharing Cedar expressions between threads is
//! slower than one thread alone.

use std::sync::Arc;

use cedar_policy_core::ast;
use cedar_policy_core::pst::{BinaryOp, Expr, Literal, Var};
use smol_str::SmolStr;

use super::emit;
use super::fact::{self, FactSet, Place};
use crate::facts::Facts;
use crate::model::{Clause, IdentityField, Matcher, Rule};
use crate::text::Form;

/// Attributes of the context that an expression reads, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u16);

impl Attributes {
    /// `context.source.identities`.
    pub const IDENTITIES: Self = Self(1);
    /// `context.source.certificate`.
    pub const CERTIFICATE: Self = Self(1 << 1);
    /// `context.connection.sni`.
    pub const SNI: Self = Self(1 << 3);
    /// `context.http.method`.
    pub const METHOD: Self = Self(1 << 4);
    /// `context.http.path`.
    pub const PATH: Self = Self(1 << 5);
    /// `context.http.host`.
    pub const HOST: Self = Self(1 << 6);

    /// Both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when every bit of `other` is here.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Appends the exact values of these attributes to a key. Texts end with their length, lists with
    /// their count, so that a key can be read from its end in one way only.
    pub fn read(self, facts: &Facts<'_>, key: &mut Vec<u8>) {
        fn text(key: &mut Vec<u8>, s: &str) {
            key.extend_from_slice(s.as_bytes());
            key.extend_from_slice(&s.len().to_le_bytes());
        }
        if self.has(Self::IDENTITIES) {
            facts.identities.iter().for_each(|id| text(key, id));
            key.extend_from_slice(&facts.identities.len().to_le_bytes());
        }
        if self.has(Self::SNI) {
            text(key, &facts.sni);
        }
        if let Some(http) = &facts.http {
            if self.has(Self::METHOD) {
                text(key, http.method());
            }
            if self.has(Self::PATH) {
                text(key, http.url_path());
            }
            if self.has(Self::HOST) {
                text(key, http.host());
            }
        }
        if self.has(Self::CERTIFICATE) {
            key.push(u8::from(facts.peer_certificate()));
        }
    }

    fn read_by(matcher: &Matcher) -> Self {
        match matcher {
            Matcher::Identity(IdentityField::Principal, p)
                if matches!(p.form(), Form::Exact(_)) =>
            {
                Self::IDENTITIES
            }
            Matcher::PeerCertificate => Self::CERTIFICATE,
            Matcher::Sni(_) => Self::SNI,
            Matcher::Method(_) => Self::METHOD,
            Matcher::Path(_) => Self::PATH,
            Matcher::Host(_) => Self::HOST,
            _ => Self::default(),
        }
    }
}

/// One fact that an expression asks for.
#[derive(Clone, Debug)]
pub struct FactTest {
    /// Set it stands in.
    pub set: FactSet,
    /// Its text.
    pub text: SmolStr,
    /// Its attribute in the flat context.
    pub attr: SmolStr,
    any: Vec<Matcher>,
    certain: bool,
}

impl FactTest {
    /// A fact that a user policy names.
    #[must_use]
    pub fn new(set: FactSet, text: SmolStr, matcher: Matcher) -> Self {
        let certain = set != FactSet::Possible;
        Self::of(set, text, vec![matcher], certain)
    }

    fn of(set: FactSet, text: SmolStr, any: Vec<Matcher>, certain: bool) -> Self {
        Self {
            attr: flat_fact(set.path().last().copied().unwrap_or_default(), &text),
            set,
            text,
            any,
            certain,
        }
    }

    /// What the fact looks at.
    pub fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.any.iter()
    }

    /// Whether the fact stands in its set for this request.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        let certain = self.certain != facts.view.favourable;
        self.any.iter().any(|m| facts.matches(m).holds(certain))
    }
}

/// A condition and what it reads.
#[derive(Clone, Debug)]
pub struct Program {
    /// The condition, without scope.
    pub condition: ast::Expr,
    /// Attributes it reads.
    pub attributes: Attributes,
    /// Facts it asks for.
    pub facts: Vec<FactTest>,
}

impl Program {
    /// Builds the program of a rule.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        let condition = emit::conditions(rule)
            .into_iter()
            .map(|condition| ast::Expr::from(flat(&condition)))
            .reduce(ast::Expr::and)
            .unwrap_or_else(|| ast::Expr::val(true));
        let (attributes, facts) = reads(rule);
        Self {
            condition,
            attributes,
            facts,
        }
    }
}

/// The same expression over the flat context.
fn flat(expr: &Expr) -> Expr {
    let under = |expr: &Arc<Expr>| Arc::new(flat(expr));
    match expr {
        Expr::GetAttr { .. } => match attribute(expr) {
            Some(path) => root(SmolStr::from(path.join("."))),
            None => expr.clone(),
        },
        Expr::BinaryOp { op, left, right } => {
            if *op == BinaryOp::Contains
                && let Some(set) = attribute(left).and_then(|path| path.last().copied())
                && FactSet::ALL.iter().any(|s| s.path().ends_with(&[set]))
                && let Expr::Literal(Literal::String(text)) = right.as_ref()
            {
                return root(flat_fact(set, text));
            }
            Expr::BinaryOp {
                op: *op,
                left: under(left),
                right: under(right),
            }
        }
        Expr::UnaryOp { op, expr } => Expr::UnaryOp {
            op: *op,
            expr: under(expr),
        },
        Expr::Like { expr, pattern } => Expr::Like {
            expr: under(expr),
            pattern: pattern.clone(),
        },
        // Literals and variables; `emit` makes nothing else.
        other => other.clone(),
    }
}

/// Name of a fact in the flat context; no attribute's own name has a colon.
fn flat_fact(set: &str, text: &str) -> SmolStr {
    SmolStr::from(format!("{set}: {text}"))
}

fn root(attr: SmolStr) -> Expr {
    Expr::GetAttr {
        expr: Arc::new(Expr::Var(Var::Context)),
        attr,
    }
}

/// `["http", "path"]` of `context.http.path`.
fn attribute(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Var(Var::Context) => Some(Vec::new()),
        Expr::GetAttr { expr, attr } => {
            let mut path = attribute(expr)?;
            path.push(attr);
            Some(path)
        }
        _ => None,
    }
}

/// What the conditions of a rule read.
#[must_use]
pub fn reads(rule: &Rule) -> (Attributes, Vec<FactTest>) {
    let mut attributes = Attributes::default();
    let mut facts = Vec::new();
    let mut read = |place: Place, clause: &Clause| {
        // Which side the fact stands for: see `fact::of`.
        let certain = rule.role.needs_certainty() != clause.negated;
        if fact::is_long(clause) {
            let name = fact::list_name(rule, place, clause);
            let any = clause.any.clone();
            facts.push(FactTest::of(FactSet::Lists, name, any, certain));
            return;
        }
        for matcher in &clause.any {
            match fact::of(rule, clause, matcher) {
                Some((set, text)) => {
                    facts.push(FactTest::of(set, text, vec![matcher.clone()], certain));
                }
                None => attributes = attributes.and(Attributes::read_by(matcher)),
            }
        }
    };
    for alternative in &rule.from {
        alternative
            .clauses
            .iter()
            .for_each(|c| read(Place::From(alternative.index), c));
    }
    for alternative in &rule.to {
        alternative
            .clauses
            .iter()
            .for_each(|c| read(Place::To(alternative.index), c));
    }
    rule.when.iter().for_each(|c| read(Place::When, c));
    (attributes, facts)
}
