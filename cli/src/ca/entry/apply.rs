//! `ca entry create -f`: many entries from a file, as often as one likes.
//!
//! What grants the same identity to the same callers is the same entry: it is left as it is, or updated
//! where the file says something else.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use portcullis_ca::proto::spire::api::server::entry::v1 as api;
use portcullis_ca::proto::spire::api::server::entry::v1::entry_client::EntryClient;
use portcullis_ca::proto::types;
use portcullis_policy::document::{self, SourceText};
use portcullis_policy::document::{Node, Value};
use serde::Deserialize;
use tonic::transport::Channel;

use super::template::Kubernetes;
use super::{fields, print};
use crate::args::Output;
use crate::ca::client;
use crate::exit::Exit;
use crate::out;

/// Largest file, bytes.
const MAX_FILE: u64 = 64 << 20;
/// Entries that are sent at a time.
const BATCH: usize = 10_000;

/// One entry of a file; SPIRE's names, ours beside them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    #[serde(default, alias = "entry_id")]
    id: String,
    spiffe_id: String,
    #[serde(default)]
    parent_id: Option<String>,
    selectors: Vec<FileSelector>,
    #[serde(default, alias = "x509_ttl", alias = "ttl")]
    x509_svid_ttl: Option<FileTtl>,
    #[serde(default, alias = "jwt_ttl")]
    jwt_svid_ttl: Option<FileTtl>,
    #[serde(default, alias = "dns")]
    dns_names: Vec<String>,
    #[serde(default)]
    federates_with: Vec<String>,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(default, alias = "entry_expiry")]
    expires_at: Option<i64>,
    #[serde(default)]
    store_svid: bool,
    // What `ca entry list` printed may be applied again.
    #[serde(default, rename = "revision_number")]
    _revision_number: Option<i64>,
    #[serde(default, rename = "created_at")]
    _created_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FileSelector {
    Text(String),
    Parts {
        #[serde(rename = "type")]
        kind: String,
        value: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FileTtl {
    Seconds(i64),
    Text(String),
}

/// What files want there to be.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Entries as they stand.
    pub entries: Vec<types::Entry>,
    /// Entries to be made of pods.
    pub kubernetes: Kubernetes,
}

/// Reads entries from a file, `-` for standard input: a list, `entries:` with a list, or one entry per YAML document;
/// and documents of Kubernetes, told by their `apiVersion`.
///
/// # Errors
/// When it cannot be read, with the entry that is wrong.
pub fn read(file: &Path, wanted: &mut Wanted) -> anyhow::Result<()> {
    let name = file.display().to_string();
    let mut bytes = Vec::new();
    let read = match name.as_str() {
        "-" => std::io::stdin().take(MAX_FILE + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(file)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read `{name}`"))?;
    if bytes.len() as u64 > MAX_FILE {
        bail!("`{name}` has more than 64 MiB");
    }
    let trees = match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Ok(tree) if tree.get("apiVersion").is_none() => vec![tree],
        _ => {
            let mut trees = Vec::new();
            for document in yaml(&name, bytes)? {
                if document.get("apiVersion").is_some() {
                    wanted.kubernetes.read(&name, &document)?;
                } else {
                    trees.push(json(&document));
                }
            }
            trees
        }
    };
    let mut items = Vec::new();
    for tree in trees {
        match tree {
            serde_json::Value::Array(list) => items.extend(list),
            serde_json::Value::Object(mut object) if object.contains_key("entries") => {
                match object.remove("entries") {
                    Some(serde_json::Value::Array(list)) => items.extend(list),
                    _ => bail!("`{name}`: `entries` is no list"),
                }
            }
            serde_json::Value::Null => {}
            other => items.push(other),
        }
    }
    let entries = items.into_iter().enumerate().map(|(index, item)| {
        let read = serde_json::from_value::<FileEntry>(item).map_err(anyhow::Error::from);
        read.and_then(entry)
            .with_context(|| format!("`{name}`, entry {}", index + 1))
    });
    let entries: Vec<types::Entry> = entries.collect::<anyhow::Result<_>>()?;
    wanted.entries.extend(entries);
    Ok(())
}

/// YAML documents, and JSON ones, with the places of everything in them.
fn yaml(name: &str, bytes: Vec<u8>) -> anyhow::Result<Vec<Node>> {
    let source = SourceText {
        file: name.into(),
        bytes: bytes.into(),
    };
    let documents = document::parse(&source).map_err(|found| {
        let first = found.first();
        let text = first.map_or_else(String::new, |found| {
            format!("line {}: {}", found.location.line, found.message)
        });
        anyhow::anyhow!("`{name}`: {text}")
    })?;
    Ok(documents)
}

/// A tree without its places.
pub fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(flag, _) => (*flag).into(),
        Value::Integer(number, _) => i64::try_from(*number)
            .map_or_else(|_| number.to_string().into(), serde_json::Value::from),
        Value::Float(text) => (**text).into(),
        Value::String(text, _) => text.as_str().into(),
        Value::Sequence(items) => items.iter().map(json).collect(),
        Value::Mapping(entries) => {
            let pairs = entries
                .iter()
                .map(|entry| (entry.key.clone(), json(&entry.value)));
            serde_json::Value::Object(pairs.collect())
        }
    }
}

