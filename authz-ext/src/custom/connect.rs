//! Connections to providers, never to ourselves.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

/// Addresses of one host that are tried.
const MOST_ADDRESSES: usize = 4;

/// The provider's address is one that we listen at.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("`{0}` is this service itself")]
pub(super) struct OwnAddress(pub SocketAddr);

/// The host of `service`, which may have a namespace in front.
pub(super) fn host(service: &str) -> &str {
    service.rsplit_once('/').map_or(service, |(_, host)| host)
}

/// Host and port as a URI has them.
pub(super) fn authority(service: &str, port: u16) -> String {
    let host = host(service);
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Connects over TCP.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    own: Arc<[SocketAddr]>,
}

impl Connector {
    pub(super) fn new(own: Vec<SocketAddr>) -> Self {
        Self { own: own.into() }
    }

    /// An address of `host` at which we listen ourselves.
    pub(super) async fn own_address(&self, host: &str, port: u16) -> Option<SocketAddr> {
        if !self.own.iter().any(|own| own.port() == port) {
            return None;
        }
        let mut addresses = tokio::net::lookup_host((bare(host), port)).await.ok()?;
        addresses.find(|address| self.is_own(address))
    }

    fn is_own(&self, address: &SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.own.iter().any(|own| {
            let listening = own.ip().to_canonical();
            own.port() == address.port()
                && (listening == ip
                    || (listening.is_unspecified() && is_this_machine(address))
                    // "Anywhere here" leads to the loopback.
                    || (ip.is_unspecified() && (listening.is_loopback() || listening.is_unspecified())))
        })
    }

    async fn connect(self, host: String, port: u16) -> io::Result<TokioIo<TcpStream>> {
        let addresses = tokio::net::lookup_host((bare(&host), port)).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses.take(MOST_ADDRESSES) {
            if self.is_own(&address) {
                return Err(io::Error::other(OwnAddress(address)));
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Questions are small; waiting for more to send would cost 40 ms each.
                    let _ = stream.set_nodelay(true);
                    return Ok(TokioIo::new(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// Only an address of this machine can be bound.
fn is_this_machine(address: &SocketAddr) -> bool {
    address.ip().is_loopback() || UdpSocket::bind((address.ip(), 0)).is_ok()
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(80);
        Box::pin(self.clone().connect(host, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_by_every_name() {
        let own = |own: &str, address: &str| {
            Connector::new(vec![own.parse().unwrap()]).is_own(&address.parse().unwrap())
        };
        for (listening, address) in [
            ("127.0.0.1:9191", "127.0.0.1:9191"),
            ("127.0.0.1:9191", "[::ffff:127.0.0.1]:9191"),
            ("127.0.0.1:9191", "0.0.0.0:9191"),
            ("0.0.0.0:9191", "127.0.0.1:9191"),
            ("0.0.0.0:9191", "127.8.8.8:9191"),
            ("[::]:9191", "127.0.0.1:9191"),
            ("[::]:9191", "[::1]:9191"),
        ] {
            assert!(own(listening, address), "{listening} {address}");
        }
        for (listening, address) in [
            ("127.0.0.1:9191", "127.0.0.1:9192"),
            ("127.0.0.1:9191", "127.0.0.2:9191"),
            ("0.0.0.0:9191", "192.0.2.1:9191"),
        ] {
            assert!(!own(listening, address), "{listening} {address}");
        }
    }

    #[test]
    fn a_service_may_have_a_namespace() {
        assert_eq!(authority("a.example", 80), "a.example:80");
        assert_eq!(authority("foo/a.example", 80), "a.example:80");
        assert_eq!(authority("::1", 80), "[::1]:80");
    }
}
