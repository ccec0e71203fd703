//! From one file to its resources: documents, lists inside documents, kinds.

use std::sync::Arc;

use super::kind::{self, Kind};
use super::path::Path;
use super::reader::{Reader, listed, nearest};
use super::{
    Resource, authorization_policy, cedar_policy, inventory, mesh_config, metadata,
    peer_authentication, policy_test, request_authentication,
};
use crate::diagnostic::{Diagnostic, code};
use crate::document::{self, Excerpt, Node, SourceText};

/// What one file held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileResources {
    /// Resources in the order of the file. A policy that Istio's webhook would refuse is here too;
    /// one that has no typed form is not.
    pub resources: Vec<Arc<Resource>>,
    /// What is wrong or worth knowing. With an error among them the file must not be used, unless
    /// policies that bypassed validation are wanted.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads every resource of one file. Depends on nothing but the file, so the result can be kept by
/// its content.
///
/// A file that is no YAML or JSON yields diagnostics alone: nothing of it is half-loaded.
#[must_use]
pub fn read(source: &SourceText) -> FileResources {
    let documents = match document::parse(source) {
        Ok(documents) => documents,
        Err(diagnostics) => {
            return FileResources {
                resources: Vec::new(),
                diagnostics,
            };
        }
    };
    let mut reader = Reader::new(&source.file);
    let mut resources = Vec::new();
    for document in &documents {
        read_document(document, None, &mut reader, &mut resources);
    }
    FileResources {
        resources,
        diagnostics: reader.finish(),
    }
}

/// One document, or one item of a list; `inherited` is the (apiVersion, kind) that a typed list
/// gives to items that say none.
fn read_document(
    root: &Node,
    inherited: Option<(&str, &str)>,
    reader: &mut Reader<'_>,
    resources: &mut Vec<Arc<Resource>>,
) {
    reader.begin(String::new());
    // An empty document between two `---` is nothing.
    if root.is_null() {
        return;
    }
    let Some((api_version, kind)) = type_of(root, inherited, reader) else {
        return;
    };
    let (group, version) = match api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", api_version),
    };
    if let Some(item_kind) = kind.strip_suffix("List")
        && root
            .get("items")
            .is_some_and(|items| items.as_list().is_some())
    {
        let inherited = (!item_kind.is_empty()).then_some((api_version, item_kind));
        let items = root
            .get("items")
            .and_then(Node::as_list)
            .unwrap_or_default();
        for item in items {
            if item.is_null() {
                reader.begin(String::new());
                let at = reader.location(item.at);
                reader.report(
                    &code::NULL_ENTRY,
                    at,
                    &Path::Root,
                    "an item of the list is null",
                    "remove it",
                );
                continue;
            }
            read_document(item, inherited, reader, resources);
        }
        return;
    }
    // A list without items, as `kubectl get` prints when nothing is there.
    if group.is_empty() && kind == "List" {
        return;
    }
    match kind::find(group, kind) {
        Some(found) => read_kind(found, version, root, reader, resources),
        None => pass_over(root, group, version, kind, reader),
    }
}

/// `apiVersion` and `kind`.
fn type_of<'n>(
    root: &'n Node,
    inherited: Option<(&'n str, &'n str)>,
    reader: &mut Reader<'_>,
) -> Option<(&'n str, &'n str)> {
    let at = reader.location(root.at);
    if root.as_mapping().is_none() {
        reader.report(
            &code::NOT_AN_OBJECT,
            at,
            &Path::Root,
            format!("expected a Kubernetes object, found {}", root.described()),
            "a manifest has `apiVersion`, `kind`, `metadata` and `spec`",
        );
        return None;
    }
    let path = Path::Root;
    let mut text = |key: &'static str| -> Result<Option<&'n str>, ()> {
        match root.get(key) {
            None => Ok(None),
            Some(node) => node.as_str().map(Some).ok_or_else(|| {
                reader.wrong_type(node, &path.key(key), "a string");
            }),
        }
    };
    let api_version = text("apiVersion").ok()?;
    let kind = text("kind").ok()?;
    match (api_version, kind, inherited) {
        (Some(api_version), Some(kind), _) => Some((api_version, kind)),
        // What a mesh's own tools print has no apiVersion.
        (None, Some("MeshConfig"), _) => Some(("", "MeshConfig")),
        (api_version, kind, Some((list_version, list_kind))) => Some((
            api_version.unwrap_or(list_version),
            kind.unwrap_or(list_kind),
        )),
        (_, kind, None) => {
            let missing = if kind.is_none() { "kind" } else { "apiVersion" };
            reader.report(
                &code::NOT_AN_OBJECT,
                at,
                &path.key(missing),
                format!("the document has no `{missing}`"),
                "a manifest has `apiVersion`, `kind`, `metadata` and `spec`",
            );
            None
        }
    }
}

