//! `portcullis svid fetch`: an SVID, once.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use portcullis_ca::clock::{SystemClock, date};
use portcullis_ca::inspect;
use portcullis_ca::key::pem;
use portcullis_ca::workload_api::client::{ReceivedX509, WorkloadClient, X509Update};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::args::{FetchArgs, WhichArgs};
use super::files::{Files, JWT_BUNDLE, TOKEN};
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Between two questions while there is no identity yet.
const AGAIN: Duration = Duration::from_millis(200);

/// Fetches, prints, writes.
///
/// # Errors
/// When the Workload API cannot be reached or a file cannot be written.
pub fn run(args: &FetchArgs, output: Output) -> anyhow::Result<Exit> {
    super::with(&args.socket, |mut client| async move {
        let until = Instant::now() + Duration::from_secs(args.wait);
        loop {
            let fetched = match args.which.audience.is_empty() {
                true => x509(&mut client, args, output).await,
                false => jwt(&mut client, args, output).await,
            };
            let waits = fetched.as_ref().err().is_some_and(|error| {
                error
                    .downcast_ref::<Status>()
                    .is_some_and(|status| status.code() == Code::PermissionDenied)
            });
            if !waits || Instant::now() >= until {
                return fetched;
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

async fn x509(
    client: &mut WorkloadClient,
    args: &FetchArgs,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut stream = client.x509_svids().await?;
    let message = stream.message().await?.context("the stream ended")?;
    let update = X509Update::read(message)?;
    let svid = pick(&update, &args.which)?;
    if let Some(folder) = &args.write {
        let mut files = Files::new(folder, &args.modes)?;
        files.x509(svid, &update)?;
        files.publish()?;
    }
    let mut stdout = out::stdout();
    match output {
        Output::Human => {
            for svid in &update.svids {
                writeln!(stdout, "{}", line(svid))?;
            }
            for (trust_domain, bundle) in &update.bundles {
                let count = bundle.len();
                let plural = if count == 1 { "y" } else { "ies" };
                writeln!(
                    stdout,
                    "bundle of {trust_domain}: {count} X.509 authorit{plural}"
                )?;
            }
            if let Some(folder) = &args.write {
                writeln!(stdout, "written: {}", folder.display())?;
            }
        }
        Output::Json => {
            for svid in &update.svids {
                writeln!(stdout, "{}", to_json(svid, &update))?;
            }
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}

/// The SVID that the flags mean.
pub fn pick<'a>(update: &'a X509Update, which: &WhichArgs) -> anyhow::Result<&'a ReceivedX509> {
    let found = update.svids.iter().find(|svid| {
        let is_id = |id: &String| id == svid.spiffe_id.as_str();
        which.spiffe_id.as_ref().is_none_or(is_id)
            && which.hint.as_ref().is_none_or(|hint| *hint == svid.hint)
    });
    match (found, &which.spiffe_id, &which.hint) {
        (Some(found), ..) => Ok(found),
        // As the server says it of JWT-SVIDs.
        (None, Some(id), _) => {
            Err(Status::permission_denied(format!("the caller is not entitled to `{id}`")).into())
        }
        (None, None, Some(hint)) => Err(Status::permission_denied(format!(
            "no identity of the caller has the hint `{hint}`"
        ))
        .into()),
        (None, None, None) => bail!("the Workload API sent no SVID"),
    }
}

/// One SVID for people.
pub fn line(svid: &ReceivedX509) -> String {
    let hint = match svid.hint.as_str() {
        "" => String::new(),
        hint => format!(" ({hint})"),
    };
    format!("{}{hint}, valid to {}", svid.spiffe_id, end(svid))
}

fn end(svid: &ReceivedX509) -> String {
    let leaf = svid.chain.first().map(|der| pem::certificate_text(der));
    let now = portcullis_ca::clock::Clock::now(&SystemClock);
    leaf.and_then(|text| inspect::inspect(text.as_bytes(), now).ok())
        .and_then(|found| found.into_iter().next())
        .and_then(|found| {
            let mut facts = found.facts.into_iter();
            facts.find(|(name, _)| *name == "Valid to")
        })
        .map_or_else(|| "an unknown time".to_owned(), |(_, value)| value)
}

/// One SVID for scripts. The private key goes into files only: standard output ends in logs.
fn to_json(svid: &ReceivedX509, update: &X509Update) -> Value {
    let text = |certificates: &[bytes::Bytes]| {
        let all = certificates.iter().map(|der| pem::certificate_text(der));
        all.collect::<String>()
    };
    let own = svid.spiffe_id.trust_domain();
    let federated = update.bundles.iter().filter(|(name, _)| *name != own);
    json!({
        "spiffe_id": svid.spiffe_id.as_str(),
        "hint": svid.hint,
        "not_after": end(svid),
        "x509_svid": text(&svid.chain),
        "bundle": update.bundles.get(own).map(|bundle| text(bundle)),
        "federated_bundles": federated
            .map(|(name, bundle)| (name.to_string(), Value::from(text(bundle))))
            .collect::<serde_json::Map<_, _>>(),
    })
}

/// A JWT-SVID and when to have the next.
pub struct FetchedJwt {
    /// Whose.
    pub spiffe_id: String,
    /// The token.
    pub token: String,
    /// What it is meant for.
    pub hint: String,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
}

/// Fetches JWT-SVIDs.
///
/// # Errors
/// What the server says.
pub async fn tokens(
    client: &mut WorkloadClient,
    audience: &[String],
    spiffe_id: Option<&String>,
) -> anyhow::Result<Vec<FetchedJwt>> {
    let id = spiffe_id.cloned().unwrap_or_default();
    let svids = client.jwt_svids(audience.to_vec(), id).await?;
    let now = portcullis_ca::clock::Clock::now(&SystemClock);
    svids
        .into_iter()
        .map(|svid| {
            let read = portcullis_ca::jwt_svid::validate::inspect(&svid.svid, now)?;
            Ok(FetchedJwt {
                expires_at: read
                    .claims
                    .get("exp")
                    .and_then(Value::as_i64)
                    .context("the token has no `exp`")?,
                spiffe_id: svid.spiffe_id,
                token: svid.svid,
                hint: svid.hint,
            })
        })
        .collect()
}

async fn jwt(
    client: &mut WorkloadClient,
    args: &FetchArgs,
    output: Output,
) -> anyhow::Result<Exit> {
    let which = &args.which;
    let all = tokens(client, &which.audience, which.spiffe_id.as_ref()).await?;
    let is_wanted = |one: &&FetchedJwt| which.hint.as_ref().is_none_or(|hint| *hint == one.hint);
    let wanted = all.iter().find(is_wanted);
    let wanted = wanted
        .ok_or_else(|| Status::permission_denied("no identity of the caller has that hint"))?;
    if let Some(folder) = &args.write {
        let mut files = Files::new(folder, &args.modes)?;
        if let Some(bundle) = jwt_bundle(client, &wanted.spiffe_id).await? {
            files.public(JWT_BUNDLE, bundle.as_bytes())?;
        }
        files.secret(TOKEN, wanted.token.as_bytes())?;
        files.publish()?;
    }
    let mut stdout = out::stdout();
    match output {
        // One token and nothing else: this is what goes between `$(` and `)`.
        Output::Human if args.write.is_none() => writeln!(stdout, "{}", wanted.token)?,
        Output::Human => {
            let end = date(wanted.expires_at);
            writeln!(stdout, "{}, valid to {end}", wanted.spiffe_id)?;
        }
        Output::Json => {
            for one in &all {
                let line = json!({
                    "spiffe_id": one.spiffe_id,
                    "hint": one.hint,
                    "not_after": date(one.expires_at),
                    "jwt_svid": one.token,
                });
                writeln!(stdout, "{line}")?;
            }
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}

/// The JWT authorities of an identity's trust domain, a JWK set.
pub async fn jwt_bundle(
    client: &mut WorkloadClient,
    spiffe_id: &str,
) -> anyhow::Result<Option<String>> {
    let own = spiffe_id.strip_prefix("spiffe://").unwrap_or(spiffe_id);
    let own = own.split('/').next().unwrap_or_default();
    let message = client.jwt_bundles().await?.message().await?;
    let bundle =
        message.and_then(|message| message.bundles.get(&format!("spiffe://{own}")).cloned());
    Ok(bundle.map(|bundle| String::from_utf8_lossy(&bundle).into_owned()))
}
