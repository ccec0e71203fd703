use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;
use crate::http::peer::TrustList;

const ALICE: &str = "spiffe://cluster.local/ns/shop/sa/alice";

fn headers(entries: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in entries {
        headers.append(
            tonic::codegen::http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    headers
}

fn xfcc_options(trusted_hops: usize) -> Options {
    Options {
        source: IdentitySource::ForwardedClientCert { trusted_hops },
        require_svid: false,
    }
}

fn proxy() -> Peer {
    Peer {
        address: Some("10.0.0.7".parse().unwrap()),
        ..Peer::default()
    }
}

fn trusting() -> TrustList {
    TrustList::new(vec!["10.0.0.0/8".parse().unwrap()])
}

fn read_as(options: &Options, entries: &[(&str, &str)]) -> Result<Presented, Refusal> {
    read(&headers(entries), Some(options), &trusting(), &proxy())
}

/// Kinds and values in order, `none` without a certificate, or the reason of the refusal.
fn shown(presented: Result<Presented, Refusal>) -> String {
    match presented {
        Err(refusal) => refusal.reason.as_str().to_owned(),
        Ok(presented) if !presented.certificate => {
            assert!(presented.identities.is_empty());
            "none".to_owned()
        }
        Ok(presented) => {
            let names = presented.identities.iter();
            let names: Vec<String> = names.map(|i| format!("{:?} {}", i.kind, i.value)).collect();
            names.join(", ")
        }
    }
}

#[track_caller]
fn xfcc(hops: usize, value: &str, expected: &str) {
    let found = shown(read_as(&xfcc_options(hops), &[(XFCC, value)]));
    assert_eq!(found, expected, "{value}");
}

#[test]
fn an_element_gives_its_names_in_envoys_order() {
    // The examples of Envoy's manual.
    xfcc(
        0,
        "By=http://frontend.lyft.com;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;Subject=\"/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client\";URI=http://testclient.lyft.com",
        "Uri http://testclient.lyft.com, Subject /C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client",
    );
    xfcc(
        0,
        "By=http://frontend.lyft.com;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;URI=http://testclient.lyft.com,By=http://backend.lyft.com;Hash=9ba61d6425303443c0748a02dd8de688468ed33be74eee6556d90c0149c1309e;URI=http://frontend.lyft.com",
        "Uri http://frontend.lyft.com",
    );
    xfcc(
        0,
        "DNS=a.example;uri=spiffe://a/b;SUBJECT=\"CN=x,O=y\";DNS=b.example;By=",
        "Uri spiffe://a/b, Dns a.example, Dns b.example, Subject CN=x,O=y",
    );
    xfcc(
        0,
        "Subject=\"CN=\\\"q\\\",O=a;b=c\"",
        "Subject CN=\"q\",O=a;b=c",
    );
    xfcc(0, "Subject=\"\";URI=spiffe://a/b", "Uri spiffe://a/b");
    // Only the digest is known: a certificate without a name.
    xfcc(0, "Hash=ab", "");
    xfcc(0, " URI=spiffe://a/b ; ", "Uri spiffe://a/b");
    xfcc(0, "", "none");
    // Beside another an empty one would be somebody without a name.
    let lines = [(XFCC, "URI=spiffe://a/b"), (XFCC, "")];
    assert!(read_as(&xfcc_options(0), &lines).is_err());
}

#[test]
fn the_right_most_element_counts_unless_hops_are_trusted() {
    let chain = "URI=spiffe://a/forged,URI=spiffe://a/client , URI=spiffe://a/proxy";
    xfcc(0, chain, "Uri spiffe://a/proxy");
    xfcc(1, chain, "Uri spiffe://a/client");
    xfcc(2, chain, "Uri spiffe://a/forged");
    xfcc(3, chain, "none");
    // Commas within quotes separate nothing.
    xfcc(
        1,
        "URI=spiffe://a/client,Subject=\"CN=x,URI=spiffe://a/fake\"",
        "Uri spiffe://a/client",
    );
    // Several lines are one list.
    let lines = [
        (XFCC, "URI=spiffe://a/client"),
        (XFCC, "URI=spiffe://a/proxy"),
    ];
    assert_eq!(
        shown(read_as(&xfcc_options(0), &lines)),
        "Uri spiffe://a/proxy"
    );
    assert_eq!(
        shown(read_as(&xfcc_options(1), &lines)),
        "Uri spiffe://a/client"
    );
}

#[test]
fn what_is_not_the_grammar_refuses_the_whole_header() {
    for bad in [
        ",",
        "URI=spiffe://a/b,",
        ",URI=spiffe://a/b",
        "URI=spiffe://a/b,,URI=spiffe://a/c",
        "URI",
        "URI;By=x",
        "=x",
        "spiffe://a/b",
        "Uri=\"spiffe://a/b",
        "URI=\"spiffe://a/b\"c",
        "URI=\"spiffe://a/b\" c;By=x",
        "URI=spiffe://a/b\"",
        "Hash=xyz;URI=spiffe://a/b",
        "Hash=;URI=spiffe://a/b",
        "Hash=ab;Hash=ab",
        "Subject=\"a\";Subject=\"b\"",
        "Principal=spiffe://a/b",
        "Subject=\"CN=x\\\"",
        "Cert=\"no certificate\"",
        "Cert=\"\"",
    ] {
        xfcc(0, bad, "invalid_request");
        // An element that does not count refuses the header, too.
        if !bad.starts_with("Cert") {
            xfcc(0, &format!("{bad},URI=spiffe://a/b"), "invalid_request");
        }
    }
    let many = vec!["URI=spiffe://a/b"; 65].join(",");
    xfcc(0, &many, "invalid_request");
    let mut bytes = headers(&[]);
    bytes.insert(
        XFCC,
        tonic::codegen::http::HeaderValue::from_bytes(b"URI=\xff").unwrap(),
    );
    let found = read(&bytes, Some(&xfcc_options(0)), &trusting(), &proxy());
    assert_eq!(shown(found), "invalid_request");
}

struct Leaf {
    pem: String,
    der: Vec<u8>,
}

fn leaf(uris: &[&str]) -> Leaf {
    let mut params = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "shop");
    for uri in uris {
        let uri = (*uri).try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
    }
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    Leaf {
        pem: certificate.pem(),
        der: certificate.der().to_vec(),
    }
}

fn escaped(pem: &str) -> String {
    percent_encoding::utf8_percent_encode(pem, percent_encoding::NON_ALPHANUMERIC).to_string()
}

const NAMES: &str =
    "Uri spiffe://cluster.local/ns/shop/sa/alice, Dns client.example, Subject O=shop";

#[test]
fn a_certificate_is_read_in_every_form_that_proxies_send() {
    use base64::Engine as _;
    let leaf = leaf(&[ALICE]);
    let other = super::tests::leaf(&["spiffe://a/other"]);
    let options = Options {
        source: IdentitySource::Certificate {
            header: "x-client-cert".to_owned(),
        },
        require_svid: true,
    };
    let der = base64::engine::general_purpose::STANDARD.encode(&leaf.der);
    let bare = |pem: &str| -> String {
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        lines.collect()
    };
    let forms = [
        escaped(&leaf.pem),
        escaped(&(leaf.pem.clone() + &other.pem)),
        leaf.pem.replace('\n', " "),
        der.clone(),
        format!(":{der}:"),
        format!("{},{}", bare(&leaf.pem), bare(&other.pem)),
        // What Go's QueryEscape makes of it.
        escaped(&bare(&leaf.pem)),
    ];
    for form in forms {
        let found = shown(read_as(&options, &[("x-client-cert", &form)]));
        assert_eq!(found, NAMES, "{form}");
    }
    for bad in [
        "nonsense".to_owned(),
        "%ff%fe".to_owned(),
        der[..der.len() - 8].to_owned(),
        format!(":{der}"),
        leaf.pem.replace('\n', " ").replace("-----END", ""),
        leaf.pem
            .replace('\n', " ")
            .replace("CERTIFICATE", "PRIVATE KEY"),
        base64::engine::general_purpose::STANDARD.encode([leaf.der.as_slice(), b"more"].concat()),
    ] {
        let found = shown(read_as(&options, &[("x-client-cert", &bad)]));
        assert_eq!(found, "invalid_request", "{bad}");
    }
    for none in [&[][..], &[("x-client-cert", "")]] {
        assert_eq!(shown(read_as(&options, none)), "none");
    }
}

#[test]
fn an_elements_certificate_has_the_last_word_and_must_be_what_the_element_says() {
    let leaf = leaf(&[ALICE]);
    let hash: String = ring::digest::digest(&ring::digest::SHA256, &leaf.der)
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02X}"))
        .collect();
    let pem = escaped(&leaf.pem);
    xfcc(0, &format!("Hash={hash};Cert=\"{pem}\""), NAMES);
    xfcc(
        0,
        &format!("Hash={hash};Cert=\"{pem}\";Chain=\"{pem}\";Subject=\"O=shop\";URI={ALICE}"),
        NAMES,
    );
    xfcc(
        0,
        &format!("Cert=\"{pem}\";URI=spiffe://cluster.local/ns/shop/sa/bob"),
        "ambiguous_identity",
    );
    xfcc(0, &format!("Hash=00;Cert=\"{pem}\""), "ambiguous_identity");
}

