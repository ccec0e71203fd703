//! The peer's certificate as a target sees it.

use std::borrow::Cow;

use crate::request::{Identity, IdentityKind, Request, Target};

/// The request as the target's filters see it: a waypoint holds a peer's URI SANs as one text, joined
/// by commas, because Istio fills its filter state with `%DOWNSTREAM_PEER_URI_SAN%`.
#[must_use]
pub fn seen(target: Target, request: &Request) -> Cow<'_, Request> {
    let is_uri = |identity: &&Identity| identity.kind == IdentityKind::Uri;
    let uris = request.source.identities.iter().filter(is_uri);
    if target != Target::Waypoint || uris.clone().count() < 2 {
        return Cow::Borrowed(request);
    }
    let joined: Vec<&str> = uris.map(|identity| identity.value.as_str()).collect();
    let identity = Identity {
        kind: IdentityKind::Uri,
        value: joined.join(","),
    };
    let mut request = request.clone();
    request.source.identities = vec![identity];
    Cow::Owned(request)
}
