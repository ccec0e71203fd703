//! How much a finding weighs: by its code, by its namespace, and never below the floor.

use std::collections::BTreeMap;

use portcullis_policy::diagnostic::Diagnostic;

/// Label of a namespace that says what happens to findings in it.
pub const LABEL: &str = "portcullis.dev/enforcement";

/// What a finding leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It stands in the audit annotations.
    Audit,
    /// It is a warning to the client, too.
    Warn,
    /// The change is refused.
    #[default]
    Deny,
}

impl Level {
    /// Every level, loosest first.
    pub const ALL: [Self; 3] = [Self::Audit, Self::Warn, Self::Deny];

    /// As label and configuration write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }
}

/// The configuration: what holds where no label says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// Of namespaces without the label.
    pub level: Level,
    /// The loosest that a label can ask for.
    pub floor: Level,
    /// By code, such as `PC0123`: errors are refused and the rest is a warning, unless this says otherwise.
    pub codes: BTreeMap<String, Level>,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            level: Level::Deny,
            floor: Level::Warn,
            codes: BTreeMap::new(),
        }
    }
}

/// What holds in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InNamespace {
    /// No finding leads to more than this.
    pub level: Level,
    /// Why it is not what the label says.
    pub remark: Option<String>,
}

impl Enforcement {
    /// What holds in a namespace whose label has this value.
    #[must_use]
    pub fn in_namespace(&self, label: Option<&str>) -> InNamespace {
        let plain = |level| InNamespace {
            level,
            remark: None,
        };
        let Some(label) = label else {
            return plain(self.level);
        };
        let Some(wanted) = Level::ALL.into_iter().find(|l| l.as_str() == label) else {
            let label = crate::review::excerpt(label);
            return InNamespace {
                level: self.level,
                remark: Some(format!(
                    "the namespace's label `{LABEL}` is `{label}`, not deny, warn or audit: {} holds",
                    self.level.as_str()
                )),
            };
        };
        // The default may be looser than the floor: that is the operator's to say, not a label's.
        let floor = self.floor.min(self.level);
        if wanted < floor {
            return InNamespace {
                level: floor,
                remark: Some(format!(
                    "the namespace's label `{LABEL}` asks for {label}, looser than the floor: {} holds",
                    floor.as_str()
                )),
            };
        }
        plain(wanted)
    }

    /// What holds in a namespace whose label cannot be known: it may ask for more than the default, so never less than the
    /// floor.
    #[must_use]
    pub fn in_unknown_namespace(&self, why: &str) -> InNamespace {
        let level = self.level.max(self.floor);
        let remark = format!("{why}: {} holds", level.as_str());
        InNamespace {
            level,
            remark: (level != self.level).then_some(remark),
        }
    }

    /// What a diagnostic leads to where `level` holds. An error means that the engine will not run the object, which its
    /// author must hear in any case.
    #[must_use]
    pub fn of(&self, diagnostic: &Diagnostic, level: Level) -> Level {
        let usual = match diagnostic.is_error() {
            true => Level::Deny,
            false => Level::Warn,
        };
        let by_code = self.codes.get(diagnostic.code).copied().unwrap_or(usual);
        let capped = by_code.min(level);
        match diagnostic.is_error() {
            true => capped.max(Level::Warn),
            false => capped,
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_policy::diagnostic::{Location, code};

    use super::*;

    fn enforcement(level: Level, floor: Level) -> Enforcement {
        Enforcement {
            level,
            floor,
            codes: [
                ("PC0123".to_owned(), Level::Deny),
                ("PC0102".to_owned(), Level::Audit),
            ]
            .into(),
        }
    }

    #[test]
    fn a_label_loosens_to_the_floor_and_tightens_as_it_likes() {
        use Level::{Audit, Deny, Warn};
        for (default, floor, label, holds, remarked) in [
            (Deny, Warn, None, Deny, false),
            (Deny, Warn, Some("deny"), Deny, false),
            (Deny, Warn, Some("warn"), Warn, false),
            (Deny, Warn, Some("audit"), Warn, true),
            (Deny, Audit, Some("audit"), Audit, false),
            (Deny, Deny, Some("warn"), Deny, true),
            (Warn, Deny, Some("warn"), Warn, false),
            (Audit, Warn, None, Audit, false),
            (Audit, Warn, Some("deny"), Deny, false),
            (Deny, Audit, Some("off"), Deny, true),
            (Deny, Audit, Some(""), Deny, true),
        ] {
            let found = enforcement(default, floor).in_namespace(label);
            assert_eq!(found.level, holds, "{default:?} {floor:?} {label:?}");
            assert_eq!(found.remark.is_some(), remarked, "{label:?}");
        }
    }

    #[test]
    fn where_no_label_can_be_read_the_strictest_holds() {
        use Level::{Audit, Deny, Warn};
        for (default, floor, holds, remarked) in [
            (Deny, Warn, Deny, false),
            (Warn, Audit, Warn, false),
            (Warn, Deny, Deny, true),
            (Audit, Warn, Warn, true),
        ] {
            let found = enforcement(default, floor).in_unknown_namespace("no answer");
            assert_eq!(found.level, holds, "{default:?} {floor:?}");
            assert_eq!(found.remark.is_some(), remarked, "{default:?} {floor:?}");
        }
    }

    #[test]
    fn codes_weigh_as_configured_and_an_error_is_always_heard() {
        let enforcement = enforcement(Level::Deny, Level::Audit);
        let error = code::NO_RULES.at(Location::default(), "x");
        let other = code::BAD_PORT.at(Location::default(), "x");
        let strict = code::DENY_WITHOUT_PORTS.at(Location::default(), "x");
        let usual = code::SPIFFE_PREFIX.at(Location::default(), "x");
        for (level, wanted) in [
            (
                Level::Deny,
                [Level::Warn, Level::Deny, Level::Deny, Level::Warn],
            ),
            (
                Level::Warn,
                [Level::Warn, Level::Warn, Level::Warn, Level::Warn],
            ),
            (
                Level::Audit,
                [Level::Warn, Level::Warn, Level::Audit, Level::Audit],
            ),
        ] {
            let found = [&error, &other, &strict, &usual].map(|d| enforcement.of(d, level));
            assert_eq!(found, wanted, "{level:?}");
        }
    }
}
