//! Files that others read while we write them.

use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_ca::key::pem;
use portcullis_ca::workload_api::client::{ReceivedX509, X509Update};

use super::args::ModeArgs;

/// Certificates of the X.509-SVID, leaf first.
pub const SVID: &str = "svid.pem";
/// Its private key.
pub const KEY: &str = "svid.key";
/// X.509 authorities of its trust domain.
pub const BUNDLE: &str = "bundle.pem";
/// The JWT-SVID.
pub const TOKEN: &str = "jwt_svid.token";
/// JWT authorities of its trust domain, a JWK set.
pub const JWT_BUNDLE: &str = "jwt_bundle.json";

/// A file that is complete under another name.
struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

/// Files that appear together: all are complete on disk before the first gets its name.
pub struct Files<'a> {
    folder: &'a Path,
    modes: &'a ModeArgs,
    staged: Vec<Staged>,
}

impl<'a> Files<'a> {
    /// For `folder`, made when missing.
    pub fn new(folder: &'a Path, modes: &'a ModeArgs) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        Ok(Self {
            folder,
            modes,
            staged: Vec::new(),
        })
    }

    /// An X.509-SVID with everything that belongs to it. The bundle gets its name first: whoever reads in between never
    /// has an SVID whose root is not there.
    pub fn x509(&mut self, svid: &ReceivedX509, update: &X509Update) -> anyhow::Result<()> {
        let own = svid.spiffe_id.trust_domain();
        for (trust_domain, bundle) in &update.bundles {
            let text: String = bundle
                .iter()
                .map(|der| pem::certificate_text(der))
                .collect();
            match trust_domain == own {
                true => self.public(BUNDLE, text.as_bytes())?,
                // A trust domain's name is `[a-z0-9._-]`: it can be no other path.
                false => self.public(&format!("federated.{trust_domain}.pem"), text.as_bytes())?,
            }
        }
        self.secret(KEY, pem::private_key_text(&svid.key).as_bytes())?;
        let chain = svid.chain.iter().map(|der| pem::certificate_text(der));
        self.public(SVID, chain.collect::<String>().as_bytes())
    }

    /// A file that others may read.
    pub fn public(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        self.stage(name, content, self.modes.cert_mode)
    }

    /// A file that only the owner may read.
    pub fn secret(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        self.stage(name, content, self.modes.key_mode)
    }

    fn stage(&mut self, name: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.{}", std::process::id()));
        write(&temporary, content, mode)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        self.staged.push(Staged { temporary, path });
        Ok(())
    }

    /// Gives all of them their names.
    pub fn publish(mut self) -> anyhow::Result<()> {
        for staged in std::mem::take(&mut self.staged) {
            std::fs::rename(&staged.temporary, &staged.path)
                .with_context(|| format!("cannot write `{}`", staged.path.display()))?;
        }
        // The names, too, survive a power cut.
        std::fs::File::open(self.folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot write `{}`", self.folder.display()))
    }
}

/// What was not published is nobody's.
impl Drop for Files<'_> {
    fn drop(&mut self) {
        for staged in &self.staged {
            let _ = std::fs::remove_file(&staged.temporary);
        }
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Left behind by one that was killed; its mode may be another.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The umask may have taken some of it away.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}
