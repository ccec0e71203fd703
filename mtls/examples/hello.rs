//! `hello serve ADDRESS ID` greets the workload ID over mutual TLS; `hello ask ADDRESS ID` asks it to.

use std::sync::Arc;

use portcullis_mtls::{Identity, exact, peer_id};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, address, peer] = &arguments[..] else {
        anyhow::bail!("usage: hello serve|ask ADDRESS SPIFFE-ID");
    };
    let identity = Identity::connect().await?; // from SPIFFE_ENDPOINT_SOCKET
    match verb.as_str() {
        "serve" => serve(&identity, address, peer).await,
        _ => ask(&identity, address, peer).await,
    }
}

async fn serve(identity: &Identity, address: &str, client: &str) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(exact([client])?)?));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut tls = acceptor.accept(socket).await?;
            let who = peer_id(tls.get_ref().1.peer_certificates())?;
            tls.write_all(format!("hello, {who}\n").as_bytes()).await?;
            tls.shutdown().await?;
            anyhow::Ok(())
        });
    }
}

async fn ask(identity: &Identity, address: &str, server: &str) -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(identity.client(exact([server])?)?));
    let socket = TcpStream::connect(address).await?;
    let mut tls = connector
        .connect("workload.invalid".try_into()?, socket)
        .await?;
    let mut said = String::new();
    tls.read_to_string(&mut said).await?;
    print!("{said}");
    Ok(())
}
