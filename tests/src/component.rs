//! Real components, unpacked under the target folder from their packages: pinned, checked, never installed.
//!
//! The first test that needs a component fetches it (seconds); it then stays in `target/components/`, shared by every
//! test process of every run. A component that cannot be had fails the test where the environment says `CI=true`;
//! elsewhere the test says loudly what it skipped and how to get it.

mod caddy;
mod debian;
mod definitions;
mod envoy;
mod go;
mod grpcurl;
mod hadolint;
mod helm;
mod kube_api;
mod spiffe_clients;
mod spire;
mod traefik;
mod wheel;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;

pub use caddy::caddy;
pub use debian::{Unpacked, apache, haproxy, kubectl, nginx, promtool};
pub use definitions::definitions;
pub use envoy::envoy;
pub use grpcurl::grpcurl;
pub use hadolint::hadolint;
pub use helm::{helm, kubeconform};
pub use kube_api::kube_api;
pub use spiffe_clients::{SpiffeClient, go_spiffe, java_spiffe, py_spiffe};
pub use spire::spire_server;
pub use traefik::traefik;

/// How long a test waits for another process that is fetching the same component.
const LOCK_LIMIT: Duration = Duration::from_secs(1800);

/// A component that could not be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{component} cannot be had: {cause}\n  to get it: {remedy}")]
pub struct Missing {
    /// Name and version.
    pub component: String,
    /// What went wrong.
    pub cause: String,
    /// What a person can do.
    pub remedy: String,
}

/// The component; `None` when the test has to be skipped, which is said on standard error.
///
/// # Panics
/// When the component is missing and the environment says `CI=true`.
#[must_use]
pub fn require<T>(component: Result<T, Missing>) -> Option<T> {
    match component {
        Ok(path) => Some(path),
        Err(missing) => {
            skip(&missing, in_ci(std::env::var_os("CI").as_deref()));
            None
        }
    }
}

#[expect(
    clippy::panic,
    reason = "a component missing in CI must fail the test that needs it"
)]
fn skip(missing: &Missing, in_ci: bool) {
    if in_ci {
        panic!("{missing}");
    }
    eprintln!(
        "\n==== SKIPPED, NOT PASSED ====\n{missing}\n  (with CI=true this is a failure)\n====\n"
    );
}

fn in_ci(variable: Option<&std::ffi::OsStr>) -> bool {
    variable.is_some_and(|value| !matches!(value.to_str(), Some("" | "0" | "false")))
}

/// The target folder of this build, wherever cargo was told to put it.
#[must_use]
pub fn target_folder() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    // Cargo tags its target folder as a cache, so that backups leave it out; the test executable is somewhere below.
    let tagged = executable
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    tagged.map_or_else(|| workspace().join("target"), Path::to_owned)
}

/// The workspace folder.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// An empty folder `target/tests/NAME` for one test's files and logs, which stay for the reader of a failure.
///
/// # Panics
/// When it cannot be made.
#[must_use]
#[expect(clippy::expect_used, reason = "without its folder no test can go on")]
pub fn run_folder(name: &str) -> PathBuf {
    let folder = target_folder().join("tests").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the last run's folder can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder below the target folder can be made");
    folder
}

/// What is fetched, and how it is made once.
struct Recipe {
    /// Name and version: the folder below `target/components`.
    name: &'static str,
    /// The executable within that folder.
    executable: &'static str,
    remedy: &'static str,
    /// Fills an empty folder.
    make: fn(&Path) -> io::Result<()>,
}

impl Recipe {
    /// The executable, made on first use by exactly one process; others wait for it.
    fn obtain(&self) -> Result<PathBuf, Missing> {
        self.obtain_in(&target_folder().join("components"))
            .map_err(|cause| Missing {
                component: self.name.to_owned(),
                cause: cause.to_string(),
                remedy: self.remedy.to_owned(),
            })
    }

