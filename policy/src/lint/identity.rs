//! Namespaces, service accounts and trust domains that policies name and the set does not have.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{about, authorization_policies};
use crate::diagnostic::{Diagnostic, code};
use crate::document::Excerpt;
use crate::resource::fields::{self, Form};
use crate::resource::{AuthorizationPolicy, Located, Resource};
use crate::user::UserPolicy;

/// Namespaces that every cluster has.
const BUILT_IN: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// Stands for the mesh's own trust domain in principals, whatever that is called.
const OWN: &str = "cluster.local";

/// Reports identities that nobody in the set can have.
pub(super) fn check(
    resources: &[Arc<Resource>],
    root_namespace: &str,
    trust_domains: &[String],
    found: &mut Vec<Diagnostic>,
) {
    let known = Known::build(resources, root_namespace, trust_domains);
    for resource in resources {
        let (kind, meta) = match resource.as_ref() {
            Resource::AuthorizationPolicy(p) => ("AuthorizationPolicy", &p.meta),
            Resource::PeerAuthentication(p) => ("PeerAuthentication", &p.meta),
            Resource::RequestAuthentication(p) => ("RequestAuthentication", &p.meta),
            Resource::CedarPolicy(p) => ("CedarPolicy", &p.meta),
            Resource::PolicyTest(p) => ("PolicyTest", &p.meta),
            _ => continue,
        };
        if !known.has_namespace(&meta.namespace) {
            found.push(about(
                &code::UNKNOWN_NAMESPACE,
                &meta.at,
                (kind, meta),
                "metadata.namespace",
                format!("no namespace `{}` in this set", Excerpt(&meta.namespace)),
                "check its spelling, or add its Namespace document",
            ));
        }
    }
    for policy in authorization_policies(resources) {
        check_policy(policy, &known, found);
    }
}

/// Reports principals of user policies whose namespace or service account does not exist.
pub(crate) fn check_user<'u>(
    policies: impl Iterator<Item = &'u Arc<UserPolicy>>,
    resources: &[Arc<Resource>],
    root_namespace: &str,
    trust_domains: &[&str],
    found: &mut Vec<Diagnostic>,
) {
    let mut policies = policies.filter(|p| !p.principals.is_empty()).peekable();
    if policies.peek().is_none() {
        return;
    }
    let known = Known::build(resources, root_namespace, &[]);
    for policy in policies {
        for id in &policy.principals {
            let Some(named) = id.strip_prefix("spiffe://").and_then(principal) else {
                continue;
            };
            // What a foreign domain holds is not for us to say.
            let own = named
                .trust_domain
                .is_some_and(|td| trust_domains.contains(&td));
            let (Some(namespace), Some(account), true) = (named.namespace, named.account, own)
            else {
                continue;
            };
            let diagnostic = if !known.has_namespace(namespace) {
                let message = format!("no namespace `{}` in this set", Excerpt(namespace));
                let hint = "check its spelling, or add its Namespace document";
                code::UNKNOWN_NAMESPACE
                    .at(policy.rule.at.clone(), message)
                    .with_hint(hint)
            } else if !known.has_account(namespace, account) {
                let account = format!("{}/{}", Excerpt(namespace), Excerpt(account));
                let message = format!("no service account `{account}` in this set");
                let hint = "check its spelling, or add its ServiceAccount document";
                code::UNKNOWN_ACCOUNT
                    .at(policy.rule.at.clone(), message)
                    .with_hint(hint)
            } else {
                continue;
            };
            found.push(match &policy.attachment {
                Some(a) => diagnostic
                    .with_resource(format!("CedarPolicy/{}/{}", a.namespace, a.name))
                    .with_field("spec.policies"),
                None => diagnostic,
            });
        }
    }
}

struct Known<'a> {
    namespaces: FxHashSet<&'a str>,
    accounts: FxHashSet<(&'a str, &'a str)>,
    trust_domains: &'a [String],
    /// Namespace documents are there, so a namespace without one is missing.
    lists_namespaces: bool,
    /// As above, for service accounts.
    lists_accounts: bool,
}

impl<'a> Known<'a> {
    fn build(
        resources: &'a [Arc<Resource>],
        root_namespace: &'a str,
        trust_domains: &'a [String],
    ) -> Self {
        let mut known = Self {
            namespaces: BUILT_IN.iter().copied().chain([root_namespace]).collect(),
            accounts: FxHashSet::default(),
            trust_domains,
            lists_namespaces: false,
            lists_accounts: false,
        };
        for resource in resources {
            match resource.as_ref() {
                Resource::Namespace(meta) => {
                    known.lists_namespaces = true;
                    known.namespaces.insert(&meta.name);
                }
                Resource::ServiceAccount(meta) => {
                    known.lists_accounts = true;
                    known.accounts.insert((&meta.namespace, &meta.name));
                }
                // Where something runs there is a namespace.
                Resource::Workload(workload) => {
                    known.namespaces.insert(&workload.namespace);
                    let account = (
                        workload.namespace.as_str(),
                        workload.service_account.as_str(),
                    );
                    known.accounts.insert(account);
                }
                _ => {}
            }
        }
        known
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        !self.lists_namespaces || self.namespaces.contains(namespace)
    }

    /// Whether a pattern, of which every `*` stands for anything, matches a namespace.
    fn has_namespace_like(&self, pattern: &str) -> bool {
        !self.lists_namespaces || self.namespaces.iter().any(|name| is_like(pattern, name))
    }

