//! Every metric: the reference lists what is here.

use portcullis_wire::metrics::{Definition, Kind};

/// Stands before every name.
pub const PREFIX: &str = "portcullis_admission_";

const fn one(
    name: &'static str,
    kind: Kind,
    labels: &'static [(&'static str, &'static str)],
    meaning: &'static str,
) -> Definition {
    Definition {
        prefix: PREFIX,
        name,
        kind,
        labels,
        meaning,
    }
}

const RESULT: (&str, &str) = ("result", "`success`, `failure`");

/// The metrics.
pub static TABLE: &[Definition] = &[
    one(
        "decisions",
        Kind::Counter,
        &[
            (
                "kind",
                "`AuthorizationPolicy`, `PeerAuthentication`, `RequestAuthentication`, `CedarPolicy`, `PolicyTest`, `other`",
            ),
            ("operation", "`CREATE`, `UPDATE`, `DELETE`, `CONNECT`"),
            ("decision", "`allow`, `deny`"),
            (
                "cause",
                "`accepted`, `not_enforced`, `break_glass`, `subresource`, `unchanged`, `being_deleted`, `other_kind`, `invalid`, `cases_break`, `break_glass_refused`, `malformed`",
            ),
            ("dry_run", "`true`, `false`"),
        ],
        "Changes that were judged",
    ),
    one(
        "findings",
        Kind::Counter,
        &[
            ("code", "code of a diagnostic"),
            ("level", "`deny`, `warn`, `audit`"),
        ],
        "Changes in which a diagnostic was found, by what it led to",
    ),
    one(
        "decision_duration_seconds",
        Kind::Histogram,
        &[],
        "Time from a review's arrival to its answer",
    ),
    one(
        "undecided",
        Kind::Counter,
        &[(
            "cause",
            "`not_a_review`, `too_large`, `not_ready`, `overloaded`, `deadline`, `crashed`",
        )],
        "Requests that got no verdict: the webhook's failure policy decides",
    ),
    one(
        "break_glass",
        Kind::Counter,
        &[("result", "`granted`, `refused`")],
        "Changes that were let pass in spite of findings, or refused because the user may not",
    ),
    one(
        "connections",
        Kind::Gauge,
        &[],
        "Connections that are open now",
    ),
    one(
        "connections_refused",
        Kind::Counter,
        &[(
            "cause",
            "`limit`: too many at once; `handshake`: TLS failed",
        )],
        "Connections that were not taken",
    ),
    one(
        "certificate_not_after_timestamp_seconds",
        Kind::Gauge,
        &[],
        "End of the serving certificate, in seconds since 1970; absent while there is none",
    ),
    one(
        "certificates",
        Kind::Counter,
        &[RESULT],
        "Serving certificates that were put in force, or refused while the one before stays in force",
    ),
    one(
        "certificate_waiting",
        Kind::Gauge,
        &[],
        "1 while a new certificate waits until API servers know its authority",
    ),
    one(
        "ca_bundle_updates",
        Kind::Counter,
        &[RESULT],
        "Changes of the caBundle of the webhook configuration, and attempts to read or change it that failed",
    ),
    one(
        "build_info",
        Kind::Gauge,
        &[("version", "version of Portcullis")],
        "Always 1",
    ),
];
