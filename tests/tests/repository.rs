//! The rules of the repository, as tests: what may import what, what may be in the tree, how files are kept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by failing"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use portcullis_tests::cargo::{Tree, license_allowed};
use portcullis_tests::component::workspace;
use portcullis_tests::process;

static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::read().expect("cargo metadata"));

static DENY: LazyLock<toml::Table> =
    LazyLock::new(|| read("deny.toml").parse().expect("deny.toml"));

/// `(a, [b])`: a may import b, and nothing else of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("portcullis-policies", &[]),
    ("portcullis-policy", &["portcullis-policies"]),
    ("portcullis-wire", &[]),
    (
        "portcullis-source",
        &["portcullis-policy", "portcullis-wire"],
    ),
    (
        "portcullis-authz",
        &["portcullis-policy", "portcullis-wire"],
    ),
    (
        "portcullis-admission",
        &["portcullis-policy", "portcullis-source", "portcullis-wire"],
    ),
    ("portcullis-ca", &["portcullis-wire"]),
    // For programs of others: it brings nothing of ours along.
    ("portcullis-mtls", &[]),
    (
        "portcullis",
        &[
            "portcullis-policies",
            "portcullis-policy",
            "portcullis-source",
            "portcullis-authz",
            "portcullis-admission",
            "portcullis-ca",
            "portcullis-mtls",
            "portcullis-wire",
        ],
    ),
    // It measures processes, ours among others; how an API server is reached it need not know for itself.
    ("portcullis-bench", &["portcullis-wire"]),
    (
        "portcullis-tests",
        &[
            "portcullis-policies",
            "portcullis-policy",
            "portcullis-source",
            "portcullis-authz",
            "portcullis-admission",
            "portcullis-ca",
            "portcullis-mtls",
            "portcullis-wire",
            "portcullis",
        ],
    ),
];

/// Longest Rust file. A file that outgrows it is split, or has its reason here.
const LONGEST_FILE: usize = 520;

/// `(path, lines, reason)`.
const LONG_FILES: &[(&str, usize, &str)] = &[];

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|cause| panic!("`{path}`: {cause}"))
}

/// The files under version control, relative to the workspace.
fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z"]).current_dir(workspace());
    let output = process::run(&mut git, Duration::from_secs(60)).expect("git runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let list = String::from_utf8(output.stdout).expect("our file names are UTF-8");
    // A file that was just deleted is still listed.
    let names = list
        .split_terminator('\0')
        .filter(|name| workspace().join(name).is_file());
    names.map(str::to_owned).collect()
}

fn rust_files() -> Vec<String> {
    tracked()
        .into_iter()
        .filter(|name| name.ends_with(".rs"))
        .collect()
}

#[test]
fn crates_import_along_the_arrows_only() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let listed: BTreeSet<&str> = arrows.keys().copied().collect();
    assert_eq!(
        TREE.members(),
        listed,
        "a crate joins the workspace together with its arrows"
    );
    for (member, allowed) in arrows {
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let extra: Vec<&str> = TREE.arrows(member).difference(&allowed).copied().collect();
        assert!(extra.is_empty(), "`{member}` may not import {extra:?}");
    }
}

#[test]
fn the_engine_reaches_neither_envoy_nor_the_network_nor_kubernetes() {
    let reached = TREE.reaches("portcullis-policy");
    assert!(
        reached.contains("cedar-policy"),
        "the tree is walked at all"
    );
    for absent in [
        "envoy-types",
        "hyper",
        "k8s-openapi",
        "kube",
        "notify",
        "tokio",
        "tonic",
    ] {
        assert!(
            !reached.contains(absent),
            "`portcullis-policy` must not reach `{absent}`"
        );
    }
    assert!(
        TREE.reaches("portcullis-authz").contains("tonic"),
        "a service reaches the network"
    );
}

