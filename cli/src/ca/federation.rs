//! `portcullis ca federation`: the trust domains whose bundles are fetched.

use std::io::Write as _;

use portcullis_ca::admin::convert;
use portcullis_ca::proto::spire::api::server::trustdomain::v1 as api;
use portcullis_ca::proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use portcullis_ca::proto::status as status_api;
use portcullis_ca::proto::status::status_client::StatusClient;
use portcullis_ca::proto::types;
use portcullis_ca::proto::types::federation_relationship::BundleEndpointProfile;
use portcullis_ca::trust_domain::TrustDomain;
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;

use super::args::{DataArg, FederationCommand, RelationshipArgs, RelationshipProfile};
use super::bundle;
use super::client::{self, time};
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Runs one verb.
///
/// # Errors
/// When the server cannot be reached, or a file cannot be read.
pub fn run(command: FederationCommand, output: Output) -> anyhow::Result<Exit> {
    match command {
        FederationCommand::Create(args) => set(&args, true, output),
        FederationCommand::Update(args) => set(&args, false, output),
        FederationCommand::List(data) => list(&data, output),
        FederationCommand::Show { data, trust_domain } => show(&data, &trust_domain, output),
        FederationCommand::Delete { data, trust_domain } => delete(&data, &trust_domain, output),
        FederationCommand::Refresh { data, trust_domain } => refresh(&data, &trust_domain, output),
    }
}

fn relationships(channel: Channel) -> TrustDomainClient<Channel> {
    TrustDomainClient::new(channel)
        .max_decoding_message_size(portcullis_ca::admin::MAX_MESSAGE)
        .max_encoding_message_size(portcullis_ca::admin::MAX_MESSAGE)
}

fn set(args: &RelationshipArgs, create: bool, output: Output) -> anyhow::Result<Exit> {
    let trust_domain = TrustDomain::from_input(&args.trust_domain)?;
    let profile = match (args.profile, &args.endpoint_id) {
        (RelationshipProfile::HttpsWeb, None) => {
            BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})
        }
        (RelationshipProfile::HttpsWeb, Some(_)) => anyhow::bail!(
            "`--endpoint-id` is for `--profile https_spiffe`: in https_web the host's certificate counts"
        ),
        (RelationshipProfile::HttpsSpiffe, Some(id)) => {
            BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
                endpoint_spiffe_id: id.clone(),
            })
        }
        (RelationshipProfile::HttpsSpiffe, None) => anyhow::bail!(
            "`--endpoint-id` is missing: the SPIFFE ID that the endpoint must have, such as `spiffe://{trust_domain}/spire/server` (SPIFFE Federation §5.2.2)"
        ),
    };
    let first = match &args.bundle {
        None => None,
        Some(file) => match bundle::read(trust_domain.clone(), file)? {
            Ok(bundle) => Some(convert::to_bundle(&bundle, None)),
            Err(message) => {
                client::report(&format!("`{}`: {message}", file.display()));
                return Ok(Exit::No);
            }
        },
    };
    let relationship = types::FederationRelationship {
        trust_domain: trust_domain.to_string(),
        bundle_endpoint_url: args.url.clone(),
        bundle_endpoint_profile: Some(profile),
        trust_domain_bundle: first,
    };
    client::with(&args.data, |channel| async move {
        let mut client = relationships(channel);
        let outcome = match create {
            true => {
                let request = api::BatchCreateFederationRelationshipRequest {
                    federation_relationships: vec![relationship],
                    output_mask: None,
                };
                let answer = client.batch_create_federation_relationship(request).await?;
                let mut results = answer.into_inner().results;
                results.pop().and_then(|result| result.status)
            }
            false => {
                let request = api::BatchUpdateFederationRelationshipRequest {
                    federation_relationships: vec![relationship],
                    input_mask: None,
                    output_mask: None,
                };
                let answer = client.batch_update_federation_relationship(request).await?;
                let mut results = answer.into_inner().results;
                results.pop().and_then(|result| result.status)
            }
        };
        if let Err(message) = client::outcome(outcome.as_ref()) {
            client::report(&message);
            return Ok(Exit::No);
        }
        let what = if create { "created" } else { "updated" };
        done(what, &trust_domain, output)
    })
}

