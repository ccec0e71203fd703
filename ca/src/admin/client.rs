//! The way to an admin socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// An admin socket that nobody answers on.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the certificate authority on `{}`: {cause}; is `portcullis ca serve` running, with the same --data?", path.display())]
pub struct Unreachable {
    path: PathBuf,
    cause: String,
}

/// Connects to the admin socket at `path`.
///
/// # Errors
/// When nobody answers.
pub async fn connect(path: &Path) -> Result<Channel, Unreachable> {
    let unreachable = |cause: String| Unreachable {
        path: path.to_owned(),
        cause,
    };
    // Looked at first: tonic's error would not say what the operating system said.
    UnixStream::connect(path)
        .await
        .map_err(|cause| unreachable(cause.to_string()))?;
    let socket = path.to_owned();
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .connect_with_connector(service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        }))
        .await
        .map_err(|cause| unreachable(cause.to_string()))
}
