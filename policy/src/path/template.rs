//! Path templates: Istio's `{*}` and `{**}` as Envoy's URI templates (policy.md 1.5, 1.15.3, 1.15.8).
//!
//! Envoy compiles a template to a regular expression over a limited set of characters: `*` is one or
//! more of them, `**` zero or more of them and slashes. As neither literals nor `*` hold a slash and
//! no operator follows `**`, one pass from the left, and for `**` one from the right, decides the
//! same without a regex engine. Only a template that got past the webhook can need one: Envoy copies
//! a `*` inside a literal unescaped.

mod envoy;

use std::fmt;
use std::hash::{Hash, Hasher};

use envoy::Matcher;

/// Why a value is no path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TemplateError {
    /// Istio's webhook refuses it.
    #[error("{0}")]
    Invalid(TemplateFault),
    /// The webhook lets it pass, and Envoy aborts or refuses its configuration.
    #[error("{0}: Envoy cannot load this template")]
    RefusedByEnvoy(TemplateFault),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TemplateFault {
    /// An operator behind `{**}`.
    #[error("`{{**}}` must be the last operator of a path template")]
    OperatorAfterAny,
    /// `{` or `}` that belongs to no operator, or an operator that is not a whole segment.
    #[error("segment `{0}` has a brace: only `{{*}}` and `{{**}}` as whole segments are supported")]
    Brace(String),
    /// A literal that is empty or holds a character outside RFC 3986 pchar.
    #[error("`{0}` in a path template is empty or has a character that no path segment can have")]
    Literal(String),
    /// No leading slash.
    #[error("a path template must start with `/`")]
    NoLeadingSlash,
    /// Two slashes in a row.
    #[error("a path template cannot have an empty segment (`//`)")]
    EmptySegment,
    /// White space, a control character or non-ASCII.
    #[error("a path template can only have printable ASCII characters")]
    NotPrintable,
    /// More than 256 characters, `{*}` and `{**}` counted as one and two.
    #[error(
        "a path template can have 256 characters at most, with `{{*}}` counted as one and `{{**}}` as two"
    )]
    TooLong,
    /// A variable (`{name}`, `{name=pattern}`) that Envoy cannot read.
    #[error("`{0}` is no variable of a URI template")]
    Variable(String),
}

/// A parsed template. Two are equal when they were written the same.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    text: String,
    envoy: String,
    matcher: Matcher,
}

impl PathTemplate {
    /// True for a value that Istio treats as a template rather than a string.
    #[must_use]
    pub fn is_template(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    /// What Istio's webhook says of a value of `paths` or `notPaths`, template or not.
    ///
    /// # Errors
    /// What the webhook refuses.
    pub fn check(value: &str) -> Result<(), TemplateFault> {
        let mut any_seen = false;
        for segment in value.trim_matches('/').split('/') {
            match segment {
                "{*}" | "{**}" if any_seen => return Err(TemplateFault::OperatorAfterAny),
                "{*}" => {}
                "{**}" => any_seen = true,
                s if s.contains(['{', '}']) => return Err(TemplateFault::Brace(s.to_owned())),
                s if Self::is_template(value) && (s.contains('*') || !envoy::is_literal(s)) => {
                    return Err(TemplateFault::Literal(s.to_owned()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a value of `paths` or `notPaths` for which [`is_template`](Self::is_template) holds.
    ///
    /// # Errors
    /// What Istio's webhook refuses, and what Envoy cannot load.
    pub fn parse(value: &str) -> Result<Self, TemplateError> {
        Self::check(value).map_err(TemplateError::Invalid)?;
        Self::parse_unchecked(value).map_err(TemplateError::RefusedByEnvoy)
    }

    /// Reads a value that got past the webhook as istiod and Envoy would: `{*}` and `{**}` become
    /// `*` and `**` and Envoy gets the whole, its own operators and variables included.
    ///
    /// # Errors
    /// What Envoy cannot load.
    pub fn parse_unchecked(value: &str) -> Result<Self, TemplateFault> {
        let envoy = value.replace("{**}", "**").replace("{*}", "*");
        let matcher = envoy::parse(&envoy)?;
        Ok(Self {
            text: value.to_owned(),
            envoy,
            matcher,
        })
    }

    /// The value as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The template as Envoy reads it, such as `/a/*/b/**`.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.envoy
    }

    /// True when the template matches a path without query (see [`without_query`](super::without_query)).
    #[must_use]
    pub fn matches(&self, url_path: &str) -> bool {
        self.matcher.matches(url_path)
    }
}

impl PartialEq for PathTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathTemplate {}

impl Hash for PathTemplate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
