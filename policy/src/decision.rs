//! The answer to a request, with its reasons.

use serde::{Deserialize, Serialize};

/// The answer. Never to be mixed with a policy's *effect*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The request may pass.
    Allow,
    /// The request is refused.
    Deny,
}

impl Verdict {
    /// Both, the allow first.
    pub const ALL: [Self; 2] = [Self::Allow, Self::Deny];

    /// The word used in JSON, metadata, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Why: a closed set, also used as metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    // allow
    /// An ALLOW rule (or a user permit) matched.
    AllowedBy,
    /// No ALLOW policy selects the workload.
    NoAllowPolicy,
    /// A CUSTOM provider allowed and nothing else objected.
    CustomAllowed,
    // deny by policy
    /// A DENY rule (or a user forbid) matched.
    DeniedBy,
    /// ALLOW policies select the workload and none matched.
    NoAllowMatched,
    /// PeerAuthentication STRICT, or a waypoint's own listener, and the peer has no identity.
    MtlsRequired,
    /// A CUSTOM provider denied.
    CustomDenied,
    /// A CUSTOM rule matched and its provider cannot be asked.
    CustomProviderUnavailable,
    /// A token is invalid for its issuer (401).
    TokenInvalid,
    /// A token is there and nobody verified it (401).
    TokenUnverified,
    /// A policy needs a token and there is none.
    TokenMissing,
    /// The peer's SVID was revoked.
    IdentityRevoked,
    // deny, closed state
    /// No snapshot has been loaded yet.
    NoSnapshot,
    /// The destination workload could not be found.
    UnknownDestination,
    /// Several workloads with different policies could be the destination.
    DestinationAmbiguous,
    /// The verdict hangs on the client's address behind proxies, which is not known.
    RemoteAddressUnknown,
    /// Two URI SANs where an SVID is required.
    AmbiguousIdentity,
    /// The peer's SVID has expired.
    IdentityExpired,
    /// Identity came from a source that is not trusted.
    UntrustedIdentitySource,
    /// The request is malformed; Envoy would answer 400.
    InvalidRequest,
    /// A resource that was never seen good selects the workload.
    InvalidResource,
    /// A policy failed to evaluate.
    EvaluationError,
    /// Too many requests at once.
    Overloaded,
    /// The time for the decision was over.
    Deadline,
}

impl Reason {
    /// Every reason, in the order of the variants.
    pub const ALL: [Self; 24] = [
        Self::AllowedBy,
        Self::NoAllowPolicy,
        Self::CustomAllowed,
        Self::DeniedBy,
        Self::NoAllowMatched,
        Self::MtlsRequired,
        Self::CustomDenied,
        Self::CustomProviderUnavailable,
        Self::TokenInvalid,
        Self::TokenUnverified,
        Self::TokenMissing,
        Self::IdentityRevoked,
        Self::NoSnapshot,
        Self::UnknownDestination,
        Self::DestinationAmbiguous,
        Self::RemoteAddressUnknown,
        Self::AmbiguousIdentity,
        Self::IdentityExpired,
        Self::UntrustedIdentitySource,
        Self::InvalidRequest,
        Self::InvalidResource,
        Self::EvaluationError,
        Self::Overloaded,
        Self::Deadline,
    ];

    /// The word used in JSON, metadata, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowedBy => "allowed_by",
            Self::NoAllowPolicy => "no_allow_policy",
            Self::CustomAllowed => "custom_allowed",
            Self::DeniedBy => "denied_by",
            Self::NoAllowMatched => "no_allow_matched",
            Self::MtlsRequired => "mtls_required",
            Self::CustomDenied => "custom_denied",
            Self::CustomProviderUnavailable => "custom_provider_unavailable",
            Self::TokenInvalid => "token_invalid",
            Self::TokenUnverified => "token_unverified",
            Self::TokenMissing => "token_missing",
            Self::IdentityRevoked => "identity_revoked",
            Self::NoSnapshot => "no_snapshot",
            Self::UnknownDestination => "unknown_destination",
            Self::DestinationAmbiguous => "destination_ambiguous",
            Self::RemoteAddressUnknown => "remote_address_unknown",
            Self::AmbiguousIdentity => "ambiguous_identity",
            Self::IdentityExpired => "identity_expired",
            Self::UntrustedIdentitySource => "untrusted_identity_source",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidResource => "invalid_resource",
            Self::EvaluationError => "evaluation_error",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
        }
    }

    /// The verdict this reason belongs to; a reason never serves both.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::AllowedBy | Self::NoAllowPolicy | Self::CustomAllowed => Verdict::Allow,
            _ => Verdict::Deny,
        }
    }

    /// HTTP status of the denial: 401 where a credential is at fault, else 403. `None` for an allow.
    #[must_use]
    pub fn http_status(self) -> Option<u16> {
        match self {
            Self::TokenInvalid | Self::TokenUnverified => Some(401),
            _ if self.verdict() == Verdict::Allow => None,
            _ => Some(403),
        }
    }
}

/// The dry-run rules that matched on their own, as Envoy's shadow engines report them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shadow {
    /// First dry-run ALLOW rule that matched.
    pub allow: Option<String>,
    /// First dry-run DENY rule that matched.
    pub deny: Option<String>,
}

/// What the verdict would be with the policies on trial enforced too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DryRun {
    /// Verdict of enforced and dry-run (or candidate) policies together.
    pub decision: Verdict,
    /// Its reason.
    pub reason: Reason,
    /// Its determining policies.
    pub policies: Vec<String>,
    /// Dry-run rules that matched on their own.
    pub shadow: Shadow,
}

/// The decision on one request. Serialises to the contract's JSON, without `line`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// Allow or deny.
    pub decision: Verdict,
    /// Why.
    pub reason: Reason,
    /// Determining policies, `namespace/name#rule[i]`; the first is the one Envoy reports.
    pub policies: Vec<String>,
    /// AUDIT rules that matched.
    pub audit: Vec<String>,
    /// The CUSTOM provider to ask, if a CUSTOM rule matched.
    pub provider: Option<String>,
    /// The verdict with policies on trial; `None` when nothing is on trial.
    pub dry_run: Option<DryRun>,
    /// Revision of the snapshot that decided.
    pub snapshot: String,
}

impl Decision {
    /// A denial without policies: the form of every closed state.
    #[must_use]
    pub fn closed(reason: Reason, snapshot: impl Into<String>) -> Self {
        Self {
            decision: reason.verdict(),
            reason,
            policies: Vec::new(),
            audit: Vec::new(),
            provider: None,
            dry_run: None,
            snapshot: snapshot.into(),
        }
    }

    /// Of two readings of one request the one that denies, for the verdict in force and on trial
    /// alike.
    #[must_use]
    pub fn or_stricter(self, other: Self) -> Self {
        let dry_run = match (self.dry_run.clone(), other.dry_run.clone()) {
            (Some(a), Some(b)) => Some(if a.decision == Verdict::Allow { b } else { a }),
            (a, b) => a.or(b),
        };
        let chosen = if self.is_allow() { other } else { self };
        Self { dry_run, ..chosen }
    }

    /// True for an allow.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        self.decision == Verdict::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_at_its_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        assert_eq!(Reason::Deadline as usize + 1, Reason::ALL.len(), "the last");
    }
}
