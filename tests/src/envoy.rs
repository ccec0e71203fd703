//! A real Envoy in front of an ext_authz service, configured for one test and gone with it.
//!
//! Listeners bind port 0 unless told otherwise; Envoy's admin interface tells where they ended up.

pub mod config;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::client::{Client, Exchange};
use crate::process::Daemon;

/// Envoy takes under a second; a busy machine takes longer.
const READY: Duration = Duration::from_secs(60);

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    daemon: Daemon,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
    folder: PathBuf,
}

impl Envoy {
    /// Starts `executable` with `config`; its files go to `folder`.
    ///
    /// # Errors
    /// It refuses the configuration or is not ready in time; the message carries the end of its log.
    pub fn start(executable: &Path, config: &config::Config, folder: &Path) -> io::Result<Self> {
        let file = folder.join("envoy.json");
        fs::write(&file, serde_json::to_vec_pretty(&config.bootstrap())?)?;
        Self::start_file(executable, &file, folder)
    }

    /// Starts `executable` with the configuration in `file`; its other files go to `folder`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_file(executable: &Path, file: &Path, folder: &Path) -> io::Result<Self> {
        let admin_file = folder.join("envoy.admin");
        let log = folder.join("envoy.log");
        let mut command = Command::new(executable);
        command
            .arg("-c")
            .arg(file)
            .args(["--config-yaml", &config::admin().to_string()]);
        command.arg("--admin-address-path").arg(&admin_file).args([
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
            "--file-flush-interval-msec",
            "50",
        ]);
        let mut daemon = Daemon::start(&mut command, &log)?;
        let mut admin = None;
        daemon.wait_until(READY, || {
            admin = fs::read_to_string(&admin_file)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            admin.is_some_and(|admin| ask(admin, "/ready").is_ok_and(|text| text.trim() == "LIVE"))
        })?;
        let admin = admin
            .ok_or_else(|| io::Error::other("envoy did not say where its admin interface is"))?;
        let listeners = listeners(&serde_json::from_str(&ask(
            admin,
            "/listeners?format=json",
        )?)?);
        Ok(Self {
            daemon,
            admin,
            listeners,
            folder: folder.to_owned(),
        })
    }

    /// Where the listener of that name accepts connections.
    ///
    /// # Errors
    /// There is no such listener.
    pub fn listener(&self, name: &str) -> io::Result<SocketAddr> {
        let found = self.listeners.get(name).copied();
        found.ok_or_else(|| io::Error::other(format!("no listener `{name}`: {:?}", self.listeners)))
    }

    /// Sum of the counters whose name ends in `suffix`.
    ///
    /// # Errors
    /// The admin interface does not answer.
    pub fn counter(&self, suffix: &str) -> io::Result<u64> {
        let text = ask(self.admin, "/stats?type=Counters")?;
        let values = text.lines().filter_map(|line| line.rsplit_once(": "));
        Ok(values
            .filter(|(name, _)| name.ends_with(suffix))
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum())
    }

    /// The access log so far, one JSON object a request.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn access_log(&self) -> io::Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join(config::ACCESS_LOG))?;
        text.lines()
            .map(|line| serde_json::from_str(line).map_err(io::Error::other))
            .collect()
    }

    /// The end of Envoy's own log.
    #[must_use]
    pub fn log_end(&self) -> String {
        self.daemon.log_end()
    }
}

fn ask(admin: SocketAddr, path: &str) -> io::Result<String> {
    let answer = Client::plain(admin).send(&Exchange::get(path))?;
    if answer.status == 200 {
        return Ok(answer.body);
    }
    Err(io::Error::other(format!(
        "`{path}`: status {}",
        answer.status
    )))
}

fn listeners(statuses: &Value) -> BTreeMap<String, SocketAddr> {
    let list = statuses.get("listener_statuses").and_then(Value::as_array);
    let entry = |status: &Value| {
        let name = status.get("name")?.as_str()?.to_owned();
        let socket = status.pointer("/local_address/socket_address")?;
        let ip = socket.get("address")?.as_str()?.parse().ok()?;
        let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
        Some((name, SocketAddr::new(ip, port)))
    };
    list.into_iter().flatten().filter_map(entry).collect()
}
