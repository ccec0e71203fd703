//! grpcurl, a gRPC client that shares no code with ours, from its Go module.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Recipe, step};

/// The module's version is its pin: the Go checksum database vouches for the content.
const MODULE: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4";

const RECIPE: Recipe = Recipe {
    name: "grpcurl-1.9.4",
    executable: "grpcurl",
    remedy: "Go 1.25 or newer (`go`) on PATH and a way to the Go module proxy",
    make,
};

/// The grpcurl executable.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn grpcurl() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    // Sources and build results live in the component's folder too, and go with it: 300 MB nobody needs twice.
    let (modules, cache) = (folder.join("modules"), folder.join("cache"));
    step(
        Command::new("go")
            .args(["install", "-modcacherw", "-ldflags", "-s -w", MODULE])
            .env("GOBIN", folder)
            .env("GOPATH", &modules)
            .env("GOMODCACHE", modules.join("pkg/mod"))
            .env("GOCACHE", &cache)
            .env_remove("GOFLAGS")
            .current_dir(folder),
        Duration::from_secs(900),
    )?;
    fs::remove_dir_all(&modules)?;
    fs::remove_dir_all(&cache)
}
