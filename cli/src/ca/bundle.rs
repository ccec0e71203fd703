//! `portcullis ca bundle`: our bundle, and those of other trust domains.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use portcullis_ca::admin::convert;
use portcullis_ca::bundle::{Bundle, MAX_DOCUMENT};
use portcullis_ca::key::pem;
use portcullis_ca::proto::spire::api::server::bundle::v1 as api;
use portcullis_ca::proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use portcullis_ca::trust_domain::TrustDomain;
use serde_json::json;
use tonic::transport::Channel;

use super::args::{BundleCommand, BundleFormat, DataArg, DeleteMode};
use super::client;
use crate::args::Output;
use crate::exit::Exit;
use crate::out;

/// Runs one verb.
///
/// # Errors
/// When the server cannot be reached, or a file cannot be read.
pub fn run(command: BundleCommand, output: Output) -> anyhow::Result<Exit> {
    match command {
        BundleCommand::Show {
            data,
            trust_domain,
            format,
        } => show(&data, trust_domain.as_deref(), format),
        BundleCommand::Set {
            data,
            trust_domain,
            file,
        } => set(&data, &trust_domain, &file, output),
        BundleCommand::List(data) => list(&data, output),
        BundleCommand::Delete {
            data,
            trust_domain,
            mode,
        } => delete(&data, &trust_domain, mode, output),
    }
}

fn bundles(channel: Channel) -> BundleClient<Channel> {
    BundleClient::new(channel)
        .max_decoding_message_size(portcullis_ca::admin::MAX_MESSAGE)
        .max_encoding_message_size(portcullis_ca::admin::MAX_MESSAGE)
}

fn show(data: &DataArg, trust_domain: Option<&str>, format: BundleFormat) -> anyhow::Result<Exit> {
    let wanted = trust_domain.map(TrustDomain::from_input).transpose()?;
    client::with(data, |channel| async move {
        let mut client = bundles(channel);
        let own = client
            .get_bundle(api::GetBundleRequest::default())
            .await?
            .into_inner();
        let message = match wanted {
            Some(wanted) if wanted.as_str() != own.trust_domain => {
                let request = api::GetFederatedBundleRequest {
                    trust_domain: wanted.to_string(),
                    output_mask: None,
                };
                client.get_federated_bundle(request).await?.into_inner()
            }
            _ => own,
        };
        let bundle = convert::bundle(&message)?;
        let mut stdout = out::stdout();
        match format {
            BundleFormat::Spiffe => writeln!(stdout, "{}", bundle.to_document())?,
            BundleFormat::Pem => {
                for authority in &bundle.x509_authorities {
                    write!(stdout, "{}", pem::certificate_text(&authority.der))?;
                }
            }
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn set(data: &DataArg, trust_domain: &str, file: &Path, output: Output) -> anyhow::Result<Exit> {
    let trust_domain = TrustDomain::from_input(trust_domain)?;
    let bundle = match read(trust_domain, file)? {
        Ok(bundle) => bundle,
        Err(message) => {
            client::report(&format!("`{}`: {message}", file.display()));
            return Ok(Exit::No);
        }
    };
    client::with(data, |channel| async move {
        let request = api::BatchSetFederatedBundleRequest {
            bundle: vec![convert::to_bundle(&bundle, None)],
            output_mask: None,
        };
        let results = bundles(channel)
            .batch_set_federated_bundle(request)
            .await?
            .into_inner()
            .results;
        let mut stdout = out::stdout();
        for result in results {
            if let Err(message) = client::outcome(result.status.as_ref()) {
                client::report(&message);
                return Ok(Exit::No);
            }
        }
        line(&mut stdout, "set", &bundle, output)?;
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

/// A bundle from PEM or a SPIFFE document; the inner error is what is wrong with what was read.
///
/// # Errors
/// When the file cannot be read.
pub fn read(trust_domain: TrustDomain, file: &Path) -> anyhow::Result<Result<Bundle, String>> {
    let name = file.display().to_string();
    let limit = u64::try_from(MAX_DOCUMENT)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    let read = match name.as_str() {
        "-" => std::io::stdin().take(limit).read_to_end(&mut bytes),
        _ => std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read `{name}`"))?;
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        return Ok(Bundle::from_document(trust_domain, &bytes).map_err(|error| error.to_string()));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        bail!("`{name}` is neither PEM nor a SPIFFE bundle document");
    };
    Ok(pem::certificates(text)
        .map_err(|error| error.to_string())
        .and_then(|certificates| {
            Bundle::from_certificates(trust_domain, certificates)
                .map_err(|(place, refusal)| format!("certificate {}: {refusal}", place + 1))
        }))
}

fn list(data: &DataArg, output: Output) -> anyhow::Result<Exit> {
    client::with(data, |channel| async move {
        let request = api::ListFederatedBundlesRequest::default();
        let found = bundles(channel)
            .list_federated_bundles(request)
            .await?
            .into_inner()
            .bundles;
        let mut stdout = out::stdout();
        let mut lines = Vec::new();
        for message in &found {
            let bundle = convert::bundle(message)?;
            match output {
                Output::Human => line(&mut stdout, "", &bundle, output)?,
                Output::Json => lines.push(to_json(&bundle)),
            }
        }
        if output == Output::Json {
            writeln!(stdout, "{}", serde_json::Value::from(lines))?;
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn delete(
    data: &DataArg,
    trust_domain: &str,
    mode: DeleteMode,
    output: Output,
) -> anyhow::Result<Exit> {
    use api::batch_delete_federated_bundle_request::Mode;
    let trust_domain = TrustDomain::from_input(trust_domain)?;
    let mode = match mode {
        DeleteMode::Restrict => Mode::Restrict,
        DeleteMode::Delete => Mode::Delete,
        DeleteMode::Dissociate => Mode::Dissociate,
    };
    client::with(data, |channel| async move {
        let request = api::BatchDeleteFederatedBundleRequest {
            trust_domains: vec![trust_domain.to_string()],
            mode: mode.into(),
        };
        let answer = bundles(channel)
            .batch_delete_federated_bundle(request)
            .await?;
        for result in answer.into_inner().results {
            if let Err(message) = client::outcome(result.status.as_ref()) {
                client::report(&message);
                return Ok(Exit::No);
            }
        }
        let mut stdout = out::stdout();
        match output {
            Output::Human => writeln!(stdout, "deleted {trust_domain}")?,
            Output::Json => {
                let line = json!({"trust_domain": trust_domain.as_str(), "deleted": true});
                writeln!(stdout, "{line}")?;
            }
        }
        stdout.flush()?;
        Ok(Exit::Yes)
    })
}

fn to_json(bundle: &Bundle) -> serde_json::Value {
    json!({
        "trust_domain": bundle.trust_domain.as_str(),
        "sequence": bundle.sequence,
        "refresh_hint": bundle.refresh_hint.map(|hint| hint.as_secs()),
        "x509_authorities": bundle.x509_authorities.len(),
        "jwt_authorities": bundle.jwt_authorities.len(),
    })
}

fn line(
    out: &mut impl std::io::Write,
    what: &str,
    bundle: &Bundle,
    output: Output,
) -> std::io::Result<()> {
    if output == Output::Json {
        return writeln!(out, "{}", to_json(bundle));
    }
    let space = if what.is_empty() { "" } else { " " };
    writeln!(
        out,
        "{what}{space}{}: {} X.509 and {} JWT authorities, sequence {}",
        bundle.trust_domain,
        bundle.x509_authorities.len(),
        bundle.jwt_authorities.len(),
        bundle.sequence
    )
}
