//! From a caller's state to the message that tells it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::bundle::Bundle;
use crate::caller::Caller;
use crate::identities::{BundlesContext, Identities, IssueError, WitContext, X509Context};
use crate::observe::metrics::Api;
use crate::proto::workload::{
    JwtBundlesResponse, WitBundlesResponse, Witsvid, WitsvidResponse, X509BundlesResponse,
    X509svid, X509svidResponse,
};
use crate::spiffe_id::SpiffeId;

/// What a stream is about.
#[async_trait]
pub(super) trait Question: Send + Sync + 'static {
    /// What is known of the caller, cheap to keep.
    type State: Send + Sync + 'static;
    /// What it is told.
    type Message: Send + 'static;
    /// What it is counted as.
    const API: Api;

    async fn ask(
        &self,
        identities: &dyn Identities,
        caller: &Caller,
    ) -> Result<Self::State, IssueError>;

    /// True when both make the same message.
    fn is_same(before: &Self::State, now: &Self::State) -> bool;

    fn message(state: &Self::State) -> Self::Message;

    /// Sequence of our own bundle in it.
    fn sequence(state: &Self::State) -> u64;

    /// When to ask again although nothing changed.
    fn renew_at(_: &Self::State) -> Option<SystemTime> {
        None
    }
}

/// FetchX509SVID.
pub(super) struct X509Svids;

#[async_trait]
impl Question for X509Svids {
    type State = X509Context;
    type Message = X509svidResponse;
    const API: Api = Api::X509Svid;

    async fn ask(
        &self,
        identities: &dyn Identities,
        caller: &Caller,
    ) -> Result<X509Context, IssueError> {
        let context = identities.x509_context(caller).await?;
        // §5.2.1: a message has at least one SVID.
        if context.svids.is_empty() {
            return Err(IssueError::NoIdentity);
        }
        Ok(context)
    }

    fn is_same(before: &X509Context, now: &X509Context) -> bool {
        before.is_same(now)
    }

    fn message(state: &X509Context) -> X509svidResponse {
        let bundle = Bytes::from(state.bundle.x509_der());
        let svids = state.svids.iter().map(|svid| X509svid {
            spiffe_id: svid.spiffe_id.to_string(),
            x509_svid: svid.chain_der().into(),
            x509_svid_key: Bytes::copy_from_slice(&svid.key),
            bundle: bundle.clone(),
            hint: svid.hint.clone(),
        });
        X509svidResponse {
            svids: svids.collect(),
            crl: state.crls.clone(),
            federated_bundles: state.federated.iter().map(x509_entry).collect(),
        }
    }

    fn sequence(state: &X509Context) -> u64 {
        state.bundle.sequence
    }

    fn renew_at(state: &X509Context) -> Option<SystemTime> {
        Some(state.renew_at)
    }
}

/// FetchX509Bundles.
pub(super) struct X509Bundles;

#[async_trait]
impl Question for X509Bundles {
    type State = BundlesContext;
    type Message = X509BundlesResponse;
    const API: Api = Api::X509Bundles;

    async fn ask(
        &self,
        identities: &dyn Identities,
        caller: &Caller,
    ) -> Result<BundlesContext, IssueError> {
        identities.bundles(caller).await
    }

    fn is_same(before: &BundlesContext, now: &BundlesContext) -> bool {
        before.crls == now.crls
            && same(before, now, |a, b| a.x509_authorities == b.x509_authorities)
    }

    fn message(state: &BundlesContext) -> X509BundlesResponse {
        X509BundlesResponse {
            crl: state.crls.clone(),
            bundles: all(state).map(x509_entry).collect(),
        }
    }

    fn sequence(state: &BundlesContext) -> u64 {
        state.bundle.sequence
    }
}

/// FetchJWTBundles.
pub(super) struct JwtBundles;

#[async_trait]
impl Question for JwtBundles {
    type State = BundlesContext;
    type Message = JwtBundlesResponse;
    const API: Api = Api::JwtBundles;

    async fn ask(
        &self,
        identities: &dyn Identities,
        caller: &Caller,
    ) -> Result<BundlesContext, IssueError> {
        identities.bundles(caller).await
    }

    fn is_same(before: &BundlesContext, now: &BundlesContext) -> bool {
        same(before, now, |a, b| a.jwt_authorities == b.jwt_authorities)
    }

