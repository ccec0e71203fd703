//! Portcullis with a listener for each proxy, every proxy that can be had before it, one workload behind all.

use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_tests::authority::{Authority, Names, tls_client};
use portcullis_tests::client::Client;
use portcullis_tests::component::run_folder;
use portcullis_tests::echo::Echo;
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use serde_json::{Value, json};

use crate::proxy::{Kind, Proxy, Surroundings, certificates};

pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

pub const ALICE: &str = "spiffe://cluster.local/ns/shop/sa/alice";

pub const WEB: &str = "{ apiVersion: apps/v1, kind: Deployment, metadata: { name: web, namespace: shop }, \
    spec: { template: { metadata: { labels: { app: web } }, spec: { serviceAccountName: web } } } }\n";

pub struct Stage {
    pub server: Server,
    pub proxies: Vec<Proxy>,
    /// Where Portcullis listens for each kind.
    pub asked: Vec<(Kind, SocketAddr)>,
    pub authority: Authority,
    _workload: Echo,
}

impl Stage {
    /// With the mesh's normalisation `mode` and these policies.
    pub fn start(name: &str, mode: &str, policies: &str) -> Self {
        let folder: PathBuf = run_folder(name);
        let asked: Vec<(Kind, SocketAddr)> = Kind::ALL
            .map(|kind| (kind, free_address().unwrap()))
            .to_vec();
        let listeners: Vec<Value> = asked
            .iter()
            .map(|(kind, address)| kind.listener(*address))
            .collect();
        let config = json!({
            "default_workload": "shop/web",
            "mesh": { "pathNormalization": { "normalization": mode } },
            "listeners": listeners,
        });
        let manifests = [("policies.yaml", policies), ("web.yaml", WEB)];
        let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
            .unwrap_or_else(|cause| panic!("{cause}"));
        let authority = Authority::new().unwrap();
        let certificates = certificates(&folder, &authority);
        let workload = Echo::http().unwrap();
        let start = |(kind, address): &(Kind, SocketAddr)| {
            let around = Surroundings {
                portcullis: *address,
                workload: workload.address,
                certificates: &certificates,
                config: &server.config,
            };
            Proxy::start(name, *kind, &around)
        };
        let proxies: Vec<Proxy> = asked.iter().filter_map(start).collect();
        Self {
            server,
            proxies,
            asked,
            authority,
            _workload: workload,
        }
    }

    /// A client of `address` over TLS that shows `id`, or nothing.
    pub fn tls(&self, address: SocketAddr, id: Option<&str>) -> Client {
        let leaf = id.map(|id| self.authority.leaf(&Names::spiffe(id)).unwrap());
        let mut client = Client::tls(address, &tls_client(leaf.as_ref()).unwrap());
        // Caddy wants the name of the handshake to be that of the request.
        client.sni = Some("example.com".to_owned());
        client
    }
}
