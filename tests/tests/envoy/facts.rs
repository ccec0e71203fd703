//! What Envoy really puts into a `CheckRequest`: the facts that the engine's reading of it rests on.

use envoy_types::ext_authz::v3::pb::{Address, CheckRequest};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer};
use envoy_types::pb::google::protobuf::value::Kind;
use portcullis_tests::authority::Names;
use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service, jwt_authn};
use portcullis_tests::stub::{Asked, Stub};
use portcullis_tests::token::Signer;
use serde_json::json;

use crate::setting::{Front, Identities, WEB, envoy};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

fn http(asked: &Asked) -> &HttpRequest {
    asked
        .request
        .attributes
        .as_ref()
        .unwrap()
        .request
        .as_ref()
        .unwrap()
        .http
        .as_ref()
        .unwrap()
}

fn source(request: &CheckRequest) -> &Peer {
    request
        .attributes
        .as_ref()
        .unwrap()
        .source
        .as_ref()
        .unwrap()
}

fn ip(peer: &Peer) -> &str {
    match peer.address.as_ref().unwrap().address.as_ref().unwrap() {
        Address::SocketAddress(socket) => &socket.address,
        other => panic!("{other:?}"),
    }
}

/// One header's values in the order sent, from the raw list.
fn raw<'a>(request: &'a HttpRequest, name: &str) -> Vec<&'a [u8]> {
    let headers = &request.header_map.as_ref().unwrap().headers;
    headers
        .iter()
        .filter(|header| header.key == name)
        .map(|header| header.raw_value.as_slice())
        .collect()
}

#[test]
fn http_facts_arrive_as_the_engine_reads_them() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("facts-http");
    let identities = Identities::new();
    let signer = Signer::new().unwrap();
    let stub = Stub::start().unwrap();
    let merged = ExtAuthz {
        raw_headers: false,
        certificate: false,
        ..ExtAuthz::default()
    };
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(stub.address),
        vec![
            Listener::http("mtls")
                .tls(&identities.authority, &identities.server)
                .normalisation("BASE")
                .extension("portcullis.workload", "shop/web")
                .filter(jwt_authn(&signer.jwks()))
                .filter(ExtAuthz::default().http()),
            Listener::http("plain").filter(merged.http()),
        ],
    );

    let mut client = identities.workload(front.address("mtls"), CLIENT);
    client.source = Some("127.1.2.3".parse().unwrap());
    client.sni = Some("web.shop.example".into());
    let token = signer
        .sign(&json!({ "iss": "issuer", "sub": "alice" }))
        .unwrap();
    let asked = Exchange::get("/a/../b%61?q=1#part")
        .header("x-tag", "one")
        .header("x-tag", "two, three")
        .header("authorization", &format!("Bearer {token}"));
    assert_eq!(client.send(&asked).unwrap().status, 200);
    assert_eq!(client.send(&Exchange::get("/deny")).unwrap().status, 403);

    let first = stub.asked().remove(0);
    let attributes = first.request.attributes.as_ref().unwrap();
    assert_eq!(source(&first.request).principal, CLIENT);
    assert_eq!(ip(source(&first.request)), "127.1.2.3");
    assert!(
        source(&first.request)
            .certificate
            .starts_with("-----BEGIN%20CERTIFICATE-----")
    );
    assert_eq!(attributes.destination.as_ref().unwrap().principal, WEB);
    assert_eq!(
        attributes.tls_session.as_ref().unwrap().sni,
        "web.shop.example"
    );
    assert_eq!(
        attributes.context_extensions["portcullis.workload"],
        "shop/web"
    );
    assert_eq!(
        first.metadata.get("x-portcullis-remote-address").unwrap(),
        "127.1.2.3"
    );
    assert_eq!(
        http(&first).path,
        "/ba?q=1",
        "normalised, with the query, without the fragment"
    );
    assert_eq!(
        raw(http(&first), "x-tag"),
        [b"one".as_slice(), b"two, three"],
        "repeats stay apart"
    );
    let metadata = &attributes
        .metadata_context
        .as_ref()
        .unwrap()
        .filter_metadata;
    let payload = &metadata["envoy.filters.http.jwt_authn"].fields["payload"];
    let Some(Kind::StructValue(payload)) = &payload.kind else {
        panic!("{payload:?}")
    };
    assert_eq!(
        payload.fields["sub"].kind,
        Some(Kind::StringValue("alice".into()))
    );

    let mut client = Client::plain(front.address("plain"));
    client.source = Some("127.9.9.9".parse().unwrap());
    let asked = Exchange::get("/a/../b")
        .header("x-tag", "one")
        .header("x-tag", "two");
    assert_eq!(client.send(&asked).unwrap().status, 200);
    let last = stub.asked().pop().unwrap();
    assert_eq!(
        source(&last.request).principal,
        "",
        "no identity without TLS"
    );
    assert_eq!(
        http(&last).headers["x-tag"],
        "one,two",
        "merged without encode_raw_headers"
    );
    assert_eq!(http(&last).path, "/a/../b", "not normalised");
}

