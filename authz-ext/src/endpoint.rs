//! Where a listener listens: a TCP address or the path of a unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A listener's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `127.0.0.1:9191`, `[::]:9191`; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:/run/portcullis/authz.sock`, or just the absolute path.
    Unix(PathBuf),
    /// `systemd:NAME`: the socket that a service manager hands over under this name.
    Activated(String),
}

/// Text that is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on: write `127.0.0.1:9191`, `[::1]:9191`, `unix:/path/to.sock` or `systemd:NAME`"
)]
pub struct NotAnEndpoint(String);

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        if let Some(name) = text.strip_prefix("systemd:") {
            // What systemd takes for `FileDescriptorName=`.
            let plain = name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            return match !name.is_empty() && name.len() <= 255 && plain {
                true => Ok(Self::Activated(name.to_owned())),
                false => Err(NotAnEndpoint(text.to_owned())),
            };
        }
        let path = text
            .strip_prefix("unix://")
            .or_else(|| text.strip_prefix("unix:"))
            .or_else(|| text.starts_with('/').then_some(text));
        match path {
            Some(path) if path.len() > 1 => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err(NotAnEndpoint(text.to_owned())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| NotAnEndpoint(text.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Activated(name) => write!(f, "systemd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_prints_as_it_was_written() {
        for text in [
            "127.0.0.1:9191",
            "[::1]:0",
            "unix:/run/a.sock",
            "unix:relative.sock",
            "systemd:authz",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["unix:///run/a.sock", "/run/a.sock"] {
            let endpoint = text.parse::<Endpoint>().unwrap();
            assert_eq!(endpoint, Endpoint::Unix(PathBuf::from("/run/a.sock")));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in [
            "",
            "9191",
            "localhost:9191",
            "127.0.0.1",
            "unix:",
            "/",
            "127.0.0.1:99999",
            "systemd:",
            "systemd:a:b",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not an address")),
                "{error}"
            );
        }
    }
}
