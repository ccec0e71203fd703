//! Addresses of bundle endpoints.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use crate::trust_domain::shorten;

/// An address that bundles are fetched from: https, a host, no user information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    text: String,
    /// Without brackets.
    host: String,
    port: u16,
    path: String,
}

/// Text that is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of a bundle endpoint: {why} (SPIFFE Federation §5.2.1)")]
pub struct UrlError {
    text: String,
    why: &'static str,
}

impl FromStr for EndpointUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |why| UrlError {
            text: shorten(text),
            why,
        };
        if text.contains('#') {
            return Err(refuse("it has a fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| refuse("it is no URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(refuse("it must begin with `https://`"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("user information must not be in it"));
        }
        let host = authority.host();
        // `host:` and `host:99999` are read as "no port" by some.
        let port = match authority.as_str().len() > host.len() {
            true => authority
                .port_u16()
                .ok_or_else(|| refuse("its port is no port"))?,
            false => 443,
        };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() {
            return Err(refuse("it has no host"));
        }
        Ok(Self {
            text: text.to_owned(),
            host,
            port,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

impl EndpointUrl {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host, lower case, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `Host` of a request.
    #[must_use]
    pub fn host_header(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            443 => host,
            port => format!("{host}:{port}"),
        }
    }

    /// Where a `location` leads.
    ///
    /// # Errors
    /// When that is no address of a bundle endpoint.
    pub fn resolve(&self, location: &str) -> Result<Self, UrlError> {
        if location.contains("://") {
            return location.parse();
        }
        let origin = format!("https://{}", self.host_header());
        let text = match location {
            other if other.starts_with("//") => format!("https:{other}"),
            absolute if absolute.starts_with('/') => format!("{origin}{absolute}"),
            relative => {
                let path = self.path.split('?').next().unwrap_or_default();
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{origin}{folder}/{relative}")
            }
        };
        text.parse()
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_with_a_host_and_nobody_in_it() {
        let url: EndpointUrl = "https://Example.org:8443/bundle?x=1".parse().unwrap();
        assert_eq!(
            (url.host(), url.port(), url.path()),
            ("example.org", 8443, "/bundle?x=1")
        );
        let url: EndpointUrl = "https://[::1]".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.path()), ("::1", 443, "/"));
        for (text, why) in [
            ("http://example.org", "https"),
            ("example.org/bundle", "no URL"),
            ("https://", ""),
            ("https://user@example.org", "user information"),
            ("https://example.org:99999", "port"),
            ("https://example.org:", "port"),
            ("https://example.org/#x", "fragment"),
            ("", ""),
        ] {
            let error = text.parse::<EndpointUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_redirect_leads_to_https_only() {
        let url: EndpointUrl = "https://example.org/a/b?c".parse().unwrap();
        for (location, expected) in [
            ("/d", "https://example.org/d"),
            ("d", "https://example.org/a/d"),
            ("//other.org/d", "https://other.org/d"),
            ("https://other.org:8443/", "https://other.org:8443/"),
        ] {
            assert_eq!(url.resolve(location).unwrap().as_str(), expected);
        }
        for location in [
            "http://example.org/",
            "file:///etc/passwd",
            "https://u@example.org/",
        ] {
            assert!(url.resolve(location).is_err(), "{location}");
        }
    }
}
