//! Whether one object is good, by itself.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::ObjectKey;
use super::content::Content;
use crate::compile;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::document::SourceText;
use crate::lint;
use crate::mesh::Mesh;
use crate::resource::{self, FileResources, Resource};
use crate::settings::Settings;

/// API kind, namespace and name of what a file holds.
pub(super) type Identity = (String, String, String);

/// What the files hold.
pub(super) fn identities(files: &[Arc<FileResources>]) -> FxHashSet<Identity> {
    let resources = files.iter().flat_map(|file| &file.resources);
    let identities = resources.filter_map(|resource| lint::identity(resource));
    identities
        .map(|((kind, namespace, name), _)| {
            (kind.to_owned(), namespace.to_owned(), name.to_owned())
        })
        .collect()
}

/// Reads an object and checks all of it that does not depend on other objects.
///
/// # Errors
/// Every diagnostic of the object, when at least one is an error.
pub(super) fn object(
    key: &ObjectKey,
    text: &SourceText,
    mesh: &Mesh,
    in_files: &FxHashSet<Identity>,
    settings: &Settings,
) -> Result<Content, Vec<Diagnostic>> {
    let read = resource::read(&SourceText {
        file: key.file(),
        bytes: Arc::clone(&text.bytes),
    });
    let mut found = read.diagnostics.clone();
    found.extend(not_the_object(key, &read));
    found.extend(twice(key, &read, in_files));
    let content = Content::of(Arc::new(read), mesh);
    found.extend(content.of_cedar.iter().cloned());
    if found.iter().any(|d| compile::refuses(d, settings)) {
        return Err(found);
    }
    Ok(content)
}

/// True for an object that stands in a file as well.
pub(super) fn is_in_file(diagnostic: &Diagnostic) -> bool {
    diagnostic.code == code::DUPLICATE_RESOURCE.id
}

/// An error where a text is another object than it was announced as, or several.
fn not_the_object(key: &ObjectKey, read: &FileResources) -> Option<Diagnostic> {
    let same = |resource: &Arc<Resource>| {
        let Some(((kind, namespace, name), _)) = lint::identity(resource) else {
            return true;
        };
        let kind = kind.split('.').next().unwrap_or_default();
        kind == key.kind.as_ref()
            && namespace == key.namespace.as_ref()
            && name == key.name.as_ref()
    };
    if read.resources.len() <= 1 && read.resources.iter().all(same) {
        return None;
    }
    let message = format!(
        "the text is not the object `{}`, or not it alone",
        key.resource()
    );
    Some(
        code::NOT_AN_OBJECT
            .at(start(key), message)
            .with_resource(key.resource()),
    )
}

fn start(key: &ObjectKey) -> Location {
    Location {
        file: key.file(),
        line: 1,
        column: 1,
    }
}

/// PC0503, where a file holds the object already.
fn twice(
    key: &ObjectKey,
    read: &FileResources,
    in_files: &FxHashSet<Identity>,
) -> Option<Diagnostic> {
    // A policy that cannot be read has a name all the same.
    let kind = match read.resources.first() {
        Some(resource) => lint::identity(resource)?.0.0,
        None => key.policy_kind().map(|_| key.kind.as_ref())?,
    };
    let identity = (
        kind.to_owned(),
        key.namespace.to_string(),
        key.name.to_string(),
    );
    // These hold nothing that could differ in effect.
    if matches!(kind, "Namespace" | "ServiceAccount") || !in_files.contains(&identity) {
        return None;
    }
    let message = format!(
        "`{}` stands in a file as well, and that one is in force",
        key.resource()
    );
    let hint = "keep one of the two: the object, or the document in the file";
    Some(
        code::DUPLICATE_RESOURCE
            .at(start(key), message)
            .with_resource(key.resource())
            .with_hint(hint),
    )
}
