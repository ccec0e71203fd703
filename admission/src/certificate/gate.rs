//! Published before used: a certificate is served once API servers have known its root for long enough.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ca_bundle::{CaBundle, Told};
use super::{Material, Root, Source, ends};
use crate::metrics::{Metrics, count};

/// Most roots that stand in the `caBundle`, beyond our own: what nobody took away again.
const MOST: usize = 16;

/// Times of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Our name, as API servers verify it: `SERVICE.NAMESPACE.svc`, or the host of the webhook's URL.
    pub name: String,
    /// How long a root stands in the `caBundle` before a certificate of it is served: every API server has followed by
    /// then.
    pub propagation: Duration,
    /// How long a root stays there once our source no longer has it: other instances may still show certificates of it.
    pub retire: Duration,
    /// How often the `caBundle` is looked at.
    pub look: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "portcullis-admission.portcullis.svc".to_owned(),
            propagation: Duration::from_secs(10),
            retire: Duration::from_secs(300),
            look: Duration::from_secs(5),
        }
    }
}

/// How far things are, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// A certificate is in force.
    pub serving: bool,
    /// What is missing or wrong, in words; empty when nothing is.
    pub problem: Option<String>,
}

/// Lets certificates through.
pub struct Gate<B> {
    options: Options,
    source: Source,
    /// `None`: somebody else tells API servers, and certificates pass at once.
    bundle: Option<B>,
    metrics: Arc<Metrics>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    state: watch::Sender<State>,
    /// Since when a root was there whenever we looked.
    seen: HashMap<Root, Instant>,
    /// Roots that our source had, and since when it has them no more.
    ours: HashMap<Root, Option<Instant>>,
    /// What is in force.
    in_force: Option<Arc<Material>>,
    said: Option<String>,
}

impl<B: CaBundle> Gate<B> {
    /// A gate between `source` and what handshakes are made with.
    #[must_use]
    pub fn new(
        options: Options,
        source: Source,
        bundle: Option<B>,
        metrics: Arc<Metrics>,
    ) -> (
        Self,
        watch::Receiver<Option<Arc<ServerConfig>>>,
        watch::Receiver<State>,
    ) {
        let (tls, configs) = watch::channel(None);
        let (state, states) = watch::channel(State::default());
        let gate = Self {
            options,
            source,
            bundle,
            metrics,
            tls,
            state,
            seen: HashMap::new(),
            ours: HashMap::new(),
            in_force: None,
            said: None,
        };
        (gate, configs, states)
    }

