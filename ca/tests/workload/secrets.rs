//! Envoy's secret discovery on the workload socket.

use std::collections::BTreeMap;

use portcullis_ca::identities::Identities as _;
use portcullis_ca::proto::sds::data_source::Specifier;
use portcullis_ca::proto::sds::secret::Type;
use portcullis_ca::proto::sds::{
    DataSource, DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse, Node, Secret,
    SpiffeCertValidatorConfig, Status as Detail,
};
use prost::Message as _;
use prost_types::value::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::fake::bundle_of;
use super::server::{Server, nothing, soon, until};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

struct Envoy {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Envoy {
    async fn connect(server: &Server) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let stream = ReceiverStream::new(receiver);
        let answers = server.sds().await.stream_secrets(stream).await;
        Self {
            requests,
            answers: answers.unwrap().into_inner(),
        }
    }

    async fn ask(&self, names: &[&str]) {
        self.requests.send(request(names)).await.unwrap();
    }

    async fn answer(&mut self) -> DiscoveryResponse {
        soon(self.answers.message()).await.unwrap().unwrap()
    }

    async fn acknowledge(&self, answer: &DiscoveryResponse, names: &[&str]) {
        let request = DiscoveryRequest {
            version_info: answer.version_info.clone(),
            response_nonce: answer.nonce.clone(),
            ..request(names)
        };
        self.requests.send(request).await.unwrap();
    }
}

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: SECRET.to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DiscoveryRequest::default()
    }
}

fn plain_ca(value: Kind) -> Node {
    let value = prost_types::Value { kind: Some(value) };
    let fields = [("disable_spiffe_cert_validation".to_owned(), value)];
    Node {
        metadata: Some(prost_types::Struct {
            fields: fields.into(),
        }),
        ..Node::default()
    }
}

