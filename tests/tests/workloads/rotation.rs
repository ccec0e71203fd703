//! Workloads in Go, Python, Java and Rust have identities, and lose no handshake while authorities rotate.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_ca::store::AuthorityKind;
use portcullis_tests::component::{self, SpiffeClient, go_spiffe, java_spiffe, py_spiffe};
use portcullis_tests::workload::ca::{CertificateAuthority, id};
use portcullis_tests::workload::rust::RustWorkload;
use portcullis_tests::workload::{Workload, WorkloadProcess};
use serde_json::Value;

struct Workloads {
    all: Vec<Box<dyn Workload>>,
    /// Where each listens.
    addresses: Vec<String>,
    /// Serial number of each one's SVID.
    serials: Vec<String>,
}

impl Workloads {
    /// One of every language that can be had; each has an identity by its executable.
    fn start(ca: &CertificateAuthority, folder: &Path) -> Self {
        let clients: Vec<SpiffeClient> = [go_spiffe(), py_spiffe(), java_spiffe()]
            .into_iter()
            .filter_map(component::require)
            .collect();
        let ours = std::env::current_exe().unwrap();
        ca.entry("rust", &format!("unix:path:{}", ours.display()))
            .unwrap();
        let mut all: Vec<Box<dyn Workload>> = Vec::new();
        for client in &clients {
            let selector = format!("unix:path:{}", client.executable.display());
            ca.entry(client.language, &selector).unwrap();
            let log = folder.join(format!("{}.log", client.language));
            all.push(Box::new(
                WorkloadProcess::start(client, ca.socket(), &log).unwrap(),
            ));
        }
        all.push(Box::new(RustWorkload::start(ca.socket()).unwrap()));
        let mut workloads = Self {
            addresses: Vec::new(),
            serials: Vec::new(),
            all,
        };
        for workload in &mut workloads.all {
            let svid = workload.ask("svid").unwrap();
            assert_eq!(text(&svid, "id"), id(workload.language()));
            workloads.serials.push(text(&svid, "serial").to_owned());
            let address = workload.ask("listen").unwrap();
            workloads
                .addresses
                .push(text(&address, "address").to_owned());
        }
        workloads
    }

    /// Everybody says `ping` to everybody.
    fn greet(&mut self, when: &str) {
        let names: Vec<&str> = self.all.iter().map(|one| one.language()).collect();
        for workload in &mut self.all {
            for (name, address) in names.iter().zip(&self.addresses) {
                let said = workload.ask(&format!("dial {address} {}", id(name)));
                let said = said.unwrap_or_else(|error| panic!("{when}: to {name}: {error}"));
                assert_eq!(text(&said, "said"), "pong", "{when}");
            }
        }
    }

    /// How many roots everybody has.
    fn roots(&mut self) -> BTreeMap<&'static str, u64> {
        let roots = self.all.iter_mut().map(|workload| {
            let svid = workload.ask("svid").unwrap();
            (workload.language(), svid["roots"].as_u64().unwrap())
        });
        roots.collect()
    }

    fn await_roots(&mut self, expected: u64) {
        for _ in 0..500 {
            if self.roots().values().all(|roots| *roots == expected) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{expected} roots: {:?}", self.roots());
    }

    /// Waits until everybody has a new SVID.
    fn renewed(&mut self) {
        for (workload, serial) in self.all.iter_mut().zip(&mut self.serials) {
            let svid = workload.ask(&format!("changed {serial}")).unwrap();
            assert_ne!(text(&svid, "serial"), serial);
            text(&svid, "serial").clone_into(serial);
        }
    }

    /// Everybody's token is accepted by everybody, by the keys it has and by the Workload API.
    fn exchange_tokens(&mut self, when: &str) {
        let mut tokens = Vec::new();
        for workload in &mut self.all {
            let svid = workload.ask("jwt friends").unwrap();
            assert_eq!(text(&svid, "id"), id(workload.language()));
            tokens.push((
                text(&svid, "id").to_owned(),
                text(&svid, "token").to_owned(),
            ));
        }
        for workload in &mut self.all {
            for (id, token) in &tokens {
                for order in ["verify", "validate"] {
                    let valid = workload.ask(&format!("{order} friends {token}"));
                    let valid =
                        valid.unwrap_or_else(|error| panic!("{when}: {order} {id}: {error}"));
                    assert_eq!(text(&valid, "id"), id, "{when}: {order}");
                }
                workload
                    .ask(&format!("validate strangers {token}"))
                    .unwrap_err();
            }
        }
    }
}

fn text<'a>(answer: &'a Value, key: &str) -> &'a str {
    answer[key]
        .as_str()
        .unwrap_or_else(|| panic!("`{key}` of {answer}"))
}

#[test]
fn no_handshake_fails_and_no_token_is_refused_while_authorities_rotate() {
    let folder = component::run_folder("workloads-rotation");
    let ca = CertificateAuthority::start(&folder).unwrap();
    let mut workloads = Workloads::start(&ca, &folder);
    workloads.greet("at first");
    workloads.exchange_tokens("at first");

    let (x509, jwt) = (AuthorityKind::X509, AuthorityKind::Jwt);
    let next_x509 = ca.prepare(x509).unwrap();
    let next_jwt = ca.prepare(jwt).unwrap();
    ca.delivered().unwrap();
    workloads.await_roots(2);
    workloads.greet("with the next authorities published");

    let old_x509 = ca.activate(x509, &next_x509).unwrap();
    let old_jwt = ca.activate(jwt, &next_jwt).unwrap();
    workloads.greet("with the next authorities active");
    workloads.exchange_tokens("with the next authorities active");

    // Everything under the old one is issued anew at once.
    ca.taint(x509, &old_x509).unwrap();
    workloads.greet("right after the taint");
    workloads.renewed();
    workloads.greet("with new identities");

    ca.revoke(x509, &old_x509).unwrap();
    ca.taint(jwt, &old_jwt).unwrap();
    ca.revoke(jwt, &old_jwt).unwrap();
    ca.delivered().unwrap();
    workloads.await_roots(1);
    workloads.greet("without the old authorities");
    workloads.exchange_tokens("without the old authorities");
}