    fn message(state: &BundlesContext) -> JwtBundlesResponse {
        let bundles: HashMap<String, Bytes> = all(state)
            .map(|bundle| (bundle.trust_domain.id_string(), bundle.jwks().into()))
            .collect();
        JwtBundlesResponse { bundles }
    }

    fn sequence(state: &BundlesContext) -> u64 {
        state.bundle.sequence
    }
}

/// FetchWITSVID, for all identities or one.
pub(super) struct WitSvids(pub(super) Option<SpiffeId>);

#[async_trait]
impl Question for WitSvids {
    type State = WitContext;
    type Message = WitsvidResponse;
    const API: Api = Api::WitSvid;

    async fn ask(
        &self,
        identities: &dyn Identities,
        caller: &Caller,
    ) -> Result<WitContext, IssueError> {
        identities.wit_context(caller, self.0.as_ref()).await
    }

    fn is_same(before: &WitContext, now: &WitContext) -> bool {
        let pairs = before.svids.iter().zip(&now.svids);
        // Each signing has another `jti`: the same token is the same SVID.
        before.svids.len() == now.svids.len()
            && pairs
                .into_iter()
                .all(|(a, b)| a.token == b.token && a.hint == b.hint)
    }

    fn message(state: &WitContext) -> WitsvidResponse {
        let svids = state.svids.iter().map(|svid| Witsvid {
            spiffe_id: svid.spiffe_id.to_string(),
            wit_svid: svid.token.clone(),
            wit_svid_key: svid.key.to_string(),
            hint: svid.hint.clone(),
        });
        WitsvidResponse {
            svids: svids.collect(),
        }
    }

    fn sequence(state: &WitContext) -> u64 {
        state.sequence
    }

    fn renew_at(state: &WitContext) -> Option<SystemTime> {
        state.renew_at
    }
}

/// FetchWITBundles.
pub(super) struct WitBundles;

#[async_trait]
impl Question for WitBundles {
    type State = BundlesContext;
    type Message = WitBundlesResponse;
    const API: Api = Api::WitBundles;

    async fn ask(
        &self,
        identities: &dyn Identities,
        caller: &Caller,
    ) -> Result<BundlesContext, IssueError> {
        identities.bundles(caller).await
    }

    fn is_same(before: &BundlesContext, now: &BundlesContext) -> bool {
        same(before, now, |a, b| a.wit_authorities == b.wit_authorities)
    }

    fn message(state: &BundlesContext) -> WitBundlesResponse {
        // A trust domain without such keys has no WIT-SVIDs (WIT-SVID §6.2); ours is told in any case.
        let federated = state.federated.iter();
        let federated = federated.filter(|bundle| !bundle.wit_authorities.is_empty());
        let bundles = std::iter::once(&state.bundle)
            .chain(federated)
            .map(|bundle| (bundle.trust_domain.id_string(), bundle.wit_jwks()));
        WitBundlesResponse {
            bundles: bundles.collect(),
        }
    }

    fn sequence(state: &BundlesContext) -> u64 {
        state.bundle.sequence
    }
}

fn all(state: &BundlesContext) -> impl Iterator<Item = &Arc<Bundle>> {
    std::iter::once(&state.bundle).chain(&state.federated)
}

fn same(
    before: &BundlesContext,
    now: &BundlesContext,
    equal: impl Fn(&Bundle, &Bundle) -> bool,
) -> bool {
    before.federated.len() == now.federated.len()
        && all(before)
            .zip(all(now))
            .all(|(a, b)| Arc::ptr_eq(a, b) || a.trust_domain == b.trust_domain && equal(a, b))
}

fn x509_entry(bundle: &Arc<Bundle>) -> (String, Bytes) {
    (bundle.trust_domain.id_string(), bundle.x509_der().into())
}

/// Claims as protocol buffers know them.
pub(super) fn claims(claims: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: claims
            .into_iter()
            .map(|(name, claim)| (name, value(claim)))
            .collect(),
    }
}

fn value(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(truth) => Kind::BoolValue(truth),
        // A Struct knows doubles only; 2^53 and more lose digits here as everywhere.
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(value).collect(),
        }),
        serde_json::Value::Object(members) => Kind::StructValue(claims(members)),
    };
    Value { kind: Some(kind) }
}
