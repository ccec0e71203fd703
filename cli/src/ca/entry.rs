//! `portcullis ca entry`: registration entries.

mod apply;
mod fields;
mod print;
mod template;

use std::io::Write as _;

use portcullis_ca::proto::spire::api::server::entry::v1 as api;
use portcullis_ca::proto::spire::api::server::entry::v1::entry_client::EntryClient;
use portcullis_ca::proto::status::status_client::StatusClient;
use portcullis_ca::proto::{status, types};
use portcullis_ca::template::{Cluster, Text};
use tonic::transport::Channel;

use super::args::{CreateArgs, EntryCommand, ListArgs, ShowArgs, UpdateArgs};
use super::client;
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

pub use self::fields::lifetime;

/// Entries of one page.
const PAGE: i32 = 1000;

/// Runs one verb.
///
/// # Errors
/// When the server cannot be reached, or something cannot be read.
pub fn run(command: EntryCommand, output: Output) -> anyhow::Result<Exit> {
    match command {
        EntryCommand::Create(args) => create(&args, output),
        EntryCommand::Update(args) => update(&args, output),
        EntryCommand::Show(args) => show(&args, output),
        EntryCommand::List(args) => list(&args, output),
        EntryCommand::Delete(args) => delete(&args, output),
    }
}

fn entries_of(channel: Channel) -> EntryClient<Channel> {
    EntryClient::new(channel)
        .max_decoding_message_size(portcullis_ca::admin::MAX_MESSAGE)
        .max_encoding_message_size(portcullis_ca::admin::MAX_MESSAGE)
}

fn create(args: &CreateArgs, output: Output) -> anyhow::Result<Exit> {
    if !args.file.is_empty() {
        let mut wanted = apply::Wanted::default();
        for file in &args.file {
            apply::read(file, &mut wanted)?;
        }
        let parent = args.fields.parent_id.as_deref();
        let parent = parent.filter(|_| !wanted.kubernetes.is_empty());
        let parent = parent.map(Text::parse).transpose()?;
        return client::with(&args.data, |channel| async move {
            let mut entries = wanted.entries;
            if !wanted.kubernetes.is_empty() {
                let cluster = Cluster {
                    trust_domain: trust_domain(channel.clone()).await?,
                    name: args.cluster_name.clone(),
                    domain: Some(args.cluster_domain.clone()),
                };
                entries.extend(wanted.kubernetes.render(&cluster, parent.as_ref())?);
            }
            apply::apply(entries_of(channel), entries, output).await
        });
    }
    let entry = fields::new_entry(args)?;
    client::with(&args.data, |channel| async move {
        let request = api::BatchCreateEntryRequest {
            entries: vec![entry],
            output_mask: None,
        };
        let results = entries_of(channel)
            .batch_create_entry(request)
            .await?
            .into_inner()
            .results;
        let mut created = Vec::new();
        let mut exit = Exit::Yes;
        for result in results {
            match (client::outcome(result.status.as_ref()), result.entry) {
                (Ok(()), Some(entry)) => created.push(entry),
                (Ok(()), None) => {}
                (Err(message), Some(there)) => {
                    client::report(&format!("{message}: `{}`", there.id));
                    exit = Exit::No;
                }
                (Err(message), None) => {
                    client::report(&message);
                    exit = Exit::No;
                }
            }
        }
        print::each(&created, output)?;
        Ok(exit)
    })
}

/// The server's trust domain.
async fn trust_domain(channel: Channel) -> Result<String, tonic::Status> {
    let request = status::GetStatusRequest {};
    let status = StatusClient::new(channel).get_status(request).await?;
    Ok(status.into_inner().trust_domain)
}

fn update(args: &UpdateArgs, output: Output) -> anyhow::Result<Exit> {
    let (entry, mask) = fields::changes(args)?;
    client::with(&args.data, |channel| async move {
        let request = api::BatchUpdateEntryRequest {
            entries: vec![entry],
            input_mask: Some(mask),
            output_mask: None,
        };
        let results = entries_of(channel)
            .batch_update_entry(request)
            .await?
            .into_inner()
            .results;
        let mut updated = Vec::new();
        for result in results {
            if let Err(message) = client::outcome(result.status.as_ref()) {
                client::report(&message);
                return Ok(Exit::No);
            }
            updated.extend(result.entry);
        }
        print::each(&updated, output)?;
        Ok(Exit::Yes)
    })
}

fn show(args: &ShowArgs, output: Output) -> anyhow::Result<Exit> {
    client::with(&args.data, |channel| async move {
        let mut client = entries_of(channel);
        let mut found = Vec::new();
        let mut exit = Exit::Yes;
        for id in &args.ids {
            let request = api::GetEntryRequest {
                id: id.clone(),
                output_mask: None,
            };
            match client.get_entry(request).await {
                Ok(entry) => found.push(entry.into_inner()),
                Err(status) if status.code() == tonic::Code::NotFound => {
                    client::report(&format!("there is no entry `{id}`"));
                    exit = Exit::No;
                }
                Err(status) => return Err(status.into()),
            }
        }
        print::each(&found, output)?;
        Ok(exit)
    })
}

fn list(args: &ListArgs, output: Output) -> anyhow::Result<Exit> {
    let id = |text: &Option<String>| text.as_deref().map(fields::spiffe_id).transpose();
    let selectors = (!args.selector.is_empty())
        .then(|| fields::selectors(&args.selector))
        .transpose()?;
    let filter = api::list_entries_request::Filter {
        by_spiffe_id: id(&args.spiffe_id)?,
        by_parent_id: id(&args.parent_id)?,
        by_selectors: selectors.map(|selectors| types::SelectorMatch {
            selectors,
            r#match: types::selector_match::MatchBehavior::MatchSuperset.into(),
        }),
        by_hint: args.hint.clone(),
        ..Default::default()
    };
    client::with(&args.data, |channel| async move {
        let found = all(&mut entries_of(channel), filter).await?;
        print::all(&found, output)?;
        Ok(Exit::Yes)
    })
}

/// Every entry that the filter lets through, page by page.
async fn all(
    client: &mut EntryClient<Channel>,
    filter: api::list_entries_request::Filter,
) -> Result<Vec<types::Entry>, tonic::Status> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = api::ListEntriesRequest {
            filter: Some(filter.clone()),
            output_mask: None,
            page_size: PAGE,
            page_token,
        };
        let page = client.list_entries(request).await?.into_inner();
        found.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

fn delete(args: &ShowArgs, output: Output) -> anyhow::Result<Exit> {
    client::with(&args.data, |channel| async move {
        let request = api::BatchDeleteEntryRequest {
            ids: args.ids.clone(),
        };
        let results = entries_of(channel)
            .batch_delete_entry(request)
            .await?
            .into_inner()
            .results;
        let mut stdout = out::stdout();
        let mut exit = Exit::Yes;
        for result in results {
            match (client::outcome(result.status.as_ref()), output) {
                (Ok(()), Output::Human) => writeln!(stdout, "deleted {}", result.id)?,
                (Ok(()), Output::Json) => {
                    writeln!(
                        stdout,
                        "{}",
                        serde_json::json!({"id": result.id, "deleted": true})
                    )?;
                }
                (Err(message), _) => {
                    client::report(&message);
                    exit = Exit::No;
                }
            }
        }
        stdout.flush()?;
        Ok(exit)
    })
}
