//! What a caller is told that gets nothing (SPIFFE Workload Endpoint §3, §6; Workload API §4.5, §5, §6).

use portcullis_ca::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_ca::proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use portcullis_ca::wire::Limits;
use tonic::{Code, Request, Status};

use super::server::{Server, soon};

fn check(status: &Status, code: Code, says: &str) {
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(says), "{status}");
}

#[tokio::test]
async fn calls_without_the_exact_security_header_are_refused() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = SpiffeWorkloadApiClient::new(server.channel().await);
    for values in [
        &[][..],
        &["True"],
        &["TRUE"],
        &["false"],
        &["true", "true"],
        &[""],
    ] {
        let with = |request: &mut Request<X509svidRequest>| {
            for value in values {
                let value = value.parse().unwrap();
                request.metadata_mut().append("workload.spiffe.io", value);
            }
        };
        let mut request = Request::new(X509svidRequest {});
        with(&mut request);
        let status = soon(client.fetch_x509svid(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{values:?}");
        assert_eq!(status.message(), "security header missing from request");
    }
    let mut request = Request::new(X509svidRequest {});
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    soon(client.fetch_x509svid(request)).await.unwrap();
}

#[tokio::test]
async fn every_method_asks_for_the_security_header() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = SpiffeWorkloadApiClient::new(server.channel().await);
    let refusals = [
        client.fetch_x509svid(X509svidRequest {}).await.err(),
        client.fetch_x509_bundles(X509BundlesRequest {}).await.err(),
        client.fetch_jwtsvid(JwtsvidRequest::default()).await.err(),
        client.fetch_jwt_bundles(JwtBundlesRequest {}).await.err(),
        client
            .validate_jwtsvid(ValidateJwtsvidRequest::default())
            .await
            .err(),
        client.fetch_witsvid(WitsvidRequest::default()).await.err(),
        client.fetch_wit_bundles(WitBundlesRequest {}).await.err(),
    ];
    for refusal in refusals {
        check(
            &refusal.unwrap(),
            Code::InvalidArgument,
            "security header missing from request",
        );
    }
}

#[tokio::test]
async fn a_caller_without_an_entry_has_no_identity() {
    let server = Server::start().await;
    server
        .fake
        .entry_for("unix:uid:4000000000", "spiffe://example.org/other");
    let mut client = server.client().await;
    let audience = vec!["a".to_owned()];
    let refusals = [
        soon(client.fetch_x509svid(X509svidRequest {})).await.err(),
        soon(client.fetch_x509_bundles(X509BundlesRequest {}))
            .await
            .err(),
        soon(client.fetch_jwt_bundles(JwtBundlesRequest {}))
            .await
            .err(),
        soon(client.fetch_jwtsvid(JwtsvidRequest {
            audience,
            spiffe_id: String::new(),
        }))
        .await
        .err(),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert_eq!(refusal.message(), "no identity issued");
    }
}

#[tokio::test]
async fn wit_svids_and_unknown_methods_are_unimplemented() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let refusal = client
        .fetch_witsvid(WitsvidRequest::default())
        .await
        .unwrap_err();
    check(&refusal, Code::Unimplemented, "WIT-SVIDs are not served");
    let refusal = client
        .fetch_wit_bundles(WitBundlesRequest {})
        .await
        .unwrap_err();
    check(&refusal, Code::Unimplemented, "WIT-SVIDs are not served");
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let path = "/SpiffeWorkloadAPI/FetchEverything".parse().unwrap();
    let mut request = Request::new(X509svidRequest {});
    request
        .metadata_mut()
        .insert("workload.spiffe.io", "true".parse().unwrap());
    let codec = tonic_prost::ProstCodec::<X509svidRequest, X509svidRequest>::default();
    let refusal = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unimplemented);
}

