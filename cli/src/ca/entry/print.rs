//! Entries on standard output.

use std::io::{self, Write};

use portcullis_ca::proto::types;
use serde_json::{Value, json};

use crate::args::Output;
use crate::ca::client::time;
use crate::out;

/// Entries that were asked for one by one: blocks for people, a JSON object per line for scripts.
///
/// # Errors
/// When nobody reads it.
pub fn each(entries: &[types::Entry], output: Output) -> io::Result<()> {
    let mut stdout = out::stdout();
    for (place, entry) in entries.iter().enumerate() {
        match output {
            Output::Human => {
                if place > 0 {
                    writeln!(stdout)?;
                }
                block(&mut stdout, entry)?;
            }
            Output::Json => writeln!(stdout, "{}", to_json(entry))?,
        }
    }
    stdout.flush()
}

/// A list: how many and then blocks for people, one JSON array for scripts.
///
/// # Errors
/// When nobody reads it.
pub fn all(entries: &[types::Entry], output: Output) -> io::Result<()> {
    match output {
        Output::Human => {
            let mut stdout = out::stdout();
            let noun = if entries.len() == 1 {
                "entry"
            } else {
                "entries"
            };
            writeln!(stdout, "{} {noun}", entries.len())?;
            for entry in entries {
                writeln!(stdout)?;
                block(&mut stdout, entry)?;
            }
            stdout.flush()
        }
        Output::Json => {
            let mut stdout = out::stdout();
            writeln!(stdout, "{}", Value::from_iter(entries.iter().map(to_json)))?;
            stdout.flush()
        }
    }
}

fn id(id: Option<&types::Spiffeid>) -> String {
    id.map_or_else(String::new, |id| {
        format!("spiffe://{}{}", id.trust_domain, id.path)
    })
}

fn selectors(entry: &types::Entry) -> impl Iterator<Item = String> + '_ {
    entry
        .selectors
        .iter()
        .map(|selector| format!("{}:{}", selector.r#type, selector.value))
}

/// An entry as a JSON object; lifetimes in seconds, null for the trust domain's.
pub fn to_json(entry: &types::Entry) -> Value {
    let seconds = |seconds: i32| (seconds > 0).then_some(seconds);
    json!({
        "id": entry.id,
        "spiffe_id": id(entry.spiffe_id.as_ref()),
        "parent_id": id(entry.parent_id.as_ref()),
        "selectors": selectors(entry).collect::<Vec<_>>(),
        "x509_svid_ttl": seconds(entry.x509_svid_ttl),
        "jwt_svid_ttl": seconds(entry.jwt_svid_ttl),
        "dns_names": entry.dns_names,
        "federates_with": entry.federates_with,
        "hint": entry.hint,
        "admin": entry.admin,
        "downstream": entry.downstream,
        "expires_at": (entry.expires_at > 0).then_some(entry.expires_at),
        "revision_number": entry.revision_number,
        "created_at": entry.created_at,
    })
}

fn block(out: &mut impl Write, entry: &types::Entry) -> io::Result<()> {
    let ttl = |seconds: i32| match seconds {
        0 => "default".to_owned(),
        seconds => format!("{seconds} s"),
    };
    writeln!(out, "Entry ID         : {}", entry.id)?;
    writeln!(out, "SPIFFE ID        : {}", id(entry.spiffe_id.as_ref()))?;
    writeln!(out, "Parent ID        : {}", id(entry.parent_id.as_ref()))?;
    writeln!(out, "Revision         : {}", entry.revision_number)?;
    writeln!(out, "X509-SVID TTL    : {}", ttl(entry.x509_svid_ttl))?;
    writeln!(out, "JWT-SVID TTL     : {}", ttl(entry.jwt_svid_ttl))?;
    for selector in selectors(entry) {
        writeln!(out, "Selector         : {selector}")?;
    }
    for name in &entry.dns_names {
        writeln!(out, "DNS name         : {name}")?;
    }
    for name in &entry.federates_with {
        writeln!(out, "FederatesWith    : {name}")?;
    }
    if !entry.hint.is_empty() {
        writeln!(out, "Hint             : {}", entry.hint)?;
    }
    if entry.admin {
        writeln!(out, "Admin            : true")?;
    }
    if entry.downstream {
        writeln!(out, "Downstream       : true")?;
    }
    if entry.expires_at > 0 {
        writeln!(out, "Expiration time  : {}", time(entry.expires_at))?;
    }
    Ok(())
}
