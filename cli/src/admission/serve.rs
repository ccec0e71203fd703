//! `portcullis admission serve`: the validating webhook until told to stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_admission::break_glass::BreakGlass;
use portcullis_admission::certificate::authority::Times;
use portcullis_admission::certificate::files::Files;
use portcullis_admission::certificate::workload_api::WorkloadApi;
use portcullis_admission::enforcement::Enforcement;
use portcullis_admission::judge::NoFlows;
use portcullis_admission::serve::{self, From, Options, Running};
use portcullis_admission::server::{self, Limits};
use portcullis_admission::{certificate, decide, webhook};
use portcullis_wire::kube::{Cluster, client};

use super::args::ServeArgs;
use super::judge::Cases;
use crate::args::GlobalArgs;
use crate::authz::serve::runtime;
use crate::config::{AdmissionConfig, CertificateConfig, Config};
use crate::exit::Exit;
use crate::{logging, shutdown};

/// Where reviews are taken unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9443);
/// Where operators look unless told otherwise.
const MANAGEMENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9903);
/// The Secret with our own authority.
const SECRET: &str = "portcullis-admission-authority";

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// When the configuration cannot be read, there is no way to a cluster, or a socket cannot be had.
pub fn run(args: &ServeArgs, global: &GlobalArgs) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?;
    logging::start_server(global, &config)?;
    runtime()?.block_on(async {
        // Before anything is bound: a signal at start must stop us, too.
        let stop = shutdown::signal()?;
        let running = start(&config, args.listen).await?;
        let address = running.address().context("the listener has no address")?;
        tracing::info!(%address, "taking reviews");
        if let Some(address) = running.management() {
            tracing::info!(%address, "management");
        }
        running.run(stop).await;
        anyhow::Ok(())
    })?;
    Ok(Exit::Yes)
}

/// Binds, at `listen` in place of what the configuration says, and begins to follow its cluster.
///
/// # Errors
/// When there is no way to a cluster, or a socket cannot be had.
pub async fn start(config: &Config, listen: Option<SocketAddr>) -> anyhow::Result<Running> {
    let kubernetes = config.kubernetes.clone().unwrap_or_default();
    let cluster = Cluster {
        kubeconfig: kubernetes.kubeconfig,
        context: kubernetes.context,
    };
    let client = client(&cluster).await?;
    let options = options(config, listen, client.default_namespace())?;
    Ok(serve::start(client, options, Arc::new(Cases), Arc::new(NoFlows)).await?)
}

/// What the configuration means, in a cluster where we live in `own_namespace`.
fn options(
    config: &Config,
    listen: Option<SocketAddr>,
    own_namespace: &str,
) -> anyhow::Result<Options> {
    let admission = &config.admission;
    let usual = Limits::default();
    let seconds = Duration::from_secs;
    let namespace = admission.namespace.as_deref().unwrap_or(own_namespace);
    let service = admission
        .service
        .as_deref()
        .unwrap_or(webhook::CONFIGURATION);
    let mut names = admission.names.clone();
    if names.is_empty() {
        names.push(format!("{service}.{namespace}.svc"));
    }
    let gate = certificate::Options::default();
    let gate = certificate::Options {
        name: names.first().cloned().unwrap_or_default(),
        propagation: admission.propagation.unwrap_or(gate.propagation),
        retire: admission.retire.unwrap_or(gate.retire),
        look: gate.look,
    };
    let mut settings = config.settings();
    settings.serving = true;
    let mut source = portcullis_source::Options::new(settings);
    if let Some(kubernetes) = &config.kubernetes {
        source.namespaces.clone_from(&kubernetes.namespaces);
        source.root_namespace.clone_from(&kubernetes.root_namespace);
        source.mesh_config.clone_from(&kubernetes.mesh_config);
    }
    let usual_enforcement = Enforcement::default();
    Ok(Options {
        server: server::Options {
            listen: listen.or(admission.listen).unwrap_or(LISTEN),
            management: Some(admission.management.unwrap_or(MANAGEMENT)),
            limits: Limits {
                body_bytes: admission.body_bytes.unwrap_or(usual.body_bytes),
                reviews: admission.reviews.unwrap_or(usual.reviews),
                connections: admission.connections.unwrap_or(usual.connections),
                deadline: admission.deadline.unwrap_or(usual.deadline),
                header_timeout: usual.header_timeout,
                idle_timeout: usual.idle_timeout,
            },
            drain_delay: admission.drain_delay.unwrap_or(seconds(5)),
            drain: admission.drain.unwrap_or(seconds(10)),
        },
        enforcement: Enforcement {
            level: admission.enforcement.unwrap_or(usual_enforcement.level),
            floor: admission.floor.unwrap_or(usual_enforcement.floor),
            codes: admission.codes.clone(),
        },
        break_glass: BreakGlass {
            groups: admission.break_glass.clone(),
        },
        certificate: from(admission, namespace, names, gate.propagation)?,
        gate,
        configuration: (!admission.external_bundle).then(|| {
            let name = admission.webhook_configuration.as_deref();
            name.unwrap_or(webhook::CONFIGURATION).to_owned()
        }),
        source,
        cases: admission.cases.unwrap_or(decide::CASES),
    })
}

fn from(
    admission: &AdmissionConfig,
    namespace: &str,
    names: Vec<String>,
    propagation: Duration,
) -> anyhow::Result<From> {
    Ok(match admission.certificate.clone() {
        CertificateConfig::Files {
            certificate,
            key,
            authorities,
        } => {
            anyhow::ensure!(
                authorities.is_some() || admission.external_bundle,
                "`admission.certificate.files` needs `authorities` for the caBundle, unless `admission.ca_bundle` is `external`"
            );
            From::Files(Files {
                certificate,
                key,
                roots: authorities,
            })
        }
        CertificateConfig::WorkloadApi { endpoint, hint } => {
            let endpoint = endpoint.or_else(|| std::env::var("SPIFFE_ENDPOINT_SOCKET").ok());
            let endpoint = endpoint.context(
                "`admission.certificate.workload_api` has no `endpoint`, and SPIFFE_ENDPOINT_SOCKET is not set",
            )?;
            From::WorkloadApi(WorkloadApi { endpoint, hint })
        }
        CertificateConfig::Secret {
            name,
            authority_ttl,
            certificate_ttl,
            lead,
        } => {
            let usual = Times::default();
            let times = Times {
                authority: authority_ttl.unwrap_or(usual.authority),
                certificate: certificate_ttl.unwrap_or(usual.certificate),
                lead: lead.unwrap_or(usual.lead),
            };
            anyhow::ensure!(
                times.certificate <= times.authority / 4 && times.lead <= times.authority / 4,
                "`certificate_ttl` and `lead` of `admission.certificate.secret` are at most a quarter of `authority_ttl`"
            );
            anyhow::ensure!(
                propagation < times.lead,
                "`admission.certificate.secret.lead` is longer than `admission.propagation`"
            );
            From::Secret {
                namespace: namespace.to_owned(),
                name: name.unwrap_or_else(|| SECRET.to_owned()),
                names,
                times,
            }
        }
    })
}
