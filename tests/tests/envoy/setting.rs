//! What the scenarios share: certificates, and Envoy with the listeners of one test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_tests::authority::{Authority, Leaf, Names, tls_client};
use portcullis_tests::client::Client;
use portcullis_tests::component;
use portcullis_tests::echo::Echo;
use portcullis_tests::envoy::Envoy;
use portcullis_tests::envoy::config::{Config, Listener, Service};

/// The command line as this build made it.
pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

/// SPIFFE ID of the workload that Envoy stands before.
pub const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The authority of a test and the server's certificate.
pub struct Identities {
    pub authority: Authority,
    pub server: Leaf,
}

impl Identities {
    pub fn new() -> Self {
        let authority = Authority::new().unwrap();
        let server = authority.leaf(&Names::spiffe(WEB)).unwrap();
        Self { authority, server }
    }

    /// A client of `address` that shows a certificate with these names.
    pub fn client(&self, address: SocketAddr, names: &Names) -> Client {
        let leaf = self.authority.leaf(names).unwrap();
        Client::tls(address, &tls_client(Some(&leaf)).unwrap())
    }

    /// A client of `address` that shows this SPIFFE ID.
    pub fn workload(&self, address: SocketAddr, id: &str) -> Client {
        self.client(address, &Names::spiffe(id))
    }

    /// A TLS client without a certificate.
    pub fn anonymous(&self, address: SocketAddr) -> Client {
        let config: Arc<_> = tls_client(None).unwrap();
        Client::tls(address, &config)
    }
}

/// Envoy and the upstream behind its TCP listeners; the folder keeps their logs.
pub struct Front {
    pub envoy: Envoy,
    _upstream: Echo,
}

impl Front {
    pub fn start(
        executable: &Path,
        folder: &Path,
        service: Service,
        listeners: Vec<Listener>,
    ) -> Self {
        let upstream = Echo::start().unwrap();
        let config = Config {
            authorization: service,
            upstream: Some(upstream.address),
            folder: folder.to_owned(),
            listeners,
        };
        let envoy =
            Envoy::start(executable, &config, folder).unwrap_or_else(|cause| panic!("{cause}"));
        Self {
            envoy,
            _upstream: upstream,
        }
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        self.envoy.listener(listener).unwrap()
    }
}

/// The Envoy executable; `None` when the test is skipped.
pub fn envoy() -> Option<PathBuf> {
    component::require(component::envoy())
}

/// A running pod `name` with the label `app: name` and a service account of that name, as YAML.
pub fn pod(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {{ app: {name} }}\n\
         spec: {{ serviceAccountName: {name} }}\nstatus: {{ phase: Running }}\n"
    )
}