#[test]
fn no_banned_package_is_in_the_tree() {
    let banned: BTreeMap<&str, &str> = DENY["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["crate"].as_str().unwrap(),
                entry["reason"].as_str().unwrap(),
            )
        })
        .collect();
    for required in [
        "aws-lc-rs",
        "aws-lc-sys",
        "openssl",
        "openssl-sys",
        "reqwest",
        "rsa",
    ] {
        assert!(banned.contains_key(required), "deny.toml bans `{required}`");
    }
    let names: BTreeSet<&str> = TREE
        .packages()
        .map(|package| package.name.as_str())
        .collect();
    assert!(names.contains("ring"), "the whole tree is seen");
    for (name, reason) in banned {
        assert!(
            !names.contains(name),
            "`{name}` is in the tree, banned: {reason}"
        );
    }
}

#[test]
fn every_package_has_an_allowed_license() {
    let texts = |list: &toml::Value| -> BTreeSet<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    let allowed = texts(&DENY["licenses"]["allow"]);
    for copyleft in [
        "AGPL-3.0", "GPL-2.0", "GPL-3.0", "LGPL-3.0", "SSPL-1.0", "BUSL-1.1",
    ] {
        assert!(
            !allowed.iter().any(|license| license.starts_with(copyleft)),
            "{copyleft}"
        );
    }
    let exceptions: BTreeMap<&str, BTreeSet<String>> = DENY["licenses"]["exceptions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["crate"].as_str().unwrap(), texts(&entry["allow"])))
        .collect();
    let mut refused = Vec::new();
    for package in TREE.packages() {
        let mut allowed = allowed.clone();
        allowed.extend(
            exceptions
                .get(package.name.as_str())
                .into_iter()
                .flatten()
                .cloned(),
        );
        match &package.license {
            Some(license) if license_allowed(license, &allowed) => {}
            other => refused.push(format!("{}: {other:?}", package.name)),
        }
    }
    assert!(
        refused.is_empty(),
        "licences outside the allow list of deny.toml: {refused:#?}"
    );
}

#[test]
fn every_package_comes_from_the_registry() {
    let registries: BTreeSet<String> = DENY["sources"]["allow-registry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|url| format!("registry+{}", url.as_str().unwrap()))
        .collect();
    assert_eq!(DENY["sources"]["unknown-registry"].as_str(), Some("deny"));
    assert_eq!(DENY["sources"]["unknown-git"].as_str(), Some("deny"));
    let members = TREE.members();
    for package in TREE.packages() {
        match &package.source {
            Some(source) => assert!(registries.contains(source), "{}: {source}", package.name),
            None => assert!(
                members.contains(package.name.as_str()),
                "{} is no member",
                package.name
            ),
        }
    }
}

#[test]
fn every_member_takes_lints_and_dependencies_from_the_workspace() {
    let root: toml::Table = read("Cargo.toml").parse().unwrap();
    let folders = root["workspace"]["members"].as_array().unwrap();
    assert_eq!(folders.len(), TREE.members().len());
    for folder in folders {
        let path = format!("{}/Cargo.toml", folder.as_str().unwrap());
        let manifest: toml::Table = read(&path).parse().unwrap();
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{path}"
        );
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = manifest.get(table).and_then(toml::Value::as_table);
            for (name, value) in dependencies.into_iter().flatten() {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    inherited,
                    Some(true),
                    "{path}: `{name}` is declared in the workspace's table"
                );
            }
        }
    }
    let lints = root["workspace"]["lints"]["clippy"].as_table().unwrap();
    for lint in [
        "unwrap_used",
        "expect_used",
        "panic",
        "indexing_slicing",
        "todo",
    ] {
        assert_eq!(lints[lint].as_str(), Some("deny"), "{lint}");
    }
    assert_eq!(
        root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
}

