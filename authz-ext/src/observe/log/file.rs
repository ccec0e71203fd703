//! A file that never grows beyond a size: `log`, `log.1`, `log.2` and so on, the oldest last.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often somebody else's rotation is looked for, and a file that is not there is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// Who may read the log: not everybody.
const MODE: u32 = 0o640;

/// When a file is put aside, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Longest file, in bytes.
    pub bytes: u64,
    /// Files that are kept beside the one that is written.
    pub keep: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            bytes: 100 << 20,
            keep: 5,
        }
    }
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// `None` until it can be opened.
    open: Option<Opened>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Opened {
    file: File,
    identity: (u64, u64),
    /// Pipes and devices have none.
    size: Option<u64>,
}

impl LogFile {
    /// Opens the file now, so that a mistake shows at start; a pipe, which waits for its reader, later.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let waits = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let mut file = Self {
            path: path.to_owned(),
            rotation,
            open: None,
            looked: None,
        };
        if !waits {
            file.open = Some(Opened::open(path)?);
            file.looked = Some(Instant::now());
        }
        Ok(file)
    }

    pub(super) fn room(&self) -> u64 {
        let size = self.open.as_ref().and_then(|open| open.size);
        match size {
            // An empty file takes a line of any length.
            None | Some(0) => u64::MAX,
            Some(size) => self.rotation.bytes.saturating_sub(size),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.look()?;
        let Some(open) = &mut self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = open.file.write(bytes)?;
        if let Some(size) = &mut open.size {
            *size += u64::try_from(written).unwrap_or(u64::MAX);
        }
        Ok(written)
    }

    /// Opens the file if it is not open, or no longer what its path names.
    fn look(&mut self) -> io::Result<()> {
        let recent = self.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if recent {
            return Ok(());
        }
        let named = std::fs::metadata(&self.path).ok();
        let named = named.map(|metadata| (metadata.dev(), metadata.ino()));
        let open = self.open.as_ref().map(|open| open.identity);
        if open.is_none() || named != open {
            // What is open stays, should there be no other.
            let opened = Opened::open(&self.path);
            self.looked = Some(Instant::now());
            match (opened, &self.open) {
                (Ok(opened), _) => self.open = Some(opened),
                (Err(_), Some(_)) => {}
                (Err(error), None) => return Err(error),
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    pub(super) fn rotate(&mut self) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.size.is_none()) {
            return Ok(());
        }
        for number in (1..self.rotation.keep).rev() {
            moved(&self.numbered(number), &self.numbered(number + 1))?;
        }
        match self.rotation.keep {
            0 => std::fs::remove_file(&self.path)?,
            _ => moved(&self.path, &self.numbered(1))?,
        }
        self.open = Some(Opened::open(&self.path)?);
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name: OsString = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn moved(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.is_file().then_some(metadata.len()),
            file,
        })
    }
}
