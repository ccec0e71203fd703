//! Tokens verified by the server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse, HttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use portcullis_authz::check_request::from_json;
use portcullis_authz::server::{ListenerOptions, ServeOptions, TokensBy};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::support::*;

/// Signs with ES256.
pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap())
    }

    pub fn jwks(&self, usage: &str) -> String {
        let point = self.0.public_key().as_ref();
        let part = |range| URL_SAFE_NO_PAD.encode(&point[range]);
        let (x, y) = (part(1..33), part(33..65));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": usage, "kid": "one", "x": x, "y": y}]})
            .to_string()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "kid": "one", "typ": "JWT"});
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self
            .0
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// One issuer for workload foo/a, whose `sub` becomes a header; only its tokens may GET.
pub fn policies(jwks: &str) -> String {
    let authentication = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "foo"},
        "spec": {"jwtRules": [{
            "issuer": "me", "jwks": jwks,
            "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
        }]},
    });
    let authorization = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "foo"},
        "spec": {"action": "ALLOW", "rules": [
            {"from": [{"source": {"requestPrincipals": ["me/*"]}}]},
            {"to": [{"operation": {"paths": ["/open"]}}]},
            {"when": [{"key": "request.headers[x-user]", "values": ["root"]}]},
            {"from": [{"source": {"principals": ["example.org/ns/foo/sa/*"]}}]},
        ]},
    });
    let denials = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-mallory", "namespace": "foo"},
        "spec": {"action": "DENY", "rules": [
            {"from": [{"source": {"requestPrincipals": ["*/mallory"]}}]},
            {"when": [{"key": "experimental.envoy.filters.http.jwt_authn[x]", "values": ["y"]}]},
        ]},
    });
    format!("{authentication}\n---\n{authorization}\n---\n{denials}\n")
}

/// A GET of `path` with these headers, and what the proxy claims to know of its token.
pub fn request(path: &str, headers: &[(&str, &str)], claimed: Option<Value>) -> CheckRequest {
    let raw: Vec<Value> = headers
        .iter()
        .map(|(name, value)| json!({"key": name, "value": value}))
        .collect();
    let mut attributes = json!({
        "source": {"address": {"socketAddress": {"address": "10.0.0.9", "portValue": 40000}}},
        "destination": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 8080}}},
        "request": {"http": {
            "method": "GET", "path": path, "host": "a.foo", "scheme": "http",
            "headerMap": {"headers": raw},
        }},
    });
    if let Some(claimed) = claimed {
        attributes["metadataContext"] =
            json!({"filterMetadata": {"envoy.filters.http.jwt_authn": claimed}});
    }
    from_json(json!({"attributes": attributes}).to_string().as_bytes()).unwrap()
}

fn verifying() -> ListenerOptions {
    ListenerOptions {
        tokens: TokensBy::Us,
        ..tcp()
    }
}

async fn start(signer: &Signer, listeners: Vec<ListenerOptions>) -> (tempfile::TempDir, Running) {
    let text = policies(&signer.jwks("sig"));
    let folder = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &text)]);
    let running = Running::start(options(folder.path(), listeners)).await;
    (folder, running)
}

/// What the answer does to the request: `name=value`, `-name` or `?name`.
pub fn changes(response: &CheckResponse) -> Vec<String> {
    let Some(HttpResponse::OkResponse(ok)) = &response.http_response else {
        return Vec::new();
    };
    let set = ok
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref());
    let set = set.map(|header| format!("{}={}", header.key, header.value));
    let removed = ok.headers_to_remove.iter();
    let removed = removed.filter(|name| !name.starts_with("x-portcullis-"));
    let parameters = ok.query_parameters_to_remove.iter();
    set.chain(removed.map(|name| format!("-{name}")))
        .chain(parameters.map(|name| format!("?{name}")))
        .collect()
}

