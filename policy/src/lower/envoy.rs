//! Rules as istiod gives them to Envoy, for HTTP and TCP filters.

use std::sync::Arc;

use super::condition::Key;
use crate::mesh::Mesh;
use crate::model::{
    Alternative, Clause, Dialect, IdentityField, Matcher, RequestPrincipal, Role, Rule,
};
use crate::path::template::PathTemplate;
use crate::resource::{OperationMatch, RuleSpec, SourceMatch, Values};
use crate::text::{Cidr, Pattern};

/// A value that istiod could not turn into a matcher, in words.
type Refused = String;

/// What an ALLOW rule does on TCP with a field that only HTTP has.
fn http_only(field: &str) -> Refused {
    format!("`{field}` is known for HTTP only")
}

struct Builder<'a> {
    role: &'a Role,
    dialect: Dialect,
    mesh: &'a Mesh,
    policy_namespace: &'a str,
}

/// Fills `rule` from its spec.
///
/// # Errors
/// Why the rule does not exist in this dialect: in an ALLOW any refused value, in every role an
/// unknown `when` key.
pub fn fill(mut rule: Rule, spec: &RuleSpec, mesh: &Mesh) -> Result<Rule, String> {
    let role = rule.role.clone();
    let namespace = Arc::clone(&rule.id.namespace);
    let builder = Builder {
        role: &role,
        dialect: rule.dialect,
        mesh,
        policy_namespace: &namespace,
    };
    for (index, entry) in spec.from.iter().enumerate() {
        let clauses = match &entry.value {
            Some(source) => builder.source(source)?,
            None => Vec::new(),
        };
        rule.from.push(alternative(index, clauses));
    }
    for (index, entry) in spec.to.iter().enumerate() {
        let clauses = match &entry.value {
            Some(operation) => builder.operation(operation)?,
            None => Vec::new(),
        };
        rule.to.push(alternative(index, clauses));
    }
    for (index, condition) in spec.when.iter().enumerate() {
        let Some(key) = Key::parse(&condition.key.value) else {
            return Err(format!(
                "istiod does not know the key `{}` and skips the whole rule",
                condition.key.value
            ));
        };
        for (values, negated) in [(&condition.values, false), (&condition.not_values, true)] {
            let field = Field {
                name: &condition.key.value,
                when_index: Some(index),
                negated,
            };
            builder.push(&mut rule.when, field, values, |v| {
                builder.condition(&key, v)
            })?;
        }
    }
    Ok(rule)
}

/// Reads a fact as user policies name it: `KEY: VALUE`, KEY being a key of `when`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn fact(text: &str) -> Result<Matcher, String> {
    let shape = || format!("`{text}` is not a fact of the form `KEY: VALUE`");
    // Names in brackets may hold a colon, so the key ends behind the bracket where there is one.
    let end = match text.find('[') {
        Some(open) if text.get(..open).is_some_and(|key| !key.contains(": ")) => {
            text.find("]: ").map(|at| at.saturating_add(1))
        }
        _ => text.find(": "),
    };
    let (key, value) = end
        .and_then(|at| text.split_at_checked(at))
        .ok_or_else(shape)?;
    let value = value.strip_prefix(": ").ok_or_else(shape)?;
    let parsed = Key::parse(key).ok_or_else(|| format!("`{key}` is no key of `when`"))?;
    if parsed == Key::ServiceAccount && !value.contains('/') {
        return Err(format!(
            "write the service account of `{text}` as `namespace/name`"
        ));
    }
    let mesh = Mesh::default();
    let builder = Builder {
        role: &Role::Allow,
        dialect: Dialect::Http,
        mesh: &mesh,
        policy_namespace: "",
    };
    let matchers = match parsed {
        // Written as it is compared: no trust domain is migrated in user policies.
        Key::Principal => {
            vec![Matcher::Identity(
                IdentityField::Principal,
                Pattern::principal(value),
            )]
        }
        Key::TrustDomain => {
            vec![Matcher::Identity(
                IdentityField::TrustDomain,
                Pattern::trust_domain(value),
            )]
        }
        other => builder.condition(&other, value)?,
    };
    matchers.into_iter().next().ok_or_else(shape)
}

fn alternative(index: usize, clauses: Vec<Clause>) -> Alternative {
    Alternative {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        clauses,
        never: false,
    }
}

#[derive(Clone, Copy)]
struct Field<'a> {
    name: &'a str,
    when_index: Option<usize>,
    negated: bool,
}

const fn field(name: &str, negated: bool) -> Field<'_> {
    Field {
        name,
        when_index: None,
        negated,
    }
}

