//! `kubectl portcullis explain`: why a request would be allowed or denied, by what is in force in the cluster.

use std::io::Write as _;

use portcullis_authz::facts;
use portcullis_policy::request::PathForm;
use tonic::metadata::MetadataMap;

use super::args::{ClusterArgs, ExplainArgs};
use super::cluster::Live;
use super::{destination, request};
use crate::args::{Output, TargetArg};
use crate::exit::Exit;
use crate::out::{self, BOLD, DIM};
use crate::policy::decide::{json_line, summary};
use crate::policy::explain::write_story;

/// Explains the request that `args` describe.
///
/// # Errors
/// When the cluster cannot be read, or has no such workload.
pub async fn run(
    args: &ExplainArgs,
    cluster: &ClusterArgs,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut live = Live::read(cluster, false).await?;
    live.knows(&live.namespace).await?;
    let destination = destination::find(&mut live, &args.workload, args.port).await?;
    let check = request::check_request(args, &destination, &live.snapshot)?;
    let options = facts::Options {
        path_form: PathForm::Raw,
        target: args.target.and_then(TargetArg::target),
        num_trusted_proxies: live.snapshot.mesh().num_trusted_proxies,
    };
    let asked = facts::request(check, &MetadataMap::new(), &options)?;
    let story = live.snapshot.explain(&asked, args.all);
    let mut stdout = out::stdout();
    match output {
        Output::Json => json_line(&mut stdout, &story)?,
        Output::Human => {
            writeln!(stdout, "{BOLD}{}{BOLD:#}", summary(&asked))?;
            if let Some(address) = asked.source.address
                && args.from_ip.is_none()
            {
                writeln!(
                    stdout,
                    "{DIM}from {address}, the address of such a pod{DIM:#}"
                )?;
            }
            write_story(&mut stdout, &story, args.all)?;
        }
    }
    stdout.flush()?;
    Ok(if story.decision.is_allow() {
        Exit::Yes
    } else {
        Exit::No
    })
}
