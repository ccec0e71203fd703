//! Lives compressed into minutes: authorities of 60 s, SVIDs of 10 s, workloads that never stop talking.
//!
//! 90 s, so that a root is prepared, takes over and signs; `PORTCULLIS_SOAK=10m` for longer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_tests::component::run_folder;
use portcullis_tests::workload::Workload as _;
use portcullis_tests::workload::rust::RustWorkload;
use portcullis_tests::workload::served::Served;

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");

/// How long: `600`, `600s` or `10m`.
fn length() -> Duration {
    let Ok(text) = std::env::var("PORTCULLIS_SOAK") else {
        return Duration::from_secs(90);
    };
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.trim_end_matches('s'), 1),
    };
    Duration::from_secs(number.parse::<u64>().expect("`10m` or `600s`") * unit)
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

#[test]
fn no_handshake_fails_and_memory_stays_flat_while_everything_rotates() {
    let length = length();
    let folder = run_folder("soak");
    let config = "ca:\n  authority_ttl: 60s\n  x509_ttl: 10s\n  jwt_ttl: 10s\n";
    std::fs::write(folder.join("portcullis.yaml"), config).unwrap();
    let arguments = ["--config", "portcullis.yaml"];
    let mut server = Served::start(Path::new(PORTCULLIS), &folder, &arguments, &[]).unwrap();
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    let id = "spiffe://example.org/soak";
    server
        .ok(&[
            "ca",
            "entry",
            "create",
            "--spiffe-id",
            id,
            "--selector",
            &uid,
        ])
        .unwrap();
    let mut workloads = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..3 {
        let mut workload = RustWorkload::start(&server.socket()).unwrap();
        let listening = workload.ask("listen").unwrap();
        addresses.push(listening["address"].as_str().unwrap().to_owned());
        workloads.push(workload);
    }
    let pid = server.daemon().pid();
    let start = Instant::now();
    let handshakes = AtomicUsize::new(0);
    let (mut serials, mut roots) = (BTreeSet::new(), BTreeSet::new());
    let mut warm = None;
    std::thread::scope(|scope| {
        let talking: Vec<_> = workloads
            .iter()
            .map(|workload| {
                let (addresses, handshakes) = (&addresses, &handshakes);
                scope.spawn(move || {
                    let mut seen = BTreeSet::new();
                    while start.elapsed() < length {
                        for address in addresses {
                            let (said, peer) = workload.dial(address, id).unwrap_or_else(|error| {
                                panic!("after {:?}: {error:#}", start.elapsed())
                            });
                            assert_eq!(said, "pong");
                            handshakes.fetch_add(1, Ordering::Relaxed);
                            seen.insert(peer);
                        }
                        // Neighbours on the same machine want to work, too.
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    seen
                })
            })
            .collect();
        while start.elapsed() < length {
            if start.elapsed() > length / 3 && warm.is_none() {
                warm = Some(resident(pid));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        for workload in talking {
            for der in workload.join().unwrap() {
                use x509_parser::prelude::{FromDer as _, X509Certificate};
                let (_, parsed) = X509Certificate::from_der(&der).unwrap();
                serials.insert(parsed.raw_serial().to_vec());
                roots.insert(parsed.issuer().as_raw().to_vec());
            }
        }
    });
    let (warm, last) = (warm.unwrap(), resident(pid));
    eprintln!(
        "{} handshakes, {} SVIDs under {} roots, {warm} KiB then {last} KiB",
        handshakes.load(Ordering::Relaxed),
        serials.len(),
        roots.len()
    );
    assert!(handshakes.load(Ordering::Relaxed) > 500);
    // Renewed at half their life.
    assert!(
        serials.len() as u64 >= length.as_secs() / 10,
        "{}",
        serials.len()
    );
    assert!(roots.len() >= 2, "a root has taken over");
    assert!(
        last < warm + (12 << 10),
        "memory grew from {warm} to {last} KiB"
    );
    assert!(server.ok(&["ca", "audit", "verify"]).is_ok());
}
