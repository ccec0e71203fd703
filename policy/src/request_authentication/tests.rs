use super::*;
use crate::diagnostic::Location;
use crate::request::Headers;
use crate::resource::{HeaderLocation, Located, Metadata};

fn located(value: &str) -> Located<String> {
    Located {
        value: value.to_owned(),
        at: Location::default(),
    }
}

fn rule(issuer: &str) -> JwtRule {
    JwtRule {
        issuer: located(issuer),
        audiences: Vec::new(),
        jwks_uri: None,
        jwks: None,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claim_to_headers: Vec::new(),
        forward_original_token: false,
        timeout: None,
        space_delimited_claims: Vec::new(),
    }
}

fn policy(name: &str, jwt_rules: Vec<JwtRule>) -> RequestAuthentication {
    RequestAuthentication {
        meta: Metadata {
            name: name.into(),
            namespace: "foo".into(),
            ..Metadata::default()
        },
        selector: None,
        target_refs: Vec::new(),
        jwt_rules,
    }
}

fn rules(jwt_rules: Vec<JwtRule>) -> TokenRules {
    TokenRules::combine([&policy("p", jwt_rules)]).unwrap()
}

fn from_header(name: &str, prefix: &str) -> JwtRule {
    let location = HeaderLocation {
        name: name.into(),
        prefix: prefix.into(),
    };
    JwtRule {
        from_headers: vec![location],
        ..rule("iss")
    }
}

fn http(path: &str, headers: &[(&str, &str)]) -> Http {
    Http {
        method: "GET".into(),
        path: path.into(),
        host: "web.foo".into(),
        scheme: "https".into(),
        headers: Headers {
            entries: headers
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            merged: false,
            ..Headers::default()
        },
    }
}

/// `present` and `absent` are neighbours: paths and headers that differ in one thing.
fn check(rules: &TokenRules, present: &[Http], absent: &[Http]) {
    for http in present {
        assert!(rules.token_present(http), "present: {http:?}");
    }
    for http in absent {
        assert!(!rules.token_present(http), "absent: {http:?}");
    }
}

#[test]
fn no_rule_looks_for_no_token() {
    assert_eq!(TokenRules::combine([]), None);
    assert_eq!(TokenRules::combine([&policy("p", Vec::new())]), None);
}

#[test]
fn default_places_are_the_bearer_header_and_access_token() {
    check(
        &rules(vec![rule("iss")]),
        &[
            http("/", &[("authorization", "Bearer a.b.c")]),
            // Envoy looks for the prefix anywhere in the value
            http("/", &[("authorization", "x Bearer a.b.c")]),
            http("/", &[("authorization", "Bearer ")]),
            http(
                "/",
                &[
                    ("authorization", "Basic x"),
                    ("authorization", "Bearer a.b.c"),
                ],
            ),
            http("/?access_token=a.b.c", &[]),
            http("/?x=1&access_token", &[]),
            http("/?acc%65ss_token=a", &[]),
        ],
        &[
            http("/", &[]),
            http("/", &[("authorization", "bearer a.b.c")]),
            http("/", &[("authorization", "Bearer")]),
            http("/", &[("authorization", "Basic x")]),
            http("/", &[("x-authorization", "Bearer a.b.c")]),
            http("/?Access_token=a", &[]),
            http("/access_token=a", &[]),
            http("/?x=access_token", &[]),
            http("/", &[("cookie", "access_token=a")]),
        ],
    );
}

#[test]
fn explicit_places_replace_the_default() {
    check(
        &rules(vec![from_header("X-Token", "")]),
        &[
            http("/", &[("x-token", "a")]),
            http("/", &[("x-token", "")]),
        ],
        &[
            http("/", &[("authorization", "Bearer a.b.c")]),
            http("/?access_token=a", &[]),
            http("/", &[("x-tokens", "a")]),
        ],
    );
    let param = JwtRule {
        from_params: vec![located("tok")],
        ..rule("iss")
    };
    check(
        &rules(vec![param]),
        &[http("/?tok=a", &[])],
        &[
            http("/?access_token=a", &[]),
            http("/", &[("authorization", "Bearer a")]),
        ],
    );
}

