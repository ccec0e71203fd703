//! A process number is given anew while its connections live on: whoever has it then inherits nothing.
//!
//! The test runs itself once more in a PID namespace of its own, in which it can say which number comes next, and lets
//! programs die and others take their numbers, hundreds of times, at moments that differ.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use portcullis_ca::ca::{Ca, KeyStorage, Options};
use portcullis_ca::clock::SystemClock;
use portcullis_ca::entry::Entry;
use portcullis_ca::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_ca::proto::workload::{X509svidRequest, X509svidResponse};
use portcullis_ca::registry::local_agent;
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::trust_domain::TrustDomain;
use portcullis_ca::wire::{WorkloadServer, WorkloadServerOptions};
use tonic::{Code, Status, Streaming};

use super::attestation::receive;
use super::server::{Client, PATIENCE, SecurityHeader, channel_over, soon};

const NAME: &str =
    "workload::reuse::a_number_that_is_given_anew_in_a_fork_storm_brings_no_identity";
const INSIDE: &str = "PORTCULLIS_INSIDE_PID_NAMESPACE";
/// Storms at the same time: they take each other's numbers, too.
const STORMS: usize = 3;
/// How long each goes on, and how many rounds are enough.
const LENGTH: Duration = Duration::from_secs(6);
const ROUNDS: usize = 150;

/// One storm. A round: a program connects, hands its connection over and dies; another program gets its number, and stays
/// until it is told to go.
const SCRIPT: &str = r"
import os, random, socket, sys, time
control = socket.socket(fileno=0)
path, length, rounds = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])

def become(who):
    if who == 'nobody':
        os.setgid(65534)
        os.setuid(65534)

end = time.monotonic() + length
for number in range(rounds):
    if time.monotonic() > end:
        break
    first, second = random.choice([('root', 'nobody'), ('nobody', 'root'), ('root', 'sleep'), ('nobody', 'sleep')])
    a = os.fork()
    if a == 0:
        become(first)
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        socket.send_fds(control, [first[:1].encode()], [s.fileno()])
        time.sleep(random.choice([0, 0, 0.001, 0.003, 0.02]))
        os._exit(0)
    os.waitpid(a, 0)
    with open('/proc/sys/kernel/ns_last_pid', 'w') as last:
        last.write(str(a - 1))
    b = os.fork()
    if b == 0:
        become(second)
        if second == 'sleep':
            os.execv('/bin/sleep', ['sleep', '30'])
        time.sleep(30)
    control.send(b'R' if a == b else b'x')
    control.recv(1)
    os.kill(b, 9)
    os.waitpid(b, 0)
control.send(b'.')
";

#[test]
fn a_number_that_is_given_anew_in_a_fork_storm_brings_no_identity() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(inside());
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let mut possible = Command::new("unshare");
    possible.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let possible = possible.args(["sh", "-c", "echo 299 > /proc/sys/kernel/ns_last_pid"]);
    if !possible.output().is_ok_and(|said| said.status.success()) {
        let told = "process numbers cannot be chosen here: that takes root, `unshare` and /proc/sys/kernel/ns_last_pid";
        assert!(std::env::var_os("CI").is_none(), "{told}");
        eprintln!("SKIPPED: {told}");
        return;
    }
    let output = unshare
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{said}");
    assert!(output.status.success(), "in the namespace: {said}");
    assert!(said.contains("1 passed"), "nothing ran: {said}");
}

fn entry(path: &str, selectors: &[&str]) -> Entry {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    Entry {
        id: String::new(),
        spiffe_id: SpiffeId::new(&trust_domain, path).unwrap(),
        parent_id: local_agent(&trust_domain),
        selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
        x509_ttl: None,
        jwt_ttl: None,
        dns_names: Vec::new(),
        federates_with: Vec::new(),
        hint: String::new(),
        admin: false,
        downstream: false,
        store_svid: false,
        expires_at: None,
        revision_number: 0,
        created_at: SystemTime::UNIX_EPOCH,
    }
}

/// How the rounds went.
#[derive(Default)]
struct Seen {
    /// Rounds in which the number was given anew.
    reused: AtomicUsize,
    /// Calls that the first program's own identity answered, and those that came too late for it.
    answered: AtomicUsize,
    too_late: AtomicUsize,
    /// Streams that were open when their program died.
    ended: AtomicUsize,
}

