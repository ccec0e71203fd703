//! `portcullis svid` before a real certificate authority.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Folder, Outcome, wait};

/// A certificate authority in a folder, stopped at the end.
pub struct Authority {
    pub folder: Folder,
    server: Child,
}

impl Authority {
    pub fn start() -> Self {
        Self::with(&[], &[])
    }

    pub fn with(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let folder = Folder::new(files);
        let server = serve(&folder, arguments);
        let authority = Self { folder, server };
        authority.wait();
        authority
    }

    /// Stops it, does something to its files, and starts it again.
    pub fn restart(&mut self, between: impl FnOnce(&Path)) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        between(self.folder.path());
        self.server = serve(&self.folder, &[]);
        self.wait();
    }

    fn wait(&self) {
        until("the authority serves", || self.ca(&["status"]).code == 0);
    }

    /// A verb of `ca` on its data folder.
    pub fn ca(&self, arguments: &[&str]) -> Outcome {
        self.folder
            .run(&[&["ca"], arguments, &["--data", "ca"]].concat())
    }

    /// A verb of `svid` on its workload socket.
    pub fn svid(&self, verb: &str, arguments: &[&str]) -> Outcome {
        let socket = ["svid", verb, "--socket", "ca/workload.sock"];
        self.folder.run(&[&socket, arguments].concat())
    }

    /// Gives this user the identity `/name`.
    pub fn entry(&self, name: &str, more: &[&str]) {
        let id = format!("spiffe://example.org/{name}");
        let selector = format!("unix:uid:{}", rustix::process::getuid().as_raw());
        let arguments = [
            "entry",
            "create",
            "--spiffe-id",
            &id,
            "--selector",
            &selector,
        ];
        let created = self.ca(&[&arguments, more].concat());
        assert_eq!(created.code, 0, "{created:?}");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn serve(folder: &Folder, arguments: &[&str]) -> Child {
    let all = [&["ca", "serve", "--data", "ca"], arguments].concat();
    let mut command = folder.command(&all);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[track_caller]
pub fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "not yet: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn an_svid_is_fetched_written_validated_and_inspected() {
    let ca = Authority::start();
    let none = ca.svid("fetch", &[]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("no identity issued"), "{none:?}");
    assert!(
        ca.folder
            .run(&["svid", "fetch", "--socket", "nobody.sock"])
            .code
            == 1
    );

    ca.entry("web", &["--dns", "web.example.org"]);
    let fetched = ca.svid("fetch", &["--write", "certs", "--key-mode", "0640"]);
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert!(
        fetched
            .stdout
            .starts_with("spiffe://example.org/web, valid to ")
    );
    let (svid, key, bundle) = ("certs/svid.pem", "certs/svid.key", "certs/bundle.pem");
    assert_eq!(mode(&ca.path(svid)), 0o644);
    assert_eq!(mode(&ca.path(key)), 0o640);
    assert_eq!(mode(&ca.path(bundle)), 0o644);
    let left: Vec<_> = std::fs::read_dir(ca.path("certs")).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");

    let valid = "valid: spiffe://example.org/web\n";
    ca.svid("validate", &[svid]).is(0, valid, "");
    let offline = ["svid", "validate", "--bundle", bundle, svid];
    ca.folder.run(&offline).is(0, valid, "");
    // The bundle of another authority.
    let other = Authority::start();
    other.entry("web", &[]);
    other.svid("fetch", &["--write", "certs"]);
    let foreign = other.path(bundle).display().to_string();
    let refused = ca
        .folder
        .run(&["svid", "validate", "--bundle", &foreign, svid]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("X509-SVID §5.1"), "{refused:?}");

    let together = text(&ca.path(svid)) + &text(&ca.path(key));
    ca.folder.write("together.pem", &together);
    let told = ca
        .folder
        .run(&["svid", "inspect", "together.pem", "--output", "json"]);
    assert_eq!(told.code, 0, "{told:?}");
    let told = told.json();
    assert_eq!(told[0]["kind"], "X.509-SVID");
    assert_eq!(told[0]["facts"]["spiffe_id"], "spiffe://example.org/web");
    assert_eq!(told[0]["facts"]["dns_names"], "web.example.org");
    assert_eq!(told[1]["kind"], "private key");
    let foreign_key = text(&ca.path(svid)) + &text(&other.path(key));
    let told = ca.folder.run_with(&["svid", "inspect", "-"], foreign_key);
    assert_eq!(told.code, 2);
    assert!(told.stdout.contains("they are no pair"), "{told:?}");

    let document = ca.ca(&["bundle", "show"]).stdout;
    let told = ca
        .folder
        .run_with(&["svid", "inspect", "-", "--output", "json"], &document);
    assert_eq!(
        (told.code, &told.json()[0]["problems"]),
        (0, &serde_json::json!([]))
    );
    ca.folder.write("bundle.json", &document);
    let offline = ["svid", "validate", "--bundle", "bundle.json", svid];
    ca.folder.run(&offline).is(0, valid, "");
}

#[test]
fn a_token_is_fetched_and_valid_for_its_audience_only() {
    let ca = Authority::start();
    ca.entry("web", &["--hint", "first"]);
    let token = ca.svid("fetch", &["--audience", "vault"]);
    assert_eq!(token.code, 0, "{token:?}");
    let token = token.stdout.trim().to_owned();
    let valid = "valid: spiffe://example.org/web\n";
    ca.svid("validate", &["--audience", "vault", &token])
        .is(0, valid, "");
    ca.folder.write("token", &token);
    ca.svid("validate", &["--audience", "vault", "token"])
        .is(0, valid, "");
    let other = ca.svid("validate", &["--audience", "bank", &token]);
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("JWT-SVID §3.2"), "{other:?}");
    assert_eq!(
        ca.svid("validate", &[&token]).code,
        1,
        "an audience is needed"
    );

    ca.folder
        .write("bundle.json", ca.ca(&["bundle", "show"]).stdout);
    let offline = [
        "svid",
        "validate",
        "--bundle",
        "bundle.json",
        "--audience",
        "vault",
    ];
    ca.folder
        .run(&[&offline[..], &[&token]].concat())
        .is(0, valid, "");
    let mut forged = token.clone();
    forged.replace_range(forged.len() - 3.., "AAA");
    let refused = ca.folder.run(&[&offline[..], &[&forged]].concat());
    assert_eq!(refused.code, 2, "{refused:?}");

    let told = ca.folder.run_with(&["svid", "inspect", "-"], &token);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.stdout.starts_with("JWT-SVID\n"), "{told:?}");
    assert!(told.stdout.contains("vault"), "{told:?}");

    let written = ca.svid("fetch", &["--audience", "vault", "--write", "jwt"]);
    assert_eq!(written.code, 0, "{written:?}");
    assert_eq!(mode(&ca.path("jwt/jwt_svid.token")), 0o600);
    let keys: serde_json::Value =
        serde_json::from_str(&text(&ca.path("jwt/jwt_bundle.json"))).unwrap();
    assert!(keys["keys"][0]["kid"].is_string(), "{keys}");
    let denied = ca.svid("fetch", &["--audience", "vault", "--hint", "second"]);
    assert_eq!(denied.code, 2, "{denied:?}");
}

