//! The whole, wired together: files, snapshot, listeners, health, reflection.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::settings::{CustomProvider, Settings};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::check::{Checker, Stages};
use crate::custom::Providers;
use crate::descriptor::FILE_DESCRIPTOR_SET;
use crate::endpoint::Endpoint;
use crate::feed::Feed;
use crate::health::{self, Readiness};
use crate::incoming::Incoming;
use crate::limits::{Counters, Limits, Load};
use crate::live::Live;
use crate::observe::metrics::Sources;
use crate::observe::{Observer, Untold};
use crate::reload::{self, PolicyFiles, ReloadOrder, ReloadStatus, Reloader};
use crate::{custom, facts, grpc, http, management, observe, respond, tls, token};

/// Permissions of the management listener's unix socket.
const MANAGEMENT_MODE: u32 = 0o660;
/// Longest time that requests to the management listener get once everything else has ended.
const MANAGEMENT_DRAIN: Duration = Duration::from_secs(1);

/// Everything that `authz serve` and `dev` decide about a server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; at least one.
    pub listeners: Vec<ListenerOptions>,
    /// Where policies come from.
    pub files: PolicyFiles,
    /// Who makes the snapshots, of the files as well; `None`: they are made of the files alone.
    pub feed: Option<Feed>,
    /// What a compilation depends on beside the files.
    pub settings: Settings,
    /// How changes of the files are noticed.
    pub reload: reload::Options,
    /// Longest time that open requests get at shutdown.
    pub drain: Duration,
    /// How long the server goes on as before once it has said that it is not ready.
    pub drain_delay: Duration,
    /// What is taken on at once.
    pub limits: Limits,
    /// How tokens are verified, for listeners that do.
    pub tokens: token::Settings,
    /// What is told of decisions, and to whom.
    pub observe: observe::Options,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Name in logs.
    pub name: String,
    /// Where.
    pub endpoint: Endpoint,
    /// Permissions of a unix socket.
    pub socket_mode: u32,
    /// TLS; `None` for none.
    pub tls: Option<tls::Options>,
    /// What it speaks, and what it knows about every request.
    pub protocol: Protocol,
    /// Who verifies tokens.
    pub tokens: TokensBy,
    /// What its answers say beside the verdict.
    pub respond: respond::Options,
    /// Longest message, in bytes; a longer one is denied as `overloaded`, unread.
    pub max_message_bytes: usize,
}

/// Who verifies the tokens of the requests that a listener is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokensBy {
    /// The proxy, before it asks; it hands the payload along.
    #[default]
    Proxy,
    /// We do; what anybody else says about tokens is not believed.
    Us,
}

/// What a listener speaks.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// Envoy's ext_authz over gRPC.
    Grpc(facts::Options),
    /// One of the HTTP dialects.
    Http(Box<http::Options>),
}

impl Protocol {
    /// What it is called in a TLS handshake.
    fn alpn(&self) -> &'static [u8] {
        match self {
            Self::Grpc(_) => b"h2",
            Self::Http(_) => b"http/1.1",
        }
    }
}

impl ListenerOptions {
    /// A gRPC listener at `endpoint` with ordinary options.
    #[must_use]
    pub fn new(name: impl Into<String>, endpoint: Endpoint) -> Self {
        Self {
            name: name.into(),
            endpoint,
            socket_mode: 0o660,
            tls: None,
            protocol: Protocol::Grpc(facts::Options::default()),
            tokens: TokensBy::Proxy,
            respond: respond::Options::default(),
            max_message_bytes: 4 << 20,
        }
    }
}

