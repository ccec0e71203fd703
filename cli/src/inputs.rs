//! What a command works on: documents from paths, a snapshot made of them, requests from lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use envoy_types::ext_authz::v3::pb::CheckRequest;
use portcullis_authz::check_request::{self, Lines};
use portcullis_authz::facts;
use portcullis_authz::files::ReadError;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::document::SourceText;
use portcullis_policy::request::{PathForm, Request};
use portcullis_policy::snapshot::Snapshot;
use tonic::metadata::MetadataMap;

use crate::args::{InputArgs, Output, TargetArg};
use crate::config::Config;
use crate::exit::Exit;
use crate::policy::check::Tally;
use crate::{diagnostics, out};

/// Reads every document under `paths`, in their order; `-` is standard input.
///
/// # Errors
/// When a path does not exist or cannot be read.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<SourceText>> {
    portcullis_authz::files::read(paths).map_err(|error| match error {
        ReadError::Missing(_) => {
            anyhow::anyhow!("{error}; give a file, a folder, or `-` for standard input")
        }
        other => other.into(),
    })
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Everything that `decide` and `explain` need before the first request.
pub struct Prepared {
    /// The compiled policies.
    pub snapshot: Arc<Snapshot>,
    /// A candidate is on trial.
    pub has_candidate: bool,
    /// What every request of the input shares.
    facts: facts::Options,
}

/// Documents with errors: nothing was decided.
pub struct Refused {
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// With what.
    pub documents: Documents,
}

impl Refused {
    /// Shows the diagnostics on standard error; the answer is no.
    ///
    /// # Errors
    /// Never; the signature is that of a command's last step.
    pub fn report(&self, output: Output) -> anyhow::Result<Exit> {
        let mut stderr = out::stderr();
        match output {
            Output::Json => {
                for diagnostic in &self.diagnostics {
                    let _ = serde_json::to_writer(&mut stderr, diagnostic);
                    let _ = stderr.write_all(b"\n");
                }
            }
            Output::Human => {
                let _ = diagnostics::write_all(&mut stderr, &self.diagnostics, &self.documents);
                out::report(format_args!(
                    "{}: nothing was compiled",
                    Tally::of(&self.diagnostics).words()
                ));
            }
        }
        Ok(Exit::No)
    }
}

impl Prepared {
    /// Reads configuration and documents and compiles them.
    ///
    /// # Errors
    /// When something cannot be read. Documents that can be read but not accepted are the inner
    /// error.
    pub fn load(args: &InputArgs) -> anyhow::Result<Result<Self, Refused>> {
        let config = Config::load(args.config.config.as_deref())?;
        let policies = config.policies(&args.policies)?;
        let candidate = if args.candidate.is_empty() {
            &config.candidate
        } else {
            &args.candidate
        };
        let from_stdin = policies
            .iter()
            .chain(candidate)
            .chain(std::iter::once(&args.requests))
            .filter(|path| is_stdin(path))
            .count();
        if from_stdin > 1 {
            bail!(
                "standard input can be read once only: give a file to all but one of --policies, --candidate and --requests (which reads standard input unless told otherwise)"
            );
        }
        let documents = Documents {
            base: read(&policies)?,
            candidate: if candidate.is_empty() {
                None
            } else {
                Some(read(candidate)?)
            },
        };
        let mut settings = config.settings();
        settings.accept_invalid = args.accept_invalid;
        match compile(&documents, &settings) {
            Ok(snapshot) => {
                let tally = Tally::of(snapshot.diagnostics());
                if tally.errors + tally.warnings > 0 {
                    out::report(format_args!(
                        "note: {} in the policies: `portcullis policy check` shows them",
                        tally.words()
                    ));
                }
                Ok(Ok(Self {
                    facts: facts::Options {
                        path_form: args.path.map_or(PathForm::Raw, PathForm::from),
                        target: args.target.and_then(TargetArg::target),
                        num_trusted_proxies: snapshot.mesh().num_trusted_proxies,
                    },
                    has_candidate: documents.candidate.is_some(),
                    snapshot: Arc::new(snapshot),
                }))
            }
            Err(diagnostics) => Ok(Err(Refused {
                diagnostics,
                documents,
            })),
        }
    }

    /// The engine's request behind an Envoy one.
    ///
    /// # Errors
    /// What is wrong with it; a server denies it with `invalid_request`.
    pub fn request(&self, check: CheckRequest) -> Result<Request, facts::Invalid> {
        facts::request(check, &MetadataMap::new(), &self.facts)
    }
}

/// Opens the requests at `path`, `-` for standard input.
///
/// # Errors
/// When there is no such file.
pub fn open_requests(path: &Path) -> anyhow::Result<Lines<Box<dyn BufRead>>> {
    let input: Box<dyn BufRead> = if is_stdin(path) {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(path).with_context(|| {
            format!(
                "cannot read requests from `{}`; give a file with `--requests FILE`, or `-` for standard input",
                path.display()
            )
        })?;
        Box::new(BufReader::new(file))
    };
    Ok(check_request::lines(input))
}