    /// Runs until dropped, or until the source is gone.
    pub async fn run(mut self) {
        loop {
            let wait = self.step(SystemTime::now()).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.source.changed() => {
                    if changed.is_err() {
                        // Nothing new will come; what is there must still be kept in the bundle.
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    /// Looks once, and says when to look again.
    async fn step(&mut self, now: SystemTime) -> Duration {
        let material = self.source.borrow_and_update().clone();
        let problem = self.look(material.as_ref(), now).await.err();
        let waits = match (&material, &self.in_force) {
            (Some(wanted), Some(served)) => !Arc::ptr_eq(wanted, served),
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.metrics
            .certificate_waits
            .store(waits.into(), Ordering::Relaxed);
        if let Some(problem) = &problem
            && self.said.as_ref() != Some(problem)
        {
            tracing::info!(problem, "the serving certificate");
        }
        self.said.clone_from(&problem);
        let serving = self.in_force.as_ref().is_some_and(|m| m.ends() > now);
        let state = State { serving, problem };
        self.state.send_if_modified(|before| {
            let changed = *before != state;
            before.clone_from(&state);
            changed
        });
        match waits {
            // Often enough that the wait is hardly longer than it has to be.
            true => {
                (self.options.propagation / 4).clamp(Duration::from_millis(20), self.options.look)
            }
            false => self.options.look,
        }
    }

    async fn look(
        &mut self,
        material: Option<&Arc<Material>>,
        now: SystemTime,
    ) -> Result<(), String> {
        self.note(material);
        let is = |served: &Arc<Material>| material.is_some_and(|m| Arc::ptr_eq(served, m));
        let settled = self.in_force.as_ref().is_some_and(is);
        let told = match &self.bundle {
            None => Ok(()),
            Some(bundle) => match self.told(bundle, settled, now).await {
                Ok(told) => {
                    let there = told.everywhere();
                    self.seen.retain(|root, _| there.contains(root));
                    for root in there {
                        self.seen.entry(root).or_insert_with(Instant::now);
                    }
                    Ok(())
                }
                // What was seen last still counts: a certificate must not run out because nobody answers.
                Err(error) => {
                    count(&self.metrics.bundle_failures);
                    Err(error)
                }
            },
        };
        let Some(material) = material else {
            return told.and(Err("there is no certificate yet".to_owned()));
        };
        if settled {
            return told;
        }
        if self.bundle.is_some() {
            let name = &self.options.name;
            // By all its roots it must hold; by those alone that are known everywhere, it may be shown.
            if let Err(never) = material.verify(&material.roots, name, now) {
                count(&self.metrics.certificates_failed);
                return Err(format!("{never}; a certificate before it stays in force"));
            }
            let long = self
                .seen
                .iter()
                .filter(|(_, since)| since.elapsed() >= self.options.propagation);
            let long: Vec<Root> = long.map(|(root, _)| root.clone()).collect();
            if material.verify(&long, name, now).is_err() {
                told?;
                let propagation = self.options.propagation;
                return Err(format!(
                    "a certificate waits until its root has been in the caBundle for {propagation:?}"
                ));
            }
        }
        let config = material.server_config().map_err(|e| e.to_string())?;
        self.tls.send_replace(Some(Arc::new(config)));
        count(&self.metrics.certificates);
        self.metrics.certificate_ends(material.ends());
        tracing::info!("a serving certificate is in force");
        self.in_force = Some(Arc::clone(material));
        told
    }

    /// Notes which roots are ours, and which were.
    fn note(&mut self, material: Option<&Arc<Material>>) {
        let Some(material) = material else { return };
        for root in &material.roots {
            self.ours.insert(root.clone(), None);
        }
        for (root, gone) in &mut self.ours {
            if !material.roots.contains(root) && gone.is_none() {
                *gone = Some(Instant::now());
            }
        }
    }

    /// Reads the bundle, and changes it where something is missing or has had its time. What it returns was read back.
    async fn told(&self, bundle: &B, settled: bool, now: SystemTime) -> Result<Told, String> {
        // Others write, too; whoever loses looks again.
        for _ in 0..5 {
            let told = bundle.read().await.map_err(|e| e.to_string())?;
            let told = told.ok_or("the webhook configuration does not exist yet")?;
            if told.webhooks.is_empty() {
                return Err("the webhook configuration has no webhook".to_owned());
            }
            let wanted = self.wanted(&told, settled, now);
            let is_right =
                !told.unreadable && told.webhooks.iter().all(|(_, roots)| *roots == wanted);
            if wanted.is_empty() || is_right {
                return Ok(told);
            }
            if bundle
                .write(&told, &wanted)
                .await
                .map_err(|e| e.to_string())?
            {
                count(&self.metrics.bundle_updates);
                tracing::info!(
                    roots = wanted.len(),
                    "the caBundle of the webhook is changed"
                );
            }
        }
        Err("the caBundle of the webhook is changed by somebody else, again and again".to_owned())
    }

    /// What should be told: what is there, without what has had its time, and what is ours.
    fn wanted(&self, told: &Told, settled: bool, now: SystemTime) -> Vec<Root> {
        let mut wanted = told.anywhere();
        let had_its_time = |root: &Root| match self.ours.get(root) {
            // While a certificate waits, the one before it may still be that root's.
            Some(Some(gone)) => settled && gone.elapsed() >= self.options.retire,
            Some(None) => false,
            None => ends(root) <= now,
        };
        wanted.retain(|root| !had_its_time(root));
        // What others left there goes by its end, or when there is too much of it: the first come first.
        let foreign = |root: &Root| !self.ours.contains_key(root);
        let mut left = wanted.iter().filter(|root| foreign(root)).count();
        wanted.retain(|root| {
            let is_too_many = foreign(root) && left > MOST;
            left -= usize::from(is_too_many);
            !is_too_many
        });
        let ours = self.ours.iter().filter(|(_, gone)| gone.is_none());
        let mut ours: Vec<&Root> = ours.map(|(root, _)| root).collect();
        // In one order, so that two instances write the same.
        ours.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        for root in ours {
            if !wanted.contains(root) {
                wanted.push(root.clone());
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
