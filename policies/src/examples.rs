//! Example manifests, with requests to try on them.

/// A file of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the example's folder.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// A folder of manifests and a file of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Name of the folder.
    pub name: &'static str,
    /// Its manifests and what explains them.
    pub files: &'static [File],
    /// Requests, one Envoy CheckRequest in protobuf JSON per line.
    pub requests: File,
}

macro_rules! file {
    ($folder:literal, $path:literal) => {
        File {
            path: $path,
            text: include_str!(concat!("../examples/", $folder, "/", $path)),
        }
    };
}

/// A shop behind a gateway: one policy for each thing that policies can do.
pub const BOOKSHOP: Example = Example {
    name: "bookshop",
    files: &[
        file!("bookshop", "README.md"),
        file!("bookshop", "workloads.yaml"),
        file!("bookshop", "policies.yaml"),
    ],
    requests: file!("bookshop", "requests.jsonl"),
};
