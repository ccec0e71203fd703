//! A listening unix socket: its file, its mode, and the connections it accepts.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portcullis_wire::SocketFile;
use tokio::net::UnixListener;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

use super::connection::Connection;
use super::session::{Callers, Limits, Refused};

/// Rest after a failed accept. The usual cause, too many open files, goes away by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket, open to callers from now on; they wait until it is served.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    _file: SocketFile,
}

impl Socket {
    /// Binds `path` with `mode`. The socket appears under its name with its mode, in one step; a stale one
    /// of a process that died is replaced, a live one and any other file are not.
    ///
    /// # Errors
    /// When another process listens there, something else is in the way, or the folder cannot be written.
    pub async fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let (listener, file) = portcullis_wire::bind_unix(path, mode).await?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            _file: file,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its connections, within `limits`.
    pub(crate) fn accept(self, limits: Limits) -> Incoming {
        Incoming {
            socket: self,
            callers: Callers::new(limits),
            pause: None,
        }
    }
}

/// Accepted connections; never ends by itself.
#[derive(Debug)]
pub(crate) struct Incoming {
    socket: Socket,
    callers: Arc<Callers>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.socket.listener.poll_accept(cx)) {
                Ok((stream, _)) => match self.callers.admit(&stream) {
                    Ok(session) => {
                        return Poll::Ready(Some(Ok(Connection::new(stream, session))));
                    }
                    // Closed at once, so that the caller does not wait for what will not come.
                    Err(refused @ (Refused::Full(..) | Refused::Unknown(_))) => {
                        tracing::warn!(socket = %self.socket.path.display(), reason = %refused, "a connection is refused");
                    }
                },
                // The client went away before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(socket = %self.socket.path.display(), %error, "cannot accept a connection");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn has_its_mode_and_goes_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for mode in [0o777, 0o600] {
            let socket = Socket::bind(&path, mode).await.unwrap();
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        // Dropping a std listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path, 0o777).await.unwrap();
        let error = Socket::bind(&path, 0o777).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
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
        let error = Socket::bind(&path, 0o777).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
