//! What Istio's own functions answered.
//!
//! `istio/*.jsonl` holds random inputs, made for this project, and the answers of istio/istio at
//! 86c9f01f: `trustdomain.Bundle`, `WorkloadPolicyMatcher.ShouldAttachPolicy`,
//! `ComposePeerAuthentication`, and for ztunnel `convertedSelectorPeerAuthentications` with
//! `convertPeerAuthentication`, their policies matched as ztunnel matches them. Each file is a sample
//! with every kind of answer out of tens of thousands, on all of which the two agreed.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::attachment::{EnforcementPoint, Index, Scope, attaches};
use portcullis_policy::diagnostic::Location;
use portcullis_policy::inventory::{ServiceKind, ServiceRef};
use portcullis_policy::mesh::Mesh;
use portcullis_policy::peer_authentication::PeerAuthentications;
use portcullis_policy::request::Target;
use portcullis_policy::resource::{
    Metadata, MtlsMode, PeerAuthentication, Resource, Selector, TargetRef, Workload,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::world::pod;

type Labels = BTreeMap<String, String>;

fn lines<T: DeserializeOwned>(text: &str) -> Vec<T> {
    let lines: Vec<T> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() > 100, "{} lines", lines.len());
    lines
}

fn workload(namespace: &str, labels: &Labels) -> Workload {
    labels
        .iter()
        .fold(pod(namespace, "w"), |pod, (k, v)| pod.label(k, v))
        .build()
}

fn selector(labels: Option<Labels>) -> Option<Selector> {
    labels.map(|match_labels| Selector {
        match_labels,
        at: Location::default(),
    })
}

#[derive(Debug, Deserialize)]
struct TrustDomainCase {
    own: String,
    aliases: Vec<String>,
    principals: Vec<String>,
    expanded: Vec<String>,
    trust_domains: Vec<String>,
    trust_domains_expanded: Vec<String>,
}

#[test]
fn trust_domains_migrate_as_istios_do() {
    for case in lines::<TrustDomainCase>(include_str!("istio/trust_domain.jsonl")) {
        let mesh = Mesh {
            trust_domain: case.own.clone(),
            trust_domain_aliases: case.aliases.clone(),
            ..Mesh::default()
        };
        // istiod may repeat a value, which matches nothing more
        let once = |values: &[String]| {
            let mut once: Vec<String> = Vec::new();
            for value in values {
                if !once.contains(value) {
                    once.push(value.clone());
                }
            }
            once
        };
        assert_eq!(
            mesh.expand_principals(&case.principals),
            once(&case.expanded),
            "{case:?}"
        );
        let expanded = mesh.expand_trust_domains(&case.trust_domains);
        assert_eq!(expanded, once(&case.trust_domains_expanded), "{case:?}");
    }
}

#[derive(Debug, Deserialize)]
struct PeerAuthenticationCase {
    /// Namespace; the workload is labelled `app: web`.
    workload: String,
    policies: Vec<PeerAuthenticationPolicy>,
    /// A letter for the mode of each of the ports 80 to 83.
    sidecar: String,
    /// `S` for a port that demands an identity, else `-`.
    ztunnel: String,
    dangling: bool,
}

#[derive(Debug, Deserialize)]
struct PeerAuthenticationPolicy {
    policy: String,
    created: u16,
    selector: Option<Labels>,
    mode: char,
    ports: BTreeMap<u16, char>,
}

fn mode(letter: char) -> MtlsMode {
    match letter {
        'D' => MtlsMode::Disable,
        'P' => MtlsMode::Permissive,
        'S' => MtlsMode::Strict,
        _ => MtlsMode::Unset,
    }
}

impl PeerAuthenticationPolicy {
    fn resource(&self) -> Arc<Resource> {
        let (namespace, name) = self.policy.split_once('/').unwrap();
        Arc::new(Resource::PeerAuthentication(PeerAuthentication {
            meta: Metadata {
                namespace: namespace.into(),
                name: name.into(),
                creation_timestamp: Some(format!("{:04}-01-01T00:00:00Z", 2020 + self.created)),
                ..Metadata::default()
            },
            selector: selector(self.selector.clone()),
            mode: mode(self.mode),
            port_level: self
                .ports
                .iter()
                .map(|(port, letter)| (*port, mode(*letter)))
                .collect(),
        }))
    }
}

