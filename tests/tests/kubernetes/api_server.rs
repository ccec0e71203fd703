//! The Kubernetes API server of the tests is a real one: schemas, rules, watches and restarts are its own.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error};
use portcullis_tests::component::{self, kube_api, run_folder};
use portcullis_tests::kube_api::KubeApi;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

const LIMIT: Duration = Duration::from_secs(60);

/// AuthorizationPolicy as Istio defines it, as far as this test looks: a type, and the rule that there is one attachment.
fn definition() -> Value {
    let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "authorizationpolicies.security.istio.io" },
        "spec": {
            "group": "security.istio.io",
            "names": {
                "kind": "AuthorizationPolicy", "listKind": "AuthorizationPolicyList",
                "plural": "authorizationpolicies", "singular": "authorizationpolicy",
            },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": {
                        "type": "object",
                        "properties": {
                            "action": { "type": "string", "enum": ["ALLOW", "DENY", "AUDIT", "CUSTOM"] },
                            "selector": free,
                            "targetRefs": { "type": "array", "maxItems": 16, "items": free },
                            "rules": { "type": "array", "maxItems": 512, "items": free },
                        },
                        "x-kubernetes-validations": [{
                            "rule": "!(has(self.selector) && has(self.targetRefs))",
                            "message": "only one of targetRefs or selector can be set",
                        }],
                    },
                    "status": free,
                } } },
            }],
        },
    })
}

fn policies(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "authorizationpolicies");
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": { "name": name }, "spec": spec,
    })
}

async fn apply(api: &Api<DynamicObject>, name: &str, spec: Value) -> Result<DynamicObject, Error> {
    let apply = PatchParams::apply("tests").force();
    api.patch(name, &apply, &Patch::Apply(policy(name, spec)))
        .await
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limited = tokio::time::timeout(LIMIT, future).await;
    limited.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// A namespace of the test's own: one that is deleted takes seconds to go.
async fn namespace(client: &Client, name: &str) {
    let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "authorizationpolicies.security.istio.io";
    let apply = PatchParams::apply("tests").force();
    api.patch(name, &apply, &Patch::Apply(definition()))
        .await
        .unwrap();
    within("the kind is served", async {
        loop {
            let found = api.get(name).await.unwrap();
            let conditions = found.status.and_then(|status| status.conditions);
            let established = |c: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition| {
                c.type_ == "Established" && c.status == "True"
            };
            if conditions.unwrap_or_default().iter().any(established) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_defined_applied_refused_watched_and_outlive_a_crash() {
    let Some(executable) = component::require(kube_api()) else {
        return;
    };
    let folder = run_folder("kube-api");
    let mut server = KubeApi::start(&executable, &folder).unwrap_or_else(|cause| panic!("{cause}"));
    let client = server.client().await.unwrap();
    define(&client).await;
    namespace(&client, "shop").await;

    // Its controllers run.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "shop");
    within("the default service account", async {
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let api = policies(&client, "shop");
    let mut events = std::pin::pin!(watcher(api.clone(), watcher::Config::default()));
    within("the first list", async {
        while !matches!(events.try_next().await.unwrap(), Some(Event::InitDone)) {}
    })
    .await;
    let applied = apply(&api, "readers", json!({ "action": "ALLOW" }))
        .await
        .unwrap();
    let version = applied.metadata.resource_version.unwrap();
    let event = within("an event", events.next()).await.unwrap().unwrap();
    let Event::Apply(seen) = event else {
        panic!("{event:?}");
    };
    assert_eq!(seen.metadata.resource_version.as_deref(), Some(&*version));

    // What the schema or its rules refuse, the server refuses.
    for (spec, words) in [
        (json!({ "action": "PERMIT" }), "Unsupported value"),
        (
            json!({ "selector": {}, "targetRefs": [] }),
            "only one of targetRefs or selector can be set",
        ),
    ] {
        let refused = apply(&api, "bad", spec).await.unwrap_err();
        let Error::Api(status) = refused else {
            panic!("{refused}");
        };
        assert_eq!(status.code, 422);
        assert!(status.message.contains(words), "{}", status.message);
    }
    assert!(api.get_opt("bad").await.unwrap().is_none());

    // A crash loses nothing, and who watches goes on.
    server.restart().unwrap_or_else(|cause| panic!("{cause}"));
    let again = within("the policy", async {
        loop {
            match api.get("readers").await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert_eq!(again.metadata.resource_version.as_deref(), Some(&*version));
    api.delete("readers", &DeleteParams::default())
        .await
        .unwrap();
    within("the deletion", async {
        loop {
            // A connection that broke is an error, after which the watch is taken up again.
            match events.next().await.unwrap() {
                Ok(Event::Delete(gone)) => {
                    assert_eq!(gone.metadata.name.as_deref(), Some("readers"));
                    return;
                }
                Ok(Event::InitDone) if api.get_opt("readers").await.unwrap().is_none() => return,
                _ => {}
            }
        }
    })
    .await;
}
