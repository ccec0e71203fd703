//! The checked-in descriptor set is what the .proto files of the pinned envoy-types package compile to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

use std::path::PathBuf;
use std::process::Command;

use portcullis_authz::descriptor::FILE_DESCRIPTOR_SET;
use prost::Message;

/// Folder of the envoy-types package, wherever cargo keeps it.
fn envoy_types() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--manifest-path",
            manifest,
        ])
        .output()
        .expect("cargo runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {stderr}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .expect("envoy-types is a dependency");
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().to_owned()
}

/// Compiles ext_authz and its imports. Options (validation rules, versioning notes) are dropped:
/// neither JSON nor reflection reads them, and they are most of the bytes.
fn compile() -> Vec<u8> {
    let proto = envoy_types().join("proto");
    let roots =
        ["data-plane-api", "googleapis", "protoc-gen-validate", "xds"].map(|root| proto.join(root));
    let mut set = protox::compile(["envoy/service/auth/v3/external_auth.proto"], roots).unwrap();
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set.encode_to_vec()
}

#[test]
fn checked_in_descriptor_set_is_what_envoy_types_ships() {
    let compiled = compile();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/descriptor/ext_authz.binpb"
    );
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &compiled).unwrap();
        return;
    }
    assert!(
        compiled == FILE_DESCRIPTOR_SET,
        "ext_authz.binpb is not what envoy-types ships: run this test with UPDATE_EXPECT=1"
    );
}
