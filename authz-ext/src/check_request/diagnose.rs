//! Says what is wrong with JSON that is no `CheckRequest`, by the path of the field.

use std::fmt::Write as _;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use crate::descriptor;

/// Words for text that is no JSON at all.
pub(super) fn not_json(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return format!(
            "not JSON: the object does not end on this line; write one whole `CheckRequest` a line ({error})"
        );
    }
    format!("not JSON: {error}")
}

/// Removes typed metadata, which no policy reads; true if there was any.
pub(super) fn remove_typed_metadata(request: &mut Value) -> bool {
    let mut removed = false;
    let Some(attributes) = request.get_mut("attributes") else {
        return removed;
    };
    for context in [
        "metadataContext",
        "metadata_context",
        "routeMetadataContext",
        "route_metadata_context",
    ] {
        let Some(Value::Object(metadata)) = attributes.get_mut(context) else {
            continue;
        };
        for typed in ["typedFilterMetadata", "typed_filter_metadata"] {
            removed |= metadata.remove(typed).is_some();
        }
    }
    removed
}

/// The first field that does not fit the descriptor.
pub(super) fn wrong_field(request: &Value) -> Option<String> {
    in_message(descriptor::check_request()?, request, "")
}

fn in_message(message: &MessageDescriptor, value: &Value, path: &str) -> Option<String> {
    match message.full_name() {
        "google.protobuf.Value" | "google.protobuf.Any" => return None,
        "google.protobuf.Struct" => {
            return (!value.is_object()).then(|| expected(path, "an object", value));
        }
        "google.protobuf.ListValue" => {
            return (!value.is_array()).then(|| expected(path, "a list", value));
        }
        "google.protobuf.Timestamp" => {
            return (!value.is_string())
                .then(|| expected(path, "a time such as `2026-01-31T12:00:00Z`", value));
        }
        "google.protobuf.Duration" => {
            return (!value.is_string())
                .then(|| expected(path, "a duration such as `1.5s`", value));
        }
        name if name.starts_with("google.protobuf.") => return None,
        _ => {}
    }
    let Value::Object(members) = value else {
        return Some(expected(path, "an object", value));
    };
    members
        .iter()
        .find_map(|(name, value)| in_member(message, name, value, path))
}

fn in_member(message: &MessageDescriptor, name: &str, value: &Value, path: &str) -> Option<String> {
    let Some(field) = message
        .get_field_by_json_name(name)
        .or_else(|| message.get_field_by_name(name))
    else {
        return Some(unknown(message, name, path));
    };
    let path = join(path, name);
    match (value, field.is_map(), field.is_list()) {
        (Value::Null, ..) => None,
        (Value::Object(entries), true, _) => {
            let values = map_value(&field)?;
            entries
                .iter()
                .find_map(|(key, value)| in_value(&values, value, &format!("{path}[{key:?}]")))
        }
        (_, true, _) => Some(expected(&path, "an object", value)),
        (Value::Array(items), _, true) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| in_value(&field, item, &format!("{path}[{index}]"))),
        (_, _, true) => Some(expected(&path, "a list", value)),
        _ => in_value(&field, value, &path),
    }
}

fn map_value(field: &FieldDescriptor) -> Option<FieldDescriptor> {
    Some(field.kind().as_message()?.map_entry_value_field())
}

fn in_value(field: &FieldDescriptor, value: &Value, path: &str) -> Option<String> {
    let kind = field.kind();
    match &kind {
        Kind::Message(message) => in_message(message, value, path),
        Kind::String => (!value.is_string()).then(|| expected(path, "a string", value)),
        Kind::Bytes => (!value.is_string()).then(|| expected(path, "base64 text", value)),
        Kind::Bool => (!value.is_boolean()).then(|| expected(path, "true or false", value)),
        Kind::Enum(values) => match value {
            Value::Number(_) => None,
            Value::String(name) if values.get_value_by_name(name).is_some() => None,
            _ => {
                let names: Vec<_> = values.values().map(|v| format!("`{}`", v.name())).collect();
                Some(expected(
                    path,
                    &format!("one of {}", names.join(", ")),
                    value,
                ))
            }
        },
        Kind::Double | Kind::Float => (!is_number(value, f64::NEG_INFINITY, f64::INFINITY))
            .then(|| expected(path, "a number", value)),
        Kind::Uint32 | Kind::Fixed32 => (!is_number(value, 0.0, f64::from(u32::MAX)))
            .then(|| expected(path, "a number from 0 to 4294967295", value)),
        Kind::Uint64 | Kind::Fixed64 => (!is_number(value, 0.0, f64::INFINITY))
            .then(|| expected(path, "a number that is not negative", value)),
        _ => (!is_number(value, f64::NEG_INFINITY, f64::INFINITY))
            .then(|| expected(path, "a whole number", value)),
    }
}

fn is_number(value: &Value, least: f64, most: f64) -> bool {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.is_some_and(|number| (least..=most).contains(&number))
}

fn expected(path: &str, what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("`{value}`"),
        Value::String(value) => format!("the string `{}`", shorten(value)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    if path.is_empty() {
        return format!("a `CheckRequest` is {what}, found {found}");
    }
    format!("`{path}` must be {what}, found {found}")
}

fn unknown(message: &MessageDescriptor, name: &str, path: &str) -> String {
    let mut words = format!("unknown field `{}`", shorten(name));
    if !path.is_empty() {
        let _ = write!(words, " in `{path}`");
    }
    let lower = name.to_lowercase();
    let nearest = message
        .fields()
        .map(|field| {
            (
                strsim::damerau_levenshtein(&lower, &field.json_name().to_lowercase()),
                field,
            )
        })
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, field)) if distance <= 2.max(lower.len() / 3) => {
            let _ = write!(words, "; did you mean `{}`?", field.json_name());
        }
        _ => {
            let names: Vec<_> = message
                .fields()
                .map(|f| format!("`{}`", f.json_name()))
                .collect();
            let _ = write!(words, "; known are {}", names.join(", "));
        }
    }
    words
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        return name.to_owned();
    }
    format!("{path}.{name}")
}

/// Enough of a value to recognise it by; it may be a megabyte.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
