//! What no well-behaved proxy sends.

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use portcullis_authz::client;
use portcullis_authz::endpoint::Endpoint;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use super::support::*;

/// Sends any bytes as the message.
#[derive(Clone, Copy)]
struct RawCodec;

struct RawEncoder;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = CheckResponse;
    type Encoder = RawEncoder;
    type Decoder = <ProstCodec<CheckRequest, CheckResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<CheckRequest, CheckResponse>::raw_decoder(BufferSettings::default())
    }
}

impl Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, bytes: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        prost::bytes::BufMut::put_slice(buffer, &bytes);
        Ok(())
    }
}

async fn send(
    endpoint: &Endpoint,
    method: &'static str,
    bytes: Vec<u8>,
) -> Result<CheckResponse, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(client::channel(endpoint).await.unwrap());
    grpc.ready().await.unwrap();
    let path = method.parse().unwrap();
    let answer = grpc.unary(tonic::Request::new(bytes), path, RawCodec).await;
    answer.map(tonic::Response::into_inner)
}

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

async fn running() -> (Running, tempfile::TempDir) {
    let folder = folder(&[
        ("inventory.yaml", INVENTORY),
        ("p.yaml", &allow("/public*")),
    ]);
    (
        Running::start(options(folder.path(), vec![tcp()])).await,
        folder,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_check_request_is_denied_as_invalid() {
    let (running, _folder) = running().await;
    let endpoint = &running.endpoints[0];
    // attributes.source.principal = FF: a string that is not UTF-8.
    let not_utf8 = vec![0x0a, 0x05, 0x0a, 0x03, 0x22, 0x01, 0xff];
    // A length that promises more than there is; an invalid tag; a flood of groups.
    let cut_off = vec![0x0a, 0x7f, 0x01];
    let no_tag = vec![0x00, 0x01, 0x02];
    let groups = vec![0x0b; 100_000];
    for bytes in [Vec::new(), not_utf8, cut_off, no_tag, groups] {
        let response = send(endpoint, CHECK, bytes).await.unwrap();
        assert_eq!(response.status.as_ref().unwrap().code, 7);
        assert_eq!(reason(&response), "invalid_request");
    }
    // The connection and the server live on.
    assert_eq!(
        ask(&mut running.client().await, "/public").await,
        "allowed_by"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_lacks_or_garbles_a_fact_is_denied_as_invalid() {
    let (running, _folder) = running().await;
    let mut client = running.client().await;
    let mut no_source = get("/public");
    no_source.attributes.as_mut().unwrap().source = None;
    let mut garbled = get("/public");
    let extensions = &mut garbled.attributes.as_mut().unwrap().context_extensions;
    extensions.insert("portcullis.remote_address".into(), "nowhere".into());
    for request in [CheckRequest::default(), no_source, garbled] {
        let response = client.check(tonic::Request::new(request)).await.unwrap();
        assert_eq!(reason(&response), "invalid_request");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabyte_passes_and_more_than_the_limit_does_not() {
    let (running, _folder) = running().await;
    let mut client = running.client().await;
    let megabyte = "a".repeat(1 << 20);
    assert_eq!(
        ask(&mut client, &format!("/public/{megabyte}")).await,
        "allowed_by"
    );
    let mut request = get("/public");
    let attributes = request.attributes.as_mut().unwrap();
    let http = attributes.request.as_mut().unwrap().http.as_mut().unwrap();
    http.headers.insert("x-big".into(), megabyte);
    let response = client.check(tonic::Request::new(request)).await.unwrap();
    assert_eq!(reason(&response), "allowed_by");

    let response = send(&running.endpoints[0], CHECK, vec![0; 5 << 20]).await;
    let response = response.unwrap();
    assert_eq!(response.status.as_ref().unwrap().code, 7);
    assert_eq!(reason(&response), "overloaded");
    assert_eq!(ask(&mut client, "/public").await, "allowed_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_or_service_is_unimplemented() {
    let (running, _folder) = running().await;
    for method in [
        "/envoy.service.auth.v3.Authorization/Chekc",
        "/envoy.service.auth.v2.Authorization/Check",
    ] {
        let error = send(&running.endpoints[0], method, Vec::new())
            .await
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unimplemented);
    }
    running.stop().await;
}
