//! Path templates: Istio's `{*}` and `{**}` as Envoy's URI templates (policy.md 1.5, 1.15.3, 1.15.8).
//!
//! Envoy compiles a template to a regular expression over a limited set of characters. Neither
//! literals nor `*` can hold a slash and nothing but literals follows `**`, so one pass from the
//! left, and for `**` one from the right, decides the same without a regex engine.

use std::fmt;

/// Why a value is no path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TemplateError {
    /// Istio's webhook refuses it.
    #[error("{0}")]
    Invalid(TemplateFault),
    /// The webhook lets it pass and Envoy aborts when it loads the policy.
    #[error("{0}: Envoy aborts on this template")]
    AbortsEnvoy(TemplateFault),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TemplateFault {
    /// An operator behind `{**}`.
    #[error("`{{**}}` must be the last operator of a path template")]
    OperatorAfterAny,
    /// `{` or `}` that belongs to no operator, or an operator that is not a whole segment.
    #[error(
        "segment `{0}` holds `{{` or `}}`: only `{{*}}` and `{{**}}` as whole segments are supported"
    )]
    Brace(String),
    /// A literal segment that is empty or holds a character outside RFC 3986 pchar.
    #[error(
        "segment `{0}` of a path template must be non-empty and of the characters that a URL path can hold"
    )]
    Literal(String),
    /// No leading slash.
    #[error("a path template must start with `/`")]
    NoLeadingSlash,
    /// Two slashes in a row.
    #[error("a path template cannot hold an empty segment (`//`)")]
    EmptySegment,
    /// White space, a control character or non-ASCII.
    #[error("a path template can only hold printable ASCII")]
    NotPrintable,
    /// A variable that Envoy cannot parse.
    #[error("`{0}` is no variable of a URI template")]
    Variable(String),
}

/// One step of matching.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// This text, slashes included.
    Text(String),
    /// `*`: one or more characters of a segment.
    One,
    /// `**`: zero or more characters, slashes included.
    Any,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    text: String,
    envoy: String,
    parts: Vec<Part>,
}

impl PathTemplate {
    /// True for a value that Istio treats as a template rather than a string.
    #[must_use]
    pub fn is_template(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    /// Reads a value of `paths` or `notPaths`.
    ///
    /// # Errors
    /// What Istio's webhook refuses, and what makes Envoy abort.
    pub fn parse(value: &str) -> Result<Self, TemplateError> {
        check_as_istio(value).map_err(TemplateError::Invalid)?;
        Self::parse_unchecked(value).map_err(TemplateError::AbortsEnvoy)
    }

    /// Reads a value that got past the webhook as istiod and Envoy would: `{*}` and `{**}` become
    /// `*` and `**` and Envoy gets the whole, its own operators and variables included.
    ///
    /// # Errors
    /// What makes Envoy abort.
    pub fn parse_unchecked(value: &str) -> Result<Self, TemplateFault> {
        let envoy = value.replace("{**}", "**").replace("{*}", "*");
        let parts = parse_envoy(&envoy)?;
        Ok(Self {
            text: value.to_owned(),
            envoy,
            parts,
        })
    }

    /// The value as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The template as Envoy reads it: equal for values that match the same paths by the same parts.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.envoy
    }

