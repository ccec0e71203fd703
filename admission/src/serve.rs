//! The whole, wired together: source, certificate, listeners.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use portcullis_source::Source;
use tokio::task::JoinSet;

use crate::break_glass::BreakGlass;
use crate::certificate::authority::{Authority, OfSecret, Times};
use crate::certificate::ca_bundle::OfConfiguration;
use crate::certificate::files::Files;
use crate::certificate::workload_api::WorkloadApi;
use crate::certificate::{self, Gate};
use crate::decide::Admission;
use crate::enforcement::Enforcement;
use crate::follow::{Followed, Namespaces, Ready};
use crate::judge::{Flows, Judge};
use crate::metrics::Metrics;
use crate::server::{self, ServeError, Server};

/// Where the serving certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// Files.
    Files(Files),
    /// A SPIFFE Workload API.
    WorkloadApi(WorkloadApi),
    /// A small authority of our own, kept in a Secret.
    Secret {
        /// Our namespace.
        namespace: String,
        /// The Secret.
        name: String,
        /// Names that certificates hold for.
        names: Vec<String>,
        /// Lifetimes.
        times: Times,
    },
}

/// Everything that `admission serve` decides about a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Listeners and limits.
    pub server: server::Options,
    /// What findings lead to.
    pub enforcement: Enforcement,
    /// Who may pass them.
    pub break_glass: BreakGlass,
    /// The serving certificate.
    pub certificate: From,
    /// When it is put in force.
    pub gate: certificate::Options,
    /// The ValidatingWebhookConfiguration whose `caBundle` is ours; `None`: somebody else's.
    pub configuration: Option<String>,
    /// What is followed.
    pub source: portcullis_source::Options,
    /// Most cases of the PolicyTests in a namespace.
    pub cases: usize,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
}

/// A server that is bound, follows its cluster, and accepts nothing yet.
pub struct Running {
    server: Server,
    source: Source,
    tasks: JoinSet<()>,
}

/// Binds, and begins to follow the cluster of `client`.
///
/// # Errors
/// [`Error`]. A cluster that does not answer is waited for.
pub async fn start(
    client: Client,
    options: Options,
    judge: Arc<dyn Judge>,
    flows: Arc<dyn Flows>,
) -> Result<Running, Error> {
    let metrics = Arc::new(Metrics::default());
    let mut tasks = JoinSet::new();
    let certificates = match options.certificate {
        From::Files(files) => {
            let (source, following) = files.follow(Arc::clone(&metrics))?;
            tasks.spawn(following);
            source
        }
        From::WorkloadApi(api) => {
            let (source, following) = api.follow(Arc::clone(&metrics));
            tasks.spawn(following);
            source
        }
        From::Secret {
            namespace,
            name,
            names,
            times,
        } => {
            let keep = OfSecret::new(client.clone(), &namespace, &name);
            let authority = Authority::new(keep, names, times);
            let (source, following) = authority.follow(Arc::clone(&metrics));
            tasks.spawn(following);
            source
        }
    };
    let bundle = options
        .configuration
        .map(|name| OfConfiguration::new(client.clone(), &name));
    let (gate, tls, state) = Gate::new(options.gate, certificates, bundle, Arc::clone(&metrics));
    tasks.spawn(gate.run());
    let (namespaces, following) = Namespaces::follow(client.clone());
    tasks.spawn(following);
    let source = Source::start(client, &options.source);
    metrics.follows(&source);
    let admission = Admission::new(options.enforcement, options.break_glass, judge, flows)
        .with_cases(options.cases);
    let server = Server::bind(
        options.server,
        tls,
        admission,
        Arc::new(Followed::new(&source, namespaces.clone())),
        Ready::new(source.status(), namespaces, state),
        metrics,
    )
    .await?;
    Ok(Running {
        server,
        source,
        tasks,
    })
}

impl Running {
    /// Where reviews are taken, with the port that it got.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.address()
    }

    /// Where the management listener is, with the port that it got.
    #[must_use]
    pub fn management(&self) -> Option<SocketAddr> {
        self.server.management()
    }

    /// Serves until `shutdown`, as [`Server::run`].
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        self.server.run(shutdown).await;
        self.tasks.shutdown().await;
        self.source.stop().await;
    }
}
