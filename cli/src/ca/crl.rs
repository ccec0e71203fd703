//! `portcullis ca crl`: revoking single X.509-SVIDs.

use std::io::Write as _;

use portcullis_ca::key::pem;
use portcullis_ca::proto::status::revocation_client::RevocationClient;
use portcullis_ca::proto::status::{ListRevokedRequest, RevokeX509sviDsRequest, Revoked};
use serde_json::json;

use super::args::{CrlCommand, DataArg};
use super::client::{self, time};
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Runs one verb.
///
/// # Errors
/// When the server cannot be reached.
pub fn run(command: CrlCommand, output: Output) -> anyhow::Result<Exit> {
    match command {
        CrlCommand::Revoke {
            data,
            reason,
            serials,
        } => revoke(&data, reason, serials, output),
        CrlCommand::List(data) => list(&data, output),
        CrlCommand::Show(data) => show(&data),
    }
}

fn revoke(
    data: &DataArg,
    reason: String,
    serials: Vec<String>,
    output: Output,
) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let request = RevokeX509sviDsRequest { serials, reason };
        let mut client = RevocationClient::new(channel);
        let answer = client.revoke_x509svi_ds(request).await?.into_inner();
        let mut exit = Exit::Yes;
        let mut stdout = out::stdout();
        for result in answer.results {
            match (&result.revoked, output) {
                (None, _) => {
                    client::report(&result.message);
                    exit = Exit::No;
                }
                (Some(revoked), Output::Human) => writeln!(stdout, "revoked {}", revoked.serial)?,
                (Some(revoked), Output::Json) => writeln!(stdout, "{}", as_json(revoked))?,
            }
        }
        stdout.flush()?;
        Ok(exit)
    })
}

fn list(data: &DataArg, output: Output) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let mut client = RevocationClient::new(channel);
        let answer = client
            .list_revoked(ListRevokedRequest {})
            .await?
            .into_inner();
        let mut stdout = out::stdout();
        for revoked in answer.revoked {
            match output {
                Output::Human => writeln!(
                    stdout,
                    "{}  {}  revoked {}  expires {}  by authority {}",
                    revoked.serial,
                    revoked.reason,
                    time(revoked.revoked_at),
                    time(revoked.not_after),
                    revoked.authority
                )?,
                Output::Json => writeln!(stdout, "{}", as_json(&revoked))?,
            }
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn show(data: &DataArg) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let mut client = RevocationClient::new(channel);
        let answer = client
            .list_revoked(ListRevokedRequest {})
            .await?
            .into_inner();
        let mut stdout = out::stdout();
        for list in answer.crls {
            write!(stdout, "{}", pem::crl_text(&list))?;
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn as_json(revoked: &Revoked) -> serde_json::Value {
    json!({
        "serial": revoked.serial, "authority": revoked.authority, "reason": revoked.reason,
        "revoked_at": time(revoked.revoked_at), "not_after": time(revoked.not_after),
    })
}