#[test]
fn a_certificate_with_many_names_carries_them_only_as_a_whole() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("facts-certificate");
    let identities = Identities::new();
    let stub = Stub::start().unwrap();
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(stub.address),
        vec![
            Listener::http("mtls")
                .tls(&identities.authority, &identities.server)
                .filter(ExtAuthz::default().http()),
        ],
    );
    let names = Names {
        uris: vec!["spiffe://a/ns/x/sa/y".into(), "spiffe://b/ns/x/sa/y".into()],
        dns: vec!["client.example".into()],
        common_name: Some("client".into()),
    };
    let client = identities.client(front.address("mtls"), &names);
    assert_eq!(client.send(&Exchange::get("/")).unwrap().status, 200);
    let asked = stub.asked().pop().unwrap();
    assert_eq!(
        source(&asked.request).principal,
        "spiffe://a/ns/x/sa/y",
        "the first URI only"
    );

    let anonymous = identities.anonymous(front.address("mtls"));
    assert_eq!(anonymous.send(&Exchange::get("/")).unwrap().status, 200);
    let asked = stub.asked().pop().unwrap();
    assert_eq!(source(&asked.request).principal, "");
    assert_eq!(source(&asked.request).certificate, "");
}

#[test]
fn tcp_facts_arrive_and_a_denial_closes_the_connection() {
    let Some(executable) = envoy() else { return };
    let folder = run_folder("facts-tcp");
    let identities = Identities::new();
    let stub = Stub::start().unwrap();
    let settings = ExtAuthz {
        metadata: vec![("x-portcullis-workload".into(), "shop/db".into())],
        ..ExtAuthz::default()
    };
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(stub.address),
        vec![
            Listener::tcp("tcp")
                .tls(&identities.authority, &identities.server)
                .filter(settings.network()),
        ],
    );
    let mut client = identities.workload(front.address("tcp"), CLIENT);
    client.sni = Some("db.shop.example".into());
    assert_eq!(client.echo("hello").unwrap(), "hello");
    let asked = stub.asked().pop().unwrap();
    let attributes = asked.request.attributes.as_ref().unwrap();
    assert_eq!(source(&asked.request).principal, CLIENT);
    assert!(
        attributes
            .request
            .as_ref()
            .is_none_or(|request| request.http.is_none()),
        "no HTTP on TCP"
    );
    assert_eq!(
        attributes.tls_session.as_ref().unwrap().sni,
        "db.shop.example"
    );
    assert_eq!(
        asked.metadata.get("x-portcullis-workload").unwrap(),
        "shop/db"
    );

    client.sni = Some("deny.shop.example".into());
    assert_eq!(
        client.echo("hello").unwrap(),
        "",
        "closed before the upstream answered"
    );
}
