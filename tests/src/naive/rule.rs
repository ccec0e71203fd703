//! One rule against one request, for everything that is an Envoy (policy.md 1.3, 1.4, 1.7).

use serde_json::Value;

use super::{Facts, Http, World, address, claims, identity, template, text, token};

/// Headers of which Envoy keeps one value, repeats joined by commas (policy.md 1.15.1).
pub const INLINE: [&str; 23] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-type",
    "expect",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-external-address",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// The value does not exist here: unreadable, or an HTTP field on TCP.
pub type Unusable = ();

/// Whether the rule exists for this protocol and matches. In ALLOW one unusable value drops the
/// whole rule; elsewhere only the value is dropped, and the rule becomes wider.
#[must_use]
pub fn matches(rule: &Value, home: &str, action: &str, world: &World, facts: &Facts) -> bool {
    if rule.is_null() {
        return false;
    }
    let context = Context {
        home,
        strict: action == "ALLOW",
        world,
        facts,
    };
    context.rule(rule).unwrap_or(false)
}

struct Context<'a> {
    home: &'a str,
    strict: bool,
    world: &'a World,
    facts: &'a Facts,
}

impl Context<'_> {
    fn rule(&self, rule: &Value) -> Result<bool, Unusable> {
        let from = self.any(&rule["from"], |entry| self.source(&entry["source"]))?;
        let to = self.any(&rule["to"], |entry| self.operation(&entry["operation"]))?;
        let mut when = true;
        for condition in rule["when"].as_array().into_iter().flatten() {
            when &= self.condition(condition)?;
        }
        Ok(from && to && when)
    }

    /// ORs the entries; absent or empty is any. Every entry is looked at: one that is unusable
    /// drops the rule even where another matches.
    fn any(
        &self,
        entries: &Value,
        matches: impl Fn(&Value) -> Result<bool, Unusable>,
    ) -> Result<bool, Unusable> {
        let entries = entries.as_array().cloned().unwrap_or_default();
        let mut any = entries.is_empty();
        for entry in &entries {
            any |= matches(entry)?;
        }
        Ok(any)
    }

    /// A field and its not-form: values ORed, not-values NORed, unusable values dropped.
    fn field(
        &self,
        values: &Value,
        not_values: &Value,
        matches: impl Fn(&str) -> Result<bool, Unusable>,
    ) -> Result<bool, Unusable> {
        let one_of = |values: &Value| {
            let mut found = None;
            for value in strings(values) {
                match matches(&value) {
                    Ok(hit) => found = Some(found.unwrap_or(false) || hit),
                    Err(()) if self.strict => return Err(()),
                    Err(()) => {}
                }
            }
            Ok(found)
        };
        let positive = one_of(values)?.unwrap_or(true);
        let negative = one_of(not_values)?.unwrap_or(false);
        Ok(positive && !negative)
    }

    fn source(&self, source: &Value) -> Result<bool, Unusable> {
        let mesh = &self.world.mesh;
        let mut all = true;
        let mut field = |name: &str, matches: &dyn Fn(&str) -> Result<bool, Unusable>| {
            let mut letters = name.chars();
            let head: String = letters.by_ref().take(1).collect();
            let not = format!("not{}{}", head.to_uppercase(), letters.as_str());
            all &= self.field(&source[name], &source[not.as_str()], matches)?;
            Ok(())
        };
        field("principals", &|value| {
            Ok(self.named(|name| identity::principal(value, mesh, name)))
        })?;
        field("namespaces", &|value| {
            Ok(self.named(|name| identity::namespace(value, name)))
        })?;
        field("serviceAccounts", &|value| {
            Ok(self.named(|name| identity::service_account(value, self.home, name)))
        })?;
        field("trustDomains", &|value| {
            Ok(self.named(|name| identity::trust_domain(value, mesh, name)))
        })?;
        field("requestPrincipals", &|value| {
            self.http()?;
            Ok(claims::request_principal(value, self.payload().as_ref()))
        })?;
        field("ipBlocks", &|value| {
            address::in_block(value, self.facts.source_ip)
        })?;
        field("remoteIpBlocks", &|value| {
            address::in_block(value, self.facts.remote_ip)
        })?;
        Ok(all)
    }

    fn operation(&self, operation: &Value) -> Result<bool, Unusable> {
        let field = |name: &str, not: &str, matches: &dyn Fn(&str) -> Result<bool, Unusable>| {
            self.field(&operation[name], &operation[not], matches)
        };
        let hosts = field("hosts", "notHosts", &|value| {
            Ok(text::host_match(value, &self.http()?.host))
        })?;
        let methods = field("methods", "notMethods", &|value| {
            Ok(text::header_match(value, &self.http()?.method))
        })?;
        let paths = field("paths", "notPaths", &|value| {
            let path = self.http()?.path.split(['?', '#']).next().unwrap_or("");
            Ok(if template::is_template(value) {
                template::matches(value, path)
            } else {
                text::string_match(value, path)
            })
        })?;
        let ports = field("ports", "notPorts", &|value| self.port(value))?;
        Ok(hosts && methods && paths && ports)
    }

    fn condition(&self, condition: &Value) -> Result<bool, Unusable> {
        let mesh = &self.world.mesh;
        let key = condition["key"].as_str().unwrap_or("");
        // an unknown key drops the rule under every action
        if !known(key) {
            return Err(());
        }
        let claim = |value: &str, names: Result<Vec<String>, Unusable>| {
            self.http()?;
            Ok(claims::claim(value, &names?, self.payload().as_ref()))
        };
        self.field(
            &condition["values"],
            &condition["notValues"],
            |value| match key {
                "source.ip" => address::in_block(value, self.facts.source_ip),
                "remote.ip" => address::in_block(value, self.facts.remote_ip),
                "destination.ip" => address::in_block(value, self.facts.destination_ip),
                "destination.port" => self.port(value),
                "connection.sni" => Ok(text::string_match(
                    value,
                    self.facts.sni.as_deref().unwrap_or(""),
                )),
                "source.principal" => Ok(self.named(|name| identity::principal(value, mesh, name))),
                "source.namespace" => Ok(self.named(|name| identity::namespace(value, name))),
                "source.serviceAccount" => {
                    Ok(self.named(|name| identity::service_account(value, self.home, name)))
                }
                "source.trustDomain" => {
                    Ok(self.named(|name| identity::trust_domain(value, mesh, name)))
                }
                "request.auth.principal" => {
                    self.http()?;
                    Ok(claims::request_principal(value, self.payload().as_ref()))
                }
                "request.auth.audiences" => claim(value, Ok(vec!["aud".to_owned()])),
                "request.auth.presenter" => claim(value, Ok(vec!["azp".to_owned()])),
                _ => {
                    if let Some(rest) = key.strip_prefix("request.headers") {
                        let http = self.http()?;
                        let name = claims::bracketed_name(rest)?.to_ascii_lowercase();
                        let held = self.header(http, &name);
                        return Ok(held.iter().any(|held| text::header_match(value, held)));
                    }
                    if let Some(rest) = key.strip_prefix("request.auth.claims") {
                        return claim(value, claims::bracketed_names(rest));
                    }
                    claims::filter_metadata(key, value, &self.facts.metadata)
                }
            },
        )
    }

    fn http(&self) -> Result<&Http, Unusable> {
        self.facts.http.as_ref().ok_or(())
    }

    fn named(&self, matches: impl Fn(&str) -> bool) -> bool {
        identity::names(self.world, self.facts)
            .iter()
            .any(|name| matches(name))
    }

    fn port(&self, value: &str) -> Result<bool, Unusable> {
        Ok(Some(address::port(value)?) == self.facts.destination_port)
    }

    fn payload(&self) -> Option<Value> {
        let payload = self.facts.jwt.as_ref()?;
        let more = token::space_delimited(self.world, payload);
        Some(claims::split_at_spaces(payload, &more))
    }

    /// The values of a header, each of which is tried alone.
    fn header(&self, http: &Http, name: &str) -> Vec<String> {
        match name {
            ":method" => return vec![http.method.clone()],
            ":path" => return vec![http.path.clone()],
            ":authority" | "host" => return vec![http.host.clone()],
            ":scheme" => {
                let scheme = if self.facts.tls { "https" } else { "http" };
                return vec![scheme.to_owned()];
            }
            _ => {}
        }
        let values: Vec<String> = http
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim_matches([' ', '\t']).to_owned())
            .collect();
        if INLINE.contains(&name) && values.len() > 1 {
            // an empty repeat adds nothing, not even a comma
            let values: Vec<String> = values.into_iter().filter(|v| !v.is_empty()).collect();
            return vec![values.join(",")];
        }
        values
    }
}

fn known(key: &str) -> bool {
    [
        "source.ip",
        "remote.ip",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "source.principal",
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
    ]
    .contains(&key)
        || [
            "request.headers",
            "request.auth.claims",
            "experimental.envoy.filters.",
        ]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// The strings of a list; anything else in it could not have been decoded.
#[must_use]
pub fn strings(values: &Value) -> Vec<String> {
    let values = values.as_array().into_iter().flatten();
    values
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}
