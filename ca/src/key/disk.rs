//! Keys in files: mode 0600, encrypted with AES-256-GCM.
//!
//! The encrypting key comes from a passphrase (PBKDF2, HMAC-SHA-256) or from a file of 32 random
//! bytes. Which key a file holds is authenticated with it: two key files cannot change places.

use std::fs;
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{KeyError, MemoryKey};

/// Rounds of PBKDF2 for a new salt: OWASP's figure of 2023 for HMAC-SHA-256. They are stored beside it.
const ROUNDS: u32 = if cfg!(test) { 1_000 } else { 600_000 };
/// Name of the file that holds the encrypting key, or the passphrase's salt.
const SECRET_FILE: &str = "secret";

/// What keys on disk are encrypted with.
#[derive(Clone)]
pub enum Secret {
    /// A file of 32 random bytes beside the keys, made when missing: protects copies of single files, not of the folder.
    File,
    /// A passphrase that somebody remembers, or a secret store hands out.
    Passphrase(Zeroizing<String>),
}

/// A folder of encrypted keys.
pub struct KeyFolder {
    folder: PathBuf,
    key: LessSafeKey,
}

/// What encrypts, without the key itself.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum SecretFile {
    File {
        key: String,
    },
    Pbkdf2Sha256 {
        salt: String,
        rounds: NonZeroU32,
        check: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u8,
    id: String,
    nonce: String,
    ciphertext: String,
}

impl KeyFolder {
    /// Opens `folder`, made when missing, mode 0700.
    ///
    /// # Errors
    /// When it cannot be made, the secret is damaged, or the passphrase is another one.
    pub fn open(folder: &Path, secret: &Secret) -> Result<Self, KeyError> {
        fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)))
            .map_err(|cause| failed(folder, &cause))?;
        let path = folder.join(SECRET_FILE);
        let key = match fs::read(&path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let file: SecretFile = serde_json::from_slice(&bytes)
                    .map_err(|_| failed(&path, &"it is damaged: restore it from a backup"))?;
                known_secret(&path, file, secret)?
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => new_secret(&path, secret)?,
            Err(cause) => return Err(failed(&path, &cause)),
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| KeyError::Generate)?;
        Ok(Self {
            folder: folder.to_owned(),
            key: LessSafeKey::new(key),
        })
    }

    /// Stores `key` under `id`, durably: file and folder are synced before this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, id: &str, key: &MemoryKey) -> Result<(), KeyError> {
        let path = self.path(id);
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = key.pkcs8().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(id.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| failed(&path, &"it cannot be encrypted"))?;
        let file = KeyFile {
            version: 1,
            id: id.to_owned(),
            nonce: STANDARD.encode(nonce),
            ciphertext: STANDARD.encode(sealed),
        };
        let text = serde_json::to_vec(&file).map_err(|cause| failed(&path, &cause))?;
        write_durably(&path, &text).map_err(|cause| failed(&path, &cause))
    }

    /// The key stored under `id`; `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read or decrypted.
    pub fn load(&self, id: &str) -> Result<Option<MemoryKey>, KeyError> {
        let path = self.path(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(failed(&path, &cause)),
        };
        let damaged = || failed(&path, &"it is damaged, or encrypted with another secret");
        let file: KeyFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if file.version != 1 {
            return Err(failed(&path, &"it was written by a newer version"));
        }
        let nonce = STANDARD.decode(file.nonce).map_err(|_| damaged())?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| damaged())?;
        let mut sealed = Zeroizing::new(STANDARD.decode(file.ciphertext).map_err(|_| damaged())?);
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(id.as_bytes()), &mut sealed)
            .map_err(|_| damaged())?;
        MemoryKey::from_pkcs8(Zeroizing::new(opened.to_vec())).map(Some)
    }

    /// Removes the key stored under `id`; none is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, id: &str) -> Result<(), KeyError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed(&path, &cause)),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.key"))
    }
}

fn known_secret(
    path: &Path,
    file: SecretFile,
    secret: &Secret,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let damaged = || failed(path, &"it is damaged: restore it from a backup");
    match (file, secret) {
        (SecretFile::File { key }, Secret::File) => {
            let key = Zeroizing::new(key);
            STANDARD
                .decode(key.as_bytes())
                .map(Zeroizing::new)
                .map_err(|_| damaged())
        }
        (
            SecretFile::Pbkdf2Sha256 {
                salt,
                rounds,
                check,
            },
            Secret::Passphrase(passphrase),
        ) => {
            let salt = STANDARD.decode(salt).map_err(|_| damaged())?;
            let (key, found) = derive(passphrase, &salt, rounds);
            if found != check {
                return Err(failed(
                    path,
                    &"the passphrase is not the one that the keys were encrypted with",
                ));
            }
            Ok(key)
        }
        (SecretFile::File { .. }, Secret::Passphrase(_)) => Err(failed(
            path,
            &"the keys are encrypted with this file, and a passphrase was given: start without one",
        )),
        (SecretFile::Pbkdf2Sha256 { .. }, Secret::File) => Err(failed(
            path,
            &"the keys are encrypted with a passphrase, and none was given",
        )),
    }
}

