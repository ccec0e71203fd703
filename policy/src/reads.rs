//! Which attributes of a request a rule or a user policy looks at.
//!
//! A request that lacks one of them cannot be decided by what looks at it: a guarded attribute that is
//! not there silences a forbid.

use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, Literal, Var};
use smol_str::SmolStr;

use crate::model::{Alternative, Matcher, Rule};

/// A set of attributes, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads(u16);

impl Reads {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// The method.
    pub const METHOD: Self = Self(1);
    /// The path, its query or its templates.
    pub const PATH: Self = Self(1 << 1);
    /// The host.
    pub const HOST: Self = Self(1 << 2);
    /// Headers that are not pseudo-headers.
    pub const HEADERS: Self = Self(1 << 3);
    /// The peer's address.
    pub const SOURCE_ADDRESS: Self = Self(1 << 4);
    /// The local address.
    pub const DESTINATION_ADDRESS: Self = Self(1 << 5);
    /// The local port.
    pub const DESTINATION_PORT: Self = Self(1 << 6);
    /// The client's address behind proxies.
    pub const REMOTE_ADDRESS: Self = Self(1 << 7);
    const ALL: Self = Self(u16::MAX);

    /// Both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when some bit of `other` is here.
    #[must_use]
    pub fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What a matcher looks at.
    #[must_use]
    pub fn of_matcher(matcher: &Matcher) -> Self {
        match matcher {
            Matcher::Method(_) => Self::METHOD,
            Matcher::Path(_) | Matcher::Template(_) => Self::PATH,
            Matcher::Host(_) => Self::HOST,
            Matcher::SourceIp(_) => Self::SOURCE_ADDRESS,
            Matcher::DestinationIp(_) => Self::DESTINATION_ADDRESS,
            Matcher::DestinationPort(_) => Self::DESTINATION_PORT,
            Matcher::RemoteIp(_) => Self::REMOTE_ADDRESS,
            Matcher::Header(name, _) => match name.0.as_ref() {
                ":method" => Self::METHOD,
                ":path" => Self::PATH,
                ":authority" | "host" => Self::HOST,
                _ => Self::HEADERS,
            },
            _ => Self::NONE,
        }
    }

    /// What the clauses of a rule look at.
    #[must_use]
    pub fn of_rule(rule: &Rule) -> Self {
        let alternatives = |list: &'_ [Alternative]| {
            list.iter()
                .flat_map(|a| &a.clauses)
                .flat_map(|c| &c.any)
                .fold(Self::NONE, |reads, m| reads.and(Self::of_matcher(m)))
        };
        rule.when
            .iter()
            .flat_map(|c| &c.any)
            .fold(Self::NONE, |reads, m| reads.and(Self::of_matcher(m)))
            .and(alternatives(&rule.from))
            .and(alternatives(&rule.to))
    }

    /// What a Cedar expression looks at in the context; a use of the context, or of a record in it, as
    /// a whole looks at everything there.
    #[must_use]
    pub fn of_expr(expr: &Expr) -> Self {
        if let Some(path) = context_path(expr) {
            return Self::of_path(&path);
        }
        let all = |list: &[&Expr]| {
            list.iter()
                .fold(Self::NONE, |reads, e| reads.and(Self::of_expr(e)))
        };
        match expr.expr_kind() {
            ExprKind::HasAttr { expr: of, attr } => match context_path(of) {
                // Asking for a record that is always there reads nothing in it.
                Some(path) if path.is_empty() => Self::NONE,
                Some(mut path) => {
                    path.push(attr.clone());
                    Self::of_path(&path)
                }
                None => Self::of_expr(of),
            },
            ExprKind::If {
                test_expr,
                then_expr,
                else_expr,
            } => all(&[test_expr, then_expr, else_expr]),
            ExprKind::And { left, right } | ExprKind::Or { left, right } => all(&[left, right]),
            ExprKind::UnaryApp { arg, .. } => Self::of_expr(arg),
            ExprKind::BinaryApp { arg1, arg2, .. } => all(&[arg1, arg2]),
            ExprKind::ExtensionFunctionApp { args, .. } => all(&args.iter().collect::<Vec<_>>()),
            ExprKind::GetAttr { expr, .. }
            | ExprKind::Like { expr, .. }
            | ExprKind::Is { expr, .. } => Self::of_expr(expr),
            ExprKind::Set(items) => all(&items.iter().collect::<Vec<_>>()),
            ExprKind::Record(fields) => all(&fields.values().collect::<Vec<_>>()),
            ExprKind::Lit(_) | ExprKind::Var(_) | ExprKind::Slot(_) => Self::NONE,
            // A kind of expression that is not known here may look at anything.
            _ => Self::ALL,
        }
    }

    fn of_path(path: &[SmolStr]) -> Self {
        const KNOWN: [(&[&str], Reads); 13] = [
            (&["http", "method"], Reads::METHOD),
            (&["http", "path"], Reads::PATH),
            (&["http", "query"], Reads::PATH),
            (&["http", "templates"], Reads::PATH),
            (&["http", "host"], Reads::HOST),
            // Pseudo-headers are tags as well.
            (&["http", "headers"], Reads::HEADERS),
            (&["http", "headers"], Reads::METHOD),
            (&["http", "headers"], Reads::PATH),
            (&["http", "headers"], Reads::HOST),
            (&["source", "ip"], Reads::SOURCE_ADDRESS),
            (&["destination", "ip"], Reads::DESTINATION_ADDRESS),
            (&["destination", "port"], Reads::DESTINATION_PORT),
            (&["remote", "ip"], Reads::REMOTE_ADDRESS),
        ];
        KNOWN
            .iter()
            .filter(|(known, _)| known.iter().zip(path).all(|(a, b)| *a == b.as_str()))
            .fold(Self::NONE, |reads, (_, what)| reads.and(*what))
    }
}

