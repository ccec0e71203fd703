//! Any header value as X-Forwarded-Client-Cert and as a certificate: refused, or read as what it says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_authz::http::identity::{certificate, xfcc};

fuzz_target!(|header: &str| {
    if let Ok(der) = certificate::der(header) {
        // Whatever is in there, reading it is an answer.
        let _ = certificate::identities(&der);
    }
    let Ok(elements) = xfcc::parse(header) else {
        return;
    };
    assert!(!elements.is_empty());
    // What was read, written as Envoy would with everything in quotes, is read again as the same.
    let written: Vec<String> = elements.iter().map(write).collect();
    let written = written.join(",");
    // A backslash before a quote cannot be told from an escaped quote: that is not written.
    if !header.contains('\\') {
        assert_eq!(xfcc::parse(&written), Ok(elements.clone()), "{written}");
    }
    // Nothing that stands before it changes what the nearest client is.
    if elements.len() < 60 {
        let longer = format!("URI=spiffe://a/b,{header}");
        let longer = xfcc::parse(&longer).expect("an element before");
        assert_eq!(longer.last(), elements.last());
    }
});

fn write(element: &xfcc::Element) -> String {
    let xfcc::Element {
        by,
        hash,
        certificate,
        chain,
        subject,
        uris,
        dns_names,
    } = element;
    let one = |key, values: &[String]| -> Vec<String> {
        let values = values.iter();
        values
            .map(|value| format!("{key}=\"{}\"", value.replace('"', "\\\"")))
            .collect()
    };
    [
        one("By", by),
        one("Hash", hash.as_slice()),
        one("Cert", certificate.as_slice()),
        one("Chain", chain.as_slice()),
        one("Subject", subject.as_slice()),
        one("URI", uris),
        one("DNS", dns_names),
    ]
    .concat()
    .join(";")
}
