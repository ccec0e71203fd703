//! `portcullis authz serve`: ext_authz until told to stop.

pub mod kubernetes;
mod supervisor;

use std::time::Duration;

use anyhow::{Context as _, bail};
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::reload::PolicyFiles;
use portcullis_authz::respond;
use portcullis_authz::server::{ListenerOptions, Protocol, ServeOptions, Server};
use portcullis_authz::{facts, http};
use portcullis_policy::request::PathForm;

use crate::args::{GlobalArgs, ServeArgs};
use crate::config::{Config, KubernetesConfig, Listener};
use crate::exit::Exit;
use crate::{logging, shutdown};

/// How long open requests get at shutdown unless told otherwise.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM, a second of which ends it at once; SIGHUP reads the policies again.
///
/// # Errors
/// When the configuration cannot be read or a socket cannot be had.
pub fn run(args: &ServeArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?;
    logging::start_server(global, &config)?;
    let followed = match (&config.kubernetes, args.from_cluster) {
        (Some(kubernetes), _) => Some(kubernetes.clone()),
        (None, true) => Some(KubernetesConfig::default()),
        (None, false) => None,
    };
    let mut options = options(&config, args, followed.is_some())?;
    if let Some(address) = &args.listen {
        options.listeners = vec![listener(
            &Listener {
                endpoint: address.parse::<Endpoint>()?,
                ..config.listeners.first().cloned().unwrap_or_default()
            },
            &config,
        )];
    }
    runtime()?.block_on(async {
        // Before anything is bound: a signal at start must stop us, too.
        let signals = shutdown::Signals::catch()?;
        let mut source = None;
        if let Some(followed) = &followed {
            let (running, feed) = kubernetes::start(followed, &options.settings).await?;
            options.feed = Some(feed);
            source = Some(running);
        }
        let server = Server::start(options).await?;
        let ended = supervisor::supervise(server, signals).await;
        if let Some(source) = source {
            source.stop().await;
        }
        ended
    })?;
    Ok(Exit::Yes)
}

/// The runtime of every server: a worker for each core.
///
/// # Errors
/// When the operating system gives no threads.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")
}

fn options(config: &Config, args: &ServeArgs, followed: bool) -> anyhow::Result<ServeOptions> {
    if followed && !config.candidate.is_empty() {
        bail!("`candidate` stands beside files only: leave it out, or do not follow an API server");
    }
    let mut listeners: Vec<ListenerOptions> = config
        .listeners
        .iter()
        .map(|entry| listener(entry, config))
        .collect();
    if listeners.is_empty() {
        listeners.push(listener(&Listener::default(), config));
    }
    let mut settings = config.settings();
    settings.serving = true;
    Ok(ServeOptions {
        listeners,
        files: PolicyFiles {
            paths: match followed {
                true => config.policies_if_any(&args.policies),
                false => config.policies(&args.policies)?,
            },
            candidate: config.candidate.clone(),
        },
        feed: None,
        settings,
        reload: config.reload,
        limits: config.limits,
        drain_delay: config.drain_delay.unwrap_or_default(),
        drain: config.drain.unwrap_or(DRAIN),
        tokens: config.tokens.clone(),
        observe: config.observe.clone(),
    })
}

fn listener(entry: &Listener, config: &Config) -> ListenerOptions {
    let mut options = ListenerOptions::new(entry.endpoint.to_string(), entry.endpoint.clone());
    options.socket_mode = entry.socket_mode;
    options.tls = entry.tls.clone();
    options.protocol = match &entry.http {
        None => Protocol::Grpc(facts::Options {
            path_form: entry.path.unwrap_or(PathForm::Normalised),
            target: entry.target,
            // As the mesh says, configuration and documents together.
            num_trusted_proxies: None,
        }),
        Some(http) => Protocol::Http(Box::new(http::Options {
            path_form: entry.path.unwrap_or(http.dialect.path_form()),
            target: entry.target,
            limits: config.http_limits,
            ..http.clone()
        })),
    };
    options.respond = respond::Options {
        denied_body: entry.body.clone(),
        debug_headers: entry.debug_headers,
        missing_token_status: entry.missing_token_status,
    };
    options.tokens = entry.tokens;
    if let Some(bytes) = config.message_bytes {
        options.max_message_bytes = bytes;
    }
    options
}
