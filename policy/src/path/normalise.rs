//! Raw request target in, the `:path` that Envoy 1.40 hands to RBAC out (policy.md 1.6, 1.15.4).
//!
//! ```text
//! raw -> octets checked -> absolute form reduced -> fragment cut
//!     -> %2F, %5C decoded       (DECODE_AND_MERGE_SLASHES)
//!     -> RFC 3986 normalisation (all but NONE)
//!     -> slashes merged         (MERGE_SLASHES, DECODE_AND_MERGE_SLASHES)
//! ```
//!
//! The steps and their order are Envoy's; a path that no step changes is returned as it came,
//! without a copy. Every step is one pass: the time is linear in the path's length.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::resource::PathNormalization;

/// Why Envoy would refuse a path before any policy is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// An octet outside 0x21-0x7E: white space, control or non-ASCII.
    #[error(
        "octet 0x{octet:02X} at offset {offset} of the path is not printable ASCII: percent-encode it"
    )]
    Octet {
        /// The first octet at fault.
        octet: u8,
        /// Its offset in the raw path.
        offset: usize,
    },
    /// `%00`, in every mode but NONE.
    #[error("the path holds an encoded NUL (`%00`)")]
    EncodedNul,
    /// Neither `/...` nor an absolute `http://` or `https://` URL.
    #[error("the path starts neither with `/` nor with `http://` or `https://`")]
    NotAbsolute,
    /// An absolute URL whose `host:port` cannot be read.
    #[error("the absolute URL in place of the path has no readable host and port")]
    Authority,
    /// Nothing at all.
    #[error("the path is empty")]
    Empty,
}

/// The `:path`, query included, that RBAC sees in `mode` when a client sends `raw` over HTTP/1.1.
///
/// # Errors
/// What Envoy answers with 400 or 404 before any filter runs.
pub fn normalise(raw: &str, mode: PathNormalization) -> Result<Cow<'_, str>, InvalidPath> {
    check_octets(raw)?;
    transform(split_absolute(raw)?.1, mode)
}

/// What a path that a proxy has normalised already would become if it were normalised once more.
/// A non-ASCII path, which HTTP/2 can carry, is escaped instead of refused.
///
/// # Errors
/// As [`normalise`]: no normalising proxy can have sent this.
pub fn second_pass(path: &str, mode: PathNormalization) -> Result<Cow<'_, str>, InvalidPath> {
    if !path.starts_with('/') {
        return Err(InvalidPath::NotAbsolute);
    }
    transform(path, mode)
}

/// True when `path` comes out of a second pass unchanged. Where it does not, it names one resource
/// if the proxy normalised and another if it did not.
#[must_use]
pub fn is_stable(path: &str, mode: PathNormalization) -> bool {
    second_pass(path, mode).is_ok_and(|again| again == path)
}

/// Everything from the fragment on; `origin` starts with `/`.
fn transform(origin: &str, mode: PathNormalization) -> Result<Cow<'_, str>, InvalidPath> {
    let (origin, _fragment) = split_before(origin, ['#']);
    let (path, query) = split_before(origin, ['?']);
    let normal = match mode {
        PathNormalization::None => return Ok(Cow::Borrowed(origin)),
        PathNormalization::Base => rfc3986(Cow::Borrowed(path))?,
        PathNormalization::MergeSlashes => merge_slashes(rfc3986(Cow::Borrowed(path))?),
        PathNormalization::DecodeAndMergeSlashes => merge_slashes(rfc3986(decode_slashes(path))?),
    };
    Ok(match normal {
        Cow::Borrowed(_unchanged) => Cow::Borrowed(origin),
        Cow::Owned(changed) => Cow::Owned(changed + query),
    })
}

/// The part of a `:path` that path rules match: everything before the first `?` or `#`.
#[must_use]
pub fn without_query(path: &str) -> &str {
    split_before(path, ['?', '#']).0
}

/// The authority that a target in absolute form names, without user information: Envoy puts it in
/// place of the Host header. `None` for a plain path and for what [`normalise`] refuses.
#[must_use]
pub fn authority(raw: &str) -> Option<&str> {
    check_octets(raw).and_then(|()| split_absolute(raw)).ok()?.0
}

fn check_octets(raw: &str) -> Result<(), InvalidPath> {
    match raw
        .bytes()
        .enumerate()
        .find(|(_, octet)| !octet.is_ascii_graphic())
    {
        Some((offset, octet)) => Err(InvalidPath::Octet { octet, offset }),
        None => Ok(()),
    }
}

/// `/path`, and the authority where `raw` is `http://authority/path`.
fn split_absolute(raw: &str) -> Result<(Option<&str>, &str), InvalidPath> {
    if raw.is_empty() {
        return Err(InvalidPath::Empty);
    }
    if raw.starts_with('/') {
        return Ok((None, raw));
    }
    let rest = strip_scheme(raw).ok_or(InvalidPath::NotAbsolute)?;
    let (authority, path) = split_before(rest, ['/', '?', '#']);
    let host = host_of(authority).ok_or(InvalidPath::Authority)?;
    match path {
        "" => Ok((Some(host), "/")),
        path if path.starts_with('/') => Ok((Some(host), path)),
        _ => Err(InvalidPath::NotAbsolute),
    }
}