impl Builder<'_> {
    /// Adds the clause for one field. Refused values end the rule in an ALLOW; elsewhere they fall
    /// away, and a clause that lost every value falls away too.
    fn push(
        &self,
        clauses: &mut Vec<Clause>,
        field: Field<'_>,
        values: &Values,
        matcher: impl Fn(&str) -> Result<Vec<Matcher>, Refused>,
    ) -> Result<(), String> {
        let mut any = Vec::with_capacity(values.len());
        for value in values {
            match matcher(&value.value) {
                Ok(mut matchers) => any.append(&mut matchers),
                Err(why) if *self.role == Role::Allow => return Err(why),
                Err(_) => {}
            }
        }
        if let (false, Some(first)) = (any.is_empty(), values.first()) {
            clauses.push(Clause {
                field: Arc::from(field.name),
                when_index: field
                    .when_index
                    .map(|i| u32::try_from(i).unwrap_or(u32::MAX)),
                negated: field.negated,
                any,
                at: first.at.clone(),
            });
        }
        Ok(())
    }

    fn source(&self, s: &SourceMatch) -> Result<Vec<Clause>, String> {
        let mut clauses = Vec::new();
        let c = &mut clauses;
        let identity: [(&str, &Values, bool, Key); 8] = [
            ("principals", &s.principals, false, Key::Principal),
            ("notPrincipals", &s.not_principals, true, Key::Principal),
            ("namespaces", &s.namespaces, false, Key::Namespace),
            ("notNamespaces", &s.not_namespaces, true, Key::Namespace),
            (
                "serviceAccounts",
                &s.service_accounts,
                false,
                Key::ServiceAccount,
            ),
            (
                "notServiceAccounts",
                &s.not_service_accounts,
                true,
                Key::ServiceAccount,
            ),
            ("trustDomains", &s.trust_domains, false, Key::TrustDomain),
            (
                "notTrustDomains",
                &s.not_trust_domains,
                true,
                Key::TrustDomain,
            ),
        ];
        let rest: [(&str, &Values, bool, Key); 6] = [
            ("ipBlocks", &s.ip_blocks, false, Key::SourceIp),
            ("notIpBlocks", &s.not_ip_blocks, true, Key::SourceIp),
            ("remoteIpBlocks", &s.remote_ip_blocks, false, Key::RemoteIp),
            (
                "notRemoteIpBlocks",
                &s.not_remote_ip_blocks,
                true,
                Key::RemoteIp,
            ),
            (
                "requestPrincipals",
                &s.request_principals,
                false,
                Key::RequestPrincipal,
            ),
            (
                "notRequestPrincipals",
                &s.not_request_principals,
                true,
                Key::RequestPrincipal,
            ),
        ];
        for (name, values, negated, key) in identity.iter().chain(&rest) {
            self.push(c, field(name, *negated), values, |v| {
                self.condition(key, v).map_err(|why| match key {
                    Key::RequestPrincipal if self.dialect == Dialect::Tcp => http_only(name),
                    _ => why,
                })
            })?;
        }
        Ok(clauses)
    }

    fn operation(&self, o: &OperationMatch) -> Result<Vec<Clause>, String> {
        type Read = fn(&str) -> Result<Matcher, Refused>;
        let mut clauses = Vec::new();
        let http: [(&str, &Values, bool, Read); 6] = [
            ("hosts", &o.hosts, false, host),
            ("notHosts", &o.not_hosts, true, host),
            ("methods", &o.methods, false, method),
            ("notMethods", &o.not_methods, true, method),
            ("paths", &o.paths, false, path),
            ("notPaths", &o.not_paths, true, path),
        ];
        for (name, values, negated, read) in http {
            self.push(&mut clauses, field(name, negated), values, |v| {
                match self.dialect {
                    Dialect::Tcp => Err(http_only(name)),
                    _ => read(v).map(|m| vec![m]),
                }
            })?;
        }
        for (name, values, negated) in
            [("ports", &o.ports, false), ("notPorts", &o.not_ports, true)]
        {
            self.push(&mut clauses, field(name, negated), values, |v| {
                self.condition(&Key::DestinationPort, v)
            })?;
        }
        Ok(clauses)
    }

    fn condition(&self, key: &Key, value: &str) -> Result<Vec<Matcher>, Refused> {
        let http = self.dialect != Dialect::Tcp;
        let one = |m: Matcher| Ok(vec![m]);
        match key {
            Key::Principal => Ok(self
                .mesh
                .expand_principals(&[value.to_owned()])
                .iter()
                .map(|v| Matcher::Identity(IdentityField::Principal, Pattern::principal(v)))
                .collect()),
            Key::TrustDomain => Ok(self
                .mesh
                .expand_trust_domains(&[value.to_owned()])
                .iter()
                .map(|v| Matcher::Identity(IdentityField::TrustDomain, Pattern::trust_domain(v)))
                .collect()),
            Key::Namespace => one(Matcher::Identity(
                IdentityField::Namespace,
                Pattern::namespace(value),
            )),
            Key::ServiceAccount => one(Matcher::Identity(
                IdentityField::ServiceAccount,
                Pattern::service_account(value, self.policy_namespace),
            )),
            Key::SourceIp => one(Matcher::SourceIp(cidr(value)?)),
            Key::RemoteIp => one(Matcher::RemoteIp(cidr(value)?)),
            Key::DestinationIp => one(Matcher::DestinationIp(cidr(value)?)),
            Key::DestinationPort => one(Matcher::DestinationPort(port(value)?)),
            Key::Sni => one(Matcher::Sni(Pattern::string(value))),
            Key::RequestPrincipal if http => {
                one(Matcher::RequestPrincipal(request_principal(value)))
            }
            Key::Claim(Some(path)) if http => {
                one(Matcher::Claim(path.clone(), Pattern::string(value)))
            }
            Key::Header(Some(name)) if http => {
                one(Matcher::Header(name.clone(), Pattern::header(value)))
            }
            Key::Metadata(Some((filter, key))) => {
                let list = value.starts_with('[') && value.ends_with(']');
                let value = if list {
                    value.trim_matches(['[', ']'])
                } else {
                    value
                };
                one(Matcher::Metadata {
                    filter: Arc::clone(filter),
                    key: Arc::clone(key),
                    list,
                    value: Pattern::string(value),
                })
            }
            Key::RequestPrincipal => Err(http_only("request.auth.principal")),
            Key::Claim(Some(_)) => Err(http_only("request.auth.claims")),
            Key::Header(Some(_)) => Err(http_only("request.headers")),
            Key::Claim(None) | Key::Header(None) | Key::Metadata(None) => {
                Err("the key has no name in brackets".to_owned())
            }
        }
    }
}

