//! Every metric: what `/metrics` shows is here, and the reference documents it.

use portcullis_wire::metrics::{Definition, Kind};

/// Stands before every name.
pub const PREFIX: &str = "portcullis_authz_";

const VERDICTS: &str = "`allow`, `deny`";
const DECISION: (&str, &str) = ("decision", VERDICTS);
const DRY_RUN: (&str, &str) = ("dry_run", VERDICTS);
const ORIGIN: (&str, &str) = (
    "origin",
    "address of the key set or the issuer, without a query; for keys in a policy the word inline",
);

const fn metric(
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

/// The metrics, in the order in which they are shown.
pub const TABLE: &[Definition] = &[
    metric(
        "decisions",
        Kind::Counter,
        &[DECISION, ("reason", "the reasons of a decision")],
        "Decisions, by verdict and reason",
    ),
    metric(
        "decision_duration_seconds",
        Kind::Histogram,
        &[],
        "Time from a check's arrival to its answer",
    ),
    metric(
        "dry_run_decisions",
        Kind::Counter,
        &[DECISION, DRY_RUN],
        "Decisions with policies on trial, by the verdict in force and the verdict that would have been",
    ),
    metric(
        "dry_run_policy_decisions",
        Kind::Counter,
        &[("policy", "namespace/name of a policy"), DECISION, DRY_RUN],
        "The same by policy: those that tell the verdict on trial, and those on trial that matched",
    ),
    metric(
        "custom_answers",
        Kind::Counter,
        &[
            ("provider", "name of an extensionProvider"),
            (
                "result",
                "`allowed`, `denied`, `failed_open`, `unavailable`",
            ),
        ],
        "Answers of CUSTOM providers that this service asked",
    ),
    metric(
        "snapshot_info",
        Kind::Gauge,
        &[(
            "revision",
            "revision of the snapshot; the word followed where an API server is followed",
        )],
        "1 for the snapshot in force; absent before the first",
    ),
    metric("snapshot_policies", Kind::Gauge, &[], "Policies in force"),
    metric(
        "snapshot_age_seconds",
        Kind::Gauge,
        &[],
        "Time since the snapshot in force was published",
    ),
    metric(
        "reloads",
        Kind::Counter,
        &[("result", "`success`, `failure`")],
        "Attempts to load the policies",
    ),
    metric(
        "reload_failing",
        Kind::Gauge,
        &[],
        "1 while the last attempt is a failure: the last good snapshot stays in force",
    ),
    metric(
        "jwks_keys",
        Kind::Gauge,
        &[ORIGIN],
        "Keys of token issuers that can be used now",
    ),
    metric(
        "jwks_age_seconds",
        Kind::Gauge,
        &[ORIGIN],
        "Time since the keys were fetched; absent before the first success and for inline keys",
    ),
    metric(
        "jwks_fetches",
        Kind::Counter,
        &[ORIGIN, ("result", "`success`, `failure`")],
        "Fetches of key sets",
    ),
    metric(
        "decision_log_written",
        Kind::Counter,
        &[],
        "Decisions that the decision log took",
    ),
    metric(
        "decision_log_lost",
        Kind::Counter,
        &[(
            "cause",
            "`queue`: too many at once; `output`: could not be written or sent",
        )],
        "Decisions that should be in the decision log and are not",
    ),
    metric(
        "spans_sent",
        Kind::Counter,
        &[],
        "Spans that the collector took",
    ),
    metric(
        "spans_lost",
        Kind::Counter,
        &[("cause", "`queue`, `output`, as above")],
        "Spans that the collector should have and has not",
    ),
    metric("followers", Kind::Gauge, &[], "Who follows decisions now"),
    metric(
        "follower_events_lost",
        Kind::Counter,
        &[],
        "Decisions that came faster than a follower took them",
    ),
    metric(
        "overloaded",
        Kind::Counter,
        &[],
        "Checks denied as `overloaded`: too many at once, or one that is too large",
    ),
    metric(
        "deadline_exceeded",
        Kind::Counter,
        &[],
        "Checks denied as `deadline`",
    ),
    metric(
        "checks_in_flight",
        Kind::Gauge,
        &[],
        "Checks that are read or decided now",
    ),
    metric(
        "connections",
        Kind::Gauge,
        &[],
        "Connections that are open now",
    ),
    metric(
        "connections_refused",
        Kind::Counter,
        &[(
            "cause",
            "`limit`: too many at once; `handshake`: TLS failed; `peer`: not on the listener's list",
        )],
        "Connections that were not taken; a peer that is refused fails its handshake, too",
    ),
    metric(
        "certificate_reloads",
        Kind::Counter,
        &[("result", "`success`, `failure`")],
        "Certificates of our own that were replaced, or refused while the one before stays in force",
    ),
    metric(
        "build_info",
        Kind::Gauge,
        &[("version", "version of Portcullis")],
        "Always 1",
    ),
];
