//! Envoy has its certificate and its trust from the workload socket, by SDS in both forms.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_ca::store::AuthorityKind;
use portcullis_tests::component;
use portcullis_tests::envoy::Envoy;
use portcullis_tests::workload::ca::{CertificateAuthority, id};
use portcullis_tests::workload::rust::RustWorkload;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A source of secrets by one of the two forms of the protocol.
fn source(api_type: &str) -> Value {
    json!({
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": api_type,
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{"envoy_grpc": {"cluster_name": "workload_socket"}}],
        },
    })
}

/// A listener that takes mTLS from members of the trust domain and answers by itself.
fn listener(name: &str, api_type: &str, svid: &str, bundle: &str) -> Value {
    let secret = |name: &str| json!({"name": name, "sds_config": source(api_type)});
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "require_client_certificate": true,
                    "disable_stateful_session_resumption": true,
                    "disable_stateless_session_resumption": true,
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [secret(svid)],
                        "validation_context_sds_secret_config": secret(bundle),
                    },
                },
            },
            "filters": [{
                "name": "http",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": name,
                    "http_filters": [{
                        "name": "router",
                        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                    }],
                    "route_config": {"virtual_hosts": [{
                        "name": "all", "domains": ["*"],
                        "routes": [{
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": "served by Envoy"}},
                        }],
                    }]},
                },
            }],
        }],
    })
}

fn bootstrap(socket: &Path, metadata: &Value, listeners: &[Value]) -> Value {
    json!({
        "node": {"id": "envoy", "cluster": "tests", "metadata": metadata},
        "static_resources": {
            "listeners": listeners,
            "clusters": [{
                "name": "workload_socket",
                "connect_timeout": "5s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {
                    "cluster_name": "workload_socket",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
                },
            }],
        },
    })
}

/// One GET over mTLS; the serial number of the certificate that Envoy showed.
fn get(workload: &RustWorkload, address: &str) -> anyhow::Result<String> {
    let mut tls = workload.connect(address, &id("envoy"))?;
    tls.write_all(b"GET / HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    anyhow::ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("served by Envoy"),
        "{answer}"
    );
    let chain = tls.conn.peer_certificates().unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0])?;
    Ok(leaf.raw_serial_as_string())
}

#[test]
fn envoy_serves_mtls_by_sds_across_a_rotation() {
    let Some(executable) = component::require(component::envoy()) else {
        return;
    };
    let folder = component::run_folder("workloads-envoy");
    let ca = CertificateAuthority::start(&folder).unwrap();
    ca.entry(
        "envoy",
        &format!("unix:path:{}", executable.canonicalize().unwrap().display()),
    )
    .unwrap();
    let ours = std::env::current_exe().unwrap();
    ca.entry("rust", &format!("unix:path:{}", ours.display()))
        .unwrap();
    let own = format!("spiffe://{}", portcullis_tests::workload::ca::TRUST_DOMAIN);
    let listeners = [
        listener("sotw", "GRPC", "default", "ROOTCA"),
        listener("delta", "DELTA_GRPC", "default", "ROOTCA"),
        listener("all", "GRPC", &id("envoy"), "ALL"),
        listener("named", "DELTA_GRPC", &id("envoy"), &own),
    ];
    let file = folder.join("envoy.json");
    let bootstrap = bootstrap(ca.socket(), &json!({}), &listeners);
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let envoy = Envoy::start_file(&executable, &file, &folder).unwrap();
    let workload = RustWorkload::start(ca.socket()).unwrap();
    let addresses: Vec<String> = ["sotw", "delta", "all", "named"]
        .iter()
        .map(|name| envoy.listener(name).unwrap().to_string())
        .collect();
    let first: Vec<String> = addresses
        .iter()
        .map(|address| get(&workload, address).unwrap())
        .collect();

    let next = ca.prepare(AuthorityKind::X509).unwrap();
    // Every Envoy stream acknowledges the bundle with the next authority: otherwise this is refused.
    ca.delivered().unwrap();
    let old = ca.activate(AuthorityKind::X509, &next).unwrap();
    for address in &addresses {
        get(&workload, address).unwrap();
    }
    ca.taint(AuthorityKind::X509, &old).unwrap();
    let start = Instant::now();
    for (address, first) in addresses.iter().zip(&first) {
        // Never a failed handshake, and soon the new certificate.
        while get(&workload, address).unwrap() == *first {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}",
                envoy.log_end()
            );
        }
    }
    ca.revoke(AuthorityKind::X509, &old).unwrap();
    ca.delivered().unwrap();
    for address in &addresses {
        get(&workload, address).unwrap();
    }
    assert_eq!(
        envoy.counter("update_rejected").unwrap(),
        0,
        "{}",
        envoy.log_end()
    );
}

#[test]
fn envoy_with_plain_ca_certificates() {
    let Some(executable) = component::require(component::envoy()) else {
        return;
    };
    let folder = component::run_folder("workloads-envoy-plain");
    let ca = CertificateAuthority::start(&folder).unwrap();
    ca.entry(
        "envoy",
        &format!("unix:path:{}", executable.canonicalize().unwrap().display()),
    )
    .unwrap();
    let ours = std::env::current_exe().unwrap();
    ca.entry("rust", &format!("unix:path:{}", ours.display()))
        .unwrap();
    let metadata = json!({"disable_spiffe_cert_validation": true});
    let listeners = [listener("plain", "GRPC", "default", "ROOTCA")];
    let file = folder.join("envoy.json");
    std::fs::write(
        &file,
        bootstrap(ca.socket(), &metadata, &listeners).to_string(),
    )
    .unwrap();
    let envoy = Envoy::start_file(&executable, &file, &folder).unwrap();
    let workload = RustWorkload::start(ca.socket()).unwrap();
    get(&workload, &envoy.listener("plain").unwrap().to_string()).unwrap();
    assert_eq!(
        envoy.counter("update_rejected").unwrap(),
        0,
        "{}",
        envoy.log_end()
    );
}
