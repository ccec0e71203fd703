//! The documents.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::{Value, json};

use super::WebContent;
use crate::bundle::{Bundle, JwtKeyKind};
use crate::ca::Ca;
use crate::observe::{health, metrics};
use crate::trust_domain::shorten;

/// An issuer that nobody can look up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the issuer `{text}` is none that can be discovered: {why} (OpenID Connect Discovery 1.0 §3)"
)]
pub struct IssuerError {
    text: String,
    why: &'static str,
}

/// What a listener answers with.
#[derive(Debug)]
pub(super) struct Pages {
    content: WebContent,
    /// Path of the issuer, without `/` at its end.
    prefix: String,
}

impl Pages {
    pub(super) fn new(content: WebContent) -> Result<Self, IssuerError> {
        let prefix = match &content {
            WebContent::Bundle | WebContent::Management => String::new(),
            WebContent::Oidc { issuer } => path_of(issuer)?,
        };
        Ok(Self { content, prefix })
    }

    /// The answer to one request. No parameter, header or body changes it.
    pub(super) fn answer(&self, ca: &Ca, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            response
                .headers_mut()
                .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let bundle = ca.bundle();
        let document = match &self.content {
            WebContent::Management => return management(ca, path),
            WebContent::Bundle => bundle.to_document(),
            WebContent::Oidc { issuer } => {
                // Behind a proxy the prefix may be stripped, or not.
                match path.strip_prefix(&*self.prefix).unwrap_or(path) {
                    "/.well-known/openid-configuration" => configuration(issuer, &bundle),
                    "/keys" => keys(&bundle),
                    "/ready" | "/live" => return plain(StatusCode::OK),
                    _ => return plain(StatusCode::NOT_FOUND),
                }
            }
        };
        let age = ca.options().refresh_hint.as_secs();
        Response::builder()
            .header(CONTENT_TYPE, "application/json")
            // As long as the propagation of a new key allows for.
            .header(CACHE_CONTROL, format!("public, max-age={age}"))
            .body(Full::new(document.into()))
            .unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// What operators and their tools ask for.
fn management(ca: &Ca, path: &str) -> Response<Full<Bytes>> {
    // Prometheus reads it whatever it asked for.
    const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (status, kind, text) = match path {
        "/metrics" => (StatusCode::OK, METRICS, metrics::text(ca)),
        "/livez" => (
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "ok\n".to_owned(),
        ),
        "/readyz" => {
            let (is_ready, page) = health::ready(ca);
            let status = match is_ready {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, "application/json", format!("{page}\n"))
        }
        _ => return plain(StatusCode::NOT_FOUND),
    };
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(text.into()))
        .unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR))
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// The issuer is a URL with https, without query and fragment (OpenID Connect Discovery 1.0 §3).
fn path_of(issuer: &str) -> Result<String, IssuerError> {
    let refuse = |why| IssuerError {
        text: shorten(issuer),
        why,
    };
    let uri: Uri = issuer.parse().map_err(|_| refuse("it is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(refuse("it must begin with `https://`"));
    }
    if uri.query().is_some() || issuer.contains('#') {
        return Err(refuse("it must have no query and no fragment"));
    }
    if uri
        .authority()
        .is_none_or(|host| host.as_str().contains('@'))
    {
        return Err(refuse("it must have a host, and no user information"));
    }
    Ok(uri.path().trim_end_matches('/').to_owned())
}

/// OpenID Connect Discovery 1.0 §3. There is no authorization endpoint: tokens come from the Workload API.
fn configuration(issuer: &str, bundle: &Bundle) -> String {
    let mut algorithms: Vec<&str> = bundle
        .jwt_authorities
        .iter()
        .flat_map(|authority| algorithms(authority.key.kind()))
        .copied()
        .collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/keys", issuer.trim_end_matches('/')),
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    })
    .to_string()
}

/// The JWT authorities as a JWK set for OpenID Connect: `use` is `sig` there.
fn keys(bundle: &Bundle) -> String {
    let keys = bundle.jwt_authorities.iter().map(|authority| {
        let mut jwk = authority.key.to_jwk(&authority.key_id);
        jwk.insert("use".to_owned(), "sig".into());
        // An RSA key has several.
        if let [algorithm] = algorithms(authority.key.kind()) {
            jwk.insert("alg".to_owned(), (*algorithm).into());
        }
        Value::from(jwk)
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

fn algorithms(kind: JwtKeyKind) -> &'static [&'static str] {
    match kind {
        JwtKeyKind::P256 => &["ES256"],
        JwtKeyKind::P384 => &["ES384"],
        JwtKeyKind::P521 => &["ES512"],
        JwtKeyKind::Rsa => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_a_url_that_can_be_discovered() {
        assert_eq!(path_of("https://oidc.example.org").unwrap(), "");
        assert_eq!(path_of("https://example.org/a/b/").unwrap(), "/a/b");
        for (issuer, why) in [
            ("http://example.org", "https"),
            ("example.org", "https"),
            ("https://example.org?x", "query"),
            ("https://example.org/#x", "fragment"),
            ("https://u@example.org", "user information"),
        ] {
            let error = path_of(issuer).unwrap_err().to_string();
            assert!(error.contains(why), "{issuer}: {error}");
        }
    }
}
