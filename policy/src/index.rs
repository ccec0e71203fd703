//! The index of a slice: from a request to the rules that could match, in time that does not grow with
//! the number of rules.
//!
//! Each rule is filed under the values of one of its positive clauses, the one whose values are
//! rarest in the slice; a rule without such a clause is always a candidate. Filing under a hash can
//! only select too much, never too little, and so can everything else here: the matcher and Cedar
//! decide later.

mod key;
mod probe;

use rustc_hash::FxHashMap;

use crate::facts::Facts;
use crate::model::{Alternative, Clause, Matcher, Rule};

use key::Key;
use probe::Probes;

/// Places of rules in their slice, by the values that the rules ask for.
#[derive(Debug, Default)]
pub struct Index {
    by_key: FxHashMap<u64, Vec<u32>>,
    always: Vec<u32>,
    probes: Probes,
}

impl Index {
    /// Files every rule; `rules` in slice order.
    #[must_use]
    pub fn build<'r>(rules: impl Iterator<Item = &'r Rule> + Clone) -> Self {
        let mut frequency: FxHashMap<u64, u32> = FxHashMap::default();
        for rule in rules.clone() {
            for clause in clauses(rule) {
                for key in keys(clause).into_iter().flatten() {
                    let count = frequency.entry(key.hash()).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        let mut index = Self::default();
        for (place, rule) in (0u32..).zip(rules) {
            if rule.never {
                continue;
            }
            for matcher in clauses(rule).flat_map(|c| &c.any) {
                if let Matcher::Claim(path, _) = matcher {
                    index.probes.file_claim(key::path_hash(path), path);
                }
            }
            match anchor(rule, &frequency) {
                Some(keys) => {
                    for key in keys {
                        let places = index.by_key.entry(key.hash()).or_default();
                        // A rule can have the same value twice.
                        if places.last() != Some(&place) {
                            places.push(place);
                        }
                        index.probes.file(&key, place);
                    }
                }
                None => index.always.push(place),
            }
        }
        index.by_key.shrink_to_fit();
        index
    }

    /// Places of the rules that could match, ascending, each once. `found` is cleared first.
    pub fn candidates(&self, facts: &Facts<'_>, found: &mut Vec<u32>) {
        found.clear();
        found.extend(&self.always);
        self.probes.ask(facts, |hash| {
            if let Some(places) = self.by_key.get(&hash) {
                found.extend(places);
            }
        });
        self.probes.uncertain(facts, found);
        found.sort_unstable();
        found.dedup();
    }
}

fn clauses(rule: &Rule) -> impl Iterator<Item = &Clause> {
    rule.from
        .iter()
        .chain(&rule.to)
        .flat_map(|a| &a.clauses)
        .chain(&rule.when)
}

/// The keys of a clause, `None` when it is negated or one of its values has no key.
fn keys(clause: &Clause) -> Option<Vec<Key<'_>>> {
    if clause.negated {
        return None;
    }
    clause.any.iter().map(Key::of).collect()
}

/// The cheapest set of keys of which a matching request must have one.
fn anchor<'r>(rule: &'r Rule, frequency: &FxHashMap<u64, u32>) -> Option<Vec<Key<'r>>> {
    let cost = |keys: &Vec<Key<'_>>| -> u64 {
        keys.iter()
            .map(|k| u64::from(frequency.get(&k.hash()).copied().unwrap_or(1)))
            .sum()
    };
    let cheapest = |clauses: &'r [Clause]| clauses.iter().filter_map(keys).min_by_key(cost);
    // One alternative must match, so each of them needs a clause with keys.
    let any_of = |alternatives: &'r [Alternative]| -> Option<Vec<Key<'r>>> {
        if alternatives.is_empty() {
            return None;
        }
        let mut all = Vec::new();
        for alternative in alternatives.iter().filter(|a| !a.never) {
            all.extend(cheapest(&alternative.clauses)?);
        }
        Some(all)
    };
    [any_of(&rule.from), any_of(&rule.to), cheapest(&rule.when)]
        .into_iter()
        .flatten()
        .min_by_key(cost)
}
