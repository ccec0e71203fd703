//! The admin API over its socket, as SPIRE's clients would call it.

use rcgen::{CertificateParams, KeyPair, SanType};
use tonic::transport::Channel;

use super::*;
use crate::ca::tests::{TestClock, open, options};
use crate::proto::spire::api::server::bundle::v1 as bundle_api;
use crate::proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use crate::proto::spire::api::server::entry::v1 as entry_api;
use crate::proto::spire::api::server::entry::v1::entry_client::EntryClient;
use crate::proto::spire::api::server::localauthority::v1 as authority_api;
use crate::proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use crate::proto::spire::api::server::svid::v1 as svid_api;
use crate::proto::spire::api::server::svid::v1::svid_client::SvidClient;
use crate::proto::types;
use crate::x509::conform;
use tonic::Code;

struct Running {
    folder: tempfile::TempDir,
    channel: Channel,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Arc::new(open(options(folder.path()), &TestClock::new()).await);
        let socket = socket_in(folder.path());
        let server = AdminServer::bind(&socket).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(server.run(ca, async {
            let _ = stopped.await;
        }));
        let channel = client::connect(&socket).await.unwrap();
        Self {
            folder,
            channel,
            stop: Some(stop),
            server: Some(server),
        }
    }

    fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone())
    }

    fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel.clone())
    }
}

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid {
        trust_domain: "example.org".to_owned(),
        path: path.to_owned(),
    })
}

fn selector(value: &str) -> types::Selector {
    types::Selector {
        r#type: "unix".to_owned(),
        value: value.to_owned(),
    }
}

fn entry(path: &str, value: &str) -> types::Entry {
    types::Entry {
        spiffe_id: id(path),
        selectors: vec![selector(value)],
        ..types::Entry::default()
    }
}

fn code(status: Option<&types::Status>) -> Code {
    Code::from(status.unwrap().code)
}

async fn create(
    running: &Running,
    entries: Vec<types::Entry>,
) -> Vec<(Code, Option<types::Entry>)> {
    let request = entry_api::BatchCreateEntryRequest {
        entries,
        output_mask: None,
    };
    let results = running
        .entries()
        .batch_create_entry(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    results
        .into_iter()
        .map(|result| (code(result.status.as_ref()), result.entry))
        .collect()
}

#[tokio::test]
async fn the_socket_is_the_operators_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut running = Running::start().await;
    let socket = socket_in(running.folder.path());
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        AdminServer::bind(&socket).await.is_err(),
        "somebody listens there"
    );
    running.stop.take().unwrap().send(()).unwrap();
    running.server.take().unwrap().await.unwrap().unwrap();
    assert!(!socket.exists(), "a graceful stop leaves no socket behind");
    let error = client::connect(&socket).await.unwrap_err();
    assert!(error.to_string().contains("ca serve"), "{error}");
}

