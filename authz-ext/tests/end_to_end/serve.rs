//! Answers, health, reflection, shutdown.

use std::os::unix::fs::PermissionsExt as _;

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse, HttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use portcullis_authz::client::{self, Client};
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::grpc::SERVICE_NAME;
use portcullis_authz::server::{ListenerOptions, ServeError, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::support::*;

fn policies() -> tempfile::TempDir {
    folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &allow("/public"))])
}

async fn health(endpoint: &Endpoint, service: &str) -> Result<ServingStatus, tonic::Code> {
    let mut client = HealthClient::new(client::channel(endpoint).await.unwrap());
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = client
        .check(request)
        .await
        .map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn decides_over_tcp_and_unix_each_with_its_own_options() {
    let folder = policies();
    let socket = folder.path().join("authz.sock");
    let mut unix = ListenerOptions::new("unix", Endpoint::Unix(socket.clone()));
    unix.socket_mode = 0o600;
    unix.respond.debug_headers = true;
    let running = Running::start(options(folder.path(), vec![tcp(), unix])).await;
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    for (endpoint, debug) in running.endpoints.iter().zip([false, true]) {
        let mut client = Client::connect(endpoint).await.unwrap();
        let allowed = client
            .check(tonic::Request::new(get("/public")))
            .await
            .unwrap();
        assert_eq!(allowed.status.as_ref().unwrap().code, 0);
        assert_eq!(reason(&allowed), "allowed_by");
        let Some(Kind::ListValue(policies)) = field(&allowed, "policies") else {
            panic!("no policies");
        };
        assert_eq!(
            policies.values[0].kind,
            Some(Kind::StringValue("foo/p#rule[0]".to_owned()))
        );
        let Some(HttpResponse::OkResponse(ok)) = allowed.http_response else {
            panic!("no ok response");
        };
        assert_eq!(ok.headers.is_empty(), !debug);
        let denied = client
            .check(tonic::Request::new(get("/secret")))
            .await
            .unwrap();
        assert_eq!(denied.status.as_ref().unwrap().code, 7);
        assert_eq!(reason(&denied), "no_allow_matched");
        let Some(HttpResponse::DeniedResponse(denied)) = denied.http_response else {
            panic!("no denied response");
        };
        assert_eq!(denied.status.unwrap().code, 403);
    }
    running.stop().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_names_the_destination() {
    let folder = policies();
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    let mut client = running.client().await;
    let mut elsewhere = get("/public");
    elsewhere.attributes.as_mut().unwrap().destination = None;
    let mut request = tonic::Request::new(elsewhere.clone());
    request
        .metadata_mut()
        .insert("x-portcullis-workload", "foo/a".parse().unwrap());
    let response = client.check(request).await.unwrap();
    assert_eq!(reason(&response), "allowed_by");
    let response = client.check(tonic::Request::new(elsewhere)).await.unwrap();
    assert_eq!(reason(&response), "invalid_request");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_snapshot() {
    let folder = policies();
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    for service in ["", SERVICE_NAME] {
        assert_eq!(
            health(&running.endpoints[0], service).await,
            Ok(ServingStatus::Serving)
        );
    }
    let unknown = health(&running.endpoints[0], "no.such.Service").await;
    assert_eq!(unknown, Err(tonic::Code::NotFound));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_everything_is_denied_and_nothing_serves() {
    let folder = folder(&[]);
    let path = folder.path().join("policies");
    let mut running = Running::start(options(&path, vec![tcp()])).await;
    let endpoint = running.endpoints[0].clone();
    assert_eq!(
        ask(&mut running.client().await, "/public").await,
        "no_snapshot"
    );
    assert_eq!(health(&endpoint, "").await, Ok(ServingStatus::NotServing));
    let error = running.status.borrow().last_error.clone().unwrap();
    assert_eq!(error, format!("`{}` does not exist", path.display()));

    // The watch goes on: the folder may come later.
    let mut watch = HealthClient::new(client::channel(&endpoint).await.unwrap());
    let mut states = watch
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        states.next().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    let ready = tempfile::tempdir_in(folder.path()).unwrap();
    std::fs::write(ready.path().join("i.yaml"), INVENTORY).unwrap();
    std::fs::write(ready.path().join("p.yaml"), allow("/public")).unwrap();
    std::fs::rename(ready.keep(), &path).unwrap();
    running
        .until("the folder is read", |status| status.revision.is_some())
        .await;
    assert_eq!(
        ask(&mut running.client().await, "/public").await,
        "allowed_by"
    );
    let next = within("health changes", states.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.status(), ServingStatus::Serving);
    // Reflection and health streams that stay open do not hold up the end.
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_and_describes_the_services() {
    use tonic_reflection::pb::{v1, v1alpha};
    let folder = policies();
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    let expected = [
        "envoy.service.auth.v3.Authorization",
        "grpc.health.v1.Health",
    ];
    macro_rules! reflect {
        ($version:ident) => {{
            use $version::server_reflection_request::MessageRequest;
            use $version::server_reflection_response::MessageResponse;
            let channel = client::channel(&running.endpoints[0]).await.unwrap();
            let mut client =
                $version::server_reflection_client::ServerReflectionClient::new(channel);
            let requests = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol("envoy.service.auth.v3.CheckRequest".into()),
                MessageRequest::FileByFilename("google/protobuf/struct.proto".into()),
            ];
            let requests = requests.map(|request| $version::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(request),
            });
            let stream = tokio_stream::iter(requests);
            let answers = client
                .server_reflection_info(stream)
                .await
                .unwrap()
                .into_inner();
            let answers: Vec<_> = answers
                .map(|answer| answer.unwrap().message_response.unwrap())
                .collect()
                .await;
            let MessageResponse::ListServicesResponse(list) = &answers[0] else {
                panic!("{:?}", answers[0]);
            };
            let names: Vec<_> = list
                .service
                .iter()
                .map(|service| service.name.as_str())
                .collect();
            assert!(
                expected.iter().all(|name| names.contains(name)),
                "{names:?}"
            );
            for answer in &answers[1..] {
                assert!(
                    matches!(answer, MessageResponse::FileDescriptorResponse(_)),
                    "{answer:?}"
                );
            }
        }};
    }
    reflect!(v1);
    reflect!(v1alpha);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let folder = policies();
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    let taken = running.endpoints[0].clone();
    let listener = ListenerOptions::new("second", taken.clone());
    let error = Server::start(options(folder.path(), vec![listener]))
        .await
        .unwrap_err();
    assert!(matches!(&error, ServeError::Bind { endpoint, .. } if *endpoint == taken));
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot listen on `{taken}`: ")),
        "{error}"
    );
    let error = Server::start(options(folder.path(), vec![]))
        .await
        .unwrap_err();
    assert!(matches!(error, ServeError::NoListener));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_nobody_answers() {
    let folder = policies();
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    let endpoint = running.endpoints[0].clone();
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    running.stop().await;
    let error = client::check(&endpoint, get("/public")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot connect to `{endpoint}`")),
        "{error}"
    );
}

/// A check whose headers have arrived and whose message has not is open when the server is told to end.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_request_is_answered_after_the_stop() {
    let folder = policies();
    let running = Running::start(options(folder.path(), vec![tcp()])).await;
    let channel = client::channel(&running.endpoints[0]).await.unwrap();
    let (send, message) = tokio::sync::oneshot::channel::<CheckRequest>();
    let (into, body) = tokio::sync::mpsc::channel(1);
    let body = tokio_stream::wrappers::ReceiverStream::new(body);
    tokio::spawn(async move { into.send(message.await.unwrap()).await });
    let open = tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = format!("/{SERVICE_NAME}/Check").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
        let answer = grpc
            .client_streaming(tonic::Request::new(body), path, codec)
            .await;
        answer.map(tonic::Response::into_inner)
    });
    // The headers are on their way before the message: the server has the stream when another request
    // of the same server has been answered.
    let mut other = running.client().await;
    for _ in 0..20 {
        other
            .check(tonic::Request::new(get("/public")))
            .await
            .unwrap();
    }
    let endpoint = running.endpoints[0].clone();
    let stop = tokio::spawn(running.stop());
    let refused = async { while client::channel(&endpoint).await.is_ok() {} };
    within("nobody accepts any more", refused).await;
    assert!(!stop.is_finished(), "ended before the open request");
    send.send(get("/public")).unwrap();
    let answer = within("an answer", open).await.unwrap().unwrap();
    assert_eq!(answer.status.unwrap().code, 0);
    within("the end", stop).await.unwrap();
}

