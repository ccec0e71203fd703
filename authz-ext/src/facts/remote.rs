//! The client's address behind proxies (`remote.ip`), where the proxy does not state it.

use portcullis_policy::request::{Headers, RemoteAddress};

use super::address::{self, SocketPeer};

/// The stated address, else the one that X-Forwarded-For gives with `trusted` proxies in front.
pub(crate) fn address(
    stated: Option<RemoteAddress>,
    peer: &SocketPeer,
    headers: Option<&Headers>,
    trusted: Option<u32>,
) -> RemoteAddress {
    if let Some(stated) = stated {
        return stated;
    }
    let peer_address = match peer {
        SocketPeer::Ip { address, .. } => RemoteAddress::Known(*address),
        SocketPeer::Pipe => RemoteAddress::None,
        SocketPeer::Unknown => RemoteAddress::Unknown,
    };
    let mut forwarded = headers.map(forwarded_for).unwrap_or_default();
    if forwarded.is_empty() {
        return peer_address;
    }
    let Some(trusted) = trusted else {
        return RemoteAddress::Unknown;
    };
    // With use_remote_address, which a gateway has, Envoy counts before it appends its peer; what
    // reaches us has the peer at the end.
    if let (Some(last), Some(peer)) = (forwarded.last(), peer.ip())
        && address::parse(last) == Some(peer)
    {
        forwarded.pop();
    }
    // Zero trusted proxies, too few entries, or an entry that is no address: Envoy takes the peer.
    usize::try_from(trusted)
        .ok()
        .and_then(|trusted| forwarded.len().checked_sub(trusted))
        .and_then(|index| forwarded.get(index))
        .and_then(|entry| address::parse(entry))
        .map_or(peer_address, RemoteAddress::Known)
}

/// Entries of every X-Forwarded-For header, in order. A header that is empty is a header.
fn forwarded_for(headers: &Headers) -> Vec<&str> {
    headers
        .entries
        .iter()
        .filter(|(name, _)| name == "x-forwarded-for")
        .flat_map(|(_, value)| value.split(','))
        .map(str::trim)
        .collect()
}
