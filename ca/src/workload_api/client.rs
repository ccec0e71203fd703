//! The other side of the Workload API: what a workload without a SPIFFE library does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint as GrpcEndpoint, Uri};
use tonic::{Request, Status, Streaming};
use tower::service_fn;
use zeroize::Zeroizing;

use crate::proto::workload as api;
use crate::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::{TrustDomain, shorten};
use crate::x509::chain;

/// Largest message that is read, bytes: bundles of 1,000 roots fit.
const MAX_MESSAGE: usize = 64 << 20;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where a Workload API is (SPIFFE Workload Endpoint §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadEndpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
}

/// Text that is no address of a Workload API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of a Workload API: write `unix:///path/to/socket`, a path, or `tcp://IP:port` (SPIFFE Workload Endpoint §4)"
)]
pub struct EndpointError(String);

impl FromStr for WorkloadEndpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(shorten(text));
        if let Some(address) = text.strip_prefix("tcp://") {
            return address.parse().map(Self::Tcp).map_err(|_| wrong());
        }
        let path = match text.strip_prefix("unix:") {
            // An authority, query or fragment has no place there.
            Some(rest) => match rest.strip_prefix("//") {
                Some(path) if !path.starts_with('/') => return Err(wrong()),
                Some(path) => path,
                None => rest,
            },
            None if text.contains("://") => return Err(wrong()),
            None => text,
        };
        match path.is_empty() || path.contains(['?', '#']) {
            true => Err(wrong()),
            false => Ok(Self::Unix(path.into())),
        }
    }
}

impl std::fmt::Display for WorkloadEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// An X.509-SVID as a workload has it.
#[derive(Clone)]
pub struct ReceivedX509 {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// Certificates, DER, leaf first.
    pub chain: Vec<Bytes>,
    /// Private key, PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
    /// What it is meant for; may be empty.
    pub hint: String,
}

/// The key stays out of logs.
impl std::fmt::Debug for ReceivedX509 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceivedX509")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

/// One message of FetchX509SVID: everything that the workload has from now on.
#[derive(Clone, Debug)]
pub struct X509Update {
    /// At least one; the first is the default.
    pub svids: Vec<ReceivedX509>,
    /// X.509 authorities, DER, by trust domain; that of each SVID is among them.
    pub bundles: BTreeMap<TrustDomain, Vec<Bytes>>,
}

/// A message that breaks the Workload API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Workload API sent a message that it must not send: {0} (SPIFFE Workload API §5.2.1)")]
pub struct MessageError(String);

impl X509Update {
    /// Reads a message.
    ///
    /// # Errors
    /// When a mandatory field is missing or unusable.
    pub fn read(message: api::X509svidResponse) -> Result<Self, MessageError> {
        let wrong = |what: &str| MessageError(what.to_owned());
        let mut bundles = BTreeMap::new();
        let mut svids = Vec::with_capacity(message.svids.len());
        for svid in message.svids {
            let spiffe_id = SpiffeId::parse(&svid.spiffe_id)
                .map_err(|error| MessageError(error.to_string()))?;
            let parts = |der: &Bytes| chain::split(der).map_err(|_| wrong("no certificate in DER"));
            let chain = parts(&svid.x509_svid)?;
            let bundle = parts(&svid.bundle)?;
            if chain.is_empty() || bundle.is_empty() || svid.x509_svid_key.is_empty() {
                return Err(wrong("an SVID without certificate, key or bundle"));
            }
            bundles.insert(spiffe_id.trust_domain().clone(), bundle);
            svids.push(ReceivedX509 {
                spiffe_id,
                chain,
                key: Zeroizing::new(svid.x509_svid_key.to_vec()),
                hint: svid.hint,
            });
        }
        for (name, bundle) in message.federated_bundles {
            let trust_domain =
                TrustDomain::from_input(&name).map_err(|error| MessageError(error.to_string()))?;
            let bundle = chain::split(&bundle).map_err(|_| wrong("no certificate in DER"))?;
            bundles.entry(trust_domain).or_insert(bundle);
        }
        match svids.is_empty() {
            true => Err(wrong("no SVID")),
            false => Ok(Self { svids, bundles }),
        }
    }
}

/// A Workload API that nobody answers on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach the Workload API on `{endpoint}`: {cause}")]
pub struct Unreachable {
    endpoint: String,
    cause: String,
}

/// A workload's connection.
#[derive(Clone, Debug)]
pub struct WorkloadClient {
    api: SpiffeWorkloadApiClient<Channel>,
}

