//! Single values that match less, or more, than they look.

use std::net::IpAddr;

use crate::diagnostic::{Diagnostic, Severity, code};
use crate::document::Excerpt;
use crate::path::PathTemplate;
use crate::resource::path::Path;
use crate::resource::reader::Reader;
use crate::resource::{Located, Values};
use crate::text::Cidr;

/// A peer identity.
pub(super) fn principal(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let text = value.value.as_str();
    if let Some(rest) = text.strip_prefix("spiffe://") {
        reader.report(
            &code::SPIFFE_PREFIX,
            value.at.clone(),
            path,
            format!(
                "`{}` never matches: Istio puts `spiffe://` in front itself",
                Excerpt(text)
            ),
            format!("write `{}`", Excerpt(rest)),
        );
        return;
    }
    stars(value, path, reader);
    if !text.contains(['/', '*']) && !text.is_empty() {
        reader.report(
            &code::PRINCIPAL_SHAPE,
            value.at.clone(),
            path,
            format!("`{}` is no workload's identity", Excerpt(text)),
            "write `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, or use `serviceAccounts`",
        );
    }
}

/// `*` is a wildcard at one end only.
pub(super) fn stars(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let text = value.value.as_str();
    let count = text.matches('*').count();
    let wild = count == 1 && (text.starts_with('*') || text.ends_with('*'));
    if count == 0 || wild {
        return;
    }
    let meaning = if text.starts_with('*') {
        "only the first `*` is a wildcard, the others are literal"
    } else if text.ends_with('*') {
        "only the last `*` is a wildcard, the others are literal"
    } else {
        "its `*` is literal"
    };
    reader.report(
        &code::STRAY_STAR,
        value.at.clone(),
        path,
        format!("in `{}` {meaning}", Excerpt(text)),
        "a wildcard stands at the start or at the end, not at both and not between",
    );
}

/// An address block.
pub(super) fn address(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let text = value.value.as_str();
    let Ok(block) = Cidr::parse(text) else {
        return;
    };
    if let IpAddr::V6(network) = block.network()
        && let Some(v4) = network.to_ipv4_mapped()
        && block.prefix_len() >= 96
    {
        let bits = block.prefix_len() - 96;
        reader.report(
            &code::MAPPED_ADDRESS,
            value.at.clone(),
            path,
            format!("`{}` never matches an IPv4 peer", Excerpt(text)),
            format!("write `{v4}/{bits}`"),
        );
    }
    if let Some((address, _)) = text.rsplit_once('/')
        && address
            .parse::<IpAddr>()
            .is_ok_and(|a| a != block.network())
    {
        reader.report(
            &code::HOST_BITS,
            value.at.clone(),
            path,
            format!(
                "`{}` has bits beyond its prefix: it means `{block}`",
                Excerpt(text)
            ),
            format!("write `{block}`, or the address without a prefix"),
        );
    }
}

/// An HTTP method.
pub(super) fn method(value: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let text = value.value.as_str();
    stars(value, path, reader);
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        reader.report(
            &code::METHOD_CASE,
            value.at.clone(),
            path,
            format!(
                "`{}` never matches: methods are compared with case",
                Excerpt(text)
            ),
            format!("write `{}`", Excerpt(&text.to_ascii_uppercase())),
        );
    }
}

/// A path; `opens` when a request that slips past it gets more.
pub(super) fn path(value: &Located<String>, opens: bool, path: &Path<'_>, reader: &mut Reader<'_>) {
    let text = value.value.as_str();
    if PathTemplate::is_template(text) {
        if opens {
            reader.report(
                &code::TEMPLATE_BYPASS,
                value.at.clone(),
                path,
                format!(
                    "`{}` does not match a path with `[` or `]`, such as `/a[0]`",
                    Excerpt(text)
                ),
                "deny by prefix (`/x/*`), or allow what is known instead",
            );
        }
        return;
    }
    stars(value, path, reader);
    let body = text.trim_start_matches('*');
    let fault = if text.contains('?') {
        Some("the query is cut off before paths are compared")
    } else if text.contains('#') {
        Some("the fragment is cut off before paths are compared")
    } else if !text.starts_with(['/', '*']) && !text.is_empty() {
        Some("every path starts with `/`")
    } else if body.split('/').any(|segment| matches!(segment, "." | "..")) {
        Some("`.` and `..` are resolved before paths are compared")
    } else if encodes_unreserved(text) {
        Some("a letter, a digit and each of `-._~` are decoded before paths are compared")
    } else {
        None
    };
    if let Some(fault) = fault {
        reader.report(
            &code::PATH_NEVER,
            value.at.clone(),
            path,
            format!("`{}` hardly ever matches: {fault}", Excerpt(text)),
            "write the path as the server sees it, from `/` to the `?`",
        );
    }
}

/// True for `%61` and its like: any normalisation decodes it (RFC 3986, 6.2.2.2).
fn encodes_unreserved(text: &str) -> bool {
    text.match_indices('%').any(|(at, _)| {
        let digits = text.get(at.saturating_add(1)..at.saturating_add(3));
        let octet = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        octet.is_some_and(|o| o.is_ascii_alphanumeric() || b"-._~".contains(&o))
    })
}

/// A host among its siblings.
pub(super) fn host(
    value: &Located<String>,
    siblings: &Values,
    opens: bool,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) {
    let text = value.value.as_str();
    stars(value, path, reader);
    if let Some(slash) = text.find('/') {
        let host = text.rsplit_once("://").map_or(text, |(_, host)| host);
        let host = host.split('/').next().unwrap_or_default();
        let (what, hint) = if text
            .get(..slash)
            .is_some_and(|scheme| scheme.ends_with(':'))
        {
            ("a scheme", format!("write `{}`", Excerpt(host)))
        } else {
            (
                "a path",
                format!("write `{}`, and the path under `paths`", Excerpt(host)),
            )
        };
        reader.report(
            &code::HOST_NEVER,
            value.at.clone(),
            path,
            format!("`{}` matches no host: it has {what}", Excerpt(text)),
            hint,
        );
        return;
    }
    if text.is_empty() || text.contains(':') || text.ends_with('*') {
        return;
    }
    let covered = siblings.iter().any(|sibling| {
        sibling
            .value
            .strip_prefix(text)
            .is_some_and(|rest| rest == "*" || rest.starts_with(':'))
    });
    if covered {
        return;
    }
    let diagnostic = reader
        .build(
            &code::HOST_PORT,
            value.at.clone(),
            path,
            format!(
                "`{0}` does not match the same host with a port, as in `{0}:8080`",
                Excerpt(text)
            ),
        )
        .with_hint(format!("add `{}:*`", Excerpt(text)));
    reader.push(Diagnostic {
        severity: if opens {
            Severity::Warning
        } else {
            diagnostic.severity
        },
        ..diagnostic
    });
}

/// The name in `request.headers[...]`.
pub(super) fn header_name(key: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let Some(name) = key
        .value
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return;
    };
    // Pseudo-headers are usable too.
    let name = name.strip_prefix(':').unwrap_or(name);
    let ok = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !ok {
        reader.report(
            &code::HEADER_NEVER,
            key.at.clone(),
            path,
            format!("no request has a header named `{}`", Excerpt(name)),
            "header names are letters, digits and `-`",
        );
    }
}