fn text(source: Option<DataSource>) -> String {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Each secret in a word: `name: svid`, or `name: domain=certificates, …`, or `name: ca=certificates`.
fn words(answer: &DiscoveryResponse) -> Vec<String> {
    let count = |pem: &str| pem.matches("BEGIN CERTIFICATE").count();
    let mut all: Vec<String> = answer
        .resources
        .iter()
        .map(|resource| {
            assert_eq!(resource.type_url, SECRET);
            let secret = Secret::decode(&resource.value[..]).unwrap();
            let word = match secret.r#type.unwrap() {
                Type::TlsCertificate(certificate) => {
                    assert_eq!(count(&text(certificate.certificate_chain)), 1);
                    let key = text(certificate.private_key);
                    rcgen::KeyPair::from_pem(&key).unwrap();
                    "svid".to_owned()
                }
                Type::ValidationContext(context) => match context.custom_validator_config {
                    None => format!("ca={}", count(&text(context.trusted_ca))),
                    Some(config) => {
                        assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
                        let config = config.typed_config.unwrap();
                        let config = SpiffeCertValidatorConfig::decode(&config.value[..]).unwrap();
                        let domains: BTreeMap<String, usize> = config
                            .trust_domains
                            .into_iter()
                            .map(|one| (one.name, count(&text(one.trust_bundle))))
                            .collect();
                        format!("{domains:?}")
                    }
                },
            };
            format!("{}: {word}", secret.name)
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn any_names_in_any_combination() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    server.fake.entry("spiffe://example.org/b");
    server.fake.federate(bundle_of("other.org", 2));
    let mut sds = server.sds().await;
    let own = r#"{"example.org": 1}"#;
    let all = r#"{"example.org": 1, "other.org": 2}"#;
    for (names, expected) in [
        (&["default"][..], vec!["default: svid".to_owned()]),
        (&["ROOTCA"], vec![format!("ROOTCA: {own}")]),
        (&["ALL"], vec![format!("ALL: {all}")]),
        (
            &["spiffe://other.org"],
            vec![r#"spiffe://other.org: {"other.org": 2}"#.to_owned()],
        ),
        (
            &["spiffe://example.org/b"],
            vec!["spiffe://example.org/b: svid".to_owned()],
        ),
        (
            &[
                "ROOTCA",
                "ALL",
                "spiffe://example.org",
                "default",
                "ROOTCA",
                "spiffe://example.org/a",
            ],
            vec![
                format!("ALL: {all}"),
                format!("ROOTCA: {own}"),
                "default: svid".to_owned(),
                "spiffe://example.org/a: svid".to_owned(),
                format!("spiffe://example.org: {own}"),
            ],
        ),
        (
            &[],
            vec![
                format!("ALL: {all}"),
                format!("ROOTCA: {own}"),
                "default: svid".to_owned(),
                "spiffe://example.org/a: svid".to_owned(),
                "spiffe://example.org/b: svid".to_owned(),
                format!("spiffe://example.org: {own}"),
                r#"spiffe://other.org: {"other.org": 2}"#.to_owned(),
            ],
        ),
    ] {
        let mut expected = expected;
        expected.sort();
        let answer = soon(sds.fetch_secrets(request(names)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(words(&answer), expected, "{names:?}");
        // A stream says the same.
        let mut envoy = Envoy::connect(&server).await;
        envoy.ask(names).await;
        assert_eq!(words(&envoy.answer().await), expected, "{names:?}");
    }
}

#[tokio::test]
async fn plain_ca_certificates_where_the_validator_is_disabled() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    server.fake.federate(bundle_of("other.org", 2));
    let mut sds = server.sds().await;
    for value in [Kind::BoolValue(true), Kind::StringValue("true".into())] {
        let mut ask = request(&["ROOTCA", "spiffe://other.org"]);
        ask.node = Some(plain_ca(value.clone()));
        let answer = sds.fetch_secrets(ask).await.unwrap().into_inner();
        assert_eq!(words(&answer), ["ROOTCA: ca=1", "spiffe://other.org: ca=2"]);
        let mut ask = request(&["ALL"]);
        ask.node = Some(plain_ca(value));
        let status = sds.fetch_secrets(ask).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains("SPIFFE certificate validator"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_a_caller_is_not_entitled_to_fails_the_stream() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut sds = server.sds().await;
    for (names, says) in [
        (
            &["spiffe://example.org/b"][..],
            "not entitled to `spiffe://example.org/b`",
        ),
        (
            &["default", "spiffe://foreign.org"],
            "not entitled to `spiffe://foreign.org`",
        ),
        (&["nonsense"], "ask for `default`"),
        (&[""], "ask for `default`"),
    ] {
        let status = sds.fetch_secrets(request(names)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(says), "{status}");
        let mut envoy = Envoy::connect(&server).await;
        envoy.ask(names).await;
        let status = soon(envoy.answers.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let mut wrong = request(&["default"]);
    wrong.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let status = sds.fetch_secrets(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_envoy_that_starts_before_its_entry_waits_for_it() {
    let server = Server::start().await;
    let status = server
        .sds()
        .await
        .fetch_secrets(request(&["default"]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut envoy = Envoy::connect(&server).await;
    envoy.ask(&["default"]).await;
    assert!(nothing(envoy.answers.message()).await);
    server.fake.entry("spiffe://example.org/a");
    assert_eq!(words(&envoy.answer().await), ["default: svid"]);
    server.fake.remove("spiffe://example.org/a");
    let status = soon(envoy.answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn updates_acknowledgements_and_refusals() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let names = &["default", "ROOTCA"];
    let mut envoy = Envoy::connect(&server).await;
    envoy.ask(names).await;
    let first = envoy.answer().await;
    assert_eq!(first.nonce.len(), 8);
    let deliveries = server.fake.deliveries();
    assert_eq!(deliveries.behind(1), 1, "sent, but not acknowledged");
    envoy.acknowledge(&first, names).await;
    until(|| deliveries.behind(1) == 0).await;
    server.fake.touch();
    assert!(
        nothing(envoy.answers.message()).await,
        "nothing new, no answer"
    );
    server.fake.rotate();
    let second = envoy.answer().await;
    assert_eq!(
        words(&second),
        [r#"ROOTCA: {"example.org": 2}"#, "default: svid"]
    );
    assert_ne!(second.version_info, first.version_info);
    // A word about an older answer is none about this one.
    envoy.acknowledge(&first, names).await;
    assert!(nothing(deliveries.reached(2)).await);
    envoy.acknowledge(&second, names).await;
    soon(deliveries.reached(2)).await;
    // A refusal is not delivered, not sent again, and not waited for.
    server.fake.rotate();
    let third = envoy.answer().await;
    let refusal = DiscoveryRequest {
        version_info: second.version_info.clone(),
        response_nonce: third.nonce.clone(),
        error_detail: Some(Detail {
            code: 13,
            message: "I cannot read this".to_owned(),
            ..Detail::default()
        }),
        ..request(names)
    };
    envoy.requests.send(refusal).await.unwrap();
    soon(deliveries.reached(3)).await;
    assert_eq!(deliveries.live(), 0);
    assert!(nothing(envoy.answers.message()).await);
    server.fake.rotate();
    envoy.answer().await;
    // Other names are answered at once.
    envoy.ask(&["ROOTCA"]).await;
    assert_eq!(
        words(&envoy.answer().await),
        [r#"ROOTCA: {"example.org": 4}"#]
    );
}

#[tokio::test]
async fn a_stream_without_our_bundle_is_not_waited_for() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let mut envoy = Envoy::connect(&server).await;
    envoy.ask(&["default"]).await;
    envoy.answer().await;
    server.fake.rotate();
    soon(server.fake.deliveries().reached(2)).await;
}

#[tokio::test]
async fn delta_tells_what_is_new_and_only_that() {
    let server = Server::start().await;
    server.fake.entry("spiffe://example.org/a");
    let (requests, receiver) = mpsc::channel(16);
    let answers = server
        .sds()
        .await
        .delta_secrets(ReceiverStream::new(receiver))
        .await;
    let mut answers = answers.unwrap().into_inner();
    let ask = |more: &[&str], less: &[&str], nonce: &str| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = DeltaDiscoveryRequest {
            type_url: SECRET.to_owned(),
            resource_names_subscribe: owned(more),
            resource_names_unsubscribe: owned(less),
            response_nonce: nonce.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let requests = requests.clone();
        async move { requests.send(request).await.unwrap() }
    };
    let names = |answer: &portcullis_ca::proto::sds::DeltaDiscoveryResponse| {
        let mut names: Vec<String> = answer
            .resources
            .iter()
            .map(|one| one.name.clone())
            .collect();
        names.sort();
        names
    };
    ask(&["default", "ROOTCA"], &[], "").await;
    let first = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!(names(&first), ["ROOTCA", "default"]);
    ask(&[], &[], &first.nonce).await;
    let deliveries = server.fake.deliveries();
    until(|| deliveries.behind(1) == 0).await;
    server.fake.touch();
    assert!(nothing(answers.message()).await);
    // A federated bundle changes neither of the two.
    server.fake.federate(bundle_of("other.org", 1));
    assert!(nothing(answers.message()).await);
    ask(&["spiffe://other.org"], &[], "").await;
    let second = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!(names(&second), ["spiffe://other.org"]);
    ask(&[], &["spiffe://other.org"], &second.nonce).await;
    server.fake.rotate();
    let third = soon(answers.message()).await.unwrap().unwrap();
    assert_eq!(names(&third), ["ROOTCA", "default"]);
    assert!(nothing(deliveries.reached(2)).await);
    ask(&[], &[], &third.nonce).await;
    soon(deliveries.reached(2)).await;
}