#[test]
fn what_a_clone_needs_is_tracked() {
    let tracked: BTreeSet<String> = tracked().into_iter().collect();
    for needed in [
        ".ci/run",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "deny.toml",
    ] {
        assert!(tracked.contains(needed), "`{needed}` is tracked");
    }
    assert!(!tracked.iter().any(|name| name.starts_with("target/")));
    assert!(read("LICENSE").contains("Apache License"));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(workspace().join(".ci/run"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o111, 0o111, ".ci/run is executable");
}

#[test]
fn files_keep_one_reason_to_exist() {
    let exceptions: BTreeMap<&str, usize> = LONG_FILES
        .iter()
        .map(|(path, lines, reason)| {
            assert!(!reason.is_empty(), "{path}");
            (*path, *lines)
        })
        .collect();
    let mut long = Vec::new();
    let files = rust_files();
    for file in &files {
        let lines = read(file).lines().count();
        let limit = exceptions
            .get(file.as_str())
            .copied()
            .unwrap_or(LONGEST_FILE);
        if lines > limit {
            long.push(format!("{file}: {lines} lines, at most {limit}"));
        }
    }
    assert!(long.is_empty(), "split along their reasons: {long:#?}");
    for (path, lines) in exceptions {
        assert!(
            files.iter().any(|file| file == path),
            "`{path}` is gone: its exception too"
        );
        assert!(
            lines > LONGEST_FILE && read(path).lines().count() > LONGEST_FILE,
            "`{path}` needs no exception"
        );
    }
}

#[test]
fn modules_stand_beside_their_folders() {
    let odd: Vec<String> = rust_files()
        .into_iter()
        .filter(|name| name.ends_with("/mod.rs"))
        .collect();
    assert!(odd.is_empty(), "`foo.rs` beside `foo/`: {odd:?}");
}

#[test]
fn no_test_is_switched_off() {
    let attribute = ["#[", "ignore"].concat();
    let off: Vec<String> = rust_files()
        .into_iter()
        .filter(|name| read(name).contains(&attribute))
        .collect();
    assert!(off.is_empty(), "{off:?}");
}

#[test]
fn no_tracked_file_names_a_place_on_one_machine() {
    let places = [
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["/ho", "me/"].concat(),
    ];
    let mut found = Vec::new();
    for name in tracked() {
        // Recorded requests may ask for any path.
        if name.ends_with(".jsonl") || name == "Cargo.lock" {
            continue;
        }
        let Ok(text) = fs::read_to_string(workspace().join(&name)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            if places.iter().any(|place| names_place(line, place)) {
                found.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The place at the start of a path: `/x/y` is one, `a/x/y` is a path relative to something.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|char| {
            char.is_alphanumeric() || matches!(char, '.' | '_' | '-' | '}' | '*')
        })
    })
}

#[test]
fn the_place_rule_sees_absolute_paths_only() {
    let place = ["/ro", "ot/"].concat();
    for (before, expected) in [
        ("", true),
        ("see `", true),
        ("path=", true),
        ("web", false),
        ("..", false),
    ] {
        assert_eq!(
            names_place(&format!("{before}{place}x"), &place),
            expected,
            "{before}"
        );
    }
}

#[test]
fn the_readme_has_the_two_commands() {
    let readme = read("README.md");
    for command in ["cargo run --release -- dev", "cargo test --workspace"] {
        assert!(readme.contains(command), "`{command}`");
    }
}

#[test]
fn the_architecture_page_maps_what_is_there() {
    let page = read("docs/architecture.md");
    // The first column of the engine's table names files and folders of policy/src.
    let named: BTreeSet<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("Inside `policy/src`"))
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" | ").next())
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    let files = fs::read_dir(workspace().join("policy/src")).unwrap();
    let stems: BTreeSet<String> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    for name in &named {
        assert!(
            stems.contains(*name),
            "`{name}` is on the page and not in policy/src"
        );
    }
    for stem in stems
        .iter()
        .filter(|stem| !["lib", "request", "settings"].contains(&stem.as_str()))
    {
        assert!(
            named.contains(stem.as_str()),
            "`{stem}` is in policy/src and not on the page"
        );
    }
    for member in TREE.members() {
        assert!(
            page.contains(&format!("`{member}`")),
            "`{member}` is a crate and not on the page"
        );
    }
}

#[test]
fn ci_runs_every_gate() {
    let script = read(".ci/run");
    for gate in [
        "cargo fmt --check",
        "cargo clippy --workspace --all-targets -- -D warnings",
        "cargo doc --workspace --no-deps",
        "-D warnings",
        "cargo test --workspace",
    ] {
        assert!(script.contains(gate), ".ci/run runs `{gate}`");
    }
    let path: PathBuf = workspace().join(".ci/run");
    let checked = process::run(
        Command::new("bash").arg("-n").arg(path),
        Duration::from_secs(20),
    )
    .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
