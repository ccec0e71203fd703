//! Two certificate authorities that federate, as their operators set it up.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::svid::{Authority, until};

fn free_port() -> u16 {
    // Below the range from which the system takes ports by itself: nothing that connects, or listens
    // on port 0, gets it before it is used.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() % 20_000;
    loop {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 20_000;
        let port = 11_000 + u16::try_from(offset).unwrap();
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// An authority for `name` whose bundle endpoint is on `port`.
fn start(name: &str, port: u16) -> Authority {
    let config = format!(
        "ca:\n  refresh_hint: 1s\n  bundle_endpoint:\n    listen: 127.0.0.1:{port}\n  federation:\n    interval: 1s\n"
    );
    let arguments = ["--config", "portcullis.yaml", "--trust-domain", name];
    Authority::with(&[("portcullis.yaml", &config)], &arguments)
}

#[test]
fn two_trust_domains_federate_and_workloads_get_both_bundles() {
    let port = free_port();
    let theirs = start("theirs.org", port);
    let ours = start("example.org", free_port());
    ours.folder
        .write("theirs.json", theirs.ca(&["bundle", "show"]).stdout);
    let url = format!("https://127.0.0.1:{port}");
    let create = [
        "federation",
        "create",
        "--trust-domain",
        "spiffe://theirs.org",
        "--url",
    ];
    let spiffe = ["--profile", "https_spiffe", "--endpoint-id"];
    let id = "spiffe://theirs.org/spire/server";
    let first = ["--bundle", "theirs.json"];
    let created = ours.ca(&[&create[..], &[&url], &spiffe, &[id], &first].concat());
    created.is(0, "created theirs.org\n", "");
    let again = ours.ca(&[&create[..], &[&url], &spiffe, &[id], &first].concat());
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("already exists"), "{again:?}");

    ours.entry("web", &["--federates-with", "theirs.org"]);
    let fetched = ours.svid("fetch", &["--write", "certs"]);
    assert_eq!(fetched.code, 0, "{fetched:?}");
    let file = ours.path("certs/federated.theirs.org.pem");
    let roots = || {
        ours.svid("fetch", &["--write", "certs"]);
        let text = std::fs::read_to_string(&file).unwrap();
        text.matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!(roots(), 1);
    // A change over there is here after a hint, and nobody was asked.
    assert_eq!(theirs.ca(&["authority", "prepare", "x509"]).code, 0);
    until("the new root of theirs.org is here", || roots() == 2);

    let listed = ours.ca(&["federation", "list", "--output", "json"]).json();
    let one = &listed[0][0];
    assert_eq!(one["trust_domain"], "theirs.org");
    assert_eq!(one["endpoint_spiffe_id"], id);
    assert!(
        one["refreshed_at"].is_i64() && one["error"].is_null(),
        "{one}"
    );
    let shown = ours.ca(&["federation", "show", "theirs.org"]);
    assert!(
        shown
            .stdout
            .starts_with(&format!("theirs.org: {url} (https_spiffe")),
        "{shown:?}"
    );
    ours.ca(&["federation", "refresh", "theirs.org"])
        .is(0, "refreshed theirs.org\n", "");
    drop(theirs);
    let failed = ours.ca(&["federation", "refresh", "theirs.org"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    until("the failure is told", || {
        let status = ours.ca(&["status"]).stdout;
        status.contains("theirs.org, failed")
    });
    assert_eq!(roots(), 2, "what is known stays");
    ours.ca(&["federation", "delete", "theirs.org"])
        .is(0, "deleted theirs.org\n", "");
    assert_eq!(ours.ca(&["federation", "show", "theirs.org"]).code, 2);
    assert_eq!(roots(), 2, "the bundle stays until it is deleted itself");
}

#[test]
fn a_relationship_that_cannot_be_is_refused_and_nothing_is_stored() {
    let ours = Authority::start();
    let create = |arguments: &[&str]| {
        let created = ours.ca(&[&["federation", "create"], arguments].concat());
        (created.code, created.stderr)
    };
    let web = ["--profile", "https_web"];
    let spiffe = ["--profile", "https_spiffe"];
    let to = |td: &'static str, url: &'static str| ["--trust-domain", td, "--url", url];
    let good = to("b.org", "https://b.org");
    for (arguments, code, why) in [
        (
            [&to("example.org", "https://b.org")[..], &web].concat(),
            2,
            "our own trust domain",
        ),
        (
            [&to("b.org", "http://b.org")[..], &web].concat(),
            2,
            "§5.2.1",
        ),
        (
            [&to("b.org", "https://u:p@b.org")[..], &web].concat(),
            2,
            "user information",
        ),
        (
            [&to("b.org/x", "https://b.org")[..], &web].concat(),
            1,
            "path",
        ),
        ([&good[..], &spiffe].concat(), 1, "--endpoint-id"),
        (
            [&good[..], &spiffe, &["--endpoint-id", "b.org"]].concat(),
            2,
            "endpoint's SPIFFE ID",
        ),
        (
            [&good[..], &web, &["--endpoint-id", "spiffe://b.org/x"]].concat(),
            1,
            "https_spiffe",
        ),
        (good.to_vec(), 1, "--profile"),
    ] {
        let (found, stderr) = create(&arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(why), "{arguments:?}: {stderr}");
    }
    ours.ca(&["federation", "list", "--output", "json"])
        .is(0, "[]\n", "");
}

#[test]
fn keys_are_served_in_the_clear_to_this_machine_only() {
    let refused = |listen: &str, issuer: &str| {
        let config =
            format!("ca:\n  data: ca\n  oidc:\n    issuer: {issuer}\n    listen: {listen}\n");
        let folder = crate::run::Folder::new(&[("portcullis.yaml", &config)]);
        folder.run(&["ca", "serve", "--config", "portcullis.yaml"])
    };
    let open = refused("0.0.0.0:0", "https://oidc.example.org");
    assert_eq!(open.code, 1);
    assert!(
        open.stderr.contains("without TLS to other machines"),
        "{open:?}"
    );
    let issuer = refused("127.0.0.1:0", "http://oidc.example.org");
    assert_eq!(issuer.code, 1);
    assert!(
        issuer.stderr.contains("must begin with `https://`"),
        "{issuer:?}"
    );
}
