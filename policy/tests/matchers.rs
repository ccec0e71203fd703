//! String matchers and address blocks against the expressions that istiod gives Envoy.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, Ipv4Addr};

use portcullis_policy::text::{Cidr, Pattern};
use proptest::prelude::*;
use regex::{Regex, escape};

/// RE2's full match; `.` matches no newline in both engines.
fn full_match(expression: &str, subject: &str) -> bool {
    Regex::new(&format!(r"\A(?:{expression})\z"))
        .unwrap()
        .is_match(subject)
}

/// The expression istiod makes of `*`, `*suffix`, `prefix*` and exact values behind `spiffe://`.
fn principal_expression(value: &str) -> String {
    match value {
        "*" => ".+".to_owned(),
        v if v.starts_with('*') => format!("spiffe://.*{}", escape(&v[1..])),
        v if v.ends_with('*') => format!("spiffe://{}(?s:.*)", escape(&v[..v.len() - 1])),
        v => format!("spiffe://{}", escape(v)),
    }
}

fn namespace_expression(value: &str) -> String {
    let texts: Vec<String> = value.split('*').map(escape).collect();
    format!(".*/ns/{}/.*", texts.join(".*"))
}

fn service_account_expression(value: &str) -> String {
    let (namespace, account) = value.split_once('/').unwrap_or(("own", value));
    format!(
        "spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?",
        escape(namespace),
        escape(account)
    )
}

fn trust_domain_expression(value: &str) -> String {
    match value.split_once('*') {
        _ if value == "*" => "spiffe://(?s:.*)".to_owned(),
        None => format!("spiffe://{}/(?s:.*)", escape(value)),
        Some((head, tail)) => format!("spiffe://{}[^/]*{}/.*", escape(head), escape(tail)),
    }
}

fn value() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "*", "*", "a", "s", "sa", "ns", "/", "/ns/", "/sa/", ".", "own", "\n", "é",
    ]);
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn subject() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "spiffe://",
        "/ns/",
        "/ns/own/",
        "/ns/a/",
        "sa/",
        "/sa/",
        "sa/sa",
        "sa/a",
        "a",
        "s",
        "/",
        "own",
        ".",
        "*",
        "\n",
        "é",
    ]);
    (any::<bool>(), prop::collection::vec(piece, 0..9)).prop_map(|(id, pieces)| {
        format!("{}{}", if id { "spiffe://" } else { "" }, pieces.concat())
    })
}