impl WorkloadClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(endpoint: &WorkloadEndpoint) -> Result<Self, Unreachable> {
        let unreachable = |cause: String| Unreachable {
            endpoint: endpoint.to_string(),
            cause,
        };
        // Looked at first: tonic's error would not say what the operating system said.
        let looked = match endpoint {
            WorkloadEndpoint::Unix(path) => UnixStream::connect(path).await.map(drop),
            WorkloadEndpoint::Tcp(address) => TcpStream::connect(address).await.map(drop),
        };
        looked.map_err(|cause| unreachable(cause.to_string()))?;
        let grpc = GrpcEndpoint::from_static("http://localhost").connect_timeout(CONNECT);
        let channel = match endpoint.clone() {
            WorkloadEndpoint::Unix(path) => {
                let connector = service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move {
                        Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?))
                    }
                });
                grpc.connect_with_connector(connector).await
            }
            WorkloadEndpoint::Tcp(address) => {
                let connector = service_fn(move |_: Uri| async move {
                    Ok::<_, std::io::Error>(TokioIo::new(TcpStream::connect(address).await?))
                });
                grpc.connect_with_connector(connector).await
            }
        };
        let channel = channel.map_err(|cause| unreachable(cause.to_string()))?;
        let api = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { api })
    }

    /// FetchX509SVID: a message now, and one with every change.
    ///
    /// # Errors
    /// What the server says.
    pub async fn x509_svids(&mut self) -> Result<Streaming<api::X509svidResponse>, Status> {
        let request = secured(api::X509svidRequest {});
        Ok(self.api.fetch_x509svid(request).await?.into_inner())
    }

    /// FetchX509Bundles: a message now, and one with every change.
    ///
    /// # Errors
    /// What the server says.
    pub async fn x509_bundles(&mut self) -> Result<Streaming<api::X509BundlesResponse>, Status> {
        let request = secured(api::X509BundlesRequest {});
        Ok(self.api.fetch_x509_bundles(request).await?.into_inner())
    }

    /// FetchJWTBundles: JWK sets by trust domain, now and with every change.
    ///
    /// # Errors
    /// What the server says.
    pub async fn jwt_bundles(&mut self) -> Result<Streaming<api::JwtBundlesResponse>, Status> {
        let request = secured(api::JwtBundlesRequest {});
        Ok(self.api.fetch_jwt_bundles(request).await?.into_inner())
    }

    /// FetchJWTSVID.
    ///
    /// # Errors
    /// What the server says.
    pub async fn jwt_svids(
        &mut self,
        audience: Vec<String>,
        spiffe_id: String,
    ) -> Result<Vec<api::Jwtsvid>, Status> {
        let request = secured(api::JwtsvidRequest {
            audience,
            spiffe_id,
        });
        Ok(self.api.fetch_jwtsvid(request).await?.into_inner().svids)
    }

    /// ValidateJWTSVID.
    ///
    /// # Errors
    /// What the server says.
    pub async fn validate_jwt_svid(
        &mut self,
        audience: String,
        svid: String,
    ) -> Result<api::ValidateJwtsvidResponse, Status> {
        let request = secured(api::ValidateJwtsvidRequest { audience, svid });
        Ok(self.api.validate_jwtsvid(request).await?.into_inner())
    }
}

/// With the security header (SPIFFE Workload Endpoint §3).
fn secured<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_one_of_the_standards_forms() {
        let unix = |path: &str| Ok(WorkloadEndpoint::Unix(path.into()));
        assert_eq!("unix:///run/s.sock".parse(), unix("/run/s.sock"));
        assert_eq!("unix:/run/s.sock".parse(), unix("/run/s.sock"));
        assert_eq!("/run/s.sock".parse(), unix("/run/s.sock"));
        assert_eq!("s.sock".parse(), unix("s.sock"));
        let tcp = WorkloadEndpoint::Tcp("127.0.0.1:8000".parse().unwrap());
        assert_eq!("tcp://127.0.0.1:8000".parse(), Ok(tcp));
        for wrong in [
            "",
            "unix:",
            "unix://host/run/s.sock",
            "unix:///run/s.sock?x",
            "tcp://localhost:8000",
            "tcp://127.0.0.1",
            "http://127.0.0.1:80",
        ] {
            let error = wrong.parse::<WorkloadEndpoint>().unwrap_err().to_string();
            assert!(error.contains("§4"), "{error}");
        }
    }
}
