//! One thread's share of the engine: its own copies of the Cedar expressions, its own memory.
//!
//! Cedar expressions are trees of shared counters: two threads that evaluate the same tree run slower
//! than one. So each thread builds the programs it needs, once, and keeps them from snapshot to
//! snapshot.

use std::cell::RefCell;
use std::sync::Arc;

use cedar_policy_core::ast::{
    EntityUIDEntry, Expr, Literal, Request as CedarRequest, SlotEnv, ValueKind,
};
use cedar_policy_core::entities::Entities;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::cedar::context::{self, FactTexts, Uids};
use crate::cedar::program::{Attributes, Program};
use crate::facts::Facts;
use crate::inventory::Candidate;
use crate::model::{Dialect, Rule};
use crate::request::Target;
use crate::resource::Workload;
use crate::slice::Slice;
use crate::user::UserPolicy;

/// Programs kept per worker.
const MOST_PROGRAMS: usize = 8192;
/// Remembered answers per worker.
const MOST_ANSWERS: usize = 2048;
/// Longest key of a remembered answer, in octets: a request with a path of a megabyte is not kept.
const LONGEST_KEY: usize = 2048;
/// Snapshots a thread keeps places of: the one in force, its candidate, and the last ones of each.
const MOST_SNAPSHOTS: usize = 4;

/// What a policy came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its conditions hold.
    Satisfied,
    /// They do not.
    Not,
    /// They could not be evaluated.
    Error,
}

/// State of one thread.
///
/// Programs and answers are known by the rules themselves, which a snapshot shares with the one before
/// where they did not change: so a new snapshot throws away the places alone.
#[derive(Debug, Default)]
pub struct Worker {
    programs: FxHashMap<usize, (Arc<Rule>, Program)>,
    user: FxHashMap<usize, (Arc<UserPolicy>, Option<Expr>)>,
    answers: FxHashMap<Box<[u8]>, Box<[Answer]>>,
    /// Slices of a few snapshots by place, the one at work first.
    places: Vec<(u64, Places)>,
    noted: Vec<(SmolStr, bool)>,
    key: Vec<u8>,
    /// Places found by the index; kept for its memory.
    pub found: Vec<u32>,
    /// Remember answers; off in benchmarks that measure without.
    pub memo: bool,
}

type Places = FxHashMap<(Candidate, Dialect), Arc<Slice>>;

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::new(Worker::default());
}

/// Runs `f` with this thread's worker for a snapshot.
pub fn with<R>(snapshot: u64, memo: bool, f: impl FnOnce(&mut Worker) -> R) -> R {
    WORKER.with(|worker| {
        // Re-entered on the same thread: a worker of its own is slower, not wrong.
        let mut own = Worker::default();
        let mut kept = worker.try_borrow_mut();
        let worker = kept.as_deref_mut().unwrap_or(&mut own);
        worker.begin(snapshot);
        worker.memo = memo;
        f(worker)
    })
}

impl Worker {
    /// Brings the places of a snapshot to the front.
    fn begin(&mut self, snapshot: u64) {
        match self.places.iter().position(|(of, _)| *of == snapshot) {
            Some(at) => self.places.swap(0, at),
            None => {
                self.places.truncate(MOST_SNAPSHOTS.saturating_sub(1));
                self.places.insert(0, (snapshot, Places::default()));
            }
        }
    }

    /// The slice of a place, asked for once per thread and snapshot.
    pub fn slice(
        &mut self,
        place: (Candidate, Dialect),
        make: impl FnOnce() -> Option<Arc<Slice>>,
    ) -> Option<Arc<Slice>> {
        let Some((_, places)) = self.places.first_mut() else {
            return make();
        };
        if let Some(slice) = places.get(&place) {
            return Some(Arc::clone(slice));
        }
        let slice = make()?;
        places.insert(place, Arc::clone(&slice));
        Some(slice)
    }

