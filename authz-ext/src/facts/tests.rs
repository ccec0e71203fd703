use std::net::{Ipv4Addr, Ipv6Addr};

use portcullis_policy::request::RemoteAddress;

use super::*;
use crate::check_request::from_json;

mod certificates;

fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
    let mut map = MetadataMap::new();
    for (name, value) in pairs {
        map.append(*name, value.parse().unwrap());
    }
    map
}

fn read_with(
    attributes: &str,
    pairs: &[(&'static str, &str)],
    options: &Options,
) -> Result<Request, String> {
    let check = from_json(format!(r#"{{"attributes":{{{attributes}}}}}"#).as_bytes()).unwrap();
    request(check, &metadata(pairs), options).map_err(|invalid| invalid.0)
}

/// Facts of a request with a plain source and destination and these attributes.
fn facts(attributes: &str) -> Request {
    stated(attributes, &[]).unwrap()
}

fn stated(attributes: &str, pairs: &[(&'static str, &str)]) -> Result<Request, String> {
    read_with(&with_peers(attributes), pairs, &Options::default())
}

fn with_peers(attributes: &str) -> String {
    let comma = if attributes.is_empty() { "" } else { "," };
    format!("{PEERS}{comma}{attributes}")
}

const PEERS: &str = r#""source":{"address":{"socketAddress":{"address":"10.0.0.9","portValue":40000}}},
"destination":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":8080}}}"#;

fn http(fields: &str) -> portcullis_policy::request::Http {
    facts(&format!(r#""request":{{"http":{{{fields}}}}}"#))
        .http
        .unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_missing_is_named() {
    let none = request(
        CheckRequest::default(),
        &MetadataMap::new(),
        &Options::default(),
    );
    assert_eq!(none.unwrap_err().0, "the request has no `attributes`");
    let read = |attributes: &str| read_with(attributes, &[], &Options::default());
    let source = r#""source":{"address":{"socketAddress":{"address":"10.0.0.9"}}}"#;
    let destination = r#""destination":{"address":{"socketAddress":{"address":"10.0.0.1"}}}"#;
    assert_eq!(
        read(destination).unwrap_err(),
        "the request has no `attributes.source`"
    );
    assert_eq!(
        read(source).unwrap_err(),
        "the request has no `attributes.destination`"
    );
    assert!(read(&format!("{source},{destination}")).is_ok());
    // The workload names the destination, the direct address the source.
    let stated = r#""contextExtensions":{"portcullis.workload":"foo/a","portcullis.direct_address":"10.0.0.9"}"#;
    let request = read(stated).unwrap();
    assert_eq!(request.destination.workload.as_deref(), Some("foo/a"));
    assert_eq!(request.source.address, Some(ip("10.0.0.9")));
}

#[test]
fn addresses_are_the_connections_ends() {
    let request = facts("");
    assert_eq!(request.source.address, Some(ip("10.0.0.9")));
    assert_eq!(request.destination.address, Some(ip("10.0.0.1")));
    assert_eq!(request.destination.port, Some(8080));
    assert_eq!(request.remote, RemoteAddress::Known(ip("10.0.0.9")));
    assert!(request.http.is_none());
}

fn peer(address: &str) -> Result<Request, String> {
    let attributes = format!(
        r#""source":{{"address":{address}}},"destination":{{"address":{{"socketAddress":{{"address":"fd00::1","portValue":"443"}}}}}}"#
    );
    read_with(&attributes, &[], &Options::default())
}

#[test]
fn a_peer_is_ipv4_ipv6_a_pipe_or_refused() {
    let socket = |text: &str| peer(&format!(r#"{{"socketAddress":{{"address":"{text}"}}}}"#));
    let request = socket("2001:db8::7").unwrap();
    assert_eq!(request.source.address, Some(ip("2001:db8::7")));
    assert_eq!(request.destination.address, Some(ip("fd00::1")));
    assert_eq!(request.destination.port, Some(443));
    assert_eq!(
        socket("fe80::1%eth0").unwrap().source.address,
        Some(ip("fe80::1"))
    );
    assert_eq!(
        socket("::ffff:10.1.1.1").unwrap().source.address,
        Some(ip("10.1.1.1"))
    );
    for bad in [
        "",
        "localhost",
        "10.0.0.1:80",
        "010.0.0.1",
        "10.0.0",
        "fe80::1%",
        "[::1]",
    ] {
        assert!(
            socket(bad).unwrap_err().contains("is not an IP address"),
            "{bad}"
        );
    }
    let request = peer(r#"{"pipe":{"path":"/run/x.sock"}}"#).unwrap();
    assert_eq!(
        (request.source.address, request.remote),
        (None, RemoteAddress::None)
    );
}

#[test]
fn a_port_must_be_a_port() {
    let port = |port: &str| {
        let attributes = format!(
            r#""source":{{}},"destination":{{"address":{{"socketAddress":{{"address":"10.0.0.1",{port}}}}}}}"#
        );
        read_with(&attributes, &[], &Options::default()).map(|request| request.destination.port)
    };
    assert_eq!(port(r#""portValue":65535"#), Ok(Some(65535)));
    assert_eq!(port(r#""portValue":0"#), Ok(None));
    assert!(
        port(r#""portValue":65536"#)
            .unwrap_err()
            .contains("above 65535")
    );
    assert!(
        port(r#""namedPort":"http""#)
            .unwrap_err()
            .contains("is a name")
    );
}

#[test]
fn a_context_extension_wins_over_metadata() {
    let extensions = r#""contextExtensions":{"portcullis.workload":"foo/a","portcullis.service":"foo/s","portcullis.target":"waypoint",
        "portcullis.remote_address":"203.0.113.7","portcullis.direct_address":"192.0.2.1"}"#;
    let pairs = [
        ("x-portcullis-workload", "bar/b"),
        ("x-portcullis-service", "bar/s"),
        ("x-portcullis-target", "gateway"),
        ("x-portcullis-remote-address", "198.51.100.1"),
        ("x-portcullis-direct-address", "2001:db8::1"),
    ];
    let request = stated(extensions, &pairs).unwrap();
    assert_eq!(request.destination.workload.as_deref(), Some("foo/a"));
    assert_eq!(request.destination.service.as_deref(), Some("foo/s"));
    assert_eq!(request.target, Some(Target::Waypoint));
    assert_eq!(request.remote, RemoteAddress::Known(ip("203.0.113.7")));
    assert_eq!(request.source.address, Some(ip("192.0.2.1")));

    let request = stated("", &pairs).unwrap();
    assert_eq!(request.destination.workload.as_deref(), Some("bar/b"));
    assert_eq!(request.destination.service.as_deref(), Some("bar/s"));
    assert_eq!(request.target, Some(Target::Gateway));
    assert_eq!(request.remote, RemoteAddress::Known(ip("198.51.100.1")));
    assert_eq!(request.source.address, Some(ip("2001:db8::1")));

    let request = facts("");
    assert_eq!(
        (request.destination.workload, request.destination.service),
        (None, None)
    );
    assert_eq!(request.target, None);
}

#[test]
fn a_stated_fact_that_cannot_be_read_is_never_dropped() {
    for name in ["x-portcullis-remote-address", "x-portcullis-direct-address"] {
        for bad in [
            "",
            "-",
            "10.0.0.1:80",
            "unknown",
            "10.0.0.1,10.0.0.2",
            "/run/x",
        ] {
            let error = stated("", &[(name, bad)]).unwrap_err();
            assert!(error.contains("not an IP address"), "{name} {bad}: {error}");
        }
        let extension = name
            .replace("x-portcullis-", "portcullis.")
            .replace("-address", "_address");
        let bad = format!(r#""contextExtensions":{{"{extension}":"nonsense"}}"#);
        assert!(stated(&bad, &[(name, "10.0.0.1")]).is_err());
    }
    let error = stated("", &[("x-portcullis-target", "Sidecar")]).unwrap_err();
    assert!(error.contains("expected `auto`, `sidecar`"), "{error}");
    let twice = [
        ("x-portcullis-workload", "foo/a"),
        ("x-portcullis-workload", "foo/b"),
    ];
    assert!(stated("", &twice).unwrap_err().contains("twice"));
    let same = [
        ("x-portcullis-workload", "foo/a"),
        ("x-portcullis-workload", "foo/a"),
    ];
    assert!(stated("", &same).is_ok());
    // Present but empty names no workload; it must not fall back to the address.
    let empty = facts(r#""contextExtensions":{"portcullis.workload":""}"#);
    assert_eq!(empty.destination.workload.as_deref(), Some(""));
}

#[test]
fn the_listener_gives_path_form_and_target_unless_the_request_states_one() {
    let options = Options {
        path_form: PathForm::Normalised,
        target: Some(Target::Gateway),
        num_trusted_proxies: None,
    };
    let read = |attributes: &str| read_with(&with_peers(attributes), &[], &options).unwrap();
    assert_eq!(read("").target, Some(Target::Gateway));
    assert_eq!(read("").path_form, PathForm::Normalised);
    let sidecar = r#""contextExtensions":{"portcullis.target":"sidecar"}"#;
    assert_eq!(read(sidecar).target, Some(Target::Sidecar));
    let auto = r#""contextExtensions":{"portcullis.target":"auto"}"#;
    assert_eq!(read(auto).target, None);
    assert_eq!(facts("").path_form, PathForm::Raw);
}

fn forwarded(value: &str, trusted: Option<u32>) -> RemoteAddress {
    let attributes =
        format!(r#""request":{{"http":{{"headers":{{"x-forwarded-for":"{value}"}}}}}}"#);
    let options = Options {
        num_trusted_proxies: trusted,
        ..Options::default()
    };
    read_with(&with_peers(&attributes), &[], &options)
        .unwrap()
        .remote
}

#[test]
fn x_forwarded_for_is_counted_from_the_right() {
    let known = |text| RemoteAddress::Known(ip(text));
    let list = "203.0.113.1, 203.0.113.2,203.0.113.3";
    assert_eq!(forwarded(list, None), RemoteAddress::Unknown);
    assert_eq!(forwarded(list, Some(0)), known("10.0.0.9"));
    assert_eq!(forwarded(list, Some(1)), known("203.0.113.3"));
    assert_eq!(forwarded(list, Some(3)), known("203.0.113.1"));
    assert_eq!(forwarded(list, Some(4)), known("10.0.0.9"));
    assert_eq!(forwarded(list, Some(u32::MAX)), known("10.0.0.9"));
    // The peer that Envoy appended is not one of the proxies' entries.
    let appended = "203.0.113.1, 203.0.113.2, 10.0.0.9";
    assert_eq!(forwarded(appended, Some(1)), known("203.0.113.2"));
    assert_eq!(forwarded(appended, Some(2)), known("203.0.113.1"));
    assert_eq!(forwarded(appended, Some(3)), known("10.0.0.9"));
    // An entry that is no address is not skipped in favour of another.
    assert_eq!(
        forwarded("203.0.113.1, unknown", Some(1)),
        known("10.0.0.9")
    );
    assert_eq!(forwarded("2001:db8::5", Some(1)), known("2001:db8::5"));
}

#[test]
fn repeated_x_forwarded_for_headers_are_one_list() {
    let attributes = r#""request":{"http":{"headerMap":{"headers":[{"key":"X-Forwarded-For","rawValue":"MS4xLjEuMQ=="},
        {"key":"x-forwarded-for","value":"2.2.2.2"}]}}}"#;
    let options = Options {
        num_trusted_proxies: Some(2),
        ..Options::default()
    };
    let request = read_with(&with_peers(attributes), &[], &options).unwrap();
    assert_eq!(
        request.remote,
        RemoteAddress::Known(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)))
    );
}

#[test]
fn a_stated_remote_address_wins_over_the_header() {
    let attributes = r#""request":{"http":{"headers":{"x-forwarded-for":"1.1.1.1"}}}"#;
    let pair = [("x-portcullis-remote-address", "::1")];
    let request = stated(attributes, &pair).unwrap();
    assert_eq!(
        request.remote,
        RemoteAddress::Known(IpAddr::V6(Ipv6Addr::LOCALHOST))
    );
    assert_eq!(
        stated(attributes, &[]).unwrap().remote,
        RemoteAddress::Unknown
    );
}

#[test]
fn behind_proxy_protocol_both_addresses_are_kept() {
    let pair = [("x-portcullis-direct-address", "192.0.2.1")];
    let request = stated("", &pair).unwrap();
    assert_eq!(request.source.address, Some(ip("192.0.2.1")));
    assert_eq!(request.remote, RemoteAddress::Known(ip("10.0.0.9")));
}

#[test]
fn a_unix_peers_remote_address_is_none() {
    let read = |address: &str| {
        let attributes = format!(r#""source":{{"address":{address}}},"destination":{{}}"#);
        let pair = [("x-portcullis-remote-address", "/run/x.sock")];
        read_with(&attributes, &pair, &Options::default())
    };
    let pipe = read(r#"{"pipe":{"path":"/run/x.sock"}}"#).unwrap();
    assert_eq!(pipe.remote, RemoteAddress::None);
    assert!(read(r#"{"socketAddress":{"address":"10.0.0.9"}}"#).is_err());
}

#[test]
fn tcp_is_exactly_the_absence_of_http() {
    assert!(facts("").http.is_none());
    assert!(
        facts(r#""request":{"time":"2026-01-31T12:00:00Z"}"#)
            .http
            .is_none()
    );
    assert!(facts(r#""request":{"http":{}}"#).http.is_some());
}

#[test]
fn http_fields_are_envoys() {
    let http = http(r#""method":"GET","path":"/a?b=c","host":"x.example:8080","scheme":"https""#);
    assert_eq!(http.method, "GET");
    assert_eq!(http.path, "/a?b=c");
    assert_eq!(http.host, "x.example:8080");
    assert_eq!(http.scheme, "https");
    let host = ("host".to_owned(), "x.example:8080".to_owned());
    assert_eq!(http.headers.entries, [host]);
}

#[test]
fn pseudo_headers_fill_empty_fields_and_are_no_headers() {
    let headers = r#""headers":{":method":"PUT",":path":"/p",":authority":"h",":scheme":"http",":odd":"1","a":"b"}"#;
    let filled = http(headers);
    assert_eq!(
        (
            filled.method.as_str(),
            filled.path.as_str(),
            filled.host.as_str(),
            filled.scheme.as_str()
        ),
        ("PUT", "/p", "h", "http")
    );
    let names: Vec<_> = filled
        .headers
        .entries
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["a", "host"]);
    let kept = http(&format!(r#""path":"/own","method":"GET",{headers}"#));
    assert_eq!((kept.path.as_str(), kept.method.as_str()), ("/own", "GET"));
}

#[test]
fn host_and_authority_are_one() {
    let host = http(r#""headers":{"Host":"x"}"#);
    assert_eq!(host.host, "x");
    assert_eq!(host.headers.entries.len(), 1);
    let neither = http("");
    assert_eq!(
        (neither.host.as_str(), neither.headers.entries.len()),
        ("", 0)
    );
}

#[test]
fn a_header_map_is_exact_and_headers_are_merged() {
    let exact = http(
        r#""headerMap":{"headers":[{"key":"X-A","value":" 1\t"},{"key":"x-a","rawValue":"/2E="},{"key":"b","value":""}]},"headers":{"c":"d"}"#,
    );
    assert!(!exact.headers.merged);
    let expected = [("x-a", "1"), ("x-a", "\u{fffd}a"), ("b", "")];
    assert_eq!(
        exact.headers.entries,
        expected.map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    let merged = http(r#""headers":{"X-A":"\t1, 2 ","b":""},"headerMap":{}"#);
    assert!(merged.headers.merged);
    let expected = [("x-a", "1, 2"), ("b", "")];
    let mut entries = merged.headers.entries;
    entries.sort();
    let mut expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
    expected.sort();
    assert_eq!(entries, expected);
}

#[test]
fn a_megabyte_header_is_kept_whole() {
    let big = "a".repeat(1 << 20);
    let http = http(&format!(r#""path":"/{big}","headers":{{"x":"{big}"}}"#));
    assert_eq!(http.path.len(), (1 << 20) + 1);
    assert_eq!(http.headers.entries[0].1.len(), 1 << 20);
}

#[test]
fn sni_is_passed_on_as_sent() {
    assert_eq!(
        facts(r#""tlsSession":{"sni":"A.example"}"#).sni.as_deref(),
        Some("A.example")
    );
    assert_eq!(facts(r#""tlsSession":{}"#).sni, None);
    assert_eq!(facts("").sni, None);
}

#[test]
fn metadata_is_json_and_the_jwt_payload_is_found() {
    let payload = r#"{"sub":"u","n":1,"f":1.5,"big":1e300,"list":["a",{"b":[true,null]}]}"#;
    let attributes = format!(
        r#""metadataContext":{{"filterMetadata":{{"envoy.filters.http.jwt_authn":{{"payload":{payload}}},"other":{{"k":"v"}}}}}}"#
    );
    let request = facts(&attributes);
    let expected: serde_json::Value = serde_json::from_str(payload).unwrap();
    assert_eq!(request.jwt, Some(expected));
    assert_eq!(request.metadata["other"], serde_json::json!({"k": "v"}));
    assert_eq!(request.metadata.len(), 2);

    let text = attributes.replace(payload, r#""not an object""#);
    assert_eq!(facts(&text).jwt, None);
    let elsewhere = attributes.replace("jwt_authn", "other_authn");
    assert_eq!(facts(&elsewhere).jwt, None);
    assert!(facts("").metadata.is_empty());
}

#[test]
fn principals_are_the_peers_and_the_destinations() {
    let read = |source: &str, destination: &str| {
        let attributes = format!(r#""source":{{{source}}},"destination":{{{destination}}}"#);
        read_with(&attributes, &[], &Options::default()).unwrap()
    };
    let request = read(
        r#""principal":"spiffe://td/ns/foo/sa/a""#,
        r#""principal":"spiffe://td/ns/bar/sa/b""#,
    );
    let identity = Identity {
        kind: IdentityKind::Principal,
        value: "spiffe://td/ns/foo/sa/a".to_owned(),
    };
    assert_eq!(request.source.identities, [identity]);
    assert!(request.source.certificate_presented);
    assert_eq!(
        request.destination.principal.as_deref(),
        Some("spiffe://td/ns/bar/sa/b")
    );

    let request = read("", "");
    assert!(request.source.identities.is_empty() && !request.source.certificate_presented);
    assert_eq!(request.destination.principal, None);
}

#[test]
fn the_host_of_an_absolute_target_wins_over_the_host_header() {
    let fields = r#""request":{"http":{"path":"http://u@a.example:81/x","host":"b.example"}}"#;
    assert_eq!(facts(fields).http.unwrap().host, "a.example:81");
    let normalised = Options {
        path_form: PathForm::Normalised,
        ..Options::default()
    };
    let request = read_with(&with_peers(fields), &[], &normalised).unwrap();
    assert_eq!(request.http.unwrap().host, "b.example");
}
