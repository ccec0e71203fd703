//! Events as OTLP's messages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use portcullis_policy::decision::{Reason, Verdict};

use crate::observe::event::DecisionEvent;
use crate::observe::sample;

/// Name of spans and of log records.
const NAME: &str = "portcullis.check";
/// W3C's flag for what is recorded.
const SAMPLED: u32 = 1;

/// The spans of events that belong to a trace.
pub(super) fn spans(service: &str, events: &[Arc<DecisionEvent>]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service)),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: events.iter().filter_map(|event| span(event)).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// The log records of events.
pub(super) fn records(service: &str, events: &[Arc<DecisionEvent>]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(service)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: events.iter().map(|event| record(event)).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn span(event: &DecisionEvent) -> Option<Span> {
    let parent = event.trace.as_ref()?;
    let took = Duration::from_micros(event.duration_us);
    let failed = matches!(
        event.decision.reason,
        Reason::NoSnapshot | Reason::EvaluationError | Reason::Overloaded | Reason::Deadline
    );
    Some(Span {
        trace_id: parent.trace_id.to_vec(),
        span_id: sample::id().to_vec(),
        trace_state: parent.state.clone(),
        parent_span_id: parent.span_id.to_vec(),
        flags: SAMPLED,
        name: NAME.to_owned(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: nanos(event.time.checked_sub(took).unwrap_or(event.time)),
        end_time_unix_nano: nanos(event.time),
        attributes: attributes(event),
        // A denial is an answer; only what could not be decided is an error.
        status: failed.then(|| Status {
            message: event.decision.reason.as_str().to_owned(),
            code: StatusCode::Error as i32,
        }),
        ..Span::default()
    })
}

fn record(event: &DecisionEvent) -> LogRecord {
    let decision = &event.decision;
    let severity = match decision.decision {
        Verdict::Allow => SeverityNumber::Info,
        Verdict::Deny => SeverityNumber::Warn,
    };
    let body = format!(
        "{} {}",
        decision.decision.as_str(),
        decision.reason.as_str()
    );
    let parent = event.trace.as_ref();
    let mut attributes = attributes(event);
    let took = i64::try_from(event.duration_us).unwrap_or(i64::MAX);
    attributes.push(pair("portcullis.duration_us", Value::IntValue(took)));
    LogRecord {
        time_unix_nano: nanos(event.time),
        observed_time_unix_nano: nanos(SystemTime::now()),
        severity_number: severity as i32,
        severity_text: if severity == SeverityNumber::Info {
            "INFO"
        } else {
            "WARN"
        }
        .to_owned(),
        body: Some(any(Value::StringValue(body))),
        attributes,
        trace_id: parent.map(|p| p.trace_id.to_vec()).unwrap_or_default(),
        span_id: parent.map(|p| p.span_id.to_vec()).unwrap_or_default(),
        flags: u32::from(parent.is_some_and(|p| p.sampled)),
        event_name: NAME.to_owned(),
        ..LogRecord::default()
    }
}

/// What an event says, by OpenTelemetry's names where there are such.
fn attributes(event: &DecisionEvent) -> Vec<KeyValue> {
    let decision = &event.decision;
    let (source, destination) = (&event.source, &event.destination);
    let address = |ip: Option<std::net::IpAddr>| ip.map(|ip| ip.to_string());
    let texts = [
        ("http.request.method", event.method.clone()),
        ("url.path", event.path.clone()),
        ("server.address", event.host.clone()),
        ("client.address", address(source.remote_address)),
        ("network.peer.address", address(source.address)),
        ("portcullis.source", source.principal.clone()),
        ("portcullis.destination", destination.workload.clone()),
        ("portcullis.service", destination.service.clone()),
        ("portcullis.request_id", event.request_id.clone()),
        ("portcullis.listener", Some(event.listener.to_string())),
        ("portcullis.protocol", event.protocol.map(str::to_owned)),
        (
            "portcullis.decision",
            Some(decision.decision.as_str().to_owned()),
        ),
        (
            "portcullis.reason",
            Some(decision.reason.as_str().to_owned()),
        ),
        ("portcullis.provider", decision.provider.clone()),
        ("portcullis.snapshot", Some(decision.snapshot.clone())),
        (
            "portcullis.dry_run.decision",
            decision
                .dry_run
                .as_ref()
                .map(|d| d.decision.as_str().to_owned()),
        ),
        (
            "portcullis.dry_run.reason",
            decision
                .dry_run
                .as_ref()
                .map(|d| d.reason.as_str().to_owned()),
        ),
        ("error.message", event.error.clone()),
    ];
    let texts = texts.into_iter();
    let mut all: Vec<KeyValue> = texts
        .filter_map(|(name, text)| Some(pair(name, Value::StringValue(text?))))
        .collect();
    let list = |texts: &[String]| {
        let values = texts
            .iter()
            .map(|text| any(Value::StringValue(text.clone())));
        Value::ArrayValue(ArrayValue {
            values: values.collect(),
        })
    };
    all.push(pair("portcullis.policies", list(&decision.policies)));
    if !decision.audit.is_empty() {
        all.push(pair("portcullis.audit", list(&decision.audit)));
    }
    if let Some(trial) = &decision.dry_run {
        all.push(pair("portcullis.dry_run.policies", list(&trial.policies)));
    }
    for (name, value) in &event.headers {
        let values = list(std::slice::from_ref(value));
        all.push(pair(format!("http.request.header.{name}"), values));
    }
    for (name, value) in &event.claims {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        all.push(pair(
            format!("portcullis.claim.{name}"),
            Value::StringValue(text),
        ));
    }
    if let Some(port) = destination.port {
        all.push(pair("server.port", Value::IntValue(i64::from(port))));
    }
    all
}

fn resource(service: &str) -> Resource {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [("service.name", service), ("service.version", version)];
    Resource {
        attributes: attributes
            .map(|(name, value)| pair(name, Value::StringValue(value.to_owned())))
            .into(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "portcullis".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn pair(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
