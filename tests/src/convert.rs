//! From the naive evaluator's world and facts to the engine's documents, settings and request.

use std::sync::Arc;

use portcullis_policy::compile::Documents;
use portcullis_policy::document::SourceText;
use portcullis_policy::request::{
    Destination, Headers, Http, Identity, IdentityKind, PathForm, RemoteAddress, Request, Source,
    Target,
};
use portcullis_policy::resource::{ExtAuthz, ExtensionProvider, MeshConfig, PathNormalization};
use portcullis_policy::settings::Settings;
use serde_json::{Value, json};

use crate::naive;

/// Name of the pod that stands for the destination workload.
pub const POD: &str = "w";

/// The manifests of a world: its policies, the workload as a Pod, the service behind a waypoint.
#[must_use]
pub fn manifests(world: &naive::World) -> Vec<Value> {
    let mut all = world.policies.clone();
    all.push(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": world.workload.namespace,
            "name": POD,
            "labels": world.workload.labels,
        },
        "spec": {"containers": [{"name": "c", "image": "c"}]},
    }));
    if let Some(service) = &world.service {
        let metadata = json!({"namespace": service.namespace, "name": service.name});
        all.push(if service.kind == "ServiceEntry" {
            json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "ServiceEntry",
                "metadata": metadata,
                "spec": {"hosts": ["entry.example"], "ports": [{"number": 80, "name": "http"}]},
            })
        } else {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"ports": [{"port": 80}]},
            })
        });
    }
    all
}

/// The same as one multi-document file.
#[must_use]
pub fn documents(manifests: &[Value]) -> Documents {
    let text: String = manifests
        .iter()
        .map(|manifest| format!("---\n{manifest}\n"))
        .collect();
    Documents {
        base: vec![SourceText {
            file: "policies.yaml".into(),
            bytes: Arc::from(text.into_bytes()),
        }],
        candidate: None,
    }
}

/// The mesh as configuration, and policies lowered even where validation refuses them.
#[must_use]
pub fn settings(mesh: &naive::Mesh) -> Settings {
    Settings {
        mesh: MeshConfig {
            root_namespace: Some(mesh.root_namespace.clone()),
            trust_domain: Some(mesh.trust_domain.clone()),
            trust_domain_aliases: Some(mesh.aliases.clone()),
            path_normalization: Some(match mesh.path_normalization.as_str() {
                "NONE" => PathNormalization::None,
                "MERGE_SLASHES" => PathNormalization::MergeSlashes,
                "DECODE_AND_MERGE_SLASHES" => PathNormalization::DecodeAndMergeSlashes,
                _ => PathNormalization::Base,
            }),
            num_trusted_proxies: None,
            extension_providers: Some(
                mesh.providers
                    .iter()
                    .map(|name| ExtensionProvider {
                        name: name.clone(),
                        ext_authz: Some(ExtAuthz::Grpc),
                        call: None,
                    })
                    .collect(),
            ),
            ..MeshConfig::default()
        },
        accept_invalid: true,
        ..Settings::default()
    }
}

/// A request to the world's workload with every fact given.
#[must_use]
pub fn request(world: &naive::World, facts: &naive::Facts) -> Request {
    let kinds = [
        (IdentityKind::Uri, &facts.uri_sans),
        (IdentityKind::Dns, &facts.dns_sans),
        (
            IdentityKind::Subject,
            &facts.subject.iter().cloned().collect(),
        ),
    ];
    let identities: Vec<Identity> = kinds
        .into_iter()
        .flat_map(|(kind, values)| {
            values.iter().map(move |value| Identity {
                kind,
                value: value.clone(),
            })
        })
        .collect();
    Request {
        source: Source {
            certificate_presented: !identities.is_empty(),
            identities,
            address: facts.source_ip,
        },
        remote: facts
            .remote_ip
            .map_or(RemoteAddress::None, RemoteAddress::Known),
        destination: Destination {
            workload: Some(format!("{}/{POD}", world.workload.namespace)),
            service: world
                .service
                .as_ref()
                .map(|service| format!("{}/{}", service.namespace, service.name)),
            address: facts.destination_ip,
            port: facts.destination_port,
            principal: None,
        },
        target: Some(match world.target {
            naive::Target::Sidecar => Target::Sidecar,
            naive::Target::Gateway => Target::Gateway,
            naive::Target::Waypoint => Target::Waypoint,
            naive::Target::Ztunnel => Target::Ztunnel,
        }),
        sni: facts.sni.clone(),
        http: facts.http.as_ref().map(|http| Http {
            method: http.method.clone(),
            path: http.path.clone(),
            host: http.host.clone(),
            scheme: if facts.tls { "https" } else { "http" }.to_owned(),
            headers: Headers {
                entries: http
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        let value = value.trim_matches([' ', '\t']);
                        (name.to_ascii_lowercase(), value.to_owned())
                    })
                    .collect(),
                merged: false,
                ..Headers::default()
            },
        }),
        path_form: PathForm::Raw,
        jwt: facts.jwt.clone(),
        metadata: facts.metadata.clone(),
        ..Request::empty()
    }
}

/// Envoy's name of a rule, `ns[foo]-policy[p]-rule[0]` with or without the dress of CUSTOM, as the
/// product writes it: `foo/p#rule[0]`.
#[must_use]
pub fn rule_id(envoy: &str) -> Option<String> {
    let start = envoy.find("ns[")? + 3;
    let (namespace, rest) = envoy.get(start..)?.split_once("]-policy[")?;
    let (name, rest) = rest.split_once("]-rule[")?;
    let (index, _) = rest.split_once(']')?;
    Some(format!("{namespace}/{name}#rule[{index}]"))
}
