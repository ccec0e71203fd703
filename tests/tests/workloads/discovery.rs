//! OpenID Connect clients find our keys by themselves.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{py_spiffe, require, run_folder, workspace};
use portcullis_tests::ports::free_address;
use portcullis_tests::process;
use portcullis_tests::workload::served::Served;

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");
const ISSUER: &str = "https://oidc.example.org/portcullis";

/// A certificate for localhost, its key and its authority.
fn certificates(folder: &Path) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    // Another name than the leaf's: OpenSSL would take that for self-signed.
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority of the web");
    let authority = params.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    for (name, text) in [
        ("authority.pem", authority),
        ("web.pem", leaf.pem()),
        ("web.key", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn a_client_that_knows_the_issuer_alone_verifies_our_tokens_across_a_rotation() {
    let Some(python) = require(py_spiffe()) else {
        return;
    };
    let folder = run_folder("discovery");
    certificates(&folder);
    let port = free_address().unwrap().port();
    let config = format!(
        "ca:\n  refresh_hint: 1s\n  oidc:\n    issuer: {ISSUER}\n    listen: 127.0.0.1:{port}\n    certificate: web.pem\n    key: web.key\n"
    );
    std::fs::write(folder.join("portcullis.yaml"), config).unwrap();
    let arguments = ["--config", "portcullis.yaml"];
    let server = Served::start(Path::new(PORTCULLIS), &folder, &arguments, &[]).unwrap();
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    server
        .ok(&[
            "ca",
            "entry",
            "create",
            "--spiffe-id",
            "spiffe://example.org/web",
            "--selector",
            &uid,
        ])
        .unwrap();
    let verify = |audience: &str, token: &str| {
        let mut command = Command::new(&python.command[0]);
        command
            .arg(workspace().join("tests/clients/python/discovery.py"))
            .args([
                ISSUER,
                &format!("https://localhost:{port}"),
                "authority.pem",
                audience,
            ])
            .envs(python.python_path.iter().map(|path| ("PYTHONPATH", path)))
            .current_dir(&folder);
        let limit = Duration::from_secs(60);
        process::run_with_input(&mut command, token.as_bytes(), limit).unwrap()
    };
    let fetch = || {
        server
            .ok(&["svid", "fetch", "--audience", "vault"])
            .unwrap()
    };
    let accepted = |token: &str| {
        let output = verify("vault", token);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let claims: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(claims["sub"], "spiffe://example.org/web");
        assert_eq!(claims["iss"], ISSUER);
    };
    let first = fetch();
    accepted(&first);
    assert!(!verify("bank", &first).status.success(), "another audience");
    let prepared = server
        .ok(&["ca", "authority", "prepare", "jwt", "--output", "json"])
        .unwrap();
    let prepared: serde_json::Value = serde_json::from_str(prepared.trim()).unwrap();
    let id = prepared["id"].as_str().unwrap();
    // It signs only after everybody who keeps our keys for their time has the new one.
    let early = server.run(&["ca", "authority", "activate", id]).unwrap();
    assert!(!early.status.success());
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(
        said.contains("has not been published long enough"),
        "{said}"
    );
    process::poll(Duration::from_secs(30), || {
        server.ok(&["ca", "authority", "activate", id]).ok()
    })
    .expect("it signs after three hints");
    let second = fetch();
    let kid = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_ne!(kid(&first), kid(&second), "another key signs");
    accepted(&second);
    accepted(&first);
}
