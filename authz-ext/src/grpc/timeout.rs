//! How long a gRPC client waits: the header `grpc-timeout`.

use std::time::Duration;

use tonic::codegen::http::HeaderMap;

/// What the client states; `None` when it states nothing that can be read (at most eight digits and a
/// unit, by gRPC over HTTP/2).
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            of(&headers)
        };
        assert_eq!(of("200m"), Some(Duration::from_millis(200)));
        assert_eq!(
            of("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(of("1n"), Some(Duration::from_nanos(1)));
        for text in [
            "",
            "m",
            "1",
            "1x",
            "-1m",
            "+1m",
            "1 m",
            "123456789m",
            "1.5S",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(super::of(&HeaderMap::new()), None);
    }
}
