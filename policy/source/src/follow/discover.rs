//! Whether a kind is installed, and in which version.
//!
//! Discovery is asked, every few seconds while a kind is missing, rather than CustomResourceDefinitions watched: every
//! authenticated client may ask it, while watching definitions takes a right of its own over the whole cluster; and asking for
//! the objects themselves would not tell, since a role that lacks a kind hides that it does not exist.

use kube::Client;

use super::failure::Failure;
use crate::kind::Kind;

/// What discovery says.
pub(super) enum Found {
    /// Served, in this version.
    Version(&'static str),
    /// In none that we read.
    Absent,
}

/// The best version of `kind` that is served. With `strict`, a kind is absent only once the server says of itself that it is
/// ready: one that starts does not know every kind at once.
pub(super) async fn discover(client: &Client, kind: &Kind, strict: bool) -> Result<Found, Failure> {
    // What every API server has.
    if kind.group.is_empty() {
        return Ok(kind
            .versions
            .first()
            .map_or(Found::Absent, |v| Found::Version(v)));
    }
    for version in kind.versions {
        match client
            .list_api_group_resources(&kind.api_version(version))
            .await
        {
            Ok(listed) if listed.resources.iter().any(|r| r.name == kind.plural) => {
                return Ok(Found::Version(version));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Failure::of_request(error, "get")),
        }
    }
    if strict && !is_ready(client).await {
        return Err(Failure::Other {
            why: "the API server is starting".to_owned(),
            answered: true,
        });
    }
    Ok(Found::Absent)
}

/// Whether the server says that it is ready; one that will not tell is believed to be.
async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else {
        return true;
    };
    match client.request_text(request).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) => matches!(status.code, 401 | 403 | 404),
        Err(_) => false,
    }
}
