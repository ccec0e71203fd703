use super::*;

const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
const SLICE: &str = "2c48913c_b29f_11e7_9350_020968147796";
const OTHER: &str = "a2830d0d-b0f0-4ff0-81b5-0ee4e299cf80";
const HASHED: &str = "1f4d4b1e0a5c4f6d9e8b7a6c5d4e3f2a";
const ID: &str = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";
const OUTER: &str = "93529524695bb00d91c1f6dba692ea8d3550c3b94fb2463af7bc9ec82f992d26";

fn found(pod: Option<&str>, container: &str, is_hidden: bool) -> Result<Found, Ambiguous> {
    Ok(Found::In(Place {
        pod: pod.map(str::to_owned),
        container: container.to_owned(),
        is_hidden,
    }))
}

/// As real nodes show them: kubelet's two drivers, three runtimes, two versions of control groups, and what they run in.
#[test]
fn every_shape_of_kubelet_and_runtime_is_read() {
    for path in [
        // cgroupfs: guaranteed, burstable, best effort.
        format!("/kubepods/pod{UID}/{ID}"),
        format!("/kubepods/burstable/pod{UID}/{ID}"),
        format!("/kubepods/besteffort/pod{UID}/{ID}"),
        // cgroupfs with CRI-O, and with a container's own groups below.
        format!("/kubepods/burstable/pod{UID}/crio-{ID}"),
        format!("/kubepods/burstable/pod{UID}/{ID}/init.scope"),
        // The underscores of systemd in cgroupfs, seen with older kubelets.
        format!("/kubepods/pod{SLICE}/{ID}"),
        // systemd with containerd, CRI-O, Docker, Podman's naming; guaranteed pods have no quality of service.
        format!("/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope"),
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope"
        ),
        format!(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/crio-{ID}.scope"
        ),
        format!(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/crio-{ID}.scope/container"
        ),
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/docker-{ID}.scope"
        ),
        format!("/kubepods.slice/kubepods-pod{SLICE}.slice/libpod-{ID}.scope"),
        // A kubelet with another root, as kind's.
        format!(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{ID}.scope"
        ),
        // kind in Docker, both drivers.
        format!("/docker/{OUTER}/kubelet/kubepods/besteffort/pod{UID}/{ID}"),
        format!("/docker/{OUTER}/kubepods/besteffort/pod{UID}/{ID}"),
        format!(
            "/system.slice/docker-{OUTER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope"
        ),
        // containerd that disagrees with the kubelet about the driver.
        format!(
            "/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{ID}"
        ),
        format!("/kubepods-besteffort-pod{SLICE}.slice:cri-containerd:{ID}"),
        format!("/system.slice/k3s.service/kubepods/burstable/pod{UID}/{ID}"),
        // Docker in a pod: whatever it names its own containers.
        format!("/kubepods/burstable/pod{UID}/{ID}/docker/{OUTER}"),
        // The kernel says that the group was removed meanwhile.
        format!("/kubepods/burstable/pod{UID}/{ID} (deleted)"),
    ] {
        // Version 2, a hierarchy of version 1, and both at once as in hybrid mode.
        for groups in [
            format!("0::{path}\n"),
            format!("11:memory:{path}\n10:freezer:{path}\n1:name=systemd:{path}\n"),
            format!("9:name=systemd:{path}\n8:pids:/\n3:cpu,cpuacct:/\n0::/\n"),
        ] {
            assert_eq!(of_cgroups(&groups), found(Some(UID), ID, false), "{groups}");
        }
    }
}

#[test]
fn static_pods_have_a_hash() {
    for path in [
        format!("/kubepods/burstable/pod{HASHED}/{ID}"),
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASHED}.slice/cri-containerd-{ID}.scope"
        ),
    ] {
        let groups = format!("0::{path}\n");
        assert_eq!(
            of_cgroups(&groups),
            found(Some(HASHED), ID, false),
            "{groups}"
        );
    }
}

#[test]
fn a_cgroup_namespace_shows_others_relative_to_us() {
    for (path, pod) in [
        (format!("/../../pod{UID}/{ID}"), Some(UID)),
        (
            format!("/../../kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope"),
            Some(UID),
        ),
        (
            format!(
                "/../../../kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE}.slice/crio-{ID}.scope"
            ),
            Some(UID),
        ),
        // Another container of our own pod.
        (format!("/../cri-containerd-{ID}.scope"), None),
        (format!("/../{ID}"), None),
    ] {
        let groups = format!("0::{path}\n");
        assert_eq!(of_cgroups(&groups), found(pod, ID, true), "{groups}");
    }
    for hidden in ["0::/\n", "0::/..\n", "0::/../..\n", "2:cpu:/\n0::/\n"] {
        assert_eq!(of_cgroups(hidden), Ok(Found::Hidden), "{hidden}");
    }
}

