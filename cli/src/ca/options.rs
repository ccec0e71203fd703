//! From flags, environment and configuration to what the certificate authority is made from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use portcullis_ca::attest::kubernetes::AttestorOptions;
use portcullis_ca::ca::{KeyStorage, LIST_LIFE, Options};
use portcullis_ca::key::disk::Secret;
use portcullis_ca::kubernetes;
use portcullis_ca::kubernetes::{Cluster, EntriesOptions};
use portcullis_ca::observe::otlp;
use portcullis_ca::store;
use portcullis_ca::trust_domain::TrustDomain;
use portcullis_ca::web::{WebContent, WebIdentity, WebOptions};

use super::args::{DataArg, InitArgs};
use crate::config::{CaConfig, CaKubernetesConfig, Config, WebConfig};

/// The trust domain of a folder that nobody named one for.
const DEFAULT_TRUST_DOMAIN: &str = "example.org";
/// Where a pod is told its node: ours, and that of SPIRE's agent.
const NODE_NAMES: [&str; 2] = ["NODE_NAME", "MY_NODE_NAME"];
/// The end of a service's DNS name where nobody chose another.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Pods are believed for at least this long.
const MIN_AGE: Duration = Duration::from_secs(60);
/// Passphrase of the keys on disk.
const PASSPHRASE: &str = "PORTCULLIS_CA_PASSPHRASE";

/// The data folder: the flag's or the environment's, else the default.
///
/// # Errors
/// When there is no home to keep it in.
pub fn data(arg: &DataArg) -> anyhow::Result<PathBuf> {
    match &arg.data {
        Some(data) => Ok(data.clone()),
        None => default_data(),
    }
}

fn default_data() -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/portcullis/ca"));
    }
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = from("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| from("HOME").map(|home| Path::new(&home).join(".local/state")));
    let state =
        state.context("no data folder: give `--data DIR`, there is no HOME to keep it in")?;
    Ok(state.join("portcullis/ca"))
}

/// Everything that the certificate authority is made from, and the workload socket of the configuration.
///
/// # Errors
/// When the configuration cannot be read, or something in it cannot be.
pub async fn options(
    args: &InitArgs,
    config: &Config,
) -> anyhow::Result<(Options, Option<PathBuf>)> {
    let ca = &config.ca;
    let folder = match (&args.data.data, &ca.data) {
        (Some(data), _) | (None, Some(data)) => data.clone(),
        (None, None) => default_data()?,
    };
    let named = args.trust_domain.as_ref().or(ca.trust_domain.as_ref());
    let trust_domain = match named {
        Some(name) => TrustDomain::from_input(name)?,
        None => match store::trust_domain_of(&folder).await {
            Some(name) => TrustDomain::new(&name)?,
            None => TrustDomain::new(DEFAULT_TRUST_DOMAIN)?,
        },
    };
    let mut options = Options::new(trust_domain, folder);
    apply(&mut options, ca)?;
    Ok((options, ca.socket.clone()))
}

fn apply(options: &mut Options, ca: &CaConfig) -> anyhow::Result<()> {
    if let Some(ttl) = ca.authority_ttl {
        options.authority_ttl = ttl;
    }
    if let Some(ttl) = ca.x509_ttl {
        options.x509_ttl = ttl;
        options.max_x509_ttl = options.max_x509_ttl.max(ttl);
    }
    if let Some(ttl) = ca.jwt_ttl {
        options.jwt_ttl = ttl;
        options.max_jwt_ttl = options.max_jwt_ttl.max(ttl);
    }
    if let Some(key) = &ca.x509_key {
        options.x509_key = key.parse()?;
    }
    if let Some(key) = &ca.jwt_key {
        options.jwt_key = key.parse()?;
    }
    if let Some(hint) = ca.refresh_hint {
        options.refresh_hint = hint;
    }
    // A successor is prepared half a life ahead and signs a third of it later: three hints must fit in between.
    let longest = options.authority_ttl / 12;
    options.refresh_hint = options
        .refresh_hint
        .min(longest)
        .max(Duration::from_secs(1));
    options.wit_svid = ca.wit_svid;
    options.revocation = ca.revocation.then_some(LIST_LIFE);
    options.federation_roots = ca.federation_roots.clone();
    if let Some(interval) = ca.federation_interval {
        options.federation_interval = interval;
    }
    options.jwt_issuer = issuer(ca)?;
    options.upstream = match (&ca.upstream_certificate, &ca.upstream_key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        (None, None) => None,
        _ => anyhow::bail!("`ca.upstream` needs both `certificate` and `key`"),
    };
    options.keys = match (ca.keys_in_memory, passphrase(ca)?) {
        (true, _) => KeyStorage::Memory,
        (false, Some(passphrase)) => KeyStorage::Disk(Secret::Passphrase(passphrase.into())),
        (false, None) => KeyStorage::Disk(Secret::File),
    };
    Ok(())
}

