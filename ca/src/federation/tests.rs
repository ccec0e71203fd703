//! Two trust domains that federate, and endpoints that do what they must not.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::ca::tests::{TestClock, caller, create, entry, options};
use crate::ca::{Ca, Options};
use crate::clock::Clock;
use crate::identities::Identities as _;
use crate::registry::bundles::SetMode;
use crate::store::AuthorityKind;
use crate::web::{WebAddress, WebContent, WebIdentity, WebOptions, WebServer};

fn named(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

async fn open(folder: &Path, name: &str, change: impl FnOnce(&mut Options)) -> Arc<Ca> {
    let mut options = options(&folder.join(name));
    options.trust_domain = named(name);
    options.federation_interval = Duration::from_millis(100);
    change(&mut options);
    let clock: Arc<dyn Clock> = TestClock::new();
    Arc::new(Ca::open(options, clock).await.unwrap())
}

async fn serve(ca: &Arc<Ca>, identity: WebIdentity) -> SocketAddr {
    let options = WebOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        identity,
        content: WebContent::Bundle,
    };
    let server = WebServer::bind(ca, options).await.unwrap();
    let WebAddress::Tcp(address) = server.address().clone() else {
        panic!("an address");
    };
    tokio::spawn(server.run(Arc::clone(ca), std::future::pending()));
    address
}

fn spiffe(id: &str) -> EndpointProfile {
    EndpointProfile::HttpsSpiffe(SpiffeId::parse(id).unwrap())
}

async fn relate(ca: &Ca, name: &str, url: &str, profile: EndpointProfile, first: Option<Bundle>) {
    let relationship = Relationship {
        trust_domain: named(name),
        url: url.parse().unwrap(),
        profile,
    };
    let set = ca
        .registry()
        .set_federations(vec![(relationship, first)], SetMode::Set, "test")
        .await;
    set.unwrap().remove(0).unwrap();
}

async fn refresh(ca: &Ca, name: &str) -> Result<bool, String> {
    let refreshed = ca.refresher().refresh(ca, &named(name)).await;
    refreshed.map_err(|error| error.to_string())
}

