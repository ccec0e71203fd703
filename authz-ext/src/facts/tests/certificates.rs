//! Identities of `source.certificate`.

use rcgen::{
    CertificateParams, CustomExtension, DnType, DnValue, KeyPair, SanType, string::BmpString,
};

use super::*;

fn pem(params: &CertificateParams) -> String {
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn params(sans: Vec<SanType>, subject: &[(DnType, &str)]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (name, value) in subject {
        params.distinguished_name.push(name.clone(), *value);
    }
    params.subject_alt_names = sans;
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// Percent-encoded as Envoy does it.
fn encoded(pem: &str) -> String {
    [
        ("\n", "%0A"),
        (" ", "%20"),
        ("+", "%2B"),
        ("/", "%2F"),
        ("=", "%3D"),
    ]
    .iter()
    .fold(pem.to_owned(), |pem, (from, to)| pem.replace(from, to))
}

fn presented(certificate: &str, principal: &str) -> Result<Source, String> {
    let check = from_json(br#"{"attributes":{"source":{},"destination":{}}}"#).unwrap();
    let mut check = check;
    let source = check.attributes.as_mut().unwrap().source.as_mut().unwrap();
    source.certificate = certificate.to_owned();
    source.principal = principal.to_owned();
    request(check, &MetadataMap::new(), &Options::default())
        .map(|request| request.source)
        .map_err(|invalid| invalid.0)
}

fn names(source: &Source) -> Vec<(IdentityKind, &str)> {
    let identities = source.identities.iter();
    identities
        .map(|identity| (identity.kind, identity.value.as_str()))
        .collect()
}

#[test]
fn every_name_is_tried_in_envoys_order() {
    let sans = vec![
        dns("a.example"),
        uri("spiffe://td/ns/foo/sa/a"),
        SanType::IpAddress(ip("10.0.0.9")),
        dns("b.example"),
        uri("spiffe://td/ns/foo/sa/b"),
    ];
    let subject = [(DnType::OrganizationName, "y"), (DnType::CommonName, "x")];
    let pem = pem(&params(sans, &subject));
    let expected = [
        (IdentityKind::Uri, "spiffe://td/ns/foo/sa/a"),
        (IdentityKind::Uri, "spiffe://td/ns/foo/sa/b"),
        (IdentityKind::Dns, "a.example"),
        (IdentityKind::Dns, "b.example"),
        (IdentityKind::Subject, "CN=x,O=y"),
    ];
    // source.principal is the first name once more; plain PEM is read, too.
    for certificate in [encoded(&pem), pem] {
        let source = presented(&certificate, "spiffe://td/ns/foo/sa/a").unwrap();
        assert!(source.certificate_presented);
        assert_eq!(names(&source), expected);
    }
}

#[test]
fn a_principal_that_the_certificate_lacks_is_kept_beside_it() {
    let pem = pem(&params(vec![uri("spiffe://td/a")], &[]));
    let source = presented(&encoded(&pem), "spiffe://td/b").unwrap();
    let expected = [
        (IdentityKind::Principal, "spiffe://td/b"),
        (IdentityKind::Uri, "spiffe://td/a"),
    ];
    assert_eq!(names(&source), expected);
}

#[test]
fn a_name_that_stands_twice_is_tried_once() {
    let pem = pem(&params(vec![uri("x"), dns("x"), uri("x")], &[]));
    let source = presented(&encoded(&pem), "").unwrap();
    assert_eq!(names(&source), [(IdentityKind::Uri, "x")]);
}

#[test]
fn a_certificate_without_a_name_was_still_presented() {
    let source = presented(&encoded(&pem(&params(vec![], &[]))), "").unwrap();
    assert!(source.certificate_presented && source.identities.is_empty());
}

#[test]
fn only_the_leaf_counts() {
    let leaf = pem(&params(vec![uri("spiffe://td/leaf")], &[]));
    let authority = pem(&params(vec![uri("spiffe://td/ca")], &[]));
    let source = presented(&encoded(&format!("{leaf}{authority}")), "").unwrap();
    assert_eq!(names(&source), [(IdentityKind::Uri, "spiffe://td/leaf")]);
}

#[test]
fn a_certificate_that_cannot_be_read_is_refused() {
    let good = pem(&params(vec![uri("spiffe://td/a")], &[]));
    let broken = good.replacen("MII", "MIA", 1);
    let key = KeyPair::generate().unwrap().serialize_pem();
    let mut malformed = params(vec![], &[]);
    // A URI that is not UTF-8 (SEQUENCE { [6] FF }), and a list that is cut off.
    let san = |octets: &[u8]| CustomExtension::from_oid_content(&[2, 5, 29, 17], octets.to_vec());
    malformed.custom_extensions = vec![san(&[0x30, 3, 0x86, 1, 0xff])];
    let not_text = pem(&malformed);
    malformed.custom_extensions = vec![san(&[0x30, 9, 0x86, 1])];
    let cut_off = pem(&malformed);
    for bad in ["x", "%zz", &broken, &good[..200], &key, &not_text, &cut_off] {
        let error = presented(&encoded(bad), "spiffe://td/a").unwrap_err();
        assert!(
            error.starts_with("`source.certificate` cannot be read: "),
            "{error}"
        );
    }
    assert!(presented(&encoded(&good), "spiffe://td/a").is_ok());
}

#[test]
fn the_subject_is_printed_as_boringssl_prints_it() {
    let subject = |parts: &[(DnType, DnValue)]| {
        let mut params = params(vec![], &[]);
        for (name, value) in parts {
            params.distinguished_name.push(name.clone(), value.clone());
        }
        let source = presented(&encoded(&pem(&params)), "").unwrap();
        source.identities.last().unwrap().value.clone()
    };
    let text = |text: &str| DnValue::Utf8String(text.to_owned());
    assert_eq!(
        subject(&[
            (DnType::CountryName, text("GB")),
            (DnType::OrganizationName, text("a, b+c")),
            (DnType::OrganizationalUnitName, text("#x ")),
            (DnType::CommonName, text(" é\\\"<>;=/\u{7f}\n ")),
        ]),
        r#"CN=\ \C3\A9\\\"\<\>\;=/\7F\0A\ ,OU=\#x\ ,O=a\, b\+c,C=GB"#
    );
    assert_eq!(
        subject(&[
            (
                DnType::CommonName,
                DnValue::BmpString(BmpString::try_from("Ω").unwrap())
            ),
            (
                DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 25]),
                text("example")
            ),
            (
                DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]),
                text("ab")
            ),
        ]),
        r"1.3.6.1.4.1.99999.1=#0C026162,DC=example,CN=\CE\A9"
    );
}
