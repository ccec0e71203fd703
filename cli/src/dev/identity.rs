//! Identity and policy in one picture: services of the example get their SVIDs from a certificate authority in this
//! process, speak mutual TLS with each other, and the policies decide by the SPIFFE IDs that they met.

mod authority;
mod child;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_authz::facts;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::explain::{ClauseReport, RuleReport};
use portcullis_policy::request::PathForm;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;

use self::authority::Authority;
use self::child::Child;
use super::service;
use crate::args::DevArgs;
use crate::inputs;
use crate::out::{self, BAD, BOLD, CAUTION, DIM, GOOD};

/// The trust domain of the example's manifests.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Between two requests that are made to see whether handshakes fail.
const PULSE: Duration = Duration::from_secs(1);

/// Who asks the catalog, and for what.
const ASKED: [(&str, &str, &str); 2] = [
    ("frontend", "GET", "/books/moby-dick"),
    ("orders", "GET", "/books/moby-dick"),
];

/// The authority and the services, for as long as `dev` runs.
pub struct Picture {
    authority: Authority,
    catalog: Child,
    clients: Vec<Child>,
    renewed: mpsc::UnboundedReceiver<(&'static str, String)>,
    policies: Vec<PathBuf>,
    ttl: Duration,
    handshakes: u64,
    failed: u64,
}

impl Picture {
    /// Starts the authority with its data beside the examples, and the services; the catalog asks the ext_authz service
    /// at `authz`, which decides by `policies`.
    ///
    /// # Errors
    /// When the folder cannot be written or is in use, or a service does not start.
    pub async fn start(
        args: &DevArgs,
        policies: &[PathBuf],
        authz: SocketAddr,
    ) -> anyhow::Result<Self> {
        let authority = Authority::start(&args.dir.join("ca"), args.svid_ttl).await?;
        let (renewals, renewed) = mpsc::unbounded_channel();
        let mut children = Vec::new();
        // All of them before the first is started: a file that gets another name while it is attested is read twice.
        let mut programs = Vec::new();
        for (name, authz) in [
            ("catalog", Some(authz)),
            ("frontend", None),
            ("orders", None),
        ] {
            programs.push((name, authz, authority.service(name).await?));
        }
        for (name, authz, program) in programs {
            let socket = authority.socket();
            children.push(Child::start(
                name,
                &program,
                socket,
                authz,
                renewals.clone(),
            )?);
        }
        // Together: each waits for the processor more than for anything else.
        for child in &mut children {
            child.ready().await?;
        }
        let catalog = children.remove(0);
        Ok(Self {
            authority,
            catalog,
            clients: children,
            renewed,
            policies: policies.to_vec(),
            ttl: args.svid_ttl,
            handshakes: 0,
            failed: 0,
        })
    }

    /// Where workloads connect.
    pub fn socket(&self) -> &Path {
        self.authority.socket()
    }

    /// Lets the services talk and prints what came of it.
    ///
    /// # Errors
    /// When a service is gone, or the output cannot be written.
    pub async fn show(&mut self) -> anyhow::Result<()> {
        let mut out = out::stdout();
        writeln!(
            out,
            "\n{BOLD}services with SVIDs of {} s, over mutual TLS; the policies decide by SPIFFE ID{BOLD:#}\n",
            self.ttl.as_secs()
        )?;
        for (name, method, path) in ASKED {
            let outcome = self.ask(name, method, path).await?;
            let told = match &outcome {
                Ok(outcome) => {
                    let allowed = outcome.status < 400;
                    let (style, verdict) = if allowed {
                        (GOOD, "ALLOW")
                    } else {
                        (BAD, "DENY")
                    };
                    let policy = outcome.policy.as_deref().unwrap_or("-");
                    format!(
                        "{style}{verdict:<5}{style:#}  {}  {}  {policy}",
                        outcome.status, outcome.reason
                    )
                }
                Err(error) => format!("{CAUTION}no answer: {error}{CAUTION:#}"),
            };
            writeln!(out, "  {name:<8} -> catalog  {method} {path}  {told}")?;
            if outcome.is_ok_and(|outcome| outcome.status >= 400) {
                self.why(&mut out, name, method, path)?;
            }
        }
        out.flush()?;
        Ok(())
    }

