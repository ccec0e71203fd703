//! Envoy's URI templates: `/`-separated literals, `*`, `**` and variables (grammar and characters
//! measured on Envoy 1.40).
//!
//! A segment is a literal, `*`, `**`, or a variable with literals around it; `*` or `**` as the last
//! segment may have a literal suffix. A variable `{name}` is `*`, `{name=pattern}` its pattern.

use regex::Regex;

use super::TemplateFault;

const MAX_LEN: usize = 256;
const MAX_VARIABLES: usize = 5;
const MAX_NAME_LEN: usize = 16;

/// What a literal may hold and an operator matches: RFC 3986 pchar.
pub(super) fn is_literal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_pchar)
}

fn is_pchar(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=*".contains(&octet)
}

/// [`is_pchar`] as the inside of a character class.
const PCHAR: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@=*";

/// One step of matching.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// This text, slashes included.
    Text(String),
    /// `*`: one or more characters of a segment.
    One,
    /// `**`: zero or more characters, slashes included.
    Any,
}

/// A template ready to match.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    /// Step by step; at most a text follows [`Part::Any`].
    Parts(Vec<Part>),
    /// A literal holds a `*`, which repeats what stands before it.
    Expression(Regex),
    /// The expression is invalid, which Envoy notices only by never matching.
    Nothing,
}

impl Matcher {
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Parts(parts) => matches_parts(parts, path),
            Self::Expression(expression) => expression.is_match(path),
            Self::Nothing => false,
        }
    }
}

fn matches_parts(parts: &[Part], path: &str) -> bool {
    let mut rest = path;
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        let tail = match parts.peek() {
            Some(Part::Text(text)) => text.as_str(),
            _ => "",
        };
        let behind = match part {
            Part::Text(text) => rest.strip_prefix(text.as_str()),
            Part::One => {
                // The run ends where the segment does, with the part of the tail that is in it.
                let end = rest
                    .bytes()
                    .position(|o| !is_pchar(o))
                    .unwrap_or(rest.len());
                let suffix = split_before(tail, '/').0;
                let run = rest.get(..end).and_then(|run| run.strip_suffix(suffix));
                run.filter(|run| !run.is_empty())
                    .and_then(|run| rest.get(run.len()..))
            }
            Part::Any => {
                let run = rest.strip_suffix(tail);
                run.filter(|run| run.bytes().all(|o| o == b'/' || is_pchar(o)))
                    .map(|_| tail)
            }
        };
        match behind {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

/// Reads a template in Envoy's own syntax.
pub(super) fn parse(template: &str) -> Result<Matcher, TemplateFault> {
    if !template.bytes().all(|o| o.is_ascii_graphic()) {
        return Err(TemplateFault::NotPrintable);
    }
    if template.len() > MAX_LEN {
        return Err(TemplateFault::TooLong);
    }
    let mut rest = template
        .strip_prefix('/')
        .ok_or(TemplateFault::NoLeadingSlash)?;
    let mut out = Output::default();
    let mut names = Vec::new();
    out.text("/");
    while !rest.is_empty() {
        let behind = segment(rest, &mut out, &mut names)?;
        rest = match behind.strip_prefix('/') {
            Some(next) => {
                out.text("/");
                next
            }
            None if behind.is_empty() => behind,
            None => return Err(TemplateFault::Literal(behind.to_owned())),
        };
    }
    out.finish()
}

/// Takes one segment from `rest`, which is not empty, and returns what follows.
fn segment<'a>(
    rest: &'a str,
    out: &mut Output,
    names: &mut Vec<&'a str>,
) -> Result<&'a str, TemplateFault> {
    let (whole, following) = split_before(rest, '/');
    let (prefix, mixed) = split_before(whole, '{');
    let behind = if rest.starts_with('*') {
        out.operator(rest)?
    } else if rest.starts_with('{') {
        // Nothing before the variable: its pattern may hold slashes.
        variable(rest, out, names)?
    } else {
        out.text(literal(prefix)?.0);
        let suffix = match mixed {
            "" => mixed,
            _ => variable(mixed, out, names)?,
        };
        rest.get(whole.len() - suffix.len()..).unwrap_or(following)
    };
    if behind.is_empty() || behind.starts_with('/') {
        return Ok(behind);
    }
    let (suffix, behind) = literal(behind)?;
    out.text(suffix);
    if rest.starts_with('*') && !behind.is_empty() {
        // The suffix of an operator ends the template.
        return Err(TemplateFault::Literal(whole.to_owned()));
    }
    Ok(behind)
}