#[tokio::test]
async fn bad_arguments_are_named() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let many: Vec<&str> = vec!["a"; 65];
    let long = format!("spiffe://example.org/{}", "x".repeat(2049));
    for (audience, id, code, says) in [
        (
            &[][..],
            "",
            Code::InvalidArgument,
            "audience must be specified",
        ),
        (
            &[""],
            "",
            Code::InvalidArgument,
            "audience must be specified",
        ),
        (
            &["a", ""],
            "",
            Code::InvalidArgument,
            "one of them is empty",
        ),
        (&many, "", Code::InvalidArgument, "at most 64"),
        (
            &["a"],
            "example.org/a",
            Code::InvalidArgument,
            "does not start with `spiffe://`",
        ),
        (
            &["a"],
            "spiffe://example.org/a/",
            Code::InvalidArgument,
            "empty segment",
        ),
        (
            &["a"],
            "spiffe://example.org/a?b",
            Code::InvalidArgument,
            "`?`",
        ),
        (
            &["a"],
            "spiffe://",
            Code::InvalidArgument,
            "invalid requested SPIFFE ID",
        ),
        (&["a"], &long, Code::InvalidArgument, "at most 2048"),
        (
            &["a"],
            "spiffe://example.org/b",
            Code::PermissionDenied,
            "no identity issued: the caller is not entitled to `spiffe://example.org/b`",
        ),
    ] {
        let refusal = client
            .fetch_jwtsvid(JwtsvidRequest {
                audience: audience.iter().map(|one| (*one).to_owned()).collect(),
                spiffe_id: id.to_owned(),
            })
            .await
            .unwrap_err();
        check(&refusal, code, says);
    }
    for (audience, svid, says) in [
        ("", "x for a", "audience must be specified"),
        ("a", "", "svid must be specified"),
        ("b", "spiffe://example.org/a for a", "for somebody else"),
    ] {
        let refusal = client
            .validate_jwtsvid(ValidateJwtsvidRequest {
                audience: audience.to_owned(),
                svid: svid.to_owned(),
            })
            .await
            .unwrap_err();
        check(&refusal, Code::InvalidArgument, says);
    }
}

#[tokio::test]
async fn an_oversized_message_exhausts_resources_and_says_the_limit() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let svid = "x".repeat(300 << 10);
    let refusal = client
        .validate_jwtsvid(ValidateJwtsvidRequest {
            audience: "a".to_owned(),
            svid,
        })
        .await
        .unwrap_err();
    check(&refusal, Code::ResourceExhausted, "the limit is: 262144");
}

#[tokio::test]
async fn what_cannot_be_signed_now_is_unavailable() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    server.fake.unavailable(true);
    let mut client = server.client().await;
    let refusal = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap_err();
    check(&refusal, Code::Unavailable, "the journal cannot be written");
}

#[tokio::test]
async fn a_user_with_too_many_streams_gets_no_more_until_one_is_closed() {
    let limits = Limits {
        open_files: 20,
        open_files_per_user: 12,
        calls_per_user: 3,
    };
    let server = Server::with(|options| options.limits = limits).await;
    server.fake.entry("spiffe://example.org/a");
    let mut client = server.client().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.fetch_x509svid(X509svidRequest {}).await.unwrap());
    }
    let refusal = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap_err();
    check(&refusal, Code::Unavailable, "close some");
    open.pop();
    soon(async {
        while client.fetch_x509svid(X509svidRequest {}).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn reflection_needs_no_header_and_names_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let mut ask = async |request| {
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await;
        let answer = answers.unwrap().into_inner().message().await.unwrap();
        answer.unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list of services");
    };
    let names: Vec<String> = list.service.into_iter().map(|one| one.name).collect();
    assert!(names.contains(&"SpiffeWorkloadAPI".to_owned()), "{names:?}");
    assert!(
        names.contains(&"envoy.service.secret.v3.SecretDiscoveryService".to_owned()),
        "{names:?}"
    );
    let symbol = MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".to_owned());
    assert!(matches!(
        ask(symbol).await,
        MessageResponse::FileDescriptorResponse(_)
    ));
}
