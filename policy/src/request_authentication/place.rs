//! The tokens of a request, found as Envoy's jwt_authn finds them (extractor.cc).

use super::{DEFAULT_HEADER, DEFAULT_PARAM, DEFAULT_PREFIX, query, values};
use crate::request::Http;
use crate::resource::{HeaderLocation, JwtRule};

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A header, in lower case.
    Header(String),
    /// A query parameter.
    Param(String),
    /// A cookie.
    Cookie(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header `{}`", name.escape_debug()),
            Self::Param(name) => write!(f, "query parameter `{}`", name.escape_debug()),
            Self::Cookie(name) => write!(f, "cookie `{}`", name.escape_debug()),
        }
    }
}

/// What stands at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The place.
    pub place: Place,
    /// The text there, which may be no token at all; `None` when there are several texts, of which
    /// none can be said to be the token.
    pub text: Option<String>,
}

/// Every token at a place that `rule` looks at: headers first, then parameters, then cookies.
#[must_use]
pub fn tokens(rule: &JwtRule, http: &Http) -> Vec<Found> {
    let mut found = Vec::new();
    let nowhere =
        rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty();
    if nowhere {
        in_header(DEFAULT_HEADER, DEFAULT_PREFIX, http, &mut found);
        in_query(DEFAULT_PARAM, http, &mut found);
    }
    for location in &rule.from_headers {
        let name = location.name.to_ascii_lowercase();
        in_header(&name, &location.prefix, http, &mut found);
    }
    for param in &rule.from_params {
        in_query(&param.value, http, &mut found);
    }
    for cookie in &rule.from_cookies {
        in_cookie(&cookie.value, http, &mut found);
    }
    found
}

/// The token in one header.
#[must_use]
pub fn in_one_header(location: &HeaderLocation, http: &Http) -> Option<Found> {
    let mut found = Vec::new();
    let name = location.name.to_ascii_lowercase();
    in_header(&name, &location.prefix, http, &mut found);
    found.pop()
}

/// The names of a query parameter as the request writes it, escapes and all: a proxy that is told to
/// take it out compares texts.
#[must_use]
pub fn written_parameters(http: &Http, name: &str) -> Vec<String> {
    query::written(&http.path, name)
        .map(str::to_owned)
        .collect()
}

/// Takes a token out of the request, as a proxy does that does not forward it. Cookies stay, as in
/// Envoy.
pub fn remove(http: &mut Http, place: &Place) {
    match place {
        Place::Header(name) => http.headers.entries.retain(|(entry, _)| entry != name),
        Place::Param(name) => http.path = query::without(&http.path, name),
        Place::Cookie(_) => {}
    }
}

fn push(place: Place, texts: &[&str], found: &mut Vec<Found>) {
    let text = match texts {
        [] => return,
        [one] => Some((*one).to_owned()),
        _ => None,
    };
    found.push(Found { place, text });
}

fn in_header(name: &str, prefix: &str, http: &Http, found: &mut Vec<Found>) {
    let mut texts = Vec::new();
    for value in values(http, name) {
        if prefix.is_empty() {
            texts.push(value);
            continue;
        }
        // Anywhere in the value, and perhaps more than once where values were joined.
        let mut rest = value;
        while let Some((_, after)) = rest.split_once(prefix) {
            texts.push(token(after));
            rest = after;
        }
    }
    push(Place::Header(name.to_owned()), &texts, found);
}

/// From the first character that a token can have to the next space or tab; all of it where there is none.
fn token(text: &str) -> &str {
    let base64url = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let Some(from) = text.find(base64url).and_then(|start| text.get(start..)) else {
        return text;
    };
    from.split_once([' ', '\t'])
        .map_or(from, |(token, _)| token)
}

fn in_query(name: &str, http: &Http, found: &mut Vec<Found>) {
    let named = query::parameters(&http.path).filter(|(given, _)| given == name.as_bytes());
    let texts: Vec<String> = named
        .map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    push(Place::Param(name.to_owned()), &texts, found);
}

fn in_cookie(name: &str, http: &Http, found: &mut Vec<Found>) {
    let separators: &[char] = if http.headers.merged {
        &[';', ',']
    } else {
        &[';']
    };
    let texts: Vec<&str> = values(http, "cookie")
        .flat_map(|header| header.split(separators))
        .filter_map(|pair| pair.trim_start_matches(' ').split_once('='))
        .filter(|(given, _)| *given == name)
        .map(|(_, value)| unquoted(value))
        .collect();
    push(Place::Cookie(name.to_owned()), &texts, found);
}

fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    inner.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Location;
    use crate::request::Headers;
    use crate::resource::Located;

    fn located(value: &str) -> Located<String> {
        Located {
            value: value.to_owned(),
            at: Location::default(),
        }
    }

    fn rule(headers: &[(&str, &str)], params: &[&str], cookies: &[&str]) -> JwtRule {
        JwtRule {
            issuer: located("iss"),
            audiences: Vec::new(),
            jwks_uri: None,
            jwks: None,
            from_headers: headers
                .iter()
                .map(|(name, prefix)| HeaderLocation {
                    name: (*name).to_owned(),
                    prefix: (*prefix).to_owned(),
                })
                .collect(),
            from_params: params.iter().map(|p| located(p)).collect(),
            from_cookies: cookies.iter().map(|c| located(c)).collect(),
            output_payload_to_header: None,
            output_claim_to_headers: Vec::new(),
            forward_original_token: false,
            timeout: None,
            space_delimited_claims: Vec::new(),
        }
    }

    fn http(path: &str, headers: &[(&str, &str)]) -> Http {
        Http {
            method: "GET".to_owned(),
            path: path.to_owned(),
            headers: Headers {
                entries: headers
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                    .collect(),
                merged: false,
                ..Headers::default()
            },
            ..Http::default()
        }
    }

    fn check(rule: &JwtRule, path: &str, headers: &[(&str, &str)], expected: &[&str]) {
        let found = tokens(rule, &http(path, headers));
        let found: Vec<String> = found
            .iter()
            .map(|f| match &f.text {
                Some(text) => format!("{}: {text}", f.place),
                None => format!("{}: several", f.place),
            })
            .collect();
        assert_eq!(found, expected, "{path} {headers:?}");
    }

    #[test]
    fn the_default_places_are_bearer_and_access_token() {
        let default = rule(&[], &[], &[]);
        check(&default, "/", &[], &[]);
        check(
            &default,
            "/?access_token=a.b.c",
            &[("authorization", "Bearer d.e.f")],
            &[
                "header `authorization`: d.e.f",
                "query parameter `access_token`: a.b.c",
            ],
        );
        check(&default, "/", &[("authorization", "bearer a.b.c")], &[]);
        check(&default, "/", &[("authorization", "Basic a.b.c")], &[]);
        // As Envoy: wherever the prefix stands, from the first character of a token to a space.
        for value in ["x Bearer  a.b.c x", "Bearer =a.b.c", "Bearer a.b.c"] {
            check(
                &default,
                "/",
                &[("authorization", value)],
                &["header `authorization`: a.b.c"],
            );
        }
        check(
            &default,
            "/",
            &[("authorization", "Bearer ")],
            &["header `authorization`: "],
        );
    }

    #[test]
    fn two_tokens_at_one_place_are_none() {
        let default = rule(&[], &[], &[]);
        let several = &["header `authorization`: several"];
        check(
            &default,
            "/",
            &[("authorization", "Bearer a,Bearer b")],
            several,
        );
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer a")];
        check(&default, "/", &twice, several);
        check(
            &default,
            "/?access_token=a&access_token=b",
            &[],
            &["query parameter `access_token`: several"],
        );
        let cookie = rule(&[], &[], &["t"]);
        check(
            &cookie,
            "/",
            &[("cookie", "t=a; t=b")],
            &["cookie `t`: several"],
        );
    }

    #[test]
    fn named_places_replace_the_default_ones() {
        let named = rule(
            &[("X-Token", ""), ("X-Other", "Token ")],
            &["t"],
            &["session"],
        );
        let headers = [
            ("authorization", "Bearer no"),
            ("x-token", "a.b.c"),
            ("x-other", "Token d.e.f"),
            ("cookie", "a=b; session=\"j.k.l\""),
        ];
        check(
            &named,
            "/?access_token=no&%74=g.h%2Ei",
            &headers,
            &[
                "header `x-token`: a.b.c",
                "header `x-other`: d.e.f",
                "query parameter `t`: g.h.i",
                "cookie `session`: j.k.l",
            ],
        );
    }

    #[test]
    fn a_token_can_be_taken_out() {
        let mut request = http("/a?t=1&x=2", &[("x-token", "a"), ("x-other", "b")]);
        remove(&mut request, &Place::Header("x-token".to_owned()));
        remove(&mut request, &Place::Param("t".to_owned()));
        assert_eq!(request, http("/a?x=2", &[("x-other", "b")]));
    }
}