#[tokio::test]
async fn entries_are_created_listed_in_pages_updated_and_deleted() {
    let running = Running::start().await;
    let batch = (0..5)
        .map(|n| entry(&format!("/w{n}"), &format!("uid:{n}")))
        .collect();
    let created = create(&running, batch).await;
    assert!(
        created
            .iter()
            .all(|(code, entry)| *code == Code::Ok && entry.is_some())
    );
    let again = create(&running, vec![entry("/w0", "uid:0")]).await;
    assert_eq!(again[0].0, Code::AlreadyExists);
    assert_eq!(
        again[0].1, created[0].1,
        "the one that is there comes along"
    );
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let request = entry_api::ListEntriesRequest {
            page_size: 2,
            page_token: token,
            ..Default::default()
        };
        let page = running
            .entries()
            .list_entries(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.entries.len() <= 2);
        seen.extend(page.entries.into_iter().map(|entry| entry.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    let first = created[0].1.clone().unwrap();
    let update = types::Entry {
        id: first.id.clone(),
        hint: "internal".to_owned(),
        x509_svid_ttl: 60,
        ..Default::default()
    };
    let request = entry_api::BatchUpdateEntryRequest {
        entries: vec![update],
        input_mask: Some(types::EntryMask {
            hint: true,
            ..Default::default()
        }),
        output_mask: None,
    };
    let answer = running
        .entries()
        .batch_update_entry(request)
        .await
        .unwrap()
        .into_inner();
    let updated = answer.results[0].entry.clone().unwrap();
    assert_eq!(
        (updated.hint.as_str(), updated.x509_svid_ttl),
        ("internal", 0),
        "the mask alone"
    );
    assert_eq!(updated.revision_number, 1);
    let request = entry_api::BatchDeleteEntryRequest {
        ids: vec![first.id.clone(), "missing".to_owned()],
    };
    let answer = running
        .entries()
        .batch_delete_entry(request)
        .await
        .unwrap()
        .into_inner();
    let codes: Vec<Code> = answer
        .results
        .iter()
        .map(|r| code(r.status.as_ref()))
        .collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound]);
    let request = entry_api::GetEntryRequest {
        id: first.id,
        output_mask: None,
    };
    assert_eq!(
        running
            .entries()
            .get_entry(request)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn bad_entries_have_the_standards_status_and_leave_nothing() {
    let running = Running::start().await;
    let bad: Vec<types::Entry> = vec![
        types::Entry {
            spiffe_id: None,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            x509_svid_ttl: -1,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            jwt_svid_ttl: -1,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            expires_at: -1,
            ..entry("/x", "uid:1")
        },
        types::Entry {
            federates_with: vec!["Other.org".to_owned()],
            ..entry("/x", "uid:1")
        },
        types::Entry {
            selectors: vec![selector("")],
            ..entry("/x", "uid:1")
        },
        entry(&format!("/{}", "a".repeat(2048)), "uid:1"),
        entry("/a//b", "uid:1"),
        types::Entry {
            spiffe_id: Some(types::Spiffeid {
                trust_domain: "EXAMPLE.org".to_owned(),
                path: "/x".to_owned(),
            }),
            ..entry("/x", "uid:1")
        },
    ];
    for (code, entry) in create(&running, bad).await {
        assert_eq!(code, Code::InvalidArgument);
        assert!(entry.is_none());
    }
    let count = running
        .entries()
        .count_entries(entry_api::CountEntriesRequest::default())
        .await;
    assert_eq!(count.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn filters_compare_sets_as_their_names_say() {
    use types::selector_match::MatchBehavior;
    let running = Running::start().await;
    let mut both = entry("/both", "uid:1");
    both.selectors.push(selector("gid:1"));
    create(
        &running,
        vec![entry("/one", "uid:1"), both, entry("/other", "uid:2")],
    )
    .await;
    let cases = [
        (MatchBehavior::MatchExact, vec!["uid:1"], 1),
        (MatchBehavior::MatchSubset, vec!["uid:1", "gid:1"], 2),
        (MatchBehavior::MatchSuperset, vec!["uid:1"], 2),
        (MatchBehavior::MatchAny, vec!["gid:1", "uid:2"], 2),
    ];
    for (behavior, selectors, expected) in cases {
        let filter = entry_api::count_entries_request::Filter {
            by_selectors: Some(types::SelectorMatch {
                selectors: selectors.iter().map(|value| selector(value)).collect(),
                r#match: behavior.into(),
            }),
            ..Default::default()
        };
        let request = entry_api::CountEntriesRequest {
            filter: Some(filter),
        };
        let count = running
            .entries()
            .count_entries(request)
            .await
            .unwrap()
            .into_inner()
            .count;
        assert_eq!(count, expected, "{behavior:?} {selectors:?}");
    }
}

fn csr(uris: &[&str], dns: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()));
    params.subject_alt_names = names
        .chain(
            dns.iter()
                .map(|name| SanType::DnsName((*name).try_into().unwrap())),
        )
        .collect();
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn operators_mint_svids_of_any_workload_and_of_nobody_else() {
    let running = Running::start().await;
    let mint = |csr: Vec<u8>, ttl| {
        let request = svid_api::MintX509svidRequest {
            csr: csr.into(),
            ttl,
        };
        let mut svids = running.svids();
        async move { svids.mint_x509svid(request).await }
    };
    let minted = mint(csr(&["spiffe://example.org/x"], &["x.org"]), 60)
        .await
        .unwrap();
    let svid = minted.into_inner().svid.unwrap();
    assert_eq!(
        conform::any_leaf(&svid.cert_chain[0]).unwrap().as_str(),
        "spiffe://example.org/x"
    );
    for (uris, dns) in [
        (&[][..], &[][..]),
        (&["spiffe://example.org/x", "spiffe://example.org/y"], &[]),
        (&["spiffe://other.org/x"], &[]),
        (&["spiffe://example.org"], &[]),
        (&["spiffe://example.org/spire/server"], &[]),
        (&["https://example.org/x"], &[]),
        (&["spiffe://example.org/x"], &["-bad-"]),
    ] {
        let status = mint(csr(uris, dns), 60).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{uris:?} {dns:?}: {status}"
        );
    }
    for (bytes, ttl) in [
        (Vec::new(), 1),
        (vec![0; 40_000], 1),
        (csr(&["spiffe://example.org/x"], &[]), -1),
    ] {
        assert_eq!(
            mint(bytes, ttl).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let request = svid_api::MintJwtsvidRequest {
        id: id("/x"),
        audience: vec!["a".to_owned()],
        ttl: 60,
    };
    let token = running
        .svids()
        .mint_jwtsvid(request.clone())
        .await
        .unwrap()
        .into_inner()
        .svid
        .unwrap();
    assert_eq!(token.expires_at - token.issued_at, 60);
    let nobody = svid_api::MintJwtsvidRequest {
        audience: Vec::new(),
        ..request
    };
    let status = running.svids().mint_jwtsvid(nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_batch_of_svids_takes_everything_but_the_key_from_the_entries() {
    let running = Running::start().await;
    let created = create(&running, vec![entry("/web", "uid:1")]).await;
    let entry_id = created[0].1.clone().unwrap().id;
    let params = |entry_id: &str| svid_api::NewX509svidParams {
        entry_id: entry_id.to_owned(),
        csr: csr(&["spiffe://example.org/admin"], &["evil.org"]).into(),
    };
    let request = svid_api::BatchNewX509svidRequest {
        params: vec![params(&entry_id), params("missing")],
    };
    let results = running
        .svids()
        .batch_new_x509svid(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let svid = results[0].svid.clone().unwrap();
    assert_eq!(
        conform::any_leaf(&svid.cert_chain[0]).unwrap().path(),
        "/web"
    );
    assert_eq!(code(results[1].status.as_ref()), Code::NotFound);
    let request = svid_api::NewJwtsvidRequest {
        entry_id,
        audience: vec!["a".to_owned()],
    };
    let svid = running
        .svids()
        .new_jwtsvid(request)
        .await
        .unwrap()
        .into_inner()
        .svid
        .unwrap();
    assert_eq!(svid.id, id("/web"));
}

#[tokio::test]
async fn authorities_move_as_spire_clients_ask() {
    let running = Running::start().await;
    let mut client = LocalAuthorityClient::new(running.channel.clone());
    let state = |answer: authority_api::GetX509AuthorityStateResponse| {
        [answer.active, answer.prepared, answer.old]
            .map(|state| state.map(|state| state.authority_id))
    };
    let request = authority_api::GetX509AuthorityStateRequest {};
    let [active, prepared, old] = state(
        client
            .get_x509_authority_state(request)
            .await
            .unwrap()
            .into_inner(),
    );
    let active = active.unwrap();
    assert_eq!((prepared, old), (None, None));
    let taint = authority_api::TaintX509AuthorityRequest {
        authority_id: active.clone(),
    };
    let refused = client
        .taint_x509_authority(taint.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("--emergency"), "{refused}");
    let next = client
        .prepare_x509_authority(authority_api::PrepareX509AuthorityRequest {})
        .await;
    let next = next
        .unwrap()
        .into_inner()
        .prepared_authority
        .unwrap()
        .authority_id;
    let activate = authority_api::ActivateX509AuthorityRequest {
        authority_id: next.clone(),
    };
    client.activate_x509_authority(activate).await.unwrap();
    client.taint_x509_authority(taint).await.unwrap();
    let revoke = authority_api::RevokeX509AuthorityRequest {
        authority_id: active,
    };
    client.revoke_x509_authority(revoke).await.unwrap();
    let [active, prepared, old] = state(
        client
            .get_x509_authority_state(request)
            .await
            .unwrap()
            .into_inner(),
    );
    assert_eq!((active, prepared, old), (Some(next), None, None));
    let missing = authority_api::RevokeX509AuthorityRequest {
        authority_id: "x".to_owned(),
    };
    assert_eq!(
        client
            .revoke_x509_authority(missing)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn our_bundle_is_shown_and_never_set() {
    let running = Running::start().await;
    let mut client = BundleClient::new(running.channel.clone());
    let own = client
        .get_bundle(bundle_api::GetBundleRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (own.trust_domain.as_str(), own.x509_authorities.len()),
        ("example.org", 1)
    );
    let set = |bundle: types::Bundle| {
        let request = bundle_api::BatchSetFederatedBundleRequest {
            bundle: vec![bundle],
            output_mask: None,
        };
        let mut client = client.clone();
        async move {
            let answer = client
                .batch_set_federated_bundle(request)
                .await
                .unwrap()
                .into_inner();
            code(answer.results[0].status.as_ref())
        }
    };
    assert_eq!(set(own.clone()).await, Code::InvalidArgument);
    let stolen = types::Bundle {
        trust_domain: "other.org".to_owned(),
        ..own.clone()
    };
    assert_eq!(
        set(stolen).await,
        Code::InvalidArgument,
        "roots that say that they are ours"
    );
    let keys_only = types::Bundle {
        trust_domain: "other.org".to_owned(),
        x509_authorities: Vec::new(),
        ..own
    };
    assert_eq!(set(keys_only).await, Code::Ok);
    let request = bundle_api::GetFederatedBundleRequest {
        trust_domain: "spiffe://other.org".to_owned(),
        output_mask: None,
    };
    let found = client
        .get_federated_bundle(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.jwt_authorities.len(), 1);
}
