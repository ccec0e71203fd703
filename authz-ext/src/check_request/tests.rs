use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;

use super::*;

fn read(json: &str) -> CheckRequest {
    from_json(json.as_bytes()).unwrap()
}

#[track_caller]
fn refused(json: &str, words: &str) {
    let error = from_json(json.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, words);
}

fn port(request: &CheckRequest) -> Option<u32> {
    let peer = request.attributes.as_ref()?.destination.as_ref()?;
    match peer.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(socket) => match socket.port_specifier.as_ref()? {
            PortSpecifier::PortValue(port) => Some(*port),
            PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}

#[test]
fn camel_case_and_snake_case_are_the_same_request() {
    let camel = read(
        r#"{"attributes":{"destination":{"address":{"socketAddress":{"address":"10.0.0.1","portValue":8080}}},
        "request":{"http":{"headerMap":{"headers":[{"key":"a","rawValue":"Yg=="}]}}},
        "contextExtensions":{"portcullis.workload":"foo/a"},"tlsSession":{"sni":"x"},
        "metadataContext":{"filterMetadata":{"f":{"k":[1,"a",null,{"b":true}]}}}}}"#,
    );
    let snake = read(
        r#"{"attributes":{"destination":{"address":{"socket_address":{"address":"10.0.0.1","port_value":"8080"}}},
        "request":{"http":{"header_map":{"headers":[{"key":"a","raw_value":"Yg=="}]}}},
        "context_extensions":{"portcullis.workload":"foo/a"},"tls_session":{"sni":"x"},
        "metadata_context":{"filter_metadata":{"f":{"k":[1,"a",null,{"b":true}]}}}}}"#,
    );
    assert_eq!(camel, snake);
    assert_eq!(port(&camel), Some(8080));
    let http = camel.attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!(http.header_map.unwrap().headers[0].raw_value, b"b");
}