fn entry(file: FileEntry) -> anyhow::Result<types::Entry> {
    let ttl = |ttl: Option<FileTtl>| match ttl {
        None => Ok(0),
        Some(FileTtl::Seconds(seconds)) => fields::ttl(&seconds.to_string()),
        Some(FileTtl::Text(text)) => fields::ttl(&text),
    };
    let selectors: Vec<String> = file
        .selectors
        .into_iter()
        .map(|selector| match selector {
            FileSelector::Text(text) => text,
            FileSelector::Parts { kind, value } => format!("{kind}:{value}"),
        })
        .collect();
    Ok(types::Entry {
        id: file.id,
        spiffe_id: Some(fields::spiffe_id(&file.spiffe_id)?),
        parent_id: file
            .parent_id
            .as_deref()
            .map(fields::spiffe_id)
            .transpose()?,
        selectors: fields::selectors(&selectors)?,
        x509_svid_ttl: ttl(file.x509_svid_ttl)?,
        jwt_svid_ttl: ttl(file.jwt_svid_ttl)?,
        dns_names: file.dns_names,
        federates_with: file
            .federates_with
            .iter()
            .map(|name| fields::trust_domain(name))
            .collect::<Result<_, _>>()?,
        hint: file.hint,
        admin: file.admin,
        downstream: file.downstream,
        expires_at: file.expires_at.unwrap_or(0),
        store_svid: file.store_svid,
        ..types::Entry::default()
    })
}

/// Creates what is missing, updates what differs, leaves the rest.
///
/// # Errors
/// When the server cannot be reached.
pub async fn apply(
    mut client: EntryClient<Channel>,
    wanted: Vec<types::Entry>,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut exit = Exit::Yes;
    let mut stdout = out::stdout();
    for batch in wanted.chunks(BATCH) {
        let request = api::BatchCreateEntryRequest {
            entries: batch.to_vec(),
            output_mask: None,
        };
        let results = client
            .batch_create_entry(request)
            .await?
            .into_inner()
            .results;
        let mut updates = Vec::new();
        for (wanted, result) in batch.iter().zip(results) {
            match (client::outcome(result.status.as_ref()), result.entry) {
                (Ok(()), Some(entry)) => line(&mut stdout, "created", &entry, output)?,
                (Err(_), Some(there)) if is_same(wanted, &there) => {
                    line(&mut stdout, "unchanged", &there, output)?;
                }
                (Err(_), Some(there)) => updates.push(types::Entry {
                    id: there.id,
                    parent_id: there.parent_id,
                    ..wanted.clone()
                }),
                (outcome, None) => {
                    let id = wanted.spiffe_id.as_ref().map_or("", |id| id.path.as_str());
                    client::report(&format!("{id}: {}", outcome.err().unwrap_or_default()));
                    exit = Exit::No;
                }
            }
        }
        if updates.is_empty() {
            continue;
        }
        let request = api::BatchUpdateEntryRequest {
            entries: updates,
            input_mask: None,
            output_mask: None,
        };
        for result in client
            .batch_update_entry(request)
            .await?
            .into_inner()
            .results
        {
            match (client::outcome(result.status.as_ref()), result.entry) {
                (Ok(()), Some(entry)) => line(&mut stdout, "updated", &entry, output)?,
                (outcome, _) => {
                    client::report(&outcome.err().unwrap_or_default());
                    exit = Exit::No;
                }
            }
        }
    }
    stdout.flush()?;
    Ok(exit)
}

/// True when the entry that is there says what the file says.
fn is_same(wanted: &types::Entry, there: &types::Entry) -> bool {
    let mut federates_with = wanted.federates_with.clone();
    federates_with.sort_unstable();
    federates_with.dedup();
    let normal = types::Entry {
        id: there.id.clone(),
        parent_id: there.parent_id.clone(),
        selectors: there.selectors.clone(),
        revision_number: there.revision_number,
        created_at: there.created_at,
        federates_with,
        ..wanted.clone()
    };
    &normal == there
}

fn line(
    out: &mut impl std::io::Write,
    what: &str,
    entry: &types::Entry,
    output: Output,
) -> std::io::Result<()> {
    let mut json = print::to_json(entry);
    match output {
        Output::Human => {
            let id = json.get("spiffe_id").and_then(serde_json::Value::as_str);
            writeln!(out, "{what} {} {}", entry.id, id.unwrap_or_default())
        }
        Output::Json => {
            if let Some(object) = json.as_object_mut() {
                object.insert("outcome".to_owned(), what.into());
            }
            writeln!(out, "{json}")
        }
    }
}
