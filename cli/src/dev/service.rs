//! A service of the example, in a process of its own: it gets its SVID from the Workload API, and speaks mutual TLS with it.
//!
//! The catalog asks the policy engine about every request, with the SPIFFE ID of the client's certificate as source
//! principal. The others are told over standard input what to request; all report on standard output, JSON lines.

use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use envoy_types::ext_authz::v3::pb::CheckRequest;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_authz::check_request;
use portcullis_authz::client::Client;
use portcullis_authz::endpoint::Endpoint;
use portcullis_mtls::{Identity, exact, peer_id, trust_domains};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::replay;
use crate::args::DevServiceArgs;
use crate::authz::serve::runtime;
use crate::exit::Exit;

/// How long the first identity, and any one request, may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

const REASON: &str = "x-portcullis-reason";
const POLICY: &str = "x-portcullis-policy";

/// What a service says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It has an identity, and listens where it does.
    Ready {
        /// Its SPIFFE ID.
        id: String,
        /// Where it listens.
        address: Option<SocketAddr>,
    },
    /// It has another SVID.
    Renewed {
        /// Its serial number, hexadecimal.
        serial: String,
    },
    /// What came of an order.
    Answer(Answer),
    /// It cannot go on.
    Failed(String),
}

/// A request to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Tells answers apart.
    pub number: u64,
    /// Where to.
    pub address: SocketAddr,
    /// Who has to be there.
    pub peer: String,
    /// `GET`
    pub method: String,
    /// `/books`
    pub path: String,
}

/// What came of an order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Of which.
    pub number: u64,
    /// The answer, or why there is none.
    pub outcome: Result<Outcome, String>,
}

/// What the other service answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// HTTP status.
    pub status: u16,
    /// Of the decision.
    pub reason: String,
    /// The rule that told, where one did.
    pub policy: Option<String>,
}

/// What the catalog asks the policy engine: `method` `path`, by who has the SPIFFE ID `peer`.
///
/// # Errors
/// Never with what is said here.
pub fn check(peer: &str, method: &str, path: &str) -> anyhow::Result<CheckRequest> {
    let message = serde_json::json!({"attributes": {
        "source": {"principal": peer, "address": {"socketAddress": {"address": "127.0.0.1"}}},
        "destination": {"address": {"socketAddress": {"address": "10.1.0.11", "portValue": 8080}}},
        "request": {"http": {"method": method, "path": path, "host": "catalog.shop", "scheme": "https"}},
        // What a proxy beside the catalog would state: the workload that it stands for.
        "contextExtensions": {"portcullis.workload": "shop/catalog-0"},
    }});
    let text = message.to_string();
    let line = check_request::lines(text.as_bytes()).next();
    Ok(line.context("no request")?.request?)
}

/// Runs until standard input ends, which it does with whoever started us.
///
/// # Errors
/// When there is no identity, or nothing to listen on.
pub fn run(args: &DevServiceArgs) -> anyhow::Result<Exit> {
    runtime()?.block_on(async {
        if let Err(error) = serve(args).await {
            say(&Said::Failed(format!("{error:#}")))?;
        }
        anyhow::Ok(Exit::Yes)
    })
}

/// The lines of standard input, until it ends.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    // The thread ends with the input, or with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn say(said: &Said) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(said)?)?;
    Ok(stdout.flush()?)
}

async fn serve(args: &DevServiceArgs) -> anyhow::Result<()> {
    let builder = Identity::builder().endpoint(format!("unix://{}", args.socket.display()));
    let connected = builder.hint(&args.name).timeout(PATIENCE).connect();
    let identity = connected.await?;
    let id = identity.id()?;
    let mut orders = lines();
    let Some(authz) = args.authz else {
        say(&Said::Ready {
            id: id.to_string(),
            address: None,
        })?;
        return tokio::select! {
            told = told(&identity, &mut orders) => told,
            ended = report(&identity) => ended,
        };
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Every workload of ours gets a connection; what it may request is for the policies to say.
    let clients = trust_domains([id.trust_domain().as_str()])?;
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(clients)?));
    let client = Client::connect(&Endpoint::Tcp(authz)).await?;
    say(&Said::Ready {
        id: id.to_string(),
        address: Some(listener.local_addr()?),
    })?;
    let end = async { while orders.recv().await.is_some() {} };
    tokio::select! {
        ended = accept(&listener, &acceptor, &client) => ended,
        ended = report(&identity) => ended,
        () = end => Ok(()),
    }
}

