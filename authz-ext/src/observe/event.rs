//! One decision as others hear of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_policy::decision::{Decision, Reason};
use portcullis_policy::request::{RemoteAddress, Request};
use portcullis_policy::snapshot::Snapshot;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::codegen::http::HeaderMap;

use super::trace_context::TraceContext;
use super::{Decided, fields};

/// Longest path or host of an event, in bytes.
const LONG: usize = 2048;
/// Longest other text that a request may put in an event, in bytes.
const SHORT: usize = 256;

/// One decision: one line of the decision log, one span, one item of a follower. Values come from
/// requests: they are cut to a bounded length and written escaped. Credentials are never in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionEvent {
    /// When the answer was given.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// Trace of the proxy's span, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// The proxy's span.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
    /// Name of the listener that was asked.
    pub listener: Arc<str>,
    /// `http` or `tcp`; `None` where the request could not be read.
    pub protocol: Option<&'static str>,
    /// Who asked.
    pub source: SourceFacts,
    /// Who was asked.
    pub destination: DestinationFacts,
    /// HTTP method.
    pub method: Option<String>,
    /// `:authority`.
    pub host: Option<String>,
    /// Path, with as much of the query as is told.
    pub path: Option<String>,
    /// Chosen headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Chosen claims of the verified token.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, serde_json::Value>,
    /// The verdict, its reason and policies, the verdict on trial, the snapshot.
    #[serde(flatten)]
    pub decision: Decision,
    /// Why the request could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time from the check's arrival to its answer, in microseconds.
    pub duration_us: u64,
}

/// The requesting side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceFacts {
    /// First name of its certificate, a SPIFFE ID in a mesh.
    pub principal: Option<String>,
    /// The connection's peer.
    pub address: Option<IpAddr>,
    /// The client behind trusted proxies.
    pub remote_address: Option<IpAddr>,
}

/// The requested side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DestinationFacts {
    /// `kind/namespace/name` of the workload, else what the request calls it.
    pub workload: Option<String>,
    /// `namespace/name` of the service, where the proxy states it.
    pub service: Option<String>,
    /// Address of the connection.
    pub address: Option<IpAddr>,
    /// Port of the connection.
    pub port: Option<u16>,
    /// SPIFFE ID of its certificate.
    pub principal: Option<String>,
}

impl DecisionEvent {
    /// The event of one decision that took `elapsed` and belongs to `trace`, with as much of the request as `told` says.
    #[must_use]
    pub fn of(
        decided: &Decided<'_>,
        trace: Option<TraceContext>,
        elapsed: Duration,
        told: &fields::Options,
    ) -> Self {
        let request = decided.request.as_ref();
        let http = request.and_then(|request| request.http.as_ref());
        let header = |name: &str| -> Option<&str> {
            let stated = http.and_then(|http| {
                let mut entries = http.headers.entries.iter();
                entries.find(|(entry, _)| entry == name)
            });
            let stated = stated.map(|(_, value)| value.as_str());
            stated.or_else(|| text(decided.headers, name))
        };
        let path = http.map(|http| told.path(&http.path));
        Self {
            time: SystemTime::now(),
            request_id: header("x-request-id").map(|id| cut(id, SHORT)),
            trace_id: trace.as_ref().map(TraceContext::trace),
            trace,
            listener: Arc::clone(decided.listener),
            protocol: request.map(|r| if r.http.is_some() { "http" } else { "tcp" }),
            source: request.map(source).unwrap_or_default(),
            destination: request
                .map(|request| destination(request, decided.snapshot, decided.decision.reason))
                .unwrap_or_default(),
            method: http.map(|http| cut(&http.method, SHORT)),
            host: http.map(|http| cut(&http.host, SHORT)),
            path: path.map(|path| cut(&path, LONG)),
            headers: request.map(|r| told.headers(r)).unwrap_or_default(),
            claims: request.map(|r| told.claims(r)).unwrap_or_default(),
            decision: decided.decision.clone(),
            error: decided
                .error
                .as_deref()
                .map(|error| cut(&fields::without_tokens(error, ' '), SHORT)),
            duration_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

fn source(request: &Request) -> SourceFacts {
    let source = &request.source;
    SourceFacts {
        principal: source.identities.first().map(|id| cut(&id.value, LONG)),
        address: source.address,
        remote_address: match request.remote {
            RemoteAddress::Known(address) => Some(address),
            RemoteAddress::Unknown | RemoteAddress::None => None,
        },
    }
}

fn destination(
    request: &Request,
    snapshot: Option<&Arc<Snapshot>>,
    reason: Reason,
) -> DestinationFacts {
    let stated = &request.destination;
    let found = || {
        // Of workloads with the same policies the first stands for all; of others, none does.
        if reason == Reason::DestinationAmbiguous {
            return None;
        }
        let inventory = snapshot?.inventory();
        let resolved = inventory.resolve(request, |_| true).ok()?;
        let workload = inventory.workload(resolved.workload)?;
        let kind = workload.kind.as_str();
        Some(format!("{kind}/{}/{}", workload.namespace, workload.name))
    };
    DestinationFacts {
        workload: found().or_else(|| stated.workload.as_ref().map(|name| cut(name, SHORT))),
        service: stated.service.as_ref().map(|name| cut(name, SHORT)),
        address: stated.address,
        port: stated.port,
        principal: stated.principal.as_ref().map(|id| cut(id, LONG)),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// At most `longest` bytes of a text; what is missing shows as `…`.
pub(super) fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(longest);
    text.get(..end).unwrap_or_default().to_owned() + "…"
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*time))
}

/// A moment in RFC 3339, UTC.
#[must_use]
pub fn timestamp(time: SystemTime) -> Cow<'static, str> {
    let formatted = OffsetDateTime::from(time).format(&Rfc3339);
    formatted.map_or(Cow::Borrowed("9999-12-31T23:59:59Z"), Cow::Owned)
}