fn done(what: &'static str, trust_domain: &TrustDomain, output: Output) -> anyhow::Result<Exit> {
    let mut stdout = out::stdout();
    match output {
        Output::Human => writeln!(stdout, "{what} {trust_domain}")?,
        Output::Json => {
            let line = json!({"trust_domain": trust_domain.as_str(), what: true});
            writeln!(stdout, "{line}")?;
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}

fn list(data: &DataArg, output: Output) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let all = known(channel).await?;
        let mut stdout = out::stdout();
        match output {
            Output::Human => {
                for one in &all {
                    human(&mut stdout, one)?;
                }
            }
            Output::Json => {
                let all: Vec<Value> = all.iter().map(to_json).collect();
                writeln!(stdout, "{}", Value::from(all))?;
            }
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn show(data: &DataArg, trust_domain: &str, output: Output) -> anyhow::Result<Exit> {
    let trust_domain = TrustDomain::from_input(trust_domain)?;
    client::with(data, |channel| async move {
        let all = known(channel).await?;
        let found = all
            .iter()
            .find(|one| one.trust_domain == trust_domain.as_str())
            .ok_or_else(|| {
                Status::not_found(format!(
                    "there is no federation relationship with the trust domain `{trust_domain}`"
                ))
            })?;
        let mut stdout = out::stdout();
        match output {
            Output::Human => human(&mut stdout, found)?,
            Output::Json => writeln!(stdout, "{}", to_json(found))?,
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

/// All of them, with how their last attempts went.
async fn known(channel: Channel) -> anyhow::Result<Vec<status_api::Federation>> {
    let status = StatusClient::new(channel)
        .get_status(status_api::GetStatusRequest {})
        .await?;
    Ok(status.into_inner().federations)
}

fn delete(data: &DataArg, trust_domain: &str, output: Output) -> anyhow::Result<Exit> {
    let trust_domain = TrustDomain::from_input(trust_domain)?;
    client::with(data, |channel| async move {
        let request = api::BatchDeleteFederationRelationshipRequest {
            trust_domains: vec![trust_domain.to_string()],
        };
        let answer = relationships(channel)
            .batch_delete_federation_relationship(request)
            .await?;
        for result in answer.into_inner().results {
            if let Err(message) = client::outcome(result.status.as_ref()) {
                client::report(&message);
                return Ok(Exit::No);
            }
        }
        done("deleted", &trust_domain, output)
    })
}

fn refresh(data: &DataArg, trust_domain: &str, output: Output) -> anyhow::Result<Exit> {
    let trust_domain = TrustDomain::from_input(trust_domain)?;
    client::with(data, |channel| async move {
        let request = api::RefreshBundleRequest {
            trust_domain: trust_domain.to_string(),
        };
        relationships(channel).refresh_bundle(request).await?;
        done("refreshed", &trust_domain, output)
    })
}

fn human(out: &mut impl std::io::Write, one: &status_api::Federation) -> std::io::Result<()> {
    let endpoint = match one.endpoint_spiffe_id.as_str() {
        "" => String::new(),
        id => format!(", endpoint {id}"),
    };
    writeln!(
        out,
        "{}: {} ({}{endpoint})",
        one.trust_domain, one.url, one.profile
    )?;
    match one.refreshed_at {
        0 => writeln!(out, "  no bundle was fetched since the start")?,
        at => writeln!(out, "  sequence {}, fetched {}", one.sequence, time(at))?,
    }
    if !one.error.is_empty() {
        writeln!(out, "  failed {} times since: {}", one.failures, one.error)?;
    }
    if one.next_at > 0 {
        writeln!(out, "  next: {}", time(one.next_at))?;
    }
    Ok(())
}

fn to_json(one: &status_api::Federation) -> Value {
    let seconds = |seconds: i64| (seconds > 0).then_some(seconds);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "trust_domain": one.trust_domain,
        "url": one.url,
        "profile": one.profile,
        "endpoint_spiffe_id": text(&one.endpoint_spiffe_id),
        "sequence": one.sequence,
        "refreshed_at": seconds(one.refreshed_at),
        "next_at": seconds(one.next_at),
        "failures": one.failures,
        "error": text(&one.error),
    })
}
