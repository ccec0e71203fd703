//! Which entries a list or count means.

use std::collections::BTreeSet;

use tonic::Status;

use super::convert;
use crate::entry::Entry;
use crate::proto::spire::api::server::entry::v1::{count_entries_request, list_entries_request};
use crate::proto::types;
use crate::proto::types::federates_with_match::MatchBehavior as FederatesBehavior;
use crate::proto::types::selector_match::MatchBehavior as SelectorBehavior;
use crate::selector::Selector;
use crate::spiffe_id::SpiffeId;

/// How two sets must relate.
#[derive(Clone, Copy)]
enum Relation {
    Exact,
    Subset,
    Superset,
    Any,
}

/// A filter, read once.
#[derive(Default)]
pub(super) struct Filter {
    spiffe_id: Option<SpiffeId>,
    parent_id: Option<SpiffeId>,
    selectors: Option<(BTreeSet<Selector>, Relation)>,
    federates_with: Option<(BTreeSet<String>, Relation)>,
    hint: Option<String>,
    downstream: Option<bool>,
}

impl Filter {
    pub(super) fn for_list(filter: Option<list_entries_request::Filter>) -> Result<Self, Status> {
        let Some(filter) = filter else {
            return Ok(Self::default());
        };
        Self::new(
            (filter.by_spiffe_id, filter.by_parent_id),
            filter.by_selectors,
            filter.by_federates_with,
            (filter.by_hint, filter.by_downstream),
        )
    }

    pub(super) fn for_count(filter: Option<count_entries_request::Filter>) -> Result<Self, Status> {
        let Some(filter) = filter else {
            return Ok(Self::default());
        };
        Self::new(
            (filter.by_spiffe_id, filter.by_parent_id),
            filter.by_selectors,
            filter.by_federates_with,
            (filter.by_hint, filter.by_downstream),
        )
    }

    fn new(
        (spiffe_id, parent_id): (Option<types::Spiffeid>, Option<types::Spiffeid>),
        selectors: Option<types::SelectorMatch>,
        federates_with: Option<types::FederatesWithMatch>,
        (hint, downstream): (Option<String>, Option<bool>),
    ) -> Result<Self, Status> {
        let id = |id: Option<types::Spiffeid>, what: &str| {
            id.map(|id| convert::spiffe_id(Some(&id), what)).transpose()
        };
        let selectors = selectors
            .map(|wanted| {
                let relation = match wanted.r#match() {
                    SelectorBehavior::MatchExact => Relation::Exact,
                    SelectorBehavior::MatchSubset => Relation::Subset,
                    SelectorBehavior::MatchSuperset => Relation::Superset,
                    SelectorBehavior::MatchAny => Relation::Any,
                };
                let set: Result<BTreeSet<Selector>, Status> =
                    wanted.selectors.iter().map(convert::selector).collect();
                let set = set?;
                match set.is_empty() {
                    true => Err(Status::invalid_argument(
                        "the filter by selectors names none",
                    )),
                    false => Ok((set, relation)),
                }
            })
            .transpose()?;
        let federates_with = federates_with
            .map(|wanted| {
                let relation = match wanted.r#match() {
                    FederatesBehavior::MatchExact => Relation::Exact,
                    FederatesBehavior::MatchSubset => Relation::Subset,
                    FederatesBehavior::MatchSuperset => Relation::Superset,
                    FederatesBehavior::MatchAny => Relation::Any,
                };
                let names = wanted.trust_domains.iter();
                let set: Result<BTreeSet<String>, Status> = names
                    .map(|name| Ok(convert::trust_domain(name)?.to_string()))
                    .collect();
                Ok::<_, Status>((set?, relation))
            })
            .transpose()?;
        Ok(Self {
            spiffe_id: id(spiffe_id, "the filter's SPIFFE ID")?,
            parent_id: id(parent_id, "the filter's parent ID")?,
            selectors,
            federates_with,
            hint,
            downstream,
        })
    }

    pub(super) fn lets_through(&self, entry: &Entry) -> bool {
        let federates = || {
            entry
                .federates_with
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        self.spiffe_id
            .as_ref()
            .is_none_or(|id| id == &entry.spiffe_id)
            && self
                .parent_id
                .as_ref()
                .is_none_or(|id| id == &entry.parent_id)
            && self.hint.as_ref().is_none_or(|hint| hint == &entry.hint)
            && self
                .downstream
                .is_none_or(|downstream| downstream == entry.downstream)
            && self.selectors.as_ref().is_none_or(|(wanted, relation)| {
                holds(
                    &entry.selectors.iter().cloned().collect(),
                    wanted,
                    *relation,
                )
            })
            && self
                .federates_with
                .as_ref()
                .is_none_or(|(wanted, relation)| holds(&federates(), wanted, *relation))
    }
}

/// SPIRE's words: the *entry's* set is a subset of what was asked for, and so on.
fn holds<T: Ord>(of_entry: &BTreeSet<T>, wanted: &BTreeSet<T>, relation: Relation) -> bool {
    match relation {
        Relation::Exact => of_entry == wanted,
        Relation::Subset => !of_entry.is_empty() && of_entry.is_subset(wanted),
        Relation::Superset => of_entry.is_superset(wanted),
        Relation::Any => !of_entry.is_disjoint(wanted),
    }
}