/// Tells of each new SVID.
async fn report(identity: &Identity) -> anyhow::Result<()> {
    let serial = || {
        let svid = identity.svid().ok()?;
        let leaf = svid.cert_chain().first()?.as_bytes().to_vec();
        let found = portcullis_ca::inspect::inspect(&leaf, SystemTime::now()).ok()?;
        let mut facts = found.into_iter().flat_map(|found| found.facts);
        facts
            .find(|(name, _)| *name == "Serial")
            .map(|(_, serial)| serial)
    };
    let mut updates = identity.updated();
    let mut last = serial();
    loop {
        updates.changed().await?;
        let now = serial();
        if let Some(serial) = now.clone().filter(|_| now != last) {
            say(&Said::Renewed { serial })?;
        }
        last = now;
    }
}

async fn accept(
    listener: &TcpListener,
    acceptor: &TlsAcceptor,
    client: &Client,
) -> anyhow::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        let (acceptor, client) = (acceptor.clone(), client.clone());
        tokio::spawn(async move {
            let served = async {
                let tls = acceptor.accept(socket).await?;
                answer(tls, client).await
            };
            // Whoever is refused, or leaves, is told by its own side.
            let _ = tokio::time::timeout(PATIENCE, served).await;
        });
    }
}

async fn answer(tls: TlsStream<TcpStream>, client: Client) -> anyhow::Result<()> {
    let peer = peer_id(tls.get_ref().1.peer_certificates())?.to_string();
    let service = service_fn(move |request: Request<Incoming>| {
        let (peer, client) = (peer.clone(), client.clone());
        async move { decide(&peer, client, &request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(tls), service);
    Ok(connection.await?)
}

/// What the policies say: without an answer of theirs the answer is no.
async fn decide(
    peer: &str,
    mut client: Client,
    request: &Request<Incoming>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let check = check(peer, request.method().as_str(), request.uri().path())?;
    let told = match client.check(tonic::Request::new(check)).await {
        Ok(response) => replay::said(&response),
        Err(_) => None,
    };
    let told = told.unwrap_or_default();
    let (status, text) = if told.allow {
        (StatusCode::OK, "Moby-Dick; or, The Whale\n")
    } else {
        (StatusCode::FORBIDDEN, "denied\n")
    };
    let mut response = Response::builder()
        .status(status)
        .header(REASON, told.reason);
    if let Some(policy) = told.policy {
        response = response.header(POLICY, policy);
    }
    Ok(response.body(Full::new(Bytes::from_static(text.as_bytes())))?)
}

/// Does what standard input says, until it ends.
async fn told(
    identity: &Identity,
    orders: &mut mpsc::UnboundedReceiver<String>,
) -> anyhow::Result<()> {
    while let Some(line) = orders.recv().await {
        let order: Order = serde_json::from_str(&line)?;
        let outcome = match tokio::time::timeout(PATIENCE, request(identity, &order)).await {
            Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
            Err(_) => Err("no answer in time".to_owned()),
        };
        say(&Said::Answer(Answer {
            number: order.number,
            outcome,
        }))?;
    }
    Ok(())
}

/// One request, over a connection of its own.
async fn request(identity: &Identity, order: &Order) -> anyhow::Result<Outcome> {
    let config = identity.client(exact([order.peer.as_str()])?)?;
    let socket = TcpStream::connect(order.address).await?;
    // The name proves nothing; the SPIFFE ID does.
    let name = "catalog.shop".try_into()?;
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let request = Request::builder()
        .method(order.method.as_str())
        .uri(&order.path)
        .header("host", "catalog.shop")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        body.collect().await?;
        drop(sender);
        anyhow::Ok(head)
    };
    let (head, _) = tokio::join!(exchange, connection);
    let head = head?;
    let header = |name| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    Ok(Outcome {
        status: head.status.as_u16(),
        reason: header(REASON).unwrap_or_default(),
        policy: header(POLICY),
    })
}
