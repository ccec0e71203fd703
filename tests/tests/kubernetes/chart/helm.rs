//! Helm, asked for the chart's manifests.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use portcullis_tests::component::{self, require, run_folder, workspace};
use portcullis_tests::process;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Where the tests say that the release is.
pub const NAMESPACE: &str = "portcullis-system";

/// Helm, if it can be had.
pub fn helm() -> Option<Helm> {
    require(component::helm()).map(Helm)
}

/// The executable.
#[derive(Clone, Debug)]
pub struct Helm(PathBuf);

impl Helm {
    /// Runs it with nothing of its user's.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.0);
        command.args(arguments).current_dir(workspace());
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, component::target_folder().join("tests/helm"));
        }
        command.env_remove("KUBECONFIG");
        process::run(&mut command, LIMIT).unwrap()
    }

    /// The text that `helm template` prints with these values (YAML), or what it says against them.
    pub fn template(&self, name: &str, values: &str) -> Result<String, String> {
        let file = run_folder(&format!("chart-{name}")).join("values.yaml");
        std::fs::write(&file, values).unwrap();
        let file = file.to_str().unwrap();
        let output = self.run(&[
            "template",
            "portcullis",
            "deploy/chart",
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "v1.34.4",
            "--values",
            file,
        ]);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// The objects.
    pub fn objects(&self, name: &str, values: &str) -> Vec<Value> {
        let text = self
            .template(name, values)
            .unwrap_or_else(|said| panic!("{name}: {said}"));
        documents(&text)
    }
}

/// The documents of a YAML stream that hold something.
pub fn documents(text: &str) -> Vec<Value> {
    let mut options = serde_saphyr::Options::default();
    // Definitions of kinds are large, and ours.
    options.budget = None;
    let all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).unwrap();
    all.into_iter().filter(|one| !one.is_null()).collect()
}

/// `Kind/name`.
pub fn named(object: &Value) -> String {
    format!(
        "{}/{}",
        object["kind"].as_str().unwrap(),
        object["metadata"]["name"].as_str().unwrap()
    )
}

/// The one object of that kind and name.
pub fn find<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let mut found = objects.iter().filter(|one| named(one) == wanted);
    let names = || objects.iter().map(named).collect::<Vec<_>>();
    let one = found
        .next()
        .unwrap_or_else(|| panic!("no `{wanted}` among {:?}", names()));
    assert!(found.next().is_none(), "`{wanted}` twice");
    one
}
