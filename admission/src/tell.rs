//! Findings in the words of an answer, within the limits that an API server sets.

use std::fmt::Write as _;

use portcullis_policy::diagnostic::{Diagnostic, code};
use portcullis_policy::live::ObjectKey;

use crate::cases::Flips;
use crate::judge::CaseOutcome;
use crate::review::DetailCause;

/// Longest warning, in characters: the API server cuts longer ones when there is much to warn about.
pub const WARNING: usize = 256;
/// All warnings of an answer, in characters: the API server leaves out what is beyond.
pub const WARNINGS: usize = 4096;
/// Room for the line that counts what is left out.
const REST: usize = 80;
/// Longest message of a refusal, in characters.
pub const MESSAGE: usize = 8192;
/// Longest value of an audit annotation, in characters.
pub const ANNOTATION: usize = 1024;
/// Findings that programs are told of.
const CAUSES: usize = 32;
/// Cases that are named in one line.
const NAMED: usize = 3;

/// `PC0120: cause (field.path); hint` about the object `subject`; of another object its name stands before the path.
/// Shortened where it must be: first the hint goes.
#[must_use]
pub fn warning(diagnostic: &Diagnostic, subject: &ObjectKey) -> String {
    let own = subject.resource();
    let other = diagnostic.resource.as_deref().filter(|name| *name != own);
    let whole = line(diagnostic, other, true);
    if whole.chars().count() <= WARNING {
        return whole;
    }
    cut(&line(diagnostic, other, false), WARNING)
}

fn line(diagnostic: &Diagnostic, other: Option<&str>, hint: bool) -> String {
    let mut text = format!("{}: {}", diagnostic.code, diagnostic.message);
    match (other, &diagnostic.field) {
        (None, None) => {}
        (Some(place), None) => text.extend([" (", place, ")"]),
        (None, Some(place)) => text.extend([" (", place, ")"]),
        (Some(other), Some(field)) => text.extend([" (", other, " ", field, ")"]),
    }
    if let (true, Some(hint)) = (hint, &diagnostic.hint) {
        let _ = write!(text, "; {hint}");
    }
    one_line(&text)
}

/// Warnings as they may be sent: each once and cut to size, with a count of those left out at the end.
#[must_use]
pub fn fit(warnings: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let all: Vec<String> = warnings
        .into_iter()
        .map(|warning| cut(&one_line(&warning), WARNING))
        .filter(|warning| !warning.is_empty() && seen.insert(warning.clone()))
        .collect();
    let total: usize = all.iter().map(|warning| warning.chars().count()).sum();
    if total <= WARNINGS {
        return all;
    }
    let mut room = WARNINGS - REST;
    let mut fitting: Vec<String> = Vec::new();
    for warning in &all {
        let Some(left) = room.checked_sub(warning.chars().count()) else {
            break;
        };
        room = left;
        fitting.push(warning.clone());
    }
    let rest = all.len().saturating_sub(fitting.len());
    fitting.push(format!(
        "and {rest} more: `portcullis policy check` shows all"
    ));
    fitting
}

/// Why a change is refused: a short first line, then one for each finding.
#[must_use]
pub fn refusal(subject: &str, errors: &[&Diagnostic], flips: Option<&Flips>) -> String {
    let mut parts = Vec::new();
    match errors {
        [] => {}
        [one] => parts.push(one.code.to_owned()),
        several => parts.push(format!("{} errors", several.len())),
    }
    let broken = flips.map_or(&[][..], |flips| flips.broken.as_slice());
    match broken {
        [] => {}
        [_] => parts.push("a case that must hold breaks".to_owned()),
        several => parts.push(format!("{} cases that must hold break", several.len())),
    }
    let mut text = format!("{subject}: {}", parts.join(", "));
    let lines = errors
        .iter()
        .map(|error| line(error, None, true))
        .chain(broken.iter().map(case));
    let mut left = errors.len() + broken.len();
    let mut length = text.chars().count();
    for next in lines {
        let next = cut(&next, 1024);
        length += next.chars().count() + 3;
        if length > MESSAGE - REST {
            let _ = write!(
                text,
                "\n  and {left} more: `portcullis policy check` shows all"
            );
            return text;
        }
        left -= 1;
        let _ = write!(text, "\n  {next}");
    }
    if let Some(first) = errors.first() {
        let _ = write!(
            text,
            "\n  see `portcullis policy explain-code {}`",
            first.code
        );
    }
    text
}

