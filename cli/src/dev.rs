//! `portcullis dev`: everything in one process, on the shipped examples, to be played with.

mod echo;
mod envoy;
mod examples;
mod identity;
mod next;
mod replay;
pub mod service;
mod webhook;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::facts;
use portcullis_authz::reload::{self, PolicyFiles, ReloadStatus};
use portcullis_authz::respond::{self, DeniedBody};
use portcullis_authz::server::{ListenerOptions, Protocol, ServeOptions, Server};
use portcullis_policy::request::PathForm;
use portcullis_policy::settings::Settings;
use tokio::sync::{oneshot, watch};

use self::identity::Picture;
use self::webhook::Webhook;
use crate::args::{DevArgs, GlobalArgs};
use crate::authz::serve::{kubernetes, runtime};
use crate::exit::Exit;
use crate::out::{self, BAD, BOLD, CAUTION, DIM, GOOD};
use crate::policy::check::{Tally, count};
use crate::{logging, shutdown};

/// How long the first look at a cluster may take before it is told that it takes long.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(30);
/// What a cluster changes within this time is told as one reload.
const TOGETHER: Duration = Duration::from_secs(1);

/// What is served: folders, and the requests to try on them.
struct Served {
    policies: Vec<PathBuf>,
    /// Folder and requests of the shipped example.
    example: Option<examples::Placed>,
}

/// Serves, replays, stays up.
///
/// # Errors
/// When something cannot be written, bound or started.
pub fn run(args: &DevArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    logging::start(
        // What reload has to say is printed by `follow`.
        global
            .log_level
            .as_deref()
            .unwrap_or("warn,portcullis_authz::reload=off"),
        global.log_format.unwrap_or_default(),
    )?;
    let Ok(Endpoint::Tcp(address)) = args.listen.parse::<Endpoint>() else {
        bail!(
            "`{}` is no address for --listen; write `IP:PORT`, such as `127.0.0.1:9191`",
            args.listen
        );
    };
    // Before anything is written or bound: without an Envoy there is nothing to start.
    let envoy = if args.envoy {
        Some(envoy::find()?)
    } else {
        None
    };
    // What a cluster has in force is not to be mixed with an example.
    let served = if args.policies.is_empty() && args.kubeconfig.is_none() {
        let placed = examples::place(&args.dir)?;
        Served {
            policies: vec![placed.folder.clone()],
            example: Some(placed),
        }
    } else {
        Served {
            policies: args.policies.clone(),
            example: None,
        }
    };
    runtime()?.block_on(serve(args, address, &served, envoy.as_deref()))
}

async fn serve(
    args: &DevArgs,
    address: SocketAddr,
    served: &Served,
    envoy: Option<&Path>,
) -> anyhow::Result<Exit> {
    let stop = shutdown::signal()?;
    let mut options = options(address, served);
    let mut source = None;
    if let Some(kubeconfig) = &args.kubeconfig {
        let (following, feed) =
            kubernetes::start(&webhook::cluster(kubeconfig), &options.settings).await?;
        options.feed = Some(feed);
        source = Some(following);
    }
    let server = Server::start(options).await?;
    let address = server
        .endpoints()
        .find_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(reachable(*address)),
            Endpoint::Unix(_) | Endpoint::Activated(_) => None,
        })
        .context("the service has no address")?;
    let status = server.status();
    let (finish, finished) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async {
        // An error means that the sender is gone, which is a stop, too.
        let _ = finished.await;
    }));
    // Whatever happens below, the servers are asked to end and waited for.
    let played = tokio::select! {
        played = judge(args, address, served, envoy, status) => played,
        () = stop => Ok(Exit::Yes),
    };
    drop(finish);
    serving.await.context("the service ended")??;
    if let Some(source) = source {
        source.stop().await;
    }
    played
}

/// Judges changes in the cluster of a kubeconfig, where there is one.
async fn judge(
    args: &DevArgs,
    address: SocketAddr,
    served: &Served,
    envoy: Option<&Path>,
    status: watch::Receiver<ReloadStatus>,
) -> anyhow::Result<Exit> {
    let webhook = match &args.kubeconfig {
        Some(kubeconfig) => Some(Webhook::start(kubeconfig, args.admission_listen).await?),
        None => None,
    };
    let played = identify(args, address, served, envoy, status).await;
    if let Some(webhook) = webhook {
        webhook.stop().await;
    }
    played
}

