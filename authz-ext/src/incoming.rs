//! Accepted connections of one listener, TCP or unix.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portcullis_wire::AuthorityRepair;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::endpoint::Endpoint;
use crate::http::Peer;

/// Rest after a failed accept. The usual cause, too many open files, goes away by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener: a stream of connections that never ends by itself.
#[derive(Debug)]
pub(crate) struct Incoming {
    endpoint: Endpoint,
    listener: Listener,
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

impl Incoming {
    /// Binds `endpoint`; a unix socket gets `mode` before anybody can connect.
    pub(crate) async fn bind(endpoint: &Endpoint, mode: u32) -> io::Result<Self> {
        let (endpoint, listener) = match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                (
                    Endpoint::Tcp(listener.local_addr()?),
                    Listener::Tcp(listener),
                )
            }
            Endpoint::Unix(path) => {
                let (listener, _file) = bind_unix(path, mode).await?;
                (endpoint.clone(), Listener::Unix { listener, _file })
            }
        };
        Ok(Self {
            endpoint,
            listener,
            pause: None,
        })
    }

    /// The endpoint as bound: a port of zero has become a real one.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        match &self.listener {
            Listener::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| {
                // Answers are small; waiting for more to send would cost 40 ms each.
                let _ = stream.set_nodelay(true);
                Connection::Tcp(stream)
            }),
            Listener::Unix { listener, .. } => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Connection::Unix(stream, AuthorityRepair::default())),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.poll_accept(cx)) {
                Ok(connection) => return Poll::Ready(Some(Ok(connection))),
                // The client went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %self.endpoint, %error, "cannot accept a connection");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

/// Binds beside `path`, sets the mode and renames into place: at no moment is the socket open to
/// more than `mode` says, and a stale file of a process that died is replaced.
async fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens on this socket",
                ));
            }
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is in the way; remove it",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Short, because the path of a socket must be; the process id keeps two starts apart.
    let beside = path.with_file_name(format!(".{:x}", std::process::id()));
    match std::fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&beside)?;
    let placed = std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&beside, path))
        .and_then(|()| SocketFile::of(path));
    match placed {
        Ok(file) => Ok((listener, file)),
        Err(error) => {
            let _ = std::fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// Removes the socket when dropped, unless another process has put its own in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// One accepted connection.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream, AuthorityRepair),
}

impl Connection {
    /// Who is at the other end, as the operating system knows it.
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::Tcp(stream) => Peer {
                // What a dual-stack socket calls `::ffff:10.1.1.1` is 10.1.1.1.
                address: stream.peer_addr().ok().map(|a| a.ip().to_canonical()),
                ..Peer::default()
            },
            Self::Unix(stream, _) => Peer {
                uid: stream.peer_cred().ok().map(|peer| peer.uid()),
                ..Peer::default()
            },
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    /// Nothing: who connects is the proxy, and what it asks says all that counts.
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream, repair) => {
                let before = buffer.filled().len();
                ready!(Pin::new(stream).poll_read(cx, buffer))?;
                if let Some(arrived) = buffer.filled_mut().get_mut(before..) {
                    repair.repair(arrived);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio_stream::StreamExt as _;

    use super::*;

    fn unix(path: &Path) -> Endpoint {
        Endpoint::Unix(path.to_owned())
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes_when_the_listener_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let mut incoming = Incoming::bind(&unix(&path), 0o600).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let _client = UnixStream::connect(&path).await.unwrap();
        assert!(matches!(
            incoming.next().await,
            Some(Ok(Connection::Unix(..)))
        ));
        drop(incoming);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        // Dropping a std listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Incoming::bind(&unix(&path), 0o600).await.unwrap();
        let error = Incoming::bind(&unix(&path), 0o600).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).await.is_ok());
        // One that another process put there is left alone.
        std::fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = Incoming::bind(&unix(&path), 0o600).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let nowhere = folder.path().join("no/such/a.sock");
        assert!(Incoming::bind(&unix(&nowhere), 0o600).await.is_err());
    }

    #[tokio::test]
    async fn port_zero_becomes_a_real_port() {
        let any = Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut incoming = Incoming::bind(&any, 0).await.unwrap();
        let Endpoint::Tcp(address) = incoming.endpoint().clone() else {
            panic!("a TCP endpoint");
        };
        assert_ne!(address.port(), 0);
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(matches!(
            incoming.next().await,
            Some(Ok(Connection::Tcp(_)))
        ));
    }
}
