//! What a plain YAML scalar means to Kubernetes.
//!
//! `kubectl` and the API server read YAML 1.1 as sigs.k8s.io/yaml does, so an unquoted `yes`, `off`
//! or `y` is a boolean and `0x1f`, `0123` or `1e3` a number. Whoever reads YAML 1.2 here would take
//! for a string what the API server refuses.

use super::node::{Style, Value};

/// The value of a plain scalar.
pub(super) fn resolve(text: &str) -> Value {
    let Some(first) = text.bytes().next() else {
        return Value::Null;
    };
    match first {
        b'~' | b'n' | b'N' | b'y' | b'Y' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' => {
            if matches!(text, "~" | "null" | "Null" | "NULL") {
                return Value::Null;
            }
            boolean(text).map_or_else(
                || Value::String(text.to_owned(), Style::Inline),
                |value| Value::Bool(value, text.into()),
            )
        }
        b'0'..=b'9' | b'+' | b'-' | b'.' => {
            number(text).unwrap_or_else(|| Value::String(text.to_owned(), Style::Inline))
        }
        _ => Value::String(text.to_owned(), Style::Inline),
    }
}

/// A YAML 1.1 boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Some(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Some(false)
        }
        _ => None,
    }
}

/// A number in any of the forms that Go's reader knows: decimal, `0x`, `0o` or leading-zero octal,
/// `0b`, underscores, exponents, infinities.
pub(super) fn number(text: &str) -> Option<Value> {
    // No number is this long; and what follows must not be asked of a megabyte.
    if text.len() > 400 {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, digits) = match plain.strip_prefix(['+', '-']) {
        Some(rest) => (plain.starts_with('-'), rest),
        None => (false, plain.as_str()),
    };
    if let Some(magnitude) = integer(digits) {
        let value = if negative { -magnitude } else { magnitude };
        return Some(Value::Integer(value, text.into()));
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF")
        || matches!(text, ".nan" | ".NaN" | ".NAN")
        || is_float(digits)
    {
        return Some(Value::Float(text.into()));
    }
    None
}

/// A whole number within 64 bits, without its sign.
fn integer(digits: &str) -> Option<i128> {
    let prefixed = |letters: [char; 2], radix: u32| {
        let rest = digits.strip_prefix('0')?.strip_prefix(letters)?;
        (!rest.starts_with(['+', '-'])).then_some((rest, radix))
    };
    let (body, radix) = prefixed(['x', 'X'], 16)
        .or_else(|| prefixed(['b', 'B'], 2))
        .or_else(|| prefixed(['o', 'O'], 8))
        .unwrap_or_else(|| match digits.strip_prefix('0') {
            Some(rest) if !rest.is_empty() => (rest, 8),
            _ => (digits, 10),
        });
    if body.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(body, radix).ok().map(i128::from)
}

/// `[0-9]+(.[0-9]*)?` or `.[0-9]+`, with an optional exponent.
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_ok =
        all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_are_booleans_as_in_yaml_1_1() {
        for text in ["y", "Yes", "on", "TRUE", "true"] {
            assert_eq!(resolve(text), Value::Bool(true, text.into()), "{text}");
        }
        for text in ["n", "No", "off", "FALSE", "false"] {
            assert_eq!(resolve(text), Value::Bool(false, text.into()), "{text}");
        }
    }

    #[test]
    fn plain_numbers_are_numbers_in_every_form_that_go_reads() {
        for (text, value) in [
            ("0", 0),
            ("080", 80),
            ("0123", 83),
            ("0o17", 15),
            ("0x1f", 31),
            ("0b11", 3),
            ("1_000", 1000),
            ("-5", -5),
            ("+5", 5),
            ("18446744073709551615", i128::from(u64::MAX)),
        ] {
            let read = resolve(text);
            if text == "080" {
                assert_eq!(read, Value::Float(text.into()));
            } else {
                assert_eq!(read, Value::Integer(value, text.into()), "{text}");
            }
        }
        for text in [
            "1e3",
            "1.",
            ".5",
            "-.inf",
            ".nan",
            "1.5E-7",
            "18446744073709551616",
        ] {
            assert_eq!(resolve(text), Value::Float(text.into()), "{text}");
        }
    }

    #[test]
    fn other_plain_text_is_a_string() {
        for text in [
            "10.1.1.1",
            "10.0.0.0/8",
            "-",
            "--1",
            "1e",
            "0x",
            "0xg",
            ".",
            "+",
            "nope",
            "yess",
            "2020-01-01",
            "1:20",
            "v1",
            "/a",
            "0b",
            "tRUE",
        ] {
            assert_eq!(
                resolve(text),
                Value::String(text.to_owned(), Style::Inline),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_and_tilde_are_null() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(text), Value::Null, "{text}");
        }
    }
}
