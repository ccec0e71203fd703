//! Names for DNS SANs (RFC 1035 §2.3.1 as RFC 1123 §2.1 widens it; RFC 6125 §6.4.3 for `*`).

/// True for a name that a certificate may carry: labels of letters, digits and inner hyphens, the first
/// possibly `*` alone.
#[must_use]
pub fn is_valid(name: &str) -> bool {
    let after_wildcard = name.strip_prefix("*.").unwrap_or(name);
    !after_wildcard.is_empty() && name.len() <= 253 && after_wildcard.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_resolvers_and_certificates_know_are_accepted() {
        let longest_label = format!("{}.org", "a".repeat(63));
        for name in [
            "a",
            "web.example.org",
            "*.example.org",
            "1.2",
            "x--y",
            &longest_label,
        ] {
            assert!(is_valid(name), "{name}");
        }
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127) + "a";
        for name in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "*",
            "a.*.b",
            "a_b",
            "a b",
            "a.",
            "ü.org",
            &long_label,
            &long_name,
        ] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
