//! What of a request may be told: masked before anybody hears of it.
//!
//! Credentials never are: not the headers that hold them, whatever the configuration says, and no
//! value anywhere that looks like a token.

use std::borrow::Cow;
use std::collections::BTreeMap;

use portcullis_policy::request::Request;
use serde_json::Value;

/// Stands for what is not shown.
const MASKED: &str = "***";
/// Headers whose values are never told.
pub const CREDENTIALS: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
];
/// Most chosen headers or claims of one event.
const MOST: usize = 64;
/// Longest value of a header or a claim, in bytes.
const LONGEST: usize = 1024;

/// What is told of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Query {
    /// Nothing.
    #[default]
    Drop,
    /// The names of its parameters.
    Names,
    /// All of it, but for values that look like tokens.
    Keep,
}

/// Names that were chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `*`.
    pub all: bool,
    /// Names; of headers in lower case.
    pub names: Vec<String>,
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|own| own == name)
    }
}

/// What is told of a request beside who, where and the verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Query strings.
    pub query: Query,
    /// Headers.
    pub headers: Names,
    /// Claims of verified tokens.
    pub claims: Names,
    /// Those of them whose values are masked.
    pub masked: Vec<String>,
}

impl Options {
    /// The path with what may be told of the query.
    pub(super) fn path<'r>(&self, path: &'r str) -> Cow<'r, str> {
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let (path, query) = path.split_at(end);
        let path = without_tokens(path, '/');
        let query = query.strip_prefix('?').unwrap_or_default();
        let query = query.split('#').next().unwrap_or_default();
        if query.is_empty() {
            return path;
        }
        match self.query {
            Query::Drop => path,
            Query::Names => {
                let names = query.split('&').take(MOST).map(|pair| {
                    let name = pair.split('=').next().unwrap_or_default();
                    format!("{}={MASKED}", without_tokens(name, '='))
                });
                let names: Vec<String> = names.collect();
                Cow::Owned(format!("{path}?{}", names.join("&")))
            }
            Query::Keep => Cow::Owned(format!("{path}?{}", kept(query))),
        }
    }

    pub(super) fn headers(&self, request: &Request) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        if self.headers == Names::default() {
            return told;
        }
        let entries = request.http.iter().flat_map(|http| &http.headers.entries);
        for (name, value) in entries {
            if !self.headers.has(name) || told.len() >= MOST && !told.contains_key(name) {
                continue;
            }
            let value = self.value(name, value);
            let told: &mut String = told.entry(super::event::cut(name, LONGEST)).or_default();
            if !told.is_empty() {
                told.push(',');
            }
            told.push_str(&value);
            *told = super::event::cut(told, LONGEST);
        }
        told
    }

    fn value<'v>(&self, name: &str, value: &'v str) -> Cow<'v, str> {
        if CREDENTIALS.contains(&name)
            || self.masked.iter().any(|masked| masked == name)
            || is_credential(value)
        {
            return Cow::Borrowed(MASKED);
        }
        Cow::Borrowed(value)
    }

    pub(super) fn claims(&self, request: &Request) -> BTreeMap<String, Value> {
        let mut told = BTreeMap::new();
        let Some(Value::Object(claims)) = &request.jwt else {
            return told;
        };
        let chosen = claims.iter().filter(|(name, _)| self.claims.has(name));
        for (name, value) in chosen.take(MOST) {
            let told_value = match value {
                _ if self.masked.iter().any(|masked| masked == name) => MASKED.into(),
                Value::String(text) => self.value(name, text).into_owned().into(),
                other => other.clone(),
            };
            let text = told_value.to_string();
            let told_value = match told_value {
                Value::String(text) => super::event::cut(&text, LONGEST).into(),
                // Long structures are cut as text: a bounded event is worth more than a whole one.
                _ if text.len() > LONGEST => super::event::cut(&text, LONGEST).into(),
                _ if is_credential(&text) => MASKED.into(),
                value => value,
            };
            told.insert(super::event::cut(name, LONGEST), told_value);
        }
        told
    }
}

/// A query whose values that look like credentials are masked.
fn kept(query: &str) -> String {
    const SECRET: [&str; 5] = ["token", "secret", "password", "api_key", "apikey"];
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) => {
            let lower = name.to_ascii_lowercase();
            if is_credential(value) || SECRET.iter().any(|secret| lower.contains(secret)) {
                format!("{}={MASKED}", without_tokens(name, '='))
            } else {
                format!("{}={value}", without_tokens(name, '='))
            }
        }
        None => without_tokens(pair, '=').into_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The text with each part that looks like a token masked.
pub(super) fn without_tokens(text: &str, separator: char) -> Cow<'_, str> {
    if !is_credential(text) {
        return Cow::Borrowed(text);
    }
    let parts = text.split(separator);
    let parts: Vec<&str> = parts
        .map(|part| if is_credential(part) { MASKED } else { part })
        .collect();
    Cow::Owned(parts.join(&separator.to_string()))
}

