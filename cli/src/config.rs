//! `portcullis.yaml`: the one configuration file.
//!
//! Precedence: flag, environment, file, default. What is not a key is an error that names the
//! nearest one, and every mistake of the file is reported at once.

mod admission;
mod ca;
mod keys;
mod kubernetes;
mod listener;
mod mesh;
mod observe;
mod read;
mod tokens;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use portcullis_authz::endpoint::Endpoint;
use portcullis_authz::limits::Limits;
use portcullis_authz::respond::DeniedBody;
use portcullis_authz::server::TokensBy;
use portcullis_authz::{http, observe as seen, reload, tls, token};
use portcullis_policy::document::{self, Mark, SourceText};
use portcullis_policy::request::{PathForm, Target};
use portcullis_policy::resource::MeshConfig;
use portcullis_policy::settings::{CustomProvider, DeclaredWorkload, Settings};

use read::Mistake;

pub use admission::{AdmissionConfig, CertificateConfig};
pub use ca::{CaConfig, CaKubernetesConfig, WebConfig};
pub use keys::{Key, keys};
pub use kubernetes::{KubernetesConfig, Statuses};

use crate::args::LogFormat;

/// Where ext_authz is served unless told otherwise.
pub const DEFAULT_ENDPOINT: Endpoint =
    Endpoint::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9191));

/// One entry of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub endpoint: Endpoint,
    /// Permissions of a unix socket.
    pub socket_mode: u32,
    /// `tls`.
    pub tls: Option<tls::Options>,
    /// One of the HTTP dialects and what belongs to it; `None` is gRPC. Target, path form and limits
    /// in there are not read: they stand here and in [`Config`].
    pub http: Option<http::Options>,
    /// How paths arrive; `None` is what is usual for what the listener speaks.
    pub path: Option<PathForm>,
    /// Target, where the request does not say it; `None` is `auto`.
    pub target: Option<Target>,
    /// Body of a denial.
    pub body: DeniedBody,
    /// Answers carry `x-portcullis-*` headers.
    pub debug_headers: bool,
    /// Status of a denial for want of a token, where it is not 403.
    pub missing_token_status: Option<u16>,
    /// Who verifies tokens.
    pub tokens: TokensBy,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT,
            socket_mode: 0o660,
            tls: None,
            http: None,
            path: None,
            target: None,
            body: DeniedBody::Empty,
            debug_headers: false,
            missing_token_status: None,
            tokens: TokensBy::Proxy,
        }
    }
}

/// The configuration, as meant: paths are relative to the working directory, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `policies`.
    pub policies: Vec<PathBuf>,
    /// `candidate`.
    pub candidate: Vec<PathBuf>,
    /// `listeners`; empty when the file has none.
    pub listeners: Vec<Listener>,
    /// `mesh`.
    pub mesh: MeshConfig,
    /// `workloads`.
    pub workloads: Vec<DeclaredWorkload>,
    /// `kubernetes`; `None` without one.
    pub kubernetes: Option<KubernetesConfig>,
    /// `ca`.
    pub ca: CaConfig,
    /// `admission`.
    pub admission: AdmissionConfig,
    /// `identity.require_svid`.
    pub require_svid: bool,
    /// `custom_providers`.
    pub custom_providers: BTreeMap<String, CustomProvider>,
    /// `tokens`.
    pub tokens: token::Settings,
    /// `default_workload`.
    pub default_workload: Option<String>,
    /// `reload`.
    pub reload: reload::Options,
    /// `limits.message_bytes`.
    pub message_bytes: Option<usize>,
    /// `limits`, what all listeners share.
    pub limits: Limits,
    /// `limits.header_bytes`, `limits.header_timeout`, `limits.idle_timeout`.
    pub http_limits: http::Limits,
    /// `management`, `decision_log`, `otlp`.
    pub observe: seen::Options,
    /// `limits.drain`.
    pub drain: Option<Duration>,
    /// `limits.drain_delay`.
    pub drain_delay: Option<Duration>,
    /// `log.level`.
    pub log_level: Option<String>,
    /// `log.format`.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Reads `file`; without one, everything has its default.
    ///
    /// # Errors
    /// When the file cannot be read, or with every mistake in it.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let name = file.display().to_string();
        let bytes = std::fs::read(file)
            .with_context(|| format!("cannot read the configuration `{name}`"))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(bytes, folder, &name).map_err(|mistakes| {
            let mut message = format!("the configuration `{name}` has mistakes");
            for Mistake { at, message: what } in mistakes {
                message.push_str(&format!("\n  {name}:{}:{}: {what}", at.line, at.column));
            }
            anyhow::anyhow!(message)
        })
    }

    fn parse(bytes: Vec<u8>, folder: &Path, file: &str) -> Result<Self, Vec<Mistake>> {
        let source = SourceText {
            file: file.into(),
            bytes: bytes.into(),
        };
        let documents = document::parse(&source).map_err(|diagnostics| {
            let mistakes = diagnostics.into_iter().map(|found| Mistake {
                at: Mark {
                    line: found.location.line,
                    column: found.location.column,
                },
                message: match found.hint {
                    Some(hint) => format!("{}; {hint}", found.message),
                    None => found.message,
                },
            });
            mistakes.collect::<Vec<_>>()
        })?;
        match documents.as_slice() {
            [] => Ok(Self::default()),
            [root] => read::config(root, folder, file),
            [_, second, ..] => Err(vec![Mistake {
                at: second.at,
                message: "a second document; a configuration is one".to_owned(),
            }]),
        }
    }

    /// What a compilation depends on beside the documents.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            mesh: self.mesh.clone(),
            workloads: self.workloads.clone(),
            require_svid: self.require_svid,
            custom_providers: self.custom_providers.clone(),
            default_workload: self.default_workload.clone(),
            ..Settings::default()
        }
    }

    /// The policies' paths: those of the flag, else PORTCULLIS_POLICIES, else the file's.
    ///
    /// # Errors
    /// When nothing names any.
    pub fn policies(&self, flag: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
        let paths = self.policies_if_any(flag);
        if paths.is_empty() {
            bail!(
                "no policies: give `--policies PATH`, set PORTCULLIS_POLICIES, or set `policies` in the configuration"
            );
        }
        Ok(paths)
    }

    /// The same, where there may be none.
    #[must_use]
    pub fn policies_if_any(&self, flag: &[PathBuf]) -> Vec<PathBuf> {
        if !flag.is_empty() {
            return flag.to_vec();
        }
        if let Some(paths) = std::env::var_os("PORTCULLIS_POLICIES") {
            let paths: Vec<PathBuf> = std::env::split_paths(&paths)
                .filter(|path| !path.as_os_str().is_empty())
                .collect();
            if !paths.is_empty() {
                return paths;
            }
        }
        self.policies.clone()
    }
}