/// Names of the request's headers that a Cedar expression looks at; `None`: it may look at any.
#[must_use]
pub fn header_names(expr: &Expr) -> Option<Vec<SmolStr>> {
    let mut names = Vec::new();
    for part in expr.subexpressions() {
        let ExprKind::BinaryApp {
            op: BinaryOp::HasTag | BinaryOp::GetTag,
            arg1,
            arg2,
        } = part.expr_kind()
        else {
            continue;
        };
        // Labels have tags as well.
        if matches!(root(arg1), ExprKind::Var(Var::Principal | Var::Resource)) {
            continue;
        }
        match arg2.expr_kind() {
            ExprKind::Lit(Literal::String(name)) => names.push(name.clone()),
            _ => return None,
        }
    }
    Some(names)
}

fn root(expr: &Expr) -> &ExprKind {
    match expr.expr_kind() {
        ExprKind::GetAttr { expr, .. } => root(expr),
        kind => kind,
    }
}

/// The attributes from `context` to what `expr` names, outermost first.
fn context_path(expr: &Expr) -> Option<Vec<SmolStr>> {
    match expr.expr_kind() {
        ExprKind::Var(Var::Context) => Some(Vec::new()),
        ExprKind::GetAttr { expr, attr } => {
            let mut path = context_path(expr)?;
            path.push(attr.clone());
            Some(path)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cedar_policy_core::parser::parse_policy;

    fn reads(text: &str) -> Reads {
        let text = format!("permit(principal, action, resource) when {{ {text} }};");
        let policy = parse_policy(None, &text).unwrap();
        Reads::of_expr(policy.non_scope_constraints().unwrap())
    }

    #[test]
    fn headers_are_named_or_may_be_any() {
        let names = |text: &str| {
            let text = format!("permit(principal, action, resource) when {{ {text} }};");
            let policy = parse_policy(None, &text).unwrap();
            header_names(policy.non_scope_constraints().unwrap())
        };
        let found = names(
            "context.http.headers.hasTag(\"a\") && context.http.headers.getTag(\"a\").contains(\"x\") \
             && !({h: context.http}.h.headers.hasTag(\"b\")) && resource.labels.hasTag(\"app\")",
        );
        let mut found = found.unwrap();
        found.sort();
        assert_eq!(found, ["a", "a", "b"]);
        assert_eq!(
            names("context.http.headers.hasTag(context.http.method)"),
            None
        );
        assert_eq!(names("true").unwrap().len(), 0);
    }

    #[test]
    fn an_expression_reads_what_it_names_and_nothing_else() {
        assert_eq!(reads("principal == resource"), Reads::NONE);
        assert_eq!(
            reads("context.http.method == \"GET\" && context.source.ip.isLoopback()"),
            Reads::METHOD.and(Reads::SOURCE_ADDRESS)
        );
        assert_eq!(
            reads("if context has http && context.http has query then true else [1].contains(2)"),
            Reads::PATH
        );
        assert_eq!(
            reads("{a: context.destination}"),
            Reads::DESTINATION_ADDRESS.and(Reads::DESTINATION_PORT)
        );
        assert_eq!(
            reads("context.destination has port"),
            Reads::DESTINATION_PORT
        );
        assert_eq!(reads("context.remote has ip"), Reads::REMOTE_ADDRESS);
        assert!(reads("context.http.headers.hasTag(\"x\")").any_of(Reads::HEADERS));
        assert_eq!(reads("context.facts.contains(\"a\")"), Reads::NONE);
    }
}
