//! HTTP/1 callers, as Traefik's forwardAuth asks.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::load::Caller;

/// One connection: one question at a time.
#[derive(Clone, Debug)]
pub struct Connection {
    sender: Arc<Mutex<SendRequest<Empty<Bytes>>>>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self {
            sender: Arc::new(Mutex::new(sender)),
        })
    }
}

impl Caller for Connection {
    async fn ask(&self, number: Option<u64>) -> anyhow::Result<()> {
        let question = Request::get("/")
            .header("host", "authz")
            .header("x-forwarded-method", "GET")
            .header(
                "x-forwarded-uri",
                format!("/plain/{:010}", number.unwrap_or(0)),
            )
            .header("x-forwarded-host", "shop.example.com")
            .header("x-forwarded-proto", "https")
            .header("accept", "*/*")
            .header("user-agent", "portcullis-bench")
            .body(Empty::new())?;
        let mut sender = self.sender.lock().await;
        sender.ready().await?;
        let answer = sender.send_request(question).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        ensure!(status == 200, "the request must be allowed: {status}");
        Ok(())
    }
}