/// Refreshed, once the listener has followed its authority.
async fn refreshed(ca: &Ca, name: &str) -> bool {
    let start = std::time::Instant::now();
    loop {
        match refresh(ca, name).await {
            Ok(changed) => return changed,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A certificate for 127.0.0.1 and its authority, as files.
fn web_files(folder: &Path) -> WebIdentity {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(
        folder.join("web-ca.pem"),
        params.self_signed(&ca_key).unwrap().pem(),
    )
    .unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("web.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.join("web.key"), key.serialize_pem()).unwrap();
    WebIdentity::Files {
        certificate: folder.join("web.pem"),
        key: folder.join("web.key"),
    }
}

#[tokio::test]
async fn an_endpoint_in_its_own_trust_domain_renews_itself_across_rotations() {
    let folder = tempfile::tempdir().unwrap();
    let ours = open(folder.path(), "ours.org", |_| {}).await;
    let theirs = open(folder.path(), "theirs.org", |_| {}).await;
    let url = format!("https://{}", serve(&theirs, WebIdentity::Svid).await);
    let endpoint = spiffe("spiffe://theirs.org/spire/server");
    relate(&ours, "theirs.org", &url, endpoint.clone(), None).await;
    let error = refresh(&ours, "theirs.org").await.unwrap_err();
    assert!(error.contains("§5.2.2"), "{error}");

    let first = Bundle::clone(&theirs.bundle());
    relate(&ours, "theirs.org", &url, endpoint, Some(first.clone())).await;
    // What is served says as much as what was given, expiry of JWT keys aside.
    refresh(&ours, "theirs.org").await.unwrap();
    assert_eq!(refresh(&ours, "theirs.org").await, Ok(false));
    let workload = {
        let mut federated = entry("/x", &["unix:uid:1"]);
        federated.spiffe_id = SpiffeId::parse("spiffe://ours.org/x").unwrap();
        federated.parent_id = ours.registry().local_agent();
        federated.federates_with = vec![named("theirs.org")];
        create(&ours, federated).await;
        caller(&["unix:uid:1"])
    };
    for _ in 0..3 {
        let kind = AuthorityKind::X509;
        let next = theirs.prepare(kind, "test").await.unwrap();
        let mut changes = ours.subscribe();
        changes.mark_unchanged();
        assert!(refreshed(&ours, "theirs.org").await);
        assert!(changes.has_changed().unwrap(), "streams are told");
        let context = ours.x509_context(&workload).await.unwrap();
        assert_eq!(
            context.federated[0].x509_authorities,
            theirs.bundle().x509_authorities
        );
        let old = theirs.authorities().active(kind).unwrap().row.id.clone();
        theirs.activate(kind, &next.row.id, "test").await.unwrap();
        theirs.taint(kind, &old, false, "test").await.unwrap();
        theirs.revoke(kind, &old, "test").await.unwrap();
        // The listener shows an SVID of the authority that is left.
        refreshed(&ours, "theirs.org").await;
        assert_eq!(
            ours.registry()
                .bundle(&named("theirs.org"))
                .unwrap()
                .sequence,
            theirs.bundle().sequence
        );
    }
}

#[tokio::test]
async fn an_endpoint_of_the_web_is_verified_by_its_host_and_takes_over_new_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = web_files(folder.path());
    let roots = folder.path().join("web-ca.pem");
    let ours = open(folder.path(), "ours.org", |options| {
        options.federation_roots = Some(roots);
    })
    .await;
    let stranger = open(folder.path(), "stranger.org", |_| {}).await;
    let theirs = open(folder.path(), "theirs.org", |_| {}).await;
    let address = serve(&theirs, files).await;
    let url = format!("https://{address}/any/path");
    relate(&ours, "theirs.org", &url, EndpointProfile::HttpsWeb, None).await;
    assert_eq!(refresh(&ours, "theirs.org").await, Ok(true));
    let known = ours.registry().bundle(&named("theirs.org")).unwrap();
    assert_eq!(known.x509_authorities, theirs.bundle().x509_authorities);
    assert_eq!(known.refresh_hint, Some(Duration::from_secs(300)));
    // Whose host's authority is nobody's, and whose name is another.
    relate(
        &stranger,
        "theirs.org",
        &url,
        EndpointProfile::HttpsWeb,
        None,
    )
    .await;
    let error = refresh(&stranger, "theirs.org").await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let other_name = format!("https://localhost:{}", address.port());
    relate(
        &ours,
        "theirs.org",
        &other_name,
        EndpointProfile::HttpsWeb,
        None,
    )
    .await;
    let error = refresh(&ours, "theirs.org").await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");

    relate(&ours, "theirs.org", &url, EndpointProfile::HttpsWeb, None).await;
    web_files(folder.path());
    let start = std::time::Instant::now();
    // The new files have another authority, which we do not know: so they were taken over.
    while refresh(&ours, "theirs.org").await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An endpoint with a certificate of the web that answers each request with what `answer` makes, raw.
async fn endpoint(
    folder: &Path,
    answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> SocketAddr {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let chain = crate::key::pem::certificates(&read("web.pem")).unwrap();
    let key = crate::key::pem::private_key(&read("web.key")).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.to_vec().into());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![chain[0].to_vec().into()], key)
    .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, count) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer, count) = (acceptor.clone(), answer.clone(), count.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let text = answer(count.fetch_add(1, Ordering::Relaxed));
                let _ = stream.write_all(&text).await;
                if text.ends_with(b"...") {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_bundle_that_must_not_be_taken_over_is_refused_by_name_and_the_known_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    web_files(folder.path());
    let roots = folder.path().join("web-ca.pem");
    let mut ours = open(folder.path(), "ours.org", |options| {
        options.federation_roots = Some(roots);
    })
    .await;
    Arc::get_mut(&mut ours).unwrap().refresher_mut().limit = Duration::from_secs(2);
    let theirs = open(folder.path(), "theirs.org", |_| {}).await;
    let document = |sequence: u64, ca: &Ca| {
        let mut bundle = Bundle::clone(&ca.bundle());
        bundle.sequence = sequence;
        bundle.to_document()
    };
    let body = Arc::new(StdMutex::new(ok(&document(7, &theirs))));
    let told = Arc::clone(&body);
    let address = endpoint(folder.path(), move |_| told.lock().unwrap().clone()).await;
    let url = format!("https://{address}/");
    relate(&ours, "theirs.org", &url, EndpointProfile::HttpsWeb, None).await;
    assert_eq!(refresh(&ours, "theirs.org").await, Ok(true));
    let good = ours.registry().bundle(&named("theirs.org")).unwrap();
    let redirect = |to: &str| {
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            .into_bytes()
    };
    let same_key_twice = r#"{"keys":[],"keys":[],"spiffe_sequence":9}"#;
    for (what, answer, why) in [
        ("an older sequence", ok(&document(6, &theirs)), "§4.1.1"),
        ("no sequence any more", ok(r#"{"keys":[]}"#), "§4.1.1"),
        (
            "another trust domain's",
            ok(&document(9, &ours)),
            "X509-SVID §3.2",
        ),
        ("a name twice", ok(same_key_twice), "stands twice"),
        ("no keys", ok(r#"{"spiffe_sequence":9}"#), "§4.1.3"),
        ("no JSON", ok("<html>"), "no JSON object"),
        (
            "an error",
            b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "answered 500",
        ),
        (
            "redirects without end",
            redirect("/again"),
            "more than 3 times",
        ),
        (
            "a redirect into the clear",
            redirect("http://127.0.0.1/"),
            "https://",
        ),
        (
            "a redirect to nobody",
            redirect("https://127.0.0.1:1/"),
            "cannot fetch",
        ),
        (
            "nothing that ends",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n...".to_vec(),
            "took longer",
        ),
        (
            "too much",
            [
                b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n".to_vec(),
                vec![b' '; 9_000_000],
            ]
            .concat(),
            "8 MiB",
        ),
    ] {
        *body.lock().unwrap() = answer;
        let error = refresh(&ours, "theirs.org").await.unwrap_err();
        assert!(error.contains(why), "{what}: {error}");
        let still = ours.registry().bundle(&named("theirs.org")).unwrap();
        assert_eq!(still, good, "{what}");
        let status = ours.refresher().status(&named("theirs.org"));
        assert!(status.failures > 0 && status.error.is_some(), "{what}");
    }
    // No keys at all is a statement: every SVID of theirs is untrusted from now on (§4.1.3).
    *body.lock().unwrap() = ok(r#"{"keys":[],"spiffe_sequence":8}"#);
    assert_eq!(refresh(&ours, "theirs.org").await, Ok(true));
    let empty = ours.registry().bundle(&named("theirs.org")).unwrap();
    assert!(empty.x509_authorities.is_empty() && empty.jwt_authorities.is_empty());
    assert_eq!(ours.refresher().status(&named("theirs.org")).failures, 0);
}

#[tokio::test]
async fn an_endpoint_with_another_spiffe_id_or_bundle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ours = open(folder.path(), "ours.org", |_| {}).await;
    let theirs = open(folder.path(), "theirs.org", |_| {}).await;
    let impostor = open(
        folder.path().join("impostor").as_path(),
        "theirs.org",
        |_| {},
    )
    .await;
    let first = Bundle::clone(&theirs.bundle());
    let url = format!("https://{}", serve(&theirs, WebIdentity::Svid).await);
    let wrong = spiffe("spiffe://theirs.org/other");
    relate(&ours, "theirs.org", &url, wrong, Some(first)).await;
    let error = refresh(&ours, "theirs.org").await.unwrap_err();
    assert!(
        error.contains("spiffe://theirs.org/spire/server") && error.contains("§5.2.2"),
        "{error}"
    );
    let url = format!("https://{}", serve(&impostor, WebIdentity::Svid).await);
    let right = spiffe("spiffe://theirs.org/spire/server");
    relate(&ours, "theirs.org", &url, right, None).await;
    let error = refresh(&ours, "theirs.org").await.unwrap_err();
    assert!(error.contains("no path leads to the bundle"), "{error}");
}

#[tokio::test]
async fn nobody_federates_with_itself_and_a_relationship_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ours = open(folder.path(), "ours.org", |_| {}).await;
    let relationship = |name: &str| Relationship {
        trust_domain: named(name),
        url: "https://example.org".parse().unwrap(),
        profile: EndpointProfile::HttpsWeb,
    };
    let both = vec![
        (relationship("ours.org"), None),
        (relationship("b.org"), None),
    ];
    let set = ours
        .registry()
        .set_federations(both, SetMode::Create, "test")
        .await;
    let set = set.unwrap();
    assert!(matches!(set[0], Err(RegistryError::OwnFederation(_))));
    assert!(set[1].is_ok());
    let again = vec![(relationship("b.org"), None)];
    let set = ours
        .registry()
        .set_federations(again, SetMode::Create, "test")
        .await;
    assert!(matches!(
        set.unwrap()[0],
        Err(RegistryError::FederationExists(_))
    ));
    drop(ours);
    let ours = open(folder.path(), "ours.org", |_| {}).await;
    assert_eq!(ours.registry().federations().len(), 1);
    let deleted = ours
        .registry()
        .delete_federation(named("b.org"), "test")
        .await;
    assert!(deleted.unwrap().is_ok());
    let deleted = ours
        .registry()
        .delete_federation(named("b.org"), "test")
        .await;
    assert!(deleted.unwrap().is_err());
    let error = refresh(&ours, "b.org").await.unwrap_err();
    assert!(error.contains("no federation relationship"), "{error}");
}

#[test]
fn a_hint_makes_us_neither_a_flood_nor_deaf() {
    let shortest = Duration::from_secs(30);
    let interval = |hint: Option<u64>| {
        let mut bundle = Bundle::empty(named("a.org"));
        bundle.refresh_hint = hint.map(Duration::from_secs);
        refresh_interval(&bundle, shortest).as_secs()
    };
    assert_eq!(interval(None), 300);
    assert_eq!(interval(Some(0)), 30);
    assert_eq!(interval(Some(600)), 600);
    assert_eq!(interval(Some(1 << 63)), 86_400);
}

#[tokio::test]
async fn an_authority_that_others_poll_for_signs_only_after_three_hints() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let mut options = options(folder.path());
    options.refresh_hint = Duration::from_secs(300);
    options.propagation = options.refresh_hint * 3;
    let ca = crate::ca::tests::open(options, &clock).await;
    let kind = AuthorityKind::Jwt;
    let next = ca.prepare(kind, "test").await.unwrap();
    clock.advance(Duration::from_secs(899));
    let error = ca.activate(kind, &next.row.id, "test").await.unwrap_err();
    assert!(error.to_string().contains("try again in 1s"), "{error}");
    clock.advance(Duration::from_secs(1));
    ca.activate(kind, &next.row.id, "test").await.unwrap();
}
