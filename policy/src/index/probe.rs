//! Asking an index: from a request to every key it has, as far as the slice files under such keys.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::key::{AddressField, Block, Key, TextField};
use crate::facts::Facts;
use crate::request::RemoteAddress;

/// What a slice files under: nothing else of a request is looked at.
#[derive(Debug, Default)]
pub struct Probes {
    identity: bool,
    identity_prefixes: BTreeSet<usize>,
    namespace: bool,
    service_account: bool,
    ztunnel: bool,
    blocks: BTreeSet<(AddressField, u8, u8)>,
    port: bool,
    method: Lengths,
    path: Lengths,
    host: Lengths,
    sni: Lengths,
    headers: FxHashMap<Arc<str>, Vec<u32>>,
    claims: FxHashMap<Vec<Arc<str>>, u64>,
    request_principal: bool,
    /// Rules filed under addresses and ports: all of them possibly match where those are not known.
    unknown: FxHashMap<Unknown, Vec<u32>>,
}

/// A fact that a request may leave unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unknown {
    Address(AddressField),
    Port,
}

/// Which forms of a text are filed, and how long they are.
#[derive(Debug, Default)]
struct Lengths {
    exact: bool,
    prefixes: BTreeSet<usize>,
    suffixes: BTreeSet<usize>,
}

impl Lengths {
    fn ask(&self, field: TextField<'_>, text: &str, found: &mut impl FnMut(u64)) {
        if self.exact {
            found(Key::Exact(field, text).hash());
        }
        for length in self.prefixes.iter().take_while(|l| **l <= text.len()) {
            if let Some(start) = text.get(..*length) {
                found(Key::Prefix(field, start).hash());
            }
        }
        for length in self.suffixes.iter().take_while(|l| **l <= text.len()) {
            if let Some(end) = text.get(text.len().saturating_sub(*length)..) {
                found(Key::Suffix(field, end).hash());
            }
        }
    }
}

impl Probes {
    /// Notes that a rule was filed under `key`.
    pub fn file(&mut self, key: &Key<'_>, place: u32) {
        match key {
            Key::Identity(_) => self.identity = true,
            Key::IdentityPrefix(start) => {
                self.identity_prefixes.insert(start.len());
            }
            Key::Namespace(_) => self.namespace = true,
            Key::ServiceAccount(_) => self.service_account = true,
            Key::ZtunnelNamespace(_) | Key::ZtunnelAccount(_) => self.ztunnel = true,
            Key::Block(field, block) => {
                self.blocks.insert((*field, block.version, block.length));
                self.note(Unknown::Address(*field), place);
            }
            Key::Port(_) => {
                self.port = true;
                self.note(Unknown::Port, place);
            }
            Key::Exact(TextField::Header(name), _) => match self.headers.get_mut(*name) {
                Some(places) => places.push(place),
                None => {
                    self.headers.insert(Arc::from(*name), vec![place]);
                }
            },
            Key::Exact(field, _) => {
                if let Some(lengths) = self.lengths(*field) {
                    lengths.exact = true;
                }
            }
            Key::Prefix(field, start) => {
                if let Some(lengths) = self.lengths(*field) {
                    lengths.prefixes.insert(start.len());
                }
            }
            Key::Suffix(field, end) => {
                if let Some(lengths) = self.lengths(*field) {
                    lengths.suffixes.insert(end.len());
                }
            }
            Key::Claim(..) => {}
            Key::RequestPrincipal(..) => self.request_principal = true,
        }
    }

    /// Notes the path of a claim that rules are filed under.
    pub fn file_claim(&mut self, hash: u64, path: &[Arc<str>]) {
        // By path: two paths with one hash must both be looked at.
        self.claims.insert(path.to_vec(), hash);
    }

    fn note(&mut self, what: Unknown, place: u32) {
        self.unknown.entry(what).or_default().push(place);
    }

    fn lengths(&mut self, field: TextField<'_>) -> Option<&mut Lengths> {
        match field {
            TextField::Method => Some(&mut self.method),
            TextField::Path => Some(&mut self.path),
            TextField::Host => Some(&mut self.host),
            TextField::Sni => Some(&mut self.sni),
            TextField::Header(_) => None,
        }
    }

