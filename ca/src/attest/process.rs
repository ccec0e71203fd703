//! One local process, held so that its identifier cannot come to mean another one.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// Longest file of `/proc` that is read, bytes: `status` with 65,536 supplementary groups stays below.
const MAX_PROC_FILE: u64 = 1 << 20;

/// A process, from when it connected to its end.
///
/// It is held by two file descriptors that mean this process and never another one that was given its
/// identifier after its end: a pidfd, which the kernel made of the connection itself where it can
/// (`SO_PEERPIDFD`, Linux 6.5), and its folder below `/proc`, in which nothing can be opened any more once
/// the process is gone. Both opened while the process lived: that is checked last.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    folder: OwnedFd,
    /// Turns true once, when the process ends.
    ended: watch::Receiver<bool>,
    pidfd: Arc<OwnedFd>,
}

/// The users and groups that a process acts as at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
    /// Supplementary group IDs.
    pub groups: Vec<u32>,
}

/// Why nothing can be said about a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// Nobody is left to have an identity.
    #[error("the calling process has ended")]
    Ended,
    /// In another PID namespace, of which we see nothing.
    #[error(
        "the calling process cannot be seen from here: run the certificate authority in the host's pid namespace"
    )]
    Invisible,
    /// It is no longer what it was when it connected: what one program asked for must not go to another.
    #[error("the calling process has changed its {0} since it connected: connect anew")]
    Changed(&'static str),
    /// What it runs in gives no identity any more, and never will again.
    #[error("{0}")]
    Refused(String),
    /// An attestor could not find out what it has to.
    #[error("the caller cannot be attested: {0}")]
    Failed(String),
}

impl Process {
    /// The process that connected; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`AttestError`] when it has ended already or cannot be seen.
    pub fn of_peer(stream: &UnixStream, pid: Option<i32>) -> Result<Self, AttestError> {
        let pid = pid.and_then(Pid::from_raw).ok_or(AttestError::Invisible)?;
        let pidfd = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => pidfd,
            // Before Linux 6.5. A process that ended between connecting and now is then not told from
            // one that has its identifier since; credentials that differ are still noticed.
            Err(nix::errno::Errno::ENOPROTOOPT) => {
                pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(gone)?
            }
            Err(
                nix::errno::Errno::ESRCH | nix::errno::Errno::EINVAL | nix::errno::Errno::ENODATA,
            ) => {
                return Err(AttestError::Ended);
            }
            Err(error) => return Err(AttestError::Failed(error.to_string())),
        };
        Self::open(pid, pidfd)
    }

    /// The process `pid` of this moment.
    ///
    /// # Errors
    /// [`AttestError`] when there is none.
    pub fn of_pid(pid: u32) -> Result<Self, AttestError> {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(AttestError::Ended)?;
        Self::open(pid, pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(gone)?)
    }

    fn open(pid: Pid, pidfd: OwnedFd) -> Result<Self, AttestError> {
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let folder = rustix::fs::open(
            format!("/proc/{number}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(gone)?;
        // Alive after the folder was opened by number, so the number meant this process all the while.
        if !lives(&pidfd) {
            return Err(AttestError::Ended);
        }
        let pidfd = Arc::new(pidfd);
        let (end, ended) = watch::channel(false);
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may lend another descriptor each time; this one owns its own"
        )]
        let watched = AsyncFd::with_interest(Arc::clone(&pidfd), Interest::READABLE)
            .map_err(|error| AttestError::Failed(format!("cannot watch the process: {error}")))?;
        tokio::spawn(async move {
            tokio::select! {
                // A pidfd is readable when its process has ended.
                _ = watched.readable() => { end.send_replace(true); }
                () = end.closed() => {}
            }
        });
        Ok(Self {
            pid: number,
            folder,
            ended,
            pidfd,
        })
    }

    /// Its identifier.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// False once it has ended, whether or not its parent has taken notice.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        lives(&self.pidfd)
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that nobody watches any more; then the process is asked now and then.
        if ended.wait_for(|ended| *ended).await.is_err() {
            while self.is_alive() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// The users and groups it acts as.
    ///
    /// # Errors
    /// [`AttestError`] when it has ended or the kernel's answer cannot be read.
    pub fn credentials(&self) -> Result<Credentials, AttestError> {
        let status = self.read("status")?;
        credentials(&status).ok_or_else(|| {
            AttestError::Failed(format!("`/proc/{}/status` cannot be read", self.pid))
        })
    }

    /// A file of its folder below `/proc`, as text.
    ///
    /// # Errors
    /// [`AttestError`] when it has ended or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<String, AttestError> {
        let fd = openat(
            &self.folder,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(gone)?;
        let mut octets = Vec::with_capacity(2048);
        std::fs::File::from(fd)
            .take(MAX_PROC_FILE)
            .read_to_end(&mut octets)
            .map_err(|error| self.failed(name, &error))?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    /// The folder below `/proc`, in which files of this process alone can be opened.
    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    pub(super) fn failed(&self, name: &str, error: &io::Error) -> AttestError {
        // ESRCH: it ended between opening and reading.
        if self.is_alive() {
            AttestError::Failed(format!("`/proc/{}/{name}`: {error}", self.pid))
        } else {
            AttestError::Ended
        }
    }
}

fn lives(pidfd: &OwnedFd) -> bool {
    let now = rustix::event::Timespec::default();
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)) {
            Ok(ready) => return ready == 0,
            Err(rustix::io::Errno::INTR) => {}
            // Whoever cannot be watched is not alive to us.
            Err(_) => return false,
        }
    }
}