/// True for a text that holds a JWT, or that is a value of `Authorization`.
fn is_credential(value: &str) -> bool {
    // A JWT begins with `{"` in Base64.
    let mut rest = value;
    while let Some(at) = rest.find("eyJ") {
        let (_, found) = rest.split_at(at);
        let header = found.bytes().take_while(|b| is_base64url(*b)).count();
        if header > 8 && found.as_bytes().get(header) == Some(&b'.') {
            return true;
        }
        // Whatever begins within these characters ends where they end.
        rest = found.get(header..).unwrap_or_default();
    }
    let scheme = value.split([' ', '+', '%']).next().unwrap_or_default();
    scheme.len() < value.len()
        && ["basic", "bearer", "digest", "negotiate"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use portcullis_policy::request::{Headers, Http};
    use serde_json::json;

    use super::*;

    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln";

    fn names(names: &[&str]) -> Names {
        Names {
            all: names.contains(&"*"),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_query_is_told_as_far_as_the_configuration_says() {
        let with = |query| Options {
            query,
            ..Options::default()
        };
        let jwt = format!("/a/{JWT}/b?x={JWT}&y=1");
        for (query, path, told) in [
            (Query::Drop, "/a?b=c#d", "/a"),
            (Query::Drop, "/a", "/a"),
            (Query::Names, "/a?b=c&d&e=f=g#h", "/a?b=***&d=***&e=***"),
            (Query::Keep, "/a?b=c&d", "/a?b=c&d"),
            (
                Query::Keep,
                "/a?b=c&Access_Token=d",
                "/a?b=c&Access_Token=***",
            ),
            (Query::Keep, "/a?b=Bearer%20x", "/a?b=***"),
            (Query::Keep, jwt.as_str(), "/a/***/b?x=***&y=1"),
            (Query::Drop, jwt.as_str(), "/a/***/b"),
            (Query::Keep, "/eyJ/a.b?eyJ.=1", "/eyJ/a.b?eyJ.=1"),
        ] {
            assert_eq!(with(query).path(path), told, "{query:?} {path}");
        }
    }

    #[test]
    fn a_text_is_looked_through_once() {
        // Anew at each of these beginnings, this would take hours.
        assert!(!is_credential(&"eyJ".repeat(1 << 20)));
        assert!(is_credential(&("eyJ-eyJ ".repeat(1 << 18) + JWT)));
    }

    fn request() -> Request {
        let headers = [
            ("authorization", "Basic dTpw"),
            ("cookie", "session=1"),
            ("user-agent", "curl"),
            ("x-many", "1"),
            ("x-many", "2"),
            ("x-other", "Bearer abc"),
            ("x-own", "hush"),
            ("x-token", JWT),
        ];
        Request {
            http: Some(Http {
                headers: Headers {
                    entries: headers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                        .collect(),
                    merged: false,
                    ..Headers::default()
                },
                ..Http::default()
            }),
            jwt: Some(json!({"sub": "a", "email": "a@b", "raw": JWT, "list": [JWT], "n": 1})),
            ..Request::empty()
        }
    }

    #[test]
    fn credentials_are_not_told_whatever_is_chosen() {
        let options = Options {
            headers: names(&["*"]),
            claims: names(&["*"]),
            masked: vec!["x-own".to_owned(), "email".to_owned()],
            ..Options::default()
        };
        let request = request();
        let told = serde_json::to_value(options.headers(&request)).unwrap();
        assert_eq!(
            told,
            json!({"authorization": "***", "cookie": "***", "user-agent": "curl", "x-many": "1,2",
                "x-other": "***", "x-own": "***", "x-token": "***"})
        );
        let told = serde_json::to_value(options.claims(&request)).unwrap();
        let expected = json!({"sub": "a", "email": "***", "raw": "***", "list": "***", "n": 1});
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_told_that_was_not_chosen_and_nothing_without_end() {
        let mut request = request();
        assert!(Options::default().headers(&request).is_empty());
        assert!(Options::default().claims(&request).is_empty());
        let options = Options {
            headers: names(&["user-agent", "x-none"]),
            claims: names(&["sub"]),
            ..Options::default()
        };
        assert_eq!(options.headers(&request).len(), 1);
        assert_eq!(options.claims(&request).len(), 1);
        let entries = &mut request.http.as_mut().unwrap().headers.entries;
        entries.clear();
        for index in 0..300 {
            entries.push((format!("x-{index}"), "é".repeat(5000)));
            entries.push(("x-same".to_owned(), "v".repeat(5000)));
        }
        let options = Options {
            headers: names(&["*"]),
            ..Options::default()
        };
        let told = options.headers(&request);
        assert_eq!(told.len(), MOST);
        assert!(told.values().all(|value| value.len() <= LONGEST + 3));
    }
}
