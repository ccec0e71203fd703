//! Proxies from Debian 12's packages, with the libraries that a small system lacks: downloaded, unpacked, not installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Recipe, step};

const REMEDY: &str = "Debian 12 (`apt-get`, `dpkg`) and a way to its mirrors";

/// A package tree: its executable is to be started with its own libraries.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The executable.
    pub executable: PathBuf,
    /// The root of the tree.
    pub root: PathBuf,
}

impl Unpacked {
    fn of(recipe: &Recipe) -> Result<Self, Missing> {
        let executable = recipe.obtain()?;
        let depth = recipe.executable.split('/').count();
        let root = executable.ancestors().nth(depth).unwrap_or(&executable);
        Ok(Self {
            root: root.to_owned(),
            executable,
        })
    }

    /// A command that starts the executable, or another of the same tree.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.env("LD_LIBRARY_PATH", self.root.join(libraries()));
        command
    }

    /// `path` within the tree.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of shared libraries within the tree.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.root.join(libraries())
    }
}

fn libraries() -> String {
    format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// nginx 1.22.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn nginx() -> Result<Unpacked, Missing> {
    const NGINX: Recipe = Recipe {
        name: "nginx-1.22.1",
        executable: "usr/sbin/nginx",
        remedy: REMEDY,
        make: |folder| {
            unpack(
                folder,
                &["nginx", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"],
            )?;
            says(folder, "usr/sbin/nginx", "-v", "nginx/1.22.1")
        },
    };
    Unpacked::of(&NGINX)
}

/// HAProxy 2.6.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn haproxy() -> Result<Unpacked, Missing> {
    const HAPROXY: Recipe = Recipe {
        name: "haproxy-2.6.12",
        executable: "usr/sbin/haproxy",
        remedy: REMEDY,
        make: |folder| {
            let packages = [
                "haproxy",
                "libcrypt1",
                "liblua5.3-0",
                "libopentracing-c-wrapper0",
                "libopentracing1",
                "libpcre2-8-0",
                "libssl3",
                "libsystemd0",
            ];
            unpack(folder, &packages)?;
            says(folder, "usr/sbin/haproxy", "-v", "HAProxy version 2.6.12")
        },
    };
    Unpacked::of(&HAPROXY)
}

/// Apache httpd 2.4 with mod_lua and LuaSocket.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn apache() -> Result<Unpacked, Missing> {
    const APACHE: Recipe = Recipe {
        name: "apache-2.4",
        executable: "usr/sbin/apache2",
        remedy: REMEDY,
        make: |folder| {
            let packages = [
                "apache2-bin",
                "libapr1",
                "libaprutil1",
                "libcrypt1",
                "libexpat1",
                "liblua5.3-0",
                "libpcre2-8-0",
                "libssl3",
                "lua-socket",
            ];
            unpack(folder, &packages)?;
            says(folder, "usr/sbin/apache2", "-v", "Apache/2.4.")
        },
    };
    Unpacked::of(&APACHE)
}

/// promtool of Prometheus 2.42.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn promtool() -> Result<Unpacked, Missing> {
    const PROMTOOL: Recipe = Recipe {
        name: "promtool-2.42.0",
        executable: "usr/bin/promtool",
        remedy: REMEDY,
        make: |folder| {
            unpack(folder, &["prometheus"])?;
            // The server beside it is four times as large and not asked for.
            fs::remove_file(folder.join("usr/bin/prometheus"))?;
            says(folder, "usr/bin/promtool", "--version", "version 2.42.0")
        },
    };
    Unpacked::of(&PROMTOOL)
}

/// kubectl 1.20: old, and all that a page shows of it is older.
///
/// # Errors
/// It is not there yet and cannot be fetched.
pub fn kubectl() -> Result<Unpacked, Missing> {
    const KUBECTL: Recipe = Recipe {
        name: "kubectl-1.20",
        executable: "usr/bin/kubectl",
        remedy: REMEDY,
        make: |folder| {
            unpack(folder, &["kubernetes-client"])?;
            says(folder, "usr/bin/kubectl", "version", "v1.20.2")
        },
    };
    Unpacked::of(&KUBECTL)
}

fn unpack(folder: &Path, packages: &[&str]) -> io::Result<()> {
    const LIMIT: Duration = Duration::from_secs(300);
    let download = folder.join("download");
    fs::create_dir_all(&download)?;
    let apt = |verb: &[&str], own_lists: bool| {
        let mut command = Command::new("apt-get");
        command.current_dir(&download).env("LC_ALL", "C");
        if own_lists {
            // The system's lists are old or absent: fresh ones of our own, beside the packages.
            let option =
                |name: &str, part: &str| format!("{name}={}", download.join(part).display());
            for (name, part) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
                fs::create_dir_all(download.join(part).join("partial"))?;
                command.arg("-o").arg(option(name, part));
            }
        }
        step(command.args(verb), LIMIT)
    };
    let mut get = vec!["download"];
    get.extend(packages);
    if apt(&get, false).is_err() {
        apt(&["update"], true)?;
        apt(&get, true)?;
    }
    for entry in fs::read_dir(&download)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            step(Command::new("dpkg").arg("-x").arg(&file).arg(folder), LIMIT)?;
        }
    }
    fs::remove_dir_all(&download)
}

/// Debian replaces packages by newer ones with the same version of the program: this one is pinned.
fn says(folder: &Path, executable: &str, flag: &str, version: &str) -> io::Result<()> {
    let mut command = Command::new(folder.join(executable));
    command
        .arg(flag)
        .env("LD_LIBRARY_PATH", folder.join(libraries()));
    let output = crate::process::run(&mut command, Duration::from_secs(30))?;
    // nginx says it on standard error.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if said.contains(version) {
        return Ok(());
    }
    Err(io::Error::other(format!("it says it is `{}`", said.trim())))
}
