//! CUSTOM providers that the server asks, over gRPC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::ext_authz::v3::pb::{HttpResponse, OkHttpResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::server::{ListenerOptions, ServeError, Server, TokensBy};
use portcullis_policy::settings::CustomProvider;
use serde_json::json;
use tokio::net::TcpListener;

use super::custom_provider::*;
use super::support::*;
use super::tokens::{Signer, changes, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_provider_is_asked_where_its_rule_matches_and_its_answer_folded_in() {
    let provider = grpc(
        Duration::ZERO,
        Arc::new(|request| {
            let http = request
                .attributes
                .as_ref()
                .unwrap()
                .request
                .as_ref()
                .unwrap();
            let http = http.http.as_ref().unwrap();
            Ok(match http.headers.get("x-ticket").map(String::as_str) {
                Some("good") => allowed(OkHttpResponse {
                    headers: vec![
                        header("x-from-provider", "hello"),
                        header("x-portcullis-workload", "bad"),
                    ],
                    headers_to_remove: vec!["X-Ticket".to_owned()],
                    response_headers_to_add: vec![header("set-cookie", "a=b")],
                    ..OkHttpResponse::default()
                }),
                Some("denied later") => allowed(OkHttpResponse {
                    headers: vec![header("x-from-provider", "deny me")],
                    ..OkHttpResponse::default()
                }),
                _ => denied(
                    302,
                    vec![
                        header("location", "https://login"),
                        header("set-cookie", "a=1"),
                        header("set-cookie", "b=2"),
                    ],
                    "go there",
                ),
            })
        }),
    )
    .await;
    let (_folder, running) = start(&grpc_provider(provider.address, json!({}))).await;

    let response = check(&running, "/free", &[]).await;
    assert_eq!(reason(&response), "no_allow_policy");
    assert_eq!(provider.asked.lock().unwrap().len(), 0);

    let response = check(
        &running,
        "/asked",
        &[("x-ticket", "good"), ("cookie", "c=d")],
    )
    .await;
    assert_eq!(reason(&response), "custom_allowed");
    assert_eq!(changes(&response), ["x-from-provider=hello", "-x-ticket"]);
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else {
        panic!("no ok response");
    };
    assert_eq!(
        ok.response_headers_to_add[0].header.as_ref().unwrap().key,
        "set-cookie"
    );
    let asked = provider
        .asked
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .clone()
        .attributes
        .unwrap();
    let http = asked.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str()),
        ("GET", "/asked", "a.foo")
    );
    assert_eq!(http.headers["cookie"], "c=d");
    assert_eq!(http.headers[":path"], "/asked");

    let response = check(&running, "/asked", &[]).await;
    assert_eq!(
        (reason(&response).as_str(), status(&response)),
        ("custom_denied", 302)
    );
    let Some(HttpResponse::DeniedResponse(denied)) = &response.http_response else {
        panic!("no denied response");
    };
    let names: Vec<&str> = denied
        .headers
        .iter()
        .map(|h| h.header.as_ref().unwrap().key.as_str())
        .collect();
    assert_eq!(names, ["location", "set-cookie", "set-cookie"]);
    assert_eq!(denied.body, "go there");

    // It cannot override a DENY, and what it adds is what the rules after it see.
    let response = check(&running, "/asked/never", &[("x-ticket", "good")]).await;
    assert_eq!(reason(&response), "denied_by");
    let response = check(&running, "/asked", &[("x-ticket", "denied later")]).await;
    assert_eq!(reason(&response), "denied_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_provider_s_entry_decides() {
    let slow = grpc(
        Duration::from_secs(10),
        Arc::new(|_| Ok(allowed(OkHttpResponse::default()))),
    )
    .await;
    let broken = grpc(
        Duration::ZERO,
        Arc::new(|_| Err(tonic::Status::internal("broken"))),
    )
    .await;
    let odd = grpc(
        Duration::ZERO,
        Arc::new(|_| {
            let mut odd = denied(403, Vec::new(), "");
            odd.status = Some(RpcStatus::default());
            Ok(odd)
        }),
    )
    .await;
    let nobody: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let closed = "custom_provider_unavailable";
    for (name, address, more, expected, code) in [
        (
            "slow",
            slow.address,
            json!({"timeout": "0.1s"}),
            closed,
            403,
        ),
        (
            "slow, open",
            slow.address,
            json!({"timeout": "0.1s", "failOpen": true}),
            "custom_allowed",
            200,
        ),
        (
            "slow, status",
            slow.address,
            json!({"timeout": "0.1s", "statusOnError": "503"}),
            closed,
            503,
        ),
        ("broken", broken.address, json!({}), closed, 403),
        (
            "broken, open",
            broken.address,
            json!({"failOpen": true}),
            "custom_allowed",
            200,
        ),
        ("odd", odd.address, json!({}), closed, 403),
        ("nobody", nobody, json!({}), closed, 403),
        (
            "nobody, open",
            nobody,
            json!({"failOpen": true}),
            "custom_allowed",
            200,
        ),
    ] {
        let (_folder, running) = start(&grpc_provider(address, more)).await;
        let started = std::time::Instant::now();
        let response = check(&running, "/asked", &[]).await;
        assert_eq!(
            (reason(&response).as_str(), status(&response)),
            (expected, code),
            "{name}"
        );
        assert!(started.elapsed() < Duration::from_secs(4), "{name}");
        // Open is the provider's answer alone.
        assert_eq!(
            reason(&check(&running, "/asked/never", &[]).await) == "denied_by",
            code == 200
        );
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_unknown_or_not_configured_denies_what_it_would_decide() {
    let known = grpc_provider("127.0.0.1:1".parse().unwrap(), json!({}));
    for (providers, way) in [
        (json!([]), Some(CustomProvider::Call)),
        (
            json!([{"name": "ext", "zipkin": {"service": "a", "port": 1}}]),
            Some(CustomProvider::Call),
        ),
        (
            json!([{"name": "ext", "envoyExtAuthzGrpc": {}}]),
            Some(CustomProvider::Call),
        ),
        (known, None),
    ] {
        let folder = folder(&[
            ("inventory.yaml", INVENTORY),
            ("p.yaml", &policies(&providers)),
        ]);
        let mut options = options(folder.path(), vec![tcp()]);
        options
            .settings
            .custom_providers
            .extend(way.map(|way| ("ext".to_owned(), way)));
        let running = Running::start(options).await;
        let response = check(&running, "/asked", &[]).await;
        assert_eq!(
            reason(&response),
            "custom_provider_unavailable",
            "{providers}"
        );
        assert_eq!(
            reason(&check(&running, "/free", &[]).await),
            "no_allow_policy"
        );
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_portcullis_can_be_the_provider() {
    let other = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &allow("/asked/yes")),
    ]);
    let provider = Running::start(options(other.path(), vec![tcp()])).await;
    let Endpoint::Tcp(address) = provider.endpoints[0].clone() else {
        panic!("not TCP");
    };
    let (_folder, running) = start(&grpc_provider(address, json!({}))).await;
    assert_eq!(
        reason(&check(&running, "/asked/yes", &[]).await),
        "custom_allowed"
    );
    assert_eq!(
        reason(&check(&running, "/asked/no", &[]).await),
        "custom_denied"
    );
    provider.stop().await;
    assert_eq!(
        reason(&check(&running, "/asked/yes", &[]).await),
        "custom_provider_unavailable"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_itself_is_refused_at_start_and_by_any_way_round() {
    // A port that is free a moment later.
    let port = free_port();
    for (listen, service) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "localhost"),
        ("127.0.0.1", "foo/localhost"),
    ] {
        let providers = json!([{"name": "ext", "envoyExtAuthzGrpc": {"service": service, "port": port, "failOpen": true}}]);
        let folder = folder(&[
            ("inventory.yaml", INVENTORY),
            ("p.yaml", &policies(&providers)),
        ]);
        let listener = ListenerOptions::new("tcp", format!("{listen}:{port}").parse().unwrap());
        let error = Server::start(serve(&folder, CustomProvider::Call, listener))
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(error, ServeError::Loop(_)), "{error}");
        assert!(error.to_string().contains("`self`"), "{error}");
    }

    // A reload brings the loop in: closed, though the provider would fail open.
    let providers =
        json!([{"name": "other", "envoyExtAuthzGrpc": {"service": "127.0.0.1", "port": 1}}]);
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &policies(&providers)),
    ]);
    let mut running = Running::start(serve(&folder, CustomProvider::Call, tcp())).await;
    let Endpoint::Tcp(own) = running.endpoints[0].clone() else {
        panic!("not TCP");
    };
    let providers = grpc_provider(own, json!({"failOpen": true}));
    std::fs::write(folder.path().join("p.yaml"), policies(&providers)).unwrap();
    running
        .until("a second snapshot", |status| status.succeeded > 1)
        .await;
    assert_eq!(
        reason(&check(&running, "/asked", &[]).await),
        "custom_provider_unavailable"
    );
    running.stop().await;

    // Somebody else hands the question back: seen, and closed.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let providers = grpc_provider(relay.local_addr().unwrap(), json!({}));
    let (_folder, running) = start(&providers).await;
    let Endpoint::Tcp(own) = running.endpoints[0].clone() else {
        panic!("not TCP");
    };
    let relaying = tokio::spawn(async move {
        loop {
            let (mut stream, _) = relay.accept().await.unwrap();
            tokio::spawn(async move {
                let mut back = tokio::net::TcpStream::connect(own).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut back).await;
            });
        }
    });
    let started = std::time::Instant::now();
    let response = check(&running, "/asked", &[]).await;
    // Our own refusal comes back as the provider's denial.
    assert_eq!(reason(&response), "custom_denied");
    assert!(started.elapsed() < Duration::from_secs(3));
    relaying.abort();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_may_bring_the_token_that_is_verified_next() {
    let signer = Arc::new(Signer::new());
    let minting = Arc::clone(&signer);
    let provider = grpc(
        Duration::ZERO,
        Arc::new(move |_| {
            let token = minting.sign(&json!({"iss": "me", "sub": "alice"}));
            Ok(allowed(OkHttpResponse {
                headers: vec![header("authorization", &format!("Bearer {token}"))],
                ..OkHttpResponse::default()
            }))
        }),
    )
    .await;
    let text = super::tokens::policies(&signer.jwks("sig"));
    let providers = policies(&grpc_provider(provider.address, json!({})));
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &text),
        ("q.yaml", &providers),
    ]);
    let listener = ListenerOptions {
        tokens: TokensBy::Us,
        ..tcp()
    };
    let running = Running::start(serve(&folder, CustomProvider::Call, listener)).await;
    let response = check(&running, "/asked", &[("authorization", "Bearer forged")]).await;
    assert_eq!(reason(&response), "allowed_by");
    assert_eq!(changes(&response), ["x-user=alice", "-authorization"]);
    // Where no rule asks it, the client's own token counts.
    let response = check(&running, "/other", &[("authorization", "Bearer forged")]).await;
    assert_eq!(reason(&response), "token_invalid");
    running.stop().await;
}
