//! Tokens that we verify, side by side with those that Envoy's own jwt_authn filter verifies, set up as
//! istiod sets it up: the same requests, the same verdicts, the same headers for the workload.

use portcullis_tests::client::{Answer, Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use portcullis_tests::token::Signer;
use serde_json::{Value, json};

use crate::setting::{Front, PORTCULLIS, envoy, pod};

/// Headers that the workload would get.
const SEEN: [&str; 6] = [
    "authorization",
    "x-user",
    "x-level",
    "x-groups",
    "x-payload",
    ":path",
];

/// The rules, ordered by issuer as istiod orders them.
fn rules(one: &Signer, two: &Signer) -> Value {
    json!([
        {
            "issuer": "https://one", "audiences": ["us", "https://shop/"], "jwks": one.jwks().to_string(),
            "outputPayloadToHeader": "x-payload",
            "outputClaimToHeaders": [
                {"header": "x-user", "claim": "sub"}, {"header": "x-level", "claim": "a.level"},
                {"header": "x-groups", "claim": "groups"},
            ],
        },
        {
            "issuer": "https://two", "jwks": two.jwks().to_string(), "forwardOriginalToken": true,
            "fromHeaders": [{"name": "x-token"}, {"name": "authorization", "prefix": "Two "}],
            "fromParams": ["t"], "fromCookies": ["session"],
        },
    ])
}

/// convertToEnvoyJwtConfig of istio:pilot/pkg/security/authn/policy_applier.go.
fn jwt_authn(rules: &Value) -> Value {
    let mut providers = json!({});
    let (mut any, mut all) = (Vec::new(), Vec::new());
    for (index, rule) in rules.as_array().unwrap().iter().enumerate() {
        let name = format!("origins-{index}");
        let list = |key: &str| rule.get(key).cloned().unwrap_or(json!([]));
        let headers: Vec<Value> = list("fromHeaders")
            .as_array()
            .unwrap()
            .iter()
            .map(|h| json!({"name": h["name"], "value_prefix": h.get("prefix").unwrap_or(&json!(""))}))
            .collect();
        let claims: Vec<Value> = list("outputClaimToHeaders")
            .as_array()
            .unwrap()
            .iter()
            .map(|c| json!({"header_name": c["header"], "claim_name": c["claim"]}))
            .collect();
        let mut provider = json!({
            "issuer": rule["issuer"],
            "audiences": list("audiences"),
            "local_jwks": {"inline_string": rule["jwks"]},
            "from_headers": headers,
            "from_params": list("fromParams"),
            "from_cookies": list("fromCookies"),
            "forward": rule.get("forwardOriginalToken").unwrap_or(&json!(false)),
            "claim_to_headers": claims,
            "payload_in_metadata": "payload",
        });
        if let Some(header) = rule.get("outputPayloadToHeader") {
            provider["forward_payload_header"] = header.clone();
        }
        providers[&name] = provider;
        any.push(json!({"provider_name": name}));
        all.push(json!({"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}}));
    }
    any.push(json!({"requires_all": {"requirements": all}}));
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": providers,
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": any}}}],
            "bypass_cors_preflight": true,
        },
    })
}

/// A listener that answers with the headers that a workload behind it would get.
fn telling(name: &str) -> Listener {
    let told: Vec<Value> = SEEN
        .iter()
        .map(|header| {
            let key = format!("seen-{}", header.trim_start_matches(':'));
            json!({"header": {"key": key, "value": format!("%REQ({header})%")}})
        })
        .collect();
    let route = json!({
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
    });
    Listener::http(name).normalisation("BASE").manager(
        "route_config",
        json!({
            "response_headers_to_add": told,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        }),
    )
}

fn seen(answer: &Answer) -> Vec<&str> {
    SEEN.iter()
        .map(|header| {
            let name = format!("seen-{}", header.trim_start_matches(':'));
            answer.header(&name).unwrap_or("-")
        })
        .collect()
}

/// What the two sides must have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Same {
    /// Verdict, and headers where it is an allow.
    All,
    /// Both refuse; Envoy says 403 to a token for another audience, we say 401 to every invalid one.
    Refusal,
    /// Envoy lets pass what is one valid token beside another text; we do not: which of them the
    /// workload reads nobody knows.
    OnlyEnvoyAllows,
}

