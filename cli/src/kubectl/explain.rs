//! `kubectl portcullis explain`: why a request would be allowed or denied, by what is in force in the cluster.

use std::io::Write as _;

use portcullis_authz::facts;
use portcullis_policy::request::PathForm;
use tonic::metadata::MetadataMap;

use super::args::{ClusterArgs, ExplainArgs};
use super::cluster::Live;
use super::{destination, path, request};
use crate::args::Output;
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
    let mut stdout = out::stdout();
    let mut exit = Exit::Yes;
    for (place, point) in path::of(&live, &destination, args)
        .await?
        .iter()
        .enumerate()
    {
        let check = request::check_request(args, &destination, point, &live.snapshot)?;
        let options = facts::Options {
            path_form: PathForm::Raw,
            target: point.target,
            num_trusted_proxies: live.snapshot.mesh().num_trusted_proxies,
        };
        let asked = facts::request(check, &MetadataMap::new(), &options)?;
        let story = live.snapshot.explain(&asked, args.all);
        match output {
            Output::Json => json_line(&mut stdout, &story)?,
            Output::Human => {
                if place > 0 {
                    writeln!(stdout)?;
                }
                if let Some(at) = &point.at {
                    writeln!(stdout, "{BOLD}{at}{BOLD:#}")?;
                }
                writeln!(stdout, "{BOLD}{}{BOLD:#}", summary(&asked))?;
                if let Some(address) = asked.source.address
                    && args.from_ip.is_none()
                    && point.from.is_none()
                {
                    writeln!(
                        stdout,
                        "{DIM}from {address}, the address of such a pod{DIM:#}"
                    )?;
                }
                write_story(&mut stdout, &story, args.all)?;
            }
        }
        if !story.decision.is_allow() {
            exit = Exit::No;
            // What is denied here gets no farther.
            break;
        }
    }
    stdout.flush()?;
    Ok(exit)
}
