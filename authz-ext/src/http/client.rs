//! Addresses of the original client: the proxy's own peer, and the client behind further proxies.

use std::net::IpAddr;

use portcullis_policy::request::{Headers, RemoteAddress};
use tonic::codegen::http::HeaderMap;

use super::header::{malformed, text};
use super::peer::Peer;
use super::{Dialect, Options};
use crate::check::Refusal;
use crate::facts::address::{self, SocketPeer};
use crate::facts::remote;
use crate::facts::stated::Stated;

/// `source.ip` and `remote.ip`.
pub(super) struct Addresses {
    pub(super) direct: Option<IpAddr>,
    pub(super) remote: RemoteAddress,
}

/// What the proxy states; else, where it appends its peer to X-Forwarded-For, the last entry there,
/// and the client by the number of `trusted` proxies in front of it; else the check's own peer, with
/// the client unknown.
pub(super) fn addresses(
    headers: &HeaderMap,
    rules_see: &Headers,
    options: &Options,
    stated: &Stated<'_>,
    peer: &Peer,
    trusted: Option<u32>,
) -> Result<Addresses, Refusal> {
    let appended = match options.dialect.appends_peer() {
        true => appended(headers, options.dialect)?,
        false => None,
    };
    let stated_direct = stated.direct_address()?;
    let direct = match (stated_direct, &appended) {
        (Some(address), _) => Some(address),
        (None, Some(entries)) => entries.last,
        (None, None) => peer.address,
    };
    let socket = direct.map_or(SocketPeer::Pipe, |address| SocketPeer::Ip {
        address,
        port: None,
    });
    let remote = match (stated.remote_address(&socket)?, &appended) {
        (Some(remote), _) => remote,
        // Nobody stands before the proxy: its peer is the client.
        (None, Some(Appended { others: false, .. })) => {
            direct.map_or(RemoteAddress::None, RemoteAddress::Known)
        }
        (None, Some(_)) => remote::address(None, &socket, Some(rules_see), trusted),
        (None, None) => RemoteAddress::Unknown,
    };
    Ok(Addresses { direct, remote })
}

struct Appended {
    /// The last entry; `None` for a unix socket.
    last: Option<IpAddr>,
    /// There are entries before it.
    others: bool,
}

fn appended(headers: &HeaderMap, dialect: Dialect) -> Result<Option<Appended>, Refusal> {
    const NAME: &str = "x-forwarded-for";
    let mut entries = Vec::new();
    for value in headers.get_all(NAME) {
        entries.extend(text(NAME, value)?.split(',').map(str::trim));
    }
    let Some((last, others)) = entries.split_last() else {
        return Ok(None);
    };
    let others = !others.is_empty();
    // nginx calls the peer of a unix socket so.
    if *last == "unix:" {
        return Ok(Some(Appended { last: None, others }));
    }
    let last = address::parse(last).ok_or_else(|| {
        malformed(format!(
            "the last entry of `{NAME}`, which `{dialect}` appends, is no address"
        ))
    })?;
    Ok(Some(Appended {
        last: Some(last.to_canonical()),
        others,
    }))
}
