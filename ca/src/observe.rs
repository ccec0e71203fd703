//! What the certificate authority tells of itself: metrics, spans, and whether it can serve.
//!
//! ```text
//! calls, issuing, streams, rotation -> atomic additions -> /metrics
//!                                   -> caller records a trace? -> bounded queue -> OpenTelemetry collector
//! ```
//!
//! Nothing here delays an answer: a counter is an addition, and a span that does not fit its queue is counted and left out.

pub mod cluster;
pub mod health;
pub mod metrics;
pub mod otlp;
pub(crate) mod trace;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use self::cluster::{ClusterStatus, ClusterView};
use self::metrics::{Metrics, Step};
use self::otlp::{CollectorError, Export, Queue};
use crate::authority::AuthorityError;
use crate::identities::IssueError;
use crate::store::AuthorityKind;

/// One result for each SVID, in order; the outer error is that nothing could be issued at all.
type Issued<T> = Result<Vec<Result<T, IssueError>>, IssueError>;

/// Hears of everything that is counted or traced. Clones are the same observer.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    metrics: Arc<Metrics>,
    spans: Arc<OnceLock<Queue>>,
    cluster: Arc<OnceLock<Arc<dyn ClusterView>>>,
}

impl Observer {
    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How the cluster is followed; `None` outside of one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterStatus> {
        self.cluster.get().map(|view| view.status())
    }

    /// Tells of this cluster from now on. Only the first call counts.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(dead_code, reason = "nobody follows a cluster then")
    )]
    pub(crate) fn tell_of(&self, cluster: Arc<dyn ClusterView>) {
        let _ = self.cluster.set(cluster);
    }

    pub(crate) fn spans(&self) -> Option<&Queue> {
        self.spans.get()
    }

    /// Exports spans from now on. Only the first call counts.
    ///
    /// # Errors
    /// [`CollectorError`].
    pub(crate) fn export(
        &self,
        options: &otlp::Options,
        trust_domain: &str,
    ) -> Result<Export, CollectorError> {
        let (queue, export) = Export::start(options, trust_domain)?;
        let _ = self.spans.set(queue);
        Ok(export)
    }

    /// Watches the issuing of `asked` SVIDs.
    pub(crate) async fn issuing<T>(
        &self,
        kind: AuthorityKind,
        asked: usize,
        issuing: impl Future<Output = Issued<T>>,
    ) -> Issued<T> {
        let started = Instant::now();
        let span = self.below_call("portcullis.issue");
        let issued = issuing.await;
        self.metrics.issued(kind, asked, &issued, started.elapsed());
        if let Some(span) = span {
            let refused = issued
                .as_ref()
                .map_or(asked, |all| all.iter().filter(|one| one.is_err()).count());
            let span = span
                .with("portcullis.kind", kind.as_str())
                .with("portcullis.svids", asked)
                .with("portcullis.refused", refused);
            self.end(span, issued.as_ref().err().map(ToString::to_string));
        }
        issued
    }

    /// Watches a step in the life of an authority.
    pub(crate) async fn changing<T>(
        &self,
        kind: AuthorityKind,
        step: Step,
        changing: impl Future<Output = Result<T, AuthorityError>>,
    ) -> Result<T, AuthorityError> {
        let span = self.step("portcullis.authority");
        let changed = changing.await;
        self.metrics.step(step, &changed);
        if let Some(span) = span {
            let span = span
                .with("portcullis.kind", kind.as_str())
                .with("portcullis.step", step.as_str());
            self.end(span, changed.as_ref().err().map(ToString::to_string));
        }
        changed
    }
}
