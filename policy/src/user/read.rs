//! Cedar text to user policies, or diagnostics.

use std::sync::Arc;

use cedar_policy_core::ast::{
    self, ActionConstraint, BinaryOp, Effect, EntityReference, Expr, ExprKind, Literal,
    PrincipalOrResourceConstraint, Var,
};
use cedar_policy_core::parser;

use super::source::{Source, too_deep};
use super::{Attachment, Reach, UserPolicy};
use crate::cedar::fact::FactSet;
use crate::cedar::program::FactTest;
use crate::cedar::schema;
use crate::diagnostic::code::Code;
use crate::diagnostic::{Diagnostic, code};
use crate::document::Excerpt;
use crate::lower;
use crate::model::{Dialect, Matcher, Role, Rule, RuleId};
use crate::path::template::PathTemplate;
use crate::reads::{self, Reads};
use crate::resource::{CedarFile, CedarPolicy};
use smol_str::SmolStr;

/// Reads every policy of a file. `root_namespace` is where policies without `@namespace` live.
#[must_use]
pub fn read(file: &CedarFile, root_namespace: &str) -> (Vec<UserPolicy>, Vec<Diagnostic>) {
    read_source(&Source::of_file(file, root_namespace))
}

/// Reads every policy of a manifest; they live in its namespace.
#[must_use]
pub fn read_manifest(
    policy: &CedarPolicy,
    root_namespace: &str,
) -> (Vec<UserPolicy>, Vec<Diagnostic>) {
    let source = Source::of_manifest(policy, root_namespace);
    let (policies, mut diagnostics) = read_source(&source);
    if policies.is_empty() && diagnostics.is_empty() && !source.text.is_empty() {
        let message = "the text holds no policy: it selects workloads and changes nothing for them";
        let hint = "write a policy, or delete the object";
        diagnostics.push(
            source
                .report(&code::CEDAR_EMPTY, 0, message)
                .with_hint(hint),
        );
    }
    (policies, diagnostics)
}

fn read_source(source: &Source<'_>) -> (Vec<UserPolicy>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    if let Some(offset) = too_deep(source.text) {
        let message = "the policy is nested too deep, or its chain of operators is too long";
        let hint = "split it into several policies";
        let found = source.report(&code::CEDAR_SYNTAX, offset, message);
        return (Vec::new(), vec![found.with_hint(hint)]);
    }
    let set = match parser::parse_policyset(source.text) {
        Ok(set) => set,
        Err(errors) => {
            for error in errors.iter() {
                let at = miette::Diagnostic::labels(error).and_then(|mut l| l.next());
                let offset = at.map_or(0, |l| l.offset());
                let message = error.to_string().replace('\n', " ");
                diagnostics.push(source.report(&code::CEDAR_SYNTAX, offset, message));
            }
            return (Vec::new(), diagnostics);
        }
    };
    let attachment = source
        .manifest()
        .map(|policy| Arc::new(Attachment::of(policy)));
    let mut templates: Vec<&ast::Template> = set.all_templates().collect();
    templates.sort_by_key(|t| t.loc().map_or(0, |l| l.start()));
    let mut policies = Vec::new();
    for (index, template) in templates.into_iter().enumerate() {
        let reader = Reader {
            source,
            attachment: attachment.as_ref(),
            template,
            index,
        };
        match reader.policy() {
            Ok((policy, warnings)) => {
                diagnostics.extend(warnings);
                policies.push(policy);
            }
            Err(errors) => diagnostics.extend(errors),
        }
    }
    (policies, diagnostics)
}

struct Reader<'f> {
    source: &'f Source<'f>,
    /// What the manifest says for all of its policies.
    attachment: Option<&'f Arc<Attachment>>,
    template: &'f ast::Template,
    index: usize,
}

