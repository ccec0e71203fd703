//! Path templates `{*}` and `{**}` (policy.md 1.5), as Envoy's uri_template reads them.

use regex::escape;

use super::text::full_match;

/// Characters that an operator can match; brackets and the like escape it.
const LITERAL: &str = "-a-zA-Z0-9._~%!$&'()*+,;:@=";

/// Whether the value of `paths` is a template.
#[must_use]
pub fn is_template(value: &str) -> bool {
    value.contains("{*}") || value.contains("{**}")
}

/// Whether the path, without query, matches.
#[must_use]
pub fn matches(value: &str, path: &str) -> bool {
    let value = value.replace("{*}", "*").replace("{**}", "**");
    let segments: Vec<String> = value
        .split('/')
        .map(|segment| {
            let (operator, rest) = if let Some(rest) = segment.strip_prefix("**") {
                (format!("[{LITERAL}/]*"), rest)
            } else if let Some(rest) = segment.strip_prefix('*') {
                (format!("[{LITERAL}]+"), rest)
            } else {
                (String::new(), segment)
            };
            operator + &escape(rest)
        })
        .collect();
    full_match(&segments.join("/"), path)
}
