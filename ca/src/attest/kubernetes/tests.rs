use std::convert::Infallible;
use std::path::Path;
use std::sync::Mutex;

use http::Response;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::kubernetes::follow::Event;

const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

fn pod(uid: &str, container: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": uid, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "serviceAccountName": "web", "containers": []},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "main", "image": "web:1", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": container,
        }]},
    })
}

fn read(pod: Value) -> ApiPod {
    serde_json::from_value(pod).unwrap()
}

/// An API server that lists these pods, or fails, counts how often it was asked, and says so.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<(Option<Vec<Value>>, usize)>>, Arc<Notify>);

impl Server {
    fn has(&self, pods: Vec<Value>) {
        self.0.lock().unwrap().0 = Some(pods);
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }

    /// Until somebody asked who then has to wait.
    async fn was_asked(&self) {
        self.1.notified().await;
    }

    fn answer(&self) -> Response<Body> {
        self.1.notify_one();
        let mut server = self.0.lock().unwrap();
        server.1 += 1;
        let (status, body) = match &server.0 {
            Some(pods) => (
                200,
                json!({
                    "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": pods,
                }),
            ),
            None => (
                500,
                json!({
                    "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "out of order", "code": 500,
                }),
            ),
        };
        let body = Body::from(body.to_string().into_bytes());
        Response::builder().status(status).body(body).unwrap()
    }
}

/// The attestor before this process, whose `/proc` is a folder.
struct Bench {
    server: Server,
    pods: Arc<NodePods>,
    attestor: KubernetesAttestor,
    process: Process,
    proc: TempDir,
}

impl Bench {
    fn new(change: impl FnOnce(&mut AttestorOptions)) -> Self {
        let server = Server::default();
        let answering = server.clone();
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let answer = answering.answer();
            async move { Ok::<_, Infallible>(answer) }
        });
        let client = Client::new(service, "default");
        let pods = Arc::new(NodePods::new(Api::all(client), "n1"));
        let proc = tempfile::tempdir().unwrap();
        let mut options = AttestorOptions {
            proc_root: Some(proc.path().to_owned()),
            ..AttestorOptions::default()
        };
        change(&mut options);
        let attestor = KubernetesAttestor::new(Arc::clone(&pods), options);
        let process = Process::of_pid(std::process::id()).unwrap();
        let new = Self {
            server,
            pods,
            attestor,
            process,
            proc,
        };
        std::fs::create_dir_all(new.folder().join("ns")).unwrap();
        new
    }

    fn folder(&self) -> std::path::PathBuf {
        self.proc.path().join(self.process.pid().to_string())
    }

    fn is_in(&self, group: &str) {
        std::fs::write(self.folder().join("cgroup"), format!("0::{group}\n")).unwrap();
    }

    fn knows(&self, pods: Vec<Value>) {
        self.pods
            .take(Event::All(pods.into_iter().map(read).collect()));
    }

    async fn found(&self) -> Result<Option<Vec<String>>, AttestError> {
        let found = self.attestor.find_out(&self.process).await?;
        Ok(found.map(|all| all.iter().map(ToString::to_string).collect()))
    }
}

fn group(uid: &str, container: &str) -> String {
    format!("/kubepods/burstable/pod{uid}/{container}")
}

