//! SPIFFE bundle documents and bundle maps (SPIFFE Trust Domain and Bundle §4, §5), more strictly than they are read elsewhere:
//! a reader passes over what it does not know, and whoever wrote it wants to hear of it.

use std::collections::HashSet;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::Found;
use crate::bundle::{JwtKey, key_parameters};
use crate::clock::{date, unix_seconds};
use crate::trust_domain::{TrustDomain, shorten};
use crate::x509::conform;

/// Members of a JWK that are private or symmetric keys (RFC 7518 §6).
const SECRET: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// Tells what a JSON document says and which clauses it breaks.
pub(super) fn inspect(document: &[u8], now: SystemTime) -> Result<Vec<Found>, String> {
    let Value::Object(object) =
        crate::json::from_slice(document).map_err(|error| error.to_string())?
    else {
        return Err("it is no JSON object".to_owned());
    };
    match object.get("trust_domains") {
        Some(Value::Object(domains)) if !object.contains_key("keys") => {
            let mut map = Found::new("SPIFFE bundle map");
            map.fact("Trust domains", domains.len().to_string());
            let mut all = Vec::with_capacity(domains.len());
            for (name, bundle) in domains {
                let mut found = match bundle {
                    Value::Object(object) => one(object, now),
                    _ => Found::new("SPIFFE bundle"),
                };
                found.facts.insert(0, ("Trust domain", shorten(name)));
                if let Err(error) = TrustDomain::new(name) {
                    found.problems.push(error.to_string());
                }
                all.push(found);
            }
            all.insert(0, map);
            Ok(all)
        }
        _ => Ok(vec![one(&object, now)]),
    }
}

fn one(object: &Map<String, Value>, now: SystemTime) -> Found {
    let mut found = Found::new("SPIFFE bundle");
    for (name, shown, clause) in [
        ("spiffe_sequence", "Sequence", "§4.1.1"),
        ("spiffe_refresh_hint", "Refresh hint", "§4.1.2"),
    ] {
        match object.get(name) {
            Some(value) if value.is_u64() => found.fact(shown, value.to_string()),
            Some(_) => found.problems.push(format!(
                "`{name}` is no non-negative integer (SPIFFE Trust Domain and Bundle {clause})"
            )),
            None => found.notes.push(format!(
                "it has no `{name}`, which it should have (SPIFFE Trust Domain and Bundle {clause})"
            )),
        }
    }
    let Some(Value::Array(keys)) = object.get("keys") else {
        found
            .problems
            .push("it has no array `keys` (SPIFFE Trust Domain and Bundle §4.1.3)".to_owned());
        return found;
    };
    if keys.is_empty() {
        found.notes.push(
            "it has no keys: every SVID of the trust domain is untrusted (SPIFFE Trust Domain and Bundle §4.1.3)"
                .to_owned(),
        );
    }
    let mut ids = HashSet::new();
    let mut counts = (0_usize, 0_usize);
    for (index, key) in keys.iter().enumerate() {
        let Value::Object(jwk) = key else {
            found
                .problems
                .push(format!("key {index} is no JSON object (RFC 7517 §4)"));
            continue;
        };
        let mut problems = Vec::new();
        match jwk.get("use").and_then(Value::as_str) {
            Some("x509-svid") => {
                counts.0 += 1;
                x509(jwk, &mut found, &mut problems, now);
            }
            Some("jwt-svid") => {
                counts.1 += 1;
                jwt(jwk, &mut problems);
            }
            Some("wit-svid") => jwt(jwk, &mut problems),
            Some(other) => found.notes.push(format!(
                "key {index} has the use `{}`, which nobody knows: it is passed over (SPIFFE Trust Domain and Bundle §4.2.2)",
                shorten(other)
            )),
            None => problems.push(
                "it has no `use`: nobody takes it for anything (SPIFFE Trust Domain and Bundle §4.2.2)"
                    .to_owned(),
            ),
        }
        if !jwk.contains_key("kty") {
            problems.push("it has no `kty` (SPIFFE Trust Domain and Bundle §4.2.1)".to_owned());
        }
        if SECRET.iter().any(|name| jwk.contains_key(*name)) {
            problems.push(
                "it holds a private key: replace that key, and publish only the public one"
                    .to_owned(),
            );
        }
        if let Some(id) = jwk.get("kid").and_then(Value::as_str)
            && !ids.insert(id)
        {
            problems.push(format!(
                "its `kid` `{}` is that of another key (JWT-SVID §6.1)",
                shorten(id)
            ));
        }
        let problems = problems.into_iter();
        found
            .problems
            .extend(problems.map(|problem| format!("key {index}: {problem}")));
    }
    found.fact("X.509 authorities", counts.0.to_string());
    found.fact("JWT authorities", counts.1.to_string());
    found
}

fn x509(jwk: &Map<String, Value>, found: &mut Found, problems: &mut Vec<String>, now: SystemTime) {
    if jwk.contains_key("kid") {
        problems.push("it has a `kid`, which an X.509 authority has not (X509-SVID §6.1)".into());
    }
    let x5c = jwk.get("x5c").and_then(Value::as_array);
    let count = x5c.map_or(0, Vec::len);
    if count != 1 {
        problems.push(format!(
            "`x5c` has {count} certificates: exactly one is required (X509-SVID §6.1)"
        ));
    }
    let Some(first) = x5c.and_then(|x5c| x5c.first()) else {
        return;
    };
    let der = first.as_str().and_then(|text| STANDARD.decode(text).ok());
    let Some(der) = der else {
        problems.push("`x5c` is no base64 (RFC 7517 §4.7)".to_owned());
        return;
    };
    let (id, refusals) = conform::inspect_authority(&der);
    problems.extend(refusals.iter().map(ToString::to_string));
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else {
        return;
    };
    let end = parsed.validity().not_after.timestamp();
    let whose = id.map_or_else(|| "no SPIFFE ID".to_owned(), |id| id.to_string());
    found.fact(
        "X.509 authority",
        format!("{whose}, valid to {}", date(end)),
    );
    if end < unix_seconds(now) {
        found.notes.push(format!(
            "an X.509 authority expired on {}: it can be dropped",
            date(end)
        ));
    }
    if parsed.subject().as_raw() != parsed.issuer().as_raw() {
        found.notes.push(
            "an X.509 authority is not self-signed, which it should be (X509-SVID §6.1)".into(),
        );
    }
    // RFC 7517 §4.7: the key of the certificate is the key of the JWK.
    let of_certificate = key_parameters(parsed.public_key().raw).unwrap_or_default();
    let differs = of_certificate
        .iter()
        .any(|(name, value)| jwk.get(name).is_some_and(|other| other != value));
    if differs {
        problems.push(
            "its parameters are those of another key than its certificate's (RFC 7517 §4.7)".into(),
        );
    }
}

fn jwt(jwk: &Map<String, Value>, problems: &mut Vec<String>) {
    match jwk.get("kid").and_then(Value::as_str) {
        None | Some("") => problems.push("it has no `kid` (JWT-SVID §6.1)".to_owned()),
        Some(_) => {}
    }
    if let Err(error) = JwtKey::from_jwk(jwk) {
        problems.push(error.to_string());
    }
}