/// Plays with identities where there is an example that has workloads.
async fn identify(
    args: &DevArgs,
    address: SocketAddr,
    served: &Served,
    envoy: Option<&Path>,
    status: watch::Receiver<ReloadStatus>,
) -> anyhow::Result<Exit> {
    let mut picture = match &served.example {
        Some(_) => Some(Picture::start(args, &served.policies, address).await?),
        None => None,
    };
    let played = play(args, address, served, envoy, status, picture.as_mut()).await;
    if let Some(picture) = picture {
        picture.stop().await?;
    }
    played
}

async fn play(
    args: &DevArgs,
    address: SocketAddr,
    served: &Served,
    envoy: Option<&Path>,
    mut status: watch::Receiver<ReloadStatus>,
    mut picture: Option<&mut Picture>,
) -> anyhow::Result<Exit> {
    if args.kubeconfig.is_some() {
        let read = status.wait_for(|status| status.revision.is_some());
        // Whoever waits for longer is told what is missing.
        let _ = tokio::time::timeout(FIRST_SNAPSHOT, read).await;
    }
    let first = status.borrow_and_update().clone();
    introduce(args, address, served, &first, picture.as_deref())?;
    if let Some(example) = &served.example {
        replay::run(address, &example.requests).await?;
    }
    if let Some(picture) = &mut picture {
        picture.show().await?;
    }
    let mut running = match envoy {
        Some(binary) => Some(start_envoy(args, binary, address).await?),
        None => None,
    };
    if args.once {
        if let Some(envoy) = &mut running {
            envoy.stop().await;
        }
        return Ok(if first.revision.is_some() {
            Exit::Yes
        } else {
            Exit::No
        });
    }
    let example = served.example.as_ref();
    next::print(
        address,
        example.map(|example| (example.folder.as_path(), example.requests.as_path())),
        example.map(|_| args.dir.join("ca")).as_deref(),
    )?;
    let mut out = out::stdout();
    writeln!(
        out,
        "\n{DIM}serving; {} the policies and see them reloaded, Ctrl-C ends{DIM:#}",
        match args.kubeconfig {
            Some(_) => "apply",
            None => "edit",
        }
    )?;
    out.flush()?;
    let followed = tokio::select! {
        followed = follow(args, address, served, status, picture) => followed.map(|()| Exit::Yes),
        () = ended(&mut running) => Err(anyhow::anyhow!("Envoy has ended by itself")),
    };
    if let Some(envoy) = &mut running {
        envoy.stop().await;
    }
    followed
}

fn options(address: SocketAddr, served: &Served) -> ServeOptions {
    let mut listener = ListenerOptions::new("dev", Endpoint::Tcp(address));
    listener.protocol = Protocol::Grpc(facts::Options {
        path_form: PathForm::Normalised,
        ..facts::Options::default()
    });
    // Everything that helps somebody who tries it out; none of it is on in `authz serve`.
    listener.respond = respond::Options {
        denied_body: DeniedBody::Decision,
        debug_headers: true,
        ..respond::Options::default()
    };
    ServeOptions {
        listeners: vec![listener],
        files: PolicyFiles {
            paths: served.policies.clone(),
            candidate: Vec::new(),
        },
        feed: None,
        settings: settings(),
        reload: reload::Options::default(),
        drain: Duration::from_secs(2),
        drain_delay: Duration::ZERO,
        limits: portcullis_authz::limits::Limits::default(),
        tokens: portcullis_authz::token::Settings::default(),
        observe: portcullis_authz::observe::Options::default(),
    }
}

fn settings() -> Settings {
    Settings {
        serving: true,
        ..Settings::default()
    }
}

/// What listens on every address is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn introduce(
    args: &DevArgs,
    address: SocketAddr,
    served: &Served,
    status: &ReloadStatus,
    picture: Option<&Picture>,
) -> anyhow::Result<()> {
    let mut out = out::stdout();
    writeln!(
        out,
        "{BOLD}Portcullis {}{BOLD:#}\n",
        env!("CARGO_PKG_VERSION")
    )?;
    let mut paths: Vec<String> = served
        .policies
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let told = match (&served.example, &args.kubeconfig) {
        (Some(placed), _) if placed.found => "found there and kept; edit them",
        (Some(_), _) => "shipped examples, written for you to edit",
        (None, Some(_)) if paths.is_empty() => "as the API server has them",
        (None, Some(_)) => "yours, beside those of the API server",
        (None, None) => "yours",
    };
    if let Some(kubeconfig) = &args.kubeconfig {
        paths.push(format!("the cluster of {}", kubeconfig.display()));
        if status.revision.is_none() {
            let why = "the cluster was not read yet: every request is denied until it is";
            writeln!(out, "  {BAD}waiting{BAD:#}   {why}")?;
        }
    }
    writeln!(out, "  policies  {} {DIM}({told}){DIM:#}", paths.join(" "))?;
    write_status(&mut out, status)?;
    writeln!(out, "  serving   ext_authz on {GOOD}{address}{GOOD:#}")?;
    if let Some(picture) = picture {
        let socket = next::short(picture.socket());
        writeln!(
            out,
            "  identity  SVIDs of {} on {GOOD}{}{GOOD:#}",
            identity::TRUST_DOMAIN,
            socket.display()
        )?;
    }
    if let Some(placed) = &served.example {
        writeln!(
            out,
            "\n{BOLD}the requests in {}, asked over gRPC{BOLD:#}\n",
            placed.requests.display()
        )?;
    }
    out.flush()?;
    Ok(())
}