/// `iss` of tokens: what OpenID Connect clients look it up by, where they do.
fn issuer(ca: &CaConfig) -> anyhow::Result<Option<String>> {
    match (
        &ca.jwt_issuer,
        ca.oidc.as_ref().and_then(|oidc| oidc.issuer.as_ref()),
    ) {
        (Some(jwt), Some(oidc)) if jwt != oidc => anyhow::bail!(
            "`ca.oidc.issuer` is `{oidc}` and `ca.jwt_issuer` is `{jwt}`: they are the same thing, leave one of them out"
        ),
        (jwt, oidc) => Ok(oidc.or(jwt.as_ref()).cloned()),
    }
}

/// The web listeners of the configuration.
///
/// # Errors
/// When something of one is missing or unusable.
pub fn web(ca: &CaConfig, options: &Options) -> anyhow::Result<Vec<WebOptions>> {
    let mut all = Vec::new();
    if let Some(endpoint) = &ca.bundle_endpoint {
        all.push(listener(
            "ca.bundle_endpoint",
            endpoint,
            WebContent::Bundle,
        )?);
    }
    if let Some(oidc) = &ca.oidc {
        let issuer = options.jwt_issuer.clone();
        let issuer =
            issuer.context("`ca.oidc.issuer` is missing: the URL that clients look it up by")?;
        all.push(listener("ca.oidc", oidc, WebContent::Oidc { issuer })?);
    }
    if let Some(address) = &ca.management {
        all.push(WebOptions {
            listen: address.parse()?,
            identity: WebIdentity::Plain,
            content: WebContent::Management,
        });
    }
    Ok(all)
}

/// The cluster of the configuration.
///
/// # Errors
/// When nothing says which node this is.
pub fn kubernetes(ca: &CaConfig) -> anyhow::Result<Option<kubernetes::Options>> {
    let Some(config) = &ca.kubernetes else {
        return Ok(None);
    };
    let attestor = match config.attestor {
        Some(false) => None,
        None | Some(true) => {
            let named = config.node.clone().or_else(|| {
                let names = NODE_NAMES.iter();
                let mut values = names.filter_map(|name| std::env::var(name).ok());
                values.find(|value| !value.is_empty())
            });
            let node = named.context(
                "`ca.kubernetes.node` is missing: name the node, or give NODE_NAME from the field `spec.nodeName`",
            )?;
            Some((node, attestor(config)))
        }
    };
    Ok(Some(kubernetes::Options {
        cluster: Cluster {
            kubeconfig: config.kubeconfig.clone(),
            context: config.context.clone(),
        },
        attestor,
        entries: config.cluster_spiffe_ids.then(|| EntriesOptions {
            cluster_name: config.cluster_name.clone(),
            cluster_domain: Some(
                config
                    .cluster_domain
                    .clone()
                    .unwrap_or_else(|| CLUSTER_DOMAIN.to_owned()),
            ),
            class: config.class_name.clone().unwrap_or_default(),
            takes_classless: config.takes_classless,
            ignored_namespaces: config.ignore_namespaces.clone(),
            parent: config.parent_id.clone(),
        }),
    }))
}

fn attestor(config: &CaKubernetesConfig) -> AttestorOptions {
    let default = AttestorOptions::default();
    AttestorOptions {
        proc_root: config.proc_root.clone(),
        container_selectors: config
            .container_selectors
            .unwrap_or(default.container_selectors),
        wait: config.container_wait.unwrap_or(default.wait),
        // Where nothing changes, the API server says nothing for half a minute.
        max_age: config.max_age.unwrap_or(default.max_age).max(MIN_AGE),
    }
}

/// The collector of the configuration, where it gets traces.
#[must_use]
pub fn collector(config: &Config) -> Option<otlp::Options> {
    let collector = config.observe.otlp.as_ref().filter(|otlp| otlp.traces)?;
    // The name of the other service says that none was given.
    let default = portcullis_authz::observe::otlp::Options::new("").service;
    Some(otlp::Options {
        collector: collector.collector.clone(),
        service: match collector.service == default {
            true => "portcullis-ca".to_owned(),
            false => collector.service.clone(),
        },
    })
}

fn listener(section: &str, config: &WebConfig, content: WebContent) -> anyhow::Result<WebOptions> {
    let listen = config.listen.as_deref();
    let listen = listen.with_context(|| format!("`{section}.listen` is missing"))?;
    let files = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => Some(WebIdentity::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        }),
        (None, None) => None,
        _ => anyhow::bail!("`{section}` needs both `certificate` and `key`"),
    };
    let identity = match (files, &content) {
        (Some(files), _) => files,
        (None, WebContent::Bundle) => WebIdentity::Svid,
        (None, WebContent::Oidc { .. } | WebContent::Management) => WebIdentity::Plain,
    };
    Ok(WebOptions {
        listen: listen.parse()?,
        identity,
        content,
    })
}

fn passphrase(ca: &CaConfig) -> anyhow::Result<Option<String>> {
    if let Ok(passphrase) = std::env::var(PASSPHRASE)
        && !passphrase.is_empty()
    {
        return Ok(Some(passphrase));
    }
    let Some(file) = &ca.passphrase_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the passphrase `{}`", file.display()))?;
    let passphrase = text.trim_end_matches(['\r', '\n']).to_owned();
    anyhow::ensure!(
        !passphrase.is_empty(),
        "the passphrase `{}` is empty",
        file.display()
    );
    Ok(Some(passphrase))
}