fn host(value: &str) -> Result<Matcher, Refused> {
    Ok(Matcher::Host(Pattern::host(&value.to_ascii_lowercase())))
}

fn method(value: &str) -> Result<Matcher, Refused> {
    Ok(Matcher::Method(Pattern::header(value)))
}

fn path(value: &str) -> Result<Matcher, Refused> {
    if PathTemplate::is_template(value) {
        // A template that Envoy refuses is an error long before this; one that bypassed the webhook
        // is read leniently, and one that not even Envoy could load is treated as a bad value.
        return PathTemplate::parse_unchecked(value)
            .map(|t| Matcher::Template(Arc::new(t)))
            .map_err(|e| e.to_string());
    }
    Ok(Matcher::Path(Pattern::string(value)))
}

fn cidr(value: &str) -> Result<Cidr, Refused> {
    Cidr::parse(value).map_err(|e| e.to_string())
}

/// Go's ParseUint: digits only, leading zeros welcome.
pub(super) fn port(value: &str) -> Result<u16, Refused> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| value.trim_start_matches('0'))
        .and_then(|v| {
            if v.is_empty() {
                Some(0)
            } else {
                v.parse().ok()
            }
        })
        .ok_or_else(|| format!("`{value}` is not a port"))
}

/// Splits at the last `/`, since an issuer may be a URL; where a star leads, the other half is
/// literal (policy.md 1.15.6).
fn request_principal(value: &str) -> RequestPrincipal {
    let (issuer, subject, split) = match value.rsplit_once('/') {
        Some((issuer, subject)) => (issuer, subject, true),
        None => (value, "", false),
    };
    let any = || Pattern::string("*");
    let (issuer, subject) = if value == "*" {
        (any(), any())
    } else if value.starts_with('*') {
        // `*` and `*x` keep their meaning in the issuer; what follows the slash is literal.
        if split {
            (Pattern::string(issuer), Pattern::exact(subject))
        } else {
            (any(), Pattern::string(value))
        }
    } else if let Some(rest) = value.strip_suffix('*') {
        if split {
            let subject = match subject.strip_suffix('*') {
                Some("") | None => any(),
                Some(start) => Pattern::prefix(start),
            };
            (Pattern::exact(issuer), subject)
        } else {
            (Pattern::prefix(rest), any())
        }
    } else {
        (Pattern::exact(issuer), Pattern::exact(subject))
    };
    RequestPrincipal {
        text: Arc::from(value),
        issuer,
        subject,
    }
}
