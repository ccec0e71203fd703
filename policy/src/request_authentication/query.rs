//! Query parameters, as Envoy splits and decodes them.

/// Decoded names of every parameter of a path, `name` alone counting as one. Envoy cuts a fragment off
/// before any filter runs.
pub(super) fn names(path: &str) -> impl Iterator<Item = Vec<u8>> {
    raw(path).map(|(name, _)| decode(name))
}

/// Decoded names and values of every parameter of a path, in order.
pub(super) fn parameters(path: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    raw(path).map(|(name, value)| (decode(name), decode(value)))
}

/// The name as it is written, of every parameter of that name.
pub(super) fn written<'p>(path: &'p str, name: &str) -> impl Iterator<Item = &'p str> {
    raw(path)
        .map(|(written, _)| written)
        .filter(move |written| decode(written) == name.as_bytes())
}

/// The path without the parameters of that name; everything else stays as it was written.
pub(super) fn without(path: &str, name: &str) -> String {
    let (plain, fragment) = match path.split_once('#') {
        Some((plain, fragment)) => (plain, Some(fragment)),
        None => (path, None),
    };
    let Some((before, query)) = plain.split_once('?') else {
        return path.to_owned();
    };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|parameter| decode(split(parameter).0) != name.as_bytes())
        .collect();
    let mut path = before.to_owned();
    if kept.iter().any(|parameter| !parameter.is_empty()) {
        path.push('?');
        path.push_str(&kept.join("&"));
    }
    if let Some(fragment) = fragment {
        path.push('#');
        path.push_str(fragment);
    }
    path
}

fn raw(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let path = path.split_once('#').map_or(path, |(before, _)| before);
    path.split_once('?')
        .into_iter()
        .flat_map(|(_, query)| query.split('&'))
        .filter(|parameter| !parameter.is_empty())
        .map(split)
}

fn split(parameter: &str) -> (&str, &str) {
    parameter.split_once('=').unwrap_or((parameter, ""))
}

/// Percent-decodes once; a `%` without two hexadecimal digits, and `+`, stay as they are.
fn decode(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let octet = match (first, rest) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        bytes = match octet {
            Some((high, low)) => {
                decoded.push((high << 4) | low);
                rest.get(2..).unwrap_or_default()
            }
            None => {
                decoded.push(*first);
                rest
            }
        };
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &[&str]) {
        let found: Vec<Vec<u8>> = names(path).collect();
        let expected: Vec<Vec<u8>> = expected
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn splits_as_envoy_does() {
        check("/a", &[]);
        check("/a?", &[]);
        check("/a?x", &["x"]);
        check("/a?x=", &["x"]);
        check("/a?x=1&y=2&x=3", &["x", "y", "x"]);
        check("/a?x=1=2", &["x"]);
        check("/a?x?y=1", &["x?y"]);
        check("/a?&&x", &["x"]);
        check("/a?x;y=1", &["x;y"]);
        check("/a?=1", &[""]);
    }

    #[test]
    fn decodes_names_once() {
        check("/a?acc%65ss_token=1", &["access_token"]);
        check("/a?acc%2565ss=1", &["acc%65ss"]);
        check("/a?a%26b=1", &["a&b"]);
        check("/a?a%3Db=1", &["a=b"]);
        check("/a?a%=1&b%4=1&c%zz=1", &["a%", "b%4", "c%zz"]);
        check("/a?a+b=1", &["a+b"]);
    }

    #[test]
    fn a_parameter_is_taken_out_and_the_rest_stays_as_written() {
        for (path, expected) in [
            ("/a", "/a"),
            ("/a?t=1", "/a"),
            ("/a?t", "/a"),
            ("/a?x=%20+&t=1&y", "/a?x=%20+&y"),
            ("/a?%74=1&tt=2", "/a?tt=2"),
            ("/a?t=1&t=2&x=t", "/a?x=t"),
            ("/a?t=1#t=2", "/a#t=2"),
            ("/a#?t=1", "/a#?t=1"),
        ] {
            assert_eq!(without(path, "t"), expected, "{path}");
        }
    }

    #[test]
    fn a_fragment_is_no_query() {
        check("/a?x#&y=1", &["x"]);
        check("/a#?x=1", &[]);
    }
}
