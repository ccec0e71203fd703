//! Envoy asks over mutual TLS while the certificates change: no check is lost, and nobody else is answered.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_tests::authority::{Authority, Leaf, Names, tls_client};
use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::{self, run_folder};
use portcullis_tests::envoy::Envoy;
use portcullis_tests::envoy::config::{Config, ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use portcullis_tests::ports::free_address;
use portcullis_tests::process::poll;
use serde_json::{Value, json};

use crate::PORTCULLIS;

const PATIENCE: Duration = Duration::from_secs(30);
const ENVOY: &str = "spiffe://cluster.local/ns/ingress/sa/envoy";
const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: open, namespace: shop }
spec: { rules: [ { to: [ { operation: { paths: [ /open ] } } ] } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web }
status: { phase: Running }
";
const TYPE: &str = "type.googleapis.com/envoy";

fn write(folder: &Path, name: &str, text: &str) {
    let staged = folder.join(format!(".{name}"));
    std::fs::write(&staged, text).unwrap();
    std::fs::rename(staged, folder.join(name)).unwrap();
}

fn write_pair(folder: &Path, name: &str, pair: &Leaf) {
    write(folder, &format!("{name}.crt"), &pair.certificate);
    write(folder, &format!("{name}.key"), &pair.key);
}

/// Envoy's configuration, asking over TLS with `tls/NAME.*` and connecting anew every few checks.
fn bootstrap(folder: &Path, service: Service, name: &str) -> Value {
    let path = |file: &str| json!({ "filename": folder.join("tls").join(file) });
    let listener = Listener::http("web")
        .extension("portcullis.workload", "shop/web")
        .filter(ExtAuthz::default().http());
    let config = Config {
        authorization: service,
        upstream: None,
        folder: folder.to_owned(),
        listeners: vec![listener],
    };
    let mut bootstrap = config.bootstrap();
    let cluster = &mut bootstrap["static_resources"]["clusters"][0];
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [{
                    "certificate_chain": path(&format!("{name}.crt")),
                    "private_key": path(&format!("{name}.key")),
                }],
                "validation_context": { "trusted_ca": path("ca.crt") },
            },
        },
    });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster["typed_extension_protocol_options"][options]["common_http_protocol_options"] =
        json!({ "max_requests_per_connection": 5 });
    bootstrap
}

fn start_envoy(executable: &Path, folder: &Path, service: Service, name: &str) -> Envoy {
    let folder_of_one = folder.join(name);
    std::fs::create_dir_all(&folder_of_one).unwrap();
    let mut bootstrap = bootstrap(folder, service, name);
    let log = folder_of_one.join("access.jsonl");
    let text = serde_json::to_string(&bootstrap).unwrap();
    let text = text.replace(
        &folder.join("access.jsonl").display().to_string(),
        &log.display().to_string(),
    );
    bootstrap = serde_json::from_str(&text).unwrap();
    let file = folder_of_one.join("envoy.json");
    std::fs::write(&file, serde_json::to_vec_pretty(&bootstrap).unwrap()).unwrap();
    Envoy::start_file(executable, &file, &folder_of_one).unwrap_or_else(|cause| panic!("{cause}"))
}

#[test]
fn envoy_loses_no_check_while_certificates_rotate_and_strangers_are_refused() {
    let Some(executable) = component::require(component::envoy()) else {
        return;
    };
    let folder = run_folder("serving-mtls");
    let tls = folder.join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    let authority = Authority::new().unwrap();
    let server_names = Names {
        dns: vec!["authz.local".to_owned()],
        ..Names::default()
    };
    write(&tls, "ca.crt", authority.certificate());
    write_pair(&tls, "server", &authority.leaf(&server_names).unwrap());
    write_pair(
        &tls,
        "envoy",
        &authority.leaf(&Names::spiffe(ENVOY)).unwrap(),
    );
    let other = Names::spiffe("spiffe://cluster.local/ns/shop/sa/web");
    write_pair(&tls, "other", &authority.leaf(&other).unwrap());

    let secure = free_address().unwrap();
    let config = json!({ "reload": { "settle": "20ms", "poll": "1s" }, "listeners": [{
        "address": secure.to_string(),
        "path": "normalised",
        "tls": {
            "certificate_file": tls.join("server.crt"),
            "key_file": tls.join("server.key"),
            "client_ca_file": tls.join("ca.crt"),
            "allowed_ids": [ENVOY],
        },
    }] });
    let manifests = [("all.yaml", POLICIES)];
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let envoy = start_envoy(&executable, &folder, Service::Tcp(secure), "envoy");
    let client = Client::plain(envoy.listener("web").unwrap());
    let status = |client: &Client, path: &str| client.send(&Exchange::get(path)).unwrap().status;
    assert_eq!(status(&client, "/open"), 200, "{}", server.log_end());
    assert_eq!(status(&client, "/closed"), 403);

    // One whose identity is not on the list gets no answer, and its Envoy stays closed.
    let stranger = start_envoy(&executable, &folder, Service::Tcp(secure), "other");
    let refused = Client::plain(stranger.listener("web").unwrap());
    assert_eq!(status(&refused, "/open"), 403);
    assert!(stranger.counter("ext_authz.error").unwrap() >= 1);
    let said = || {
        server
            .log()
            .contains("not among `allowed_ids`")
            .then_some(())
    };
    assert!(poll(PATIENCE, said).is_some(), "{}", server.log_end());
    // One without a certificate neither.
    let anonymous = Client::tls(secure, &tls_client(None).unwrap());
    anonymous.send(&Exchange::get("/")).unwrap_err();

    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        let load: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        for (path, expected) in [("/open", 200), ("/closed", 403)] {
                            assert_eq!(status(&client, path), expected, "a check was lost");
                            asked.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        let swaps = || {
            server
                .log()
                .matches("a new certificate is in force")
                .count()
        };
        let refusals = || server.log().matches("a new certificate is refused").count();
        for round in 1..=5 {
            write_pair(&tls, "server", &authority.leaf(&server_names).unwrap());
            let swapped = poll(PATIENCE, || (swaps() >= round).then_some(()));
            assert!(swapped.is_some(), "{}", server.log_end());
            // Half a pair: the one before it stays.
            let strange = authority.leaf(&server_names).unwrap();
            write(&tls, "server.crt", &strange.certificate);
            let refused = poll(PATIENCE, || (refusals() >= round).then_some(()));
            assert!(refused.is_some(), "{}", server.log_end());
            let before = asked.load(Ordering::SeqCst);
            let went_on = poll(PATIENCE, || {
                (asked.load(Ordering::SeqCst) > before + 40).then_some(())
            });
            assert!(went_on.is_some());
        }
        over.store(true, Ordering::SeqCst);
        for caller in load {
            caller.join().unwrap();
        }
    });
    assert_eq!(envoy.counter("ext_authz.error").unwrap(), 0);
    // It really connected anew, again and again.
    let connections = envoy
        .counter("cluster.authorization.upstream_cx_total")
        .unwrap();
    assert!(connections > 10, "{connections} connections");
}
