//! RequestAuthentication (policy.md 1.12, design decision 4): a token that nobody verified.

use serde_json::Value;

use super::rule::strings;
use super::{Facts, Http, Target, World, attach};

/// Rules of every RequestAuthentication that applies.
fn rules(world: &World) -> Vec<&Value> {
    if world.target == Target::Ztunnel {
        return Vec::new();
    }
    world
        .policies
        .iter()
        .filter(|policy| policy["kind"] == "RequestAuthentication")
        .filter(|policy| attach::applies(policy, world))
        .filter_map(|policy| policy["spec"]["jwtRules"].as_array())
        .flatten()
        .collect()
}

/// `spaceDelimitedClaims` of the rules that apply to tokens of the payload's issuer.
#[must_use]
pub fn space_delimited(world: &World, payload: &Value) -> Vec<String> {
    rules(world)
        .into_iter()
        .filter(|rule| rule["issuer"] == payload["iss"])
        .flat_map(|rule| strings(&rule["spaceDelimitedClaims"]))
        .collect()
}

/// Whether a token stands at one of the places of a rule, an empty one included, and no verified
/// payload came with it.
#[must_use]
pub fn unverified(world: &World, facts: &Facts) -> bool {
    let Some(http) = facts.http.as_ref().filter(|_| facts.jwt.is_none()) else {
        return false;
    };
    if preflight(http) {
        return false;
    }
    rules(world).into_iter().any(|rule| carries(rule, http))
}

/// Envoy's JWT filter lets CORS preflight requests pass.
fn preflight(http: &Http) -> bool {
    let given = |name: &str| header(http, name).iter().any(|value| !value.is_empty());
    http.method == "OPTIONS" && given("origin") && given("access-control-request-method")
}

fn carries(rule: &Value, http: &Http) -> bool {
    let headers = rule["fromHeaders"].as_array().cloned().unwrap_or_default();
    let params = strings(&rule["fromParams"]);
    let cookies = strings(&rule["fromCookies"]);
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        return prefixed(http, "authorization", "Bearer ") || param(http, "access_token");
    }
    headers.iter().any(|place| {
        let text = |field: &str| place[field].as_str().unwrap_or("");
        prefixed(http, text("name"), text("prefix"))
    }) || params.iter().any(|name| param(http, name))
        || cookies.iter().any(|name| cookie(http, name))
}

fn header(http: &Http, name: &str) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    http.headers
        .iter()
        .filter(|(header, _)| header.eq_ignore_ascii_case(&name))
        .map(|(_, value)| value.trim_matches([' ', '\t']).to_owned())
        .collect()
}

fn prefixed(http: &Http, name: &str, prefix: &str) -> bool {
    header(http, name)
        .iter()
        .any(|value| value.contains(prefix))
}

fn param(http: &Http, name: &str) -> bool {
    let query = http.path.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(name))
}

fn cookie(http: &Http, name: &str) -> bool {
    header(http, "cookie")
        .iter()
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .any(|(key, _)| key == name)
}
