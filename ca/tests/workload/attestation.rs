//! Who a caller is, and that nobody else becomes it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portcullis_ca::attest::{AttestError, Attestation, Peer};
use portcullis_ca::proto::workload::X509svidRequest;
use tokio::net::{UnixListener, UnixStream};

use super::server::{Server, channel_over, soon};

/// A python process that connects to a socket and then does what it is told, line by line.
struct Actor {
    child: Child,
    orders: ChildStdin,
    said: BufReader<std::process::ChildStdout>,
}

const SCRIPT: &str = r"
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.set_inheritable(True)
print(os.getpid(), flush=True)
for line in sys.stdin:
    exec(line)
    print('done', flush=True)
";

impl Actor {
    async fn connect(listener: &UnixListener) -> (Self, UnixStream) {
        let address = listener.local_addr().unwrap();
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(address.as_pathname().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut actor = Self {
            child,
            orders,
            said,
        };
        assert_eq!(actor.hear(), actor.child.id().to_string());
        (actor, stream)
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listener() -> (tempfile::TempDir, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    (folder, listener)
}

fn peer(stream: &UnixStream) -> Peer {
    Peer::of(stream, |_| None).unwrap()
}

#[tokio::test]
async fn tells_users_groups_path_and_digest() {
    let (_folder, listener) = listener();
    let (actor, stream) = Actor::connect(&listener).await;
    let attestation = Attestation::default();
    let caller = soon(attestation.attest(&peer(&stream))).await.unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    assert_eq!(
        (caller.pid, caller.uid, caller.gid),
        (Some(actor.child.id()), Some(uid), Some(gid))
    );
    let selectors: Vec<String> = caller.selectors.iter().map(ToString::to_string).collect();
    let path = std::fs::read_link(format!("/proc/{}/exe", actor.child.id())).unwrap();
    let content = std::fs::read(&path).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &content);
    let digest: String = digest.as_ref().iter().map(|o| format!("{o:02x}")).collect();
    let mut expected = vec![
        format!("unix:uid:{uid}"),
        format!("unix:gid:{gid}"),
        format!("unix:path:{}", path.display()),
        format!("unix:sha256:{digest}"),
    ];
    for group in rustix::process::getgroups().unwrap() {
        expected.push(format!("unix:supplementary_gid:{}", group.as_raw()));
    }
    if uid == 0 {
        expected.push("unix:user:root".to_owned());
        expected.push("unix:group:root".to_owned());
    }
    for selector in expected {
        assert!(
            selectors.contains(&selector),
            "{selector} is not in {selectors:?}"
        );
    }
    assert!(caller.selectors.is_sorted());
}

#[tokio::test]
async fn a_connection_that_outlives_its_process_has_no_identity() {
    let (_folder, listener) = listener();
    let (mut actor, stream) = Actor::connect(&listener).await;
    let peer = peer(&stream);
    let attestation = Attestation::default();
    soon(attestation.attest(&peer)).await.unwrap();
    // A child keeps the socket, its parent goes.
    actor.tell("os.fork() and os._exit(0)");
    let process = Arc::clone(peer.process().unwrap());
    soon(process.ended()).await;
    assert_eq!(
        soon(attestation.attest(&peer)).await,
        Err(AttestError::Ended)
    );
    actor.child.wait().unwrap();
    assert_eq!(
        soon(attestation.attest(&peer)).await,
        Err(AttestError::Ended)
    );
    // The child is not the one that connected, however the parent's number is used again.
    let pid = actor.child.id();
    if std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_ok() {
        let mut next = Command::new("sleep").arg("30").spawn().unwrap();
        assert_eq!(
            soon(attestation.attest(&peer)).await,
            Err(AttestError::Ended)
        );
        next.kill().unwrap();
        next.wait().unwrap();
    }
    assert_eq!(
        actor.hear(),
        "done",
        "the child still has its end of the socket"
    );
    actor.tell("os._exit(0)");
}

#[tokio::test]
async fn a_process_that_ended_before_it_was_accepted_is_nobody() {
    let (_folder, listener) = listener();
    let mut client = Command::new("python3")
        .args(["-c", "import socket,sys,os; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.set_inheritable(True); os.fork() or __import__('time').sleep(30)"])
        .arg(listener.local_addr().unwrap().as_pathname().unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    client.wait().unwrap();
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let peer = peer(&stream);
    assert_eq!(
        soon(Attestation::default().attest(&peer)).await,
        Err(AttestError::Ended)
    );
}

#[tokio::test]
async fn another_program_does_not_inherit_the_connection() {
    let (_folder, listener) = listener();
    let (mut actor, stream) = Actor::connect(&listener).await;
    let peer = peer(&stream);
    let attestation = Attestation::default();
    soon(attestation.attest(&peer)).await.unwrap();
    actor.tell("os.execv('/bin/sleep', ['sleep', '30'])");
    soon(async {
        while attestation.attest(&peer).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(
        soon(attestation.attest(&peer)).await,
        Err(AttestError::Changed("executable"))
    );
}

#[tokio::test]
async fn another_user_or_group_does_not_inherit_the_connection() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    for (order, what) in [
        ("os.setegid(65534)", "group"),
        ("os.seteuid(65534)", "user"),
    ] {
        let (_folder, listener) = listener();
        let (mut actor, stream) = Actor::connect(&listener).await;
        let peer = peer(&stream);
        let attestation = Attestation::default();
        soon(attestation.attest(&peer)).await.unwrap();
        actor.tell(order);
        assert_eq!(actor.hear(), "done");
        let error = soon(attestation.attest(&peer)).await.unwrap_err();
        assert_eq!(error, AttestError::Changed(what));
        assert!(error.to_string().contains("connect anew"), "{error}");
    }
}

#[tokio::test]
async fn a_replaced_executable_keeps_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut child = Command::new(&program).arg("30").spawn().unwrap();
    let process = portcullis_ca::attest::Process::of_pid(child.id()).unwrap();
    let told = || {
        portcullis_ca::attest::Executable::of(&process)
            .unwrap()
            .unwrap()
    };
    // Between fork and exec it is still we who run.
    soon(async {
        while *told().path != *program.to_str().unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let before = told();
    let new = folder.path().join("new");
    std::fs::copy("/bin/true", &new).unwrap();
    std::fs::rename(&new, &program).unwrap();
    let after = told();
    assert_eq!(after.path, before.path);
    assert!(after.file.is_same_file(&before.file));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_stream_ends_with_its_process_even_if_the_socket_lives_on() {
    // The connection is made by a child of ours and handed to us: the caller is the child.
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                  p=socket.socket(fileno=0); socket.send_fds(p,[b'x'],[s.fileno()]); p.recv(1)";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(server.path())
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let stream = receive(&ours).1.unwrap();
    stream.set_nonblocking(true).unwrap();
    let channel = channel_over(UnixStream::from_std(stream).unwrap()).await;
    let channel = channel.unwrap();
    let mut client = portcullis_ca::proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient::with_interceptor(channel, super::server::SecurityHeader);
    let mut messages = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap()
        .into_inner();
    soon(messages.message()).await.unwrap().unwrap();
    assert_eq!(server.fake.last_caller().unwrap().pid, Some(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let status = soon(messages.message()).await.unwrap_err();
    assert!(status.message().contains("has ended"), "{status}");
    let status = soon(client.fetch_x509svid(X509svidRequest {}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    assert!(status.message().contains("has ended"), "{status}");
}

/// One byte, and the connection that came with it.
pub fn receive(
    socket: &std::os::unix::net::UnixStream,
) -> (u8, Option<std::os::unix::net::UnixStream>) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (byte[0], fd.map(Into::into))
}
