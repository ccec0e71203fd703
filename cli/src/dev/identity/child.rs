//! A service of the example, as a child process. It ends with us, however we end: its standard input closes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::dev::service::{Order, Outcome, PATIENCE, Said};

/// A running service; killed when it is dropped.
pub struct Child {
    name: &'static str,
    _process: tokio::process::Child,
    orders: ChildStdin,
    said: mpsc::UnboundedReceiver<Said>,
    number: u64,
    id: String,
    address: Option<SocketAddr>,
}

impl Child {
    /// Starts `program` before the Workload API on `socket`, as the one that asks `authz`, if that is given.
    pub fn start(
        name: &'static str,
        program: &Path,
        socket: &Path,
        authz: Option<SocketAddr>,
        renewals: mpsc::UnboundedSender<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["dev-service", "--name", name, "--socket"])
            .arg(socket);
        if let Some(authz) = authz {
            command.args(["--authz", &authz.to_string()]);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        // A group of its own: Ctrl-C reaches us alone, and the service ends when we let go of it.
        command.process_group(0);
        let failed = || format!("cannot start the service `{}`", program.display());
        let mut process = command.spawn().with_context(failed)?;
        let (Some(orders), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("{}: no pipes", failed());
        };
        let (sender, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let sent = match serde_json::from_str(&line) {
                    Ok(Said::Renewed { serial }) => renewals.send((name, serial)).is_ok(),
                    Ok(said) => sender.send(said).is_ok(),
                    Err(_) => false,
                };
                if !sent {
                    return;
                }
            }
        });
        Ok(Self {
            name,
            _process: process,
            orders,
            said,
            number: 0,
            id: String::new(),
            address: None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its SPIFFE ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits until it has its identity.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        match self.next().await? {
            Said::Ready { id, address } => {
                (self.id, self.address) = (id, address);
                Ok(())
            }
            said => bail!("the service {} said {said:?}", self.name),
        }
    }

    /// Has it make a request; the inner error is that the request failed.
    pub async fn ask(
        &mut self,
        address: SocketAddr,
        peer: &str,
        method: &str,
        path: &str,
    ) -> anyhow::Result<Result<Outcome, String>> {
        self.number += 1;
        let mut line = serde_json::to_string(&Order {
            number: self.number,
            address,
            peer: peer.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
        })?;
        line.push('\n');
        let sent = self.orders.write_all(line.as_bytes()).await;
        sent.with_context(|| format!("the service {} has ended", self.name))?;
        loop {
            match self.next().await? {
                Said::Answer(answer) if answer.number == self.number => return Ok(answer.outcome),
                // Of a question that was given up.
                Said::Answer(_) => {}
                said => bail!("the service {} said {said:?}", self.name),
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Said> {
        let name = self.name;
        let said = tokio::time::timeout(PATIENCE * 2, self.said.recv()).await;
        let said = said.with_context(|| format!("the service {name} says nothing"))?;
        match said.with_context(|| format!("the service {name} has ended"))? {
            Said::Failed(error) => bail!("the service {name} cannot go on: {error}"),
            said => Ok(said),
        }
    }
}
