//! Processes that a kubelet would have put into control groups.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::PORTCULLIS;

/// The control group of a container, as containerd makes it for a kubelet with systemd's driver.
pub fn group(uid: &str, container: &str) -> String {
    let uid = uid.replace('-', "_");
    format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{container}.scope"
    )
}

/// A `/proc` in which processes are where we say.
pub struct Proc(PathBuf);

impl Proc {
    /// Below `folder`.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("proc");
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a process into a control group.
    pub fn put(&self, pid: u32, group: &str) {
        let folder = self.0.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        let staged = folder.join("staged");
        fs::write(&staged, format!("0::{group}\n")).unwrap();
        fs::rename(staged, folder.join("cgroup")).unwrap();
    }
}

/// A process that waits until it is where it belongs, and then is our own client.
pub struct Caller {
    child: Child,
    start: Option<ChildStdin>,
    written: PathBuf,
}

impl Caller {
    /// Prepares `svid watch --write FOLDER` before `socket`.
    pub fn new(socket: &Path, written: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", r#"read -r go && exec "$0" "$@""#, PORTCULLIS])
            .args(["svid", "watch", "--socket"])
            .arg(socket)
            .arg("--write")
            .arg(written)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            start: child.stdin.take(),
            child,
            written: written.to_owned(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it call.
    pub fn start(&mut self) {
        let mut start = self.start.take().unwrap();
        start.write_all(b"go\n").unwrap();
    }

    /// The identity that it has written, if any.
    pub fn identity(&self) -> Option<String> {
        let text = fs::read(self.written.join("svid.pem")).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).ok()?;
        let leaf = pem.parse_x509().ok()?;
        let names = leaf.subject_alternative_name().ok()??;
        names
            .value
            .general_names
            .iter()
            .find_map(|name| match name {
                x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control group of the kernel's, removed with it.
pub struct Group(PathBuf);

impl Group {
    /// Makes `group`; `None` where we may not.
    pub fn make(group: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let root = mounts.lines().find_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            kind.starts_with("cgroup2 ").then_some(())?;
            mount.split(' ').nth(4)
        })?;
        let path = PathBuf::from(format!("{root}{group}"));
        fs::create_dir_all(&path).ok()?;
        path.join("cgroup.procs").exists().then_some(Self(path))
    }

    /// Moves a process there.
    pub fn put(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes leave a moment after they were waited for.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let parents = self.0.ancestors().skip(1);
        for parent in parents.take_while(|path| path.to_string_lossy().contains("kubepods")) {
            let _ = fs::remove_dir(parent);
        }
    }
}