/// Why a server could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No listener.
    #[error("no listener is configured")]
    NoListener,
    /// A listener could not be bound.
    #[error("cannot listen on `{endpoint}`: {source}")]
    Bind {
        /// Where.
        endpoint: Endpoint,
        /// What the operating system said.
        source: io::Error,
    },
    /// A listener's TLS cannot be set up.
    #[error("no TLS on `{endpoint}`: {source}")]
    Tls {
        /// Which listener.
        endpoint: Endpoint,
        /// Why.
        source: tls::Error,
    },
    /// The descriptor set does not serve reflection.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Tokens cannot be verified.
    #[error("cannot verify tokens: {0}")]
    Tokens(#[from] token::SettingsError),
    /// A CUSTOM provider is this server.
    #[error(transparent)]
    Loop(#[from] custom::Loop),
    /// CUSTOM providers cannot be asked.
    #[error("cannot ask CUSTOM providers: {0}")]
    Providers(io::Error),
    /// Decisions cannot be told as configured.
    #[error(transparent)]
    Observe(#[from] observe::ObserveError),
    /// A listener ended by itself.
    #[error("a listener ended: {0}")]
    Ended(String),
}

/// A server that is bound and has tried to load its policies, but accepts nothing yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<(Incoming, ListenerOptions)>,
    certificates: Vec<tls::Follower>,
    readiness: Readiness,
    stopping: watch::Sender<bool>,
    load: Load,
    live: Live,
    reloader: Reloader,
    feed: Option<Feed>,
    status: watch::Receiver<ReloadStatus>,
    reload: reload::Options,
    drain: Duration,
    drain_delay: Duration,
    tokens: Option<token::Verification>,
    providers: Option<Providers>,
    observer: Observer,
    untold: Untold,
    management: Option<Incoming>,
}

impl Server {
    /// Loads the policies and binds every listener. Policies that are refused do not keep the
    /// server from starting: it denies with `no_snapshot`, is not serving by its health service, and
    /// goes on watching the files; [`Server::status`] tells.
    ///
    /// # Errors
    /// [`ServeError`] when a listener cannot be bound.
    pub async fn start(options: ServeOptions) -> Result<Self, ServeError> {
        let ServeOptions {
            listeners: wanted,
            files,
            feed,
            settings,
            reload,
            drain,
            drain_delay,
            limits,
            tokens,
            observe,
        } = options;
        let load = Load::new(limits);
        if wanted.is_empty() {
            return Err(ServeError::NoListener);
        }
        let verifies = wanted.iter().any(|l| l.tokens == TokensBy::Us);
        let tokens = match verifies {
            true => Some(token::Verification::new(tokens)?),
            false => None,
        };
        let asks = settings.custom_providers.values();
        let asks = asks.into_iter().any(|way| *way == CustomProvider::Call);
        let live = Live::default();
        let reloader = Reloader::new(files, settings, live.clone()).with_feed(feed.clone());
        let status = reloader.status();
        let reloader = reloader.load_aside().await;
        let mut listeners = Vec::with_capacity(wanted.len());
        let mut certificates = Vec::new();
        let mut materials = Vec::new();
        for listener in wanted {
            let endpoint = &listener.endpoint;
            let mut incoming = bind(endpoint, listener.socket_mode, &load).await?;
            if let Some(options) = &listener.tls {
                let started = tls::Follower::start(options, listener.protocol.alpn(), &load);
                let (follower, material) = started.map_err(|source| ServeError::Tls {
                    endpoint: endpoint.clone(),
                    source,
                })?;
                certificates.push(follower);
                materials.push((listener.name.clone(), material.clone()));
                incoming = incoming.with_tls(material);
            }
            listeners.push((incoming, listener));
        }
        let management = match &observe.management {
            Some(endpoint) => Some(bind(endpoint, MANAGEMENT_MODE, &Load::default()).await?),
            None => None,
        };
        let own = listeners
            .iter()
            .filter_map(|(incoming, _)| match incoming.endpoint() {
                Endpoint::Tcp(address) => Some(*address),
                Endpoint::Unix(_) | Endpoint::Activated(_) => None,
            });
        let providers = match asks {
            true => Some(Providers::new(own.collect()).map_err(ServeError::Providers)?),
            false => None,
        };
        if let (Some(providers), Some(snapshot)) = (&providers, live.snapshot()) {
            providers.refuse_loops(&snapshot).await?;
        }
        let (observer, untold) = Observer::start(&observe)?;
        observer.watch(Sources {
            reload: status.clone(),
            feed: feed.clone(),
            keys: tokens.as_ref().map(|t| t.verifier.keys().clone()),
            counters: Arc::clone(load.counters()),
        });
        let stopping = watch::Sender::new(false);
        Ok(Self {
            readiness: Readiness {
                published: live.subscribe(),
                status: status.clone(),
                feed: feed.as_ref().map(|feed| feed.status.clone()),
                certificates: materials,
                stopping: stopping.subscribe(),
            },
            stopping,
            listeners,
            certificates,
            load,
            live,
            reloader,
            feed,
            status,
            reload,
            drain,
            drain_delay,
            tokens,
            providers,
            observer,
            untold,
            management,
        })
    }

    /// The issuers' keys; `None` where no listener verifies tokens.
    #[must_use]
    pub fn keys(&self) -> Option<token::keys::Keys> {
        let tokens = self.tokens.as_ref()?;
        Some(tokens.verifier.keys().clone())
    }

    /// Where the server listens, in the order of its options, with real ports.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.listeners
            .iter()
            .map(|(incoming, _)| incoming.endpoint())
    }

    /// Where the management listener is, with a real port; `None` without one.
    #[must_use]
    pub fn management(&self) -> Option<&Endpoint> {
        self.management.as_ref().map(Incoming::endpoint)
    }

    /// Hears of every decision.
    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Whether the server can be asked, and why not.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Has policies read again at once, while the server runs.
    #[must_use]
    pub fn reload_order(&self) -> ReloadOrder {
        self.reloader.order()
    }

    /// What is going on, in numbers.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.load.counters())
    }

    /// The holder of the snapshot in force.
    #[must_use]
    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// What reload has done so far, to be followed.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.clone()
    }

    /// Serves until `shutdown`; then says NOT_SERVING, accepts nothing more, and lets open requests
    /// end within the drain time.
    ///
    /// # Errors
    /// [`ServeError`] when a listener ends by itself; the others are then ended, too.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let ready = self.readiness.is_ready();
        health::report(&health, ready).await;
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for (incoming, options) in self.listeners {
            tracing::info!(listener = options.name, endpoint = %incoming.endpoint(), "listening");
            let tokens = self
                .tokens
                .as_ref()
                .filter(|_| options.tokens == TokensBy::Us);
            let stages = Stages {
                tokens: tokens.map(|tokens| tokens.verifier.clone()),
                svids: tokens.and_then(|tokens| tokens.svids.clone()),
                providers: self.providers.clone(),
            };
            let (name, live) = (options.name.clone(), self.live.clone());
            let checker = Checker::with_stages(name, live, stages, self.observer.clone());
            let stopped = stop.subscribe();
            match options.protocol.clone() {
                Protocol::Http(http) => {
                    let load = self.load.clone();
                    tasks.spawn(async move {
                        http::serve(incoming, checker, *http, options.respond, load, stopped).await;
                        options.name
                    });
                }
                Protocol::Grpc(facts) => {
                    let authorization = grpc::Authorization::new(
                        checker,
                        facts,
                        options.respond,
                        options.max_message_bytes,
                        self.load.clone(),
                    );
                    let routes = reflection()?.add_service(health_service.clone());
                    tasks.spawn(async move {
                        grpc::serve(incoming, authorization, routes, stopped).await;
                        options.name
                    });
                }
            }
        }
        let drained = watch::Sender::new(false);
        let mut managing = JoinSet::new();
        if let Some(incoming) = self.management {
            tracing::info!(endpoint = %incoming.endpoint(), "listening for operators");
            let routes = management::routes(self.observer.clone(), drained.subscribe());
            let routes = routes.merge(health::routes(self.readiness.clone()));
            managing.spawn(management::serve(incoming, routes, drained.subscribe()));
        }
        let mut aside = JoinSet::new();
        aside.spawn(self.observer.clone().tell_losses());
        if let Some(feed) = self.feed {
            aside.spawn(self.reloader.publish_feed(feed));
        }
        aside.spawn(self.reloader.watch(self.reload));
        for certificate in self.certificates {
            aside.spawn(certificate.run(self.reload));
        }
        if let Some(tokens) = self.tokens {
            tokens.run(&self.live, &mut aside);
        }
        aside.spawn(self.readiness.follow(health.clone(), ready));

        tokio::pin!(shutdown);
        let ended = tokio::select! {
            () = &mut shutdown => None,
            ended = tasks.join_next() => Some(words(ended)),
        };
        self.stopping.send_replace(true);
        // Whoever balances load sends nothing more; then no new connection, then the open ones.
        health::report(&health, false).await;
        if ended.is_none() && !self.drain_delay.is_zero() {
            tracing::info!("not ready any more; the listeners close soon");
            tokio::time::sleep(self.drain_delay).await;
        }
        aside.shutdown().await;
        health::report(&health, false).await;
        stop.send_replace(true);
        let answered = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain, answered).await.is_err() {
            tracing::warn!("connections still open after the drain time are cut");
        }
        tasks.shutdown().await;
        drained.send_replace(true);
        let left = async { while managing.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(MANAGEMENT_DRAIN, left).await;
        managing.shutdown().await;
        self.untold.close(MANAGEMENT_DRAIN).await;
        match ended {
            None => Ok(()),
            Some(words) => Err(ServeError::Ended(words)),
        }
    }
}

/// Starts a server and runs it until `shutdown`.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::start(options).await?.run(shutdown).await
}

async fn bind(endpoint: &Endpoint, socket_mode: u32, load: &Load) -> Result<Incoming, ServeError> {
    let bound = Incoming::bind(endpoint, socket_mode, load).await;
    bound.map_err(|source| ServeError::Bind {
        endpoint: endpoint.clone(),
        source,
    })
}

/// What the services are, for whoever asks. Both are asked for: grpcurl and others still speak v1alpha first.
fn reflection() -> Result<Routes, ServeError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(reflection().build_v1()?).add_service(reflection().build_v1alpha()?))
}

fn words(ended: Option<Result<String, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => format!("`{name}`"),
        Some(Err(error)) => error.to_string(),
        None => "none is left".to_owned(),
    }
}
