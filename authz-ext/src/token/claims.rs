//! What the claims of a token must say (RFC 7519 section 4.1), as Envoy's jwt_authn asks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::TokenError;

/// Checks the registered claims' types and the token's time at `now`, give or take `skew`.
///
/// A token without `exp` does not expire, as in Envoy; one with a time that is no number is refused.
///
/// # Errors
/// [`TokenError`].
pub fn check_time(
    payload: &Map<String, Value>,
    now: SystemTime,
    skew: Duration,
) -> Result<(), TokenError> {
    for name in ["iss", "sub", "jti"] {
        if payload.get(name).is_some_and(|value| !value.is_string()) {
            return Err(TokenError::Claim(name));
        }
    }
    let now = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let skew = skew.as_secs_f64();
    time(payload, "iat")?;
    if time(payload, "nbf")?.is_some_and(|from| now + skew < from) {
        return Err(TokenError::NotYetValid);
    }
    if time(payload, "exp")?.is_some_and(|until| now > until + skew) {
        return Err(TokenError::Expired);
    }
    Ok(())
}

/// A NumericDate: seconds since 1970, not negative.
fn time(payload: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    match payload.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|time| *time >= 0.0) {
            Some(time) => Ok(Some(time)),
            None => Err(TokenError::Claim(name)),
        },
    }
}

/// The audiences of a token: a string, or a list of strings.
///
/// # Errors
/// [`TokenError::Claim`] for anything else.
pub fn audiences(payload: &Map<String, Value>) -> Result<Vec<&str>, TokenError> {
    let wrong = TokenError::Claim("aud");
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(several)) => {
            let texts: Option<Vec<&str>> = several.iter().map(Value::as_str).collect();
            texts.ok_or(wrong)
        }
        Some(_) => Err(wrong),
    }
}

/// Checks that one of the token's audiences is among `wanted`; where none is wanted, any will do. As
/// in Envoy, scheme and a slash at the end do not count.
///
/// # Errors
/// [`TokenError`].
pub fn check_audience<'a>(
    payload: &Map<String, Value>,
    wanted: impl IntoIterator<Item = &'a str>,
) -> Result<(), TokenError> {
    let given = audiences(payload)?;
    let mut wanted = wanted.into_iter().peekable();
    let any = wanted.peek().is_none()
        || wanted.any(|one| given.iter().any(|other| plain(one) == plain(other)));
    if any {
        Ok(())
    } else {
        Err(TokenError::Audience)
    }
}

fn plain(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}