#[test]
fn two_identities_are_none() {
    let xfcc = xfcc_options(0);
    let both = [(XFCC, "URI=spiffe://a/b"), ("ssl-client-cert", "x")];
    assert_eq!(shown(read_as(&xfcc, &both)), "ambiguous_identity");
    let certificate = Options {
        source: IdentitySource::Certificate {
            header: "my-cert".to_owned(),
        },
        require_svid: true,
    };
    let pem = escaped(&leaf(&[ALICE]).pem);
    let two = [("my-cert", pem.as_str()), ("my-cert", pem.as_str())];
    assert_eq!(shown(read_as(&certificate, &two)), "ambiguous_identity");
    for second in [XFCC, "ssl-client-cert", "x-forwarded-tls-client-cert"] {
        let both = [("my-cert", pem.as_str()), (second, "x")];
        assert_eq!(shown(read_as(&certificate, &both)), "ambiguous_identity");
        // Emptied by the proxy, it is none.
        let emptied = [("my-cert", pem.as_str()), (second, "")];
        assert_eq!(shown(read_as(&certificate, &emptied)), NAMES);
    }
    let double = escaped(&leaf(&[ALICE, "spiffe://a/b"]).pem);
    assert_eq!(
        shown(read_as(&certificate, &[("my-cert", &double)])),
        "ambiguous_identity"
    );
    let own = Options {
        source: IdentitySource::Peer,
        require_svid: false,
    };
    assert_eq!(
        shown(read_as(&own, &[(XFCC, "URI=spiffe://a/b")])),
        "ambiguous_identity"
    );
}

