//! Serving certificates from a Workload API, and from files as cert-manager's Secret is mounted: none is renewed at the
//! cost of a call.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{Api, Client};
use portcullis_tests::authority::{Authority, Leaf, Names};
use portcullis_tests::component::run_folder;
use portcullis_tests::workload::served::Served;
use serde_json::{Value, json};

use super::steady::{Applying, asked, certificates, configured, is_of, local_url, roots, shown};
use super::webhook::{Replica, Service, configuration, judged_namespace, send};
use crate::cluster::{self, Cluster, until};

const NAME: &str = "localhost";
const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

/// The API server that tests share, a client of this runtime, a folder.
pub async fn shared(name: &str) -> Option<(&'static Cluster, Client, PathBuf)> {
    let cluster = tokio::task::spawn_blocking(cluster::shared)
        .await
        .unwrap()?;
    let client = cluster.client().await;
    cluster::make_namespace(&client, "portcullis").await;
    Some((cluster, client, run_folder(name)))
}

fn more(configuration: &str, rest: &str) -> String {
    format!("  names: [{NAME}]\n  webhook_configuration: {configuration}\n{rest}")
}

/// A Secret's volume, as a kubelet writes it: what is read is links into a folder that a link names, and that is swapped.
struct Volume {
    folder: PathBuf,
    written: usize,
}

impl Volume {
    fn new(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(file), folder.join(file)).unwrap();
        }
        Self { folder, written: 0 }
    }

    fn write(&mut self, leaf: &Leaf, authority: &Authority) {
        let before = format!("..version-{}", self.written);
        self.written += 1;
        let now = format!("..version-{}", self.written);
        let folder = self.folder.join(&now);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), &leaf.certificate).unwrap();
        fs::write(folder.join("tls.key"), &leaf.key).unwrap();
        fs::write(folder.join("ca.crt"), authority.certificate()).unwrap();
        let link = self.folder.join("..data_tmp");
        symlink(&now, &link).unwrap();
        fs::rename(&link, self.folder.join("..data")).unwrap();
        let _none_at_first = fs::remove_dir_all(self.folder.join(before));
    }

    /// `admission.certificate`, with the authorities or without.
    fn source(&self, authorities: bool) -> String {
        let at = |file: &str| self.folder.join(file).display().to_string();
        let mut files = json!({ "certificate": at("tls.crt"), "key": at("tls.key") });
        if authorities {
            files["authorities"] = json!(at("ca.crt"));
        }
        format!("  certificate: {}\n", json!({ "files": files }))
    }
}

fn leaf(authority: &Authority) -> Leaf {
    let names = Names {
        dns: vec![NAME.to_owned()],
        ..Names::default()
    };
    authority.leaf(&names).unwrap()
}

