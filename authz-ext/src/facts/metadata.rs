//! Dynamic metadata and the verified JWT payload in it.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use serde_json::Number;

/// Filter that verifies tokens, and the key under which Istio has it put the payload.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
const PAYLOAD: &str = "payload";

/// Whole numbers below this are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Untyped metadata by filter name; typed metadata is not read by any rule.
pub(super) fn read(metadata: Metadata) -> BTreeMap<String, serde_json::Value> {
    metadata
        .filter_metadata
        .into_iter()
        .map(|(filter, fields)| (filter, object(fields)))
        .collect()
}

/// The payload of the token that the proxy verified; one that is no object is no payload.
pub(super) fn jwt_payload(
    metadata: &BTreeMap<String, serde_json::Value>,
) -> Option<serde_json::Value> {
    let payload = metadata.get(JWT_AUTHN)?.get(PAYLOAD)?;
    payload.is_object().then(|| payload.clone())
}

fn object(fields: Struct) -> serde_json::Value {
    let members = fields.fields.into_iter();
    serde_json::Value::Object(members.map(|(name, value)| (name, json(value))).collect())
}

// Depth is bounded by prost's recursion limit, with which the message was decoded.
fn json(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => serde_json::Value::Bool(value),
        Some(Kind::StringValue(value)) => serde_json::Value::String(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StructValue(fields)) => object(fields),
        Some(Kind::ListValue(list)) => {
            serde_json::Value::Array(list.values.into_iter().map(json).collect())
        }
    }
}

/// `1` stays `1`, not `1.0`; what JSON has no number for is null.
fn number(value: f64) -> serde_json::Value {
    if value.fract() == 0.0 && value.abs() < EXACT {
        return serde_json::Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(serde_json::Value::Null, serde_json::Value::Number)
}