#[test]
fn only_trusted_peers_are_believed() {
    let entries = headers(&[(XFCC, "URI=spiffe://a/b")]);
    let stranger = Peer {
        address: Some("192.0.2.1".parse().unwrap()),
        ..Peer::default()
    };
    for source in [
        IdentitySource::ForwardedClientCert { trusted_hops: 0 },
        IdentitySource::Certificate {
            header: "my-cert".to_owned(),
        },
        IdentitySource::Peer,
    ] {
        let options = Options {
            source,
            require_svid: false,
        };
        let found = read(&entries, Some(&options), &trusting(), &stranger);
        assert_eq!(shown(found), "untrusted_identity_source", "{options:?}");
        let found = read(&entries, Some(&options), &TrustList::default(), &proxy());
        assert_eq!(shown(found), "untrusted_identity_source", "{options:?}");
        // Without an identity it is a request like any other.
        let found = read(&headers(&[]), Some(&options), &trusting(), &stranger);
        assert_eq!(shown(found), "none", "{options:?}");
    }
    // No source is named: nobody is anybody.
    let found = read(&entries, None, &trusting(), &proxy());
    assert_eq!(shown(found), "none");
    // ingress-nginx hands over what it did not verify, too, and says so.
    let options = Options {
        source: IdentitySource::Certificate {
            header: "ssl-client-cert".to_owned(),
        },
        require_svid: false,
    };
    let pem = escaped(&leaf(&[ALICE]).pem);
    for (said, expected) in [
        ("SUCCESS", NAMES),
        ("NONE", "untrusted_identity_source"),
        (
            "FAILED:self-signed certificate",
            "untrusted_identity_source",
        ),
    ] {
        let entries = [
            ("ssl-client-cert", pem.as_str()),
            ("ssl-client-verify", said),
        ];
        assert_eq!(shown(read_as(&options, &entries)), expected, "{said}");
    }
}

#[test]
fn the_peers_own_certificate_is_a_source() {
    let options = Options {
        source: IdentitySource::Peer,
        require_svid: true,
    };
    let peer = Peer {
        identities: vec![Identity {
            kind: IdentityKind::Uri,
            value: ALICE.to_owned(),
        }],
        ..Peer::default()
    };
    let found = read(&headers(&[]), Some(&options), &TrustList::default(), &peer);
    assert_eq!(shown(found), format!("Uri {ALICE}"));
    let found = read(
        &headers(&[]),
        Some(&options),
        &TrustList::default(),
        &Peer::default(),
    );
    assert_eq!(shown(found), "none");
}