impl Reader<'_> {
    fn offset(&self) -> usize {
        self.template.loc().map_or(0, |l| l.start())
    }

    /// A diagnostic about the policy.
    fn report(&self, code: &Code, message: impl Into<String>) -> Diagnostic {
        self.source.report(code, self.offset(), message)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.template
            .annotations()
            .find(|(k, _)| k.as_ref() == key)
            .map(|(_, v)| v.val.as_str())
    }

    fn policy(&self) -> Result<(UserPolicy, Vec<Diagnostic>), Vec<Diagnostic>> {
        if self.template.slots().next().is_some() {
            let message = "a template cannot be used: it has slots that nothing fills";
            return Err(vec![self.report(&code::CEDAR_TEMPLATE, message)]);
        }
        let mut errors = self.annotations();
        let name = self.source.name(self.annotation("id"), self.index);
        let namespace = self
            .annotation("namespace")
            .or(self.source.namespace())
            .filter(|n| *n != self.source.root_namespace);
        let own = self.selector().unwrap_or_else(|e| {
            errors.push(*e);
            Vec::new()
        });
        let reach = self.reach().unwrap_or_else(|e| {
            errors.push(*e);
            Reach::Mesh
        });
        let facts = self.facts(&mut errors);
        let conditions = self.template.non_scope_constraints();
        let reads = facts.iter().flat_map(FactTest::matchers).fold(
            conditions.map_or(Reads::NONE, Reads::of_expr),
            |reads, matcher| reads.and(Reads::of_matcher(matcher)),
        );
        let headers = facts.iter().flat_map(FactTest::matchers).fold(
            conditions.map_or(Some(Vec::new()), reads::header_names),
            |names, matcher| match matcher {
                Matcher::Header(name, _) => names.map(|mut names| {
                    names.push(SmolStr::from(name.0.as_ref()));
                    names
                }),
                _ => names,
            },
        );
        // Targets are met or not before Cedar is asked; the proxy that is a target need not live in the
        // policy's namespace.
        let targeted = self.attachment.and_then(|a| a.entity());
        let confined = namespace.filter(|_| targeted.is_none());
        let mut selector: Vec<_> = self.attachment.iter().flat_map(|a| a.labels()).collect();
        for label in own {
            if !selector.contains(&label) {
                selector.push(label);
            }
        }
        let text = self.text(confined, targeted.as_deref(), &selector);
        errors.extend(self.check(&name, &text));
        if !errors.is_empty() {
            return Err(errors);
        }
        let warnings = self.warnings(
            &reach,
            namespace,
            !selector.is_empty() || targeted.is_some(),
        );
        let rule = Rule {
            id: RuleId {
                namespace: Arc::from(namespace.unwrap_or(self.source.root_namespace)),
                name: Arc::from(name.as_str()),
                index: None,
            },
            role: match self.template.effect() {
                Effect::Permit => Role::Allow,
                Effect::Forbid => Role::Deny,
            },
            dialect: Dialect::Http,
            dry_run: self.annotation("dry_run") == Some("true")
                || self
                    .source
                    .manifest()
                    .is_some_and(|m| m.dry_run == Some(true)),
            at: self.source.location(self.offset()),
            from: Vec::new(),
            to: Vec::new(),
            when: Vec::new(),
            never: false,
        };
        let policy = UserPolicy {
            rule: Arc::new(rule),
            text: Arc::from(text.as_str()),
            facts,
            reads,
            headers,
            reach,
            namespace: confined.map(str::to_owned),
            selector,
            attachment: self.attachment.cloned(),
            unconditional: self.is_unconditional(),
            principals: self.principals(),
        };
        Ok((policy, warnings))
    }

    /// Ids of the workloads that `principal` is compared with, in the scope and by `==` in conditions.
    fn principals(&self) -> Vec<SmolStr> {
        let id = |uid: &ast::EntityUID| SmolStr::from(AsRef::<str>::as_ref(uid.eid()));
        let mut found = Vec::new();
        if let PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid)) =
            self.template.principal_constraint().as_inner()
        {
            found.push(id(uid));
        }
        let conditions = self.template.non_scope_constraints().into_iter();
        for expr in conditions.flat_map(Expr::subexpressions) {
            let ExprKind::BinaryApp {
                op: BinaryOp::Eq,
                arg1,
                arg2,
            } = expr.expr_kind()
            else {
                continue;
            };
            if let (ExprKind::Var(Var::Principal), ExprKind::Lit(Literal::EntityUID(uid)))
            | (ExprKind::Lit(Literal::EntityUID(uid)), ExprKind::Var(Var::Principal)) =
                (arg1.expr_kind(), arg2.expr_kind())
            {
                found.push(id(uid));
            }
        }
        found
    }

    /// True for `permit (principal, action, …);` and `forbid (principal, action, …);`.
    fn is_unconditional(&self) -> bool {
        let principal = self.template.principal_constraint().as_inner();
        let always = |e: &Expr| matches!(e.expr_kind(), ExprKind::Lit(Literal::Bool(true)));
        matches!(principal, PrincipalOrResourceConstraint::Any)
            && matches!(self.template.action_constraint(), ActionConstraint::Any)
            && self.template.non_scope_constraints().is_none_or(always)
    }

    /// A policy that reaches further than was probably meant, or nothing at all.
    fn warnings(&self, reach: &Reach, namespace: Option<&str>, selects: bool) -> Vec<Diagnostic> {
        let what = match self.template.effect() {
            Effect::Permit => "permit",
            Effect::Forbid => "forbid",
        };
        let elsewhere = match (reach, namespace) {
            (Reach::Namespace(other), Some(own)) => other != own,
            (Reach::Workload(other), Some(own)) => {
                other.split_once('/').is_none_or(|(ns, _)| ns != own)
            }
            (Reach::Mesh, _) | (_, None) => false,
        };
        let mut warnings = Vec::new();
        if let (true, Some(own), Some(_)) = (elsewhere, namespace, self.attachment) {
            let message =
                format!("the scope of this {what} lies outside namespace `{own}`: it never holds");
            let hint = "a CedarPolicy reaches its own namespace only: move it, or mend the scope";
            warnings.push(self.report(&code::CEDAR_NOWHERE, message).with_hint(hint));
        }
        for id in self.principals() {
            let parts: Vec<&str> = id.split('/').collect();
            if let [trust_domain, "ns", _, "sa", _] = parts.as_slice()
                && !trust_domain.contains(':')
            {
                let message = format!(
                    "`Workload::\"{}\"` is no principal: this {what} never holds for it",
                    Excerpt(&id)
                );
                let hint = format!(
                    "the id of a principal is its SPIFFE ID: write `Workload::\"spiffe://{}\"`",
                    Excerpt(&id)
                );
                warnings.push(self.report(&code::CEDAR_PRINCIPAL, message).with_hint(hint));
            }
        }
        if *reach == Reach::Mesh && !selects && namespace.is_none() {
            let message = format!("this {what} applies to every workload of the mesh");
            let hint = match self.attachment {
                None => "scope it by `resource in Namespace::\"…\"` or `@selector(\"app=…\")`",
                Some(_) => "name its workloads in `spec.selector` or `spec.targetRefs`",
            };
            warnings.push(self.report(&code::CEDAR_UNSCOPED, message).with_hint(hint));
        }
        warnings
    }

    /// A misspelt annotation would widen the policy or put it in force, so it is refused.
    fn annotations(&self) -> Vec<Diagnostic> {
        const KNOWN: [&str; 4] = ["id", "namespace", "selector", "dry_run"];
        let mut errors = Vec::new();
        for (key, value) in self.template.annotations() {
            let key: &str = key.as_ref();
            let near = KNOWN
                .iter()
                .find(|known| key != **known && strsim::damerau_levenshtein(key, known) <= 2);
            if let (false, Some(near)) = (KNOWN.contains(&key), near) {
                let message = format!("`@{key}` is no annotation of Portcullis");
                let hint = format!("write `@{near}`");
                errors.push(self.report(&code::CEDAR_SCOPE, message).with_hint(hint));
            }
            if key == "dry_run" && !matches!(value.val.as_str(), "true" | "false") {
                let message = format!("`@dry_run(\"{}\")` is neither true nor false", value.val);
                errors.push(self.report(&code::CEDAR_SCOPE, message));
            }
        }
        if let Some(manifest) = self.source.manifest() {
            errors.extend(self.annotations_beside(&manifest.meta.namespace));
        }
        errors
    }

    /// A manifest says where its policies live, and decisions name them by it.
    fn annotations_beside(&self, namespace: &str) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        if let Some(other) = self.annotation("namespace").filter(|n| *n != namespace) {
            let message = format!(
                "`@namespace(\"{}\")` in a CedarPolicy of `{namespace}`",
                Excerpt(other)
            );
            let hint = "remove it: the policies live in the object's namespace";
            errors.push(self.report(&code::CEDAR_SCOPE, message).with_hint(hint));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let refused = |id: &&str| id.is_empty() || !id.chars().all(plain);
        if let Some(id) = self.annotation("id").filter(refused) {
            let message = format!("`@id(\"{}\")` is no name", Excerpt(id));
            let hint = "letters, digits, `-`, `_` and `.`: decisions report `namespace/name#id`";
            errors.push(self.report(&code::CEDAR_SCOPE, message).with_hint(hint));
        }
        errors
    }

    /// `app=web,version=v1`.
    fn selector(&self) -> Result<Vec<(String, String)>, Box<Diagnostic>> {
        let Some(text) = self.annotation("selector") else {
            return Ok(Vec::new());
        };
        text.split(',')
            .map(|pair| {
                pair.trim()
                    .split_once('=')
                    .filter(|(key, _)| !key.is_empty())
                    .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                let message = format!("`@selector(\"{text}\")` is not a list of labels");
                let hint = "write `@selector(\"app=web,version=v1\")`";
                Box::new(self.report(&code::CEDAR_SCOPE, message).with_hint(hint))
            })
    }

    fn reach(&self) -> Result<Reach, Box<Diagnostic>> {
        let reference = match self.template.resource_constraint().as_inner() {
            PrincipalOrResourceConstraint::Any | PrincipalOrResourceConstraint::Is(_) => {
                return Ok(Reach::Mesh);
            }
            PrincipalOrResourceConstraint::Eq(r)
            | PrincipalOrResourceConstraint::In(r)
            | PrincipalOrResourceConstraint::IsIn(_, r) => r,
        };
        let EntityReference::EUID(uid) = reference else {
            return Ok(Reach::Mesh);
        };
        let id: &str = uid.eid().as_ref();
        match uid.entity_type().to_string().as_str() {
            "Workload" if id.split('/').count() == 2 => Ok(Reach::Workload(id.to_owned())),
            "Workload" => Err(Box::new(
                self.report(
                    &code::CEDAR_SCOPE,
                    format!("`Workload::\"{}\"` is no destination", id.escape_debug()),
                )
                .with_hint("the id of a destination is `namespace/name`"),
            )),
            "Namespace" => Ok(Reach::Namespace(id.to_owned())),
            other => Err(Box::new(
                self.report(&code::CEDAR_SCOPE, format!("the scope of a user policy cannot name an `{other}`"))
                    .with_hint("use `resource == Workload::\"namespace/name\"` or `resource in Namespace::\"…\"`"),
            )),
        }
    }

    /// The policy's text with what its namespace, targets and selector add as a last condition.
    fn text(
        &self,
        namespace: Option<&str>,
        targeted: Option<&str>,
        selector: &[(String, String)],
    ) -> String {
        let text = self
            .template
            .loc()
            .and_then(|l| l.snippet())
            .unwrap_or_default();
        let quoted = |s: &str| format!("\"{}\"", s.escape_debug());
        let mut conditions = Vec::new();
        if let Some(namespace) = namespace {
            conditions.push(format!("resource in Namespace::{}", quoted(namespace)));
        }
        if let Some(targeted) = targeted {
            conditions.push(format!("resource in Attachment::{}", quoted(targeted)));
        }
        for (key, value) in selector {
            let (key, value) = (quoted(key), quoted(value));
            conditions.push(format!(
                "resource.hasTag({key}) && resource.getTag({key}) == {value}"
            ));
        }
        if conditions.is_empty() {
            return text.to_owned();
        }
        let body = text.trim_end().trim_end_matches(';');
        format!("{body}\nwhen {{ {} }};", conditions.join(" && "))
    }

    fn check(&self, name: &str, text: &str) -> Vec<Diagnostic> {
        let id = ast::PolicyID::from_string(name);
        let mut set = ast::PolicySet::new();
        let added = parser::parse_policy(Some(id), text)
            .map_err(|e| e.to_string())
            .and_then(|policy| {
                set.add(ast::Policy::from(policy))
                    .map_err(|e| e.to_string())
            });
        if let Err(why) = added {
            return vec![self.report(&code::CEDAR_SYNTAX, why)];
        }
        let refused = schema::validate(&set).err().unwrap_or_default();
        refused
            .into_iter()
            .map(|r| self.report(&code::CEDAR_INVALID, r.0.replace('\n', " ")))
            .collect()
    }

    /// Facts named by `context.facts.contains("…")` and its like: only literals can be computed.
    fn facts(&self, errors: &mut Vec<Diagnostic>) -> Vec<FactTest> {
        let mut tests = Vec::new();
        let Some(condition) = self.template.non_scope_constraints() else {
            return tests;
        };
        let mut understood = 0usize;
        let mut mentioned = 0usize;
        for expr in condition.subexpressions() {
            if fact_set(expr).is_some() {
                mentioned = mentioned.saturating_add(1);
            }
            let ExprKind::BinaryApp { op, arg1, arg2 } = expr.expr_kind() else {
                continue;
            };
            let Some(set) = fact_set(arg1) else { continue };
            let literals = match (op, arg2.expr_kind()) {
                (BinaryOp::Contains, ExprKind::Lit(Literal::String(s))) => vec![s.clone()],
                (BinaryOp::ContainsAny | BinaryOp::ContainsAll, ExprKind::Set(items)) => items
                    .iter()
                    .filter_map(|i| match i.expr_kind() {
                        ExprKind::Lit(Literal::String(s)) => Some(s.clone()),
                        _ => None,
                    })
                    .collect(),
                _ => continue,
            };
            understood = understood.saturating_add(1);
            for text in literals {
                match matcher(set, &text) {
                    Ok(matcher) => tests.push(FactTest::new(set, text, matcher)),
                    Err(why) => errors.push(self.report(&code::CEDAR_FACT, why)),
                }
            }
        }
        if understood != mentioned {
            let message = "a set of facts is used other than by `contains` of a literal";
            let hint = "write `context.facts.contains(\"source.namespace: shop\")`";
            errors.push(self.report(&code::CEDAR_FACT, message).with_hint(hint));
        }
        tests
    }
}

/// The set that an expression names.
fn fact_set(expr: &Expr) -> Option<FactSet> {
    let ExprKind::GetAttr { expr: of, attr } = expr.expr_kind() else {
        return None;
    };
    match (attr.as_str(), of.expr_kind()) {
        ("facts", ExprKind::Var(Var::Context)) => Some(FactSet::Facts),
        ("possible", ExprKind::Var(Var::Context)) => Some(FactSet::Possible),
        ("lists", ExprKind::Var(Var::Context)) => Some(FactSet::Lists),
        ("templates", ExprKind::GetAttr { expr, attr }) if attr == "http" => {
            matches!(expr.expr_kind(), ExprKind::Var(Var::Context)).then_some(FactSet::Templates)
        }
        _ => None,
    }
}

fn matcher(set: FactSet, text: &str) -> Result<Matcher, String> {
    match set {
        FactSet::Templates => PathTemplate::parse(text)
            .map(|t| Matcher::Template(Arc::new(t)))
            .map_err(|e| format!("`{text}` is not a path template: {e}")),
        FactSet::Facts | FactSet::Possible => lower::fact(text),
        FactSet::Lists => Err("`context.lists` is for generated policies alone".to_owned()),
    }
}

#[cfg(test)]
mod tests;
