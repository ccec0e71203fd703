//! What the workload gets of a token.

use portcullis_policy::request_authentication::place::Place;

use super::super::output::{Changes, apply};
use super::signer::{Signer, base64};
use super::*;
use crate::check::HeaderChange;

async fn check(rule: Value, claims: Value, mut http: Http) -> (Changes, Http) {
    let signer = Signer::p256("k");
    let mut rule = rule;
    rule["issuer"] = json!("https://issuer");
    rule["jwks"] = json!(signer.jwks());
    let mut claims = claims;
    claims["iss"] = json!("https://issuer");
    let token = signer.sign(&claims);
    for (_, value) in &mut http.headers.entries {
        *value = value.replace("TOKEN", &token);
    }
    http.path = http.path.replace("TOKEN", &token);
    let rules = rules(&json!([rule]));
    let valid = match verifier(&[], Lifetimes::default())
        .verify(&rules, &http)
        .await
    {
        Outcome::Valid(valid) => valid,
        Outcome::Absent => Vec::new(),
        Outcome::Invalid(error) => panic!("{error}"),
    };
    let changes = apply(&rules, &valid, &mut http);
    (changes, http)
}

fn set(name: &str, value: &str) -> HeaderChange {
    HeaderChange::Set {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn remove(name: &str) -> HeaderChange {
    HeaderChange::Remove {
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn a_token_is_taken_out_unless_it_is_forwarded() {
    let headers = [("authorization", "Bearer TOKEN"), ("x", "1")];
    let (changes, seen) = check(json!({}), json!({}), http("/a?b=c", &headers)).await;
    assert_eq!(changes.headers, [remove("authorization")]);
    assert_eq!(seen, http("/a?b=c", &[("x", "1")]));

    let (changes, seen) = check(json!({}), json!({}), http("/a?access_token=TOKEN&b=c", &[])).await;
    assert_eq!(
        (changes.headers, changes.parameters),
        (vec![], vec!["access_token".to_owned()])
    );
    assert_eq!(seen.path, "/a?b=c");

    let forward = json!({"forwardOriginalToken": true});
    let (changes, seen) = check(forward, json!({}), http("/", &headers)).await;
    assert_eq!(changes, Changes::default());
    assert_eq!(seen.headers.entries.len(), 2);

    let cookie = json!({"fromCookies": ["t"]});
    let (changes, seen) = check(cookie, json!({}), http("/", &[("cookie", "a=b; t=TOKEN")])).await;
    assert_eq!(
        (changes, seen.headers.entries.len()),
        (Changes::default(), 1)
    );
    assert_eq!(Place::Cookie("t".to_owned()).to_string(), "cookie `t`");
}

#[tokio::test]
async fn claims_become_headers_and_replace_what_the_client_sent() {
    let rule = json!({
        "forwardOriginalToken": true,
        "outputPayloadToHeader": "X-Payload",
        "outputClaimToHeaders": [
            {"header": "X-Sub", "claim": "sub"}, {"header": "x-nested", "claim": "a.b"},
            {"header": "x-number", "claim": "n"}, {"header": "x-flag", "claim": "f"},
            {"header": "x-list", "claim": "l"}, {"header": "x-missing", "claim": "none"},
            {"header": "x-evil", "claim": "evil"}, {"header": "x-null", "claim": "null"},
        ],
    });
    let claims = json!({
        "sub": "alice", "a": {"b": "c"}, "n": 7, "f": true, "l": ["x"], "null": null,
        "evil": "a\r\nx-admin: true",
    });
    let forged = [
        ("authorization", "Bearer TOKEN"),
        ("x-sub", "root"),
        ("x-sub", "root2"),
        ("x-missing", "forged"),
        ("x-evil", "forged"),
        ("x-payload", "forged"),
        ("x-other", "kept"),
    ];
    let (changes, seen) = check(rule.clone(), claims, http("/", &forged)).await;
    let payload = changes
        .headers
        .iter()
        .find(|change| change.name() == "x-payload");
    let Some(HeaderChange::Set { value, .. }) = payload else {
        panic!("{payload:?}");
    };
    let sent: Value = serde_json::from_slice(&super::signer::unbase64(value)).unwrap();
    assert_eq!(sent["sub"], "alice");
    let rest: Vec<&HeaderChange> = changes
        .headers
        .iter()
        .filter(|change| change.name() != "x-payload")
        .collect();
    assert_eq!(
        rest,
        [
            &set("x-sub", "alice"),
            &set("x-nested", "c"),
            &set("x-number", "7"),
            &set("x-flag", "true"),
            &set("x-list", "WyJ4Il0="),
            &remove("x-evil"),
            &remove("x-missing"),
            &remove("x-null"),
        ]
    );
    let value = |name: &str| -> Vec<&str> {
        let entries = seen
            .headers
            .entries
            .iter()
            .filter(|(entry, _)| entry == name);
        entries.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(value("x-sub"), ["alice"]);
    assert_eq!((value("x-missing").len(), value("x-evil").len()), (0, 0));
    assert_eq!(value("x-other"), ["kept"]);

    // Without a token, too, nobody but us makes these headers.
    let (changes, seen) = check(rule, json!({}), http("/", &forged[1..])).await;
    assert_eq!(changes.headers.len(), 9);
    assert!(
        changes
            .headers
            .iter()
            .all(|change| matches!(change, HeaderChange::Remove { .. }))
    );
    assert_eq!(seen, http("/", &[("x-other", "kept")]));
    assert_eq!(base64("x"), "eA");
}
