//! The attestor `systemd`: which unit a process belongs to.

use async_trait::async_trait;

use super::{AttestError, Attestor, Observed};
use crate::selector::Selector;

/// Selectors of type `systemd`: `id`, the unit's name, such as `systemd:id:payments.service`.
///
/// The unit is read from the process's control group, which systemd alone arranges above the unit's own
/// part of the tree: what a unit with `Delegate=yes` makes below its own name is not looked at. On a machine
/// without systemd there are no such selectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemdAttestor;

#[async_trait]
impl Attestor for SystemdAttestor {
    fn name(&self) -> &'static str {
        "systemd"
    }

    async fn attest(&self, caller: &Observed<'_>) -> Result<Vec<Selector>, AttestError> {
        // The test of sd_booted(3).
        if !std::path::Path::new("/run/systemd/system").is_dir() {
            return Ok(Vec::new());
        }
        let groups = caller.process.read("cgroup")?;
        Ok(unit(&groups)
            .and_then(|unit| Selector::new("systemd", &format!("id:{unit}")).ok())
            .into_iter()
            .collect())
    }
}

/// The unit of a `/proc/PID/cgroup` (cgroups(7)): systemd's own hierarchy, or the only one.
fn unit(groups: &str) -> Option<&str> {
    let mut lines = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let path = lines
        .clone()
        .find_map(|(controllers, path)| (controllers == "name=systemd").then_some(path))
        .or_else(|| lines.find_map(|(controllers, path)| controllers.is_empty().then_some(path)))?;
    let first = path
        .strip_prefix('/')?
        .split('/')
        .find(|part| !part.ends_with(".slice"))?;
    // systemd escapes names that the kernel keeps for itself with an underscore.
    let unit = first.strip_prefix('_').unwrap_or(first);
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|kind| unit.len() > kind.len() && unit.ends_with(kind))
        .then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_first_part_that_is_no_slice() {
        for (groups, expected) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            (
                "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n",
                Some("postgresql@15-main.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/evil-nginx.service\n",
                Some("user@1000.service"),
            ),
            (
                "0::/user.slice/user-0.slice/session-3.scope\n",
                Some("session-3.scope"),
            ),
            (
                "0::/system.slice/a.service/nginx.service\n",
                Some("a.service"),
            ),
            ("0::/system.slice/_cgroup.service\n", Some("cgroup.service")),
            (
                "12:cpu:/x\n1:name=systemd:/system.slice/b.service\n0::/\n",
                Some("b.service"),
            ),
            ("0::/init.scope\n", Some("init.scope")),
            ("0::/\n", None),
            ("0::/system.slice\n", None),
            ("0::/../../nginx.service\n", None),
            (
                "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab.scope\n",
                Some("cri-containerd-ab.scope"),
            ),
            ("0::/docker/0123\n", None),
            ("0::/.service\n", None),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(unit(groups), expected, "{groups}");
        }
    }
}
