//! The context of a Cedar request, built directly as values.
//!
//! *Lean* holds exactly what the candidates read, under flat names; *full* holds everything the schema names. Deciding
//! by either must come to the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy_core::ast::{
    Context, Eid, Entity, EntityType, EntityUID, Expr, Literal, Name, PartialValue, Value,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::RestrictedEvaluator;
use cedar_policy_core::extensions::{Extensions, ipaddr};
use smol_str::SmolStr;

use super::fact::FactSet;
use super::program::{Attributes, FactTest};
use crate::facts::Facts;
use crate::request::{RemoteAddress, Target};
use crate::resource::Workload;

/// Texts of the facts that hold, by set.
#[derive(Debug, Default)]
pub struct FactTexts {
    facts: Vec<SmolStr>,
    possible: Vec<SmolStr>,
    templates: Vec<SmolStr>,
    lists: Vec<SmolStr>,
}

impl FactTexts {
    /// Notes whether a fact that was asked for holds.
    pub fn note(&mut self, test: &FactTest, holds: bool) {
        let list = match test.set {
            FactSet::Facts => &mut self.facts,
            FactSet::Possible => &mut self.possible,
            FactSet::Templates => &mut self.templates,
            FactSet::Lists => &mut self.lists,
        };
        if holds {
            list.push(test.text.clone());
        }
    }

    /// Notes that a token is there and nobody verified it.
    pub fn note_unverified_token(&mut self) {
        self.facts
            .push(SmolStr::new_static(super::fact::UNVERIFIED_TOKEN));
    }
}

type Record = BTreeMap<SmolStr, Value>;

fn set(texts: &[SmolStr]) -> Value {
    Value::set_of_lits(texts.iter().map(|t| Literal::String(t.clone())), None)
}

fn strings<'s>(texts: impl IntoIterator<Item = &'s str>) -> Value {
    Value::set_of_lits(
        texts.into_iter().map(|t| Literal::String(SmolStr::from(t))),
        None,
    )
}

fn string(text: &str) -> Value {
    Value::from(Literal::String(SmolStr::from(text)))
}

fn record(fields: Record) -> Value {
    Value::record_arc(Arc::new(fields), None)
}

fn put(record: &mut Record, key: &'static str, value: Value) {
    record.insert(SmolStr::new_static(key), value);
}

/// The lean context: `attributes`, and whether each fact in `noted` holds; flat, as programs read it.
#[must_use]
pub fn lean(facts: &Facts<'_>, attributes: Attributes, noted: &[(SmolStr, bool)]) -> Context {
    let mut context: Record = noted
        .iter()
        .map(|(attr, holds)| (attr.clone(), Value::from(*holds)))
        .collect();
    if attributes.has(Attributes::IDENTITIES) {
        let identities = strings(facts.identities.iter().copied());
        put(&mut context, "source.identities", identities);
    }
    if attributes.has(Attributes::CERTIFICATE) {
        let certificate = Value::from(facts.peer_certificate());
        put(&mut context, "source.certificate", certificate);
    }
    if attributes.has(Attributes::SNI) {
        put(&mut context, "connection.sni", string(&facts.sni));
    }
    if let Some(http) = &facts.http {
        if attributes.has(Attributes::METHOD) {
            put(&mut context, "http.method", string(http.method()));
        }
        if attributes.has(Attributes::PATH) {
            put(&mut context, "http.path", string(http.url_path()));
        }
        if attributes.has(Attributes::HOST) {
            put(&mut context, "http.host", string(http.host()));
        }
    }
    Context::Value(Arc::new(context))
}