    /// True when the template matches a path without query (see [`without_query`](super::without_query)).
    #[must_use]
    pub fn matches(&self, url_path: &str) -> bool {
        let mut rest = url_path;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let tail = match parts.peek() {
                Some(Part::Text(text)) => Some(text.as_str()),
                _ => None,
            };
            let behind = match part {
                Part::Text(text) => rest.strip_prefix(text.as_str()),
                Part::Any => {
                    return rest
                        .strip_suffix(tail.unwrap_or_default())
                        .is_some_and(|run| run.bytes().all(|o| o == b'/' || is_segment_octet(o)));
                }
                Part::One if tail.is_some_and(|tail| !tail.starts_with('/')) => {
                    return rest
                        .strip_suffix(tail.unwrap_or_default())
                        .is_some_and(|run| !run.is_empty() && run.bytes().all(is_segment_octet));
                }
                Part::One => {
                    let end = rest
                        .bytes()
                        .position(|o| !is_segment_octet(o))
                        .unwrap_or(rest.len());
                    rest.get(end..).filter(|_| end > 0)
                }
            };
            match behind {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a segment may hold for Envoy, in a literal and in what an operator matches.
fn is_segment_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&octet)
}

/// Istio's own checks, in Istio's order.
fn check_as_istio(value: &str) -> Result<(), TemplateFault> {
    let mut any_seen = false;
    for segment in value.trim_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if any_seen => return Err(TemplateFault::OperatorAfterAny),
            "{*}" => {}
            "{**}" => any_seen = true,
            s if s.contains(['{', '}']) => return Err(TemplateFault::Brace(s.to_owned())),
            s if PathTemplate::is_template(value) && !is_istio_literal(s) => {
                return Err(TemplateFault::Literal(s.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_istio_literal(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|o| o == b'=' || is_segment_octet(o))
}

/// Envoy's grammar: `/`, then segments (literal, `*`, `**` or a variable), the last one perhaps
/// with a literal suffix.
fn parse_envoy(template: &str) -> Result<Vec<Part>, TemplateFault> {
    if !template.bytes().all(|o| o.is_ascii_graphic()) {
        return Err(TemplateFault::NotPrintable);
    }
    let Some(mut rest) = template.strip_prefix('/') else {
        return Err(TemplateFault::NoLeadingSlash);
    };
    let mut parts = Parts::default();
    let mut names: Vec<&str> = Vec::new();
    parts.text("/");
    while !rest.is_empty() {
        rest = if rest.starts_with('*') {
            parts.operator(rest)?
        } else if rest.starts_with('{') {
            parts.variable(rest, &mut names)?
        } else {
            parts.literal(rest)?
        };
        match rest.strip_prefix('/') {
            Some(behind) => {
                parts.text("/");
                rest = behind;
            }
            None if rest.is_empty() => {}
            None => {
                let behind = parts.literal(rest)?;
                if !behind.is_empty() {
                    return Err(TemplateFault::Literal(rest.to_owned()));
                }
                rest = behind;
            }
        }
    }
    Ok(parts.list)
}

/// Parts being gathered: neighbouring texts are joined.
#[derive(Default)]
struct Parts {
    list: Vec<Part>,
    any_seen: bool,
}

impl Parts {
    fn text(&mut self, text: &str) {
        match self.list.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.list.push(Part::Text(text.to_owned())),
        }
    }

    /// Takes a literal up to the next slash and returns what follows.
    fn literal<'a>(&mut self, rest: &'a str) -> Result<&'a str, TemplateFault> {
        let (literal, behind) = split_before(rest, '/');
        if literal.is_empty() {
            return Err(TemplateFault::EmptySegment);
        }
        if !literal.bytes().all(is_segment_octet) {
            return Err(TemplateFault::Literal(literal.to_owned()));
        }
        self.text(literal);
        Ok(behind)
    }

    fn operator<'a>(&mut self, rest: &'a str) -> Result<&'a str, TemplateFault> {
        if self.any_seen {
            return Err(TemplateFault::OperatorAfterAny);
        }
        if let Some(behind) = rest.strip_prefix("**") {
            self.any_seen = true;
            self.list.push(Part::Any);
            return Ok(behind);
        }
        self.list.push(Part::One);
        Ok(rest.strip_prefix('*').unwrap_or(rest))
    }

    /// `{name}` is `*`, `{name=a/*/b}` its pattern; the captured text is of no use here.
    fn variable<'a>(
        &mut self,
        rest: &'a str,
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
        let mut octets = name.bytes();
        let well_named = octets.next().is_some_and(|o| o.is_ascii_alphabetic())
            && octets.all(|o| o.is_ascii_alphanumeric() || o == b'_')
            && name.len() <= 16;
        if !well_named || names.contains(&name) || names.len() >= 5 {
            return Err(bad());
        }
        names.push(name);
        let Some(mut pattern) = pattern else {
            self.operator("*")?;
            return Ok(behind);
        };
        loop {
            pattern = if pattern.starts_with('*') {
                self.operator(pattern)?
            } else {
                self.literal(pattern)?
            };
            match pattern.strip_prefix('/') {
                None if pattern.is_empty() => return Ok(behind),
                Some(next) if !next.is_empty() => {
                    self.text("/");
                    pattern = next;
                }
                _ => return Err(bad()),
            }
        }
    }
}

/// `text` cut before the first `at`.
fn split_before(text: &str, at: char) -> (&str, &str) {
    text.split_at_checked(text.find(at).unwrap_or(text.len()))
        .unwrap_or((text, ""))
}
