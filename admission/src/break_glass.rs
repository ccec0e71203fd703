//! The way around a refusal: a reason on the object *and* a user whom the operator trusts with it.

use crate::object::Object;
use crate::review::{Request, User, excerpt};

/// The annotation; its value is the reason.
pub const ANNOTATION: &str = "portcullis.dev/break-glass";
/// Characters of a reason that are kept.
const LONGEST_REASON: usize = 512;

/// Who may break the glass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BreakGlass {
    /// Groups of `userInfo`; none: nobody.
    pub groups: Vec<String>,
}

/// What a request says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing, or what somebody else said before.
    None,
    /// A reason, by one who may.
    Granted {
        /// The annotation's value.
        reason: String,
    },
    /// A reason, by one who may not, or no reason.
    Refused {
        /// What a person reads.
        why: String,
    },
}

impl BreakGlass {
    /// What `request` claims.
    #[must_use]
    pub fn claim(&self, request: &Request) -> Claim {
        let on = |object: &Object| object.annotation(ANNOTATION).map(str::to_owned);
        let before = request.old_object.as_ref().and_then(on);
        // Of an object that goes, there is only what it was.
        let now = match &request.object {
            Some(object) => on(object),
            None => before.clone(),
        };
        let Some(reason) = now else {
            return Claim::None;
        };
        let stood_before = before.as_ref() == Some(&reason);
        match self.admits(&request.user) {
            false if stood_before => Claim::None,
            false => Claim::Refused {
                why: self.refusal(&request.user),
            },
            true if reason.trim().is_empty() => Claim::Refused {
                why: format!("the annotation `{ANNOTATION}` is empty: its value is the reason"),
            },
            true => Claim::Granted {
                reason: one_line(&reason),
            },
        }
    }

    fn admits(&self, user: &User) -> bool {
        user.groups.iter().any(|group| self.groups.contains(group))
    }

    fn refusal(&self, user: &User) -> String {
        let who = match user.name.as_str() {
            "" => "a user without a name".to_owned(),
            name => format!("`{}`", excerpt(name)),
        };
        let groups: Vec<String> = self
            .groups
            .iter()
            .map(|g| format!("`{}`", excerpt(g)))
            .collect();
        match groups.as_slice() {
            [] => format!(
                "the annotation `{ANNOTATION}` is set, and nobody may: no group is configured for it"
            ),
            [group] => format!(
                "{who} sets the annotation `{ANNOTATION}` without being in the group {group}"
            ),
            groups => format!(
                "{who} sets the annotation `{ANNOTATION}` without being in any of the groups {}",
                groups.join(", ")
            ),
        }
    }
}

/// A reason as logs keep it.
fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain
        .take(LONGEST_REASON)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::review::parse;

    fn claim(now: Option<&str>, before: Option<&str>, groups: &[&str]) -> Claim {
        let object = |reason: Option<&str>| match reason {
            None => json!({ "metadata": { "name": "a" } }),
            Some(reason) => {
                json!({ "metadata": { "name": "a", "annotations": { (ANNOTATION): reason } } })
            }
        };
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "operation": "UPDATE",
                "kind": { "group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy" },
                "userInfo": { "username": "eve", "groups": groups },
                "object": object(now), "oldObject": object(before),
            },
        });
        let glass = BreakGlass {
            groups: vec!["oncall".to_owned(), "root".to_owned()],
        };
        glass.claim(&parse(review.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn it_takes_the_reason_and_the_group() {
        let granted = Claim::Granted {
            reason: "incident 7".to_owned(),
        };
        assert_eq!(claim(Some("incident 7"), None, &["dev", "oncall"]), granted);
        assert_eq!(claim(None, None, &["oncall"]), Claim::None);
        assert!(matches!(
            claim(Some("x"), None, &["dev"]),
            Claim::Refused { .. }
        ));
        assert!(matches!(claim(Some("x"), None, &[]), Claim::Refused { .. }));
        assert!(matches!(
            claim(Some(" "), None, &["oncall"]),
            Claim::Refused { .. }
        ));
    }

    #[test]
    fn what_another_claimed_before_is_no_claim_of_those_who_may_not() {
        assert_eq!(claim(Some("x"), Some("x"), &["dev"]), Claim::None);
        assert!(matches!(
            claim(Some("y"), Some("x"), &["dev"]),
            Claim::Refused { .. }
        ));
        // Who may takes it over, and anybody may take it off.
        assert!(matches!(
            claim(Some("x"), Some("x"), &["root"]),
            Claim::Granted { .. }
        ));
        assert_eq!(claim(None, Some("x"), &["dev"]), Claim::None);
        assert_eq!(claim(None, Some("x"), &["root"]), Claim::None);
    }

    #[test]
    fn a_reason_is_one_line() {
        let Claim::Granted { reason } = claim(Some("a\nb\u{7}c"), None, &["oncall"]) else {
            panic!("granted")
        };
        assert_eq!(reason, "a b c");
        let Claim::Refused { why } = claim(Some("x"), None, &["dev"]) else {
            panic!("refused")
        };
        assert!(
            why.contains("`eve`") && why.contains("`oncall`, `root`"),
            "{why}"
        );
    }
}
