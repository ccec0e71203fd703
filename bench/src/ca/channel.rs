//! gRPC over a unix socket, by h2 alone: the generator is to cost little, and to decode every answer.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use prost::bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::net::UnixStream;

/// PERMISSION_DENIED: no identity.
pub const DENIED: u32 = 7;

/// One connection.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: SendRequest<Bytes>,
}

/// The messages of a call, as they come.
#[derive(Debug)]
pub struct Answers {
    body: RecvStream,
    buffer: BytesMut,
}

/// A status that is not OK.
#[derive(Debug)]
pub struct Refused {
    /// gRPC's code.
    pub code: u32,
    message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gRPC status {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refused {}

impl Channel {
    /// Connects.
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) = h2::client::Builder::new()
            // Answers of a batch are long; those of a stream are short, and come to many.
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 22)
            .data_frame_budget(1 << 30)
            .handshake(stream)
            .await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender })
    }

    /// Sends a message and waits for the head of the answer.
    pub async fn call(&self, path: &str, message: &impl Message) -> anyhow::Result<Answers> {
        let mut sender = self.sender.clone().ready().await?;
        let head = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("workload.spiffe.io", "true")
            .body(())?;
        let mut frame = BytesMut::with_capacity(message.encoded_len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut frame)?;
        let (response, mut body) = sender.send_request(head, false)?;
        body.send_data(frame.freeze(), true)?;
        let response = response.await?;
        // An answer that is a status alone is one head.
        status(response.headers())?;
        Ok(Answers {
            body: response.into_body(),
            buffer: BytesMut::new(),
        })
    }

    /// Asks, and waits for the one answer and its status.
    pub async fn unary<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
    ) -> anyhow::Result<A> {
        let mut answers = self.call(path, message).await?;
        let answer = answers.next().await?.context("no answer")?;
        let more: Option<A> = answers.next().await?;
        ensure!(more.is_none(), "more than one answer");
        Ok(answer)
    }
}

impl Answers {
    /// The next message; `None` after the last one of a call that ended well.
    pub async fn next<A: Message + Default>(&mut self) -> anyhow::Result<Option<A>> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(A::decode(message)?));
            }
            match self.body.data().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    self.body.flow_control().release_capacity(chunk.len())?;
                    self.buffer.put_slice(&chunk);
                }
                None => {
                    let trailers = self.body.trailers().await?.context("no trailers")?;
                    status(&trailers)?;
                    return Ok(None);
                }
            }
        }
    }

    fn whole(&mut self) -> anyhow::Result<Option<Bytes>> {
        let Some(head) = self.buffer.first_chunk::<5>() else {
            return Ok(None);
        };
        let [compressed, a, b, c, d] = *head;
        if compressed != 0 {
            bail!("nobody asked for compression");
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// An error for every status but OK; a head without a status is none yet.
fn status(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    match text("grpc-status") {
        None => Ok(()),
        Some(code) if code == "0" => Ok(()),
        Some(code) => Err(Refused {
            code: code.parse().unwrap_or(2),
            message: text("grpc-message").unwrap_or_default(),
        }),
    }
}