fn write_status(out: &mut impl std::io::Write, status: &ReloadStatus) -> std::io::Result<()> {
    let tally = Tally::of(&status.diagnostics);
    if let Some(error) = &status.last_error {
        writeln!(out, "  {BAD}refused{BAD:#}   {error}")?;
        for diagnostic in status.diagnostics.iter().filter(|found| found.is_error()) {
            writeln!(out, "            {diagnostic}")?;
        }
        let kept = match &status.revision {
            Some(revision) => format!("revision {revision} stays in force"),
            None => "every request is denied until they are right".to_owned(),
        };
        return writeln!(out, "            {CAUTION}{kept}{CAUTION:#}");
    }
    if let Some(revision) = &status.revision {
        let plural = if status.policies == 1 {
            "policy"
        } else {
            "policies"
        };
        writeln!(
            out,
            "  in force  {} {plural}, revision {revision} {DIM}({}){DIM:#}",
            status.policies,
            tally.words()
        )?;
    }
    Ok(())
}

/// Tells of every reload and replays the requests on what is in force then.
async fn follow(
    args: &DevArgs,
    address: SocketAddr,
    served: &Served,
    mut status: watch::Receiver<ReloadStatus>,
    mut picture: Option<&mut Picture>,
) -> anyhow::Result<()> {
    let mut reloads = 1_u64;
    loop {
        tokio::select! {
            changed = status.changed() => match changed {
                Ok(()) => {}
                Err(_) => return Ok(()),
            },
            ended = live(&mut picture) => return ended,
        }
        if args.kubeconfig.is_some() {
            // Pods come and go in a cluster: what changes together is told together.
            tokio::time::sleep(TOGETHER).await;
        }
        let now = status.borrow_and_update().clone();
        let mut out = out::stdout();
        writeln!(
            out,
            "\n{BOLD}{} since start{BOLD:#}",
            count(usize::try_from(reloads).unwrap_or(usize::MAX), "reload")
        )?;
        reloads += 1;
        write_status(&mut out, &now)?;
        out.flush()?;
        if let (Some(example), None) = (&served.example, &now.last_error)
            && let Err(error) = replay::run(address, &example.requests).await
        {
            // The file of requests is edited, too: a mistake there is no reason to end.
            writeln!(out, "  {BAD}error{BAD:#}     {error:#}")?;
            out.flush()?;
        }
        if let (Some(picture), None) = (&mut picture, &now.last_error) {
            picture.show().await?;
        }
    }
}

/// Ends when a service of the picture does; never where there is none.
async fn live(picture: &mut Option<&mut Picture>) -> anyhow::Result<()> {
    match picture {
        Some(picture) => picture.live().await,
        None => std::future::pending().await,
    }
}

async fn start_envoy(
    args: &DevArgs,
    binary: &Path,
    authz: SocketAddr,
) -> anyhow::Result<envoy::Envoy> {
    std::fs::create_dir_all(&args.dir).with_context(|| {
        format!(
            "cannot write to `{}`; choose another folder with --dir",
            args.dir.display()
        )
    })?;
    // A dot: no manifest, passed over by whoever reads the folder.
    let file = args.dir.join(".envoy.yaml");
    let upstream = echo::start()
        .await
        .context("cannot start the echo service")?;
    let envoy = envoy::Envoy::start(binary, &file, args.envoy_listen, authz, upstream).await?;
    next::print_envoy(envoy.address, &file)?;
    Ok(envoy)
}

/// Ends when the Envoy that runs does; never where there is none.
async fn ended(envoy: &mut Option<envoy::Envoy>) {
    match envoy {
        Some(envoy) => envoy.ended().await,
        None => std::future::pending().await,
    }
}
