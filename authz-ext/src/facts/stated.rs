//! Facts that the proxy states beside the attribute context.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_policy::request::{RemoteAddress, Target};
use tonic::metadata::MetadataMap;

use super::Invalid;
use super::address::{self, SocketPeer};

/// Context extensions and gRPC metadata of one request.
pub(crate) struct Stated<'a> {
    extensions: &'a HashMap<String, String>,
    metadata: &'a MetadataMap,
}

/// The two names of one fact.
struct Fact {
    extension: &'static str,
    metadata: &'static str,
}

const WORKLOAD: Fact = Fact {
    extension: "portcullis.workload",
    metadata: "x-portcullis-workload",
};
const TARGET: Fact = Fact {
    extension: "portcullis.target",
    metadata: "x-portcullis-target",
};
const SERVICE: Fact = Fact {
    extension: "portcullis.service",
    metadata: "x-portcullis-service",
};
const REMOTE_ADDRESS: Fact = Fact {
    extension: "portcullis.remote_address",
    metadata: "x-portcullis-remote-address",
};
const DIRECT_ADDRESS: Fact = Fact {
    extension: "portcullis.direct_address",
    metadata: "x-portcullis-direct-address",
};

impl<'a> Stated<'a> {
    pub(crate) fn new(extensions: &'a HashMap<String, String>, metadata: &'a MetadataMap) -> Self {
        Self {
            extensions,
            metadata,
        }
    }

    pub(crate) fn workload(&self) -> Result<Option<String>, Invalid> {
        Ok(self.value(&WORKLOAD)?.map(|(_, text)| text.to_owned()))
    }

    pub(crate) fn service(&self) -> Result<Option<String>, Invalid> {
        Ok(self.value(&SERVICE)?.map(|(_, text)| text.to_owned()))
    }

    /// `Some(None)` is an explicit `auto`.
    pub(crate) fn target(&self) -> Result<Option<Option<Target>>, Invalid> {
        let Some((name, text)) = self.value(&TARGET)? else {
            return Ok(None);
        };
        if text == "auto" {
            return Ok(Some(None));
        }
        let target = text.parse::<Target>();
        target.map(|target| Some(Some(target))).map_err(|_| {
            Invalid(format!(
                "`{name}` is `{}`: expected `auto`, `sidecar`, `gateway`, `waypoint` or `ztunnel`",
                text.escape_debug()
            ))
        })
    }

    pub(crate) fn remote_address(
        &self,
        peer: &SocketPeer,
    ) -> Result<Option<RemoteAddress>, Invalid> {
        let Some((name, text)) = self.value(&REMOTE_ADDRESS)? else {
            return Ok(None);
        };
        // A unix peer's address is a path (`@` stands before an abstract one).
        if *peer == SocketPeer::Pipe && text.starts_with(['/', '@']) {
            return Ok(Some(RemoteAddress::None));
        }
        // Not unmapped: Envoy compares `::ffff:a.b.c.d` as the IPv6 address that it is.
        parse(name, text).map(|address| Some(RemoteAddress::Known(address)))
    }

    pub(crate) fn direct_address(&self) -> Result<Option<IpAddr>, Invalid> {
        let Some((name, text)) = self.value(&DIRECT_ADDRESS)? else {
            return Ok(None);
        };
        parse(name, text).map(|address| Some(address.to_canonical()))
    }

    fn value(&self, fact: &Fact) -> Result<Option<(&'static str, &'a str)>, Invalid> {
        if let Some(text) = self.extensions.get(fact.extension) {
            return Ok(Some((fact.extension, text)));
        }
        let name = fact.metadata;
        let mut values = self.metadata.get_all(name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.any(|other| other != value) {
            return Err(Invalid(format!("`{name}` is stated twice, differently")));
        }
        match value.to_str() {
            Ok(text) => Ok(Some((name, text))),
            Err(_) => Err(Invalid(format!("`{name}` is not ASCII text"))),
        }
    }
}

fn parse(name: &str, text: &str) -> Result<IpAddr, Invalid> {
    address::parse(text).ok_or_else(|| {
        Invalid(format!(
            "`{name}` is `{}`, not an IP address",
            text.escape_debug()
        ))
    })
}
