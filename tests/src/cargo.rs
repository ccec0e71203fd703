//! What cargo knows of the workspace: its crates, their dependencies, licences and sources.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{component, process};

/// One package of the resolved tree, ours or not.
#[derive(Clone, Debug)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// The SPDX expression in its manifest, if it has one.
    pub license: Option<String>,
    /// Registry or repository; `None` for a member of the workspace.
    pub source: Option<String>,
    /// Ids of the packages it depends on, of every kind (normal, build, dev).
    depends_on: BTreeSet<String>,
    /// Ids of the packages that it links or needs to be built: everything but dev-dependencies.
    needs: BTreeSet<String>,
}

/// The resolved tree with every feature of our crates on, for every platform.
#[derive(Clone, Debug)]
pub struct Tree {
    packages: BTreeMap<String, Package>,
    members: Vec<String>,
}

impl Tree {
    /// Asks `cargo metadata`.
    ///
    /// # Errors
    /// Cargo cannot be run, or `Cargo.lock` does not fit the manifests.
    pub fn read() -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = process::run(
            Command::new(cargo)
                .args([
                    "metadata",
                    "--format-version=1",
                    "--locked",
                    "--all-features",
                ])
                .current_dir(component::workspace()),
            Duration::from_secs(300),
        )?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self::parse(&serde_json::from_slice(&output.stdout)?)
    }

    fn parse(metadata: &Value) -> anyhow::Result<Self> {
        let mut packages = BTreeMap::new();
        for package in list(metadata, "/packages")? {
            let id = text(package, "id")?;
            let found = Package {
                name: text(package, "name")?,
                license: text(package, "license").ok(),
                source: text(package, "source").ok(),
                depends_on: BTreeSet::new(),
                needs: BTreeSet::new(),
            };
            packages.insert(id, found);
        }
        for node in list(metadata, "/resolve/nodes")? {
            let id = text(node, "id")?;
            let package = packages
                .get_mut(&id)
                .context("a resolved package has no entry")?;
            for dependency in list(node, "/deps")? {
                let other = text(dependency, "pkg")?;
                let kinds = list(dependency, "/dep_kinds")?;
                if kinds
                    .iter()
                    .any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"))
                {
                    package.needs.insert(other.clone());
                }
                package.depends_on.insert(other);
            }
        }
        let members = list(metadata, "/workspace_members")?;
        let members = members
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect();
        Ok(Self { packages, members })
    }

    /// Every package of the tree.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The names of our crates.
    #[must_use]
    pub fn members(&self) -> BTreeSet<&str> {
        let names = self.members.iter().filter_map(|id| self.packages.get(id));
        names.map(|package| package.name.as_str()).collect()
    }

    /// The names of those of our crates that `member` depends on directly, in any way.
    #[must_use]
    pub fn arrows(&self, member: &str) -> BTreeSet<&str> {
        let ours = self.member(member);
        let dependencies = ours.into_iter().flat_map(|package| &package.depends_on);
        dependencies
            .filter(|id| self.members.contains(id))
            .filter_map(|id| self.packages.get(id).map(|package| package.name.as_str()))
            .collect()
    }

    /// The names of everything that `member` links or needs to be built, directly or not.
    #[must_use]
    pub fn reaches(&self, member: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Package> = self.member(member).into_iter().collect();
        while let Some(package) = open.pop() {
            for next in package
                .needs
                .iter()
                .filter_map(|id| self.packages.get_key_value(id))
            {
                if seen.insert(next.0) {
                    open.push(next.1);
                }
            }
        }
        seen.into_iter()
            .filter_map(|id| self.packages.get(id).map(|p| p.name.as_str()))
            .collect()
    }

    fn member(&self, name: &str) -> Option<&Package> {
        self.members
            .iter()
            .filter_map(|id| self.packages.get(id))
            .find(|p| p.name == name)
    }
}

/// Whether an SPDX expression can be met with the allowed licences alone.
///
/// Reads `AND`, `OR`, `WITH`, brackets, and the `/` that old manifests write for `OR`. What it cannot read is refused.
#[must_use]
pub fn license_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Expression {
        words: &words,
        allowed,
    };
    let verdict = reader.any();
    verdict == Some(true) && reader.words.is_empty()
}

struct Expression<'a> {
    words: &'a [&'a str],
    allowed: &'a BTreeSet<String>,
}

impl Expression<'_> {
    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.next();
        }
        found
    }

    fn any(&mut self) -> Option<bool> {
        let mut verdict = self.all()?;
        while self.accept("OR") {
            verdict |= self.all()?;
        }
        Some(verdict)
    }

    fn all(&mut self) -> Option<bool> {
        let mut verdict = self.one()?;
        while self.accept("AND") {
            verdict &= self.one()?;
        }
        Some(verdict)
    }

    fn one(&mut self) -> Option<bool> {
        if self.accept("(") {
            let verdict = self.any()?;
            return self.accept(")").then_some(verdict);
        }
        let mut license = self.next()?.to_owned();
        if self.accept("WITH") {
            license = format!("{license} WITH {}", self.next()?);
        }
        Some(self.allowed.contains(&license))
    }
}

fn list<'a>(value: &'a Value, pointer: &str) -> anyhow::Result<&'a Vec<Value>> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .with_context(|| format!("`{pointer}` is no list"))
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    let found = value.get(key).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .with_context(|| format!("`{key}` is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_license_expression_is_met_or_not() {
        let allowed: BTreeSet<String> = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
            .map(str::to_owned)
            .into();
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Apache-2.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0", false),
            ("GPL-3.0 AND MIT OR Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT MIT", false),
        ] {
            assert_eq!(
                license_allowed(expression, &allowed),
                expected,
                "{expression}"
            );
        }
    }

    #[test]
    fn arrows_and_reach_follow_the_resolved_tree() {
        let metadata = serde_json::json!({
            "packages": [
                { "id": "a", "name": "a", "license": "MIT", "source": null },
                { "id": "b", "name": "b", "license": "MIT", "source": null },
                { "id": "c", "name": "c", "license": null, "source": "registry+x" },
                { "id": "d", "name": "d", "license": "MIT", "source": "registry+x" },
            ],
            "workspace_members": ["a", "b"],
            "resolve": { "nodes": [
                { "id": "a", "deps": [{ "pkg": "b", "dep_kinds": [{ "kind": "dev" }] }] },
                { "id": "b", "deps": [{ "pkg": "c", "dep_kinds": [{ "kind": null }] }] },
                { "id": "c", "deps": [{ "pkg": "d", "dep_kinds": [{ "kind": "build" }, { "kind": "dev" }] }] },
                { "id": "d", "deps": [] },
            ] },
        });
        let tree = Tree::parse(&metadata).unwrap();
        assert_eq!(tree.members(), BTreeSet::from(["a", "b"]));
        assert_eq!(
            tree.arrows("a"),
            BTreeSet::from(["b"]),
            "a dev-dependency is an arrow"
        );
        assert_eq!(
            tree.arrows("b"),
            BTreeSet::new(),
            "foreign packages are none"
        );
        assert_eq!(
            tree.reaches("a"),
            BTreeSet::new(),
            "a dev-dependency is not linked"
        );
        assert_eq!(tree.reaches("b"), BTreeSet::from(["c", "d"]));
    }
}
