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

mod entries;
mod svids;

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