fn root(authority: &Authority) -> Vec<portcullis_admission::certificate::Root> {
    certificates(authority.certificate().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_secret_are_taken_over_with_a_new_authority_by_one_replica_after_the_other() {
    let Some((cluster, client, folder)) = shared("kubernetes-files").await else {
        return;
    };
    let service = Service::start();
    let namespace = configured(&client, "files", &local_url(&service)).await;
    let (first, second) = (Authority::new().unwrap(), Authority::new().unwrap());
    let mut volumes = [Volume::new(&folder, "one"), Volume::new(&folder, "two")];
    let issued = leaf(&first);
    let mut replicas = Vec::new();
    for (volume, name) in volumes.iter_mut().zip(["one", "two"]) {
        volume.write(&issued, &first);
        let more = more("files", &volume.source(true));
        let replica = Replica::start_named(cluster, &folder, name, &more);
        service.add(replica.address);
        replicas.push(replica);
    }
    for replica in &replicas {
        replica.ready().await;
    }
    asked(&client, &namespace).await;
    assert_eq!(roots(&client, "files").await, root(&first));

    let applying = Applying::start(&client, &namespace, "files", service.address, NAME);
    let issued = leaf(&second);
    // Kubelets of two nodes are minutes apart.
    for (volume, replica) in volumes.iter_mut().zip(&replicas) {
        volume.write(&issued, &second);
        until("the new certificate is shown", async || {
            is_of(replica.address, NAME, &root(&second)).await
        })
        .await;
    }
    applying.stop().await;
    let told = roots(&client, "files").await;
    assert!(
        root(&second).iter().all(|root| told.contains(root)),
        "{} roots",
        told.len()
    );

    // A certificate without its key is refused, and the one before it stays.
    let torn = Leaf {
        certificate: leaf(&second).certificate,
        key: issued.key.clone(),
    };
    volumes[0].write(&torn, &second);
    until("the refusal is logged", async || {
        let log = replicas[0].daemon.log();
        log.contains("a new certificate is refused: the one before it stays in force")
    })
    .await;
    assert!(replicas[0].is_ready());
    assert!(is_of(replicas[0].address, NAME, &root(&second)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_an_injector_keeps_is_left_alone() {
    let Some((cluster, client, folder)) = shared("kubernetes-injector").await else {
        return;
    };
    let service = Service::start();
    let authority = Authority::new().unwrap();
    // What cert-manager's injector does: it reads the annotation, and owns the field.
    let mut shipped = configuration(&local_url(&service), "injector", "injector", &[]);
    shipped["metadata"]["annotations"] =
        json!({ "cert-manager.io/inject-ca-from": "portcullis/portcullis-admission" });
    cluster::apply(&client, &shipped).await.unwrap();
    let namespace = judged_namespace(&client, "injector", json!({})).await;
    inject(&client, authority.certificate()).await;

    let mut volume = Volume::new(&folder, "secret");
    volume.write(&leaf(&authority), &authority);
    let more = more(
        "injector",
        &format!("  ca_bundle: external\n{}", volume.source(false)),
    );
    let replica = Replica::start_named(cluster, &folder, "replica", &more);
    service.add(replica.address);
    replica.ready().await;
    asked(&client, &namespace).await;

    let applying = Applying::start(&client, &namespace, "injector", service.address, NAME);
    for _ in 0..2 {
        let issued = leaf(&authority);
        volume.write(&issued, &authority);
        let wanted = certificates(issued.certificate.as_bytes());
        until("the renewed certificate is shown", async || {
            let shown = shown(replica.address, NAME).await;
            shown.is_ok_and(|shown| shown.chain == wanted)
        })
        .await;
    }
    applying.stop().await;
    assert_eq!(roots(&client, "injector").await, root(&authority));
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let found = api.get("injector").await.unwrap();
    let managers = found.metadata.managed_fields.unwrap_or_default();
    let managers: Vec<String> = managers.into_iter().filter_map(|m| m.manager).collect();
    assert!(
        managers.contains(&"cainjector".to_owned()) && !managers.contains(&"portcullis".to_owned()),
        "{managers:?}"
    );
}

/// Puts the bundle there, as its owner.
async fn inject(client: &Client, pem: &str) {
    use base64::Engine as _;
    const PATH: &str =
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/injector";
    let bundle = base64::prelude::BASE64_STANDARD.encode(pem);
    let mut found = send(client, "GET", PATH, &Value::Null).await.body;
    found["webhooks"][0]["clientConfig"]["caBundle"] = json!(bundle);
    let path = format!("{PATH}?fieldManager=cainjector");
    let said = send(client, "PUT", &path, &found).await;
    assert_eq!(said.status, 200, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn svids_of_our_own_authority_are_served_through_renewals_and_its_rotation() {
    let Some((cluster, client, folder)) = shared("kubernetes-svid").await else {
        return;
    };
    let authority = folder.join("authority");
    fs::create_dir(&authority).unwrap();
    let server = Served::start(
        PORTCULLIS.as_ref(),
        &authority,
        &["--trust-domain", "example.org"],
        &[],
    )
    .unwrap();
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    let id = "spiffe://example.org/portcullis-admission";
    let entry = [
        "ca",
        "entry",
        "create",
        "--spiffe-id",
        id,
        "--selector",
        &uid,
        "--dns",
        NAME,
        "--hint",
        "webhook",
        "--x509-ttl",
        "10s",
    ];
    server.ok(&entry).unwrap();
    // Who would be asked first has no name that holds.
    let other = [
        "ca",
        "entry",
        "create",
        "--spiffe-id",
        "spiffe://example.org/a",
        "--selector",
        &uid,
    ];
    server.ok(&other).unwrap();

    let service = Service::start();
    let namespace = configured(&client, "svid", &local_url(&service)).await;
    let endpoint = format!("unix:{}", server.socket().display());
    let source = json!({ "workload_api": { "endpoint": endpoint, "hint": "webhook" } });
    let more = more("svid", &format!("  certificate: {source}\n"));
    let replica = Replica::start_named(cluster, &folder, "replica", &more);
    service.add(replica.address);
    replica.ready().await;
    asked(&client, &namespace).await;
    let first = roots(&client, "svid").await;
    assert_eq!(first.len(), 1);

    let applying = Applying::start(&client, &namespace, "svid", service.address, NAME);
    let before = shown(replica.address, NAME).await.unwrap();
    until("a renewed SVID is shown", async || {
        let now = shown(replica.address, NAME).await.unwrap();
        now.chain != before.chain
    })
    .await;
    let prepared = server
        .ok(&["ca", "authority", "prepare", "x509", "--output", "json"])
        .unwrap();
    let prepared: Value = serde_json::from_str(&prepared).unwrap();
    let prepared = prepared["id"].as_str().unwrap();
    until("the second authority is known", async || {
        roots(&client, "svid").await.len() == 2
    })
    .await;
    until("the second authority signs", async || {
        server
            .ok(&["ca", "authority", "activate", prepared])
            .is_ok()
    })
    .await;
    let told = roots(&client, "svid").await;
    let second: Vec<_> = told.into_iter().filter(|r| !first.contains(r)).collect();
    until("an SVID of the second authority is shown", async || {
        is_of(replica.address, NAME, &second).await
    })
    .await;
    applying.stop().await;
    let shown = shown(replica.address, NAME).await.unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&shown.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    let names = format!("{:?}", names.value.general_names);
    assert!(names.contains(id), "{names}");
}