/// The same for programs: the first `CAUSES` of what refuses.
#[must_use]
pub fn causes(errors: &[&Diagnostic], flips: Option<&Flips>) -> Vec<DetailCause> {
    let found = errors.iter().map(|error| {
        let mut message = error.message.clone();
        if let Some(hint) = &error.hint {
            let _ = write!(message, "; {hint}");
        }
        DetailCause {
            reason: error.code.to_owned(),
            message: cut(&one_line(&message), 1024),
            field: cut(&one_line(error.field.as_deref().unwrap_or_default()), 256),
        }
    });
    let broken = flips.into_iter().flat_map(|flips| &flips.broken);
    let broken = broken.map(|broken| DetailCause {
        reason: "PolicyTest".to_owned(),
        message: cut(&case(broken), 1024),
        field: String::new(),
    });
    found.chain(broken).take(CAUSES).collect()
}

/// `PolicyTest shop/web, case "x": wants allow, would be deny`.
#[must_use]
pub fn case(case: &CaseOutcome) -> String {
    let text = format!(
        "PolicyTest {}/{}, case `{}`: wants {}, would be {}",
        case.namespace, case.test, case.case, case.wanted, case.got
    );
    one_line(&text)
}

/// A case that comes with the change and does not hold.
#[must_use]
pub fn failing(failing: &CaseOutcome) -> String {
    format!("{}: {}", code::CASE_FAILS.id, case(failing))
}

/// Several cases in one line, `what` in front.
#[must_use]
pub fn cases(what: &str, cases: &[CaseOutcome]) -> Option<String> {
    if cases.is_empty() {
        return None;
    }
    let named: Vec<String> = cases
        .iter()
        .take(NAMED)
        .map(|c| format!("{}/{} `{}`", c.namespace, c.test, c.case))
        .collect();
    let mut text = format!("{what}: {}", named.join(", "));
    if cases.len() > NAMED {
        let _ = write!(text, " and {} more", cases.len() - NAMED);
    }
    Some(text)
}

/// Text without line breaks and control characters: warnings travel in a header, records in a log.
#[must_use]
pub fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().trim().to_owned()
}

/// At most `longest` characters, with a sign where something is missing.
#[must_use]
pub fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(longest.saturating_sub(1)).collect();
            kept + "…"
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_policy::diagnostic::{Location, code};

    use super::*;

    fn found(message: &str) -> Diagnostic {
        code::SPIFFE_PREFIX
            .at(Location::default(), message)
            .with_field("spec.rules[0].from[0].source.principals[0]")
            .with_hint("write it without the scheme")
    }

    fn subject() -> ObjectKey {
        ObjectKey::new("security.istio.io", "AuthorizationPolicy", "shop", "web")
    }

    #[test]
    fn a_warning_has_code_cause_path_and_hint() {
        assert_eq!(
            warning(&found("`spiffe://a/b` has a scheme"), &subject()),
            "PC0120: `spiffe://a/b` has a scheme (spec.rules[0].from[0].source.principals[0]); write it without the scheme"
        );
        let other = found("x").with_resource("AuthorizationPolicy/shop/other");
        assert!(
            warning(&other, &subject()).contains("x (AuthorizationPolicy/shop/other spec.rules")
        );
        let long = warning(&found(&"x".repeat(190)), &subject());
        assert!(
            long.ends_with("principals[0])") && long.chars().count() <= WARNING,
            "{long}"
        );
        let longer = warning(&found(&"ü".repeat(400)), &subject());
        assert!(longer.ends_with('…'));
        assert_eq!(longer.chars().count(), WARNING);
        assert!(!warning(&found("a\nb\r\u{0}c"), &subject()).contains(char::is_control));
    }

    #[test]
    fn warnings_fit_into_what_an_api_server_passes_on() {
        let few = fit([
            "a".to_owned(),
            "b".to_owned(),
            "a".to_owned(),
            String::new(),
        ]);
        assert_eq!(few, ["a", "b"]);
        let many = fit((0..100).map(|n| format!("{n:03}{}", "w".repeat(300))));
        let total: usize = many.iter().map(|w| w.chars().count()).sum();
        assert!(total <= WARNINGS && many.iter().all(|w| w.chars().count() <= WARNING));
        assert_eq!(many.len(), 16);
        assert_eq!(
            many.last().unwrap(),
            "and 85 more: `portcullis policy check` shows all"
        );
    }

    #[test]
    fn a_refusal_starts_short_and_names_every_error() {
        let (one, two) = (found("one"), found("two"));
        let text = refusal("AuthorizationPolicy shop/web", &[&one, &two], None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "AuthorizationPolicy shop/web: 2 errors");
        assert!(
            lines[1].contains("one") && lines[2].contains("two"),
            "{text}"
        );
        assert_eq!(lines[3], "  see `portcullis policy explain-code PC0120`");
        let all: Vec<Diagnostic> = (0..600)
            .map(|n| found(&format!("{n} {}", "x".repeat(100))))
            .collect();
        let long = refusal("A", &all.iter().collect::<Vec<_>>(), None);
        assert!(long.chars().count() <= MESSAGE);
        assert!(
            long.ends_with("more: `portcullis policy check` shows all"),
            "{long}"
        );
    }
}