    fn obtain_in(&self, components: &Path) -> io::Result<PathBuf> {
        let finished = components.join(self.name);
        let executable = finished.join(self.executable);
        // The folder gets its name only when it is whole: no half-made component is ever seen here.
        if executable.is_file() {
            return Ok(executable);
        }
        fs::create_dir_all(components)?;
        let lock = File::create(components.join(format!("{}.lock", self.name)))?;
        process::poll(LOCK_LIMIT, || match lock.try_lock() {
            Ok(()) => Some(Ok(())),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(cause)) => Some(Err(cause)),
        })
        .unwrap_or_else(|| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "another process holds its lock",
            ))
        })?;
        if executable.is_file() {
            return Ok(executable);
        }
        let partial = components.join(format!("{}.partial", self.name));
        for leftover in [&partial, &finished] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)?;
            }
        }
        fs::create_dir_all(&partial)?;
        (self.make)(&partial)?;
        if !partial.join(self.executable).is_file() {
            return Err(io::Error::other(format!(
                "its package holds no `{}`",
                self.executable
            )));
        }
        fs::rename(&partial, &finished)?;
        Ok(executable)
    }
}

/// Runs one step of a recipe; a failure carries the end of what it printed.
fn step(command: &mut Command, limit: Duration) -> io::Result<String> {
    let output = process::run(command, limit)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
    Err(io::Error::other(format!(
        "`{}`: {}: {last}",
        command.get_program().to_string_lossy(),
        output.status
    )))
}

/// Fails unless the file's SHA-256 is `expected` (lower-case hexadecimal).
fn check_digest(file: &Path, expected: &str) -> io::Result<()> {
    let digest = ring::digest::digest(&ring::digest::SHA256, &fs::read(file)?);
    let found: String = digest
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    if found == expected {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "`{}` has SHA-256 `{found}`, expected `{expected}`",
        file.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static MADE: AtomicUsize = AtomicUsize::new(0);

    const ONCE: Recipe = Recipe {
        name: "thing-1.0",
        executable: "bin/thing",
        remedy: "make it",
        make: |folder| {
            MADE.fetch_add(1, Ordering::SeqCst);
            fs::create_dir_all(folder.join("bin"))?;
            fs::write(folder.join("bin/thing"), "whole")
        },
    };

    #[test]
    fn is_made_once_however_many_ask() {
        let folder = run_folder("component-once");
        let paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| ONCE.obtain_in(&folder).unwrap()))
                .collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(MADE.load(Ordering::SeqCst), 1);
        assert!(
            paths
                .iter()
                .all(|path| fs::read_to_string(path).unwrap() == "whole")
        );
    }

    #[test]
    fn a_failed_recipe_leaves_nothing_that_looks_whole() {
        const BROKEN: Recipe = Recipe {
            name: "broken-1.0",
            executable: "thing",
            remedy: "",
            make: |folder| {
                fs::write(folder.join("thing"), "half")?;
                Err(io::Error::other("the network went away"))
            },
        };
        let folder = run_folder("component-broken");
        assert!(BROKEN.obtain_in(&folder).is_err());
        assert!(!folder.join("broken-1.0").exists());
        assert!(
            BROKEN.obtain_in(&folder).is_err(),
            "the half-made one is not taken for whole the second time"
        );
    }

    #[test]
    fn a_wrong_digest_is_refused() {
        let file = run_folder("component-digest").join("abc");
        fs::write(&file, "abc").unwrap();
        check_digest(
            &file,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )
        .unwrap();
        let error = check_digest(&file, "00").unwrap_err().to_string();
        assert!(error.contains("expected `00`"), "{error}");
    }

    #[test]
    fn ci_is_on_unless_it_says_no() {
        for (value, expected) in [
            (Some("true"), true),
            (Some("1"), true),
            (Some("false"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(
                in_ci(value.map(std::ffi::OsStr::new)),
                expected,
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_missing_component_fails_in_ci_and_only_there() {
        let missing = || Missing {
            component: "thing 1.0".into(),
            cause: "no network".into(),
            remedy: "plug it in".into(),
        };
        skip(&missing(), false);
        let panic = std::panic::catch_unwind(|| skip(&missing(), true)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(
            text.contains("no network") && text.contains("plug it in"),
            "{text}"
        );
    }
}
