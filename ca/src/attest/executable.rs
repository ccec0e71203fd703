//! What program a process runs: its path, its file, and the file's SHA-256.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Mode, OFlags, openat, readlinkat, statat};
use tokio::sync::Semaphore;

use super::process::{AttestError, Process};

/// Digests that are remembered; a machine has fewer programs that ask for identities.
const REMEMBERED: usize = 1024;
/// How often a file is read that changes under our eyes.
const ATTEMPTS: usize = 5;
/// Files that are read at the same time.
const CONCURRENT: usize = 2;

/// The program that a process runs at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Its path as the kernel tells it, within the process's own mount namespace. A file that was replaced
    /// since the process started keeps its path: upgrading a package takes no identity away.
    pub path: Arc<str>,
    /// Which file it is.
    pub file: FileIdentity,
}

/// A file and its content, as far as the file system tells without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Executable {
    /// What `process` runs now; `None` where we are not allowed to see it (another user's process, we are not root).
    ///
    /// # Errors
    /// [`AttestError`] when the process has ended.
    pub fn of(process: &Process) -> Result<Option<Self>, AttestError> {
        let seen = readlinkat(process.folder(), "exe", Vec::with_capacity(256))
            .and_then(|path| Ok((path, statat(process.folder(), "exe", AtFlags::empty())?)));
        match seen {
            Ok((path, stat)) => Ok(Some(Self {
                path: path_of(&path.to_string_lossy(), stat.st_nlink == 0).into(),
                file: FileIdentity {
                    device: stat.st_dev,
                    inode: stat.st_ino,
                    size: stat.st_size.unsigned_abs(),
                    modified: (
                        stat.st_mtime,
                        i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
                    ),
                    changed: (
                        stat.st_ctime,
                        i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
                    ),
                },
            })),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(None),
            // Kernel threads have none; a zombie has lost it.
            Err(error) => Err(process.failed("exe", &error.into())),
        }
    }
}

/// The kernel's words without the ` (deleted)` that it appends where the file has no name left.
fn path_of(told: &str, nameless: bool) -> &str {
    told.strip_suffix(" (deleted)")
        .filter(|_| nameless)
        .unwrap_or(told)
}

impl FileIdentity {
    /// True when both are the same file, whatever became of its content and names.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// SHA-256 of executables, remembered for as long as the file does not change.
#[derive(Debug)]
pub struct Digests {
    limit: u64,
    known: Mutex<HashMap<FileIdentity, Arc<str>>>,
    reading: Semaphore,
}

impl Digests {
    /// Digests of files up to `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            known: Mutex::default(),
            reading: Semaphore::new(CONCURRENT),
        }
    }

    /// The digest of what `process` runs, lower-case hexadecimal; `None` for a file above the limit.
    ///
    /// # Errors
    /// [`AttestError`] when the process has ended, runs something else by now, or its file cannot be read.
    pub async fn of(
        &self,
        process: &Process,
        executable: &Executable,
    ) -> Result<Option<Arc<str>>, AttestError> {
        let expected = executable.file;
        if expected.size > self.limit {
            tracing::debug!(
                pid = process.pid(), path = %executable.path, size = expected.size, limit = self.limit,
                "the executable is too large for a sha256 selector"
            );
            return Ok(None);
        }
        if let Some(digest) = self.remembered(&expected) {
            return Ok(Some(digest));
        }
        // Opened now, while the process is known to run it; read in its turn.
        let fd = openat(
            process.folder(),
            "exe",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| process.failed("exe", &error.into()))?;
        let Ok(_permit) = self.reading.acquire().await else {
            return Err(AttestError::Failed("no file is read any more".to_owned()));
        };
        // Another caller of the same program may have had its turn.
        if let Some(digest) = self.remembered(&expected) {
            return Ok(Some(digest));
        }
        let digest = tokio::task::spawn_blocking(move || digest(fd, &expected))
            .await
            .map_err(|error| AttestError::Failed(error.to_string()))?
            .map_err(|error| process.failed("exe", &error))?;
        let (read, digest) = digest.ok_or(AttestError::Changed("executable"))?;
        let digest: Arc<str> = digest.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(read, Arc::clone(&digest));
        Ok(Some(digest))
    }

    fn remembered(&self, file: &FileIdentity) -> Option<Arc<str>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(file).cloned()
    }
}