/// gRPC C-core, which is Envoy's `google_grpc` too, names the socket's path as `:authority`.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_the_socket_as_authority_is_served() {
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }
    let folder = policies();
    let socket = folder.path().join("a.sock");
    let listener = ListenerOptions::new("unix", Endpoint::Unix(socket.clone()));
    let running = Running::start(options(folder.path(), vec![listener])).await;
    for authority in ["tmp%2Fauthz%2Fa.sock", "/tmp/authz/a.sock"] {
        // `:method: POST`, `:scheme: http`, then literals without Huffman coding (RFC 7541 §6.2.2).
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (":authority", authority),
            (":path", "/grpc.health.v1.Health/Check"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        octets.extend(frame(4, 0, 0, &[]));
        octets.extend(frame(1, 4, 1, &block));
        octets.extend(frame(0, 1, 1, &[0; 5]));
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&octets).await.unwrap();
        let (mut answer, mut buffer) = (Vec::<u8>::new(), [0; 1024]);
        // HealthCheckResponse { status: SERVING }, length-prefixed.
        let serving = [0, 0, 0, 0, 2, 8, 1];
        while !answer.windows(serving.len()).any(|w| w == serving) {
            let read = within("an answer", stream.read(&mut buffer)).await.unwrap();
            assert_ne!(read, 0, "`{authority}`: closed after {answer:?}");
            answer.extend(&buffer[..read]);
            let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1];
            assert!(
                !answer.windows(reset.len()).any(|w| w == reset),
                "`{authority}`: reset"
            );
        }
    }
    running.stop().await;
}
