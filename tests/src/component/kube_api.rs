//! A Kubernetes API server with its etcd and a few controllers in one process; its source is in `tests/kube-api`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Recipe, step, target_folder, workspace};

const RECIPE: Recipe = Recipe {
    name: "kube-api-1.34.4",
    executable: "kube-api",
    remedy: "Go 1.24 or newer (`go`) on PATH, a way to the Go module proxy, 4 GB of disk and some minutes",
    make,
};

/// What it is built from: `go.sum` pins the content of every module.
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];

/// The executable.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn kube_api() -> Result<PathBuf, Missing> {
    let stored = target_folder().join("components").join(RECIPE.name);
    // Built from other sources: to be built anew.
    let is_old = |file| {
        let ours = fs::read(sources().join(file)).ok();
        stored.exists() && fs::read(stored.join(file)).ok() != ours
    };
    if SOURCES.iter().into_iter().any(is_old) {
        fs::remove_dir_all(&stored).map_err(|cause| Missing {
            component: RECIPE.name.to_owned(),
            cause: cause.to_string(),
            remedy: RECIPE.remedy.to_owned(),
        })?;
    }
    RECIPE.obtain()
}

fn sources() -> PathBuf {
    workspace().join("tests/kube-api")
}

fn make(folder: &Path) -> io::Result<()> {
    for file in SOURCES {
        fs::copy(sources().join(file), folder.join(file))?;
    }
    let mut build = Command::new("go");
    build
        .args([
            "build",
            "-p",
            "2",
            "-mod=readonly",
            "-modcacherw",
            "-trimpath",
        ])
        .args(["-gcflags=all=-dwarf=false", "-ldflags"])
        // The version that clients are told.
        .arg(concat!(
            "-s -w -X k8s.io/component-base/version.gitVersion=",
            "v1.34.4"
        ))
        .args(["-o", RECIPE.executable, "."])
        .env("GOWORK", "off")
        .env("GOTOOLCHAIN", "local")
        .env_remove("GOFLAGS")
        .current_dir(folder);
    // Its build results take 2 GB: who keeps a cache of them says where, as CI does; else they go with the folder.
    let caches = [("GOMODCACHE", "modules"), ("GOCACHE", "cache")];
    let own: Vec<PathBuf> = caches
        .into_iter()
        .filter(|(variable, _)| std::env::var_os(variable).is_none())
        .map(|(variable, name)| {
            let path = folder.join(name);
            build.env(variable, &path);
            path
        })
        .collect();
    step(&mut build, Duration::from_secs(1800))?;
    for path in own {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