#[test]
fn containers_of_no_pod_have_no_pod() {
    for path in [
        format!("/docker/{ID}"),
        format!("/system.slice/docker-{ID}.scope"),
        format!("/machine.slice/libpod-{ID}.scope/container"),
        // The outer container is the runtime's to name, what is in it its own.
        format!("/docker/{ID}/docker/{OUTER}"),
    ] {
        let groups = format!("0::{path}\n");
        assert_eq!(of_cgroups(&groups), found(None, ID, false), "{groups}");
    }
}

#[test]
fn what_is_in_no_container_is_nowhere() {
    for groups in [
        String::new(),
        "nonsense".to_owned(),
        "0::/init.scope\n".to_owned(),
        "0::/system.slice/nginx.service\n".to_owned(),
        "0::/user.slice/user-1000.slice/session-3.scope\n".to_owned(),
        // A pod without container, a watcher, identifiers of other lengths.
        format!("0::/kubepods/burstable/pod{UID}\n"),
        format!("0::/kubepods.slice/kubepods-pod{SLICE}.slice/crio-conmon-{ID}.scope\n"),
        format!("0::/kubepods/pod{UID}/{}\n", &ID[1..]),
        format!("0::/kubepods/pod{UID}/{ID}0\n"),
        format!("0::/kubepods/pod{UID}/{}g\n", &ID[1..]),
        // Users name their own groups: here one would be somebody else.
        format!(
            "0::/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope\n"
        ),
        format!("0::/../../../user.slice/user-1000.slice/user@1000.service/pod{UID}/{ID}\n"),
        format!("0::/user.slice/user-1000.slice/user@1000.service/app.slice/libpod-{ID}.scope\n"),
    ] {
        assert_eq!(of_cgroups(&groups), Ok(Found::Nowhere), "{groups}");
    }
    // Not the UID of a pod: part of another word, or of a longer number.
    for part in [
        format!("tripod{UID}"),
        format!("pod{UID}0"),
        format!("pod{}", &UID[1..]),
        format!("pod-{UID}"),
    ] {
        let groups = format!("0::/{part}/{ID}\n");
        assert_eq!(of_cgroups(&groups), found(None, ID, false), "{groups}");
    }
}

#[test]
fn two_pods_or_containers_are_no_answer() {
    let deep = format!(
        "/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{ID}.scope/pod{OTHER}/{OUTER}"
    );
    for (groups, told) in [
        // A container that names a group of its own as if it were another pod's.
        (format!("0::{deep}\n"), "two pods"),
        (
            format!("0::/kubepods/pod{UID}:pod{OTHER}/{ID}\n"),
            "two pods",
        ),
        (
            format!("2:cpu:/kubepods/pod{UID}/{ID}\n1:pids:/kubepods/pod{OTHER}/{ID}\n"),
            "two pods",
        ),
        (
            format!("2:cpu:/kubepods/pod{UID}/{ID}\n1:pids:/kubepods/pod{UID}/{OUTER}\n"),
            "two containers",
        ),
        (
            format!("2:cpu:/docker/{ID}\n1:pids:/docker/{OUTER}\n"),
            "two containers",
        ),
    ] {
        let error = of_cgroups(&groups).unwrap_err().to_string();
        assert!(error.contains(told), "{groups}: {error}");
    }
}

#[test]
fn a_hierarchy_that_ends_at_the_outer_machine_does_not_count() {
    let inner = format!("/docker/{OUTER}/kubepods/besteffort/pod{UID}/{ID}");
    let outer = format!("/docker/{OUTER}/system.slice/containerd.service");
    for groups in [
        format!("1:cpuset:{inner}\n0::{outer}\n"),
        format!("1:cpuset:{outer}\n0::{inner}\n"),
    ] {
        assert_eq!(of_cgroups(&groups), found(Some(UID), ID, false), "{groups}");
    }
}

#[test]
fn mounts_of_control_groups_are_read_and_others_are_not() {
    let root = format!(
        "/../../kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{SLICE}.slice/cri-containerd-{ID}.scope"
    );
    let mount = |root: &str, kind: &str| {
        format!(
            "1543 1542 0:32 {root} /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime shared:1 - {kind} cgroup rw\n"
        )
    };
    let place = of_mounts(&format!(
        "1 2 0:1 / / rw - ext4 /dev/vda rw\n{}",
        mount(&root, "cgroup2")
    ));
    let expected = Place {
        pod: Some(UID.to_owned()),
        container: ID.to_owned(),
        is_hidden: true,
    };
    assert_eq!(place, Ok(Some(expected)));
    assert_eq!(of_mounts(&mount(&root, "tmpfs")), Ok(None));
    assert_eq!(of_mounts(&mount("/", "cgroup2")), Ok(None));
    assert_eq!(of_mounts("nonsense\n - \n"), Ok(None));
    let two = format!(
        "{}{}",
        mount(&root, "cgroup"),
        mount(&format!("/kubepods/pod{OTHER}/{ID}"), "cgroup")
    );
    assert!(of_mounts(&two).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_much(text in ".{0,400}", pods in "(/|pod|[0-9a-f]{8}|-|_|:|\\.\\.|é){0,40}") {
        let _ = of_cgroups(&text);
        let _ = of_mounts(&text);
        let _ = of_cgroups(&format!("0::{pods}"));
    }
}