pub fn status(response: &CheckResponse) -> i32 {
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => denied.status.as_ref().unwrap().code,
        _ => 200,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_verifies_believes_signatures_alone() {
    let signer = Signer::new();
    let (_folder, running) = start(&signer, vec![verifying()]).await;
    let mut client = running.client().await;
    let bearer = |claims: Value| format!("Bearer {}", signer.sign(&claims));
    let alice = bearer(json!({"iss": "me", "sub": "alice"}));
    let root = bearer(json!({"iss": "me", "sub": "root"}));
    let mallory = bearer(json!({"iss": "me", "sub": "mallory"}));
    let stranger = bearer(json!({"iss": "other", "sub": "alice"}));
    let expired = bearer(json!({"iss": "me", "sub": "alice", "exp": 1}));
    let forged = format!(
        "Bearer {}",
        Signer::new().sign(&json!({"iss": "me", "sub": "alice"}))
    );
    let claimed = || Some(json!({"payload": {"iss": "me", "sub": "alice"}, "x": "y"}));
    let query = format!("/?access_token={}&a=b", alice.trim_start_matches("Bearer "));
    let both = format!("/?access_token={}", mallory.trim_start_matches("Bearer "));
    let auth = "authorization";
    for (name, request, expected, code) in [
        (
            "alice",
            request("/", &[(auth, &alice)], None),
            "allowed_by",
            200,
        ),
        (
            "in the query",
            request(&query, &[], None),
            "allowed_by",
            200,
        ),
        ("nobody", request("/", &[], None), "no_allow_matched", 403),
        (
            "nobody, where nobody need be",
            request("/open", &[], None),
            "allowed_by",
            200,
        ),
        (
            "mallory",
            request("/", &[(auth, &mallory)], None),
            "denied_by",
            403,
        ),
        (
            "another issuer",
            request("/open", &[(auth, &stranger)], None),
            "token_invalid",
            401,
        ),
        (
            "expired",
            request("/open", &[(auth, &expired)], None),
            "token_invalid",
            401,
        ),
        (
            "forged",
            request("/open", &[(auth, &forged)], None),
            "token_invalid",
            401,
        ),
        (
            "garbage",
            request("/open", &[(auth, "Bearer x")], None),
            "token_invalid",
            401,
        ),
        (
            "two, of which one is denied",
            request(&both, &[(auth, &alice)], None),
            "denied_by",
            403,
        ),
        (
            "twice the same place",
            request("/open", &[(auth, &alice), (auth, &alice)], None),
            "token_invalid",
            401,
        ),
        // What somebody says of a token, or of a header made of one, is not believed.
        (
            "payload by metadata",
            request("/", &[], claimed()),
            "no_allow_matched",
            403,
        ),
        (
            "payload beside a forged token",
            request("/open", &[(auth, &forged)], claimed()),
            "token_invalid",
            401,
        ),
        (
            "header of a claim",
            request("/", &[("x-user", "root")], None),
            "no_allow_matched",
            403,
        ),
        (
            "header of a claim, made by us",
            request("/", &[(auth, &root)], None),
            "allowed_by",
            200,
        ),
    ] {
        let response = client.check(tonic::Request::new(request)).await.unwrap();
        assert_eq!(
            (reason(&response).as_str(), status(&response)),
            (expected, code),
            "{name}"
        );
        if code == 401 {
            let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else {
                panic!("no denial");
            };
            let header = denied.headers[0].header.as_ref().unwrap();
            let expected = ("www-authenticate", r#"Bearer error="invalid_token""#);
            assert_eq!((header.key.as_str(), header.value.as_str()), expected);
        }
    }
    for (request, expected) in [
        (
            request("/", &[(auth, &alice)], None),
            vec!["x-user=alice", "-authorization"],
        ),
        (
            request(&query, &[], None),
            vec!["x-user=alice", "?access_token"],
        ),
        (
            request("/open", &[("x-user", "root")], None),
            vec!["-x-user"],
        ),
    ] {
        let response = client.check(tonic::Request::new(request)).await.unwrap();
        assert_eq!(changes(&response), expected);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_proxy_verifies_needs_the_payload_from_it() {
    let signer = Signer::new();
    let (_folder, running) = start(&signer, vec![tcp()]).await;
    let mut client = running.client().await;
    let alice = format!(
        "Bearer {}",
        signer.sign(&json!({"iss": "me", "sub": "alice"}))
    );
    let headers = [("authorization", alice.as_str())];
    let payload = Some(json!({"payload": {"iss": "me", "sub": "alice"}}));
    for (request, expected) in [
        (request("/open", &headers, None), "token_unverified"),
        (request("/", &headers, payload), "allowed_by"),
        (request("/", &[], None), "no_allow_matched"),
    ] {
        let response = client.check(tonic::Request::new(request)).await.unwrap();
        assert_eq!(reason(&response), expected);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_svid_is_a_principal_where_the_configuration_says_so() {
    let signer = Signer::new();
    let text = policies(&Signer::new().jwks("sig"));
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: strict, namespace: foo}\nspec: {mtls: {mode: STRICT}}\n";
    let bundle = signer.jwks("jwt-svid");
    let policies = folder(&[("inventory.yaml", INVENTORY), ("p.yaml", &text)]);
    let bundles = folder(&[("bundle.json", &bundle)]);
    let with_svids = |folder: &tempfile::TempDir| -> ServeOptions {
        let mut options = options(folder.path(), vec![verifying(), tcp()]);
        options.tokens.svids = Some(portcullis_authz::token::svid::Options {
            audiences: vec!["us".to_owned()],
            header: portcullis_policy::resource::HeaderLocation {
                name: "x-svid".to_owned(),
                prefix: String::new(),
            },
            forward: true,
            bundles: vec![portcullis_authz::token::svid::BundleSource::File {
                trust_domain: "example.org".to_owned(),
                path: bundles.path().join("bundle.json"),
            }],
        });
        options
    };
    let claims = |id: &str| json!({"sub": id, "aud": ["us"], "exp": 4_000_000_000u64});
    let good = signer.sign(&claims("spiffe://example.org/ns/foo/sa/b"));
    let other = signer.sign(&claims("spiffe://example.org/ns/bar/sa/b"));
    let forged = Signer::new().sign(&claims("spiffe://example.org/ns/foo/sa/b"));
    let running = Running::start(with_svids(&policies)).await;
    let mut client = running.client().await;
    for (token, expected) in [
        (&good, "allowed_by"),
        (&other, "no_allow_matched"),
        (&forged, "token_invalid"),
    ] {
        let request = request("/", &[("x-svid", token)], None);
        let response = client.check(tonic::Request::new(request)).await.unwrap();
        assert_eq!(reason(&response), expected);
    }
    // The listener whose proxy verifies does not look at it.
    let mut second = portcullis_authz::client::Client::connect(&running.endpoints[1])
        .await
        .unwrap();
    let response = second
        .check(tonic::Request::new(request(
            "/",
            &[("x-svid", &good)],
            None,
        )))
        .await
        .unwrap();
    assert_eq!(reason(&response), "no_allow_matched");
    running.stop().await;

    // It is no mutual TLS.
    std::fs::write(policies.path().join("strict.yaml"), strict).unwrap();
    let running = Running::start(with_svids(&policies)).await;
    let response = running
        .client()
        .await
        .check(tonic::Request::new(request(
            "/",
            &[("x-svid", &good)],
            None,
        )))
        .await
        .unwrap();
    assert_eq!(reason(&response), "mtls_required");
    let Some(Kind::StringValue(_)) = field(&response, "snapshot") else {
        panic!("no snapshot");
    };
    running.stop().await;
}