/// The full context, `texts` holding every fact that any policy in reach names. The entities it
/// refers to are [`entities`].
#[must_use]
pub fn full(facts: &Facts<'_>, target: Target, uids: &Uids, texts: &FactTexts) -> Context {
    let request = facts.request;
    let mut context = Record::new();

    let mut source = Record::new();
    put(
        &mut source,
        "identities",
        strings(facts.identities.iter().copied()),
    );
    put(
        &mut source,
        "certificate",
        Value::from(facts.peer_certificate()),
    );
    put_ip(&mut source, request.source.address);
    put(&mut context, "source", record(source));

    let mut remote = Record::new();
    if let RemoteAddress::Known(address) = request.remote {
        put_ip(&mut remote, Some(address));
    }
    put(&mut context, "remote", record(remote));

    let mut destination = Record::new();
    put_ip(&mut destination, request.destination.address);
    if let Some(port) = request.destination.port {
        put(&mut destination, "port", Value::from(i64::from(port)));
    }
    put(&mut context, "destination", record(destination));

    let mut connection = Record::new();
    put(&mut connection, "target", string(target.as_str()));
    put(&mut connection, "sni", string(&facts.sni));
    put(&mut context, "connection", record(connection));

    if let Some(h) = facts.http.as_ref().filter(|_| target != Target::Ztunnel) {
        let mut http = Record::new();
        put(&mut http, "method", string(h.method()));
        put(&mut http, "path", string(h.url_path()));
        if let Some((_, query)) = h.path().split_once('?') {
            put(&mut http, "query", string(query));
        }
        put(&mut http, "host", string(h.host()));
        put(&mut http, "scheme", string(h.scheme()));
        put(&mut http, "headers", Value::from(uids.headers.clone()));
        put(&mut http, "templates", set(&texts.templates));
        put(&mut context, "http", record(http));
        if let Some(payload) = &request.jwt {
            put(&mut context, "jwt", record(jwt(payload, uids)));
        }
    }
    put(&mut context, "facts", set(&texts.facts));
    put(&mut context, "possible", set(&texts.possible));
    put(&mut context, "lists", set(&texts.lists));
    Context::Value(Arc::new(context))
}

fn jwt(payload: &serde_json::Value, uids: &Uids) -> Record {
    let mut jwt = Record::new();
    for (key, claim) in [("issuer", "iss"), ("subject", "sub")] {
        if let Some(text) = payload.get(claim).and_then(serde_json::Value::as_str) {
            put(&mut jwt, key, string(text));
        }
    }
    put(
        &mut jwt,
        "audiences",
        strings(claim_strings(payload.get("aud"))),
    );
    put(&mut jwt, "claims", Value::from(uids.claims.clone()));
    jwt
}

