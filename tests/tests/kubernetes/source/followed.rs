//! A source in this process, and what its snapshots decide.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use portcullis_authz::check_request::from_json;
use portcullis_authz::decide::decide;
use portcullis_authz::facts;
use portcullis_policy::decision::Decision;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use portcullis_source::{KindState, Options, Source, Status};
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;

use crate::cluster::until;

/// A running source.
pub struct Followed {
    pub source: Source,
}

/// Everything is followed; what is not there is looked for often.
pub fn options() -> Options {
    let mut options = Options::new(Settings {
        serving: true,
        ..Settings::default()
    });
    options.look = Duration::from_millis(200);
    options
}

impl Followed {
    pub fn start(client: Client, options: &Options) -> Self {
        let source = Source::start(client, options);
        Self { source }
    }

    /// The same, once it has a snapshot.
    pub async fn synced(client: Client, options: &Options) -> Self {
        let followed = Self::start(client, options);
        until("the source is synced", async || followed.status().synced).await;
        assert_eq!(followed.status().missing(), Vec::<String>::new());
        followed
    }

    pub fn status(&self) -> Status {
        self.source.status().borrow().clone()
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.source.snapshots().borrow().clone().unwrap()
    }

    /// How it goes with a kind, by its plural and group.
    pub fn state(&self, resource: &str) -> KindState {
        let status = self.status();
        let mut kinds = status.kinds.iter();
        let kind = kinds.find(|kind| kind.kind.resource() == resource);
        kind.unwrap_or_else(|| panic!("no `{resource}`"))
            .state
            .clone()
    }

    /// What is decided now of a GET of `path` at `workload`, by nobody in particular.
    pub fn decide(&self, workload: &str, path: &str) -> Decision {
        decide_by(&self.snapshot(), workload, "", path)
    }

    /// `allow` or `deny` and the reason.
    pub fn verdict(&self, workload: &str, path: &str) -> String {
        let decision = self.decide(workload, path);
        format!(
            "{} {}",
            decision.decision.as_str(),
            decision.reason.as_str()
        )
    }

    /// Waits until that is the verdict.
    pub async fn decides(&self, workload: &str, path: &str, verdict: &str) {
        let what = format!("{workload} {path}: {verdict}");
        until(&what, async || self.verdict(workload, path) == verdict).await;
    }
}

/// What `snapshot` decides of a GET of `path` at `workload`, by `principal`.
pub fn decide_by(
    snapshot: &Arc<Snapshot>,
    workload: &str,
    principal: &str,
    path: &str,
) -> Decision {
    let check = json!({"attributes": {
        "source": {"principal": principal, "address": {"socketAddress": {"address": "10.9.9.9"}}},
        "destination": {"address": {"socketAddress": {"address": "10.8.8.8", "portValue": 8080}}},
        "request": {"http": {"method": "GET", "path": path, "host": "a.example", "scheme": "http"}},
        "contextExtensions": {"portcullis.workload": workload},
    }});
    let check = from_json(check.to_string().as_bytes()).unwrap();
    decide(
        snapshot,
        check,
        &MetadataMap::new(),
        &facts::Options::default(),
    )
}

/// An AuthorizationPolicy.
pub fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec,
    })
}

/// A rule for these paths.
pub fn paths(paths: &[&str]) -> Value {
    json!([{ "to": [{ "operation": { "paths": paths } }] }])
}

/// An ALLOW policy of `app` for these paths.
pub fn allow(namespace: &str, name: &str, app: &str, on: &[&str]) -> Value {
    let selector = json!({ "matchLabels": { "app": app } });
    policy(
        namespace,
        name,
        json!({ "action": "ALLOW", "selector": selector, "rules": paths(on) }),
    )
}

/// The same, as the schema takes it and Istio's webhook, which is not there, would not.
pub fn bad(namespace: &str, name: &str, app: &str) -> Value {
    let selector = json!({ "matchLabels": { "app": app } });
    let rules = json!([{ "from": [{ "source": { "ipBlocks": ["not an address"] } }] }]);
    policy(
        namespace,
        name,
        json!({ "action": "ALLOW", "selector": selector, "rules": rules }),
    )
}
