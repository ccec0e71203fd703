//! What clients see while the service is down or its policies are broken: closed, and back again.

use std::time::Duration;

use portcullis_tests::client::{Client, Exchange};
use portcullis_tests::component::run_folder;
use portcullis_tests::envoy::config::{ExtAuthz, Listener, Service};
use portcullis_tests::portcullis::Server;
use portcullis_tests::process::poll;
use serde_json::json;

use crate::setting::{Front, PORTCULLIS, envoy, pod};

const PATIENCE: Duration = Duration::from_secs(20);

fn allow(path: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: open, namespace: shop }}\n\
         spec: {{ rules: [ {{ to: [ {{ operation: {{ paths: [ {path} ] }} }} ] }} ] }}\n"
    )
}

struct Stage {
    server: Server,
    front: Front,
    client: Client,
}

fn stage(name: &str) -> Option<Stage> {
    let executable = envoy()?;
    let folder = run_folder(name);
    let (policies, pods) = (allow("/one"), pod("shop", "web"));
    let manifests = [
        ("policies.yaml", policies.as_str()),
        ("pods.yaml", pods.as_str()),
    ];
    let config = json!({ "listener": { "debug_headers": true } });
    let server = Server::start(PORTCULLIS.as_ref(), &folder, &manifests, &config)
        .unwrap_or_else(|cause| panic!("{cause}"));
    let listener = Listener::http("web")
        .extension("portcullis.workload", "shop/web")
        .filter(ExtAuthz::default().http());
    let front = Front::start(
        &executable,
        &folder,
        Service::Tcp(server.address),
        vec![listener],
    );
    let client = Client::plain(front.address("web"));
    Some(Stage {
        server,
        front,
        client,
    })
}

impl Stage {
    fn status(&self, path: &str) -> u16 {
        self.client.send(&Exchange::get(path)).unwrap().status
    }

    fn becomes(&self, path: &str, status: u16) -> bool {
        poll(PATIENCE, || (self.status(path) == status).then_some(())).is_some()
    }
}

#[test]
fn while_the_service_is_down_envoy_denies_and_recovers_by_itself() {
    let Some(mut stage) = stage("outage-down") else {
        return;
    };
    assert_eq!(stage.status("/one"), 200);
    stage.server.kill();
    for _ in 0..20 {
        assert_eq!(stage.status("/one"), 403, "closed without an answer");
    }
    assert!(stage.front.envoy.counter("ext_authz.error").unwrap() >= 20);
    stage
        .server
        .restart(PORTCULLIS.as_ref())
        .unwrap_or_else(|cause| panic!("{cause}"));
    assert!(stage.becomes("/one", 200), "{}", stage.server.log_end());
    assert_eq!(stage.status("/two"), 403);
}

#[test]
fn broken_policies_keep_the_last_good_ones_until_they_are_mended() {
    let Some(stage) = stage("outage-broken") else {
        return;
    };
    assert_eq!((stage.status("/one"), stage.status("/two")), (200, 403));
    let mut seen = 0;
    for broken in [
        allow("/two").replace("rules", "ruels"),
        allow("/two").replace("spec: {", "spec: {{"),
        format!(
            "{}---\n{}",
            allow("/two"),
            allow("/x/{**}/{**}").replace("name: open", "name: bad")
        ),
    ] {
        stage.server.replace("policies.yaml", &broken).unwrap();
        // It says so, each time anew; and nothing of the new file is in force, not even its sound half.
        let refusals = || stage.server.log().matches("policies refused").count();
        let said = || (refusals() > seen).then_some(());
        assert!(poll(PATIENCE, said).is_some(), "{}", stage.server.log_end());
        assert_eq!(
            (stage.status("/one"), stage.status("/two")),
            (200, 403),
            "{broken}"
        );
        seen = refusals();
    }
    stage
        .server
        .replace("policies.yaml", &allow("/two"))
        .unwrap();
    assert!(stage.becomes("/two", 200), "{}", stage.server.log_end());
    assert_eq!(stage.status("/one"), 403);
}

#[test]
fn a_supervisors_signal_ends_it_cleanly() {
    let Some(mut stage) = stage("outage-signal") else {
        return;
    };
    assert_eq!(stage.status("/one"), 200);
    let code = stage.server.terminate(PATIENCE).unwrap();
    assert_eq!(code, Some(0), "{}", stage.server.log_end());
}
