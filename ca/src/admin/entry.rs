//! `spire.api.server.entry.v1.Entry`.

use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use super::filter::Filter;
use super::{Admin, check_batch, convert};
use crate::entry::Entry;
use crate::proto::spire::api::server::entry::v1 as api;
use crate::proto::types;
use crate::registry::RegistryError;

/// Entries of one page, where the caller does not say.
const PAGE: usize = 1000;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::entry_server::Entry for Admin {
    async fn count_entries(
        &self,
        request: Request<api::CountEntriesRequest>,
    ) -> Answer<api::CountEntriesResponse> {
        let filter = Filter::for_count(request.into_inner().filter)?;
        let index = self.ca.registry().index();
        let count = index
            .after("")
            .filter(|entry| filter.lets_through(entry))
            .count();
        Ok(Response::new(api::CountEntriesResponse {
            count: i32::try_from(count).unwrap_or(i32::MAX),
        }))
    }

    async fn list_entries(
        &self,
        request: Request<api::ListEntriesRequest>,
    ) -> Answer<api::ListEntriesResponse> {
        let request = request.into_inner();
        let filter = Filter::for_list(request.filter)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => usize::MAX,
            Ok(size) => size.min(PAGE),
            Err(_) => return Err(Status::invalid_argument("the page size cannot be negative")),
        };
        let mask = request.output_mask.as_ref();
        let index = self.ca.registry().index();
        let mut found = index
            .after(&request.page_token)
            .filter(|entry| filter.lets_through(entry));
        let entries: Vec<types::Entry> = found
            .by_ref()
            .take(size)
            .map(|entry| convert::to_entry(entry, mask))
            .collect();
        let has_more = found.next().is_some();
        // The identifier of the last entry: pages go on right after it, whatever is created meanwhile.
        let next_page_token = match entries.last() {
            Some(last) if has_more => last.id.clone(),
            _ => String::new(),
        };
        Ok(Response::new(api::ListEntriesResponse {
            entries,
            next_page_token,
        }))
    }

    async fn get_entry(&self, request: Request<api::GetEntryRequest>) -> Answer<types::Entry> {
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(Status::invalid_argument("missing ID"));
        }
        let found = self.ca.registry().index().entry(&request.id).cloned();
        let entry = found.ok_or_else(|| Status::not_found("entry not found"))?;
        Ok(Response::new(convert::to_entry(
            &entry,
            request.output_mask.as_ref(),
        )))
    }

    async fn batch_create_entry(
        &self,
        request: Request<api::BatchCreateEntryRequest>,
    ) -> Answer<api::BatchCreateEntryResponse> {
        let actor = Self::actor(&request);
        let request = request.into_inner();
        check_batch(request.entries.len())?;
        let agent = self.ca.registry().local_agent();
        let read: Vec<Result<Entry, Status>> = request
            .entries
            .iter()
            .map(|entry| convert::new_entry(entry, &agent))
            .collect();
        let entries = read.iter().flatten().cloned().collect();
        let created = self.ca.registry().create(entries, &actor).await;
        let mut created = created
            .map_err(|error| convert::refused(&error))?
            .into_iter();
        let mask = request.output_mask.as_ref();
        let result = |read: Result<Entry, Status>| {
            let (status, entry) = match read.map(|_| created.next()) {
                Ok(Some(Ok(entry))) => (convert::ok(), Some(entry)),
                // The one that is there comes along: callers take it for theirs.
                Ok(Some(Err(error @ RegistryError::Similar(_)))) => {
                    let status = convert::item_status(&convert::refused(&error));
                    let RegistryError::Similar(entry) = error else {
                        return api::batch_create_entry_response::Result::default();
                    };
                    (status, Some(entry))
                }
                Ok(Some(Err(error))) => (convert::item_status(&convert::refused(&error)), None),
                Ok(None) => (convert::item_status(&Status::internal("no result")), None),
                Err(status) => (convert::item_status(&status), None),
            };
            api::batch_create_entry_response::Result {
                status: Some(status),
                entry: entry.map(|entry| convert::to_entry(&entry, mask)),
            }
        };
        let results = read.into_iter().map(result).collect();
        Ok(Response::new(api::BatchCreateEntryResponse { results }))
    }

    async fn batch_update_entry(
        &self,
        request: Request<api::BatchUpdateEntryRequest>,
    ) -> Answer<api::BatchUpdateEntryResponse> {
        let actor = Self::actor(&request);
        let request = request.into_inner();
        check_batch(request.entries.len())?;
        let mask = request.input_mask.unwrap_or(convert::ALL);
        let agent = self.ca.registry().local_agent();
        let mut statuses: Vec<Option<Status>> = Vec::with_capacity(request.entries.len());
        let mut updates = Vec::with_capacity(request.entries.len());
        for from in request.entries {
            // Read once before anything is changed: what cannot be read is refused by name.
            let readable = convert::new_entry(&with_required(&from, &mask, &agent), &agent);
            match readable {
                Err(status) => statuses.push(Some(status)),
                Ok(_) => {
                    statuses.push(None);
                    let (mask, agent) = (mask, agent.clone());
                    updates.push((from.id.clone(), move |entry: &mut Entry| {
                        convert::change_entry(entry, &from, &mask, &agent)
                            .map_err(|_| RegistryError::NotFound(from.id.clone()))
                    }));
                }
            }
        }
        let updated = self.ca.registry().update(updates, &actor).await;
        let mut updated = updated
            .map_err(|error| convert::refused(&error))?
            .into_iter();
        let output = request.output_mask.as_ref();
        let result = |refused: Option<Status>| {
            let (status, entry) = match (refused, ()) {
                (Some(status), ()) => (convert::item_status(&status), None),
                (None, ()) => match updated.next() {
                    Some(Ok(entry)) => (convert::ok(), Some(entry)),
                    Some(Err(error)) => (convert::item_status(&convert::refused(&error)), None),
                    None => (convert::item_status(&Status::internal("no result")), None),
                },
            };
            api::batch_update_entry_response::Result {
                status: Some(status),
                entry: entry.map(|entry| convert::to_entry(&entry, output)),
            }
        };
        let results = statuses.into_iter().map(result).collect();
        Ok(Response::new(api::BatchUpdateEntryResponse { results }))
    }

    async fn batch_delete_entry(
        &self,
        request: Request<api::BatchDeleteEntryRequest>,
    ) -> Answer<api::BatchDeleteEntryResponse> {
        let actor = Self::actor(&request);
        let ids = request.into_inner().ids;
        check_batch(ids.len())?;
        let deleted = self.ca.registry().delete(ids.clone(), &actor).await;
        let deleted = deleted.map_err(|error| convert::refused(&error))?;
        let results = ids.into_iter().zip(deleted).map(|(id, deleted)| {
            let status = match deleted {
                Ok(_) => convert::ok(),
                Err(error) => convert::item_status(&convert::refused(&error)),
            };
            api::batch_delete_entry_response::Result {
                status: Some(status),
                id,
            }
        });
        Ok(Response::new(api::BatchDeleteEntryResponse {
            results: results.collect(),
        }))
    }

    async fn get_authorized_entries(
        &self,
        _: Request<api::GetAuthorizedEntriesRequest>,
    ) -> Answer<api::GetAuthorizedEntriesResponse> {
        Err(agents_only())
    }

    type SyncAuthorizedEntriesStream = Empty<Result<api::SyncAuthorizedEntriesResponse, Status>>;

    async fn sync_authorized_entries(
        &self,
        _: Request<Streaming<api::SyncAuthorizedEntriesRequest>>,
    ) -> Answer<Self::SyncAuthorizedEntriesStream> {
        Err(agents_only())
    }
}

/// An agent is known by its SVID, and this is the operator's socket.
fn agents_only() -> Status {
    Status::permission_denied("this call is for agents, and the caller is the operator")
}

/// The message, complete where the mask says that it need not be.
fn with_required(
    from: &types::Entry,
    mask: &types::EntryMask,
    agent: &crate::spiffe_id::SpiffeId,
) -> types::Entry {
    let mut from = from.clone();
    if !mask.spiffe_id {
        from.spiffe_id = Some(convert::to_spiffe_id(agent));
    }
    if !mask.parent_id {
        from.parent_id = None;
    }
    if !mask.selectors {
        from.selectors.clear();
    }
    if !mask.x509_svid_ttl {
        from.x509_svid_ttl = 0;
    }
    if !mask.jwt_svid_ttl {
        from.jwt_svid_ttl = 0;
    }
    if !mask.federates_with {
        from.federates_with.clear();
    }
    if !mask.expires_at {
        from.expires_at = 0;
    }
    from
}