fn gone(error: rustix::io::Errno) -> AttestError {
    match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => {
            AttestError::Ended
        }
        other => AttestError::Failed(io::Error::from(other).to_string()),
    }
}

fn credentials(status: &str) -> Option<Credentials> {
    let (mut uid, mut gid, mut groups) = (None, None, None);
    for line in status.lines() {
        let Some((key, values)) = line.split_once(':') else {
            continue;
        };
        // Real, effective, saved, file system (proc_pid_status(5)).
        let mut values = values.split_ascii_whitespace().map(str::parse::<u32>);
        match key {
            "Uid" => uid = values.nth(1)?.ok(),
            "Gid" => gid = values.nth(1)?.ok(),
            "Groups" => {
                groups = Some(values.collect::<Result<Vec<u32>, _>>().ok()?);
                // Everything of interest stands above.
                break;
            }
            _ => {}
        }
    }
    Some(Credentials {
        uid: uid?,
        gid: gid?,
        groups: groups?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> std::process::Child {
        Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn credentials_are_the_effective_ones() {
        let status = "Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\t2\t3\t4\nFDSize:\t64\nGroups:\t4 20 \nNStgid:\t5\n";
        assert_eq!(
            credentials(status),
            Some(Credentials {
                uid: 0,
                gid: 2,
                groups: vec![4, 20]
            })
        );
        for broken in ["", "Uid:\t1\t2\n", "Uid:\t1\t2\nGid:\tx\ty\nGroups:\t\n"] {
            assert_eq!(credentials(broken), None, "{broken}");
        }
    }

    #[tokio::test]
    async fn an_ended_process_is_noticed_before_its_parent_takes_notice() {
        let mut child = sleeper();
        let process = Process::of_pid(child.id()).unwrap();
        assert!(process.is_alive());
        assert_eq!(
            process.credentials().unwrap().uid,
            rustix::process::geteuid().as_raw()
        );
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(10), process.ended())
            .await
            .unwrap();
        assert!(!process.is_alive());
        assert_eq!(Process::of_pid(child.id()).unwrap_err(), AttestError::Ended);
        child.wait().unwrap();
        assert_eq!(process.credentials(), Err(AttestError::Ended));
    }

    #[tokio::test]
    async fn the_folder_of_an_ended_process_never_shows_the_next_one_with_its_number() {
        let mut child = sleeper();
        let pid = child.id();
        let process = Process::of_pid(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel gives numbers in order: the next one after `pid - 1` is `pid`, if it is free.
        let set = std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string());
        let mut next = sleeper();
        if set.is_ok() && next.id() == pid {
            assert!(Process::of_pid(pid).is_ok(), "the new one is there");
        }
        assert_eq!(process.credentials(), Err(AttestError::Ended));
        assert_eq!(process.read("comm"), Err(AttestError::Ended));
        next.kill().unwrap();
        next.wait().unwrap();
    }
}