/// The strings of a claim: itself, or those in its list.
fn claim_strings(value: Option<&serde_json::Value>) -> Vec<&str> {
    match value {
        Some(serde_json::Value::String(s)) => vec![s.as_str()],
        Some(serde_json::Value::Array(items)) => items.iter().filter_map(|i| i.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn put_ip(fields: &mut Record, address: Option<IpAddr>) {
    let extensions = Extensions::all_available();
    let value = address.and_then(|address| {
        let name = Name::parse_unqualified_name("ip").ok()?;
        let call = Expr::call_extension_fn(name, vec![Expr::val(address.to_string())]);
        let call = cedar_policy_core::ast::RestrictedExpr::new(call).ok()?;
        RestrictedEvaluator::new(extensions)
            .interpret(call.as_borrowed())
            .ok()
    });
    if let Some(value) = value {
        put(fields, "ip", value);
    }
}

/// The entities that the full context and user policies refer to: the peer, the destination with its
/// labels and memberships, the request's headers and the token's claims.
#[must_use]
pub fn entities(facts: &Facts<'_>, uids: &Uids, resource: &Resource<'_>) -> Entities {
    let mut all = vec![principal(facts, uids), resource.entity(uids)];
    if let Some(h) = &facts.http {
        let mut names: BTreeSet<&str> = h
            .request()
            .headers
            .entries
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.extend([":method", ":path", ":authority", ":scheme"]);
        let tags = names.into_iter().map(|name| {
            let values = facts.header(name);
            (
                SmolStr::from(name),
                PartialValue::from(strings(values.iter().map(AsRef::as_ref))),
            )
        });
        all.push(tagged(&uids.headers, tags));
        if let Some(payload) = &facts.request.jwt {
            let mut claims = BTreeMap::new();
            collect_claims("", payload, &mut claims, 0);
            let tags = claims.into_iter().map(|(k, v)| (k, PartialValue::from(v)));
            all.push(tagged(&uids.claims, tags));
        }
    }
    Entities::from_entities(
        all,
        None::<&NoEntitiesSchema>,
        TCComputation::AssumeAlreadyComputed,
        Extensions::all_available(),
    )
    .unwrap_or_default()
}

fn tagged(uid: &EntityUID, tags: impl IntoIterator<Item = (SmolStr, PartialValue)>) -> Entity {
    Entity::new_with_attr_partial_value(uid.clone(), [], HashSet::new(), HashSet::new(), tags)
}

/// `a`, nested `a[b]`; only claims that hold strings.
fn collect_claims(
    prefix: &str,
    value: &serde_json::Value,
    out: &mut BTreeMap<SmolStr, Value>,
    depth: usize,
) {
    const DEEPEST: usize = 8;
    let Some(fields) = value.as_object().filter(|_| depth < DEEPEST) else {
        return;
    };
    for (key, value) in fields {
        let name = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}[{key}]")
        };
        let texts = claim_strings(Some(value));
        if !texts.is_empty() {
            out.insert(SmolStr::from(name.as_str()), strings(texts));
        }
        collect_claims(&name, value, out, depth.saturating_add(1));
    }
}

fn principal(facts: &Facts<'_>, uids: &Uids) -> Entity {
    let id = facts.identities.first().copied().unwrap_or_default();
    let mut attributes: Vec<(&'static str, &str)> = Vec::new();
    let mut parents = HashSet::new();
    if let Some(rest) = id.strip_prefix("spiffe://") {
        attributes.push(("spiffeId", id));
        let (trust_domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        attributes.push(("trustDomain", trust_domain));
        if let Some((namespace, account)) =
            path.strip_prefix("ns/").and_then(|p| p.split_once("/sa/"))
            && !namespace.contains('/')
            && !account.contains('/')
        {
            attributes.push(("namespace", namespace));
            attributes.push(("serviceAccount", account));
            parents.insert(uids.namespace(namespace));
        }
    }
    Entity::new_with_attr_partial_value(
        uids.workload(id),
        attributes
            .into_iter()
            .map(|(k, v)| (SmolStr::new_static(k), PartialValue::from(string(v)))),
        HashSet::new(),
        parents,
        [],
    )
}

/// The destination as a Cedar resource.
#[derive(Debug)]
pub struct Resource<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// Ids of the attachments it belongs to.
    pub attachments: Vec<String>,
}

impl Resource<'_> {
    /// `namespace/name`.
    #[must_use]
    pub fn uid(&self, uids: &Uids) -> EntityUID {
        uids.workload(&format!(
            "{}/{}",
            self.workload.namespace, self.workload.name
        ))
    }

    fn entity(&self, uids: &Uids) -> Entity {
        let attributes = [
            ("name", &self.workload.name),
            ("namespace", &self.workload.namespace),
            ("serviceAccount", &self.workload.service_account),
        ];
        let mut parents: HashSet<EntityUID> = self
            .attachments
            .iter()
            .map(|a| uids.attachment(a))
            .collect();
        parents.insert(uids.namespace(&self.workload.namespace));
        let labels = self.workload.labels.iter();
        Entity::new_with_attr_partial_value(
            self.uid(uids),
            attributes.map(|(k, v)| (SmolStr::new_static(k), PartialValue::from(string(v)))),
            HashSet::new(),
            parents,
            labels.map(|(k, v)| (SmolStr::from(k.as_str()), PartialValue::from(string(v)))),
        )
    }
}

/// Entity types and fixed entities of the schema, made once per snapshot.
#[derive(Clone, Debug)]
pub struct Uids {
    workload: EntityType,
    namespace: EntityType,
    attachment: EntityType,
    /// `Action::"http"`.
    pub http: EntityUID,
    /// `Action::"connect"`.
    pub connect: EntityUID,
    /// `Workload::""`: a peer without identity, and whatever no policy reads.
    pub anonymous: EntityUID,
    headers: EntityUID,
    claims: EntityUID,
}

impl Default for Uids {
    fn default() -> Self {
        let ty = |name| {
            let parsed = Name::parse_unqualified_name(name);
            // Never: these are names. Any other type would hold for no policy.
            EntityType::from(parsed.unwrap_or_else(|_| ipaddr::extension().name().clone()))
        };
        let uid = |name, id: &str| EntityUID::from_components(ty(name), Eid::new(id), None);
        Self {
            workload: ty("Workload"),
            namespace: ty("Namespace"),
            attachment: ty("Attachment"),
            http: uid("Action", "http"),
            connect: uid("Action", "connect"),
            anonymous: uid("Workload", ""),
            headers: uid("Headers", "request"),
            claims: uid("Claims", "request"),
        }
    }
}

impl Uids {
    /// `Workload::"id"`.
    #[must_use]
    pub fn workload(&self, id: &str) -> EntityUID {
        EntityUID::from_components(self.workload.clone(), Eid::new(id), None)
    }

    /// `Namespace::"id"`.
    #[must_use]
    pub fn namespace(&self, id: &str) -> EntityUID {
        EntityUID::from_components(self.namespace.clone(), Eid::new(id), None)
    }

    /// `Attachment::"id"`.
    #[must_use]
    pub fn attachment(&self, id: &str) -> EntityUID {
        EntityUID::from_components(self.attachment.clone(), Eid::new(id), None)
    }
}
