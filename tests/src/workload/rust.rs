//! The workload in Rust, by the crate `spiffe` and our configurations for `rustls`, in this process.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use portcullis_mtls::{Identity, any, exact};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use spiffe::{JwtSource, WorkloadApiClient};
use tokio::runtime::Runtime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Workload;

const LIMIT: Duration = Duration::from_secs(30);

/// A workload in this process.
pub struct RustWorkload {
    runtime: Runtime,
    identity: Identity,
    jwt: JwtSource,
    api: WorkloadApiClient,
}

impl RustWorkload {
    /// Connects to the Workload API on `socket`.
    ///
    /// # Errors
    /// It has no identity in time.
    pub fn start(socket: &Path) -> Result<Self> {
        let address = format!("unix:{}", socket.display());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (identity, jwt, api) = runtime.block_on(async {
            let both = async {
                let identity = Identity::builder().endpoint(&address).connect().await?;
                let jwt = JwtSource::builder().endpoint(&address).build().await?;
                let api = WorkloadApiClient::connect_to(&address).await?;
                anyhow::Ok((identity, jwt, api))
            };
            tokio::time::timeout(LIMIT, both).await?
        })?;
        Ok(Self {
            runtime,
            identity,
            jwt,
            api,
        })
    }

    fn svid(&self) -> Result<Value> {
        let context = self.identity.source().x509_context()?;
        let svid = self.identity.svid()?;
        let leaf = svid.cert_chain().first().context("a chain")?;
        let (_, leaf) = X509Certificate::from_der(leaf.as_bytes())?;
        let bundle = context.bundle_set();
        let bundle = bundle
            .get(svid.spiffe_id().trust_domain())
            .context("a bundle")?;
        let serial = leaf.raw_serial();
        // The sign's octet is none of the number's.
        let digits = serial.iter().skip_while(|octet| **octet == 0);
        Ok(json!({
            "id": svid.spiffe_id().to_string(),
            "serial": digits.map(|octet| format!("{octet:02x}")).collect::<String>(),
            "roots": bundle.authorities().len(),
        }))
    }

    fn changed(&self, serial: &str) -> Result<Value> {
        let start = Instant::now();
        loop {
            let now = self.svid()?;
            if now.get("serial").and_then(Value::as_str) != Some(serial) {
                return Ok(now);
            }
            anyhow::ensure!(start.elapsed() < LIMIT, "the SVID does not change");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn listen(&self) -> Result<Value> {
        let config = Arc::new(self.identity.server(any())?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let config = Arc::clone(&config);
                let serve = move || -> Result<()> {
                    connection.set_read_timeout(Some(LIMIT))?;
                    let mut tls = StreamOwned::new(ServerConnection::new(config)?, &connection);
                    let mut question = [0; 4];
                    tls.read_exact(&mut question)?;
                    tls.write_all(b"pong")?;
                    tls.conn.send_close_notify();
                    Ok(tls.flush()?)
                };
                if let Err(error) = serve() {
                    eprintln!("rust: {error:#}");
                }
            }
        });
        Ok(json!({ "address": address.to_string() }))
    }

    /// Says `ping` to the workload `id`; returns what it said and its certificate, DER.
    ///
    /// # Errors
    /// The handshake fails, or it is another workload.
    pub fn dial(&self, address: &str, id: &str) -> Result<(String, Vec<u8>)> {
        let question = b"ping";
        let mut tls = self.connect(address, id)?;
        tls.write_all(question)?;
        let mut said = [0; 4];
        tls.read_exact(&mut said)?;
        let peer = tls.conn.peer_certificates().and_then(<[_]>::first);
        let peer = peer.context("the peer has a certificate")?.to_vec();
        Ok((String::from_utf8_lossy(&said).into_owned(), peer))
    }

    /// A connection to the workload `id`.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(
        &self,
        address: &str,
        id: &str,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let config = self.identity.client(exact([id])?)?;
        let connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(LIMIT))?;
        let name = ServerName::try_from("workload.invalid")?;
        let client = ClientConnection::new(Arc::new(config), name)?;
        Ok(StreamOwned::new(client, connection))
    }

    fn answer(&self, order: &str) -> Result<Value> {
        let words: Vec<&str> = order.split(' ').collect();
        match *words {
            ["svid"] => self.svid(),
            ["changed", serial] => self.changed(serial),
            ["jwt", audience] => {
                let svid = self.runtime.block_on(self.jwt.fetch_jwt_svid([audience]))?;
                Ok(json!({ "id": svid.spiffe_id().to_string(), "token": svid.token() }))
            }
            // The crate verifies tokens itself only with back ends that we keep out of the tree.
            ["verify" | "validate", audience, token] => {
                let validated = self.api.validate_jwt_token(audience, token);
                let svid = self.runtime.block_on(validated)?;
                Ok(json!({ "id": svid.spiffe_id().to_string() }))
            }
            ["listen"] => self.listen(),
            ["dial", address, id] => Ok(json!({ "said": self.dial(address, id)?.0 })),
            _ => anyhow::bail!("unknown order"),
        }
    }
}

impl Workload for RustWorkload {
    fn language(&self) -> &'static str {
        "rust"
    }

    fn ask(&mut self, order: &str) -> io::Result<Value> {
        self.answer(order)
            .map_err(|error| io::Error::other(format!("rust: {error:#}")))
    }
}
