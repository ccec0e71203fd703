//! Why a change may be made or not, and what is said about it.

use std::collections::BTreeMap;
use std::fmt;

use crate::enforcement::Level;
use crate::review::{Answer, Refusal};
use crate::tell;

/// Why a verdict is what it is. These are metric labels and audit annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The engine runs it, and no case breaks.
    Accepted,
    /// Findings that would refuse it elsewhere are let pass here.
    NotEnforced,
    /// Findings that refuse it, and somebody who may let it pass.
    BreakGlass,
    /// A status, a scale: nothing that decides.
    Subresource,
    /// Bookkeeping: what it means stays as it is.
    Unchanged,
    /// Its finalizers go, then it goes.
    BeingDeleted,
    /// A kind that is not judged here.
    OtherKind,
    /// The engine does not run it, or a code is configured to refuse.
    Invalid,
    /// A case that must hold would break.
    CasesBreak,
    /// The annotation, by one who may not.
    BreakGlassRefused,
    /// A review that no API server sends.
    Malformed,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 11] = [
        Self::Accepted,
        Self::NotEnforced,
        Self::BreakGlass,
        Self::Subresource,
        Self::Unchanged,
        Self::BeingDeleted,
        Self::OtherKind,
        Self::Invalid,
        Self::CasesBreak,
        Self::BreakGlassRefused,
        Self::Malformed,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NotEnforced => "not_enforced",
            Self::BreakGlass => "break_glass",
            Self::Subresource => "subresource",
            Self::Unchanged => "unchanged",
            Self::BeingDeleted => "being_deleted",
            Self::OtherKind => "other_kind",
            Self::Invalid => "invalid",
            Self::CasesBreak => "cases_break",
            Self::BreakGlassRefused => "break_glass_refused",
            Self::Malformed => "malformed",
        }
    }

    /// True where the change may be made.
    #[must_use]
    pub fn allows(self) -> bool {
        match self {
            Self::Accepted
            | Self::NotEnforced
            | Self::BreakGlass
            | Self::Subresource
            | Self::Unchanged
            | Self::BeingDeleted
            | Self::OtherKind => true,
            Self::Invalid | Self::CasesBreak | Self::BreakGlassRefused | Self::Malformed => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of a request: the answer, and what the record of it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub cause: Cause,
    /// What goes back.
    pub answer: Answer,
    /// Codes of all findings, each once, with what the worst of each led to.
    pub codes: BTreeMap<&'static str, Level>,
    /// What holds in the namespace; `None` where nothing was judged.
    pub level: Option<Level>,
    /// Revision of the set that the change was judged against.
    pub snapshot: Option<String>,
    /// The reason of whoever broke the glass, or tried.
    pub break_glass: Option<String>,
}

impl Verdict {
    pub(crate) fn plain(cause: Cause) -> Self {
        let mut answer = Answer::default();
        let word = if cause.allows() { "allow" } else { "deny" };
        let notes = &mut answer.audit_annotations;
        notes.insert("decision", word.to_owned());
        notes.insert("cause", cause.as_str().to_owned());
        Self {
            cause,
            answer,
            codes: BTreeMap::new(),
            level: None,
            snapshot: None,
            break_glass: None,
        }
    }

    /// A review that cannot be decided, and never will be.
    #[must_use]
    pub fn malformed(why: &str) -> Self {
        let mut verdict = Self::plain(Cause::Malformed);
        verdict.answer.refusal = Some(Refusal {
            code: 400,
            reason: "BadRequest",
            message: tell::cut(why, tell::MESSAGE),
            details: None,
        });
        verdict
    }

    pub(crate) fn note(&mut self, key: &'static str, value: impl AsRef<str>) {
        let value = tell::cut(&tell::one_line(value.as_ref()), tell::ANNOTATION);
        self.answer.audit_annotations.insert(key, value);
    }
}
