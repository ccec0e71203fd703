//! One accepted connection, whatever it runs over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portcullis_wire::AuthorityRepair;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::facts::certificate::identities_of_der;
use crate::http::Peer;
use crate::limits::Open;

/// A connection as it was accepted.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that requests come over.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    _open: Open,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    /// Clients on unix sockets may send what HTTP/2 does not take; see [`AuthorityRepair`].
    Unix(UnixStream, AuthorityRepair),
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    pub(super) fn plain(socket: Socket, open: Open) -> Self {
        Self {
            stream: match socket {
                Socket::Tcp(stream) => Stream::Tcp(stream),
                Socket::Unix(stream) => Stream::Unix(stream, AuthorityRepair::default()),
            },
            _open: open,
        }
    }

    pub(super) fn tls(stream: TlsStream<Socket>, open: Open) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            _open: open,
        }
    }

    /// Who is at the other end, as the operating system knows it, and the names of its certificate.
    pub(crate) fn peer(&self) -> Peer {
        match &self.stream {
            Stream::Tcp(stream) => at_tcp(stream),
            Stream::Unix(stream, _) => at_unix(stream),
            Stream::Tls(tls) => {
                let (socket, session) = tls.get_ref();
                let leaf = session.peer_certificates().and_then(<[_]>::first);
                // It was verified in the handshake; one that we cannot read names nobody.
                let names = leaf.and_then(|leaf| identities_of_der(leaf).ok());
                let peer = match socket {
                    Socket::Tcp(stream) => at_tcp(stream),
                    Socket::Unix(stream) => at_unix(stream),
                };
                Peer {
                    identities: names.unwrap_or_default(),
                    ..peer
                }
            }
        }
    }
}

fn at_tcp(stream: &TcpStream) -> Peer {
    Peer {
        // What a dual-stack socket calls `::ffff:10.1.1.1` is 10.1.1.1.
        address: stream.peer_addr().ok().map(|a| a.ip().to_canonical()),
        ..Peer::default()
    }
}

fn at_unix(stream: &UnixStream) -> Peer {
    Peer {
        uid: stream.peer_cred().ok().map(|peer| peer.uid()),
        ..Peer::default()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream, repair) => {
                let before = buffer.filled().len();
                ready!(Pin::new(stream).poll_read(cx, buffer))?;
                if let Some(arrived) = buffer.filled_mut().get_mut(before..) {
                    repair.repair(arrived);
                }
                Poll::Ready(Ok(()))
            }
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

macro_rules! writes {
    ($type:ty, $this:ident => $inner:expr, [$($variant:pat => $stream:ident),+]) => {
        impl AsyncWrite for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $this = self.get_mut();
                match $inner {
                    $($variant => Pin::new($stream).poll_write(cx, bytes),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = self.get_mut();
                match $inner {
                    $($variant => Pin::new($stream).poll_flush(cx),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = self.get_mut();
                match $inner {
                    $($variant => Pin::new($stream).poll_shutdown(cx),)+
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $this = self.get_mut();
                match $inner {
                    $($variant => Pin::new($stream).poll_write_vectored(cx, slices),)+
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }
        }
    };
}

writes!(Socket, this => this, [Socket::Tcp(stream) => stream, Socket::Unix(stream) => stream]);
writes!(Connection, this => &mut this.stream, [
    Stream::Tcp(stream) => stream,
    Stream::Unix(stream, _) => stream,
    Stream::Tls(stream) => stream
]);