#[test]
fn numbers_times_and_null_have_their_protobuf_json_forms() {
    let request = read(
        r#"{"attributes":{"request":{"time":"2026-01-31T12:00:00.5Z","http":{"size":"12"}},"source":null}}"#,
    );
    let attributes = request.attributes.unwrap();
    assert!(attributes.source.is_none());
    let request = attributes.request.unwrap();
    assert_eq!(request.time.unwrap().nanos, 500_000_000);
    assert_eq!(request.http.unwrap().size, 12);
    assert_eq!(
        read(r#"{"attributes":{"request":{"http":{"size":-1}}}}"#)
            .attributes
            .unwrap()
            .request
            .unwrap()
            .http
            .unwrap()
            .size,
        -1
    );
}

#[test]
fn typed_metadata_of_any_type_is_passed_over() {
    let known = r#"{"attributes":{"metadataContext":{"typedFilterMetadata":{"f":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{}}}}}}"#;
    assert!(from_json(known.as_bytes()).is_ok());
    let unknown = known.replace("google.protobuf.Struct", "acme.Unheard");
    let request = from_json(unknown.as_bytes()).unwrap();
    assert!(request.attributes.unwrap().metadata_context.is_some());
}

#[test]
fn an_unknown_field_is_named_with_the_nearest() {
    refused(
        r#"{"attributes":{"sorce":{}}}"#,
        "unknown field `sorce` in `attributes`; did you mean `source`?",
    );
    refused(
        r#"{"atributes":{}}"#,
        "unknown field `atributes`; did you mean `attributes`?",
    );
    refused(
        r#"{"attributes":{"request":{"http":{"verb":"GET"}}}}"#,
        "unknown field `verb` in `attributes.request.http`; known are `id`, `method`, `headers`, `path`, `host`, `scheme`, `query`, `fragment`, `size`, `protocol`, `body`, `rawBody`, `headerMap`",
    );
}

#[test]
fn a_wrong_type_is_named_with_its_path() {
    refused(
        r#"{"attributes":{"request":{"http":{"headers":{"a":1}}}}}"#,
        "`attributes.request.http.headers[\"a\"]` must be a string, found `1`",
    );
    refused(
        r#"{"attributes":{"source":{"address":{"socketAddress":{"portValue":"http"}}}}}"#,
        "`attributes.source.address.socketAddress.portValue` must be a number from 0 to 4294967295, found the string `http`",
    );
    refused(
        r#"{"attributes":{"request":{"http":{"headerMap":{"headers":[{"key":"a"},7]}}}}}"#,
        "`attributes.request.http.headerMap.headers[1]` must be an object, found `7`",
    );
    refused(
        r#"{"attributes":{"metadataContext":{"filterMetadata":{"f":"x"}}}}"#,
        "`attributes.metadataContext.filterMetadata[\"f\"]` must be an object, found the string `x`",
    );
    refused("[]", "a `CheckRequest` is an object, found a list");
    refused(
        "\"x\"",
        "a `CheckRequest` is an object, found the string `x`",
    );
}

#[test]
fn what_is_no_json_says_where() {
    for (json, words) in [
        ("{", "not JSON: the object does not end on this line"),
        ("{} {}", "not JSON: trailing characters at line 1 column 4"),
        ("hello", "not JSON: expected value at line 1 column 1"),
        (
            "{\"attributes\":{\"source\":{\"principal\":\"\u{0}\"}}}",
            "not JSON: control character",
        ),
    ] {
        let error = from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
    let error = from_json(b"{\"attributes\":{\"source\":{\"principal\":\"\xff\"}}}").unwrap_err();
    assert!(
        error.to_string().starts_with("not JSON: invalid unicode"),
        "{error}"
    );
}

#[test]
fn a_value_that_only_protobuf_refuses_is_named_too() {
    for json in [
        r#"{"attributes":{"request":{"time":"yesterday"}}}"#,
        r#"{"attributes":{"source":{"address":{"pipe":{"path":"/a"},"socketAddress":{}}}}}"#,
        r#"{"attributes":{"request":{"http":{"rawBody":"%"}}}}"#,
        r#"{"attributes":{"source":{"address":{"socketAddress":{"portValue":1.5}}}}}"#,
    ] {
        let error = from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("not a `CheckRequest`: "), "{error}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    for depth in [90, 200, 200_000] {
        let list = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let json = format!(
            r#"{{"attributes":{{"metadataContext":{{"filterMetadata":{{"f":{{"k":{list}}}}}}}}}}}"#
        );
        assert!(from_json(json.as_bytes()).is_err(), "{depth}");
    }
}

#[test]
fn a_bad_line_does_not_stop_the_next() {
    let input =
        b"{\"attributes\":{}}\n\n  \r\nnonsense\n\xff\n\xef\xbb\xbf{}\r\n{\"attributes\":{}}"
            .as_slice();
    let seen: Vec<_> = lines(input)
        .map(|line| (line.number, line.request.is_ok()))
        .collect();
    assert_eq!(
        seen,
        [(1, true), (4, false), (5, false), (6, true), (7, true)]
    );
}

#[test]
fn an_overlong_line_is_passed_over() {
    let long = format!("{{\"x\":\"{}\"}}", "a".repeat(1000));
    let text = format!("{{}}\n{long}\n{{}}\n{long}");
    let mut lines = lines(io::BufReader::with_capacity(16, text.as_bytes()));
    lines.limit = 100;
    let seen: Vec<_> = lines
        .map(|line| {
            (
                line.number,
                line.request.map_err(|error| error.to_string()).err(),
            )
        })
        .collect();
    let words = Some("the line is longer than 100 bytes".to_owned());
    assert_eq!(seen, [(1, None), (2, words.clone()), (3, None), (4, words)]);
}

#[test]
fn a_megabyte_path_and_header_are_read() {
    let big = "a".repeat(1 << 20);
    let json = format!(
        r#"{{"attributes":{{"request":{{"http":{{"path":"/{big}","headers":{{"x":"{big}"}}}}}}}}}}"#
    );
    let line = lines(json.as_bytes()).next().unwrap();
    let http = line
        .request
        .unwrap()
        .attributes
        .unwrap()
        .request
        .unwrap()
        .http
        .unwrap();
    assert_eq!(
        (http.path.len(), http.headers["x"].len()),
        ((1 << 20) + 1, 1 << 20)
    );
}

#[test]
fn an_input_that_fails_ends_with_its_error() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    let mut lines = lines(io::BufReader::new(Broken));
    let error = lines.next().unwrap().request.unwrap_err();
    assert_eq!(error.to_string(), "cannot read requests: gone");
    assert!(lines.next().is_none());
}