#[test]
fn a_reload_command_that_hangs_keeps_nothing_out_of_the_files() {
    let ca = Authority::start();
    ca.entry("web", &[]);
    let mut watch = ca
        .folder
        .command(&["svid", "watch", "--socket", "ca/workload.sock"])
        .args(["--write", "certs", "--reload-timeout", "1"])
        .args(["--reload", "echo begun >> begun; exec sleep 600"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the command hangs", || ca.path("begun").exists());
    let prepared = ca.ca(&["authority", "prepare", "x509"]);
    assert_eq!(prepared.code, 0, "{prepared:?}");
    let roots = || text(&ca.path("certs/bundle.pem")).matches("BEGIN").count();
    until("the new root is in the file", || roots() == 2);
    let pid = rustix::process::Pid::from_raw(i32::try_from(watch.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(wait(&mut watch, Duration::from_secs(10)), 0);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut watch.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("the reload command was ended"), "{said}");
}

#[test]
fn a_selector_that_no_caller_has_is_refused() {
    let ca = Authority::start();
    let made = ca.ca(&[
        "entry",
        "create",
        "--spiffe-id",
        "spiffe://example.org/x",
        "--selector",
        "unix:uid",
    ]);
    assert_eq!(made.code, 1, "{made:?}");
    assert!(made.stderr.contains("`unix:uid:`"), "{made:?}");
    let none = ca.ca(&["entry", "list", "--output", "json"]).json();
    assert!(format!("{none:?}").contains("[]"), "{none:?}");
}

#[test]
fn files_follow_the_identity_and_a_command_is_run_after_each_change() {
    let ca = Authority::start();
    let mut watch = ca
        .folder
        .command(&[
            "svid",
            "watch",
            "--socket",
            "ca/workload.sock",
            "--write",
            "certs",
        ])
        .args([
            "--audience",
            "vault",
            "--reload",
            "cat certs/bundle.pem >> seen",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Nobody has an identity yet: it waits.
    std::thread::sleep(Duration::from_millis(300));
    assert!(watch.try_wait().unwrap().is_none());
    ca.entry("web", &[]);
    let has = |name: &str| ca.path(name).exists();
    until("the files are there", || {
        has("certs/svid.pem") && has("certs/jwt_svid.token") && has("seen")
    });
    let first = text(&ca.path("certs/svid.pem"));
    let roots = || text(&ca.path("certs/bundle.pem")).matches("BEGIN").count();
    assert_eq!(roots(), 1);
    let prepared = ca.ca(&["authority", "prepare", "x509", "--output", "json"]);
    let id = prepared.json()[0]["id"].as_str().unwrap().to_owned();
    until("the new root is in the file", || roots() == 2);
    let old = ca.ca(&["authority", "list", "--output", "json"]).json();
    let old = old.iter().flat_map(|line| match line {
        serde_json::Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    });
    let old = old
        .filter(|one| one["kind"] == "x509" && one["state"] == "active")
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .next()
        .unwrap();
    assert_eq!(ca.ca(&["authority", "activate", &id]).code, 0);
    assert_eq!(ca.ca(&["authority", "taint", &old]).code, 0);
    until("the SVID is another one", || {
        text(&ca.path("certs/svid.pem")) != first
    });
    until("the command ran again", || {
        text(&ca.path("seen")).matches("BEGIN").count() >= 3
    });
    let valid = "valid: spiffe://example.org/web\n";
    ca.svid("validate", &["certs/svid.pem"]).is(0, valid, "");
    let pid = rustix::process::Pid::from_raw(i32::try_from(watch.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(wait(&mut watch, Duration::from_secs(10)), 0);
    let left = std::fs::read_dir(ca.path("certs")).unwrap();
    let hidden = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn what_is_nothing_of_ours_is_told_apart() {
    let folder = Folder::new(&[
        ("text", "hello"),
        ("empty", ""),
        ("pem", "-----BEGIN X-----\n"),
    ]);
    for file in ["text", "empty", "pem"] {
        let told = folder.run(&["svid", "inspect", file]);
        assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{file}");
        assert!(
            told.stderr.starts_with(&format!("error: `{file}`: ")),
            "{told:?}"
        );
    }
    assert_eq!(folder.run(&["svid", "inspect", "missing"]).code, 1);
    assert_eq!(folder.run(&["svid"]).code, 1);
}
