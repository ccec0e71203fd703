//! Path normalisation as Envoy does it for Istio (policy.md 1.6, 1.15.4).

/// The path that a rule sees, with its query; `None` where Envoy would answer 400.
#[must_use]
pub fn normalise(raw: &str, mode: &str) -> Option<String> {
    if raw.is_empty() || !raw.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return None;
    }
    let raw = without_origin(raw);
    let whole = raw.split('#').next().unwrap_or("");
    let (path, query) = match whole.find('?') {
        Some(at) => whole.split_at(at),
        None => (whole, ""),
    };
    let mut path = path.to_owned();
    if mode == "DECODE_AND_MERGE_SLASHES" {
        for escaped in ["%2F", "%2f"] {
            path = path.replace(escaped, "/");
        }
        for escaped in ["%5C", "%5c"] {
            path = path.replace(escaped, "\\");
        }
    }
    if mode != "NONE" {
        if path.contains("%00") {
            return None;
        }
        path = resolved(&path);
    }
    if matches!(mode, "MERGE_SLASHES" | "DECODE_AND_MERGE_SLASHES") {
        path = merged(&path);
    }
    Some(path + query)
}

/// An absolute-form target loses its scheme and authority.
fn without_origin(raw: &str) -> &str {
    let Some((_, rest)) = raw.split_once("://").filter(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    }) else {
        return raw;
    };
    rest.find('/').map_or("/", |at| &rest[at..])
}

/// Empty segments drop out, except that a slash at either end stays: `//` is both and stays whole.
fn merged(path: &str) -> String {
    if !path.contains("//") {
        return path.to_owned();
    }
    let kept: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let end = |at_it: bool| if at_it { "/" } else { "" };
    let (start, last) = (path.starts_with('/'), path.ends_with('/'));
    format!("{}{}{}", end(start), kept.join("/"), end(last))
}

/// Unescapes what needs no escape, escapes what does, and resolves dot segments.
fn resolved(path: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let segments: Vec<&str> = path.split(['/', '\\']).collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.into_iter().enumerate() {
        let bare = match segment.split_once(';') {
            Some((dots @ ("." | ".."), _)) => dots,
            _ => segment,
        };
        let dots = bare.replace("%2e", ".").replace("%2E", ".");
        match dots.as_str() {
            // the first segment is the empty one before the leading slash
            "." | ".." if index > 0 => {
                if dots == ".." && kept.len() > 1 {
                    kept.pop();
                }
                if index == last {
                    kept.push(String::new());
                }
            }
            _ => kept.push(recoded(segment)),
        }
    }
    kept.join("/")
}

fn recoded(segment: &str) -> String {
    let mut out = String::new();
    let mut rest = segment;
    while let Some(next) = rest.chars().next() {
        let escaped = rest
            .strip_prefix('%')
            .and_then(|digits| digits.get(..2))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(digits) = escaped {
            let code = u8::from_str_radix(digits, 16).unwrap_or(0);
            let plain = char::from(code);
            if plain.is_ascii_alphanumeric() || "-._~".contains(plain) {
                out.push(plain);
            } else {
                out.push('%');
                out.push_str(digits);
            }
            rest = &rest[3..];
            continue;
        }
        if "\"<>^`{|}".contains(next) {
            out.push_str(&format!("%{:02X}", next as u32));
        } else {
            out.push(next);
        }
        rest = &rest[next.len_utf8()..];
    }
    out
}