    fn has_account(&self, namespace: &str, account: &str) -> bool {
        !self.lists_accounts
            || account == "default"
            || self.accounts.contains(&(namespace, account))
    }

    fn has_trust_domain(&self, trust_domain: &str) -> bool {
        self.trust_domains.is_empty()
            || trust_domain == OWN
            || self.trust_domains.iter().any(|own| own == trust_domain)
    }
}

fn check_policy(policy: &AuthorizationPolicy, known: &Known<'_>, found: &mut Vec<Diagnostic>) {
    let mut visit = |form: Form, name: &str, value: &Located<String>, field: String| {
        let text = value.value.as_str();
        let of_namespace = name.ends_with("amespaces") || name == "source.namespace";
        if text.contains('*') {
            if of_namespace && !known.has_namespace_like(text) {
                found.push(about(
                    &code::UNKNOWN_NAMESPACE,
                    &value.at,
                    ("AuthorizationPolicy", &policy.meta),
                    field,
                    format!("no namespace of this set matches `{}`", Excerpt(text)),
                    "check its spelling, or add the Namespace documents",
                ));
            }
            return;
        }
        let named = match form {
            Form::Principal => principal(text),
            Form::ServiceAccount => Some(match text.split_once('/') {
                Some((namespace, account)) => Named::account(namespace, account),
                None => Named::account(&policy.meta.namespace, text),
            }),
            Form::TrustDomain => Some(Named {
                trust_domain: Some(text),
                ..Named::default()
            }),
            _ if of_namespace => Some(Named {
                namespace: Some(text),
                ..Named::default()
            }),
            _ => None,
        };
        if let Some(named) = named {
            report(&named, value, field, policy, known, found);
        }
    };
    for (r, rule) in policy.rules.iter().flatten().enumerate() {
        let Some(rule) = &rule.value else { continue };
        for (f, from) in rule.from.iter().enumerate() {
            let Some(source) = &from.value else { continue };
            for field in fields::of_source(source) {
                for (v, value) in field.values.iter().enumerate() {
                    let path = format!("spec.rules[{r}].from[{f}].source.{}[{v}]", field.name);
                    visit(field.form, field.name, value, path);
                }
            }
        }
        for (w, condition) in rule.when.iter().enumerate() {
            let key = condition.key.value.as_str();
            let Ok(form) = fields::form_of_key(key) else {
                continue;
            };
            for (name, values) in [
                ("values", &condition.values),
                ("notValues", &condition.not_values),
            ] {
                for (v, value) in values.iter().enumerate() {
                    visit(
                        form,
                        key,
                        value,
                        format!("spec.rules[{r}].when[{w}].{name}[{v}]"),
                    );
                }
            }
        }
    }
}

/// Whether `pattern` matches all of `text`, each `*` standing for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

/// What a value names.
#[derive(Default)]
struct Named<'a> {
    trust_domain: Option<&'a str>,
    namespace: Option<&'a str>,
    account: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn account(namespace: &'a str, account: &'a str) -> Self {
        Self {
            trust_domain: None,
            namespace: Some(namespace),
            account: Some(account),
        }
    }
}

/// `trust-domain/ns/namespace/sa/account`; other identities are not Istio's, only their trust
/// domain can be looked at.
fn principal(text: &str) -> Option<Named<'_>> {
    if text.starts_with("spiffe:") {
        return None;
    }
    let parts: Vec<&str> = text.splitn(6, '/').collect();
    match parts.as_slice() {
        [trust_domain, "ns", namespace, "sa", account] => Some(Named {
            trust_domain: Some(trust_domain),
            namespace: Some(namespace),
            account: Some(account),
        }),
        [trust_domain, _, ..] => Some(Named {
            trust_domain: Some(trust_domain),
            ..Named::default()
        }),
        _ => None,
    }
}

fn report(
    named: &Named<'_>,
    value: &Located<String>,
    field: String,
    policy: &AuthorizationPolicy,
    known: &Known<'_>,
    found: &mut Vec<Diagnostic>,
) {
    let about = |code, message: String, hint: &str| {
        about(
            code,
            &value.at,
            ("AuthorizationPolicy", &policy.meta),
            field.clone(),
            message,
            hint,
        )
    };
    if let Some(trust_domain) = named.trust_domain
        && !known.has_trust_domain(trust_domain)
    {
        found.push(about(
            &code::FOREIGN_TRUST_DOMAIN,
            format!(
                "`{}` is no trust domain of this mesh",
                Excerpt(trust_domain)
            ),
            "if it is a federated one, all is well; else write the mesh's own",
        ));
        // What a foreign domain holds is not for us to say.
        return;
    }
    if let Some(namespace) = named.namespace
        && !known.has_namespace(namespace)
    {
        found.push(about(
            &code::UNKNOWN_NAMESPACE,
            format!("no namespace `{}` in this set", Excerpt(namespace)),
            "check its spelling, or add its Namespace document",
        ));
        return;
    }
    if let (Some(namespace), Some(account)) = (named.namespace, named.account)
        && !known.has_account(namespace, account)
    {
        found.push(about(
            &code::UNKNOWN_ACCOUNT,
            format!(
                "no service account `{}/{}` in this set",
                Excerpt(namespace),
                Excerpt(account)
            ),
            "check its spelling, or add its ServiceAccount document",
        ));
    }
}