    /// Calls `found` with the hash of every key that the request has.
    pub fn ask(&self, facts: &Facts<'_>, mut found: impl FnMut(u64)) {
        self.ask_identities(facts, &mut found);
        for (field, version, length) in &self.blocks {
            let address = match field {
                AddressField::Source => facts.request.source.address,
                AddressField::Destination => facts.request.destination.address,
                AddressField::Remote => match facts.request.remote {
                    RemoteAddress::Known(a) => Some(a),
                    RemoteAddress::Unknown | RemoteAddress::None => None,
                },
            };
            if let Some(address) = address.filter(|a| version_of(*a) == *version) {
                found(Key::Block(*field, Block::around(address, *length)).hash());
            }
        }
        if let (true, Some(port)) = (self.port, facts.request.destination.port) {
            found(Key::Port(port).hash());
        }
        self.sni.ask(TextField::Sni, &facts.sni, &mut found);
        if let Some(http) = &facts.http {
            self.method
                .ask(TextField::Method, http.method(), &mut found);
            self.path.ask(TextField::Path, http.url_path(), &mut found);
            self.host.ask(TextField::Host, http.host(), &mut found);
            for name in self.headers.keys() {
                for value in facts.header(name) {
                    found(Key::Exact(TextField::Header(name), &value).hash());
                }
            }
        }
        if let Some(payload) = &facts.request.jwt {
            for (path, hash) in &self.claims {
                for text in facts.claim(path) {
                    found(Key::Claim(*hash, text).hash());
                }
            }
            let claim = |name| payload.get(name).and_then(serde_json::Value::as_str);
            if let (true, Some(issuer), Some(subject)) =
                (self.request_principal, claim("iss"), claim("sub"))
            {
                found(Key::RequestPrincipal(issuer, subject).hash());
            }
        }
    }

    fn ask_identities(&self, facts: &Facts<'_>, found: &mut impl FnMut(u64)) {
        for id in &facts.identities {
            if self.identity {
                found(Key::Identity(id).hash());
            }
            for length in self
                .identity_prefixes
                .iter()
                .take_while(|l| **l <= id.len())
            {
                if let Some(start) = id.get(..*length) {
                    found(Key::IdentityPrefix(start).hash());
                }
            }
            if self.namespace {
                for segment in behind(id, "/ns/") {
                    found(Key::Namespace(segment).hash());
                }
            }
            if self.service_account {
                for segment in behind(id, "/sa/") {
                    found(Key::ServiceAccount(segment).hash());
                }
            }
        }
        if let (true, Some((_, namespace, account))) = (self.ztunnel, facts.ztunnel_identity()) {
            found(Key::ZtunnelNamespace(namespace).hash());
            found(Key::ZtunnelAccount(&format!("{namespace}/{account}")).hash());
        }
    }

    /// Adds the rules whose filing says nothing because the request is uncertain there.
    pub fn uncertain(&self, facts: &Facts<'_>, found: &mut Vec<u32>) {
        let missing = facts.request.missing;
        for (is_unknown, what) in [
            (
                facts.request.remote == RemoteAddress::Unknown,
                Unknown::Address(AddressField::Remote),
            ),
            (
                missing.source_address,
                Unknown::Address(AddressField::Source),
            ),
            (
                missing.destination_address,
                Unknown::Address(AddressField::Destination),
            ),
            (missing.destination_port, Unknown::Port),
        ] {
            if let (true, Some(places)) = (is_unknown, self.unknown.get(&what)) {
                found.extend(places);
            }
        }
        for (name, places) in &self.headers {
            if facts.header_is_joined(name) {
                found.extend(places);
            }
        }
    }
}

fn version_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// The segment behind every occurrence of `marker`, up to the next slash. Occurrences may share a
/// slash: `/ns/ns/x/`.
fn behind<'i>(id: &'i str, marker: &'static str) -> impl Iterator<Item = &'i str> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = id.get(from..)?;
        let at = rest.find(marker)?;
        // The next search starts at the marker's last slash.
        from = from
            .saturating_add(at)
            .saturating_add(marker.len())
            .saturating_sub(1);
        let tail = rest.get(at.saturating_add(marker.len())..)?;
        tail.split('/').next()
    })
}
