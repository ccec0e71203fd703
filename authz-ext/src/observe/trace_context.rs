//! The span that a check belongs to: W3C Trace Context, or B3 in one header or in several.
//!
//! The check's own headers come first (of gRPC its metadata): there the proxy states its span. Headers
//! of the request that is asked about come second: there stands what the client sent.

use portcullis_policy::request::Request;
use tonic::codegen::http::HeaderMap;

use super::Decided;

/// Longest `tracestate` that is handed on, in bytes (W3C Trace Context, section 3.3.1.1).
const LONGEST_STATE: usize = 512;

/// A span of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace.
    pub trace_id: [u8; 16],
    /// Span, the parent of ours.
    pub span_id: [u8; 8],
    /// Whether its spans are recorded; whoever leaves that open does not say so.
    pub sampled: bool,
    /// `tracestate`; empty without one.
    pub state: String,
}

impl TraceContext {
    /// The trace in hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> String {
        self.trace_id.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The span that `decided` belongs to; `None` where nobody states one.
    pub(super) fn of(decided: &Decided<'_>) -> Option<Self> {
        let request = decided.request.as_ref();
        read(|name| text(decided.headers, name)).or_else(|| read(|name| header(request?, name)))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn header<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let mut entries = request.http.as_ref()?.headers.entries.iter();
    let (_, value) = entries.find(|(entry, _)| entry == name)?;
    Some(value)
}

fn read<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<TraceContext> {
    if let Some(context) = header("traceparent").and_then(w3c) {
        let state = header("tracestate").filter(|state| state.len() <= LONGEST_STATE);
        return Some(TraceContext {
            state: state.unwrap_or_default().to_owned(),
            ..context
        });
    }
    if let Some(context) = header("b3").and_then(b3) {
        return Some(context);
    }
    let trace_id = trace_id(header("x-b3-traceid")?)?;
    let span_id = not_zero(hex(header("x-b3-spanid")?)?)?;
    let sampled = matches!(header("x-b3-sampled"), Some("1" | "true" | "d"))
        || header("x-b3-flags") == Some("1");
    Some(TraceContext {
        trace_id,
        span_id,
        sampled,
        state: String::new(),
    })
}

/// `version-trace-parent-flags` (W3C Trace Context, section 3.2).
fn w3c(text: &str) -> Option<TraceContext> {
    let mut parts = text.trim().split('-');
    let version: [u8; 1] = lower(parts.next()?)?;
    let trace_id = lower(parts.next()?)?;
    let span_id = lower(parts.next()?)?;
    let [flags] = lower(parts.next()?)?;
    // Later versions may have more to say, this one has not.
    if version == [0xff] || (version == [0] && parts.next().is_some()) {
        return None;
    }
    Some(TraceContext {
        trace_id: not_zero(trace_id)?,
        span_id: not_zero(span_id)?,
        sampled: flags & 1 == 1,
        state: String::new(),
    })
}

/// `trace-span`, `trace-span-sampled` or `trace-span-sampled-parent`.
fn b3(text: &str) -> Option<TraceContext> {
    let mut parts = text.trim().split('-');
    let trace_id = trace_id(parts.next()?)?;
    let span_id = not_zero(hex(parts.next()?)?)?;
    let sampled = match parts.next() {
        None | Some("0") => false,
        Some("1" | "d") => true,
        Some(_) => return None,
    };
    match (parts.next(), parts.next()) {
        (None, _) => {}
        (Some(parent), None) if hex::<8>(parent).is_some() => {}
        _ => return None,
    }
    Some(TraceContext {
        trace_id,
        span_id,
        sampled,
        state: String::new(),
    })
}

/// 16 or 32 digits; the short form is the right half.
fn trace_id(text: &str) -> Option<[u8; 16]> {
    let id = match text.len() {
        16 => hex(&format!("{:0>32}", text))?,
        _ => hex(text)?,
    };
    not_zero(id)
}

fn not_zero<const N: usize>(id: [u8; N]) -> Option<[u8; N]> {
    (id != [0; N]).then_some(id)
}

fn lower<const N: usize>(text: &str) -> Option<[u8; N]> {
    let upper = text.bytes().any(|b| b.is_ascii_uppercase());
    if upper { None } else { hex(text) }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read_all(headers: &[(&str, &str)]) -> Option<(String, bool)> {
        let found = read(|name| {
            let mut entries = headers.iter();
            entries.find(|(entry, _)| *entry == name).map(|(_, v)| *v)
        })?;
        let span: String = found.span_id.iter().map(|b| format!("{b:02x}")).collect();
        Some((format!("{}-{span}", found.trace()), found.sampled))
    }

    #[test]
    fn w3c_and_b3_name_the_same_span() {
        let whole = format!("{TRACE}-{SPAN}");
        let short = format!("0000000000000000{SPAN}-{SPAN}");
        let parent = |flags: &str| format!("00-{whole}-{flags}");
        for (headers, expected) in [
            (vec![("traceparent", parent("01"))], Some((&whole, true))),
            (vec![("traceparent", parent("00"))], Some((&whole, false))),
            (vec![("traceparent", parent("03"))], Some((&whole, true))),
            (
                vec![("traceparent", format!("01-{whole}-01-more"))],
                Some((&whole, true)),
            ),
            (vec![("traceparent", format!("00-{whole}-01-more"))], None),
            (vec![("traceparent", format!("ff-{whole}-01"))], None),
            (vec![("traceparent", parent("01").to_uppercase())], None),
            (
                vec![("traceparent", format!("00-{}-{SPAN}-01", "0".repeat(32)))],
                None,
            ),
            (
                vec![("traceparent", format!("00-{TRACE}-{}-01", "0".repeat(16)))],
                None,
            ),
            (vec![("traceparent", "00-é".to_owned())], None),
            (vec![("b3", format!("{whole}-1"))], Some((&whole, true))),
            (vec![("b3", format!("{whole}-d"))], Some((&whole, true))),
            (vec![("b3", format!("{whole}-0"))], Some((&whole, false))),
            (vec![("b3", whole.clone())], Some((&whole, false))),
            (
                vec![("b3", format!("{whole}-1-{SPAN}"))],
                Some((&whole, true)),
            ),
            (
                vec![("b3", format!("{SPAN}-{SPAN}-1"))],
                Some((&short, true)),
            ),
            (vec![("b3", "0".to_owned())], None),
            (vec![("b3", format!("{whole}-2"))], None),
            (vec![("b3", format!("{whole}-1-{SPAN}-x"))], None),
            (
                vec![
                    ("x-b3-traceid", TRACE.to_owned()),
                    ("x-b3-spanid", SPAN.to_owned()),
                    ("x-b3-sampled", "1".to_owned()),
                ],
                Some((&whole, true)),
            ),
            (
                vec![
                    ("x-b3-traceid", TRACE.to_uppercase()),
                    ("x-b3-spanid", SPAN.to_owned()),
                    ("x-b3-flags", "1".to_owned()),
                ],
                Some((&whole, true)),
            ),
            (
                vec![
                    ("x-b3-traceid", TRACE.to_owned()),
                    ("x-b3-spanid", SPAN.to_owned()),
                    ("x-b3-sampled", "0".to_owned()),
                ],
                Some((&whole, false)),
            ),
            (vec![("x-b3-traceid", TRACE.to_owned())], None),
            (
                // The first that can be read counts.
                vec![
                    ("traceparent", "x".to_owned()),
                    ("b3", format!("{whole}-1")),
                ],
                Some((&whole, true)),
            ),
        ] {
            let stated: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let expected = expected.map(|(ids, sampled)| (ids.clone(), sampled));
            assert_eq!(read_all(&stated), expected, "{headers:?}");
        }
    }
}
