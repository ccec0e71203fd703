//! `portcullis authz serve` as its own process, with policies in a folder of the test.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::ports::free_address;
use crate::process::Daemon;

/// A debug build on a busy machine needs a while.
const READY: Duration = Duration::from_secs(60);

/// How often a lost race for a port is run again.
const TRIES: usize = 5;

/// A running service.
#[derive(Debug)]
pub struct Server {
    daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
    /// The folder that holds its policies: changes are picked up.
    pub policies: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
}

impl Server {
    /// Starts `executable` over the manifests (file name and text) with the further keys of `config`:
    /// `listener` adds to the one on loopback, `listeners` are more of them.
    ///
    /// # Errors
    /// It does not come up; the message carries the end of its log.
    pub fn start(
        executable: &Path,
        folder: &Path,
        manifests: &[(&str, &str)],
        config: &Value,
    ) -> io::Result<Self> {
        let policies = folder.join("policies");
        fs::create_dir_all(&policies)?;
        for (name, text) in manifests {
            fs::write(policies.join(name), text)?;
        }
        let mut last = io::Error::other("not tried");
        for _ in 0..TRIES {
            match Self::try_start(executable, folder, &policies, config) {
                Ok(server) => return Ok(server),
                // Between our look and its bind another process can take the port.
                Err(cause) if cause.to_string().contains("in use") => last = cause,
                Err(cause) => return Err(cause),
            }
        }
        Err(last)
    }

    fn try_start(
        executable: &Path,
        folder: &Path,
        policies: &Path,
        config: &Value,
    ) -> io::Result<Self> {
        let address = free_address()?;
        let mut settings = config.clone();
        let mut listener = json!({ "address": address.to_string(), "path": "normalised" });
        if let (Some(settings), Some(listener)) =
            (settings.as_object_mut(), listener.as_object_mut())
        {
            if let Some(Value::Object(given)) = settings.remove("listener") {
                listener.extend(given);
            }
            let mut listeners = vec![Value::Object(listener.clone())];
            if let Some(Value::Array(more)) = settings.remove("listeners") {
                listeners.extend(more);
            }
            settings.insert("policies".into(), json!([policies]));
            settings.insert("listeners".into(), Value::Array(listeners));
        }
        let file = folder.join("portcullis.yaml");
        // JSON is YAML.
        fs::write(&file, serde_json::to_vec_pretty(&settings)?)?;
        let daemon = Self::spawn(executable, &file, folder)?;
        let mut server = Self {
            daemon,
            address,
            policies: policies.to_owned(),
            config: file,
        };
        server.wait_until_serving()?;
        Ok(server)
    }

    fn spawn(executable: &Path, config: &Path, folder: &Path) -> io::Result<Daemon> {
        let mut command = Command::new(executable);
        command
            .args(["authz", "serve", "--config"])
            .arg(config)
            .current_dir(folder);
        Daemon::start(&mut command, &folder.join("portcullis.log"))
    }

    fn wait_until_serving(&mut self) -> io::Result<()> {
        let address = self.address;
        self.daemon.wait_until(READY, || {
            health(address).is_ok_and(|status| status == ServingStatus::Serving)
        })
    }

    /// Kills it without warning, as a crash would.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again on the same address, with the same configuration.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self, executable: &Path) -> io::Result<()> {
        self.daemon.kill();
        let folder = self.config.parent().unwrap_or(Path::new(".")).to_owned();
        self.daemon = Self::spawn(executable, &self.config, &folder)?;
        self.wait_until_serving()
    }

    /// Asks it to end, as a supervisor would; its exit code if it did within `limit`.
    ///
    /// # Errors
    /// The operating system refuses to say.
    pub fn terminate(&mut self, limit: Duration) -> io::Result<Option<i32>> {
        Ok(self
            .daemon
            .terminate(limit)?
            .and_then(|status| status.code()))
    }

    /// Replaces one manifest as a careful editor does: whole, by rename.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        let staged = self.config.with_file_name(format!("{name}.staged"));
        fs::write(&staged, text)?;
        fs::rename(staged, self.policies.join(name))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        self.daemon.log_end()
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

/// What the standard gRPC health service says of the whole server.
///
/// # Errors
/// Nobody answers.
pub fn health(address: SocketAddr) -> io::Result<ServingStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .map_err(io::Error::other)?
            .connect()
            .await
            .map_err(io::Error::other)?;
        let answer = HealthClient::new(channel)
            .check(HealthCheckRequest {
                service: String::new(),
            })
            .await;
        Ok(answer.map_err(io::Error::other)?.into_inner().status())
    };
    let limited =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), asked).await });
    limited.map_err(io::Error::other)?
}
