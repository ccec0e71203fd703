//! gRPC callers: frames by h2, messages encoded beforehand, so that the generator costs little.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use h2::client::SendRequest;
use http::Request;
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::load::Caller;
use crate::policies::{DIGITS, request};

const CHECK: &str = "http://authz/envoy.service.auth.v3.Authorization/Check";

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    /// The question in gRPC's frame, and where its digits are.
    question: Bytes,
    digits: usize,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Answers are small, and at a fixed rate any number of them may arrive at once.
        let mut http2 = h2::client::Builder::new();
        let http2 = http2.data_frame_budget(1 << 30);
        let (sender, connection) = http2.handshake(stream).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let message = request().encode_to_vec();
        let mut question = BytesMut::with_capacity(message.len() + 5);
        question.put_u8(0);
        question.put_u32(u32::try_from(message.len())?);
        question.put_slice(&message);
        let question = question.freeze();
        let digits = question
            .windows(DIGITS.len())
            .position(|window| window == DIGITS.as_bytes())
            .context("the digits are in the message")?;
        Ok(Self {
            sender,
            question,
            digits,
        })
    }

    fn question(&self, number: Option<u64>) -> Bytes {
        let Some(number) = number else {
            return self.question.clone();
        };
        let mut question = BytesMut::from(&*self.question);
        let digits = format!("{number:010}");
        if let Some(place) = question.get_mut(self.digits..self.digits + DIGITS.len()) {
            place.copy_from_slice(digits.as_bytes());
        }
        question.freeze()
    }
}

impl Caller for Connection {
    async fn ask(&self, number: Option<u64>) -> anyhow::Result<()> {
        let mut sender = self.sender.clone().ready().await?;
        let head = Request::post(CHECK)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, mut body) = sender.send_request(head, false)?;
        body.send_data(self.question(number), true)?;
        let mut body = response.await?.into_body();
        let mut message = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            message.put_slice(&chunk);
        }
        let trailers = body.trailers().await?.context("trailers")?;
        let status = trailers.get("grpc-status").map(|status| status.as_bytes());
        ensure!(
            status == Some(b"0"),
            "an error instead of an answer: {trailers:?}"
        );
        // CheckResponse.status (field 1) is empty on an allow: its code is zero.
        let allowed = message.get(5..7) == Some(&[0x0a, 0]);
        ensure!(allowed, "the request must be allowed: {message:?}");
        Ok(())
    }
}
