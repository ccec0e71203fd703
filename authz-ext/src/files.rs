//! Policy files: paths in, source texts in a stable order out.
//!
//! Command line and server read through this one door, so both see the same documents. A path
//! given by name is read whatever it is called. In a folder, `.yaml`, `.yml`, `.json` and `.cedar`
//! files are read, sub-folders too; names that begin with a dot are passed over, which also skips
//! the `..data` folders of a mounted ConfigMap, whose files are reached through the links beside
//! them. A file that is reached twice is read once.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_policy::document::SourceText;

/// Largest file that is read, in bytes. The parser has a lower limit and words for it; this one
/// only keeps a stray dump or disk image out of memory.
pub const MAX_FILE_BYTES: u64 = 128 << 20;

/// Most that one set of files may hold, in bytes.
pub const MAX_TOTAL_BYTES: u64 = 512 << 20;

/// Most folders inside each other.
const MAX_DEPTH: usize = 64;

/// Most files of one set.
const MAX_FILES: usize = 200_000;

/// Why a path could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such file or folder.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It exists, but the operating system refuses.
    #[error("cannot read `{}`: {source}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A link leads back to a folder above it.
    #[error("`{}` leads back to a folder that contains it; remove the link", .0.display())]
    Loop(PathBuf),
    /// More folders inside each other than anybody means.
    #[error("`{}` is more than {MAX_DEPTH} folders deep", .0.display())]
    TooDeep(PathBuf),
    /// A socket, pipe or device in a folder of policies.
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// One file above the limit.
    #[error("`{}` is larger than {limit} bytes; it is not a policy file", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Too many files, or too many bytes together.
    #[error("`{}`: all policy files together exceed {limit}", .path.display())]
    TooMuch {
        /// The file at which the limit was passed.
        path: PathBuf,
        /// The limit in words.
        limit: String,
    },
}

/// Reads every policy file under `paths`, in the order given, folders sorted by name; `-` is
/// standard input.
///
/// # Errors
/// The first path that is missing, unreadable, or beyond a limit; nothing is passed over.
pub fn read(paths: &[PathBuf]) -> Result<Vec<SourceText>, ReadError> {
    let mut total = 0;
    list(paths)?
        .into_iter()
        .map(|entry| entry.read(&mut total))
        .collect()
}

/// What a path stands for, without its content.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Standard input.
    Stdin,
    /// A file, as the user would name it.
    File {
        /// Path through which it was reached.
        path: PathBuf,
        /// Of the file behind all links.
        metadata: Metadata,
    },
}

/// Lists every policy file under `paths` without reading it.
pub(crate) fn list(paths: &[PathBuf]) -> Result<Vec<Entry>, ReadError> {
    let mut walk = Walk::default();
    for path in paths {
        if path.as_os_str() == "-" {
            walk.entries.push(Entry::Stdin);
            continue;
        }
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
        if metadata.is_dir() {
            walk.folder(path)?;
        } else {
            walk.file(path, metadata)?;
        }
    }
    Ok(walk.entries)
}

#[derive(Default)]
struct Walk {
    entries: Vec<Entry>,
    /// Device and inode of every file, so that none is read twice.
    seen: HashSet<(u64, u64)>,
    /// Folders that we are in, behind their links.
    inside: Vec<PathBuf>,
}

impl Walk {
    fn folder(&mut self, path: &Path) -> Result<(), ReadError> {
        let real = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
        if self.inside.contains(&real) {
            return Err(ReadError::Loop(path.to_owned()));
        }
        if self.inside.len() == MAX_DEPTH {
            return Err(ReadError::TooDeep(path.to_owned()));
        }
        self.inside.push(real);
        let folder = fs::read_dir(path).map_err(|error| unreadable(path, error))?;
        let mut names = Vec::new();
        for entry in folder {
            let entry = entry.map_err(|error| unreadable(path, error))?;
            names.push(entry.file_name());
        }
        names.sort();
        for name in names {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = path.join(name);
            // Behind links. One that leads nowhere is an error: a policy may have been meant.
            let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
            if metadata.is_dir() {
                self.folder(&path)?;
            } else if !is_policy_file(&path) {
                continue;
            } else if metadata.is_file() {
                self.file(&path, metadata)?;
            } else {
                return Err(ReadError::NotAFile(path));
            }
        }
        self.inside.pop();
        Ok(())
    }

    fn file(&mut self, path: &Path, metadata: Metadata) -> Result<(), ReadError> {
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        if self.entries.len() == MAX_FILES {
            return Err(ReadError::TooMuch {
                path: path.to_owned(),
                limit: format!("{MAX_FILES} files"),
            });
        }
        self.entries.push(Entry::File {
            path: path.to_owned(),
            metadata,
        });
        Ok(())
    }
}

impl Entry {
    pub(crate) fn read(self, total: &mut u64) -> Result<SourceText, ReadError> {
        let (name, path, bytes) = match self {
            Self::Stdin => {
                let path = PathBuf::from("<stdin>");
                let bytes = bounded(io::stdin().lock(), &path, *total)?;
                ("<stdin>".to_owned(), path, bytes)
            }
            Self::File { path, metadata } => {
                if metadata.is_file() && metadata.len() > MAX_FILE_BYTES {
                    return Err(too_large(&path));
                }
                let file = File::open(&path).map_err(|error| unreadable(&path, error))?;
                let bytes = bounded(file, &path, *total)?;
                (path.to_string_lossy().into_owned(), path, bytes)
            }
        };
        *total += bytes.len() as u64;
        if *total > MAX_TOTAL_BYTES {
            return Err(too_much(path));
        }
        Ok(SourceText {
            file: Arc::from(name),
            bytes: Arc::from(bytes),
        })
    }
}

/// Reads to the end, but never much more than the limits allow: a file may grow, a pipe not end.
fn bounded(input: impl io::Read, path: &Path, total: u64) -> Result<Vec<u8>, ReadError> {
    let left = MAX_TOTAL_BYTES.saturating_sub(total);
    let mut bytes = Vec::new();
    input
        .take(MAX_FILE_BYTES.min(left) + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(path));
    }
    Ok(bytes)
}

fn too_large(path: &Path) -> ReadError {
    ReadError::TooLarge {
        path: path.to_owned(),
        limit: MAX_FILE_BYTES,
    }
}

fn too_much(path: PathBuf) -> ReadError {
    ReadError::TooMuch {
        path,
        limit: format!("{MAX_TOTAL_BYTES} bytes"),
    }
}

fn unreadable(path: &Path, source: io::Error) -> ReadError {
    if source.kind() == io::ErrorKind::NotFound {
        return ReadError::Missing(path.to_owned());
    }
    ReadError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

fn is_policy_file(path: &Path) -> bool {
    const EXTENSIONS: [&str; 4] = ["yaml", "yml", "json", "cedar"];
    path.extension().is_some_and(|extension| {
        EXTENSIONS
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests;