fn new_secret(path: &Path, secret: &Secret) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (key, file) = match secret {
        Secret::File => {
            let key = Zeroizing::new(random::<32>()?.to_vec());
            let text = STANDARD.encode(key.as_slice());
            (key, SecretFile::File { key: text })
        }
        Secret::Passphrase(passphrase) => {
            let salt: [u8; 16] = random()?;
            let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
            let (key, check) = derive(passphrase, &salt, rounds);
            let salt = STANDARD.encode(salt);
            (
                key,
                SecretFile::Pbkdf2Sha256 {
                    salt,
                    rounds,
                    check,
                },
            )
        }
    };
    let text = Zeroizing::new(serde_json::to_vec(&file).map_err(|cause| failed(path, &cause))?);
    write_durably(path, &text).map_err(|cause| failed(path, &cause))?;
    Ok(key)
}

/// The encrypting key, and a word that tells a wrong passphrase without telling the key.
fn derive(passphrase: &str, salt: &[u8], rounds: NonZeroU32) -> (Zeroizing<Vec<u8>>, String) {
    let mut derived = Zeroizing::new([0; 32]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        rounds,
        salt,
        passphrase.as_bytes(),
        derived.as_mut(),
    );
    let derived = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
    let key = Zeroizing::new(hmac::sign(&derived, b"portcullis keys").as_ref().to_vec());
    let check = STANDARD.encode(hmac::sign(&derived, b"portcullis check"));
    (key, check)
}

/// Writes a file of mode 0600 whole or not at all: beside it, synced, renamed, the folder synced.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyError::Generate)?;
    Ok(bytes)
}

fn failed(path: &Path, cause: &dyn std::fmt::Display) -> KeyError {
    KeyError::File {
        path: path.display().to_string(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyAlgorithm, SigningKey as _};
    use super::*;

    fn passphrase(text: &str) -> Secret {
        Secret::Passphrase(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn a_stored_key_comes_back_and_its_file_does_not_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::open(folder.path(), &Secret::File).unwrap();
        let key = MemoryKey::generate(KeyAlgorithm::P256).unwrap();
        keys.store("a", &key).unwrap();
        for name in ["a.key", "secret"] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let stored = fs::read(folder.path().join("a.key")).unwrap();
        let secret_part = STANDARD.encode(&key.pkcs8()[36..66]);
        assert!(!String::from_utf8_lossy(&stored).contains(&secret_part[..20]));
        let again = KeyFolder::open(folder.path(), &Secret::File).unwrap();
        let loaded = again.load("a").unwrap().unwrap();
        assert_eq!(loaded.public_key(), key.public_key());
        assert!(again.load("b").unwrap().is_none());
        again.remove("a").unwrap();
        again.remove("a").unwrap();
        assert!(again.load("a").unwrap().is_none());
    }

    #[test]
    fn key_files_cannot_change_places() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::open(folder.path(), &Secret::File).unwrap();
        keys.store("a", &MemoryKey::generate(KeyAlgorithm::P256).unwrap())
            .unwrap();
        fs::rename(folder.path().join("a.key"), folder.path().join("b.key")).unwrap();
        assert!(keys.load("b").unwrap_err().to_string().contains("damaged"));
        fs::write(folder.path().join("c.key"), "{}").unwrap();
        assert!(keys.load("c").is_err());
    }

    #[test]
    fn another_passphrase_is_told_before_any_key_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::open(folder.path(), &passphrase("correct horse")).unwrap();
        keys.store("a", &MemoryKey::generate(KeyAlgorithm::Ed25519).unwrap())
            .unwrap();
        let error = KeyFolder::open(folder.path(), &passphrase("battery staple"))
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("passphrase is not the one"),
            "{error}"
        );
        let error = KeyFolder::open(folder.path(), &Secret::File).err().unwrap();
        assert!(error.to_string().contains("none was given"), "{error}");
        let again = KeyFolder::open(folder.path(), &passphrase("correct horse")).unwrap();
        assert!(again.load("a").unwrap().is_some());
    }
}
