//! Spans as OTLP's messages.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};

use crate::observe::trace::{Attribute, Span};

/// W3C's flag for what is recorded.
const SAMPLED: u32 = 1;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who tells.
pub(super) fn resource(service: &str, trust_domain: &str) -> Resource {
    let attributes = [
        ("service.name", service),
        ("service.version", VERSION),
        ("portcullis.trust_domain", trust_domain),
    ];
    Resource {
        attributes: attributes
            .map(|(name, value)| pair(name, Value::StringValue(value.to_owned())))
            .into(),
        ..Resource::default()
    }
}

/// The message with `spans`.
pub(super) fn request(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "portcullis".to_owned(),
                    version: VERSION.to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.into_iter().map(message).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn message(span: Span) -> Message {
    let kind = match span.is_call {
        true => SpanKind::Server,
        false => SpanKind::Internal,
    };
    let attributes = span.attributes.into_iter();
    Message {
        trace_id: span.context.trace_id.to_vec(),
        span_id: span.context.span_id.to_vec(),
        trace_state: span.context.state,
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.into_owned(),
        kind: kind as i32,
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: attributes
            .map(|(name, value)| match value {
                Attribute::Text(text) => pair(name, Value::StringValue(text)),
                Attribute::Number(number) => pair(name, Value::IntValue(number)),
            })
            .collect(),
        status: span.error.map(|message| Status {
            message,
            code: StatusCode::Error as i32,
        }),
        ..Message::default()
    }
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