/// A literal up to the next slash, and what follows.
fn literal(rest: &str) -> Result<(&str, &str), TemplateFault> {
    let (text, behind) = split_before(rest, '/');
    match text {
        "" => Err(TemplateFault::EmptySegment),
        _ if is_literal(text) => Ok((text, behind)),
        _ => Err(TemplateFault::Literal(text.to_owned())),
    }
}

/// Takes `{name}` or `{name=pattern}`; what it would capture is of no use here.
fn variable<'a>(
    rest: &'a str,
    out: &mut Output,
    names: &mut Vec<&'a str>,
) -> Result<&'a str, TemplateFault> {
    let bad = || TemplateFault::Variable(rest.to_owned());
    let (inner, behind) = rest
        .strip_prefix('{')
        .and_then(|r| r.split_once('}'))
        .ok_or_else(bad)?;
    let (name, pattern) = match inner.split_once('=') {
        Some((name, pattern)) => (name, Some(pattern)),
        None => (inner, None),
    };
    let well_named = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'_')
        && name.len() <= MAX_NAME_LEN;
    if !well_named || names.contains(&name) || names.len() == MAX_VARIABLES {
        return Err(bad());
    }
    names.push(name);
    out.open_group();
    let mut pattern = pattern.unwrap_or("*");
    loop {
        let behind = if pattern.starts_with('*') {
            out.operator(pattern)?
        } else {
            let (text, behind) = literal(pattern)?;
            out.text(text);
            behind
        };
        match behind.strip_prefix('/') {
            Some(next) if !next.is_empty() => {
                out.text("/");
                pattern = next;
            }
            None if behind.is_empty() => break,
            _ => return Err(bad()),
        }
    }
    out.close_group();
    Ok(behind)
}

/// Parts and, beside them, the regular expression that Envoy would make.
#[derive(Default)]
struct Output {
    parts: Vec<Part>,
    expression: String,
    any_seen: bool,
    starred: bool,
    /// The expression ends with a `*` or `+` outside a group.
    repeated: bool,
    /// Two repetitions in a row, which RE2 refuses.
    invalid: bool,
}

impl Output {
    /// Neighbouring texts are joined.
    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
        for c in text.chars() {
            if c == '*' {
                self.starred = true;
                self.invalid |= self.repeated;
            } else if matches!(c, '$' | '(' | ')' | '+' | '.') {
                self.expression.push('\\');
            }
            self.expression.push(c);
            self.repeated = c == '*';
        }
    }

    fn operator<'a>(&mut self, rest: &'a str) -> Result<&'a str, TemplateFault> {
        if self.any_seen {
            return Err(TemplateFault::OperatorAfterAny);
        }
        self.repeated = true;
        if let Some(behind) = rest.strip_prefix("**") {
            self.any_seen = true;
            self.parts.push(Part::Any);
            self.expression.push_str(&format!("[{PCHAR}/]*"));
            return Ok(behind);
        }
        self.parts.push(Part::One);
        self.expression.push_str(&format!("[{PCHAR}]+"));
        Ok(rest.strip_prefix('*').unwrap_or(rest))
    }

    fn open_group(&mut self) {
        self.expression.push_str("(?:");
        self.repeated = false;
    }

    fn close_group(&mut self) {
        self.expression.push(')');
        self.repeated = false;
    }

    fn finish(self) -> Result<Matcher, TemplateFault> {
        if self.invalid {
            return Ok(Matcher::Nothing);
        }
        if !self.starred {
            return Ok(Matcher::Parts(self.parts));
        }
        let anchored = format!(r"\A(?:{})\z", self.expression);
        let expression = Regex::new(&anchored).map_err(|_| TemplateFault::TooLong)?;
        Ok(Matcher::Expression(expression))
    }
}

/// `text` cut before the first `at`.
fn split_before(text: &str, at: char) -> (&str, &str) {
    let end = text.find(at).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}
