//! SPIRE's own command line against our admin socket.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{require, run_folder, spire_server};
use portcullis_tests::process;
use portcullis_tests::workload::served::Served;

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

struct Spire<'a> {
    executable: &'a Path,
    folder: &'a Path,
    socket: String,
}

impl Spire<'_> {
    /// Runs a command; whether it went well, and what it printed.
    fn run(&self, words: &str) -> (bool, String) {
        let mut words = words.split(' ');
        let mut command = Command::new(self.executable);
        // The noun and the verbs come before the flags.
        let all: Vec<&str> = words.by_ref().collect();
        let verbs = all.iter().take_while(|word| !word.starts_with('-')).count();
        command
            .args(&all[..verbs])
            .args(["-socketPath", &self.socket])
            .args(&all[verbs..])
            .current_dir(self.folder);
        let output = process::run(&mut command, Duration::from_secs(30)).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        let (is_ok, said) = self.run(words);
        assert!(is_ok, "{words}: {said}");
        said
    }
}

#[test]
fn spires_own_command_line_works_against_our_server() {
    let Some(executable) = require(spire_server()) else {
        return;
    };
    let folder = run_folder("spire-cli");
    let server = Served::start(Path::new(PORTCULLIS), &folder, &[], &[]).unwrap();
    let spire = Spire {
        executable: &executable,
        folder: &folder,
        socket: server.admin().display().to_string(),
    };
    assert!(spire.ok("healthcheck").contains("healthy"));

    let created = spire.ok(
        "entry create -parentID spiffe://example.org/spire/agent/local -spiffeID spiffe://example.org/web -selector unix:uid:0 -dns web.example.org -x509SVIDTTL 600 -hint first",
    );
    let id = created
        .lines()
        .find_map(|line| line.strip_prefix("Entry ID"))
        .and_then(|rest| rest.split(':').nth(1))
        .unwrap_or_else(|| panic!("{created}"))
        .trim()
        .to_owned();
    let (is_ok, twice) = spire.run(
        "entry create -parentID spiffe://example.org/spire/agent/local -spiffeID spiffe://example.org/web -selector unix:uid:0",
    );
    assert!(
        !is_ok && twice.contains("similar entry already exists"),
        "{twice}"
    );
    assert!(spire.ok("entry show -selector unix:uid:0").contains(&id));
    assert!(spire.ok("entry count").contains('1'));
    let updated = spire.ok(&format!(
        "entry update -entryID {id} -parentID spiffe://example.org/spire/agent/local -spiffeID spiffe://example.org/web2 -selector unix:uid:0"
    ));
    assert!(updated.contains("spiffe://example.org/web2"), "{updated}");
    // What SPIRE's command line wrote is what our workload socket says.
    let fetched = server.ok(&["svid", "fetch"]).unwrap();
    assert!(
        fetched.starts_with("spiffe://example.org/web2"),
        "{fetched}"
    );

    assert!(spire.ok("bundle show").contains("BEGIN CERTIFICATE"));
    let document = spire.ok("bundle show -format spiffe");
    assert!(document.contains("x509-svid"), "{document}");
    let other = run_folder("spire-cli-other");
    let arguments = ["--trust-domain", "other.org"];
    let theirs = Served::start(Path::new(PORTCULLIS), &other, &arguments, &[]).unwrap();
    std::fs::write(
        folder.join("other.json"),
        theirs.ok(&["ca", "bundle", "show"]).unwrap(),
    )
    .unwrap();
    spire.ok("bundle set -id spiffe://other.org -format spiffe -path other.json");
    assert!(spire.ok("bundle list").contains("other.org"));

    let minted = spire.ok("x509 mint -spiffeID spiffe://example.org/minted -ttl 60s");
    assert!(minted.contains("PRIVATE KEY"), "{minted}");
    let minted = spire.ok("jwt mint -spiffeID spiffe://example.org/minted -audience vault");
    let token = minted.lines().next().unwrap();
    let valid = server
        .ok(&["svid", "validate", "--audience", "vault", token])
        .unwrap();
    assert_eq!(valid, "valid: spiffe://example.org/minted\n");

    let prepared = spire.ok("localauthority x509 prepare");
    let next = prepared
        .lines()
        .find_map(|line| line.trim().strip_prefix("Authority ID: "))
        .unwrap_or_else(|| panic!("{prepared}"));
    let shown = spire.ok("localauthority x509 show");
    assert!(
        shown.contains(next) && shown.contains("Prepared"),
        "{shown}"
    );
    let (is_ok, refused) = spire.run(&format!("localauthority x509 taint -authorityID {next}1"));
    assert!(!is_ok, "{refused}");
    spire.ok(&format!("localauthority x509 activate -authorityID {next}"));

    spire.ok(
        "federation create -trustDomain other.org -bundleEndpointURL https://127.0.0.1:1 -bundleEndpointProfile https_spiffe -endpointSpiffeID spiffe://other.org/spire/server",
    );
    let shown = spire.ok("federation show -trustDomain other.org");
    assert!(shown.contains("https://127.0.0.1:1"), "{shown}");
    spire.ok(
        "federation update -trustDomain other.org -bundleEndpointURL https://127.0.0.1:2 -bundleEndpointProfile https_web",
    );
    let listed = spire.ok("federation list");
    assert!(
        listed.contains("https_web") && listed.contains(":2"),
        "{listed}"
    );
    let (is_ok, refused) = spire.run("federation refresh -id other.org");
    assert!(!is_ok, "{refused}");
    spire.ok("federation delete -id other.org");
    spire.ok("bundle delete -id spiffe://other.org");
    spire.ok(&format!("entry delete -entryID {id}"));
    assert!(spire.ok("entry count").contains('0'));
}
