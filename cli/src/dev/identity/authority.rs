//! The certificate authority of `dev`, and the programs that it knows.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use portcullis_ca::ca::Options;
use portcullis_ca::entry::Entry;
use portcullis_ca::selector::Selector;
use portcullis_ca::server::{Server, ServerError, ServerOptions};
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::trust_domain::TrustDomain;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::TRUST_DOMAIN;

/// Longest path of a unix socket, bytes, with some to spare (unix(7): 107).
const LONGEST: usize = 100;

/// A running certificate authority.
pub struct Authority {
    ca: std::sync::Arc<portcullis_ca::ca::Ca>,
    folder: PathBuf,
    socket: PathBuf,
    /// Where the socket is when `folder` is too deep for one.
    elsewhere: Option<PathBuf>,
    ttl: Duration,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Authority {
    /// Starts it with its data in `folder`; services have SVIDs that live for `ttl`.
    pub async fn start(folder: &Path, ttl: Duration) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| cannot_write(folder))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
            .with_context(|| cannot_write(folder))?;
        let folder = folder.canonicalize()?;
        let mut socket = folder.join("workload.sock");
        let mut elsewhere = None;
        if socket.as_os_str().len() > LONGEST {
            let own = std::env::temp_dir().join(format!("portcullis-dev-{}", std::process::id()));
            fs::create_dir_all(&own).with_context(|| cannot_write(&own))?;
            socket = own.join("workload.sock");
            elsewhere = Some(own);
        }
        let options = ServerOptions {
            ca: Options::new(TrustDomain::new(TRUST_DOMAIN)?, relative(&folder)),
            socket: socket.clone(),
            web: Vec::new(),
            otlp: None,
            kubernetes: None,
        };
        let server = Server::start(options).await;
        let server = server.context("no certificate authority; --dir names another folder")?;
        let ca = std::sync::Arc::clone(server.ca());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(async {
            // An error means that the sender is gone, which is a stop, too.
            let _ = stopped.await;
        }));
        Ok(Self {
            ca,
            folder,
            socket,
            elsewhere,
            ttl,
            stop,
            serving,
        })
    }

    /// Where workloads connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The program of the service `name`, which has an identity by its path: as services do that are installed.
    pub async fn service(&self, name: &str) -> anyhow::Result<PathBuf> {
        let programs = self.folder.join("services");
        fs::create_dir_all(&programs).with_context(|| cannot_write(&programs))?;
        let program = programs.join(name);
        place(&program).with_context(|| cannot_write(&program))?;
        let registry = self.ca.registry();
        let uid = rustix::process::getuid().as_raw();
        let entry = Entry {
            id: String::new(),
            spiffe_id: SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{name}"))?,
            parent_id: registry.local_agent(),
            selectors: vec![
                format!("unix:path:{}", program.display()).parse::<Selector>()?,
                format!("unix:uid:{uid}").parse()?,
            ],
            x509_ttl: Some(self.ttl),
            jwt_ttl: None,
            dns_names: Vec::new(),
            federates_with: Vec::new(),
            hint: name.to_owned(),
            admin: false,
            downstream: false,
            store_svid: false,
            expires_at: None,
            revision_number: 0,
            created_at: SystemTime::UNIX_EPOCH,
        };
        // Of an earlier run, perhaps in a folder that was moved.
        let before: Vec<String> = {
            let index = registry.index();
            let ours = index.with_spiffe_id(&entry.spiffe_id);
            ours.filter(|one| one.hint == name)
                .map(|one| one.id.clone())
                .collect()
        };
        if !before.is_empty() {
            registry.delete(before, "dev").await?;
        }
        for created in registry.create(vec![entry], "dev").await? {
            created.map_err(|error| anyhow!("{error}"))?;
        }
        Ok(program)
    }

    /// Ends it.
    pub async fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.serving
            .await
            .context("the certificate authority ended")??;
        // They are linked or copied anew at each start.
        let _ = fs::remove_dir_all(self.folder.join("services"));
        if let Some(elsewhere) = &self.elsewhere {
            let _ = fs::remove_dir_all(elsewhere);
        }
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!(
        "cannot write to `{}`; choose another folder with --dir",
        path.display()
    )
}

/// The path from here, where there is one: the admin socket is below it, and paths of sockets are short.
fn relative(folder: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| Some(folder.strip_prefix(here).ok()?.to_owned()));
    below
        .filter(|below| !below.as_os_str().is_empty())
        .unwrap_or_else(|| folder.to_owned())
}

/// Puts our own program at `path`, under a name of its own.
fn place(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let ours = std::env::current_exe()?;
    // Another file system, or a file that is not ours to link.
    if fs::hard_link(&ours, path).is_err() {
        fs::copy(&ours, path)?;
    }
    Ok(())
}
