//! JWT-SVIDs as identities of requests, verified by the bundles of a Workload API.

use std::time::{Duration, Instant, SystemTime};

use portcullis_authz::token::svid::{BundleSource, Options, Svid, Svids};
use portcullis_authz::token::{self, TokenError};
use portcullis_ca::store::AuthorityKind;
use portcullis_policy::request::{Headers, Http, Request};
use portcullis_policy::resource::HeaderLocation;
use portcullis_tests::workload::ca::{CertificateAuthority, id};
use spiffe::WorkloadApiClient;

const LIMIT: Duration = Duration::from_secs(30);

fn request(token: &str) -> Request {
    Request {
        http: Some(Http {
            headers: Headers {
                entries: vec![("x-svid".to_owned(), token.to_owned())],
                ..Headers::default()
            },
            ..Http::default()
        }),
        ..Request::empty()
    }
}

/// What a token comes to, once it is `expected`.
fn until(svids: &Svids, token: &str, expected: &Svid) -> Request {
    let start = Instant::now();
    loop {
        let mut request = request(token);
        let found = svids.check(&mut request, &mut Vec::new());
        if found == *expected {
            return request;
        }
        assert!(start.elapsed() < LIMIT, "{found:?}, and not {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn bundles_of_a_workload_api_verify_jwt_svids_and_revoke_them() {
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::start(folder.path()).unwrap();
    let ours = std::env::current_exe().unwrap();
    ca.entry("client", &format!("unix:path:{}", ours.display()))
        .unwrap();
    let address = format!("unix:{}", ca.socket().display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token = |audience: &'static str| {
        runtime.block_on(async {
            let api = WorkloadApiClient::connect_to(&address).await.unwrap();
            let svid = api.fetch_jwt_svid([audience], None).await.unwrap();
            svid.token().to_owned()
        })
    };
    let options = Options {
        audiences: vec!["us".to_owned()],
        header: HeaderLocation {
            name: "x-svid".to_owned(),
            prefix: String::new(),
        },
        forward: true,
        bundles: vec![BundleSource::WorkloadApi(address.clone())],
    };
    let svids = Svids::new(options, token::Options::default(), SystemTime::now);
    let first = token("us");
    // Before anything was told it may be anybody's: closed.
    until(&svids, &first, &Svid::Invalid(TokenError::NoKeys));
    runtime.spawn(svids.clone().run());
    let valid = until(&svids, &first, &Svid::Valid);
    assert_eq!(valid.source.identities[0].value, id("client"));
    until(
        &svids,
        &token("others"),
        &Svid::Invalid(TokenError::Audience),
    );

    let prepared = ca.prepare(AuthorityKind::Jwt).unwrap();
    let old = ca.activate(AuthorityKind::Jwt, &prepared).unwrap();
    until(&svids, &token("us"), &Svid::Valid);
    until(&svids, &first, &Svid::Valid);
    ca.taint(AuthorityKind::Jwt, &old).unwrap();
    ca.revoke(AuthorityKind::Jwt, &old).unwrap();
    until(&svids, &first, &Svid::Invalid(TokenError::UnknownKey));
    until(&svids, &token("us"), &Svid::Valid);
}
