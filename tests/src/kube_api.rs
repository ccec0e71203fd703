//! A real Kubernetes API server for one test, gone with it: etcd, kube-apiserver and five controllers in one process.
//!
//! There is no kubelet: a pod's status is what a test patches. Traps of a real server: roles and webhooks take effect within
//! 0.1 s of a change, a deleted namespace goes after some seconds, reviews of tokens are cached for ten.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::Client;
use portcullis_wire::kube::Cluster;

use crate::ports::free_address;
use crate::process::Daemon;

/// It takes three seconds; a busy machine takes longer.
const READY: Duration = Duration::from_secs(120);

/// A running API server.
#[derive(Debug)]
pub struct KubeApi {
    daemon: Daemon,
    executable: PathBuf,
    folder: PathBuf,
    flags: Vec<String>,
    address: SocketAddr,
}

impl KubeApi {
    /// Starts `executable` with its files in `folder`.
    ///
    /// # Errors
    /// It is not ready in time; the message carries the end of its log.
    pub fn start(executable: &Path, folder: &Path) -> io::Result<Self> {
        Self::start_with(executable, folder, &[])
    }

    /// The same with flags of kube-apiserver, such as `--etcd-compaction-interval=2s`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(executable: &Path, folder: &Path, flags: &[&str]) -> io::Result<Self> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let address = free_address()?;
        let daemon = run(executable, folder, address, &flags)?;
        Ok(Self {
            daemon,
            executable: executable.to_owned(),
            folder: folder.to_owned(),
            flags,
            address,
        })
    }

    /// Kills it without warning, as a crash would.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again at the same address, with the objects and certificates that it had.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> io::Result<()> {
        self.daemon.kill();
        self.daemon = run(&self.executable, &self.folder, self.address, &self.flags)?;
        Ok(())
    }

    /// The kubeconfig of the cluster's administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The end of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("apiserver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(40);
        lines.get(start..).unwrap_or_default().join("\n")
    }

    /// A client with the rights of the administrator, on the runtime that it is called on.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let cluster = Cluster {
            kubeconfig: Some(self.kubeconfig()),
            context: None,
        };
        Ok(portcullis_wire::kube::client(&cluster).await?)
    }
}

fn run(
    executable: &Path,
    folder: &Path,
    address: SocketAddr,
    flags: &[String],
) -> io::Result<Daemon> {
    let log = folder.join("kube-api.log");
    // A line of an earlier run is not ours.
    match std::fs::remove_file(&log) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut command = Command::new(executable);
    command
        .args(["-keep", "-port", &address.port().to_string(), "-dir"])
        .arg(folder)
        .arg("--")
        .args(flags);
    // It ends when its standard input does, so that none outlives a test that was killed.
    let mut daemon = Daemon::start_attached(&mut command, &log)?;
    let ready = || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.lines().any(|line| line.starts_with("ready https://"))
    };
    daemon.wait_until(READY, ready)?;
    Ok(daemon)
}
