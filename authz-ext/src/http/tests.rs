use portcullis_policy::request::{RemoteAddress, Request};
use tonic::codegen::http;

use super::*;
use crate::check::Refusal;

fn parts(target: &str, entries: &[(&str, &str)]) -> http::request::Parts {
    let mut request = http::Request::builder().uri(target);
    for (name, value) in entries {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn proxy() -> Peer {
    Peer {
        address: Some("10.0.0.7".parse().unwrap()),
        ..Peer::default()
    }
}

fn options(dialect: Dialect) -> Options {
    Options {
        trusted: TrustList::new(vec!["10.0.0.0/8".parse().unwrap()]),
        workload: Some("shop/web".to_owned()),
        ..Options::new(dialect)
    }
}

fn read(options: &Options, target: &str, entries: &[(&str, &str)]) -> Result<Request, Refusal> {
    request(&parts(target, entries), &proxy(), options, None)
}

fn reason(read: Result<Request, Refusal>) -> &'static str {
    read.unwrap_err().reason.as_str()
}

/// What each dialect sends for `GET https://shop.example/a?b` from 192.0.2.1.
fn usual(dialect: Dialect) -> (&'static str, Vec<(&'static str, &'static str)>) {
    let original = vec![
        ("x-original-method", "GET"),
        ("x-original-uri", "/a?b"),
        ("host", "shop.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let forwarded = vec![
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/a?b"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.1"),
        ("host", "portcullis"),
    ];
    match dialect {
        Dialect::Envoy => ("/authz/a?b", vec![("host", "shop.example")]),
        Dialect::Nginx | Dialect::Haproxy | Dialect::Apache => ("/", original),
        Dialect::Traefik | Dialect::Caddy => ("/authz", forwarded),
        Dialect::IngressNginx => (
            "/",
            vec![
                ("x-original-method", "GET"),
                ("x-original-url", "https://shop.example/a?b"),
                ("x-forwarded-for", "192.0.2.1"),
                ("host", "portcullis"),
            ],
        ),
    }
}

#[test]
fn every_dialect_gives_the_original_request() {
    for dialect in Dialect::ALL {
        let (target, mut entries) = usual(dialect);
        entries.extend([
            ("X-Tag", " one "),
            ("X-Tag", "two"),
            ("Connection", "close"),
        ]);
        entries.push(("x-portcullis-workload", "shop/admin"));
        let options = Options {
            path_prefix: if dialect == Dialect::Envoy {
                "/authz"
            } else {
                ""
            }
            .to_owned(),
            port: Some(8080),
            ..options(dialect)
        };
        let request = read(&options, target, &entries).unwrap();
        let http = request.http.unwrap();
        assert_eq!(
            (http.method.as_str(), http.path.as_str()),
            ("GET", "/a?b"),
            "{dialect}"
        );
        assert_eq!(http.host, "shop.example", "{dialect}");
        let envoy = dialect == Dialect::Envoy;
        assert_eq!(http.scheme, if envoy { "" } else { "https" });
        let client = "192.0.2.1".parse().unwrap();
        let expected = if envoy {
            proxy().address.unwrap()
        } else {
            client
        };
        assert_eq!(request.source.address, Some(expected), "{dialect}");
        let remote = match envoy {
            true => RemoteAddress::Unknown,
            false => RemoteAddress::Known(client),
        };
        assert_eq!(request.remote, remote, "{dialect}");
        // A header that the listener does not read states nothing.
        assert_eq!(request.destination.workload.as_deref(), Some("shop/web"));
        assert_eq!(request.destination.port, Some(8080));
        let mut seen: Vec<&str> = http
            .headers
            .entries
            .iter()
            .map(|(n, _)| n.as_str())
            .collect();
        seen.retain(|name| !name.starts_with("x-forwarded-"));
        assert_eq!(seen, ["x-tag", "x-tag", "host"], "{dialect}");
        assert_eq!(http.headers.entries.last().unwrap().1, "shop.example");
    }
}

#[test]
fn a_dialect_is_never_mixed_with_another() {
    for dialect in Dialect::ALL {
        for other in Dialect::ALL {
            let (target, entries) = usual(other);
            let same = dialect.carriers() == other.carriers();
            let refused = read(&options(dialect), target, &entries).is_err();
            assert_eq!(refused, !same, "{dialect} reads {other}");
            // Added to what is right, the other's headers refuse it all the same.
            let (target, mut entries) = usual(dialect);
            let foreign = other.carriers().iter();
            let foreign = foreign.filter(|name| !dialect.carriers().contains(name));
            let before = entries.len();
            entries.extend(foreign.map(|name| (*name, "/public")));
            if entries.len() > before {
                let found = read(&options(dialect), target, &entries);
                assert_eq!(reason(found), "invalid_request", "{dialect} with {other}");
            }
        }
    }
}

#[test]
fn what_is_missing_doubled_or_malformed_is_refused() {
    for dialect in Dialect::ALL {
        let (target, entries) = usual(dialect);
        let options = options(dialect);
        let carriers = entries.iter().filter(|(name, _)| {
            let ignored = *name == "host"
                && !matches!(dialect, Dialect::Envoy)
                && options.dialect.carriers() != Dialect::Nginx.carriers();
            !ignored && !matches!(*name, "x-forwarded-for" | "x-forwarded-proto")
        });
        for (name, _) in carriers {
            let without: Vec<_> = entries.iter().copied().filter(|(n, _)| n != name).collect();
            let found = read(&options, target, &without);
            assert_eq!(reason(found), "invalid_request", "{dialect} without {name}");
            let mut twice = entries.clone();
            twice.push((name, "/public"));
            let found = read(&options, target, &twice);
            assert_eq!(
                reason(found),
                "invalid_request",
                "{dialect} with {name} twice"
            );
        }
    }
    let nginx = options(Dialect::Nginx);
    let (target, entries) = usual(Dialect::Nginx);
    for (name, bad) in [
        ("x-original-method", "GE T"),
        ("x-original-method", "GET,POST"),
        ("host", "a, b"),
        ("host", "a/b"),
        ("host", "a@b"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-for", "192.0.2.1, unknown"),
        ("x-forwarded-for", ""),
        // In absolute form the target names the host; it must be the same one.
        ("x-original-uri", "http://other.example/a"),
    ] {
        let mut changed: Vec<_> = entries
            .iter()
            .copied()
            .filter(|(n, _)| *n != name)
            .collect();
        changed.push((name, bad));
        let found = read(&nginx, target, &changed);
        assert_eq!(reason(found), "invalid_request", "{name}: {bad}");
    }
    let envoy = Options {
        path_prefix: "/authz".to_owned(),
        ..options(Dialect::Envoy)
    };
    for target in ["/a", "/", "http://shop.example/authz/a"] {
        let found = read(&envoy, target, &[("host", "shop.example")]);
        assert_eq!(reason(found), "invalid_request", "{target}");
    }
    for url in [
        "/a",
        "shop.example/a",
        "ftp://shop.example/a",
        "https://shop.example",
        "https:///a",
        "https://a@b/c",
        "https://a?b/c",
    ] {
        let entries = [
            ("x-original-method", "GET"),
            ("x-original-url", url),
            ("host", "p"),
        ];
        let found = read(&options(Dialect::IngressNginx), "/", &entries);
        assert_eq!(reason(found), "invalid_request", "{url}");
    }
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let read = |forwarded: Option<&str>, trusted| {
        let (target, mut entries) = usual(Dialect::Nginx);
        entries.retain(|(name, _)| *name != "x-forwarded-for");
        entries.extend(forwarded.map(|value| ("x-forwarded-for", value)));
        let read = request(
            &parts(target, &entries),
            &proxy(),
            &options(Dialect::Nginx),
            trusted,
        );
        let read = read.unwrap();
        (read.source.address.map(|a| a.to_string()), read.remote)
    };
    let known = |text: &str| RemoteAddress::Known(text.parse().unwrap());
    let at = |text: &str| Some(text.to_owned());
    assert_eq!(
        read(Some("192.0.2.1"), None),
        (at("192.0.2.1"), known("192.0.2.1"))
    );
    let chain = Some("203.0.113.9, 203.0.113.1, 192.0.2.1");
    assert_eq!(read(chain, None), (at("192.0.2.1"), RemoteAddress::Unknown));
    assert_eq!(
        read(chain, Some(1)),
        (at("192.0.2.1"), known("203.0.113.1"))
    );
    assert_eq!(read(chain, Some(0)), (at("192.0.2.1"), known("192.0.2.1")));
    assert_eq!(read(Some("unix:"), None), (None, RemoteAddress::None));
    assert_eq!(read(Some("::ffff:192.0.2.1"), None).0, at("192.0.2.1"));
    // Nobody says anything: the peer that we see, and a client that we do not know.
    assert_eq!(read(None, None), (at("10.0.0.7"), RemoteAddress::Unknown));
}

#[test]
fn facts_are_stated_by_trusted_peers_and_only_those_that_are_asked_for() {
    let (target, mut entries) = usual(Dialect::Envoy);
    entries.extend([
        ("x-portcullis-workload", "shop/api"),
        ("x-portcullis-direct-address", "192.0.2.1"),
        ("x-portcullis-remote-address", "203.0.113.1"),
        ("x-portcullis-target", ""),
    ]);
    let all = Options {
        path_prefix: "/authz".to_owned(),
        stated: StatedFact::ALL.to_vec(),
        ..options(Dialect::Envoy)
    };
    let request = read(&all, target, &entries).unwrap();
    assert_eq!(request.destination.workload.as_deref(), Some("shop/api"));
    assert_eq!(request.source.address, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(
        request.remote,
        RemoteAddress::Known("203.0.113.1".parse().unwrap())
    );
    let some = Options {
        stated: vec![StatedFact::DirectAddress],
        ..all.clone()
    };
    let request = read(&some, target, &entries).unwrap();
    assert_eq!(request.destination.workload.as_deref(), Some("shop/web"));
    assert_eq!(request.remote, RemoteAddress::Unknown);
    let untrusted = Options {
        trusted: TrustList::default(),
        ..all.clone()
    };
    assert_eq!(
        reason(read(&untrusted, target, &entries)),
        "untrusted_identity_source"
    );
    entries.push(("x-portcullis-direct-address", "192.0.2.2"));
    assert_eq!(reason(read(&all, target, &entries)), "invalid_request");
}
