//! Which pod and container a process is in, by the control groups that the kubelet made for it.
//!
//! What a container makes below its own control group is its own to name, so only the outermost pod of a path and the
//! outermost container in it count; a second pod further down makes the path ambiguous, and nobody is guessed.

use std::fmt;

/// Hexadecimal digits of a container's identifier, by convention of every runtime.
const CONTAINER_ID: usize = 64;
/// Hexadecimal digits of a static pod's identifier: the hash of its manifest.
const HASH: usize = 32;

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's UID as the API writes it, or the hash of a static pod; `None` where the path does not show it.
    pub pod: Option<String>,
    /// The container's identifier, without its runtime.
    pub container: String,
    /// True where our own cgroup namespace hides the upper part of the path: it is a container beside ours.
    pub is_hidden: bool,
}

/// What a process's control groups say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// In a container.
    In(Place),
    /// In none that we see.
    Nowhere,
    /// In our own control group, or above it: its paths say nothing.
    Hidden,
}

/// Control groups that name two pods, or two containers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its control groups name two {what}, `{one}` and `{other}`")]
pub struct Ambiguous {
    what: What,
    one: String,
    other: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Pods,
    Containers,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pods => "pods",
            Self::Containers => "containers",
        })
    }
}

/// Reads a `/proc/PID/cgroup` (cgroups(7)): `hierarchy:controllers:path` for each hierarchy of version 1, `0::path` for
/// version 2.
///
/// # Errors
/// [`Ambiguous`].
pub fn of_cgroups(groups: &str) -> Result<Found, Ambiguous> {
    // The path may have colons in it.
    let paths = groups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let found = of_paths(paths.clone())?;
    let says_nothing = |path: &str| path.split('/').all(|part| matches!(part, "" | ".."));
    match found {
        Some(place) => Ok(Found::In(place)),
        None if paths.clone().next().is_some() && paths.clone().all(says_nothing) => {
            Ok(Found::Hidden)
        }
        None => Ok(Found::Nowhere),
    }
}

/// Reads the roots of the control group file systems in a `/proc/PID/mountinfo` (proc_pid_mountinfo(5)). Whoever owns a
/// mount namespace decides what is in it: not to be believed of one that an ordinary user can have made.
///
/// # Errors
/// [`Ambiguous`].
pub fn of_mounts(mounts: &str) -> Result<Option<Place>, Ambiguous> {
    let roots = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        let root = mount.split(' ').nth(3)?;
        matches!(kind, "cgroup" | "cgroup2").then_some(root)
    });
    of_paths(roots)
}

fn of_paths<'a>(paths: impl Iterator<Item = &'a str>) -> Result<Option<Place>, Ambiguous> {
    let mut found: Option<Place> = None;
    for path in paths {
        let Some(place) = of_path(path)? else {
            continue;
        };
        match &found {
            // Kubernetes in a container of another runtime: one hierarchy may end at the outer one.
            Some(before) if before.pod.is_some() && place.pod.is_none() => {}
            Some(before) if before.pod.is_some() == place.pod.is_some() => {
                differ(What::Pods, before.pod.as_deref(), place.pod.as_deref())?;
                differ(
                    What::Containers,
                    Some(&before.container),
                    Some(&place.container),
                )?;
            }
            _ => found = Some(place),
        }
    }
    Ok(found)
}

fn differ(what: What, one: Option<&str>, other: Option<&str>) -> Result<(), Ambiguous> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Err(Ambiguous {
            what,
            one: one.to_owned(),
            other: other.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn of_path(path: &str) -> Result<Option<Place>, Ambiguous> {
    let mut pod: Option<String> = None;
    let mut container: Option<&str> = None;
    for part in path.split('/') {
        // Below it, users name control groups as they like.
        if pod.is_none() && is_users(part) {
            return Ok(None);
        }
        let mut rest = part;
        while let Some((uid, after)) = pod_in(rest) {
            match &pod {
                Some(before) => differ(What::Pods, Some(before), Some(&uid))?,
                None => {
                    pod = Some(uid);
                    // What stood above is the machine that Kubernetes runs in.
                    container = None;
                }
            }
            rest = after;
        }
        // CRI-O's watcher of a container is none of its processes.
        if container.is_none() && !rest.contains("conmon") {
            container = container_in(rest);
        }
    }
    Ok(container.map(|container| Place {
        pod,
        container: container.to_owned(),
        is_hidden: path.starts_with("/.."),
    }))
}

/// A slice of systemd that is a user's own.
fn is_users(part: &str) -> bool {
    part == "user.slice" || part.starts_with("user-") || part.starts_with("user@")
}

/// The first `podUID` in a part of a path, with what follows it. systemd has underscores for the UID's hyphens.
fn pod_in(part: &str) -> Option<(String, &str)> {
    let mut from = 0;
    while let Some(at) = part.get(from..)?.find("pod") {
        let start = from + at;
        from = start + "pod".len();
        let joined = part
            .get(..start)?
            .ends_with(|c: char| c.is_ascii_alphanumeric());
        let rest = part.get(from..)?;
        let length = rest
            .find(|c: char| !c.is_ascii_hexdigit() && c != '-' && c != '_')
            .unwrap_or(rest.len());
        // What follows may be joined by a hyphen, as the UID's own parts are.
        for length in [36, HASH] {
            let Some((uid, after)) = rest.split_at_checked(length) else {
                continue;
            };
            if !joined && is_uid(uid) && !after.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                return Some((uid.to_ascii_lowercase().replace('_', "-"), after));
            }
        }
        from += length;
    }
    None
}

/// `8-4-4-4-12` hexadecimal digits, or 32 without anything between them.
fn is_uid(text: &str) -> bool {
    let hexadecimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.len() == HASH {
        return hexadecimal(text);
    }
    let parts: Vec<&str> = text.split(['-', '_']).collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| hexadecimal(part))
}

/// The first container identifier in a part of a path: `ID`, `cri-containerd-ID.scope`, `crio-ID`, `:cri-containerd:ID`.
fn container_in(part: &str) -> Option<&str> {
    part.split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| {
            word.len() == CONTAINER_ID && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

#[cfg(test)]
mod tests;
