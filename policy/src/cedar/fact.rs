//! Facts: what Cedar cannot compute, handed in as texts of the form `KEY: VALUE`.
//!
//! Two matchers with equal texts are equal, so that one text is one fact.

use std::fmt::Write as _;

use smol_str::SmolStr;

use crate::model::{Clause, IdentityField, Matcher, Rule};

/// Lists longer than this become one fact: evaluating a long chain costs more than all the rest.
pub const LONGEST_CHAIN: usize = 4;

/// Text of the fact that a token is there and nobody verified it.
pub const UNVERIFIED_TOKEN: &str = "request.auth: unverified";

/// Which set of the context a fact stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FactSet {
    /// `context.facts`: certain.
    Facts,
    /// `context.possible`: certain or not known.
    Possible,
    /// `context.http.templates`.
    Templates,
    /// `context.lists`.
    Lists,
}

impl FactSet {
    /// Every set.
    pub const ALL: [Self; 4] = [Self::Facts, Self::Possible, Self::Templates, Self::Lists];

    /// Where it stands in the context.
    #[must_use]
    pub const fn path(self) -> &'static [&'static str] {
        match self {
            Self::Facts => &["facts"],
            Self::Possible => &["possible"],
            Self::Templates => &["http", "templates"],
            Self::Lists => &["lists"],
        }
    }
}

/// True when the clause is written as one fact about its whole list.
#[must_use]
pub fn is_long(clause: &Clause) -> bool {
    clause.any.len() > LONGEST_CHAIN
}

/// Name of a long list: the field of the rule it came from.
#[must_use]
pub fn list_name(rule: &Rule, place: Place, clause: &Clause) -> SmolStr {
    let mut name = SmolStr::default();
    let mut text = String::new();
    let written = match place {
        Place::From(i) => write!(text, "{}.from[{i}].source.{}", rule.id, clause.field),
        Place::To(i) => write!(text, "{}.to[{i}].operation.{}", rule.id, clause.field),
        Place::When => write!(
            text,
            "{}.when[{}].{}",
            rule.id,
            clause.when_index.unwrap_or_default(),
            if clause.negated {
                "notValues"
            } else {
                "values"
            }
        ),
    };
    if written.is_ok() {
        name = SmolStr::from(text);
    }
    name
}

/// Where in a rule a clause stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `from[i]`.
    From(u32),
    /// `to[i]`.
    To(u32),
    /// `when`.
    When,
}

/// The set and text of the fact that stands for `matcher`; `None` for what is an attribute of the
/// context instead.
///
/// A positive clause of a rule that needs certainty asks for certainty; negated, it must fail if the
/// match is possible. For every other rule it is the other way round.
#[must_use]
pub fn of(rule: &Rule, clause: &Clause, matcher: &Matcher) -> Option<(FactSet, SmolStr)> {
    let certain = rule.role.needs_certainty() != clause.negated;
    let uncertain_kind = if certain {
        FactSet::Facts
    } else {
        FactSet::Possible
    };
    let uncertain = |text: String| Some((uncertain_kind, SmolStr::from(text)));
    let text = match matcher {
        Matcher::Identity(IdentityField::Principal, pattern)
            if matches!(pattern.form(), crate::text::Form::Exact(_)) =>
        {
            return None;
        }
        Matcher::Identity(field @ IdentityField::ServiceAccount, pattern)
            if !pattern.text().contains('/') =>
        {
            format!(
                "{}: {}/{}",
                field.as_str(),
                rule.id.namespace,
                pattern.text()
            )
        }
        Matcher::Identity(field, pattern) => format!("{}: {}", field.as_str(), pattern.text()),
        Matcher::SourceIp(cidr) => return uncertain(format!("source.ip: {}", cidr.text())),
        Matcher::DestinationIp(cidr) => {
            return uncertain(format!("destination.ip: {}", cidr.text()));
        }
        Matcher::DestinationPort(port) => return uncertain(format!("destination.port: {port}")),
        Matcher::RemoteIp(cidr) => return uncertain(format!("remote.ip: {}", cidr.text())),
        Matcher::Header(name, value) => {
            let name = escape(&name.0);
            return uncertain(format!("request.headers[{name}]: {}", value.text()));
        }
        Matcher::Template(template) => {
            return Some((FactSet::Templates, SmolStr::from(template.text())));
        }
        Matcher::RequestPrincipal(p) => format!("request.auth.principal: {}", p.text),
        Matcher::Claim(path, value) => {
            let mut text = String::from("request.auth.claims");
            for name in path {
                text.push('[');
                text.push_str(&escape(name));
                text.push(']');
            }
            text.push_str(": ");
            text.push_str(value.text());
            text
        }
        Matcher::Metadata {
            filter,
            key,
            list,
            value,
        } => {
            let (open, close) = if *list { ("[", "]") } else { ("", "") };
            format!(
                "experimental.{}[{}]: {open}{}{close}",
                escape(filter),
                escape(key),
                escape(value.text())
            )
        }
        Matcher::UnverifiedToken => UNVERIFIED_TOKEN.to_owned(),
        Matcher::Sni(_)
        | Matcher::Method(_)
        | Matcher::Host(_)
        | Matcher::Path(_)
        | Matcher::PeerCertificate => return None,
    };
    Some((FactSet::Facts, text.into()))
}

/// Keeps brackets of a name apart from those of the text.
fn escape(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('[', "\\[")
        .replace(']', "\\]")
}
