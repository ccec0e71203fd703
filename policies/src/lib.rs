//! Data that ships with Portcullis: the Cedar schema, example manifests and their decision cases.

pub mod examples;

/// The Cedar schema, in Cedar's own syntax.
pub const SCHEMA: &str = include_str!("../schema.cedarschema");

/// Folders of decision cases, as paths below this crate: manifests, and in `cases.yaml` requests with
/// the decision that each must get. README.md has the format.
pub const CASES: &[&str] = &[
    "cases/allow-deny",
    "cases/attachment",
    "cases/audit",
    "cases/cedar-policy",
    "cases/custom/self",
    "cases/custom/unconfigured",
    "cases/destination/ambiguous",
    "cases/destination/default",
    "cases/destination/found",
    "cases/dry-run/annotation",
    "cases/dry-run/candidate",
    "cases/dry-run/candidate-cedar",
    "cases/empty-forms",
    "cases/gateway",
    "cases/headers/each",
    "cases/headers/merged",
    "cases/hosts",
    "cases/identities",
    "cases/ip-blocks",
    "cases/jwt-claims",
    "cases/metadata",
    "cases/missing-facts",
    "cases/paths/base",
    "cases/paths/decode-and-merge-slashes",
    "cases/paths/merge-slashes",
    "cases/paths/none",
    "cases/peer-authentication",
    "cases/ports",
    "cases/remote-ip/counted",
    "cases/remote-ip/unknown",
    "cases/request-authentication",
    "cases/request-principals",
    "cases/sni",
    "cases/tcp",
    "cases/templates",
    "cases/trust-domains",
    "cases/user-cedar",
    "cases/user-cedar-uncertain",
    "cases/waypoint",
    "cases/ztunnel",
];
