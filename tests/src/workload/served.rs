//! `portcullis ca serve` as a process of its own, with its command line beside it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::process::{self, Daemon};

const LIMIT: Duration = Duration::from_secs(60);

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub struct Served {
    executable: PathBuf,
    folder: PathBuf,
    daemon: Daemon,
}

impl Served {
    /// Starts `executable ca serve` in `folder`, with `arguments` and in an environment with `variables`.
    ///
    /// # Errors
    /// It does not come up; the message carries the end of its log.
    pub fn start(
        executable: &Path,
        folder: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> io::Result<Self> {
        let mut command = Command::new(executable);
        command
            .args(["ca", "serve", "--data", "data"])
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(folder);
        let mut daemon = Daemon::start(&mut command, &folder.join("ca.log"))?;
        let socket = folder.join("data/workload.sock");
        daemon.wait_until(LIMIT, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })?;
        Ok(Self {
            executable: executable.to_owned(),
            folder: folder.to_owned(),
            daemon,
        })
    }

    /// The admin socket.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.folder.join("data/admin.sock")
    }

    /// The socket for workloads.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("data/workload.sock")
    }

    /// The process.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Runs `portcullis` with `arguments`, against this server.
    ///
    /// # Errors
    /// It cannot be started or does not end.
    pub fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        let mut command = Command::new(&self.executable);
        command
            .args(arguments)
            .env("PORTCULLIS_CA_DATA", "data")
            .env("SPIFFE_ENDPOINT_SOCKET", self.socket())
            .current_dir(&self.folder);
        process::run(&mut command, LIMIT)
    }

    /// As [`Served::run`]; what it printed, when it went well.
    ///
    /// # Errors
    /// Its exit code is another than 0.
    pub fn ok(&self, arguments: &[&str]) -> io::Result<String> {
        let output = self.run(arguments)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(io::Error::other(format!(
            "`{}`: {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}