fn read_kind(
    kind: Kind,
    version: &str,
    root: &Node,
    reader: &mut Reader<'_>,
    resources: &mut Vec<Arc<Resource>>,
) {
    let shape = kind.shape();
    // A ConfigMap is ours only when it holds a mesh; anything else in it is not our business.
    if kind == Kind::ConfigMap && !is_mesh(root) {
        pass_over(root, "", version, "ConfigMap", reader);
        return;
    }
    if kind == Kind::MeshConfig && root.get("metadata").is_none() {
        let meta = super::Metadata {
            at: reader.location(root.at),
            ..super::Metadata::default()
        };
        reader.begin("MeshConfig".to_owned());
        let mesh = mesh_document(root, &meta, reader);
        resources.extend(mesh.map(|mesh| Arc::new(Resource::MeshConfig(mesh))));
        return;
    }
    let Some(meta) = metadata::read(root, shape, reader) else {
        return;
    };
    if let Some(versions) = kind.versions()
        && !versions.contains(&version)
    {
        let path = Path::Root;
        let at = root.get("apiVersion").map_or(root.at, |node| node.at);
        reader.report(
            &code::UNKNOWN_KIND,
            reader.location(at),
            &path.key("apiVersion"),
            format!("{} has no version `{}`", shape.kind, Excerpt(version)),
            format!("its versions are {}", listed(versions)),
        );
        return;
    }
    if shape.strict {
        check_top_level(root, reader);
    }
    let resource = match kind {
        Kind::AuthorizationPolicy => {
            authorization_policy::read(root, meta, reader).map(Resource::AuthorizationPolicy)
        }
        Kind::PeerAuthentication => {
            peer_authentication::read(root, meta, reader).map(Resource::PeerAuthentication)
        }
        Kind::RequestAuthentication => {
            request_authentication::read(root, meta, reader).map(Resource::RequestAuthentication)
        }
        Kind::MeshConfig => mesh_document(root, &meta, reader).map(Resource::MeshConfig),
        Kind::ConfigMap => mesh_config::inside(root, &meta, reader).map(Resource::MeshConfig),
        Kind::IstioOperator => {
            let path = Path::Root;
            let spec = path.key("spec");
            let mesh = root.get("spec").and_then(|spec| spec.get("meshConfig"));
            mesh.and_then(|mesh| mesh_config::read(mesh, &spec.key("meshConfig"), &meta, reader))
                .map(Resource::MeshConfig)
        }
        Kind::Namespace => Some(Resource::Namespace(meta)),
        Kind::ServiceAccount => Some(Resource::ServiceAccount(meta)),
        Kind::Pod => inventory::workload::pod(root, meta, reader).map(Resource::Workload),
        Kind::Controller(kind) => {
            inventory::workload::controller(root, kind, meta, reader).map(Resource::Workload)
        }
        Kind::WorkloadEntry => {
            inventory::workload::entry(root, meta, reader).map(Resource::Workload)
        }
        Kind::Service => inventory::service::read(root, meta, reader).map(Resource::Service),
        Kind::EndpointSlice => {
            inventory::endpoint_slice::read(root, meta, reader).map(Resource::EndpointSlice)
        }
        Kind::ServiceEntry => {
            inventory::service_entry::read(root, meta, reader).map(Resource::ServiceEntry)
        }
        Kind::Gateway => inventory::gateway(root, meta, reader).map(Resource::Gateway),
        Kind::GatewayClass => {
            inventory::gateway_class(root, meta, reader).map(Resource::GatewayClass)
        }
        Kind::IstioGateway => {
            inventory::istio_gateway(root, meta, reader).map(Resource::IstioGateway)
        }
        Kind::CedarPolicy => cedar_policy::read(root, meta, reader).map(Resource::CedarPolicy),
        Kind::PolicyTest => policy_test::read(root, meta, reader).map(Resource::PolicyTest),
    };
    resources.extend(resource.map(Arc::new));
}

