//! Tokens: read, not verified.

use std::time::SystemTime;

use serde_json::Value;

use super::Found;
use super::certificate::ago;
use crate::clock::{date, unix_seconds};
use crate::jwt_svid::validate::{self, TokenError};
use crate::trust_domain::shorten;

/// Tells what a token says and which clauses it breaks.
pub(super) fn inspect(text: &str, now: SystemTime) -> Result<Found, String> {
    let token = text.strip_prefix("Bearer ").unwrap_or(text).trim();
    let read = validate::inspect(token, now).map_err(|error| error.to_string())?;
    let is_wit = read.header.get("typ").and_then(Value::as_str) == Some("wit+jwt");
    let mut found = Found::new(if is_wit { "WIT-SVID" } else { "JWT-SVID" });
    let mut text = |name: &'static str, value: Option<&Value>| {
        if let Some(value) = value {
            found.fact(name, words(value));
        }
    };
    text("SPIFFE ID", read.claims.get("sub"));
    text("Audience", read.claims.get("aud"));
    text("Algorithm", read.header.get("alg"));
    text("Key ID", read.header.get("kid"));
    text("Issuer", read.claims.get("iss"));
    for (name, claim) in [
        ("Issued", "iat"),
        ("Valid from", "nbf"),
        ("Valid to", "exp"),
    ] {
        if let Some(value) = read.claims.get(claim) {
            found.fact(name, time(value));
        }
    }
    if is_wit {
        wit(&mut found, &read);
        return Ok(found);
    }
    for refusal in &read.refusals {
        found.problems.push(match refusal {
            TokenError::Expired => expired(&read.claims, now),
            TokenError::Es512 => continue,
            other => other.to_string(),
        });
    }
    if !read.header.contains_key("kid") {
        found
            .notes
            .push("it has no `kid`: many validators need one (JWT-SVID §2.2)".to_owned());
    }
    found
        .notes
        .push("its signature was not verified: `svid validate` does".to_owned());
    Ok(found)
}

/// WIT-SVID: `kid`, `sub`, `exp` and `cnf` are required, `aud` is forbidden.
fn wit(found: &mut Found, read: &validate::Inspected) {
    let has = |name: &str| read.claims.contains_key(name);
    for (name, is_there) in [
        ("kid", read.header.contains_key("kid")),
        ("sub", has("sub")),
        ("exp", has("exp")),
        ("cnf", has("cnf")),
    ] {
        if !is_there {
            found
                .problems
                .push(format!("the token has no `{name}` (WIT-SVID)"));
        }
    }
    if has("aud") {
        found
            .problems
            .push("the token has `aud`, which a WIT-SVID has not (WIT-SVID)".to_owned());
    }
    let of_jwt = |refusal: &&TokenError| {
        matches!(
            refusal,
            TokenError::Expired | TokenError::NotYet | TokenError::Subject(_)
        )
    };
    let wrong = read.refusals.iter().filter(of_jwt);
    found.problems.extend(wrong.map(ToString::to_string));
}

fn expired(claims: &serde_json::Map<String, Value>, now: SystemTime) -> String {
    match claims.get("exp").and_then(Value::as_i64) {
        Some(end) => format!(
            "the token expired {} ago (JWT-SVID §3.3)",
            ago(unix_seconds(now).saturating_sub(end))
        ),
        None => TokenError::Expired.to_string(),
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => shorten(text),
        Value::Array(all) => shorten(&all.iter().map(words).collect::<Vec<_>>().join(", ")),
        other => shorten(&other.to_string()),
    }
}

fn time(value: &Value) -> String {
    match value.as_i64() {
        Some(seconds) => date(seconds),
        None => words(value),
    }
}
