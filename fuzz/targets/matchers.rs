//! Any value of a policy against any subject: no panic, and the answer of the expression that
//! istiod or Envoy would use. The input is the value, a NUL and the subject.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use portcullis_policy::path::PathTemplate;
use portcullis_policy::text::{Cidr, Pattern};
use regex::{Regex, escape};

const PCHAR: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@=*";

fuzz_target!(|input: &str| {
    let Some((value, subject)) = input.split_once('\0') else {
        return;
    };
    let full_match = |expression: &str| {
        Regex::new(&format!(r"\A(?:{expression})\z")).map(|regex| regex.is_match(subject))
    };
    let agrees = |pattern: Pattern, expression: &str| {
        assert_eq!(pattern.text(), value);
        if let Ok(matched) = full_match(expression) {
            assert_eq!(
                pattern.matches(subject),
                matched,
                "{expression:?} {subject:?}"
            );
        }
    };
    let star = |text: &str| text.split('*').map(escape).collect::<Vec<_>>();
    agrees(
        Pattern::namespace(value),
        &format!(".*/ns/{}/.*", star(value).join(".*")),
    );
    let (namespace, account) = value.split_once('/').unwrap_or(("own", value));
    let account = format!(
        "spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?",
        escape(namespace),
        escape(account)
    );
    agrees(Pattern::service_account(value, "own"), &account);
    let plain = match value {
        "*" => ".+".to_owned(),
        v if v.starts_with('*') => format!(
            "(?s:.*){}",
            star(v).get(1..).unwrap_or_default().join(r"\*")
        ),
        v if v.ends_with('*') => format!("{}(?s:.*)", escape(v.strip_suffix('*').unwrap_or(v))),
        v => escape(v),
    };
    agrees(Pattern::string(value), &plain);
    let _any = [
        Pattern::principal(value),
        Pattern::trust_domain(value),
        Pattern::host(value),
    ]
    .map(|pattern| pattern.matches(subject));

    let _lenient = PathTemplate::parse_unchecked(value).is_ok_and(|t| t.matches(subject));
    if PathTemplate::is_template(value)
        && let Ok(template) = PathTemplate::parse(value)
    {
        let expression = escape(value)
            .replace(r"\{\*\*\}", &format!("[{PCHAR}/]*"))
            .replace(r"\{\*\}", &format!("[{PCHAR}]+"));
        assert_eq!(
            Ok(template.matches(subject)),
            full_match(&expression),
            "{value:?} {subject:?}"
        );
        assert_eq!(PathTemplate::parse(template.text()), Ok(template));
    }
    if let Ok(block) = Cidr::parse(value) {
        assert_eq!(
            Cidr::parse(&block.to_string()).map(|b| b.network()),
            Ok(block.network())
        );
        let inside = subject
            .parse::<IpAddr>()
            .is_ok_and(|address| block.contains(address));
        assert!(!inside || subject.contains(':') == block.network().is_ipv6());
    }
});