/// The keys of a MeshConfig document stand at its top, or under `spec`.
fn mesh_document(
    root: &Node,
    meta: &super::Metadata,
    reader: &mut Reader<'_>,
) -> Option<super::MeshConfig> {
    let path = Path::Root;
    match root.get("spec") {
        Some(spec) => mesh_config::read(spec, &path.key("spec"), meta, reader),
        None => mesh_config::read(root, &path, meta, reader),
    }
}

/// A ConfigMap `istio` or `istio-REVISION` with `data.mesh`.
fn is_mesh(root: &Node) -> bool {
    let name = root
        .get("metadata")
        .and_then(|meta| meta.get("name"))
        .and_then(Node::as_str)
        .unwrap_or_default();
    (name == "istio" || name.starts_with("istio-"))
        && root
            .get("data")
            .is_some_and(|data| data.get("mesh").is_some())
}

fn check_top_level(root: &Node, reader: &mut Reader<'_>) {
    const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    for entry in root.as_mapping().unwrap_or_default() {
        if !FIELDS.contains(&entry.key.as_str()) {
            reader.unknown_field(entry, &Path::Root, FIELDS);
        }
    }
}

/// A kind that decides nothing here; an error or a warning if it looks like one that should.
fn pass_over(root: &Node, group: &str, version: &str, kind: &str, reader: &mut Reader<'_>) {
    let meta = root.get("metadata");
    let text = |key: &str| {
        meta.and_then(|m| m.get(key))
            .and_then(Node::as_str)
            .unwrap_or_default()
    };
    reader.begin(metadata::identity(
        &Excerpt(kind).to_string(),
        text("namespace"),
        text("name"),
    ));
    let path = Path::Root;
    let place = |key: &str| root.get(key).map_or(root.at, |node| node.at);
    let api_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut closed = kind::CLOSED_GROUPS.iter();
    if let Some((_, kinds, _)) = closed.find(|(known, ..)| group == *known) {
        let hint = match nearest(kind, kinds) {
            Some(kind) => format!("did you mean `{kind}`?"),
            None => format!("its kinds are {}", listed(kinds)),
        };
        let at = reader.location(place("kind"));
        reader.report(
            &code::UNKNOWN_KIND,
            at,
            &path.key("kind"),
            format!("`{group}` has no kind `{}`", Excerpt(kind)),
            hint,
        );
        return;
    }
    let mut closed = kind::CLOSED_GROUPS.iter();
    let meant = closed.find(|(known, kinds, _)| {
        kinds.contains(&kind) && (group.is_empty() || nearest(group, &[known]).is_some())
    });
    if let Some((known, _, version)) = meant {
        let at = reader.location(place("apiVersion"));
        reader.report(
            &code::LOOKALIKE_KIND,
            at,
            &path.key("apiVersion"),
            format!(
                "kind `{kind}` of `{}` decides nothing",
                Excerpt(&api_version)
            ),
            format!("did you mean `apiVersion: {known}/{version}`?"),
        );
        return;
    }
    let at = reader.location(root.at);
    let mut note = code::PASSED_OVER.at(
        at,
        format!(
            "`{}` of `{}` is passed over",
            Excerpt(kind),
            Excerpt(&api_version)
        ),
    );
    note = note.with_resource(reader.resource());
    reader.push(note);
}
