//! The shipped examples, written where they can be edited.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_policies::examples::{BOOKSHOP, Example, File};

/// Where an example stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The folder of its manifests.
    pub folder: PathBuf,
    /// The file of its requests.
    pub requests: PathBuf,
    /// True when nothing had to be written: the user's own edits are served.
    pub found: bool,
}

/// The example that `dev` serves.
pub const EXAMPLE: Example = BOOKSHOP;

/// Writes the example below `folder`. Files that exist are kept as they are.
///
/// # Errors
/// When a file cannot be written.
pub fn place(folder: &Path) -> anyhow::Result<Placed> {
    let folder = folder.join(EXAMPLE.name);
    let mut found = true;
    for file in EXAMPLE.files.iter().chain([&EXAMPLE.requests]) {
        found &= !write(&folder, file)?;
    }
    Ok(Placed {
        requests: folder.join(EXAMPLE.requests.path),
        folder,
        found,
    })
}

/// Writes one file unless it exists; true when it was written.
fn write(folder: &Path, file: &File) -> anyhow::Result<bool> {
    let path = folder.join(file.path);
    let why = || {
        format!(
            "cannot write the examples to `{}`; choose another folder with --dir",
            path.display()
        )
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(why)?;
    }
    // create_new: an existing file, edited or not, is the user's.
    match std::fs::File::create_new(&path) {
        Ok(mut out) => {
            std::io::Write::write_all(&mut out, file.text.as_bytes()).with_context(why)?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_example_once_and_keeps_edits() {
        let folder = tempfile::tempdir().unwrap();
        let placed = place(folder.path()).unwrap();
        assert!(!placed.found && placed.requests.is_file());
        let edited = placed.folder.join("policies.yaml");
        std::fs::write(&edited, "mine").unwrap();
        assert!(place(folder.path()).unwrap().found);
        assert_eq!(std::fs::read_to_string(&edited).unwrap(), "mine");
    }
}