    /// Goes on talking, and tells of renewals. Never ends by itself.
    ///
    /// # Errors
    /// As [`Picture::show`].
    pub async fn live(&mut self) -> anyhow::Result<()> {
        let [(name, method, path), ..] = ASKED;
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pulse.tick() => {
                    if let Err(error) = self.ask(name, method, path).await? {
                        let mut out = out::stdout();
                        writeln!(out, "  {BAD}failed{BAD:#}    {name} -> catalog: {error}")?;
                        out.flush()?;
                    }
                }
                renewed = self.renewed.recv() => {
                    let (name, serial) = renewed.context("the services are gone")?;
                    if name == self.catalog.name() {
                        self.tell(name, &serial)?;
                    }
                }
            }
        }
    }

    fn tell(&self, name: &str, serial: &str) -> anyhow::Result<()> {
        let mut out = out::stdout();
        let failed = match self.failed {
            0 => "none failed".to_owned(),
            failed => format!("{failed} failed"),
        };
        writeln!(
            out,
            "  {GOOD}renewed{GOOD:#}   the SVID of {name}, now serial {}; {} handshakes so far, {failed}",
            serial.get(..8).unwrap_or(serial),
            self.handshakes
        )?;
        Ok(out.flush()?)
    }

    async fn ask(
        &mut self,
        name: &str,
        method: &str,
        path: &str,
    ) -> anyhow::Result<Result<service::Outcome, String>> {
        let address = self
            .catalog
            .address()
            .context("the catalog listens nowhere")?;
        let peer = self.catalog.id().to_owned();
        let client = self.clients.iter_mut().find(|client| client.name() == name);
        let client = client.context("no such service")?;
        let outcome = client.ask(address, &peer, method, path).await?;
        self.handshakes += 1;
        self.failed += u64::from(outcome.is_err());
        Ok(outcome)
    }

    /// The nearest rule, and what of it failed.
    fn why(
        &self,
        out: &mut impl std::io::Write,
        name: &str,
        method: &str,
        path: &str,
    ) -> anyhow::Result<()> {
        let Some(client) = self.clients.iter().find(|client| client.name() == name) else {
            return Ok(());
        };
        let check = service::check(client.id(), method, path)?;
        let documents = Documents {
            base: inputs::read(&self.policies)?,
            candidate: None,
        };
        let options = facts::Options {
            path_form: PathForm::Normalised,
            ..facts::Options::default()
        };
        // While somebody edits them, they may be none: then there is nothing to tell.
        let Ok(snapshot) = compile(&documents, &super::settings()) else {
            return Ok(());
        };
        let Ok(request) = facts::request(check, &MetadataMap::new(), &options) else {
            return Ok(());
        };
        let story = Arc::new(snapshot).explain(&request, false);
        let nearest = story
            .rules
            .iter()
            .find(|rule| !rule.dry_run && clause(rule).is_some());
        if let Some((rule, clause)) = nearest.and_then(|rule| Some((rule, clause(rule)?))) {
            writeln!(
                out,
                "           {DIM}nearest rule{DIM:#}  {} at {}",
                rule.id, rule.at
            )?;
            writeln!(
                out,
                "           {DIM}what failed{DIM:#}   {}: {}, had instead {}",
                clause.field,
                clause.wanted.join(", "),
                clause.had
            )?;
        }
        Ok(())
    }

    /// Ends the services and the authority.
    ///
    /// # Errors
    /// When the authority ended by itself.
    pub async fn stop(self) -> anyhow::Result<()> {
        drop((self.clients, self.catalog));
        self.authority.stop().await
    }
}

/// The first clause of a rule that did not hold.
fn clause(rule: &RuleReport) -> Option<&ClauseReport> {
    let alternatives = rule.from.iter().chain(&rule.to).chain(&rule.when);
    let mut clauses = alternatives.flat_map(|alternative| &alternative.clauses);
    clauses.find(|clause| !clause.passed)
}