/// The digest of the file and as what it was read; `None` when it is not the one that was seen, or does not hold still.
///
/// What is running cannot be written, but it gets and loses names and modes meanwhile: then it is read again.
fn digest(fd: OwnedFd, seen: &FileIdentity) -> io::Result<Option<(FileIdentity, String)>> {
    let file = File::from(fd);
    for _ in 0..ATTEMPTS {
        let now = FileIdentity::of(&file)?;
        if !now.is_same_file(seen) {
            return Ok(None);
        }
        if let Some(digest) = digest_once(&file, &now)? {
            return Ok(Some((now, digest)));
        }
    }
    Ok(None)
}

fn digest_once(mut file: &File, expected: &FileIdentity) -> io::Result<Option<String>> {
    file.rewind()?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    // A file that grows while it is read is another one by then.
    let mut rest = file.take(expected.size + 1);
    loop {
        let read = rest.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(buffer.get(..read).unwrap_or_default());
    }
    if FileIdentity::of(file)? != *expected {
        return Ok(None);
    }
    let digest = context.finish();
    Ok(Some(
        digest.as_ref().iter().map(|o| format!("{o:02x}")).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tells_our_own_program_and_its_digest() {
        let process = Process::of_pid(std::process::id()).unwrap();
        let executable = Executable::of(&process).unwrap().unwrap();
        let path = std::env::current_exe().unwrap();
        assert_eq!(&*executable.path, path.to_str().unwrap());
        let expected = ring::digest::digest(&SHA256, &std::fs::read(path).unwrap());
        let expected: String = expected
            .as_ref()
            .iter()
            .map(|o| format!("{o:02x}"))
            .collect();
        let digests = Digests::new(u64::MAX);
        for _ in 0..2 {
            let digest = digests.of(&process, &executable).await.unwrap().unwrap();
            assert_eq!(*digest, *expected);
        }
        assert_eq!(digests.known.lock().unwrap().len(), 1);
        let small = Digests::new(1000);
        assert_eq!(small.of(&process, &executable).await, Ok(None));
    }

    #[test]
    fn only_the_kernel_s_own_suffix_goes() {
        assert_eq!(path_of("/bin/a (deleted)", true), "/bin/a");
        assert_eq!(path_of("/bin/a (deleted)", false), "/bin/a (deleted)");
        assert_eq!(
            path_of("/bin/a (deleted) (deleted)", true),
            "/bin/a (deleted)"
        );
        assert_eq!(path_of("/bin/a", true), "/bin/a");
    }

    #[tokio::test]
    async fn a_file_that_gets_names_while_it_is_read_has_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        std::fs::write(&path, vec![7; 8 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        let seen = FileIdentity::of(&file).unwrap();
        // Since it was seen, and while it is read.
        std::fs::hard_link(&path, folder.path().join("name")).unwrap();
        let reading = std::thread::spawn(move || digest(file.into(), &seen));
        std::fs::hard_link(&path, folder.path().join("another")).unwrap();
        let (read, digest) = reading.join().unwrap().unwrap().unwrap();
        assert!(read.is_same_file(&seen) && read != seen);
        let expected = ring::digest::digest(&SHA256, &vec![7; 8 << 20]);
        let expected = expected.as_ref().iter().map(|o| format!("{o:02x}"));
        assert_eq!(digest, expected.collect::<String>());
    }

    #[tokio::test]
    async fn another_file_than_the_one_seen_has_no_digest() {
        let process = Process::of_pid(std::process::id()).unwrap();
        let mut executable = Executable::of(&process).unwrap().unwrap();
        executable.file.inode += 1;
        assert_eq!(
            Digests::new(u64::MAX).of(&process, &executable).await,
            Err(AttestError::Changed("executable"))
        );
    }
}