fn strip_scheme(raw: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (head, rest) = raw.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// `host[:port]` of `[userinfo@]host[:port]`, if Envoy's URL parser takes it.
fn host_of(authority: &str) -> Option<&str> {
    let is_userinfo = |o: u8| o.is_ascii_alphanumeric() || b"-_.!~*'()%;:&=+$,".contains(&o);
    let is_host = |o: u8| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'.');
    let host_port = match authority.split_once('@') {
        Some((user, host_port)) => Some(host_port).filter(|_| user.bytes().all(is_userinfo))?,
        None => authority,
    };
    let port = if let Some(bracketed) = host_port.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        port
    } else {
        let (host, port) = split_before(host_port, [':']);
        Some(port).filter(|_| !host.is_empty() && host.bytes().all(is_host))?
    };
    let valid = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|n| n.bytes().all(|o| o.is_ascii_digit()) && n.parse::<u16>().is_ok());
    valid.then_some(host_port)
}

/// `text` cut before the first of `ends`.
fn split_before<const N: usize>(text: &str, ends: [char; N]) -> (&str, &str) {
    let at = text.find(ends).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// `%2F` and `%5C` decoded once, wherever they are.
fn decode_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut pieces = path.split('%');
    let mut out = String::new();
    out.push_str(pieces.next().unwrap_or_default());
    let mut decoded = false;
    for piece in pieces {
        let slash = match piece.get(..2) {
            Some("2F" | "2f") => Some('/'),
            Some("5C" | "5c") => Some('\\'),
            _ => None,
        };
        match (slash, piece.get(2..)) {
            (Some(slash), Some(rest)) => {
                decoded = true;
                out.push(slash);
                out.push_str(rest);
            }
            _ => {
                out.push('%');
                out.push_str(piece);
            }
        }
    }
    if decoded {
        Cow::Owned(out)
    } else {
        Cow::Borrowed(path)
    }
}