#[test]
fn a_prefix_is_case_sensitive_and_may_stand_anywhere() {
    check(
        &rules(vec![from_header("x-token", "Jwt ")]),
        &[
            http("/", &[("x-token", "Jwt a")]),
            http("/", &[("x-token", "a,Jwt b")]),
        ],
        &[
            http("/", &[("x-token", "jwt a")]),
            http("/", &[("x-token", "Jwta")]),
        ],
    );
}

#[test]
fn one_rule_with_defaults_beside_one_without_keeps_the_defaults() {
    let both = rules(vec![from_header("x-token", ""), rule("other")]);
    check(
        &both,
        &[
            http("/", &[("x-token", "a")]),
            http("/", &[("authorization", "Bearer a")]),
        ],
        &[http("/", &[("y-token", "a")])],
    );
}

#[test]
fn cookies_are_split_as_envoy_does() {
    let cookie = JwtRule {
        from_cookies: vec![located("tok")],
        ..rule("iss")
    };
    let rules = rules(vec![cookie]);
    check(
        &rules,
        &[
            http("/", &[("cookie", "tok=a")]),
            http("/", &[("cookie", "x=1;   tok=a")]),
            http("/", &[("cookie", "x=1;tok=")]),
            http("/", &[("cookie", "x=1"), ("cookie", "tok=a")]),
        ],
        &[
            http("/", &[("cookie", "tok")]),
            http("/", &[("cookie", "tok =a")]),
            http("/", &[("cookie", "\ttok=a")]),
            http("/", &[("cookie", "Tok=a")]),
            http("/", &[("cookie", "x=tok=a")]),
            http("/", &[("cookie", "x=1,tok=a")]),
            http("/", &[("authorization", "Bearer a")]),
        ],
    );
    let mut merged = http("/", &[("cookie", "x=1,tok=a")]);
    merged.headers.merged = true;
    check(&rules, &[merged], &[]);
}

#[test]
fn a_cors_preflight_needs_no_token() {
    let preflight = |method: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("authorization", "Bearer a.b.c")];
        all.extend(headers);
        Http {
            method: method.into(),
            ..http("/", &all)
        }
    };
    let origin = ("origin", "https://a");
    let asked = ("access-control-request-method", "PUT");
    check(
        &rules(vec![rule("iss")]),
        &[
            preflight("OPTIONS", &[origin]),
            preflight("OPTIONS", &[asked]),
            preflight("OPTIONS", &[("origin", ""), asked]),
            preflight("OPTIONS", &[origin, ("access-control-request-method", "")]),
            preflight("options", &[origin, asked]),
            preflight("GET", &[origin, asked]),
        ],
        &[preflight("OPTIONS", &[origin, asked])],
    );
}

#[test]
fn pseudo_headers_can_be_places() {
    check(
        &rules(vec![from_header(":path", "/tok/")]),
        &[http("/tok/a", &[])],
        &[http("/tik/a", &[])],
    );
}

#[test]
fn space_delimited_claims_are_those_of_the_tokens_issuer() {
    let custom = JwtRule {
        space_delimited_claims: vec!["roles".into()],
        ..rule("a")
    };
    let any = JwtRule {
        space_delimited_claims: vec!["groups".into()],
        ..rule("")
    };
    let rules = rules(vec![custom, any, rule("b")]);
    assert!(rules.is_space_delimited("a", "roles"));
    assert!(!rules.is_space_delimited("b", "roles"));
    assert!(rules.is_space_delimited("b", "groups"));
    for always in SPACE_DELIMITED_CLAIMS {
        assert!(rules.is_space_delimited("b", always));
    }
    assert!(!rules.is_space_delimited("a", "sub"));
    let all: Vec<&str> = rules.space_delimited_claims().collect();
    assert_eq!(all, ["groups", "permission", "roles", "scope"]);
}

#[test]
fn all_policies_are_combined() {
    let first = policy("first", vec![rule("a")]);
    let empty = policy("empty", Vec::new());
    let second = policy("second", vec![from_header("x-token", "")]);
    let rules = TokenRules::combine([&first, &empty, &second]).unwrap();
    assert_eq!(rules.policies(), ["foo/first", "foo/second"]);
    assert!(rules.token_present(&http("/", &[("x-token", "a")])));
    assert!(rules.token_present(&http("/?access_token=a", &[])));
}
