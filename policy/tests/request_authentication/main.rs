//! Where a real Envoy sees a token.
//!
//! `envoy.jsonl` holds random requests, made for this project, and what Envoy 1.40.0 answered with a
//! `jwt_authn` filter configured as istiod configures it: no token in them verifies, so 401 means that
//! one was seen, and 200 that none was. It is a sample of 12,000, on all of which the two agreed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use portcullis_policy::diagnostic::Location;
use portcullis_policy::request::{Headers, Http};
use portcullis_policy::request_authentication::TokenRules;
use portcullis_policy::resource::{
    HeaderLocation, JwtRule, Located, Metadata, RequestAuthentication,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Case {
    rules: Vec<Places>,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    status: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Places {
    headers: Vec<(String, String)>,
    params: Vec<String>,
    cookies: Vec<String>,
}

fn located(value: &str) -> Located<String> {
    Located {
        value: value.to_owned(),
        at: Location::default(),
    }
}

impl Places {
    fn rule(&self) -> JwtRule {
        JwtRule {
            issuer: located("issuer"),
            audiences: Vec::new(),
            jwks_uri: None,
            jwks: None,
            from_headers: self
                .headers
                .iter()
                .map(|(name, prefix)| HeaderLocation {
                    name: name.clone(),
                    prefix: prefix.clone(),
                })
                .collect(),
            from_params: self.params.iter().map(|param| located(param)).collect(),
            from_cookies: self.cookies.iter().map(|cookie| located(cookie)).collect(),
            output_payload_to_header: None,
            output_claim_to_headers: Vec::new(),
            forward_original_token: false,
            timeout: None,
            space_delimited_claims: Vec::new(),
        }
    }
}

impl Case {
    fn http(&self) -> Http {
        let trimmed = |value: &str| value.trim_matches([' ', '\t']).to_owned();
        let mut entries: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), trimmed(value)))
            .collect();
        let host = entries
            .iter()
            .find(|(name, _)| name == "host")
            .map(|(_, value)| value.clone());
        entries.retain(|(name, _)| name != "host");
        Http {
            method: self.method.clone(),
            path: self.path.clone(),
            host: host.unwrap_or_else(|| "web.foo".to_owned()),
            scheme: "http".to_owned(),
            headers: Headers {
                entries,
                merged: false,
                ..Headers::default()
            },
        }
    }
}

#[test]
fn a_token_is_seen_where_envoy_sees_it() {
    let mut seen = 0;
    let mut unseen = 0;
    for line in include_str!("envoy.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let policy = RequestAuthentication {
            meta: Metadata::default(),
            selector: None,
            target_refs: Vec::new(),
            jwt_rules: case.rules.iter().map(Places::rule).collect(),
        };
        let rules = TokenRules::combine([&policy]).unwrap();
        let mut http = case.http();
        assert_eq!(rules.token_present(&http), case.status == 401, "{case:?}");
        // Joined headers may hide where one ends: never a token less.
        http.headers = merged(&http.headers);
        assert!(
            case.status != 401 || rules.token_present(&http),
            "merged: {case:?}"
        );
        *if case.status == 401 {
            &mut seen
        } else {
            &mut unseen
        } += 1;
    }
    assert!(seen > 150 && unseen > 150, "{seen} {unseen}");
}

/// What Envoy's `headers` map makes of repeats.
fn merged(headers: &Headers) -> Headers {
    let mut entries: Vec<(String, String)> = Vec::new();
    for (name, value) in &headers.entries {
        match entries.iter_mut().find(|(merged, _)| merged == name) {
            Some((_, merged)) => {
                merged.push(',');
                merged.push_str(value);
            }
            None => entries.push((name.clone(), value.clone())),
        }
    }
    Headers {
        entries,
        merged: true,
        ..Headers::default()
    }
}
