//! The engine's request as Envoy would have put it to the provider.

use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request as AttributeRequest, TlsSession,
};
use portcullis_policy::request::{Http, Request};

/// Attributes of a `CheckRequest`: what Istio's filters send, as far as it reached us.
pub(super) fn check_request(request: &Request) -> CheckRequest {
    let source = &request.source;
    let principal = source
        .identities
        .first()
        .map(|identity| identity.value.clone());
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: source.address.map(|ip| address(ip, None)),
                principal: principal.unwrap_or_default(),
                ..Peer::default()
            }),
            destination: Some(Peer {
                address: request
                    .destination
                    .address
                    .map(|ip| address(ip, request.destination.port)),
                principal: request.destination.principal.clone().unwrap_or_default(),
                ..Peer::default()
            }),
            request: request.http.as_ref().map(|http| AttributeRequest {
                time: None,
                http: Some(http_request(http)),
            }),
            tls_session: request.sni.clone().map(|sni| TlsSession { sni }),
            ..AttributeContext::default()
        }),
    }
}

fn address(ip: IpAddr, port: Option<u16>) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: ip.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(port.unwrap_or_default().into())),
            ..SocketAddress::default()
        })),
    }
}

fn http_request(http: &Http) -> HttpRequest {
    let mut headers: HashMap<String, String> = HashMap::new();
    let pseudo = [
        (":method", &http.method),
        (":path", &http.path),
        (":authority", &http.host),
        (":scheme", &http.scheme),
    ];
    let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.clone()));
    let plain = http
        .headers
        .entries
        .iter()
        .filter(|(name, _)| name != "host");
    for (name, value) in pseudo.into_iter().chain(plain.cloned()) {
        match headers.get_mut(&name) {
            // As Envoy merges them.
            Some(merged) => {
                merged.push(',');
                merged.push_str(&value);
            }
            None => {
                headers.insert(name, value);
            }
        }
    }
    HttpRequest {
        id: headers.get("x-request-id").cloned().unwrap_or_default(),
        method: http.method.clone(),
        path: http.path.clone(),
        host: http.host.clone(),
        scheme: http.scheme.clone(),
        headers,
        size: -1,
        ..HttpRequest::default()
    }
}
