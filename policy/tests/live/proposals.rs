//! What a change would bring, while the store stays as it is.

use std::sync::Arc;

use portcullis_policy::live::{Change, Store, is_effect};
use portcullis_policy::settings::Settings;

use super::cluster::{WEB, apply, authorization, bad, cluster, decide, policy, reasons};

#[test]
fn a_proposal_leaves_the_store_as_it_is() {
    let mut store = cluster();
    let before = store.snapshot();
    let deny = authorization(
        "shop",
        "web",
        &format!(r#"{{{WEB}"action":"DENY","rules":[{{}}]}}"#),
    );
    let proposal = store.propose(std::slice::from_ref(&deny)).unwrap();
    assert_eq!(
        decide(&proposal.snapshot, "shop/web-1").reason.as_str(),
        "denied_by"
    );
    assert!(Arc::ptr_eq(&before, &store.snapshot()));
    assert_eq!(reasons(&mut store), ["no_allow_policy"; 3]);
    assert_eq!(store.outcomes().count(), 0);
    store.change([deny]);
    assert_eq!(store.snapshot().revision(), proposal.snapshot.revision());
}

#[test]
fn a_bad_proposal_is_refused_with_its_errors() {
    let mut store = cluster();
    store.change([authorization("blog", "bad", &bad(WEB))]);
    let before = reasons(&mut store);
    let refused = store
        .propose(&[authorization("shop", "web", &bad(WEB))])
        .unwrap_err();
    assert!(refused.iter().all(|d| {
        d.location.file.as_ref() == "kubernetes:AuthorizationPolicy.security.istio.io/shop/web"
    }));
    assert_eq!(refused[0].code, "PC0021");
    // A bad update of a good policy is refused as well.
    store.change([authorization("shop", "web", "{}")]);
    assert!(
        store
            .propose(&[authorization("shop", "web", &bad(WEB))])
            .is_err()
    );
    // What others have done wrong refuses nobody.
    store.change([Change::Delete(policy("shop", "web"))]);
    assert_eq!(reasons(&mut store), before);
    assert!(store.propose(&[authorization("shop", "web", "{}")]).is_ok());
}

#[test]
fn a_proposal_tells_what_concerns_it_and_what_it_brings() {
    let mut store = cluster();
    store.change([authorization(
        "blog",
        "none",
        r#"{"selector":{"matchLabels":{"app":"gone"}}}"#,
    )]);
    let nowhere = r#"{"selector":{"matchLabels":{"app":"nowhere"}},"rules":[{}]}"#;
    let change = authorization("shop", "x", nowhere);
    let proposal = store.propose(std::slice::from_ref(&change)).unwrap();
    let codes = |proposal: &portcullis_policy::live::Proposal| {
        let codes = proposal.diagnostics.iter().map(|d| d.code);
        codes.collect::<Vec<_>>()
    };
    assert_eq!(codes(&proposal), ["PC0504"], "{:?}", proposal.diagnostics);
    // It concerns the object although it was so before.
    store.change([change.clone()]);
    assert_eq!(codes(&store.propose(&[change]).unwrap()), ["PC0504"]);
    // A pod that goes leaves the policies of others without a workload.
    store.change([authorization(
        "shop",
        "x",
        &format!(r#"{{{WEB}"rules":[{{}}]}}"#),
    )]);
    let web = portcullis_policy::live::ObjectKey::new("", "Pod", "shop", "web-1");
    let proposal = store.propose(&[Change::Delete(web)]).unwrap();
    assert!(
        codes(&proposal).contains(&"PC0504"),
        "{:?}",
        proposal.diagnostics
    );
    assert!(
        proposal
            .diagnostics
            .iter()
            .all(|d| !d.location.file.contains("blog")),
        "{:?}",
        proposal.diagnostics
    );
}

#[test]
fn an_empty_store_takes_proposals() {
    let mut store = Store::new(Settings::default());
    let proposal = store.propose(&[authorization("shop", "x", "{}")]).unwrap();
    assert_eq!(proposal.snapshot.policy_count(), 1);
    assert_eq!(store.snapshot().policy_count(), 0);
}

/// The codes, messages apart from the rest.
pub fn effects(store: &mut Store, change: Change) -> Vec<(&'static str, String)> {
    let proposal = store.propose(&[change]).unwrap();
    let effects = proposal.diagnostics.into_iter().filter(is_effect);
    effects.map(|d| (d.code, d.message)).collect()
}

#[test]
fn a_proposal_tells_what_it_opens_and_closes() {
    let mut store = cluster();
    let allow = |name: &str, selector: &str| {
        let rules = r#""rules":[{"to":[{"operation":{"methods":["GET"]}}]}]"#;
        authorization("shop", name, &format!("{{{selector}{rules}}}"))
    };
    let [(code, message)] = &effects(&mut store, allow("all", ""))[..] else {
        panic!("one effect");
    };
    assert_eq!(*code, "PC0521");
    assert!(
        message.ends_with("2 workloads: `pod/shop/db-1`, `pod/shop/web-1`"),
        "{message}"
    );
    store.change([allow("all", ""), allow("web", WEB)]);
    // Another policy still allows the rest.
    assert_eq!(
        effects(&mut store, Change::Delete(policy("shop", "web"))),
        []
    );
    let [(code, message)] = &effects(&mut store, Change::Delete(policy("shop", "all")))[..] else {
        panic!("one effect");
    };
    assert_eq!(*code, "PC0520");
    assert!(message.ends_with("for `pod/shop/db-1`"), "{message}");
    // One that denies, or tries, allows nobody.
    let rules = r#""rules":[{"to":[{"operation":{"methods":["GET"]}}]}]"#;
    let deny = authorization("shop", "all", &format!(r#"{{"action":"DENY",{rules}}}"#));
    assert_eq!(effects(&mut store, deny)[0].0, "PC0520");
    let same = allow("all", "");
    assert_eq!(effects(&mut store, same), []);
    // What was closed opens with the policy that closed it.
    store.change([authorization("blog", "bad", &bad(WEB))]);
    let opened = effects(&mut store, Change::Delete(policy("blog", "bad")));
    assert_eq!(opened[0].0, "PC0520", "{opened:?}");
}

#[test]
fn a_proposal_tells_where_identities_are_waived() {
    let mut store = cluster();
    let mode = |namespace: &str, mode: &str| {
        let spec = format!(r#"{{"mtls":{{"mode":"{mode}"}}}}"#);
        apply("PeerAuthentication", namespace, "default", "{}", &spec)
    };
    store.change([mode("istio-system", "STRICT"), mode("blog", "STRICT")]);
    let waived = effects(&mut store, mode("istio-system", "PERMISSIVE"));
    assert_eq!(waived[0].0, "PC0522");
    assert!(
        waived[0].1.contains("2 workloads: `pod/shop/"),
        "{waived:?}"
    );
    assert_eq!(effects(&mut store, mode("shop", "STRICT")), []);
    assert_eq!(effects(&mut store, mode("shop", "DISABLE")).len(), 1);
}

/// A DENY is the one policy that changes what there is to say of another.
#[test]
fn a_proposal_tells_of_rules_that_a_deny_covers_whichever_comes_last() {
    let allow = authorization(
        "shop",
        "allow",
        r#"{"rules": [{"to": [{"operation": {"methods": ["GET"], "paths": ["/a"], "ports": ["80"]}}]}]}"#,
    );
    let deny = authorization(
        "shop",
        "deny",
        r#"{"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}]}"#,
    );
    for (first, second) in [(&allow, &deny), (&deny, &allow)] {
        let mut store = Store::new(Settings::default());
        store.change([first.clone()]);
        let proposal = store.propose(std::slice::from_ref(second)).unwrap();
        let shadowed: Vec<_> = proposal
            .diagnostics
            .iter()
            .filter(|d| d.code == "PC0513")
            .collect();
        let [one] = shadowed.as_slice() else {
            panic!("{:#?}", proposal.diagnostics);
        };
        assert_eq!(
            one.resource.as_deref(),
            Some("AuthorizationPolicy/shop/allow")
        );
        assert!(
            one.message.contains("`shop/deny#rule[0]`"),
            "{}",
            one.message
        );
    }
}
