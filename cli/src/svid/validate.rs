//! `portcullis svid validate`: is this SVID valid, for us, now?

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use portcullis_ca::bundle::Bundle;
use portcullis_ca::clock::{Clock as _, SystemClock};
use portcullis_ca::jwt_svid::validate;
use portcullis_ca::key::pem;
use portcullis_ca::trust_domain::TrustDomain;
use portcullis_ca::x509::{chain, conform};
use serde_json::{Value, json};

use super::args::ValidateArgs;
use super::inspect;
use crate::args::Output;
use crate::ca::bundle;
use crate::ca::client::report;
use crate::exit::Exit;
use crate::out;

/// Validates and says so.
///
/// # Errors
/// When a file cannot be read or nobody can be asked.
pub fn run(args: &ValidateArgs, output: Output) -> anyhow::Result<Exit> {
    let svid = read(&args.svid)?;
    if svid.contains("-----BEGIN ") {
        return x509(args, &svid, output);
    }
    let Some(audience) = &args.audience else {
        bail!("`--audience AUD` is missing: a token is valid for somebody (JWT-SVID §3.2)");
    };
    let token = svid.strip_prefix("Bearer ").unwrap_or(&svid).trim();
    let Some(file) = &args.bundle else {
        return super::with(&args.socket, |mut client| async move {
            let answer = client
                .validate_jwt_svid(audience.clone(), token.to_owned())
                .await?;
            valid(&answer.spiffe_id, output)
        });
    };
    let bundle = |trust_domain: &TrustDomain| bundle_of(trust_domain, file);
    let trust_domain = validate::inspect(token, SystemClock.now())
        .ok()
        .and_then(|read| {
            let subject = read.claims.get("sub").and_then(Value::as_str)?.to_owned();
            portcullis_ca::spiffe_id::SpiffeId::parse(&subject).ok()
        })
        .map(|id| id.trust_domain().clone());
    let found = match &trust_domain {
        Some(trust_domain) => match bundle(trust_domain)? {
            Ok(found) => Some(found),
            Err(message) => return invalid(&message),
        },
        None => None,
    };
    match validate::token(token, audience, SystemClock.now(), |_| found.as_ref()) {
        Ok(validated) => valid(validated.spiffe_id.as_str(), output),
        Err(error) => invalid(&error.to_string()),
    }
}

fn x509(args: &ValidateArgs, text: &str, output: Output) -> anyhow::Result<Exit> {
    let certificates = match certificates(text) {
        Ok(certificates) => certificates,
        Err(message) => return invalid(&message),
    };
    let Some(leaf) = certificates.first() else {
        return invalid("there is no certificate");
    };
    let id = match conform::any_leaf(leaf) {
        Ok(id) => id,
        Err(refusal) => return invalid(&refusal.to_string()),
    };
    let verify = |bundle: &Bundle| match chain::verify(&certificates, bundle, SystemClock.now()) {
        Ok(id) => valid(id.as_str(), output),
        Err(error) => invalid(&error.to_string()),
    };
    if let Some(file) = &args.bundle {
        return match bundle_of(id.trust_domain(), file)? {
            Ok(bundle) => verify(&bundle),
            Err(message) => invalid(&message),
        };
    }
    super::with(&args.socket, |mut client| async move {
        let message = client.x509_bundles().await?.message().await?;
        let message = message.context("the stream ended")?;
        let name = id.trust_domain().id_string();
        let Some(der) = message.bundles.get(&name) else {
            return invalid(&format!(
                "no bundle found for the trust domain `{}`",
                id.trust_domain()
            ));
        };
        let roots = chain::split(der)?;
        match Bundle::from_certificates(id.trust_domain().clone(), roots) {
            Ok(bundle) => verify(&bundle),
            Err((place, refusal)) => {
                invalid(&format!("authority {place} of the bundle: {refusal}"))
            }
        }
    })
}

/// The certificates of a text that may hold the key, too.
fn certificates(text: &str) -> Result<Vec<bytes::Bytes>, String> {
    let blocks = pem::blocks(text).map_err(|error| error.to_string())?;
    let certificates = blocks
        .iter()
        .filter(|block| block.label == "CERTIFICATE")
        .map(|block| bytes::Bytes::copy_from_slice(&block.content));
    Ok(certificates.collect())
}

fn bundle_of(trust_domain: &TrustDomain, file: &Path) -> anyhow::Result<Result<Bundle, String>> {
    bundle::read(trust_domain.clone(), file)
}

/// The token itself, or what is in the file of that name.
fn read(svid: &str) -> anyhow::Result<String> {
    let path = Path::new(svid);
    // A token has two dots and no file has its name; what is neither is most likely a path.
    let is_token = svid.split('.').count() == 3 && !svid.contains('/') && !path.exists();
    if is_token {
        return Ok(svid.to_owned());
    }
    let bytes = inspect::read(path)?;
    let text = String::from_utf8(bytes).with_context(|| format!("`{svid}` is no text"))?;
    Ok(text.trim().to_owned())
}

fn valid(spiffe_id: &str, output: Output) -> anyhow::Result<Exit> {
    let mut stdout = out::stdout();
    match output {
        Output::Human => writeln!(stdout, "valid: {spiffe_id}")?,
        Output::Json => writeln!(stdout, "{}", json!({"valid": true, "spiffe_id": spiffe_id}))?,
    }
    stdout.flush()?;
    Ok(Exit::Yes)
}

fn invalid(message: &str) -> anyhow::Result<Exit> {
    report(message);
    Ok(Exit::No)
}
