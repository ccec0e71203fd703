//! `portcullis svid watch`: files that follow the identity, and a command after each change.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use portcullis_ca::clock::{Clock as _, SystemClock, date, unix_seconds};
use portcullis_ca::workload_api::client::{WorkloadClient, WorkloadEndpoint, X509Update};
use tonic::{Code, Status};

use super::args::{WatchArgs, WhichArgs};
use super::fetch;
use super::files::{Files, JWT_BUNDLE, TOKEN};
use crate::args::Output;
use crate::exit::Exit;
use crate::{out, shutdown};

/// First and longest pause after a connection that ended.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Watches until SIGINT or SIGTERM.
///
/// # Errors
/// When the answer can never change, or a file cannot be written.
pub fn run(args: &WatchArgs, output: Output) -> anyhow::Result<Exit> {
    let endpoint = super::endpoint(&args.socket)?;
    super::block_on(async {
        let stop = shutdown::signal()?;
        tokio::select! {
            ended = follow(args, &endpoint, output) => ended,
            () = stop => Ok(Exit::Yes),
        }
    })
}

/// Stays connected. What an operator can still change (no entry yet, no server yet) is waited for.
async fn follow(
    args: &WatchArgs,
    endpoint: &WorkloadEndpoint,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut pause = PAUSES.0;
    let mut told = String::new();
    loop {
        let ended = match WorkloadClient::connect(endpoint).await {
            Err(error) => error.to_string(),
            Ok(client) => {
                let mut got_something = false;
                let ended = tokio::select! {
                    ended = x509(args, client.clone(), output, &mut got_something) => ended,
                    ended = jwt(args, client, output) => ended,
                };
                if got_something {
                    pause = PAUSES.0;
                    told.clear();
                }
                let error = ended
                    .err()
                    .unwrap_or_else(|| anyhow::anyhow!("the stream ended"));
                match error.downcast::<Status>() {
                    // The same question would get the same answer.
                    Ok(status)
                        if matches!(status.code(), Code::InvalidArgument | Code::Unimplemented) =>
                    {
                        return super::refused(&status);
                    }
                    Ok(status) => format!("{:?}: {}", status.code(), status.message()),
                    Err(error) => return Err(error),
                }
            }
        };
        if ended != told {
            out::report(format_args!("waiting: {ended}"));
            told = ended;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn x509(
    args: &WatchArgs,
    mut client: WorkloadClient,
    output: Output,
    got_something: &mut bool,
) -> anyhow::Result<()> {
    let which = WhichArgs {
        spiffe_id: args.spiffe_id.clone(),
        hint: args.hint.clone(),
        audience: Vec::new(),
    };
    let mut stream = client.x509_svids().await?;
    while let Some(message) = stream.message().await? {
        let update = X509Update::read(message)?;
        let svid = fetch::pick(&update, &which)?;
        let mut files = Files::new(&args.write, &args.modes)?;
        files.x509(svid, &update)?;
        files.publish()?;
        *got_something = true;
        tell(output, svid.spiffe_id.as_str(), "x509", &fetch::line(svid))?;
        reload(args).await;
    }
    Ok(())
}

/// A token at half the life of the one before.
async fn jwt(args: &WatchArgs, mut client: WorkloadClient, output: Output) -> anyhow::Result<()> {
    if args.audience.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let all = fetch::tokens(&mut client, &args.audience, args.spiffe_id.as_ref()).await?;
        let is_wanted =
            |one: &&fetch::FetchedJwt| args.hint.as_ref().is_none_or(|hint| *hint == one.hint);
        let one = all.iter().find(is_wanted);
        let one = one.ok_or_else(|| Status::permission_denied("no identity has that hint"))?;
        let mut files = Files::new(&args.write, &args.modes)?;
        if let Some(bundle) = fetch::jwt_bundle(&mut client, &one.spiffe_id).await? {
            files.public(JWT_BUNDLE, bundle.as_bytes())?;
        }
        files.secret(TOKEN, one.token.as_bytes())?;
        files.publish()?;
        let line = format!("{}, token valid to {}", one.spiffe_id, date(one.expires_at));
        tell(output, &one.spiffe_id, "jwt", &line)?;
        reload(args).await;
        let left = one
            .expires_at
            .saturating_sub(unix_seconds(SystemClock.now()));
        let half = u64::try_from(left / 2).unwrap_or(0).max(1);
        tokio::time::sleep(Duration::from_secs(half)).await;
    }
}

fn tell(output: Output, spiffe_id: &str, kind: &str, line: &str) -> std::io::Result<()> {
    let mut stdout = out::stdout();
    match output {
        Output::Human => writeln!(stdout, "updated {line}")?,
        Output::Json => {
            let line = serde_json::json!({"updated": kind, "spiffe_id": spiffe_id});
            writeln!(stdout, "{line}")?;
        }
    }
    stdout.flush()
}

/// A command that fails is told: the files are right, and the next change tries again. One that does not
/// end would keep every later change out of the files.
async fn reload(args: &WatchArgs) {
    let Some(command) = &args.reload else { return };
    let run = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let limit = Duration::from_secs(args.reload_timeout);
    match tokio::time::timeout(limit, run).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => out::report(format_args!("the reload command ended with {status}")),
        Ok(Err(error)) => out::report(format_args!("the reload command did not start: {error}")),
        Err(_) => out::report(format_args!(
            "the reload command was ended: it took more than {limit:?} (--reload-timeout)"
        )),
    }
}
