//! The management listener of a running service, seen from the command line.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis_authz::endpoint::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::args::ManagementArg;
use crate::config::Config;

/// How long connecting, and the beginning of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is taken whole, in bytes.
const LONGEST: usize = 16 << 20;
/// Longest line of a stream, in bytes.
const LONGEST_LINE: usize = 1 << 20;

/// The address that the arguments or the configuration name.
///
/// # Errors
/// When neither does.
pub fn endpoint(args: &ManagementArg) -> anyhow::Result<Endpoint> {
    if let Some(address) = &args.management {
        return Ok(address.parse()?);
    }
    let config = Config::load(args.config.config.as_deref())?;
    config.observe.management.context(
        "which service? name its management listener by `--management IP:PORT`, or give the `--config` \
         in which `management.address` says it",
    )
}

/// The body of `GET path`.
///
/// # Errors
/// When nobody answers, or with anything but 200.
pub async fn get(endpoint: &Endpoint, path: &str) -> anyhow::Result<Bytes> {
    let response = open(endpoint, path).await?;
    let body = timeout(PATIENCE, Limited::new(response, LONGEST).collect());
    match body.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => bail!("`{endpoint}` broke off its answer to {path}: {error}"),
        Err(_) => bail!("`{endpoint}` did not end its answer to {path} in time"),
    }
}

/// The answer to `GET path`, its body to come.
///
/// # Errors
/// When nobody answers, or with anything but 200.
pub async fn open(endpoint: &Endpoint, path: &str) -> anyhow::Result<Response<Incoming>> {
    let opened = async {
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                ask(stream.with_context(|| lost(endpoint))?, path).await
            }
            Endpoint::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                ask(stream.with_context(|| lost(endpoint))?, path).await
            }
            // Only who was started by it knows where it leads.
            Endpoint::Activated(_) => bail!(
                "`{endpoint}` is a socket that systemd hands over; name its address by `--management`"
            ),
        }
    };
    let Ok(opened) = timeout(PATIENCE, opened).await else {
        bail!("`{endpoint}` did not answer {path} in time; is it a management listener?");
    };
    let response = opened?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let words = Limited::new(response, 4096).collect().await;
    let words = words.map(|words| words.to_bytes()).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    match words.trim() {
        "" => bail!("`{endpoint}` answered {path} with {status}"),
        words => bail!("`{endpoint}` answered {path} with {status}: {words}"),
    }
}

fn lost(endpoint: &Endpoint) -> String {
    format!("cannot connect to the management listener `{endpoint}`")
}

async fn ask<S>(stream: S, path: &str) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(HOST, "portcullis")
        .body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?)
}

/// The lines of an answer, as they come.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The lines of `response`.
    #[must_use]
    pub fn of(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next line without its end; `None` when the answer has ended. Nothing is lost when the
    /// future is dropped.
    ///
    /// # Errors
    /// When the connection breaks, or a line is too long to be one.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|octet| *octet == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.buffer.len() > LONGEST_LINE {
                bail!("a line of more than {LONGEST_LINE} bytes: this is no stream of decisions");
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
