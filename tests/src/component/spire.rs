//! SPIRE's own command line, from its Go module; the list of its commands is in `tests/clients/spire`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Recipe, step, workspace};

const RECIPE: Recipe = Recipe {
    name: "spire-server-1.15.2",
    executable: "spire-server",
    remedy: "Go 1.26 or newer (`go`) on PATH and a way to the Go module proxy",
    make,
};

/// The `spire-server` executable, without the command that runs a server.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn spire_server() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    for file in ["main.go", "go.mod", "go.sum"] {
        let from = workspace().join("tests/clients/spire").join(file);
        fs::copy(from, folder.join(file))?;
    }
    let (modules, cache) = (folder.join("modules"), folder.join("cache"));
    step(
        Command::new("go")
            .args(["build", "-mod=readonly", "-modcacherw", "-trimpath"])
            .args(["-ldflags", "-s -w", "-o", "spire-server", "."])
            .env("GOMODCACHE", &modules)
            .env("GOCACHE", &cache)
            .env("GOWORK", "off")
            .env_remove("GOFLAGS")
            .current_dir(folder),
        Duration::from_secs(900),
    )?;
    fs::remove_dir_all(&modules)?;
    fs::remove_dir_all(&cache)
}
