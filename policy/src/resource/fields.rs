//! The fields of sources, operations and conditions as data: name, values, what a value must be.

use super::path::Path;
use super::reader::{Reader, listed, nearest};
use super::{Located, OperationMatch, SourceMatch, Values};
use crate::diagnostic::code;
use crate::document::Excerpt;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Any text that is not empty.
    Text,
    /// A peer identity.
    Principal,
    /// An address or block.
    Address,
    /// `name` or `namespace/name`.
    ServiceAccount,
    /// A trust domain with at most one `*`.
    TrustDomain,
    /// A port.
    Port,
    /// A path or path template.
    Path,
    /// A host, with port if the client sends one.
    Host,
    /// An HTTP method.
    Method,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'static str,
    pub(crate) values: &'a Values,
    pub(crate) form: Form,
    /// Looks at an identity or a token, which CUSTOM cannot.
    pub(crate) identity: bool,
    /// Exists in HTTP only.
    pub(crate) http: bool,
}

impl Field<'_> {
    /// True for the `not` fields.
    pub(crate) fn is_negated(&self) -> bool {
        self.name.starts_with("not")
    }
}

/// Every field of a source.
pub(crate) fn of_source(source: &SourceMatch) -> [Field<'_>; 14] {
    let field = |name, values, form, identity, http| Field {
        name,
        values,
        form,
        identity,
        http,
    };
    let s = source;
    [
        field("principals", &s.principals, Form::Principal, true, false),
        field(
            "notPrincipals",
            &s.not_principals,
            Form::Principal,
            true,
            false,
        ),
        field(
            "requestPrincipals",
            &s.request_principals,
            Form::Text,
            true,
            true,
        ),
        field(
            "notRequestPrincipals",
            &s.not_request_principals,
            Form::Text,
            true,
            true,
        ),
        field("namespaces", &s.namespaces, Form::Text, true, false),
        field("notNamespaces", &s.not_namespaces, Form::Text, true, false),
        field(
            "serviceAccounts",
            &s.service_accounts,
            Form::ServiceAccount,
            true,
            false,
        ),
        field(
            "notServiceAccounts",
            &s.not_service_accounts,
            Form::ServiceAccount,
            true,
            false,
        ),
        field(
            "trustDomains",
            &s.trust_domains,
            Form::TrustDomain,
            true,
            false,
        ),
        field(
            "notTrustDomains",
            &s.not_trust_domains,
            Form::TrustDomain,
            true,
            false,
        ),
        field("ipBlocks", &s.ip_blocks, Form::Address, false, false),
        field("notIpBlocks", &s.not_ip_blocks, Form::Address, false, false),
        field(
            "remoteIpBlocks",
            &s.remote_ip_blocks,
            Form::Address,
            false,
            false,
        ),
        field(
            "notRemoteIpBlocks",
            &s.not_remote_ip_blocks,
            Form::Address,
            false,
            false,
        ),
    ]
}

/// Every field of an operation.
pub(crate) fn of_operation(operation: &OperationMatch) -> [Field<'_>; 8] {
    let field = |name, values, form| Field {
        name,
        values,
        form,
        identity: false,
        http: form != Form::Port,
    };
    let o = operation;
    [
        field("hosts", &o.hosts, Form::Host),
        field("notHosts", &o.not_hosts, Form::Host),
        field("ports", &o.ports, Form::Port),
        field("notPorts", &o.not_ports, Form::Port),
        field("methods", &o.methods, Form::Method),
        field("notMethods", &o.not_methods, Form::Method),
        field("paths", &o.paths, Form::Path),
        field("notPaths", &o.not_paths, Form::Path),
    ]
}

/// Attributes that are one word.
const PLAIN: &[(&str, Form)] = &[
    ("source.ip", Form::Address),
    ("remote.ip", Form::Address),
    ("source.namespace", Form::Text),
    ("source.serviceAccount", Form::ServiceAccount),
    ("source.principal", Form::Principal),
    ("source.trustDomain", Form::TrustDomain),
    ("request.auth.principal", Form::Text),
    ("request.auth.audiences", Form::Text),
    ("request.auth.presenter", Form::Text),
    ("destination.ip", Form::Address),
    ("destination.port", Form::Port),
    ("connection.sni", Form::Text),
];

/// Attributes that take a name in brackets. Istio compares by prefix.
const BRACKETED: &[&str] = &[
    "request.headers",
    "request.auth.claims",
    "experimental.envoy.filters.",
];

/// Why a key names no attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// No such attribute.
    Unknown,
    /// The name in brackets is missing.
    Brackets,
    /// Once there, now said by this.
    Replaced(&'static str),
}

/// What values of the attribute must be.
pub(crate) fn form_of_key(key: &str) -> Result<Form, KeyFault> {
    if BRACKETED.iter().any(|prefix| key.starts_with(prefix)) {
        // A `[` that is not first, something in it, and `]` at the end.
        let open = key.find('[').unwrap_or(0);
        let ok = key.ends_with(']') && open > 0 && open + 2 < key.len();
        return if ok {
            Ok(Form::Text)
        } else {
            Err(KeyFault::Brackets)
        };
    }
    if let Some((_, form)) = PLAIN.iter().find(|(name, _)| *name == key) {
        return Ok(*form);
    }
    Err(match key {
        "destination.namespace" => KeyFault::Replaced("the policy's own namespace"),
        "destination.name" | "destination.user" => KeyFault::Replaced("the policy's selector"),
        _ if key.starts_with("destination.labels") => KeyFault::Replaced("the policy's selector"),
        _ => KeyFault::Unknown,
    })
}

/// Attributes that CUSTOM policies cannot look at.
pub(crate) fn is_identity_key(key: &str) -> bool {
    key.starts_with("request.auth.")
        || matches!(
            key,
            "source.namespace"
                | "source.serviceAccount"
                | "source.trustDomain"
                | "source.principal"
        )
}

/// Attributes that exist in HTTP only.
pub(crate) fn is_http_key(key: &str) -> bool {
    key.starts_with("request.")
}

impl KeyFault {
    pub(crate) fn report(self, key: &Located<String>, path: &Path<'_>, reader: &mut Reader<'_>) {
        let text = Excerpt(&key.value);
        match self {
            Self::Brackets => reader.report(
                &code::BAD_KEY,
                key.at.clone(),
                path,
                format!("`{text}` lacks its name in brackets"),
                "write it as in `request.headers[x-token]` or `request.auth.claims[group]`",
            ),
            Self::Replaced(by) => reader.report(
                &code::UNKNOWN_KEY,
                key.at.clone(),
                path,
                format!("the attribute `{text}` is no more"),
                format!("{by} says it now"),
            ),
            Self::Unknown => {
                let known: Vec<&str> = PLAIN.iter().map(|(name, _)| *name).collect();
                let bracketed = key.value.split('[').next().unwrap_or_default();
                let hint = nearest(&key.value, &known)
                    .or_else(|| nearest(bracketed, BRACKETED))
                    .map_or_else(
                        || {
                            format!(
                                "the attributes are {}",
                                listed(&[known.as_slice(), BRACKETED].concat())
                            )
                        },
                        |name| format!("did you mean `{name}`?"),
                    );
                reader.report(
                    &code::UNKNOWN_KEY,
                    key.at.clone(),
                    path,
                    format!("unknown attribute `{text}`"),
                    hint,
                );
            }
        }
    }
}
