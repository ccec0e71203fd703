//! Addresses: which are asked, and where they lead.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hyper::Uri;
use tokio::net::TcpStream;

/// Addresses of one host that are tried.
const MOST_ADDRESSES: usize = 4;

/// A host that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// Lower case; `*.` in front stands for any labels.
    host: String,
    /// `None`: the scheme's own.
    port: Option<u16>,
}

impl std::str::FromStr for AllowedHost {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let bad = || BadHost(text.to_owned());
        let (host, port) = match text.rsplit_once(':') {
            // A colon inside an address in brackets is no port.
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| bad())?))
            }
            _ => (text, None),
        };
        let name = host.strip_prefix("*.").unwrap_or(host);
        let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        let ok = match address {
            Some(address) => address.parse::<IpAddr>().is_ok(),
            None => {
                let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                !name.is_empty() && name.chars().all(letter)
            }
        };
        if !ok || port == Some(0) {
            return Err(bad());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// What is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host; write `HOST`, `HOST:PORT` or `*.HOST`, without scheme and path")]
pub struct BadHost(pub String);

impl AllowedHost {
    pub(super) fn allows(&self, target: &Target) -> bool {
        let host = match self.host.strip_prefix("*.") {
            Some(suffix) => target
                .host
                .strip_suffix(suffix)
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
            None => self.host == target.host,
        };
        host && self.port.unwrap_or(target.scheme.port()) == target.port
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An address that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    /// Lower case, an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Option<Self> {
        let url = url.split('#').next().unwrap_or_default();
        let uri: Uri = url.parse().ok()?;
        let scheme = match uri.scheme_str()? {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None => scheme.port(),
        };
        // `host:` and `host:99999` are read as "no port" by some.
        let written = authority.as_str().len() > host.len();
        if host.is_empty() || (written && authority.port_u16().is_none()) {
            return None;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Some(Self {
            scheme,
            host,
            port,
            path,
        })
    }

    pub(super) fn is_this_machine(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let host = self.host.trim_matches(['[', ']']);
        let addresses = tokio::net::lookup_host((host, self.port)).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses.take(MOST_ADDRESSES) {
            if let Err(error) = self.permit(&address) {
                last = error;
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A name says nothing about where it leads.
    fn permit(&self, address: &SocketAddr) -> io::Result<()> {
        let literal = self.host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        let link_local = match address.ip().to_canonical() {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
        };
        if link_local && !literal {
            return refused("the host's address is link-local");
        }
        if self.scheme == Scheme::Http && !address.ip().to_canonical().is_loopback() {
            return refused("only https is fetched from another machine");
        }
        Ok(())
    }

    /// Where a `location` leads.
    pub(super) fn resolve(&self, location: &str) -> String {
        if location.contains("://") {
            return location.to_owned();
        }
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if location.starts_with("//") {
            return format!("{scheme}:{location}");
        }
        let (host, port) = (&self.host, self.port);
        if location.starts_with('/') {
            return format!("{scheme}://{host}:{port}{location}");
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{host}:{port}{folder}/{location}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_host_is_refused() {
        for host in [
            "",
            "https://a",
            "a/b",
            "a b",
            "a:b",
            "a:0",
            "*",
            "*.",
            "[::1",
            "[x]",
            "a@b",
        ] {
            assert!(host.parse::<AllowedHost>().is_err(), "{host}");
        }
    }

    #[test]
    fn a_redirect_leads_where_a_browser_would_go() {
        let target = Target::parse("https://a.example/x/y?q").unwrap();
        for (location, expected) in [
            ("https://b.example/z", "https://b.example/z"),
            ("//b.example/z", "https://b.example/z"),
            ("/z", "https://a.example:443/z"),
            ("z?r", "https://a.example:443/x/z?r"),
        ] {
            assert_eq!(target.resolve(location), expected);
        }
    }
}
