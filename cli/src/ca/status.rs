//! `portcullis ca status`: everything at a glance.

use std::io::{self, Write};

use portcullis_ca::proto::status as api;
use portcullis_ca::proto::status::status_client::StatusClient;
use serde_json::{Value, json};

use super::args::DataArg;
use super::client::{self, time};
use crate::args::Output;
use crate::exit::Exit;
use crate::out::{self, BAD};

/// Columns of an authority's timeline.
const WIDTH: i64 = 40;

/// Asks the server and prints what it is doing.
///
/// # Errors
/// When the server cannot be reached.
pub fn run(data: &DataArg, output: Output) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let status = StatusClient::new(channel)
            .get_status(api::GetStatusRequest {})
            .await?;
        let status = status.into_inner();
        let mut stdout = out::stdout();
        match output {
            Output::Human => human(&mut stdout, &status)?,
            Output::Json => writeln!(stdout, "{}", to_json(&status))?,
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn human(out: &mut impl Write, status: &api::GetStatusResponse) -> io::Result<()> {
    for alarm in &status.alarms {
        writeln!(out, "{BAD}Alarm        : {alarm}{BAD:#}")?;
    }
    writeln!(out, "Trust domain : {}", status.trust_domain)?;
    writeln!(
        out,
        "Running since: {}, version {}",
        time(status.started_at),
        status.version
    )?;
    writeln!(
        out,
        "Entries      : {} (revision {})",
        status.entries, status.revision
    )?;
    writeln!(
        out,
        "Streams      : {}, of which {} do not have the newest bundle yet",
        status.streams, status.streams_behind
    )?;
    writeln!(
        out,
        "Bundle       : sequence {}, and {} of other trust domains",
        status.bundle_sequence, status.federated_bundles
    )?;
    for one in &status.federations {
        let state = match (one.error.as_str(), one.refreshed_at) {
            ("", 0) => "not fetched yet".to_owned(),
            ("", at) => format!("sequence {}, fetched {}", one.sequence, time(at)),
            (error, _) => format!("failed {} times: {error}", one.failures),
        };
        writeln!(out, "Federation   : {}, {state}", one.trust_domain)?;
    }
    if let Some(cluster) = &status.cluster {
        human_cluster(out, cluster)?;
    }
    for authority in &status.authorities {
        writeln!(out)?;
        writeln!(
            out,
            "{} authority {} ({}), {}",
            authority.kind, authority.id, authority.algorithm, authority.state
        )?;
        writeln!(out, "  {}", timeline(authority, status.now))?;
        writeln!(
            out,
            "  {} to {}",
            time(authority.not_before),
            time(authority.not_after)
        )?;
        if authority.successor_prepared_at > 0 {
            writeln!(
                out,
                "  successor: prepared {}, takes over {}",
                time(authority.successor_prepared_at),
                time(authority.successor_activated_at)
            )?;
        }
    }
    Ok(())
}

fn human_cluster(out: &mut impl Write, cluster: &api::Cluster) -> io::Result<()> {
    if !cluster.node.is_empty() {
        let (pods, node) = (cluster.pods, &cluster.node);
        let noun = if pods == 1 { "pod" } else { "pods" };
        writeln!(out, "Kubernetes   : {pods} {noun} on the node {node}")?;
    }
    if cluster.cluster_spiffe_ids > 0 {
        writeln!(
            out,
            "Kubernetes   : {} entries of {} ClusterSPIFFEIDs",
            cluster.entries, cluster.cluster_spiffe_ids
        )?;
    }
    for one in &cluster.followed {
        let state = match (one.trouble.as_str(), one.age) {
            ("", age) => format!("followed, heard of {age} s ago"),
            (trouble, _) => trouble.to_owned(),
        };
        writeln!(out, "Kubernetes   : {}: {state}", one.resource)?;
    }
    Ok(())
}

/// A life as a line: `=` is past, `-` to come, `|` now; `P` and `A` are the successor's preparation and takeover.
fn timeline(authority: &api::Authority, now: i64) -> String {
    let life = (authority.not_after - authority.not_before).max(1);
    let place = |time: i64| (time - authority.not_before).clamp(0, life) * (WIDTH - 1) / life;
    let line = (0..WIDTH).map(|at| {
        if at == place(now) {
            '|'
        } else if authority.successor_activated_at > 0
            && at == place(authority.successor_activated_at)
        {
            'A'
        } else if authority.successor_prepared_at > 0
            && at == place(authority.successor_prepared_at)
        {
            'P'
        } else if at < place(now) {
            '='
        } else {
            '-'
        }
    });
    format!("[{}]", line.collect::<String>())
}

fn to_json(status: &api::GetStatusResponse) -> Value {
    json!({
        "trust_domain": status.trust_domain,
        "version": status.version,
        "started_at": status.started_at,
        "now": status.now,
        "entries": status.entries,
        "revision": status.revision,
        "bundle_sequence": status.bundle_sequence,
        "streams": status.streams,
        "streams_behind": status.streams_behind,
        "federated_bundles": status.federated_bundles,
        "alarms": status.alarms,
        "kubernetes": status.cluster.as_ref().map(cluster),
        "authorities": status.authorities.iter().map(authority).collect::<Vec<_>>(),
    })
}

fn cluster(cluster: &api::Cluster) -> Value {
    let followed = cluster.followed.iter().map(|one| {
        json!({
            "resource": one.resource,
            "trouble": one.trouble,
            "age": (one.age >= 0).then_some(one.age),
        })
    });
    json!({
        "node": cluster.node,
        "pods": cluster.pods,
        "cluster_spiffe_ids": cluster.cluster_spiffe_ids,
        "entries": cluster.entries,
        "followed": followed.collect::<Vec<_>>(),
    })
}

/// An authority as a JSON object; times in Unix seconds, null for those that have not come.
pub fn authority(authority: &api::Authority) -> Value {
    let seconds = |seconds: i64| (seconds > 0).then_some(seconds);
    json!({
        "id": authority.id,
        "kind": authority.kind,
        "state": authority.state,
        "algorithm": authority.algorithm,
        "not_before": authority.not_before,
        "not_after": authority.not_after,
        "prepared_at": seconds(authority.prepared_at),
        "activated_at": seconds(authority.activated_at),
        "retired_at": seconds(authority.retired_at),
        "tainted_at": seconds(authority.tainted_at),
        "revoked_at": seconds(authority.revoked_at),
        "published": authority.published,
        "successor_prepared_at": seconds(authority.successor_prepared_at),
        "successor_activated_at": seconds(authority.successor_activated_at),
        "has_key": authority.has_key,
    })
}
