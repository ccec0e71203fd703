//! A small builder of inventories: what a test needs of a cluster, in one expression.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_policy::diagnostic::{Diagnostic, Location};
use portcullis_policy::inventory::Inventory;
use portcullis_policy::mesh::Mesh;
use portcullis_policy::resource::{
    Endpoint, EndpointSlice, Gateway, GatewayClass, IstioGateway, Metadata, Resource, Service,
    ServiceEntry, Workload, WorkloadKind,
};
use portcullis_policy::settings::{DeclaredWorkload, Settings};

/// Resources and settings.
#[derive(Clone, Default)]
pub struct World {
    resources: Vec<Arc<Resource>>,
    settings: Settings,
}

/// A workload under construction.
#[derive(Clone)]
pub struct Built(Workload);

pub fn pod(namespace: &str, name: &str) -> Built {
    Built(Workload {
        kind: WorkloadKind::Pod,
        namespace: namespace.into(),
        name: name.into(),
        labels: BTreeMap::new(),
        service_account: "default".into(),
        addresses: Vec::new(),
        host_network: false,
        running: true,
        ports: Vec::new(),
        at: Location::default(),
    })
}

pub fn deployment(namespace: &str, name: &str) -> Built {
    pod(namespace, name).kind(WorkloadKind::Deployment)
}

impl Built {
    pub fn build(self) -> Workload {
        self.0
    }

    pub fn kind(mut self, kind: WorkloadKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub fn at(mut self, address: &str) -> Self {
        self.0.addresses.push(address.parse().unwrap());
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.labels.insert(key.into(), value.into());
        self
    }

    pub fn account(mut self, account: &str) -> Self {
        self.0.service_account = account.into();
        self
    }

    pub fn ended(mut self) -> Self {
        self.0.running = false;
        self
    }

    pub fn host_network(mut self) -> Self {
        self.0.host_network = true;
        self
    }
}

fn meta(namespace: &str, name: &str) -> Metadata {
    Metadata {
        namespace: namespace.into(),
        name: name.into(),
        ..Metadata::default()
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl World {
    pub fn inventory(&self) -> Inventory {
        let (mesh, _) = Mesh::resolve(&self.resources, &self.settings);
        Inventory::build(&self.resources, &mesh, &self.settings)
    }

    pub fn diagnose(&self) -> Vec<Diagnostic> {
        self.inventory().diagnose(&self.resources)
    }

    pub fn with(self, workload: Built) -> Self {
        self.push(Resource::Workload(workload.0))
    }

    pub fn declare(mut self, namespace: &str, name: &str, at: &[&str]) -> Self {
        self.settings.workloads.push(DeclaredWorkload {
            namespace: namespace.into(),
            name: name.into(),
            addresses: addresses(at),
            ..DeclaredWorkload::default()
        });
        self
    }

    pub fn default_workload(mut self, name: &str) -> Self {
        self.settings.default_workload = Some(name.into());
        self
    }

    pub fn trust_domains(mut self, own: &str, aliases: &[&str]) -> Self {
        self.settings.mesh.trust_domain = Some(own.into());
        self.settings.mesh.trust_domain_aliases = Some(strings(aliases));
        self
    }

    pub fn service(
        self,
        namespace: &str,
        name: &str,
        selector: &[(&str, &str)],
        cluster_ips: &[&str],
    ) -> Self {
        self.push(Resource::Service(Service {
            meta: meta(namespace, name),
            selector: map(selector),
            cluster_ips: addresses(cluster_ips),
            ports: Vec::new(),
        }))
    }

    pub fn service_entry(self, namespace: &str, name: &str, hosts: &[&str], at: &[&str]) -> Self {
        self.push(Resource::ServiceEntry(ServiceEntry {
            meta: meta(namespace, name),
            hosts: strings(hosts),
            addresses: addresses(at),
            workload_selector: BTreeMap::new(),
        }))
    }

    pub fn endpoint(
        self,
        namespace: &str,
        service: Option<&str>,
        address: &str,
        pod: Option<(&str, &str)>,
    ) -> Self {
        self.push(Resource::EndpointSlice(EndpointSlice {
            meta: meta(namespace, "slice"),
            service: service.map(str::to_owned),
            endpoints: vec![Endpoint {
                addresses: addresses(&[address]),
                pod: pod.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            }],
        }))
    }

    pub fn gateway(self, namespace: &str, name: &str, class: &str) -> Self {
        self.push(Resource::Gateway(Gateway {
            meta: meta(namespace, name),
            class: class.into(),
        }))
    }

    pub fn gateway_class(self, name: &str, controller: &str) -> Self {
        let meta = meta("", name);
        self.push(Resource::GatewayClass(GatewayClass {
            meta,
            controller: controller.into(),
        }))
    }

    pub fn istio_gateway(self, namespace: &str, selector: &[(&str, &str)]) -> Self {
        let meta = meta(namespace, "gateway");
        self.push(Resource::IstioGateway(IstioGateway {
            meta,
            selector: map(selector),
        }))
    }

    fn push(mut self, resource: Resource) -> Self {
        self.resources.push(Arc::new(resource));
        self
    }
}
