//! Socket addresses of the attribute context.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};

use super::Invalid;

/// One end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketPeer {
    /// An IP socket; a port of zero is none.
    Ip { address: IpAddr, port: Option<u16> },
    /// A unix socket or Envoy's internal listener: no IP address at all.
    Pipe,
    /// Not stated.
    Unknown,
}

impl SocketPeer {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip { address, .. } => Some(*address),
            Self::Pipe | Self::Unknown => None,
        }
    }
}

pub(crate) fn read(address: Option<&Address>, whose: &str) -> Result<SocketPeer, Invalid> {
    match address.and_then(|address| address.address.as_ref()) {
        None => Ok(SocketPeer::Unknown),
        Some(Kind::Pipe(_) | Kind::EnvoyInternalAddress(_)) => Ok(SocketPeer::Pipe),
        Some(Kind::SocketAddress(socket)) => read_socket(socket, whose),
    }
}

fn read_socket(socket: &SocketAddress, whose: &str) -> Result<SocketPeer, Invalid> {
    let address = parse(&socket.address).ok_or_else(|| {
        Invalid(format!(
            "the {whose} address `{}` is not an IP address",
            socket.address.escape_debug()
        ))
    })?;
    let port = match &socket.port_specifier {
        None | Some(PortSpecifier::PortValue(0)) => None,
        Some(PortSpecifier::PortValue(port)) => Some(
            u16::try_from(*port)
                .map_err(|_| Invalid(format!("the {whose} port `{port}` is above 65535")))?,
        ),
        Some(PortSpecifier::NamedPort(name)) => {
            return Err(Invalid(format!(
                "the {whose} port `{}` is a name, not a number",
                name.escape_debug()
            )));
        }
    };
    Ok(SocketPeer::Ip {
        // What accept() on a dual-stack socket calls `::ffff:10.1.1.1` is the IPv4 peer 10.1.1.1:
        // Envoy unmaps it before any rule sees it.
        address: address.to_canonical(),
        port,
    })
}

/// An IP address as proxies print it: without a port, IPv6 perhaps with a zone (`fe80::1%eth0`).
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, zone) = text.split_once('%')?;
    let address: std::net::Ipv6Addr = address.parse().ok()?;
    (!zone.is_empty()).then_some(IpAddr::V6(address))
}