    /// Evaluates user policies, scope and all, in the full context: they may read anything.
    pub fn evaluate_user(
        &mut self,
        facts: &Facts<'_>,
        target: Target,
        policies: &[Arc<UserPolicy>],
        destination: &Workload,
        uids: &Uids,
    ) -> Vec<Answer> {
        if policies.is_empty() {
            return Vec::new();
        }
        if self.user.len() > MOST_PROGRAMS {
            self.user.clear();
        }
        let mut texts = FactTexts::default();
        for policy in policies {
            for test in &policy.facts {
                texts.note(test, test.holds(facts));
            }
            let id = Arc::as_ptr(policy) as usize;
            // Parsed per worker: a shared tree would slow every thread down.
            self.user.entry(id).or_insert_with(|| {
                let parsed = parser::parse_policy(None, &policy.text).ok();
                (Arc::clone(policy), parsed.map(|p| p.condition()))
            });
        }
        let resource = context::Resource {
            workload: destination,
            // The slice holds no policy whose targets do not meet this destination.
            attachments: policies
                .iter()
                .filter_map(|policy| policy.attachment.as_ref()?.entity())
                .collect(),
        };
        let context = context::full(facts, target, uids, &texts);
        let principal = facts.identities.first().copied().unwrap_or_default();
        let action = if facts.http.is_some() {
            &uids.http
        } else {
            &uids.connect
        };
        let request = CedarRequest::new_unchecked(
            EntityUIDEntry::known(uids.workload(principal), None),
            EntityUIDEntry::known(action.clone(), None),
            EntityUIDEntry::known(resource.uid(uids), None),
            Some(context),
        );
        let entities = context::entities(facts, uids, &resource);
        let evaluator = Evaluator::new(request, &entities, Extensions::all_available());
        let slots = SlotEnv::default();
        policies
            .iter()
            .map(
                |policy| match self.user.get(&(Arc::as_ptr(policy) as usize)) {
                    Some((_, Some(condition))) => answer(&evaluator, condition, &slots),
                    _ => Answer::Error,
                },
            )
            .collect()
    }

    /// Evaluates the conditions of `rules`, whose scope is known to hold, by Cedar.
    pub fn evaluate(
        &mut self,
        facts: &Facts<'_>,
        rules: &[&Arc<Rule>],
        uids: &Uids,
    ) -> Vec<Answer> {
        if rules.is_empty() {
            return Vec::new();
        }
        if self.programs.len() > MOST_PROGRAMS {
            // Answers are known by the addresses of rules that the programs keep from being given again.
            self.programs.clear();
            self.answers.clear();
        }
        self.noted.clear();
        self.key.clear();
        self.key.extend_from_slice(&rules.len().to_le_bytes());
        let mut attributes = Attributes::default();
        for rule in rules {
            let id = Arc::as_ptr(rule) as usize;
            let (_, program) = self
                .programs
                .entry(id)
                .or_insert_with(|| (Arc::clone(rule), Program::of(rule)));
            self.key.extend_from_slice(&id.to_le_bytes());
            attributes = attributes.and(program.attributes);
            for test in &program.facts {
                let holds = test.holds(facts);
                self.key.push(u8::from(holds));
                self.noted.push((test.attr.clone(), holds));
            }
        }
        attributes.read(facts, &mut self.key);
        let memo = self.memo && self.key.len() <= LONGEST_KEY;
        if memo && let Some(answers) = self.answers.get(self.key.as_slice()) {
            return answers.to_vec();
        }
        let context = context::lean(facts, attributes, &self.noted);
        let action = if facts.http.is_some() {
            &uids.http
        } else {
            &uids.connect
        };
        let request = CedarRequest::new_unchecked(
            EntityUIDEntry::known(uids.anonymous.clone(), None),
            EntityUIDEntry::known(action.clone(), None),
            EntityUIDEntry::known(uids.anonymous.clone(), None),
            Some(context),
        );
        let entities = Entities::default();
        let evaluator = Evaluator::new(request, &entities, Extensions::all_available());
        let slots = SlotEnv::default();
        let answers: Vec<Answer> = rules
            .iter()
            .map(|rule| {
                let Some((_, program)) = self.programs.get(&(Arc::as_ptr(rule) as usize)) else {
                    return Answer::Error;
                };
                answer(&evaluator, &program.condition, &slots)
            })
            .collect();
        if memo {
            if self.answers.len() >= MOST_ANSWERS {
                self.answers.clear();
            }
            self.answers
                .insert(self.key.as_slice().into(), answers.as_slice().into());
        }
        answers
    }
}

fn answer(evaluator: &Evaluator<'_>, condition: &Expr, slots: &SlotEnv) -> Answer {
    match evaluator.interpret(condition, slots).map(|v| v.value) {
        Ok(ValueKind::Lit(Literal::Bool(true))) => Answer::Satisfied,
        Ok(ValueKind::Lit(Literal::Bool(false))) => Answer::Not,
        Ok(_) | Err(_) => Answer::Error,
    }
}
