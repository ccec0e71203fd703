use crate::{WEB, decide, get, on, snapshot, tcp};
use portcullis_policy::request::{Request, Target};

const OPEN: &str = "allow no_allow_policy";
const REFUSED: &str = "deny token_unverified foo/jwt";

fn jwt(rule: &str) -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: foo}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  jwtRules: [{rule}]
"
    )
}

fn with(headers: &[(&str, &str)], mut request: Request) -> Request {
    if let Some(http) = &mut request.http {
        let headers = headers
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        http.headers.entries.extend(headers);
    }
    request
}

fn verified(mut request: Request) -> Request {
    request.jwt = Some(serde_json::json!({"iss": "https://issuer", "sub": "me"}));
    request
}

const BEARER: &[(&str, &str)] = &[("authorization", "Bearer a.b.c")];

#[test]
fn a_token_that_nobody_verified_is_refused() {
    let rules = snapshot(&[WEB, &jwt("{issuer: https://issuer}")]);
    let request = || get("foo/web");
    assert_eq!(decide(&rules, &request()), OPEN);
    assert_eq!(decide(&rules, &with(BEARER, request())), REFUSED);
    assert_eq!(decide(&rules, &verified(with(BEARER, request()))), OPEN);
    assert_eq!(
        decide(&rules, &with(&[("x-token", "a.b.c")], request())),
        OPEN
    );
    let refused = rules.decide(&with(BEARER, request()));
    assert_eq!(refused.reason.http_status(), Some(401));
}

#[test]
fn only_where_the_policy_applies() {
    let rules = snapshot(&[WEB, &jwt("{issuer: https://issuer}")]);
    let request = || with(BEARER, get("foo/web"));
    assert_eq!(decide(&rules, &on(Target::Gateway, request())), REFUSED);
    assert_eq!(decide(&rules, &on(Target::Ztunnel, request())), OPEN);
    // a waypoint uses no selectors
    assert_eq!(decide(&rules, &on(Target::Waypoint, request())), OPEN);
    assert_eq!(decide(&rules, &tcp("foo/web")), OPEN);
    let elsewhere = jwt("{issuer: https://issuer}").replace("app: web", "app: other");
    assert_eq!(decide(&snapshot(&[WEB, &elsewhere]), &request()), OPEN);
}

#[test]
fn explicit_places_replace_the_default() {
    let rules = snapshot(&[
        WEB,
        &jwt("{issuer: https://issuer, fromHeaders: [{name: X-Token}], fromCookies: [tok]}"),
    ]);
    let request = || get("foo/web");
    assert_eq!(decide(&rules, &with(BEARER, request())), OPEN);
    assert_eq!(
        decide(&rules, &with(&[("x-token", "a")], request())),
        REFUSED
    );
    assert_eq!(
        decide(&rules, &with(&[("cookie", "x=1; tok=a")], request())),
        REFUSED
    );
    assert_eq!(
        decide(&rules, &with(&[("cookie", "x=1; tik=a")], request())),
        OPEN
    );
}

#[test]
fn a_preflight_passes() {
    let rules = snapshot(&[WEB, &jwt("{issuer: https://issuer}")]);
    let cors = [
        ("origin", "https://a"),
        ("access-control-request-method", "PUT"),
    ];
    let mut preflight = with(&cors, with(BEARER, get("foo/web")));
    if let Some(http) = &mut preflight.http {
        http.method = "OPTIONS".into();
    }
    assert_eq!(decide(&rules, &preflight), OPEN);
    if let Some(http) = &mut preflight.http {
        http.headers.entries.retain(|(name, _)| name != "origin");
    }
    assert_eq!(decide(&rules, &preflight), REFUSED);
}

#[test]
fn claims_are_split_as_their_issuers_policy_says() {
    let allow = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: foo}
spec: {rules: [{when: [{key: 'request.auth.claims[roles]', values: [admin]}]}]}
";
    let request = || {
        let mut request = get("foo/web");
        let payload =
            serde_json::json!({"iss": "https://issuer", "sub": "me", "roles": "user admin"});
        request.jwt = Some(payload);
        request
    };
    let split = jwt("{issuer: https://issuer, spaceDelimitedClaims: [roles]}");
    let whole = jwt("{issuer: https://issuer}");
    assert_eq!(
        decide(&snapshot(&[WEB, &split, allow]), &request()),
        "allow allowed_by foo/p#rule[0]"
    );
    assert_eq!(
        decide(&snapshot(&[WEB, &whole, allow]), &request()),
        "deny no_allow_matched"
    );
}
