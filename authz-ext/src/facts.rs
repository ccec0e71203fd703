//! A `CheckRequest` and its gRPC metadata become the engine's own [`Request`].
//!
//! What Envoy's attribute context does not carry, the proxy adds as context extensions
//! (`portcullis.workload`) or as gRPC metadata (`x-portcullis-workload`). A context extension wins:
//! it belongs to one route, while metadata belongs to the whole filter. A fact that is stated but
//! cannot be read makes the request [`Invalid`]; it is never dropped, because a rule that looks at
//! it would then silently see something else.

pub(crate) mod address;
pub(crate) mod certificate;
mod headers;
mod metadata;
pub(crate) mod remote;
pub(crate) mod stated;

use std::net::IpAddr;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer;
use portcullis_policy::path;
use portcullis_policy::request::{
    Checked, Destination, Identity, IdentityKind, Missing, PathForm, Request, Source, Target,
};
use tonic::metadata::MetadataMap;

use self::address::SocketPeer;
use self::stated::Stated;

/// What a listener knows about every request that it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How paths arrive.
    pub path_form: PathForm,
    /// Target where the request states none; `None` is `auto`.
    pub target: Option<Target>,
    /// Trusted proxies in front of the gateway, instead of MeshConfig's `numTrustedProxies`. Where
    /// neither says, a request with X-Forwarded-For has no known remote address.
    pub num_trusted_proxies: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path_form: PathForm::Raw,
            target: None,
            num_trusted_proxies: None,
        }
    }
}

/// A request that cannot be decided, in words for the log; its answer is
/// [`Reason::InvalidRequest`](portcullis_policy::decision::Reason::InvalidRequest).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Reads the facts of one request.
///
/// `metadata` are the gRPC request's own headers; empty off-line.
///
/// # Errors
/// [`Invalid`] when the source or destination is missing, or a stated fact cannot be read.
pub fn request(
    check: CheckRequest,
    metadata: &MetadataMap,
    options: &Options,
) -> Result<Request, Invalid> {
    // Every field by name: a new one must be looked at.
    let AttributeContext {
        source,
        destination,
        request,
        context_extensions,
        metadata_context,
        route_metadata_context: _,
        tls_session,
    } = check
        .attributes
        .ok_or_else(|| Invalid("the request has no `attributes`".to_owned()))?;
    let stated = Stated::new(&context_extensions, metadata);

    let direct_address = stated.direct_address()?;
    if source.is_none() && direct_address.is_none() {
        return Err(Invalid("the request has no `attributes.source`".to_owned()));
    }
    let source = source.unwrap_or_default();
    let peer = address::read(source.address.as_ref(), "source")?;
    let mut http = request.and_then(|request| request.http).map(headers::http);
    if let (Some(http), PathForm::Raw) = (&mut http, options.path_form)
        && let Some(authority) = path::authority(&http.path)
    {
        // Envoy takes the host of an absolute target, not the Host header.
        http.host = authority.to_owned();
    }
    let remote = remote::address(
        stated.remote_address(&peer)?,
        &peer,
        http.as_ref().map(|http| &http.headers),
        options.num_trusted_proxies,
    );
    let source = read_source(source, direct_address.or(peer.ip()))?;
    let mut missing = Missing {
        source_address: direct_address.is_none() && peer == SocketPeer::Unknown,
        ..Missing::default()
    };

    let workload = stated.workload()?;
    if destination.is_none() && workload.is_none() {
        return Err(Invalid(
            "the request has no `attributes.destination`".to_owned(),
        ));
    }
    let destination = destination.unwrap_or_default();
    let destination = read_destination(destination, workload, &stated, &mut missing)?;

    let metadata = metadata_context.map(metadata::read).unwrap_or_default();
    Ok(Request {
        source,
        remote,
        destination,
        target: stated.target()?.unwrap_or(options.target),
        sni: tls_session
            .map(|session| session.sni)
            .filter(|sni| !sni.is_empty()),
        http,
        path_form: options.path_form,
        jwt: metadata::jwt_payload(&metadata),
        metadata,
        checked: Checked::default(),
        missing,
    })
}

fn read_source(peer: Peer, address: Option<IpAddr>) -> Result<Source, Invalid> {
    let mut identities = Vec::new();
    if !peer.certificate.is_empty() {
        identities = certificate::identities(&peer.certificate)?;
    }
    let certificate_presented = !peer.certificate.is_empty() || !peer.principal.is_empty();
    let known = |identity: &Identity| identity.value == peer.principal;
    if !peer.principal.is_empty() && !identities.iter().any(known) {
        let principal = Identity {
            kind: IdentityKind::Principal,
            value: peer.principal,
        };
        identities.insert(0, principal);
    }
    Ok(Source {
        identities,
        certificate_presented,
        address,
    })
}

fn read_destination(
    peer: Peer,
    workload: Option<String>,
    stated: &Stated<'_>,
    missing: &mut Missing,
) -> Result<Destination, Invalid> {
    let (address, port) = match address::read(peer.address.as_ref(), "destination")? {
        SocketPeer::Ip { address, port } => {
            missing.destination_port = port.is_none();
            (Some(address), port)
        }
        SocketPeer::Pipe => (None, None),
        SocketPeer::Unknown => {
            missing.destination_address = true;
            missing.destination_port = true;
            (None, None)
        }
    };
    Ok(Destination {
        workload,
        service: stated.service()?,
        address,
        port,
        principal: Some(peer.principal).filter(|principal| !principal.is_empty()),
    })
}

#[cfg(test)]
mod tests;
