//! grpcurl, a gRPC client that shares no code with ours, from its Go module.

use std::path::PathBuf;

use super::{Missing, Recipe, go};

const RECIPE: Recipe = Recipe {
    name: "grpcurl-1.9.4",
    executable: "grpcurl",
    remedy: go::REMEDY,
    make: |folder| go::install(folder, "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"),
};

/// The grpcurl executable.
///
/// # Errors
/// It is not there yet and cannot be built.
pub fn grpcurl() -> Result<PathBuf, Missing> {
    RECIPE.obtain()
}