#[test]
fn our_verdicts_on_tokens_are_those_of_envoys_own_filter() {
    let Some(executable) = envoy() else {
        return;
    };
    let (one, two, thief) = (
        Signer::new().unwrap(),
        Signer::new().unwrap(),
        Signer::new().unwrap(),
    );
    let rules = rules(&one, &two);
    let folder = run_folder("tokens-side-by-side");
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "shop"}, "spec": {"jwtRules": rules},
    });
    let manifests = [
        ("tokens.json", &*policy.to_string()),
        ("pods.yaml", &*pod("shop", "web")),
    ];
    let config = json!({"listener": {"tokens": "verify"}});
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let ext_authz = ExtAuthz {
        metadata: vec![("x-portcullis-workload".into(), "shop/web".into())],
        ..ExtAuthz::default()
    };
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(server.address),
        vec![
            telling("envoy").filter(jwt_authn(&rules)),
            telling("ours").filter(ext_authz.http()),
        ],
    );
    let sides = ["envoy", "ours"].map(|side| Client::plain(front.address(side)));

    let of = |signer: &Signer, claims: Value| signer.sign(&claims).unwrap();
    let claims = |changes: Value| {
        let mut claims = json!({
            "iss": "https://one", "sub": "alice", "aud": ["us"], "exp": 4_000_000_000u64,
            "a": {"level": 7}, "groups": ["x", "y"],
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let good = of(&one, claims(json!({})));
    let second = of(&two, json!({"iss": "https://two", "sub": "bob"}));
    let bearer =
        |token: &str| Exchange::get("/a").header("authorization", &format!("Bearer {token}"));
    let with = |changes: Value| bearer(&of(&one, claims(changes)));
    let param = |name: &str, token: &str| Exchange::get(&format!("/a?x=1&{name}={token}&y=2"));
    let longer = format!("{good}x");
    let tampered = {
        let mut octets = good.clone().into_bytes();
        let at = octets.len() - 40;
        octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(octets).unwrap()
    };
    let mut cases = vec![
        ("no token", Exchange::get("/a"), Same::All),
        ("good", bearer(&good), Same::All),
        (
            "good, in the query",
            param("access_token", &good),
            Same::All,
        ),
        (
            "good, with an escaped name",
            param("access%5ftoken", &good),
            Same::All,
        ),
        (
            "second, by header",
            Exchange::get("/a").header("x-token", &second),
            Same::All,
        ),
        (
            "second, by prefix",
            Exchange::get("/a").header("authorization", &format!("Two {second}")),
            Same::All,
        ),
        ("second, in the query", param("t", &second), Same::All),
        (
            "second, by cookie",
            Exchange::get("/a").header("cookie", &format!("a=b; session={second}")),
            Same::All,
        ),
        (
            "second, by quoted cookie",
            Exchange::get("/a").header("cookie", &format!("session=\"{second}\"; a=b")),
            Same::All,
        ),
        (
            "both good",
            bearer(&good).header("x-token", &second),
            Same::All,
        ),
        (
            "claims forged as headers",
            Exchange::get("/a")
                .header("x-user", "root")
                .header("x-payload", "e30"),
            Same::All,
        ),
        (
            "claims forged beside a token",
            bearer(&good).header("x-user", "root"),
            Same::All,
        ),
        (
            "lower-case scheme is no token",
            Exchange::get("/a").header("authorization", &format!("bearer {good}")),
            Same::All,
        ),
        (
            "basic is no token",
            Exchange::get("/a").header("authorization", "Basic YTpi"),
            Same::All,
        ),
        (
            "prefix after something",
            Exchange::get("/a").header("authorization", &format!("x Bearer {good}")),
            Same::All,
        ),
        (
            "two spaces",
            Exchange::get("/a").header("authorization", &format!("Bearer  {good}")),
            Same::All,
        ),
        (
            "a comma after it",
            Exchange::get("/a").header("authorization", &format!("Bearer {good},")),
            Same::All,
        ),
        (
            "a word after it",
            Exchange::get("/a").header("authorization", &format!("Bearer {good} y")),
            Same::All,
        ),
        (
            "quoted",
            Exchange::get("/a").header("authorization", &format!("Bearer \"{good}\"")),
            Same::All,
        ),
        (
            "a tab",
            Exchange::get("/a").header("authorization", &format!("Bearer \t{good}")),
            Same::All,
        ),
        (
            "a tab after it",
            Exchange::get("/a").header("authorization", &format!("Bearer {good}\ty")),
            Same::All,
        ),
        (
            "semicolon",
            Exchange::get("/a").header("authorization", &format!("Bearer {good};x")),
            Same::All,
        ),
        (
            "equals in front",
            Exchange::get("/a").header("authorization", &format!("Bearer ={good}")),
            Same::All,
        ),
        (
            "another cookie",
            Exchange::get("/a").header("cookie", "other=x"),
            Same::All,
        ),
        (
            "preflight",
            bearer("garbage")
                .method("OPTIONS")
                .header("origin", "https://a")
                .header("access-control-request-method", "GET"),
            Same::All,
        ),
        (
            "options alone",
            bearer("garbage").method("OPTIONS"),
            Same::All,
        ),
        ("garbage", bearer("garbage"), Same::All),
        (
            "empty",
            Exchange::get("/a").header("authorization", "Bearer "),
            Same::All,
        ),
        (
            "empty in the query",
            Exchange::get("/a?access_token="),
            Same::All,
        ),
        (
            "empty cookie",
            Exchange::get("/a").header("cookie", "session="),
            Same::All,
        ),
        ("tampered", bearer(&tampered), Same::All),
        ("longer signature", bearer(&longer), Same::OnlyEnvoyAllows),
        (
            "other key",
            bearer(&of(&thief, claims(json!({})))),
            Same::All,
        ),
        (
            "other issuer",
            with(json!({"iss": "https://other"})),
            Same::All,
        ),
        (
            "no issuer",
            bearer(&of(&one, json!({"aud": "us"}))),
            Same::All,
        ),
        (
            "second's token at the first's place",
            bearer(&second),
            Same::All,
        ),
        (
            "first's token at the second's place",
            Exchange::get("/a").header("x-token", &good),
            Same::All,
        ),
        ("expired", with(json!({"exp": 1_000_000})), Same::All),
        ("not yet", with(json!({"nbf": 4_000_000_000u64})), Same::All),
        (
            "no exp",
            bearer(&of(&one, json!({"iss": "https://one", "aud": "us"}))),
            Same::All,
        ),
        (
            "exp is a text",
            with(json!({"exp": "4000000000"})),
            Same::All,
        ),
        ("audience as text", with(json!({"aud": "us"})), Same::All),
        (
            "audience without scheme",
            with(json!({"aud": "shop"})),
            Same::All,
        ),
        (
            "audience among others",
            with(json!({"aud": ["x", "http://shop"]})),
            Same::All,
        ),
        (
            "other audience",
            with(json!({"aud": "other"})),
            Same::Refusal,
        ),
        (
            "no audience",
            bearer(&of(&one, json!({"iss": "https://one"}))),
            Same::Refusal,
        ),
        ("sub is a number", with(json!({"sub": 1})), Same::All),
        (
            "claim is a flag",
            with(json!({"a": {"level": true}})),
            Same::All,
        ),
        (
            "claim is a text",
            with(json!({"a": {"level": "high"}})),
            Same::All,
        ),
        ("claim is missing", with(json!({"a": 1})), Same::All),
        (
            "good, and garbage elsewhere",
            bearer(&good).header("x-token", "garbage"),
            Same::OnlyEnvoyAllows,
        ),
        (
            "good, and garbage in the query",
            Exchange::get("/a?access_token=garbage")
                .header("authorization", &format!("Bearer {good}")),
            Same::All,
        ),
        (
            "twice",
            bearer(&good).header("authorization", &format!("Bearer {good}")),
            Same::All,
        ),
    ];
    // RFC 7515 appendix A.5: not signed.
    cases.push((
        "none",
        bearer("eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL29uZSIsImF1ZCI6InVzIn0."),
        Same::All,
    ));

    let mut wrong = Vec::new();
    for (name, exchange, same) in &cases {
        let [envoy, ours] = sides
            .each_ref()
            .map(|client| client.send(exchange).unwrap());
        let ok = match same {
            Same::All if envoy.status == 200 => ours.status == 200 && seen(&envoy) == seen(&ours),
            Same::All => envoy.status == 401 && ours.status == 401,
            Same::Refusal => envoy.status == 403 && ours.status == 401,
            Same::OnlyEnvoyAllows => envoy.status == 200 && ours.status == 401,
        };
        if !ok {
            wrong.push(format!(
                "{name}: envoy {} {:?}, ours {} {:?}",
                envoy.status,
                seen(&envoy),
                ours.status,
                seen(&ours)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