fn has(found: &Result<Option<Vec<String>>, AttestError>, selector: &str) -> bool {
    let found = found.as_ref().ok().and_then(Option::as_ref);
    found.is_some_and(|all| all.iter().any(|one| one == selector))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_watch_does_not_know_is_asked_for_once() {
    let one = Bench::new(|_| {});
    one.is_in(&group(UID, &id(1)));
    one.knows(Vec::new());
    one.server
        .has(vec![pod(UID, &format!("containerd://{}", id(1)))]);
    let found = one.found().await;
    assert!(has(&found, "k8s:sa:web"), "{found:?}");
    assert!(has(&found, "k8s:container-name:main"), "{found:?}");
    assert_eq!(one.server.asked(), 1);
    // There is none: denied at once, and nobody waits.
    one.server.has(Vec::new());
    let refused = one.found().await;
    assert!(
        matches!(refused, Err(AttestError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(one.server.asked(), 2);
    // Many together are one question.
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let pods = Arc::clone(&one.pods);
        asked.spawn(async move { pods.look().await.is_ok() });
    }
    assert!(asked.join_all().await.into_iter().all(|is_ok| is_ok));
    assert!(one.server.asked() <= 4, "{}", one.server.asked());
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_the_known_are_known_and_others_come_again() {
    let one = Bench::new(|options| options.max_age = Duration::from_secs(600));
    one.is_in(&group(UID, &id(1)));
    // Before the first list there is no telling.
    let failed = one.found().await;
    assert!(matches!(failed, Err(AttestError::Failed(_))), "{failed:?}");
    one.pods.following.heard();
    one.knows(vec![pod(UID, &format!("containerd://{}", id(1)))]);
    assert!(has(&one.found().await, "k8s:ns:shop"));
    assert_eq!(one.server.asked(), 0);
    one.is_in(&group("00000000-0000-0000-0000-000000000000", &id(2)));
    let failed = one.found().await;
    assert!(
        matches!(&failed, Err(AttestError::Failed(why)) if why.contains("out of order")),
        "{failed:?}"
    );
    // Up to an age.
    one.is_in(&group(UID, &id(1)));
    tokio::time::advance(Duration::from_secs(601)).await;
    let failed = one.found().await;
    assert!(
        matches!(&failed, Err(AttestError::Failed(why)) if why.contains("nothing was heard")),
        "{failed:?}"
    );
    one.pods.following.heard();
    assert!(has(&one.found().await, "k8s:ns:shop"));
}

#[tokio::test(start_paused = true)]
async fn a_container_is_waited_for_and_then_nobody_s() {
    let one = Bench::new(|_| {});
    one.is_in(&group(UID, &id(1)));
    one.knows(vec![pod(UID, "")]);
    one.server.has(vec![pod(UID, "")]);
    let started = Instant::now();
    let failed = one.found().await;
    assert!(
        matches!(&failed, Err(AttestError::Failed(why)) if why.contains("knows no container")),
        "{failed:?}"
    );
    assert!(started.elapsed() >= Duration::from_secs(10));
    // It comes.
    one.server.was_asked().await;
    let soon = async {
        one.server.was_asked().await;
        one.knows(vec![pod(UID, &format!("cri-o://{}", id(1)))]);
    };
    let started = Instant::now();
    let (found, ()) = tokio::join!(one.found(), soon);
    assert!(has(&found, "k8s:container-name:main"), "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    // Where that is asked for, the pod is enough.
    let one = Bench::new(|options| options.container_selectors = false);
    one.is_in(&group(UID, &id(1)));
    one.knows(vec![pod(UID, "")]);
    let found = one.found().await;
    assert!(has(&found, "k8s:pod-label:app:web"), "{found:?}");
    assert!(!has(&found, "k8s:container-name:main"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_pod_any_more_is_refused() {
    let one = Bench::new(|_| {});
    let container = format!("containerd://{}", id(1));
    one.is_in(&group(UID, &id(1)));
    one.knows(vec![pod(UID, &container)]);
    one.pods.take(Event::Gone(read(pod(UID, &container))));
    let refused = one.found().await;
    assert!(
        matches!(&refused, Err(AttestError::Refused(why)) if why.contains("gone")),
        "{refused:?}"
    );
    assert_eq!(one.server.asked(), 0, "the watch saw it go");
    let mut over = pod(UID, &container);
    over["status"]["phase"] = "Failed".into();
    let mut debugged = pod(UID, &container);
    let status = &mut debugged["status"];
    status["ephemeralContainerStatuses"] = status["containerStatuses"].take();
    for (changed, told) in [(over, "over"), (debugged, "ephemeral")] {
        let one = Bench::new(|_| {});
        one.is_in(&group(UID, &id(1)));
        one.knows(vec![changed]);
        let refused = one.found().await;
        assert!(
            matches!(&refused, Err(AttestError::Refused(why)) if why.contains(told)),
            "{refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn containers_beside_ours_and_of_other_runtimes_are_told_apart() {
    let one = Bench::new(|_| {});
    one.knows(vec![pod(UID, &format!("containerd://{}", id(1)))]);
    one.server.has(Vec::new());
    // In our own pod: the namespace hides the pod, its container is unique.
    one.is_in(&format!("/../cri-containerd-{}.scope", id(1)));
    assert!(has(&one.found().await, "k8s:sa:web"));
    // Docker's own: no pod, and no wait.
    let started = Instant::now();
    one.is_in(&format!("/docker/{}", id(2)));
    assert_eq!(one.found().await, Ok(None));
    assert!(started.elapsed() < Duration::from_secs(2));
    one.is_in("/system.slice/nginx.service");
    assert_eq!(one.found().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn mounts_are_believed_only_of_those_who_did_not_make_their_own_user_namespace() {
    let one = Bench::new(|_| {});
    one.knows(vec![pod(UID, &format!("containerd://{}", id(1)))]);
    one.is_in("/");
    let mounts = format!(
        "1 2 0:32 {} /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
        group(UID, &id(1))
    );
    std::fs::write(one.folder().join("mountinfo"), mounts).unwrap();
    let link = one.folder().join("ns/user");
    std::os::unix::fs::symlink("user:[1]", &link).unwrap();
    assert_eq!(one.found().await, Ok(None));
    std::fs::remove_file(&link).unwrap();
    let ours = std::fs::read_link(Path::new("/proc/self/ns/user")).unwrap();
    std::os::unix::fs::symlink(ours, &link).unwrap();
    assert!(has(&one.found().await, "k8s:sa:web"));
}

#[tokio::test(start_paused = true)]
async fn one_that_moves_meanwhile_is_nobody() {
    let one = Bench::new(|_| {});
    one.is_in(&group(UID, &id(1)));
    one.knows(vec![pod(UID, "")]);
    one.server.has(vec![pod(UID, "")]);
    let moves = async {
        one.server.was_asked().await;
        one.is_in(&group(UID, &id(2)));
        one.knows(vec![pod(UID, &format!("containerd://{}", id(1)))]);
    };
    let (found, ()) = tokio::join!(one.found(), moves);
    assert_eq!(found, Err(AttestError::Changed("control group")));
}
