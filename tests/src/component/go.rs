//! Programs and files that the Go module proxy carries. A module's version is its pin: the Go checksum database vouches
//! for the content.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::step;

/// What a person needs for any of them.
pub(super) const REMEDY: &str = "Go 1.25 or newer (`go`) on PATH and a way to the Go module proxy";

/// `go` with all that it downloads and builds inside the component's folder.
fn go(folder: &Path) -> Command {
    let modules = folder.join("modules");
    let mut go = Command::new("go");
    go.env("GOBIN", folder)
        .env("GOPATH", &modules)
        .env("GOMODCACHE", modules.join("pkg/mod"))
        .env("GOCACHE", folder.join("cache"))
        .env("GOFLAGS", "-modcacherw")
        .current_dir(folder);
    go
}

/// Builds the program `package@version` into `folder`.
pub(super) fn install(folder: &Path, package: &str) -> io::Result<()> {
    step(
        go(folder)
            // Other tests run beside it.
            .args(["install", "-p", "2", "-ldflags", "-s -w", package]),
        Duration::from_secs(900),
    )?;
    // Hundreds of megabytes that nobody needs twice.
    fs::remove_dir_all(folder.join("modules"))?;
    fs::remove_dir_all(folder.join("cache"))
}

/// Hands the folder of the module `module@version` to `take`, and removes it.
pub(super) fn with_module<T>(
    folder: &Path,
    module: &str,
    take: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let told = step(
        go(folder).args(["mod", "download", "-json", module]),
        Duration::from_secs(300),
    )?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let unpacked = told
        .get("Dir")
        .and_then(serde_json::Value::as_str)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other(format!("`{module}` was not unpacked")))?;
    let taken = take(&unpacked)?;
    fs::remove_dir_all(folder.join("modules"))?;
    Ok(taken)
}