async fn inside() {
    let folder = tempfile::tempdir().unwrap();
    // Users without rights connect, too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut options = Options::new(
        TrustDomain::new("example.org").unwrap(),
        folder.path().join("data"),
    );
    options.keys = KeyStorage::Memory;
    let ca = Arc::new(Ca::open(options, Arc::new(SystemClock)).await.unwrap());
    let python = Command::new("python3")
        .args(["-c", "import os; print(os.path.realpath('/proc/self/exe'))"])
        .output()
        .unwrap();
    let python = format!(
        "unix:path:{}",
        String::from_utf8(python.stdout).unwrap().trim()
    );
    let sleep = format!(
        "unix:path:{}",
        fs::canonicalize("/bin/sleep").unwrap().display()
    );
    let entries = vec![
        entry("/root", &["unix:uid:0", &python]),
        entry("/nobody", &["unix:uid:65534", &python]),
        entry("/sleep", &[&sleep]),
    ];
    let created = ca.registry().create(entries, "test").await.unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    let socket = folder.path().join("w.sock");
    let mut options = WorkloadServerOptions::new(&socket);
    options.patience = PATIENCE;
    let server = WorkloadServer::bind(options).await.unwrap();
    tokio::spawn(server.run(Arc::clone(&ca) as _, std::future::pending()));
    let seen = Arc::new(Seen::default());
    let mut storms = tokio::task::JoinSet::new();
    for _ in 0..STORMS {
        storms.spawn(storm(socket.clone(), Arc::clone(&ca), Arc::clone(&seen)));
    }
    while let Some(done) = storms.join_next().await {
        done.unwrap();
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    eprintln!(
        "{} numbers were given anew; {} calls were answered, {} came too late, {} streams ended",
        count(&seen.reused),
        count(&seen.answered),
        count(&seen.too_late),
        count(&seen.ended)
    );
    // Each way of it was met: otherwise nothing was shown.
    assert!(count(&seen.reused) >= 20, "too few numbers were given anew");
    assert!(count(&seen.answered) > 0 && count(&seen.too_late) > 0 && count(&seen.ended) > 0);
}

/// What a storm says: a connection of a program, or a letter.
async fn hear(control: &StdStream) -> u8 {
    let mut control = control.try_clone().unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut letter = [0];
        control.read_exact(&mut letter).map(|()| letter[0])
    });
    soon(heard).await.unwrap().unwrap()
}

async fn storm(socket: impl AsRef<Path>, ca: Arc<Ca>, seen: Arc<Seen>) {
    let (control, theirs) = StdStream::pair().unwrap();
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(socket.as_ref())
        .args([LENGTH.as_secs().to_string(), ROUNDS.to_string()])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    for number in 0.. {
        let ours = control.try_clone().unwrap();
        let got = tokio::task::spawn_blocking(move || receive(&ours));
        let (letter, connection) = soon(got).await.unwrap();
        let Some(connection) = connection else {
            assert_eq!(letter, b'.');
            break;
        };
        let own = match letter {
            b'r' => "spiffe://example.org/root",
            b'n' => "spiffe://example.org/nobody",
            other => panic!("{other}"),
        };
        // Before, while and after the program dies.
        tokio::time::sleep(Duration::from_micros(number % 7 * 500)).await;
        connection.set_nonblocking(true).unwrap();
        let client = channel_over(tokio::net::UnixStream::from_std(connection).unwrap()).await;
        let mut client = match client {
            Ok(channel) => SpiffeWorkloadApiClient::with_interceptor(channel, SecurityHeader),
            // Refused as a whole is refused.
            Err(_) => {
                let _ = hear(&control).await;
                (&control).write_all(b"g").unwrap();
                continue;
            }
        };
        let stream = first(&mut client, own, &seen).await;
        let reused = hear(&control).await == b'R';
        seen.reused
            .fetch_add(usize::from(reused), Ordering::Relaxed);
        // From here on the number is somebody else's, and a change makes every stream ask again.
        let change = entry(
            &format!("/change/{own}/{number}").replace("spiffe://", ""),
            &["test:no:one"],
        );
        ca.registry().create(vec![change], "test").await.unwrap();
        if let Some(mut stream) = stream {
            let status = loop {
                match soon(stream.message()).await {
                    // Written before the end, read after it.
                    Ok(Some(message)) => is_own(&message, own),
                    Ok(None) => panic!("a stream ended well although its program died"),
                    Err(status) => break status,
                }
            };
            is_over(&status);
            seen.ended.fetch_add(1, Ordering::Relaxed);
        }
        match soon(client.fetch_x509svid(X509svidRequest {})).await {
            Ok(_) => panic!("a call after the end was let in"),
            Err(status) => is_over(&status),
        }
        (&control).write_all(b"g").unwrap();
    }
    child.wait().unwrap();
}

/// Asks as soon as it can; what it gets is what the first program is entitled to, or nothing.
async fn first(client: &mut Client, own: &str, seen: &Seen) -> Option<Streaming<X509svidResponse>> {
    let refused = match soon(client.fetch_x509svid(X509svidRequest {})).await {
        Ok(stream) => {
            let mut stream = stream.into_inner();
            match soon(stream.message()).await {
                Ok(message) => {
                    is_own(&message.unwrap(), own);
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                    return Some(stream);
                }
                Err(status) => status,
            }
        }
        Err(status) => status,
    };
    is_over(&refused);
    seen.too_late.fetch_add(1, Ordering::Relaxed);
    None
}

fn is_own(message: &X509svidResponse, own: &str) {
    let ids: Vec<&str> = message.svids.iter().map(|svid| &*svid.spiffe_id).collect();
    assert_eq!(ids, [own], "another program's identity");
}

fn is_over(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}
