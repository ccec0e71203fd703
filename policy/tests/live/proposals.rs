//! What a change would bring, while the store stays as it is.

use std::sync::Arc;

use portcullis_policy::live::{Change, ObjectKey, Store, is_effect};
use portcullis_policy::settings::Settings;

use super::cluster::{WEB, apply, authorization, bad, change, cluster, decide, policy, reasons};

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
fn a_proposal_tells_what_is_denied_no_more() {
    let mut store = cluster();
    let rule = |path: &str| format!(r#"{{"to":[{{"operation":{{"paths":["{path}"]}}}}]}}"#);
    let deny = |name: &str, selector: &str, rules: &[String]| {
        let rules = rules.join(",");
        let spec = format!(r#"{{{selector}"action":"DENY","rules":[{rules}]}}"#);
        authorization("shop", name, &spec)
    };
    let both = [rule("/admin"), rule("/debug/*")];
    store.change([deny("web", WEB, &both)]);
    let gone = || Change::Delete(policy("shop", "web"));
    let [(code, message)] = &effects(&mut store, gone())[..] else {
        panic!("one effect");
    };
    assert_eq!(*code, "PC0523");
    assert_eq!(
        message,
        "what `shop/web#rule[0]`, `shop/web#rule[1]` denied is denied by no rule any more, for `pod/shop/web-1`"
    );
    // Rules that go, are narrowed, select less, are on trial or only record.
    let fewer = effects(&mut store, deny("web", WEB, &both[..1]));
    assert!(
        fewer[0].1.contains("what `shop/web#rule[1]` denied"),
        "{fewer:?}"
    );
    for loosened in [
        deny("web", WEB, &[rule("/admin"), rule("/debug/a")]),
        deny("web", r#""selector":{"matchLabels":{"app":"db"}},"#, &both),
        apply(
            "AuthorizationPolicy",
            "shop",
            "web",
            r#"{"istio.io/dry-run":"true"}"#,
            &format!(r#"{{{WEB}"action":"DENY","rules":[{{}}]}}"#),
        ),
        authorization(
            "shop",
            "web",
            &format!(r#"{{{WEB}"action":"AUDIT","rules":[{{}}]}}"#),
        ),
    ] {
        let found = effects(&mut store, loosened);
        assert_eq!((found.len(), found[0].0), (1, "PC0523"), "{found:?}");
        assert!(found[0].1.ends_with("for `pod/shop/web-1`"), "{found:?}");
    }
    // What denies as much or more says nothing: in another order, in one rule for two, for more workloads.
    let one =
        r#"{"to":[{"operation":{"paths":["/debug/*"]}},{"operation":{"paths":["/admin","/x"]}}]}"#;
    for same in [
        deny("web", WEB, &[rule("/debug/*"), rule("/admin")]),
        deny("web", WEB, &[one.to_owned()]),
        deny("web", "", &both),
        deny("web", WEB, &["{}".to_owned()]),
    ] {
        let found = effects(&mut store, same);
        assert!(found.iter().all(|(code, _)| *code == "PC0524"), "{found:?}");
    }
    store.change([deny("web", WEB, &[one.to_owned()])]);
    assert_eq!(
        effects(&mut store, deny("web", WEB, &both[..1]))[0].0,
        "PC0523"
    );
    let apart = [rule("/debug/*"), rule("/admin"), rule("/x")];
    let found = effects(&mut store, deny("web", WEB, &apart));
    // That two rules deny what one did before is not seen where one operation holds both paths.
    assert!(found.iter().all(|(code, _)| *code == "PC0523"), "{found:?}");
    // Another policy denies it as well: of the namespace, or of the mesh.
    for other in [
        deny("other", "", &["{}".to_owned()]),
        authorization("istio-system", "other", r#"{"action":"DENY","rules":[{}]}"#),
    ] {
        store.change([other.clone()]);
        assert_eq!(effects(&mut store, gone()), []);
        store.change([Change::Delete(other.key().clone())]);
    }
    // Where nothing is allowed, nothing is opened.
    store.change([authorization("shop", "none", "{}")]);
    assert_eq!(effects(&mut store, gone()), []);
    store.change([authorization("shop", "some", r#"{"rules":[{}]}"#)]);
    assert_eq!(effects(&mut store, gone())[0].0, "PC0523");
}

#[test]
fn a_proposal_tells_of_a_forbid_that_goes() {
    let mut store = cluster();
    let cedar = |policies: &str| {
        let key = ObjectKey::new("portcullis.dev", "CedarPolicy", "shop", "web");
        let text = serde_json::json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "CedarPolicy",
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "selector": { "matchLabels": { "app": "web" } }, "policies": policies },
        });
        change(key, &text.to_string())
    };
    let forbid = r#"@id("a") forbid (principal, action == Action::"http", resource) when { context.http.path == "/a" };"#;
    let forbid_b = forbid.replace("\"a\"", "\"b\"").replace("/a", "/b");
    store.change([cedar(&format!("{forbid}\n{forbid_b}"))]);
    let found = effects(&mut store, cedar(forbid));
    let wanted = "what `shop/web#b` denied is denied by no rule any more, for `pod/shop/web-1`";
    assert_eq!(found, [("PC0523", wanted.to_owned())]);
    let all = effects(&mut store, Change::Delete(cedar(forbid).key().clone()));
    assert!(
        all[0]
            .1
            .starts_with("what `shop/web#a`, `shop/web#b` denied"),
        "{all:?}"
    );
    // Changed in its place it is the author's word; by another name it is the same policy.
    let other = format!("{}\n{forbid}", forbid_b.replace("/b", "/c"));
    assert_eq!(effects(&mut store, cedar(&other)), []);
    let renamed = format!("{}\n{forbid_b}", forbid.replace("\"a\"", "\"c\""));
    assert_eq!(effects(&mut store, cedar(&renamed)).len(), 1);
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
