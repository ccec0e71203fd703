//! What a provider's changes come to.

use portcullis_policy::request::{Headers, Http, Request};

use super::*;

#[track_caller]
fn check(headers: &[(&str, &str)], changes: &[Change], expected: &[(&str, &str)], told: &[&str]) {
    let entries = |headers: &[(&str, &str)]| -> Vec<(String, String)> {
        let headers = headers.iter();
        headers
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    };
    let mut request = Request {
        http: Some(Http {
            headers: Headers {
                entries: entries(headers),
                merged: false,
                ..Headers::default()
            },
            ..Http::default()
        }),
        ..Request::empty()
    };
    let allowed = Allowed {
        changes: changes.to_vec(),
        ..Allowed::default()
    };
    let mut noted = Vec::new();
    allowed.apply(&mut request, &mut noted);
    assert_eq!(request.http.unwrap().headers.entries, entries(expected));
    let noted: Vec<String> = noted
        .iter()
        .map(|change| match change {
            HeaderChange::Set { name, value } => format!("{name}={value}"),
            HeaderChange::Remove { name } => format!("-{name}"),
        })
        .collect();
    assert_eq!(noted, told);
}

#[test]
fn headers_change_as_envoy_changes_them() {
    let [a, b] = ["a", "b"].map(str::to_owned);
    let set = Change::Set(a.clone(), b.clone());
    let append = Change::Append(a.clone(), b.clone());
    let add = Change::Add(a.clone(), b.clone());
    let replace = Change::Replace(a.clone(), b.clone());
    let remove = Change::Remove(a);
    let one = [("a", "1")];
    let two = [("a", "1"), ("x", "2"), ("a", "3")];
    check(&two, &[set], &[("x", "2"), ("a", "b")], &["a=b"]);
    check(
        &two,
        std::slice::from_ref(&append),
        &[("x", "2"), ("a", "1,3,b")],
        &["a=1,3,b"],
    );
    check(&[], &[append], &[("a", "b")], &["a=b"]);
    check(&one, std::slice::from_ref(&add), &one, &[]);
    check(&[], &[add], &[("a", "b")], &["a=b"]);
    check(
        &one,
        std::slice::from_ref(&replace),
        &[("a", "b")],
        &["a=b"],
    );
    check(&[], &[replace], &[], &[]);
    check(&two, &[remove], &[("x", "2")], &["-a"]);
    let cookie = Change::Append("cookie".to_owned(), "c=d".to_owned());
    check(
        &[("cookie", "a=b")],
        &[cookie],
        &[("cookie", "a=b; c=d")],
        &["cookie=a=b; c=d"],
    );
}

#[test]
fn a_provider_does_not_say_where_a_request_goes() {
    for name in [":path", ":authority", "host", "x-portcullis-workload"] {
        let name = name.to_owned();
        check(
            &[],
            &[
                Change::Set(name.clone(), "b".to_owned()),
                Change::Remove(name),
            ],
            &[],
            &[],
        );
    }
}

#[tokio::test]
async fn an_entry_that_does_not_say_where_is_never_open() {
    let providers = Providers::new(Vec::new()).unwrap();
    let entry = ExtensionProvider {
        name: "ext".to_owned(),
        ext_authz: Some(ExtAuthz::Grpc),
        call: None,
    };
    for entry in [None, Some(&entry)] {
        let verdict = providers.ask(entry, &Request::empty()).await;
        let Verdict::Unavailable(Unavailable { fail_open, .. }) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(!fail_open);
    }
}
