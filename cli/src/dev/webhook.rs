//! The admission webhook of `dev`, for the cluster of a kubeconfig.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admission::serve::start;
use crate::config::{Config, KubernetesConfig};
use crate::out::{self, BOLD, DIM};

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
            kubernetes: Some(KubernetesConfig {
                kubeconfig: Some(kubeconfig.to_owned()),
                ..KubernetesConfig::default()
            }),
            ..Config::default()
        };
        config.admission.names = vec![listen.ip().to_string()];
        config.admission.drain_delay = Some(Duration::from_millis(100));
        let running = start(&config, Some(listen)).await?;
        let address = running.address().context("the webhook has no address")?;
        let mut out = out::stdout();
        writeln!(
            out,
            "{BOLD}admission webhook{BOLD:#} at https://{address}\n  {DIM}let the cluster ask it:{DIM:#} portcullis admission webhook-config --url https://{address} --failure-policy ignore | kubectl apply -f -\n"
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
