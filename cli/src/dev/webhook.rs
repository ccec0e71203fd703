//! The admission webhook of `dev`, for the cluster of a kubeconfig.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admission::serve::start;
use crate::config::{AdmissionConfig, CertificateConfig, Config, KubernetesConfig, Statuses};
use crate::out::{self, BOLD, DIM};

/// Name of the webhook configuration, and the Secret with its authority.
const NAME: &str = "portcullis-dev";

/// How the cluster of `kubeconfig` is followed: nobody writes to it what a passer-by decides.
pub fn cluster(kubeconfig: &Path) -> KubernetesConfig {
    KubernetesConfig {
        kubeconfig: Some(kubeconfig.to_owned()),
        status: Statuses::None,
        ..KubernetesConfig::default()
    }
}

/// A webhook in this process.
pub struct Webhook {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Webhook {
    /// Serves at `listen`, and says how the cluster comes to ask it.
    ///
    /// # Errors
    /// When there is no way to the cluster, or the address cannot be had.
    pub async fn start(kubeconfig: &Path, listen: SocketAddr) -> anyhow::Result<Self> {
        let mut config = Config {
            kubernetes: Some(cluster(kubeconfig)),
            ..Config::default()
        };
        config.admission = AdmissionConfig {
            names: vec![listen.ip().to_string()],
            // Whatever is installed in the cluster keeps its own.
            webhook_configuration: Some(NAME.to_owned()),
            certificate: CertificateConfig::Secret {
                name: Some(format!("{NAME}-authority")),
                authority_ttl: None,
                certificate_ttl: None,
                lead: None,
            },
            management: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)),
            propagation: Some(Duration::from_secs(1)),
            drain_delay: Some(Duration::from_millis(100)),
            ..config.admission
        };
        let running = start(&config, Some(listen)).await?;
        let address = running.address().context("the webhook has no address")?;
        let mut out = out::stdout();
        writeln!(
            out,
            "{BOLD}admission webhook{BOLD:#} at https://{address}\n  {DIM}let the cluster ask it:{DIM:#} portcullis admission webhook-config --name {NAME} --url https://{address} --failure-policy ignore | kubectl apply -f -\n"
        )?;
        out.flush()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(running.run(async {
            // An error means that the sender is gone, which is a stop, too.
            let _ = stopped.await;
        }));
        Ok(Self { stop, running })
    }

    /// Ends it, and waits until it has ended.
    pub async fn stop(self) {
        drop(self.stop);
        let _ = self.running.await;
    }
}
