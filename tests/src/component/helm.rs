//! Helm, which renders our chart, and kubeconform, which holds what it renders against schemas.

use std::path::PathBuf;

use super::{Missing, Recipe, go};

const HELM: Recipe = Recipe {
    name: "helm-3.22.0",
    executable: "helm",
    remedy: go::REMEDY,
    make: |folder| go::install(folder, "helm.sh/helm/v3/cmd/helm@v3.22.0"),
};

const KUBECONFORM: Recipe = Recipe {
    name: "kubeconform-0.8.0",
    executable: "kubeconform",
    remedy: go::REMEDY,
    make: |folder| {
        go::install(
            folder,
            "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
        )
    },
};

/// The helm executable.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn helm() -> Result<PathBuf, Missing> {
    HELM.obtain()
}

/// The kubeconform executable.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn kubeconform() -> Result<PathBuf, Missing> {
    KUBECONFORM.obtain()
}
