//! A diagnostic for a person: what, where with the line itself, and what to do.

use std::fmt::Write as _;

use super::{Diagnostic, Severity};
use crate::document::Lines;

/// Most characters of a line that are shown.
const WIDTH: usize = 120;
/// Characters shown in front of the place when a line is cut.
const BEFORE: usize = 40;

/// One diagnostic as text, with an excerpt when the text of its file is at hand. No colours.
///
/// ```text
/// error[PC0020]: unknown field `prinicpals`
///   --> policies/web.yaml:11:9
///    |
/// 11 |         prinicpals: ["cluster.local/ns/foo/sa/a"]
///    |         ^^^^^^^^^^
///    = in: AuthorizationPolicy/foo/web, spec.rules[0].from[0].source.prinicpals
///    = help: did you mean `principals`?
/// ```
#[must_use]
pub fn render(diagnostic: &Diagnostic, source_text: Option<&str>) -> String {
    match source_text {
        Some(text) => Renderer::new(text).render(diagnostic),
        None => text(diagnostic, None),
    }
}

/// Renders many diagnostics of one file: looks for its lines once.
pub struct Renderer<'a> {
    lines: Lines<'a>,
}

impl<'a> Renderer<'a> {
    /// A renderer for diagnostics of the file with this text.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            lines: Lines::new(text.strip_prefix('\u{feff}').unwrap_or(text)),
        }
    }

    /// As [`render`].
    #[must_use]
    pub fn render(&self, diagnostic: &Diagnostic) -> String {
        text(diagnostic, self.lines.line(diagnostic.location.line))
    }
}

fn text(diagnostic: &Diagnostic, line: Option<&str>) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let mut out = format!("{severity}[{}]: {}\n", diagnostic.code, diagnostic.message);
    let number = diagnostic.location.line.to_string();
    let margin = " ".repeat(number.len());
    if !diagnostic.location.file.is_empty() {
        let _ = writeln!(out, "{margin}--> {}", diagnostic.location);
    }
    // A line number that the text does not have is no reason to say less.
    if let Some(line) = line.filter(|line| !line.trim().is_empty()) {
        let (shown, column) = window(line, diagnostic.location.column);
        let carets = "^".repeat(token_width(&shown, column));
        let indent = " ".repeat(column);
        let _ = writeln!(out, "{margin} |");
        let _ = writeln!(out, "{number} | {shown}");
        let _ = writeln!(out, "{margin} | {indent}{carets}");
    }
    let place: Vec<&str> = [&diagnostic.resource, &diagnostic.field]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if !place.is_empty() {
        let _ = writeln!(out, "{margin} = in: {}", place.join(", "));
    }
    if let Some(hint) = &diagnostic.hint {
        let _ = writeln!(out, "{margin} = help: {hint}");
    }
    out
}

/// The part of a line around a 1-based column, and the 0-based column in that part.
fn window(line: &str, column: u32) -> (String, usize) {
    let column = usize::try_from(column).unwrap_or(0).saturating_sub(1);
    let skipped = if column > WIDTH - BEFORE {
        column - BEFORE
    } else {
        0
    };
    let mut shown = String::new();
    if skipped > 0 {
        shown.push('…');
    }
    let mut rest = line.trim_end().chars().skip(skipped);
    for c in rest.by_ref().take(WIDTH) {
        // Tabs and controls take one column, so that the caret stands where it should.
        shown.push(match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        });
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    let column = column - skipped + usize::from(skipped > 0);
    (shown, column)
}

/// Characters of the value or key that starts at a 0-based column.
fn token_width(line: &str, column: usize) -> usize {
    let mut chars = line.chars().skip(column);
    let width = match chars.next() {
        None => 1,
        Some(quote @ ('"' | '\'')) => {
            let mut escaped = false;
            let inner = chars
                .take_while(|c| {
                    let ends = *c == quote && !escaped;
                    escaped = *c == '\\' && !escaped && quote == '"';
                    !ends
                })
                .count();
            // Both quotes, or what there is of an unclosed string.
            (inner + 2).min(line.chars().count().saturating_sub(column))
        }
        Some('[' | '{' | '-' | '|' | '>') => 1,
        Some(_) => {
            // A colon ends a key, not an address.
            let mut chars = chars.peekable();
            let mut width = 1;
            while let Some(c) = chars.next() {
                let ends_key = c == ':' && chars.peek().is_none_or(|next| *next == ' ');
                if ends_key || matches!(c, ',' | ']' | '}' | ' ') {
                    break;
                }
                width += 1;
            }
            width
        }
    };
    width.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Location, code};

    fn at(line: u32, column: u32) -> Location {
        Location {
            file: "a.yaml".into(),
            line,
            column,
        }
    }

    #[test]
    fn shows_line_caret_place_and_hint() {
        let text = "spec:\n  rules:\n  - frm: []\n";
        let diagnostic = code::UNKNOWN_FIELD
            .at(at(3, 5), "unknown field `frm`")
            .with_resource("AuthorizationPolicy/foo/a")
            .with_field("spec.rules[0].frm")
            .with_hint("did you mean `from`?");
        assert_eq!(
            render(&diagnostic, Some(text)),
            "error[PC0020]: unknown field `frm`\n \
             --> a.yaml:3:5\n  |\n3 |   - frm: []\n  |     ^^^\n  \
             = in: AuthorizationPolicy/foo/a, spec.rules[0].frm\n  \
             = help: did you mean `from`?\n"
        );
    }

    #[test]
    fn without_the_text_it_still_says_where() {
        let diagnostic = code::SYNTAX.at(at(7, 1), "not valid YAML");
        assert_eq!(
            render(&diagnostic, None),
            "error[PC0002]: not valid YAML\n --> a.yaml:7:1\n"
        );
        assert_eq!(
            render(&diagnostic, Some("a: 1\n")),
            render(&diagnostic, None)
        );
    }

    #[test]
    fn a_megabyte_on_one_line_is_cut_around_the_place() {
        let text = format!("a: \"{}\" b", "é".repeat(500_000));
        let column = 4 + 400_000;
        let rendered = render(&code::SYNTAX.at(at(1, column), "x"), Some(&text));
        assert!(rendered.chars().count() < 500, "{}", rendered.len());
        assert!(rendered.contains("…"));
    }

    #[test]
    fn carets_cover_quoted_strings_keys_and_plain_values() {
        for (line, column, width) in [
            (r#"a: "x \" y" # c"#, 3, 8),
            ("a: 'x y'", 3, 5),
            ("key: value", 0, 3),
            ("- [a, bc]", 6, 2),
            ("uri: https://a:1/b", 5, 13),
            ("a: \"open", 3, 5),
            ("a", 5, 1),
        ] {
            assert_eq!(token_width(line, column), width, "{line}");
        }
    }
}
