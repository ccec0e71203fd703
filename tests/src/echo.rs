//! A TCP service that sends back what it gets: the upstream behind a TCP listener.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The service, for as long as it is held.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    _runtime: Runtime,
}

impl Echo {
    /// Starts on a free port of loopback.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    // A peer that goes away ends its own echo only.
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Ok(Self {
            address,
            _runtime: runtime,
        })
    }
}
