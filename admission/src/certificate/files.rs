//! A certificate in files, as cert-manager's Secret is mounted; read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use super::{Error, Material, Source};
use crate::metrics::{Metrics, count};

/// Largest file that is read.
const LARGEST: u64 = 1 << 20;
/// How often the files are looked at: kubelets renew mounted Secrets once a minute.
const LOOK: Duration = Duration::from_secs(2);

/// Where they are; all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, intermediate ones after it.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
    /// The roots for the `caBundle`; `None` where somebody else puts them there.
    pub roots: Option<PathBuf>,
}

impl Files {
    /// Reads them and follows their changes until the receiver is gone.
    ///
    /// # Errors
    /// [`Error::File`] when they cannot be used at the start.
    pub fn follow(
        self,
        metrics: Arc<Metrics>,
    ) -> Result<(Source, impl Future<Output = ()> + Send), Error> {
        let mut read = self.read()?;
        let first = self.material(&read)?;
        let (sender, receiver) = watch::channel(Some(Arc::new(first)));
        let following = async move {
            let mut said = String::new();
            loop {
                tokio::time::sleep(LOOK).await;
                if sender.is_closed() {
                    return;
                }
                let files = self.clone();
                let now = tokio::task::spawn_blocking(move || files.read()).await;
                let Ok(now) = now else { continue };
                let found = now.and_then(|now| {
                    if now == read {
                        return Ok(None);
                    }
                    let material = self.material(&now)?;
                    read = now;
                    Ok(Some(material))
                });
                match found {
                    Ok(None) => said.clear(),
                    Ok(Some(material)) => {
                        said.clear();
                        sender.send_replace(Some(Arc::new(material)));
                    }
                    // A certificate without its new key is no news until it stays so.
                    Err(error) if said != error.to_string() => {
                        said = error.to_string();
                        count(&metrics.certificates_failed);
                        tracing::error!(%error, "a new certificate is refused: the one before it stays in force");
                    }
                    Err(_) => {}
                }
            }
        };
        Ok((receiver, following))
    }

    fn read(&self) -> Result<Vec<Vec<u8>>, Error> {
        let paths = [
            Some(&self.certificate),
            Some(&self.key),
            self.roots.as_ref(),
        ];
        paths
            .into_iter()
            .flatten()
            .map(|path| octets(path))
            .collect()
    }

    fn material(&self, read: &[Vec<u8>]) -> Result<Material, Error> {
        let wrong = |path: &Path, cause: String| Error::File {
            path: path.display().to_string(),
            cause,
        };
        let certificates = |path: &Path, octets: Option<&Vec<u8>>| {
            let octets = octets.map(Vec::as_slice).unwrap_or_default();
            let all = CertificateDer::pem_slice_iter(octets).collect::<Result<Vec<_>, _>>();
            match all {
                Ok(all) if all.is_empty() => Err(wrong(path, "no certificate is in it".to_owned())),
                Ok(all) => Ok(all),
                Err(cause) => Err(wrong(path, cause.to_string())),
            }
        };
        let chain = certificates(&self.certificate, read.first())?;
        let key = read.get(1).map(Vec::as_slice).unwrap_or_default();
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong(&self.key, e.to_string()))?;
        let roots = match &self.roots {
            None => Vec::new(),
            Some(path) => certificates(path, read.get(2))?,
        };
        let material = Material { chain, key, roots };
        material
            .server_config()
            .map_err(|e| wrong(&self.certificate, e.to_string()))?;
        Ok(material)
    }
}

fn octets(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let wrong = |cause: String| Error::File {
        path: path.display().to_string(),
        cause,
    };
    let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    let mut octets = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut octets);
    read.map_err(|e| wrong(e.to_string()))?;
    if octets.len() as u64 > LARGEST {
        return Err(wrong(format!("longer than {LARGEST} octets")));
    }
    Ok(octets)
}
