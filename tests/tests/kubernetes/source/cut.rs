//! A way to the API server that can be cut and mended.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::{Client, Config};
use portcullis_wire::kube::{Cluster, config, connect};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster;

/// A proxy of TCP on loopback.
pub struct Cut {
    address: SocketAddr,
    whole: Arc<watch::Sender<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl Cut {
    /// Leads to `cluster`, and is whole.
    pub async fn to(cluster: &cluster::Cluster) -> Self {
        let to = cluster.server.address();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let whole = Arc::new(watch::Sender::new(true));
        let followed = whole.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                connections.spawn(carry(from, to, followed.clone()));
            }
        });
        Self {
            address,
            whole,
            task,
        }
    }

    /// Ends every connection, and every new one at once, until it is mended.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.whole.send_replace(true);
    }

    /// A client that goes this way; with a bearer token, it is whom that stands for.
    pub async fn client(&self, cluster: &cluster::Cluster, token: Option<&str>) -> Client {
        let kubeconfig = Cluster {
            kubeconfig: Some(cluster.server.kubeconfig()),
            context: None,
        };
        let mut config: Config = config(&kubeconfig).await.unwrap();
        config.cluster_url = format!("https://{}", self.address).parse().unwrap();
        if let Some(token) = token {
            config.auth_info = kube::config::AuthInfo {
                token: Some(token.to_owned().into()),
                ..kube::config::AuthInfo::default()
            };
        }
        connect(config).unwrap()
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut from: TcpStream, to: SocketAddr, mut whole: watch::Receiver<bool>) {
    if !*whole.borrow_and_update() {
        return;
    }
    let Ok(mut to) = TcpStream::connect(to).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}
