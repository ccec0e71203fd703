//! A connection that must begin to speak HTTP/2 soon.
//!
//! Once it does, HTTP/2's own pings find out whether anybody is there.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The client's preface and the head of its first frame (RFC 9113 sections 3.4 and 4.1).
const GREETING: usize = 24 + 9;

/// A connection that ends when its greeting is not there in time.
#[derive(Debug)]
pub struct Prompt<C> {
    inner: C,
    wait: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<C> Prompt<C> {
    /// `inner`, whose greeting is to be there within `limit`; to be made where timers run.
    #[must_use]
    pub fn new(inner: C, limit: Duration) -> Self {
        Self {
            inner,
            wait: Some((Box::pin(sleep(limit)), GREETING)),
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Prompt<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if let Some((sleep, missing)) = &mut this.wait {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                this.wait = None;
            } else if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the HTTP/2 preface took too long",
                )));
            }
        }
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Prompt<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_greeting_is_none_and_whoever_has_greeted_may_be_silent() {
        let limit = Duration::from_secs(10);
        for said in [0, 1, GREETING - 1] {
            let (mut client, server) = tokio::io::duplex(64);
            client.write_all(&vec![0; said]).await.unwrap();
            let mut all = Vec::new();
            let ended = Prompt::new(server, limit).read_to_end(&mut all).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(all.len(), said);
        }
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&[0; GREETING]).await.unwrap();
        let mut prompt = Prompt::new(server, limit);
        prompt.read_exact(&mut [0; GREETING]).await.unwrap();
        let silent = tokio::time::timeout(limit * 100, prompt.read_u8()).await;
        assert!(silent.is_err(), "{silent:?}");
    }
}
