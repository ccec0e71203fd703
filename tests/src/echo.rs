//! The workload behind Envoy: it sends back what it gets, over TCP or HTTP.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Longest head of a request that the HTTP echo reads.
const LONGEST_HEAD: usize = 64 << 10;

/// The workload, for as long as it is held.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    _runtime: Runtime,
}

impl Echo {
    /// Over TCP: every octet comes back.
    ///
    /// # Errors
    /// No port of loopback can be bound.
    pub fn start() -> io::Result<Self> {
        Self::serving(async |stream| {
            let (mut read, mut write) = stream.into_split();
            tokio::io::copy(&mut read, &mut write).await.map(drop)
        })
    }

    /// Over HTTP/1.1: the body of the answer is the head of the request; bodies of requests are not read.
    ///
    /// # Errors
    /// No port of loopback can be bound.
    pub fn http() -> io::Result<Self> {
        Self::serving(heads)
    }

    fn serving<F, R>(serve: F) -> io::Result<Self>
    where
        F: Fn(TcpStream) -> R + Copy + Send + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A peer that goes away ends its own connection only.
                tokio::spawn(serve(stream));
            }
        });
        Ok(Self {
            address,
            _runtime: runtime,
        })
    }
}

async fn heads(mut stream: TcpStream) -> io::Result<()> {
    const END: &[u8] = b"\r\n\r\n";
    let mut buffer = Vec::new();
    loop {
        let end = buffer.windows(END.len()).position(|window| window == END);
        if let Some(end) = end {
            let head: Vec<u8> = buffer.drain(..end + END.len()).collect();
            let start = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
            stream
                .write_all(&[start.as_bytes(), &head].concat())
                .await?;
        } else if buffer.len() > LONGEST_HEAD || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
