//! Address blocks of `ipBlocks`, `remoteIpBlocks`, `source.ip`, `remote.ip` and `destination.ip`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a value is no address block.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidCidr {
    /// The address cannot be read.
    #[error("`{0}` is no IPv4 or IPv6 address: write it without leading zeros, brackets or port")]
    Address(String),
    /// The prefix length cannot be read.
    #[error("`{0}` is no prefix length: give a number without sign or leading zeros")]
    Prefix(String),
    /// The prefix is longer than the address.
    #[error("a prefix of {0} bits is too long: an IPv4 address has 32, an IPv6 address 128")]
    TooLong(u32),
    /// An IPv6 zone with a prefix.
    #[error("an address block cannot have an IPv6 zone (`%`)")]
    Zone,
}

/// An IPv4 or IPv6 block. An IPv4 block holds no IPv6 address and the other way round: an
/// IPv4-mapped IPv6 address (`::ffff:10.1.1.1`) is an IPv6 address (policy.md 1.15.9).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    text: String,
    network: IpAddr,
    prefix_len: u8,
}

impl Cidr {
    /// Reads an address or a block in the syntax of Go's `netip`, which Istio uses. Host bits are
    /// masked; the zone of a bare IPv6 address is dropped.
    ///
    /// # Errors
    /// What istiod cannot read.
    pub fn parse(value: &str) -> Result<Self, InvalidCidr> {
        let (network, prefix_len) = match value.rsplit_once('/') {
            None => {
                let address = parse_address(value)?;
                (address, if address.is_ipv4() { 32 } else { 128 })
            }
            Some((address, _)) if address.contains('%') => return Err(InvalidCidr::Zone),
            Some((address, bits)) => {
                let address = parse_address(address)?;
                (address, parse_prefix_len(bits, address)?)
            }
        };
        Ok(Self {
            text: value.to_owned(),
            network: masked(network, prefix_len),
            prefix_len,
        })
    }

    /// The value as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// First address of the block.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Length of the prefix in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// True when `address` is of the same family and lies in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4()
            && masked(address, self.prefix_len) == self.network
    }
}

/// The block in canonical form, such as `10.1.1.0/24`.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

fn parse_address(value: &str) -> Result<IpAddr, InvalidCidr> {
    let bad = || InvalidCidr::Address(value.to_owned());
    match value.split_once('%') {
        None => value.parse().map_err(|_| bad()),
        Some((_, "")) => Err(bad()),
        Some((address, _)) => address
            .parse::<Ipv6Addr>()
            .map(IpAddr::V6)
            .map_err(|_| bad()),
    }
}

fn parse_prefix_len(bits: &str, address: IpAddr) -> Result<u8, InvalidCidr> {
    let bad = || InvalidCidr::Prefix(bits.to_owned());
    let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|o| o.is_ascii_digit()));
    let bits: u32 = bits.parse().ok().filter(|_| plain).ok_or_else(bad)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    u8::try_from(bits)
        .ok()
        .filter(|bits| *bits <= longest)
        .ok_or(InvalidCidr::TooLong(bits))
}

fn masked(address: IpAddr, prefix_len: u8) -> IpAddr {
    let bits = u32::from(prefix_len);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32u32.saturating_sub(bits))
                .unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128u32.saturating_sub(bits))
                .unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}
