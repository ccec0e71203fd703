//! Any text in the places where tokens are looked for: found or not, read or refused, never a panic,
//! and never valid, since nobody signed it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis_authz::token::jwks::{KeySet, Purpose, Signature};
use portcullis_authz::token::jws::Jws;
use portcullis_authz::token::{claims, crypto};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::request::{Headers, Http};
use portcullis_policy::request_authentication::{TokenRules, place};
use portcullis_policy::settings::Settings;

const POLICY: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: foo}
spec:
  jwtRules:
  - issuer: a
  - issuer: b
    fromHeaders: [{name: x-token}, {name: cookie, prefix: "t="}, {name: ":path", prefix: "p"}]
    fromParams: [t]
    fromCookies: [t]
"#;

/// The key of RFC 7515, appendix A.3.
const KEYS: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

static RULES: LazyLock<TokenRules> = LazyLock::new(|| {
    crypto::install();
    let documents = Documents {
        base: vec![SourceText {
            file: "tokens.yaml".into(),
            bytes: POLICY.as_bytes().into(),
        }],
        candidate: None,
    };
    let snapshot = compile(&documents, &Settings::default());
    let snapshot = snapshot.unwrap_or_else(|diagnostics| panic!("{diagnostics:?}"));
    let rules = TokenRules::combine(snapshot.policies().request_authentications());
    rules.unwrap_or_else(|| panic!("no rules"))
});
static SIGNER: LazyLock<KeySet> = LazyLock::new(|| {
    KeySet::parse(KEYS.as_bytes(), Purpose::Issuer).unwrap_or_else(|error| panic!("{error}"))
});

fuzz_target!(|input: &[u8]| {
    let rules = &*RULES;
    for purpose in [Purpose::Issuer, Purpose::JwtSvid] {
        let _ = KeySet::parse(input, purpose);
    }
    let text = String::from_utf8_lossy(input);
    token(&text);
    // The first line is the path, each further one a header.
    let mut lines = text.lines();
    let path = lines.next().unwrap_or_default().to_owned();
    let named = lines.filter_map(|line| line.split_once(':'));
    let http = Http {
        method: "GET".to_owned(),
        path,
        headers: Headers {
            entries: named
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            merged: input.len() % 2 == 0,
            ..Headers::default()
        },
        ..Http::default()
    };
    let mut present = false;
    for provider in rules.providers() {
        for found in place::tokens(&provider.rule, &http) {
            present = true;
            if let Some(text) = &found.text {
                token(text);
            }
            let mut without = http.clone();
            place::remove(&mut without, &found.place);
            let cookie = matches!(found.place, place::Place::Cookie(_));
            let pseudo = matches!(&found.place, place::Place::Header(name) if name.starts_with(':'));
            let again = place::tokens(&provider.rule, &without);
            assert!(
                cookie || pseudo || again.iter().all(|other| other.place != found.place),
                "a token that was taken out is still there"
            );
        }
    }
    assert_eq!(
        present,
        rules.token_present(&http),
        "what is found and what must be verified are the same"
    );
});

fn token(text: &str) {
    let Ok(token) = Jws::parse(text) else {
        return;
    };
    assert_eq!(text.matches('.').count(), 2);
    let _ = claims::check_time(&token.payload, std::time::UNIX_EPOCH, std::time::Duration::ZERO);
    let _ = claims::check_audience(&token.payload, ["a"]);
    // The RFC's own example is a seed.
    if !text.ends_with("Kg6NU1Q") {
        assert_ne!(SIGNER.verify(&token), Signature::Valid, "nobody signed it");
    }
}
