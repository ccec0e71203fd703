//! `envoyExtAuthzGrpc`: the provider speaks ext_authz v3.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use envoy_types::ext_authz::v3::pb::{
    CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValueOption, HttpResponse,
    OkHttpResponse,
};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use portcullis_policy::request::Request;
use portcullis_policy::resource::ExtAuthzCall;
use tonic::transport::{Channel, Endpoint};

use super::connect::{Connector, authority};
use super::{ASKED_BY, Allowed, Change, Failure, Verdict, message};
use crate::check::Denied;

/// Providers of one mesh; more are none that anybody asks.
const MOST_CHANNELS: usize = 64;
/// Longest answer, in octets.
const LONGEST: usize = 256 << 10;

/// One connection to each provider, made when it is asked and again when it is lost.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_authority: Mutex<HashMap<String, Channel>>,
}

impl Channels {
    fn to(&self, authority: String, connector: &Connector) -> Result<Channel, Failure> {
        let channels = self.by_authority.lock();
        let mut channels = channels.unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&authority) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| Failure::of(&error))?;
        let channel = endpoint.connect_with_connector_lazy(connector.clone());
        if channels.len() >= MOST_CHANNELS {
            channels.clear();
        }
        channels.insert(authority, channel.clone());
        Ok(channel)
    }
}

pub(super) async fn ask(
    channels: &Channels,
    connector: &Connector,
    instance: &str,
    call: &ExtAuthzCall,
    request: &Request,
) -> Result<Verdict, Failure> {
    let channel = channels.to(authority(&call.service, call.port), connector)?;
    let mut question = tonic::Request::new(message::check_request(request));
    let instance = instance.parse().map_err(|_| Failure::new("no instance"))?;
    question.metadata_mut().insert(ASKED_BY, instance);
    let answer = AuthorizationClient::new(channel)
        .max_decoding_message_size(LONGEST)
        .check(question)
        .await
        .map_err(|status| Failure::of(&status))?;
    verdict(answer.into_inner())
}

fn verdict(answer: CheckResponse) -> Result<Verdict, Failure> {
    let ok = answer.status.as_ref().is_none_or(|status| status.code == 0);
    match (ok, answer.http_response) {
        (true, Some(HttpResponse::OkResponse(response))) => Ok(Verdict::Allowed(allowed(response))),
        (true, None) => Ok(Verdict::Allowed(Allowed::default())),
        (false, Some(HttpResponse::DeniedResponse(response))) => {
            Ok(Verdict::Denied(denied(response)))
        }
        (false, None | Some(HttpResponse::OkResponse(_))) => Ok(Verdict::Denied(Denied {
            status: 403,
            ..Denied::default()
        })),
        (_, Some(HttpResponse::ErrorResponse(_))) => Err(Failure::new("it answered with an error")),
        (true, Some(HttpResponse::DeniedResponse(_))) => {
            Err(Failure::new("it answered OK and a denial"))
        }
    }
}

fn allowed(response: OkHttpResponse) -> Allowed {
    let mut changes: Vec<Change> = response.headers.into_iter().filter_map(change).collect();
    let removed = response.headers_to_remove.into_iter();
    changes.extend(removed.map(|name| Change::Remove(name.to_ascii_lowercase())));
    Allowed {
        changes,
        response_headers: plain(response.response_headers_to_add),
        removed_parameters: response.query_parameters_to_remove,
    }
}

/// Without a word about appending, a header is overwritten (CheckResponse's own rule).
#[expect(
    deprecated,
    reason = "providers still send `append`, and Envoy still obeys it"
)]
fn change(option: HeaderValueOption) -> Option<Change> {
    let append = option.append.as_ref().map(|append| append.value);
    let action = option.append_action;
    let (name, value) = pair(option)?;
    Some(match append {
        Some(true) => Change::Append(name, value),
        Some(false) => Change::Set(name, value),
        None if action == HeaderAppendAction::AddIfAbsent as i32 => Change::Add(name, value),
        None if action == HeaderAppendAction::OverwriteIfExists as i32 => {
            Change::Replace(name, value)
        }
        None => Change::Set(name, value),
    })
}

fn denied(response: DeniedHttpResponse) -> Denied {
    let status = response.status.map_or(0, |status| status.code);
    Denied {
        // Without one, or with one that is no denial, it is Envoy's own.
        status: u16::try_from(status)
            .ok()
            .filter(|status| (300..600).contains(status))
            .unwrap_or(403),
        headers: plain(response.headers),
        body: response.body,
    }
}

fn plain(options: Vec<HeaderValueOption>) -> Vec<(String, String)> {
    options.into_iter().filter_map(pair).collect()
}

fn pair(option: HeaderValueOption) -> Option<(String, String)> {
    let header = option.header?;
    let value = if header.raw_value.is_empty() {
        header.value
    } else {
        String::from_utf8(header.raw_value).ok()?
    };
    let name = header.key.to_ascii_lowercase();
    let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).ok()?;
    hyper::header::HeaderValue::from_str(&value).ok()?;
    Some((name.as_str().to_owned(), value))
}
