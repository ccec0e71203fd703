//! Ten thousand open streams, one of them on a workload that is frozen.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_ca::workload_api::client::{WorkloadClient, WorkloadEndpoint, X509Update};
use portcullis_tests::component::run_folder;
use portcullis_tests::process::Daemon;
use portcullis_tests::workload::served::Served;
use rustix::process::{Pid, Signal, kill_process};

const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis-e2e");
const CONNECTIONS: usize = 100;
const EACH: usize = 100;

#[test]
fn ten_thousand_streams_have_a_change_while_one_reader_is_frozen() {
    let folder = run_folder("streams");
    let server = Served::start(Path::new(PORTCULLIS), &folder, &[], &[]).unwrap();
    let uid = format!("unix:uid:{}", rustix::process::getuid().as_raw());
    server
        .ok(&[
            "ca",
            "entry",
            "create",
            "--spiffe-id",
            "spiffe://example.org/x",
            "--selector",
            &uid,
        ])
        .unwrap();
    let mut watch = Command::new(PORTCULLIS);
    watch
        .args(["svid", "watch", "--write", "frozen", "--socket"])
        .arg(server.socket())
        .current_dir(&folder);
    let mut frozen = Daemon::start(&mut watch, &folder.join("frozen.log")).unwrap();
    let written = folder.join("frozen/svid.pem");
    frozen
        .wait_until(Duration::from_secs(30), || written.exists())
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(frozen.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = WorkloadEndpoint::Unix(server.socket());
        let mut streams = Vec::with_capacity(CONNECTIONS * EACH);
        for _ in 0..CONNECTIONS {
            let mut client = WorkloadClient::connect(&endpoint).await.unwrap();
            for _ in 0..EACH {
                streams.push(client.x509_svids().await.unwrap());
            }
        }
        for stream in &mut streams {
            let first = stream.message().await.unwrap().unwrap();
            assert_eq!(X509Update::read(first).unwrap().svids.len(), 1);
        }
        let start = Instant::now();
        let prepared = server
            .ok(&["ca", "authority", "prepare", "x509", "--output", "json"])
            .unwrap();
        for stream in &mut streams {
            let next = tokio::time::timeout(Duration::from_secs(60), stream.message());
            let next = next.await.expect("in time").unwrap().unwrap();
            let update = X509Update::read(next).unwrap();
            assert_eq!(
                update.bundles.values().next().unwrap().len(),
                2,
                "both roots"
            );
        }
        eprintln!(
            "{} streams have the new bundle after {:?}",
            streams.len(),
            start.elapsed()
        );
        // The frozen one is not waited for: what it was sent waits in its socket, or it is cut.
        let prepared: serde_json::Value = serde_json::from_str(prepared.trim()).unwrap();
        let id = prepared["id"].as_str().unwrap();
        server.ok(&["ca", "authority", "activate", id]).unwrap();
    });
    kill_process(pid, Signal::CONT).unwrap();
}
