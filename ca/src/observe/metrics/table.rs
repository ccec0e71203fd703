//! Every metric: what `/metrics` shows is here, and the reference documents it.

use portcullis_wire::metrics::{Definition, Kind};

/// Stands before every name.
pub const PREFIX: &str = "portcullis_ca_";

const KIND: (&str, &str) = ("kind", "`x509`, `jwt`, and `wit` where it is switched on");
const API: (&str, &str) = (
    "api",
    "`x509_svid`, `x509_bundles`, `jwt_bundles`, `wit_svid`, `wit_bundles`, `sds`",
);
const STATE: (&str, &str) = ("state", "`prepared`, `active`, `old`, `tainted`, `revoked`");
const RESULT: (&str, &str) = ("result", "`success`, `failure`");
const TRUST_DOMAIN: (&str, &str) = (
    "trust_domain",
    "a trust domain with which there is a relationship of federation",
);
const RESOURCE: (&str, &str) = (
    "resource",
    "`pods of this node`, `pods`, `namespaces`, `nodes`, `clusterspiffeids.spire.spiffe.io`, `endpointslices.discovery.k8s.io`",
);
const ENTRY: (&str, &str) = ("state", "`wanted`, `unrendered`, `refused`");
const CAUSE: (&str, &str) = (
    "cause",
    "`queue`: too many at once; `output`: could not be sent",
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
        "svids",
        Kind::Counter,
        &[
            KIND,
            (
                "result",
                "`issued`, `no_identity`, `not_entitled`, `invalid`, `unavailable`",
            ),
        ],
        "SVIDs that were issued, or refused and why; those served once more are not counted here",
    ),
    metric(
        "issuing_duration_seconds",
        Kind::Histogram,
        &[KIND],
        "Time of issuing, for one SVID or several together: prepare, record, sign, verify, record",
    ),
    metric(
        "svids_served_again",
        Kind::Counter,
        &[],
        "X.509-SVIDs that callers got although they were issued before: less than half their life is over",
    ),
    metric(
        "svids_held",
        Kind::Gauge,
        &[],
        "X.509-SVIDs in memory, to be served again",
    ),
    metric(
        "bundle_refusals",
        Kind::Counter,
        &[],
        "Callers who asked for bundles and match no entry",
    ),
    metric(
        "attestations",
        Kind::Counter,
        &[(
            "result",
            "`attested`, `ended`, `invisible`, `changed`, `failed`, `refused`",
        )],
        "Attestations of callers on the workload socket",
    ),
    metric(
        "streams",
        Kind::Gauge,
        &[API],
        "Streams on the workload socket that are open now",
    ),
    metric(
        "updates",
        Kind::Counter,
        &[API],
        "Messages sent on streams: the first one of each, and one for every change",
    ),
    metric(
        "streams_stalled",
        Kind::Counter,
        &[API],
        "Streams that were cut because their reader took nothing any more",
    ),
    metric("entries", Kind::Gauge, &[], "Entries of the registry"),
    metric(
        "registry_revision",
        Kind::Gauge,
        &[],
        "Revision of the registry: grows with every change of an entry",
    ),
    metric(
        "bundle_sequence",
        Kind::Gauge,
        &[],
        "Sequence of our bundle: grows with every change of what is published",
    ),
    metric(
        "authorities",
        Kind::Gauge,
        &[KIND, STATE],
        "Authorities, by what they sign and where they are in their life",
    ),
    metric(
        "authority_not_after_timestamp_seconds",
        Kind::Gauge,
        &[KIND, STATE],
        "End of an authority, in seconds since 1970; of several in a state the next to end, absent where there is none",
    ),
    metric(
        "upstream_not_after_timestamp_seconds",
        Kind::Gauge,
        &[],
        "End of the upstream authority; absent where our authorities are roots",
    ),
    metric(
        "rotation_due_timestamp_seconds",
        Kind::Gauge,
        &[
            KIND,
            (
                "step",
                "`prepare`: a successor is made; `activate`: it signs as soon as every stream has it; `activate_anyway`: it signs even if not",
            ),
        ],
        "When the next steps of rotation are due; `prepare` is absent while a successor is prepared",
    ),
    metric(
        "authority_streams_behind",
        Kind::Gauge,
        &[KIND],
        "Open streams that do not have the bundle with the prepared authority yet; absent where none is prepared",
    ),
    metric(
        "authority_changes",
        Kind::Counter,
        &[
            ("step", "`prepare`, `activate`, `taint`, `revoke`, `prune`"),
            RESULT,
        ],
        "Steps in the lives of authorities, by rotation and by hand",
    ),
    metric(
        "rotation_failing",
        Kind::Gauge,
        &[],
        "1 while the last look at the clock could not do what was due; it is tried again every few seconds",
    ),
    metric(
        "journal_records",
        Kind::Counter,
        &[],
        "Records that the audit journal has on disk since the start",
    ),
    metric(
        "journal_commits",
        Kind::Counter,
        &[RESULT],
        "Groups of records written with one fsync; what a failed one would have recorded did not happen",
    ),
    metric(
        "journal_commit_duration_seconds",
        Kind::Histogram,
        &[],
        "Time of one such write, fsync included",
    ),
    metric(
        "journal_failing",
        Kind::Gauge,
        &[],
        "1 while the last write of the audit journal is a failure: nothing is issued or changed",
    ),
    metric(
        "federation_refreshes",
        Kind::Counter,
        &[TRUST_DOMAIN, RESULT],
        "Fetches of the bundles of other trust domains",
    ),
    metric(
        "federation_failures",
        Kind::Gauge,
        &[TRUST_DOMAIN],
        "Failed fetches since the last success; the last good bundle stays",
    ),
    metric(
        "federation_age_seconds",
        Kind::Gauge,
        &[TRUST_DOMAIN],
        "Time since the bundle was last fetched; absent before the first success after a start",
    ),
    metric(
        "federated_bundles",
        Kind::Gauge,
        &[],
        "Bundles of other trust domains that are known",
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
        &[CAUSE],
        "Spans that the collector should have and has not",
    ),
    metric(
        "kubernetes_attestations",
        Kind::Counter,
        &[("result", "`pod`, `no_pod`, `refused`, `failed`")],
        "Attestations by the attestor `k8s`; `refused`: the pod is gone or over",
    ),
    metric(
        "kubernetes_looks",
        Kind::Counter,
        &[],
        "Times that the API server was asked for a pod which the watch did not know",
    ),
    metric(
        "kubernetes_pods",
        Kind::Gauge,
        &[],
        "Pods of the node that are known",
    ),
    metric(
        "kubernetes_cluster_spiffe_ids",
        Kind::Gauge,
        &[],
        "ClusterSPIFFEIDs that make entries here",
    ),
    metric(
        "kubernetes_entries",
        Kind::Gauge,
        &[ENTRY],
        "Entries that ClusterSPIFFEIDs make; `unrendered`: a pod has not what the template asks for; `refused`: by the registry, as where another entry grants the same",
    ),
    metric(
        "kubernetes_entry_changes",
        Kind::Counter,
        &[("change", "`created`, `updated`, `deleted`")],
        "Entries that were changed for ClusterSPIFFEIDs",
    ),
    metric(
        "kubernetes_following",
        Kind::Gauge,
        &[RESOURCE],
        "1 while changes of the resource come from the API server, 0 while they do not",
    ),
    metric(
        "kubernetes_age_seconds",
        Kind::Gauge,
        &[RESOURCE],
        "Seconds since the API server last said anything of the resource; up to 35 where nothing changes",
    ),
    metric(
        "start_timestamp_seconds",
        Kind::Gauge,
        &[],
        "When this process opened its data, in seconds since 1970",
    ),
    metric(
        "build_info",
        Kind::Gauge,
        &[("version", "version of Portcullis")],
        "Always 1",
    ),
];
