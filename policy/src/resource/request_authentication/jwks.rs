//! An inline key set (RFC 7517), as far as Istio's webhook reads it.

use serde_json::Value as Json;

use crate::diagnostic::code;
use crate::document::Excerpt;
use crate::resource::Located;
use crate::resource::path::Path;
use crate::resource::reader::Reader;

/// Checks the text of `jwks`: one key, or `keys` with several.
pub(super) fn check(text: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
    let keys = match keys(&text.value) {
        Ok(keys) => keys,
        Err(fault) => {
            reader.report(
                &code::JWKS,
                text.at.clone(),
                path,
                format!("not a JSON Web Key Set: {fault}"),
                "paste what the issuer serves as its key set",
            );
            return;
        }
    };
    for (index, key) in keys.iter().enumerate() {
        let symmetric = key.get("kty").and_then(Json::as_str) == Some("oct");
        if symmetric || key.get("d").is_some() {
            reader.report(
                &code::PRIVATE_KEY,
                text.at.clone(),
                path,
                format!("key {index} holds private material"),
                "keep the public part only, and replace the key: whoever reads this can sign tokens",
            );
        }
    }
}

fn keys(text: &str) -> Result<Vec<Json>, String> {
    let set = match serde_json::from_str::<Json>(text) {
        Ok(Json::Object(set)) => set,
        Ok(_) => return Err("it is no JSON object".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let keys = match set.get("keys") {
        None => vec![Json::Object(set)],
        Some(Json::Array(keys)) => keys.clone(),
        Some(_) => return Err("`keys` is no list".to_owned()),
    };
    for (index, key) in keys.iter().enumerate() {
        if let Some(fault) = bad_key(key) {
            return Err(format!("key {index} {fault}"));
        }
    }
    Ok(keys)
}

fn bad_key(key: &Json) -> Option<String> {
    let Some(kty) = key.get("kty").and_then(Json::as_str) else {
        return Some("has no `kty`".to_owned());
    };
    let members: &[&str] = match kty {
        "RSA" => &["n", "e"],
        "EC" => &["crv", "x", "y"],
        "OKP" => &["crv", "x"],
        "oct" => &["k"],
        other => return Some(format!("has the unknown `kty` `{}`", Excerpt(other))),
    };
    members.iter().find_map(|member| match key.get(*member) {
        Some(Json::String(text)) if *member == "crv" || is_base64(text) => None,
        Some(_) => Some(format!("has a `{member}` that is not base64")),
        None => Some(format!("has no `{member}`")),
    })
}

fn is_base64(text: &str) -> bool {
    let text = text.trim_end_matches('=');
    !text.is_empty()
        && text.len() % 4 != 1
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'/'))
}
