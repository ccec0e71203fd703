use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::certificate::Error;

const NAME: &str = "portcullis-admission.portcullis.svc";

/// What API servers are told, shared by the gates of several instances.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Told>>);

impl Cluster {
    fn new() -> Self {
        let webhooks = vec![("a".to_owned(), Vec::new()), ("b".to_owned(), Vec::new())];
        let told = Told {
            version: "1".to_owned(),
            webhooks,
            unreadable: false,
        };
        Self(Arc::new(Mutex::new(told)))
    }

    fn roots(&self) -> Vec<Root> {
        self.0.lock().unwrap().everywhere()
    }
}

impl CaBundle for Cluster {
    async fn read(&self) -> Result<Option<Told>, Error> {
        Ok(Some(self.0.lock().unwrap().clone()))
    }

    async fn write(&self, told: &Told, roots: &[Root]) -> Result<bool, Error> {
        let mut now = self.0.lock().unwrap();
        if now.version != told.version {
            return Ok(false);
        }
        now.version = (now.version.parse::<u64>().unwrap() + 1).to_string();
        for (_, webhook) in &mut now.webhooks {
            *webhook = roots.to_vec();
        }
        Ok(true)
    }
}

struct TestAuthority(Issuer<'static, KeyPair>, Root);

fn authority(name: &str) -> TestAuthority {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    TestAuthority(Issuer::new(params, key), root)
}

fn material(by: &TestAuthority, name: &str, roots: &[&TestAuthority]) -> Arc<Material> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &by.0).unwrap();
    Arc::new(Material {
        chain: vec![leaf.der().clone()],
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        roots: roots.iter().map(|authority| authority.1.clone()).collect(),
    })
}

fn options() -> Options {
    Options {
        name: NAME.to_owned(),
        propagation: Duration::from_secs(10),
        retire: Duration::from_secs(60),
        look: Duration::from_secs(5),
    }
}

struct Instance {
    gate: Gate<Cluster>,
    source: watch::Sender<Option<Arc<Material>>>,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
}

impl Instance {
    fn new(cluster: &Cluster, first: Option<Arc<Material>>) -> Self {
        let (source, receiver) = watch::channel(first);
        let (gate, tls, _) = Gate::new(options(), receiver, Some(cluster.clone()), Arc::default());
        Self { gate, source, tls }
    }

    /// Looks as often as the gate wants, for `seconds`; what is served must hold by what is told at every moment.
    async fn pass(&mut self, cluster: &Cluster, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let wait = self.gate.step(SystemTime::now()).await;
            self.holds(cluster);
            tokio::time::advance(wait).await;
        }
    }

    fn holds(&self, cluster: &Cluster) {
        if let Some(served) = &self.gate.in_force {
            served
                .verify(&cluster.roots(), NAME, SystemTime::now())
                .unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_served_after_its_root_was_known_for_the_propagation_time() {
    let cluster = Cluster::new();
    let one = authority("one");
    let mut instance = Instance::new(&cluster, Some(material(&one, NAME, &[&one])));
    let wait = instance.gate.step(SystemTime::now()).await;
    assert_eq!(cluster.roots(), std::slice::from_ref(&one.1));
    assert!(instance.tls.borrow().is_none() && wait < Duration::from_secs(5));
    instance.pass(&cluster, 9).await;
    assert!(instance.tls.borrow().is_none());
    instance.pass(&cluster, 4).await;
    assert!(instance.tls.borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn rotation_leaves_no_moment_in_which_nothing_holds() {
    let cluster = Cluster::new();
    let (one, two) = (authority("one"), authority("two"));
    let mut a = Instance::new(&cluster, Some(material(&one, NAME, &[&one])));
    let mut b = Instance::new(&cluster, Some(material(&one, NAME, &[&one])));
    a.pass(&cluster, 15).await;
    b.pass(&cluster, 15).await;
    let before = a.gate.in_force.clone().unwrap();
    // The first instance gets a new certificate, and is not told of the old root any more.
    a.source.send_replace(Some(material(&two, NAME, &[&two])));
    let _ = a.gate.step(SystemTime::now()).await;
    assert!(
        Arc::ptr_eq(a.gate.in_force.as_ref().unwrap(), &before),
        "it waits"
    );
    assert_eq!(cluster.roots(), [one.1.clone(), two.1.clone()]);
    a.pass(&cluster, 15).await;
    assert!(!Arc::ptr_eq(a.gate.in_force.as_ref().unwrap(), &before));
    // The other still shows the old one: the root stays, and it takes nothing away that it does not know.
    b.pass(&cluster, 30).await;
    assert_eq!(cluster.roots().len(), 2);
    b.source.send_replace(Some(material(&two, NAME, &[&two])));
    b.pass(&cluster, 15).await;
    a.pass(&cluster, 60).await;
    b.pass(&cluster, 90).await;
    assert_eq!(cluster.roots(), std::slice::from_ref(&two.1));
    a.holds(&cluster);
    b.holds(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_root_that_somebody_takes_away_is_put_back_and_waited_for_again() {
    let cluster = Cluster::new();
    let one = authority("one");
    let mut instance = Instance::new(&cluster, Some(material(&one, NAME, &[&one])));
    let _ = instance.gate.step(SystemTime::now()).await;
    tokio::time::advance(Duration::from_secs(8)).await;
    for (_, webhook) in &mut cluster.0.lock().unwrap().webhooks {
        webhook.clear();
    }
    cluster.0.lock().unwrap().version = "7".to_owned();
    let _ = instance.gate.step(SystemTime::now()).await;
    assert_eq!(cluster.roots(), std::slice::from_ref(&one.1));
    instance.pass(&cluster, 30).await;
    assert!(instance.tls.borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_name_never_replaces_one_that_holds() {
    let cluster = Cluster::new();
    let one = authority("one");
    let mut instance = Instance::new(&cluster, Some(material(&one, NAME, &[&one])));
    instance.pass(&cluster, 15).await;
    let good = instance.gate.in_force.clone().unwrap();
    instance
        .source
        .send_replace(Some(material(&one, "other.portcullis.svc", &[&one])));
    instance.pass(&cluster, 60).await;
    assert!(Arc::ptr_eq(instance.gate.in_force.as_ref().unwrap(), &good));
    let said = instance.gate.state.borrow().clone();
    assert!(said.serving && said.problem.unwrap().contains(NAME));
}

#[tokio::test(start_paused = true)]
async fn where_somebody_else_tells_api_servers_certificates_pass_at_once() {
    let one = authority("one");
    let (_source, receiver) = watch::channel(Some(material(&one, NAME, &[])));
    let (mut gate, tls, _) = Gate::<Cluster>::new(options(), receiver, None, Arc::default());
    let _ = gate.step(SystemTime::now()).await;
    assert!(tls.borrow().is_some());
}
