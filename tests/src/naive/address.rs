//! Addresses and CIDR blocks as Go's netip reads them.

use std::net::IpAddr;

/// Whether `address` is in the block, or `Err` when the block cannot be read.
///
/// # Errors
/// The text is neither an address nor a CIDR block.
pub fn in_block(block: &str, address: Option<IpAddr>) -> Result<bool, ()> {
    let (network, length) = match block.split_once('/') {
        None => {
            let network: IpAddr = block.parse().map_err(drop)?;
            (network, bits(network).len())
        }
        Some((network, length)) => {
            let network: IpAddr = network.parse().map_err(drop)?;
            let canonical = !length.is_empty()
                && length.bytes().all(|byte| byte.is_ascii_digit())
                && (length == "0" || !length.starts_with('0'));
            let length: usize = length.parse().map_err(drop)?;
            if !canonical || length > bits(network).len() {
                return Err(());
            }
            (network, length)
        }
    };
    let Some(address) = address else {
        return Ok(false);
    };
    Ok(
        network.is_ipv4() == address.is_ipv4()
            && bits(network)[..length] == bits(address)[..length],
    )
}

/// The address bit by bit, most significant first.
fn bits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets
        .iter()
        .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1))
        .collect()
}

/// A port as text, or `Err` when it is not 0 to 65535.
///
/// # Errors
/// The text is not a port.
pub fn port(text: &str) -> Result<u16, ()> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(());
    }
    text.parse().map_err(drop)
}
