//! `portcullis ca authority`: the lives of signing authorities, by hand.

use std::io::Write as _;

use portcullis_ca::admin::local_authority::EMERGENCY;
use portcullis_ca::proto::spire::api::server::localauthority::v1 as api;
use portcullis_ca::proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use portcullis_ca::proto::status::GetStatusRequest;
use portcullis_ca::proto::status::status_client::StatusClient;
use serde_json::json;
use tonic::Request;
use tonic::transport::Channel;

use super::args::{AuthorityArgs, AuthorityCommand, DataArg, Kind};
use super::client::{self, time};
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Runs one verb.
///
/// # Errors
/// When the server cannot be reached.
pub fn run(command: AuthorityCommand, output: Output) -> anyhow::Result<Exit> {
    match command {
        AuthorityCommand::List(data) => list(&data, output),
        AuthorityCommand::Prepare { kind, data } => client::with(&data, |channel| async move {
            let mut client = LocalAuthorityClient::new(channel);
            let prepared = match kind {
                Kind::X509 => {
                    let answer = client.prepare_x509_authority(api::PrepareX509AuthorityRequest {});
                    answer.await?.into_inner().prepared_authority
                }
                Kind::Jwt => {
                    let answer = client.prepare_jwt_authority(api::PrepareJwtAuthorityRequest {});
                    answer.await?.into_inner().prepared_authority
                }
                Kind::Wit => {
                    let answer = client.prepare_wit_authority(api::PrepareWitAuthorityRequest {});
                    answer.await?.into_inner().prepared_authority
                }
            };
            print("prepared", kind, prepared, output)
        }),
        AuthorityCommand::Activate(args) => {
            client::with(&args.data.clone(), |channel| async move {
                let (kind, authority_id) = (kind_of(&channel, &args).await?, args.id.clone());
                let mut client = LocalAuthorityClient::new(channel);
                let activated = match kind {
                    Kind::X509 => {
                        let request = api::ActivateX509AuthorityRequest { authority_id };
                        client
                            .activate_x509_authority(request)
                            .await?
                            .into_inner()
                            .activated_authority
                    }
                    Kind::Jwt => {
                        let request = api::ActivateJwtAuthorityRequest { authority_id };
                        client
                            .activate_jwt_authority(request)
                            .await?
                            .into_inner()
                            .activated_authority
                    }
                    Kind::Wit => {
                        let request = api::ActivateWitAuthorityRequest { authority_id };
                        client
                            .activate_wit_authority(request)
                            .await?
                            .into_inner()
                            .activated_authority
                    }
                };
                print("active", kind, activated, output)
            })
        }
        AuthorityCommand::Taint {
            authority,
            emergency,
        } => client::with(&authority.data.clone(), |channel| async move {
            let (kind, authority_id) = (kind_of(&channel, &authority).await?, authority.id.clone());
            let mut client = LocalAuthorityClient::new(channel);
            let tainted = match kind {
                Kind::X509 => {
                    let request = api::TaintX509AuthorityRequest { authority_id };
                    let request = with_emergency(request, emergency);
                    client
                        .taint_x509_authority(request)
                        .await?
                        .into_inner()
                        .tainted_authority
                }
                Kind::Jwt => {
                    let request = api::TaintJwtAuthorityRequest { authority_id };
                    let request = with_emergency(request, emergency);
                    client
                        .taint_jwt_authority(request)
                        .await?
                        .into_inner()
                        .tainted_authority
                }
                Kind::Wit => {
                    let request = api::TaintWitAuthorityRequest { authority_id };
                    let request = with_emergency(request, emergency);
                    client
                        .taint_wit_authority(request)
                        .await?
                        .into_inner()
                        .tainted_authority
                }
            };
            print("tainted", kind, tainted, output)
        }),
        AuthorityCommand::Revoke(args) => client::with(&args.data.clone(), |channel| async move {
            let (kind, authority_id) = (kind_of(&channel, &args).await?, args.id.clone());
            let mut client = LocalAuthorityClient::new(channel);
            let revoked = match kind {
                Kind::X509 => {
                    let request = api::RevokeX509AuthorityRequest { authority_id };
                    client
                        .revoke_x509_authority(request)
                        .await?
                        .into_inner()
                        .revoked_authority
                }
                Kind::Jwt => {
                    let request = api::RevokeJwtAuthorityRequest { authority_id };
                    client
                        .revoke_jwt_authority(request)
                        .await?
                        .into_inner()
                        .revoked_authority
                }
                Kind::Wit => {
                    let request = api::RevokeWitAuthorityRequest { authority_id };
                    client
                        .revoke_wit_authority(request)
                        .await?
                        .into_inner()
                        .revoked_authority
                }
            };
            print("revoked", kind, revoked, output)
        }),
    }
}

fn with_emergency<T>(message: T, emergency: bool) -> Request<T> {
    let mut request = Request::new(message);
    if emergency {
        let metadata = request.metadata_mut();
        metadata.insert(
            EMERGENCY,
            tonic::metadata::MetadataValue::from_static("true"),
        );
    }
    request
}

/// Identifiers do not say what an authority signs; the server does.
async fn kind_of(channel: &Channel, args: &AuthorityArgs) -> anyhow::Result<Kind> {
    let status = StatusClient::new(channel.clone())
        .get_status(GetStatusRequest {})
        .await?;
    let known = status.into_inner().authorities;
    match known.iter().find(|authority| authority.id == args.id) {
        Some(authority) if authority.kind == "jwt" => Ok(Kind::Jwt),
        Some(authority) if authority.kind == "wit" => Ok(Kind::Wit),
        Some(_) => Ok(Kind::X509),
        None => {
            Err(tonic::Status::not_found(format!("there is no authority `{}`", args.id)).into())
        }
    }
}

fn print(
    state: &str,
    kind: Kind,
    authority: Option<api::AuthorityState>,
    output: Output,
) -> anyhow::Result<Exit> {
    let authority = authority.unwrap_or_default();
    let kind = match kind {
        Kind::X509 => "x509",
        Kind::Jwt => "jwt",
        Kind::Wit => "wit",
    };
    let mut stdout = out::stdout();
    match output {
        Output::Human => writeln!(
            stdout,
            "{state} {kind} authority {}, expires {}",
            authority.authority_id,
            time(authority.expires_at)
        )?,
        Output::Json => {
            let line = json!({
                "id": authority.authority_id, "kind": kind, "state": state, "expires_at": authority.expires_at,
            });
            writeln!(stdout, "{line}")?;
        }
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}

fn list(data: &DataArg, output: Output) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let status = StatusClient::new(channel)
            .get_status(GetStatusRequest {})
            .await?
            .into_inner();
        let mut stdout = out::stdout();
        match output {
            Output::Human => {
                for authority in &status.authorities {
                    writeln!(
                        stdout,
                        "{:<4}  {:<8}  {}  {:<7}  expires {}",
                        authority.kind,
                        authority.state,
                        authority.id,
                        authority.algorithm,
                        time(authority.not_after)
                    )?;
                }
            }
            Output::Json => {
                let all = status.authorities.iter().map(super::status::authority);
                writeln!(stdout, "{}", serde_json::Value::from_iter(all))?;
            }
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}
