//! Workloads that use the SPIFFE libraries of other languages; their sources are in `tests/clients`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Missing, Recipe, step, target_folder, workspace};

const GO: Recipe = Recipe {
    name: "go-spiffe-2.9.0",
    executable: "client",
    remedy: "Go 1.25 or newer (`go`) on PATH and a way to the Go module proxy",
    make: make_go,
};

const GO_SOURCES: [&str; 4] = ["main.go", "chains.go", "go.mod", "go.sum"];

const PYTHON: Recipe = Recipe {
    name: "py-spiffe-0.3.2",
    executable: "spiffe/__init__.py",
    remedy: "`python3` 3.10 or newer with pip (Debian: `apt-get install python3-pip`) and a way to PyPI",
    make: make_python,
};

const JAVA: Recipe = Recipe {
    name: "java-spiffe-0.8.11",
    executable: "jars/java-spiffe-core-0.8.11.jar",
    remedy: "a Java development kit 17 or newer and `mvn` (Debian: `apt-get install default-jdk-headless maven`), and a way to Maven Central",
    make: make_java,
};

/// A program in a language of its own, and the executable that attestation sees.
#[derive(Clone, Debug)]
pub struct SpiffeClient {
    /// Short name of the language.
    pub language: &'static str,
    /// What to start, without the socket's address.
    pub command: Vec<PathBuf>,
    /// Where python finds its packages.
    pub python_path: Option<PathBuf>,
    /// The executable of its process.
    pub executable: PathBuf,
}

/// The workload in Go, by go-spiffe.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn go_spiffe() -> Result<SpiffeClient, Missing> {
    let stored = target_folder().join("components").join(GO.name);
    // Built from other sources: to be built anew.
    let is_old = |file: &str| {
        let ours = fs::read(sources("go").join(file)).ok();
        stored.exists() && fs::read(stored.join(file)).ok() != ours
    };
    if GO_SOURCES.iter().any(|file| is_old(file)) {
        fs::remove_dir_all(&stored).map_err(|cause| missing(&GO, &cause))?;
    }
    let executable = GO.obtain()?;
    Ok(SpiffeClient {
        language: "go",
        command: vec![executable.clone()],
        python_path: None,
        executable,
    })
}

/// The workload in Python, by py-spiffe on grpcio.
///
/// # Errors
/// Its packages are not there yet and cannot be fetched.
pub fn py_spiffe() -> Result<SpiffeClient, Missing> {
    let marker = PYTHON.obtain()?;
    let packages = marker.parent().and_then(Path::parent).map(Path::to_owned);
    let said = step(
        Command::new("python3").args(["-c", "import os; print(os.readlink('/proc/self/exe'))"]),
        Duration::from_secs(60),
    );
    let executable = said.map_err(|cause| missing(&PYTHON, &cause))?;
    let executable = PathBuf::from(executable.trim());
    Ok(SpiffeClient {
        language: "python",
        command: vec![executable.clone(), sources("python").join("client.py")],
        python_path: packages,
        executable,
    })
}

/// The workload in Java, by java-spiffe on grpc-java.
///
/// # Errors
/// Its packages are not there yet and cannot be fetched.
pub fn java_spiffe() -> Result<SpiffeClient, Missing> {
    let marker = JAVA.obtain()?;
    let jars = marker.with_file_name("*");
    let mut settings = Command::new("java");
    settings.args(["-XshowSettings:properties", "-version"]);
    let output = crate::process::run(&mut settings, Duration::from_secs(60))
        .map_err(|cause| missing(&JAVA, &cause))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let home = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("java.home = "))
        .ok_or_else(|| missing(&JAVA, &io::Error::other("`java` does not say where it is")))?;
    let executable = fs::canonicalize(Path::new(home).join("bin/java"))
        .map_err(|cause| missing(&JAVA, &cause))?;
    Ok(SpiffeClient {
        language: "java",
        command: vec![
            executable.clone(),
            "-Xmx128m".into(),
            "-cp".into(),
            jars,
            sources("java").join("Main.java"),
        ],
        python_path: None,
        executable,
    })
}

fn sources(language: &str) -> PathBuf {
    workspace().join("tests/clients").join(language)
}

fn missing(recipe: &Recipe, cause: &io::Error) -> Missing {
    Missing {
        component: recipe.name.to_owned(),
        cause: cause.to_string(),
        remedy: recipe.remedy.to_owned(),
    }
}

fn make_go(folder: &Path) -> io::Result<()> {
    for file in GO_SOURCES {
        fs::copy(sources("go").join(file), folder.join(file))?;
    }
    let (modules, cache) = (folder.join("modules"), folder.join("cache"));
    step(
        Command::new("go")
            .args(["build", "-mod=readonly", "-modcacherw", "-trimpath"])
            .args(["-ldflags", "-s -w", "-o", "client", "."])
            .env("GOMODCACHE", &modules)
            .env("GOCACHE", &cache)
            .env("GOWORK", "off")
            .env_remove("GOFLAGS")
            .current_dir(folder),
        Duration::from_secs(900),
    )?;
    fs::remove_dir_all(&modules)?;
    fs::remove_dir_all(&cache)
}

fn make_python(folder: &Path) -> io::Result<()> {
    step(
        Command::new("python3")
            .args(["-m", "pip", "--disable-pip-version-check", "install"])
            .args(["--quiet", "--only-binary=:all:", "--no-deps", "--target"])
            .arg(folder)
            .arg("--requirement")
            .arg(sources("python").join("requirements.txt")),
        Duration::from_secs(300),
    )?;
    Ok(())
}

fn make_java(folder: &Path) -> io::Result<()> {
    let repository = folder.join("repository");
    let mut option = std::ffi::OsString::from("-Dmaven.repo.local=");
    option.push(&repository);
    let mut output = std::ffi::OsString::from("-DoutputDirectory=");
    output.push(folder.join("jars"));
    step(
        Command::new("mvn")
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(sources("java").join("pom.xml"))
            .arg(option)
            .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
            .arg(output),
        Duration::from_secs(600),
    )?;
    fs::remove_dir_all(&repository)
}