#[test]
fn peer_authentication_comes_to_what_istios_does() {
    let web = Labels::from([("app".to_owned(), "web".to_owned())]);
    let mut dangling = 0;
    for case in lines::<PeerAuthenticationCase>(include_str!("istio/peer_authentication.jsonl")) {
        let resources: Vec<_> = case
            .policies
            .iter()
            .map(|policy| policy.resource())
            .collect();
        let policies = PeerAuthentications::build(&resources, "root");
        let workload = workload(&case.workload, &web);
        let on = |port, target| policies.effective(&workload, port, target);
        for (port, (letter, demanded)) in (80..).zip(case.sidecar.chars().zip(case.ztunnel.chars()))
        {
            assert_eq!(
                on(Some(port), Target::Sidecar).mode,
                mode(letter),
                "{port} {case:?}"
            );
            let demands = on(Some(port), Target::Ztunnel).requires_identity();
            assert_eq!(demands, demanded == 'S', "{port} {case:?}");
        }
        // where the port is not known, what any port demands is demanded
        let any = |letters: &str| letters.contains('S');
        assert_eq!(
            on(None, Target::Sidecar).requires_identity(),
            any(&case.sidecar),
            "{case:?}"
        );
        assert_eq!(
            on(None, Target::Ztunnel).requires_identity(),
            any(&case.ztunnel),
            "{case:?}"
        );
        assert_eq!(
            policies.dangling(&workload).is_some(),
            case.dangling,
            "{case:?}"
        );
        dangling += usize::from(case.dangling);
    }
    assert!(dangling > 10, "{dangling}");
}

#[derive(Debug, Deserialize)]
struct AttachmentCase {
    workload: String,
    labels: Labels,
    waypoint: bool,
    service: Option<ServiceCase>,
    policy: String,
    selector: Option<Labels>,
    target_refs: Vec<TargetRefCase>,
    attaches: bool,
}

#[derive(Debug, Deserialize)]
struct ServiceCase {
    registry: String,
    namespace: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct TargetRefCase {
    group: String,
    kind: String,
    name: String,
    namespace: String,
}

#[test]
fn policies_attach_where_istios_do() {
    for case in lines::<AttachmentCase>(include_str!("istio/attachment.jsonl")) {
        let workload = workload(&case.workload, &case.labels);
        let selector = selector(case.selector.clone());
        let target_refs: Vec<TargetRef> = case
            .target_refs
            .iter()
            .map(|reference| TargetRef {
                group: reference.group.clone(),
                kind: reference.kind.clone(),
                name: reference.name.clone(),
                namespace: reference.namespace.clone(),
                at: Location::default(),
            })
            .collect();
        let scope = Scope {
            namespace: &case.policy,
            selector: selector.as_ref(),
            target_refs: &target_refs,
        };
        let service = case.service.as_ref().map(|service| ServiceRef {
            kind: match service.registry.as_str() {
                "Kubernetes" => ServiceKind::Service,
                _ => ServiceKind::ServiceEntry,
            },
            namespace: &service.namespace,
            name: &service.name,
        });
        let targets: &[Target] = if case.waypoint {
            &[Target::Waypoint]
        } else {
            &[Target::Sidecar, Target::Gateway]
        };
        for target in targets {
            let point = EnforcementPoint {
                workload: &workload,
                target: *target,
                service,
                root_namespace: "root",
            };
            assert_eq!(
                attaches(&scope, &point),
                case.attaches,
                "{target:?} {case:?}"
            );
            let index = Index::build([scope]);
            assert_eq!(
                index.attached(&point).len(),
                usize::from(case.attaches),
                "{target:?} {case:?}"
            );
        }
    }
}