/// Runs of `/` become one; but a path of two or more slashes and nothing else becomes `//`.
fn merge_slashes(path: Cow<'_, str>) -> Cow<'_, str> {
    if !path.contains("//") {
        return path;
    }
    if path.bytes().all(|octet| octet == b'/') {
        return Cow::Owned("//".to_owned());
    }
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Parameters of dot segments dropped, unreserved characters decoded, unsafe ones encoded,
/// backslashes turned, dot segments resolved.
fn rfc3986(path: Cow<'_, str>) -> Result<Cow<'_, str>, InvalidPath> {
    if path.bytes().all(is_plain) && !path.contains("/.") {
        return Ok(path);
    }
    let stripped = strip_dot_parameters(&path);
    canonicalise(&stripped).map(Cow::Owned)
}

/// Octets that [`canonicalise`] copies wherever they stand (but for a dot after a slash).
fn is_plain(octet: u8) -> bool {
    !matches!(octet, b'%' | b'\\') && !is_unsafe(octet)
}

/// Octets that are written percent-encoded.
fn is_unsafe(octet: u8) -> bool {
    !octet.is_ascii_graphic()
        || matches!(
            octet,
            b'"' | b'#' | b'<' | b'>' | b'?' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
}

/// Octets that are never percent-encoded: RFC 3986 unreserved.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// `/..;x/` as `/../` and `/.;x/` as `/./`: only literal dots, only between forward slashes.
fn strip_dot_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(".;") {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    for (nth, segment) in path.split('/').enumerate() {
        if nth > 0 {
            out.push('/');
        }
        out.push_str(match segment {
            s if s.starts_with("..;") => "..",
            s if s.starts_with(".;") => ".",
            s => s,
        });
    }
    Cow::Owned(out)
}

/// Length of the dot (`.`, `%2e`, `%2E`) that `rest` starts with; 0: none.
fn dot_len(rest: &[u8]) -> usize {
    match rest {
        [b'.', ..] => 1,
        [b'%', b'2', b'e' | b'E', ..] => 3,
        _ => 0,
    }
}

/// What a dot after a slash means, with what is left behind it.
enum Dot<'a> {
    /// Part of a name.
    Name,
    /// `.`: this directory.
    Current(&'a [u8]),
    /// `..`: the directory above.
    Up(&'a [u8]),
}

/// `rest` starts with a dot of `len` octets.
fn classify_dot(rest: &[u8], len: usize) -> Dot<'_> {
    let after = rest.get(len..).unwrap_or_default();
    match after {
        [] => return Dot::Current(after),
        [b'/' | b'\\', behind @ ..] => return Dot::Current(behind),
        _ => {}
    }
    let second = dot_len(after);
    match after.get(second..).unwrap_or_default() {
        _ if second == 0 => Dot::Name,
        [] => Dot::Up(&[]),
        [b'/' | b'\\', behind @ ..] => Dot::Up(behind),
        _ => Dot::Name,
    }
}

/// The value of `%xy` that `rest` starts with.
fn escaped(rest: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = rest else {
        return None;
    };
    let digit = |octet: u8| char::from(octet).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// The canonicalisation of a URL's path, as the URL library of Chromium and Envoy does it.
fn canonicalise(path: &str) -> Result<String, InvalidPath> {
    let mut out = Canonical {
        text: String::with_capacity(path.len()),
        stray_percent: None,
    };
    let mut rest = path.as_bytes();
    if !matches!(rest, [b'/' | b'\\', ..]) {
        out.text.push('/');
    }
    while let [octet, behind @ ..] = rest {
        let dot = dot_len(rest);
        if dot > 0 {
            rest = match classify_dot(rest, dot) {
                Dot::Current(behind) if out.at_segment_start() => behind,
                Dot::Up(behind) if out.at_segment_start() => {
                    out.up();
                    behind
                }
                _ => {
                    out.text.push('.');
                    rest.get(dot..).unwrap_or_default()
                }
            };
            continue;
        }
        rest = behind;
        match *octet {
            b'\\' => out.text.push('/'),
            b'%' => {
                let [high, low] = [behind.first(), behind.get(1)].map(|o| o.copied().unwrap_or(0));
                match escaped(&[b'%', high, low]) {
                    None => {
                        out.stray_percent = Some(out.text.len());
                        out.text.push('%');
                        continue;
                    }
                    Some(0) => return Err(InvalidPath::EncodedNul),
                    Some(value) if is_unreserved(value) => {
                        rest = behind.get(2..).unwrap_or_default();
                        out.push_decoded(value, rest.first().copied());
                        continue;
                    }
                    Some(_) => {
                        rest = behind.get(2..).unwrap_or_default();
                        out.text.extend(['%', char::from(high), char::from(low)]);
                    }
                }
            }
            unsafe_octet if is_unsafe(unsafe_octet) => {
                let digit = |value: u8| {
                    char::from_digit(value.into(), 16).map_or('0', |d| d.to_ascii_uppercase())
                };
                out.text
                    .extend(['%', digit(unsafe_octet >> 4), digit(unsafe_octet & 15)]);
            }
            plain => out.text.push(char::from(plain)),
        }
    }
    Ok(out.text)
}

/// The output of [`canonicalise`] so far.
struct Canonical {
    text: String,
    /// Offset in `text` of the last `%` that began no valid escape sequence.
    stray_percent: Option<usize>,
}

impl Canonical {
    fn at_segment_start(&self) -> bool {
        self.text.ends_with('/')
    }

    /// Drops the last segment; `text` ends with a slash, before and after.
    fn up(&mut self) {
        self.text.pop();
        let parent = self.text.rfind('/').map_or(0, |slash| slash + 1);
        self.text.truncate(parent);
        if parent == 0 {
            self.text.push('/');
        }
        self.stray_percent = self.stray_percent.filter(|at| *at < self.text.len());
    }

    /// Appends a decoded octet. If it would complete a stray `%` before it to an escape sequence
    /// (`%%300` -> `%00`), that `%` is written `%25`, so that nobody decodes twice.
    fn push_decoded(&mut self, value: u8, next: Option<u8>) {
        self.text.push(char::from(value));
        let Some(stray) = self.stray_percent else {
            return;
        };
        let behind_stray = self.text.as_bytes().get(stray + 1..).unwrap_or_default();
        let completes = match *behind_stray {
            [one] => next.is_some_and(|two| escaped(&[b'%', one, two]).is_some()),
            [one, two] => escaped(&[b'%', one, two]).is_some(),
            _ => false,
        };
        if completes {
            self.text.insert_str(stray + 1, "25");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};

    #[test]
    fn does_to_a_path_what_its_mode_says() {
        let table = [
            ("/a?x=%61#f", ["/a?x=%61"; 4]),
            ("/a/%2e%2e//b", ["/a/%2e%2e//b", "//b", "/b", "/b"]),
            ("/a%2F%5cb", ["/a%2F%5cb", "/a%2F%5cb", "/a%2F%5cb", "/a/b"]),
            ("/a\\..\\b", ["/a\\..\\b", "/b", "/b", "/b"]),
            ("/a/..;x/b", ["/a/..;x/b", "/b", "/b", "/b"]),
            (
                "/a/%2e%2e;/b",
                ["/a/%2e%2e;/b", "/a/..;/b", "/a/..;/b", "/a/..;/b"],
            ),
            (
                "/%7e%41%2a%{",
                ["/%7e%41%2a%{", "/~A%2a%%7B", "/~A%2a%%7B", "/~A%2a%%7B"],
            ),
            ("http://h/../x", ["/../x", "/x", "/x", "/x"]),
        ];
        for (raw, expected) in table {
            let modes = [None, Base, MergeSlashes, DecodeAndMergeSlashes];
            let got = modes.map(|mode| normalise(raw, mode).unwrap().into_owned());
            assert_eq!(got, expected, "{raw}");
        }
    }

    #[test]
    fn keeps_nobody_from_decoding_once_only() {
        assert_eq!(normalise("/%%300", Base).unwrap(), "/%2500");
        assert_eq!(normalise("/%%30%30", Base).unwrap(), "/%2500");
    }
}
