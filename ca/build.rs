//! Compiles every `.proto` below `ca/proto`, without `protoc`.

use std::path::{Path, PathBuf};
use std::{env, error, fs, io};

use prost::Message as _;

fn main() -> Result<(), Box<dyn error::Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    find(&root, &mut files)?;
    files.sort();
    let set = protox::compile(&files, [&root])?;
    fs::write(out.join("ca.binpb"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::Frames")
        .compile_fds(set)?;
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