/// A value with a subject that it is likely to match: its stars filled in.
fn likely_pair() -> impl Strategy<Value = (String, String)> {
    let fill = prop::sample::select(vec!["", "a", "/", "a/b", "\n", "/ns/"]);
    (value(), fill, subject(), 0..6).prop_map(|(value, fill, other, shape)| {
        let filled = value.replace('*', fill);
        let subject = match shape {
            0 => filled,
            1 => format!("spiffe://{filled}"),
            2 => format!("spiffe://{filled}/{other}"),
            3 => format!("{other}/ns/{filled}/{other}"),
            4 => match filled.split_once('/') {
                Some((ns, sa)) => format!("spiffe://td/ns/{ns}/sa/{sa}"),
                None => format!("spiffe://td{other}/ns/own/{other}sa/{filled}"),
            },
            _ => other,
        };
        (value, subject)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn identities_match_as_the_expressions_of_istiod((value, subject) in likely_pair()) {
        let cases = [
            (Pattern::principal(&value), principal_expression(&value)),
            (Pattern::namespace(&value), namespace_expression(&value)),
            (Pattern::service_account(&value, "own"), service_account_expression(&value)),
            (Pattern::trust_domain(&value), trust_domain_expression(&value)),
        ];
        for (pattern, expression) in cases {
            prop_assert_eq!(
                pattern.matches(&subject),
                full_match(&expression, &subject),
                "{:?} {:?} {:?}", expression, subject, pattern
            );
            prop_assert_eq!(pattern.text(), &value);
        }
    }

    #[test]
    fn strings_match_as_their_form_says((value, subject) in likely_pair()) {
        let expression = match value.as_str() {
            "*" => ".+".to_owned(),
            v if v.starts_with('*') => format!("(?s:.*){}", escape(&v[1..])),
            v if v.ends_with('*') => format!("{}(?s:.*)", escape(&v[..v.len() - 1])),
            v => escape(v),
        };
        prop_assert_eq!(Pattern::string(&value).matches(&subject), full_match(&expression, &subject));
        let present = if value == "*" { "(?s:.*)" } else { &expression };
        prop_assert_eq!(Pattern::header(&value).matches(&subject), full_match(present, &subject));
        // ASCII letters only: `(?i)` would fold more.
        let folded = full_match(&present.to_ascii_lowercase(), &subject.to_ascii_lowercase());
        prop_assert_eq!(Pattern::host(&value).matches(&subject.to_ascii_uppercase()), folded);
    }

    #[test]
    fn a_block_holds_what_its_prefix_says(network: u32, other: u32, near: bool, bits in 0u8..=32) {
        let other = if near { network ^ (other >> 16) } else { other };
        let block = Cidr::parse(&format!("{}/{bits}", Ipv4Addr::from(network))).unwrap();
        let same = (0..bits).all(|i| (network ^ other) >> (31 - i) & 1 == 0);
        prop_assert_eq!(block.contains(IpAddr::from(Ipv4Addr::from(other))), same);
        let mapped = Ipv4Addr::from(other).to_ipv6_mapped();
        prop_assert!(!block.contains(IpAddr::from(mapped)));
    }

    #[test]
    fn any_text_is_a_block_or_refused(text in "[0-9a-f:./%]{0,20}") {
        if let Ok(block) = Cidr::parse(&text) {
            prop_assert!(block.contains(block.network()));
            prop_assert_eq!(Cidr::parse(&block.to_string()).unwrap().network(), block.network());
        }
    }
}

#[test]
fn reads_the_blocks_that_istio_reads_and_no_others() {
    let good = [
        ("10.1.1.5/24", "10.1.1.0/24"),
        ("10.1.1.5", "10.1.1.5/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::1/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::/0", "::/0"),
        ("::ffff:10.1.1.1", "::ffff:10.1.1.1/128"),
        ("fe80::1%eth0", "fe80::1/128"),
    ];
    for (text, canonical) in good {
        let block = Cidr::parse(text).unwrap();
        assert_eq!(
            (block.to_string().as_str(), block.text()),
            (canonical, text)
        );
    }
    let bad = [
        "",
        "bad",
        "10.1.1",
        "10.1.1.1.1",
        "010.1.1.1",
        "10.1.1.256",
        " 10.1.1.1",
        "10.1.1.1 ",
        "10.1.1.1/",
        "10.1.1.1/33",
        "10.1.1.1/-1",
        "10.1.1.1/+8",
        "10.1.1.1/08",
        "10.1.1.1/8/8",
        "10.1.1.1/a",
        "[::1]",
        "::1/129",
        "::1/999999999999",
        "1::2::3",
        "fe80::1%eth0/64",
        "10.1.1.1%eth0",
        "fe80::1%",
        "10.1.1.1:80",
    ];
    for text in bad {
        assert!(Cidr::parse(text).is_err(), "{text:?} must be refused");
    }
}

#[test]
fn keeps_the_surprises_of_istio() {
    let web = "spiffe://td/ns/foo/sa/web";
    for (pattern, subject, expected) in [
        // `spiffe://` is put before what is there already.
        (Pattern::principal(web), web, false),
        (Pattern::principal("td/ns/foo/sa/web"), web, true),
        (Pattern::principal("*"), "CN=plain", true),
        (Pattern::principal("*"), "", false),
        (Pattern::principal("*web"), "CN=web", false),
        // A star anywhere but at an end is a letter.
        (Pattern::string("*a*"), "xa*", true),
        (Pattern::string("*a*"), "xa", false),
        (Pattern::string("a*b"), "axb", false),
        (Pattern::string("*"), "", false),
        (Pattern::header("*"), "", true),
        (Pattern::host("*.Example.com"), "A.eXample.COM", true),
        (Pattern::host("example.com"), "example.com:80", false),
        // The star of a namespace crosses segments.
        (
            Pattern::namespace("f*"),
            "spiffe://td/ns/f/x/y/sa/web",
            true,
        ),
        (Pattern::namespace("foo"), "spiffe://td/ns/foo", false),
        (
            Pattern::namespace("a/ns/x"),
            "spiffe://td/ns/a/ns/x/sa/w",
            true,
        ),
        // Service accounts tolerate more segments.
        (Pattern::service_account("web", "foo"), web, true),
        (Pattern::service_account("web", "bar"), web, false),
        (
            Pattern::service_account("foo/web", "bar"),
            "spiffe://td/x/ns/foo/pod/p/sa/web/more",
            true,
        ),
        (
            Pattern::service_account("web", "foo"),
            "spiffe://td/ns/foo/sa/web/",
            false,
        ),
        (
            Pattern::service_account("web", "foo"),
            "spiffe:///ns/foo/sa/web",
            false,
        ),
        (
            Pattern::service_account("web", "foo"),
            "spiffe://td/ns/foo//sa/web",
            false,
        ),
        // The star of a trust domain does not.
        (Pattern::trust_domain("t*"), web, true),
        (Pattern::trust_domain("*"), web, true),
        (Pattern::trust_domain("t"), web, false),
        (Pattern::trust_domain("*foo"), web, false),
    ] {
        assert_eq!(
            pattern.matches(subject),
            expected,
            "{pattern:?} {subject:?}"
        );
    }
}
