//! Asks the running service every example request over gRPC, as Envoy would, and prints what it
//! said.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use envoy_types::ext_authz::v3::pb::CheckResponse;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use portcullis_authz::client::Client;
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::{check_request, facts};
use tonic::metadata::MetadataMap;

use crate::out::{self, BAD, BOLD, CAUTION, DIM, GOOD};
use crate::policy::decide::summary;

/// What the service said of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The verdict.
    pub allow: bool,
    /// Its reason.
    pub reason: String,
    /// The rule that told, where one did.
    pub policy: Option<String>,
    /// Verdict and rule with the policies on trial, where the verdict differs.
    flip: Option<(String, String)>,
}

/// Sends every request in the file `requests` to the service at `address` and prints a table.
///
/// # Errors
/// When a request cannot be read, or the service does not answer.
pub async fn run(address: SocketAddr, requests: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(requests)
        .with_context(|| format!("cannot read requests from `{}`", requests.display()))?;
    let mut client = Client::connect(&Endpoint::Tcp(address)).await?;
    let mut rows = Vec::new();
    for line in check_request::lines(text.as_slice()) {
        let check = line
            .request
            .with_context(|| format!("{}:{}", requests.display(), line.number))?;
        let asked = facts::request(
            check.clone(),
            &MetadataMap::new(),
            &facts::Options::default(),
        )
        .map_or_else(|invalid| invalid.to_string(), |request| summary(&request));
        let response = client.check(tonic::Request::new(check)).await?;
        let said = said(&response).context("the service's answer carries no decision")?;
        rows.push((line.number, said, asked));
    }
    print(&rows)
}

/// Reads the dynamic metadata `portcullis`, which holds the whole decision.
pub fn said(response: &CheckResponse) -> Option<Said> {
    let decision = structure(
        response
            .dynamic_metadata
            .as_ref()?
            .fields
            .get("portcullis")?,
    )?;
    let verdict = text(decision, "decision")?;
    let flip = decision
        .fields
        .get("dry_run")
        .and_then(structure)
        .and_then(|trial| {
            let other = text(trial, "decision")?;
            let rule = first(trial, "policies")
                .unwrap_or_else(|| text(trial, "reason").unwrap_or_default());
            (other != verdict).then(|| (other.to_uppercase(), rule))
        });
    Some(Said {
        allow: verdict == "allow",
        reason: text(decision, "reason")?,
        policy: first(decision, "policies"),
        flip,
    })
}

fn structure(value: &Value) -> Option<&Struct> {
    match value.kind.as_ref()? {
        Kind::StructValue(fields) => Some(fields),
        _ => None,
    }
}

fn text(fields: &Struct, name: &str) -> Option<String> {
    match fields.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

fn first(fields: &Struct, name: &str) -> Option<String> {
    match fields.fields.get(name)?.kind.as_ref()? {
        Kind::ListValue(list) => match list.values.first()?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn print(rows: &[(u64, Said, String)]) -> anyhow::Result<()> {
    if rows.is_empty() {
        bail!("no request to replay");
    }
    let width = |header: &str, longest: &dyn Fn(&Said) -> usize| {
        rows.iter()
            .map(|(_, said, _)| longest(said))
            .max()
            .unwrap_or(0)
            .max(header.len())
    };
    let reason = width("reason", &|said| said.reason.len());
    let policy = width("rule", &|said| said.policy.as_deref().map_or(1, str::len));
    let mut out = out::stdout();
    writeln!(
        out,
        "{BOLD}  line  verdict  {:<reason$}  {:<policy$}  request{BOLD:#}",
        "reason", "rule"
    )?;
    for (line, said, asked) in rows {
        let (style, verdict) = if said.allow {
            (GOOD, "ALLOW")
        } else {
            (BAD, "DENY")
        };
        writeln!(
            out,
            "  {line:>4}  {style}{verdict:<7}{style:#}  {:<reason$}  {:<policy$}  {DIM}{asked}{DIM:#}",
            said.reason,
            said.policy.as_deref().unwrap_or("-"),
        )?;
        if let Some((verdict, rule)) = &said.flip {
            writeln!(
                out,
                "        {CAUTION}on trial: would be {verdict}{CAUTION:#} by {rule}"
            )?;
        }
    }
    out.flush()?;
    Ok(())
}
