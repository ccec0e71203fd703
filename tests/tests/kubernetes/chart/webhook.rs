//! The webhook configuration of the chart is the one that the webhook itself defines.

use portcullis_admission::webhook::{Destination, FailurePolicy, Options, yaml};

use super::helm::{NAMESPACE, documents, find, helm};

#[test]
fn the_configuration_is_the_webhooks_own() {
    let Some(helm) = helm() else { return };
    for (values, name, account, failure_policy, timeout_seconds) in [
        (
            "{}",
            "portcullis-admission",
            "portcullis-admission",
            FailurePolicy::Fail,
            5,
        ),
        (
            "fullnameOverride: gate\nadmission: {failurePolicy: Ignore, timeoutSeconds: 2, serviceAccount: {name: own}}",
            "gate-admission",
            "own",
            FailurePolicy::Ignore,
            2,
        ),
    ] {
        let options = Options {
            name: name.to_owned(),
            destination: Destination::Service {
                namespace: NAMESPACE.to_owned(),
                name: name.to_owned(),
            },
            namespace: NAMESPACE.to_owned(),
            service_account: Some(account.to_owned()),
            failure_policy,
            timeout_seconds,
        };
        let wanted = documents(&yaml(&options)).remove(0);
        let objects = helm.objects("webhook", values);
        let mut found = find(&objects, &format!("ValidatingWebhookConfiguration/{name}")).clone();
        found["metadata"].as_object_mut().unwrap().remove("labels");
        assert_eq!(found, wanted);
        // Reviews arrive at a port of the pods that listens.
        let service = find(&objects, &format!("Service/{name}"));
        assert_eq!(service["spec"]["ports"][0]["port"], 443);
    }
}
