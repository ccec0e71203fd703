//! JWT bundles from a SPIFFE Workload API (SPIFFE Workload API section 6.2.2), as its stream tells them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use spiffe::JwtSource;
use spiffe::bundle::jwt::JwtBundle;

use super::Svids;
use crate::token::jwks::{KeySet, Purpose};

/// Rest after a failure that the source does not get over by itself.
const REST: Duration = Duration::from_secs(5);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Follows the Workload API at `address` until dropped. What it told last stays in force while nobody
/// answers.
pub(super) async fn follow(svids: Svids, address: String) {
    loop {
        if let Err(error) = stream(&svids, &address).await {
            tracing::warn!(endpoint = address, %error, "no JWT bundles from the Workload API; trying again");
        }
        tokio::time::sleep(REST).await;
    }
}

async fn stream(svids: &Svids, address: &str) -> Result<(), Error> {
    let source = JwtSource::builder().endpoint(address).build().await?;
    let mut updates = source.updated();
    loop {
        let set = source.bundle_set()?;
        let mut bundles = BTreeMap::new();
        for (trust_domain, bundle) in set.iter() {
            bundles.insert(trust_domain.to_string(), keys(bundle)?);
        }
        tracing::info!(
            endpoint = address,
            trust_domains = bundles.len(),
            "JWT bundles from the Workload API"
        );
        svids.told(bundles);
        updates.changed().await?;
    }
}

fn keys(bundle: &JwtBundle) -> Result<KeySet, Error> {
    let mut keys = Vec::new();
    for authority in bundle.jwt_authorities() {
        let mut key: Value = serde_json::from_slice(authority.jwk_json())?;
        // In this document every key is for JWT-SVIDs, so that it may leave out to say so.
        if let Some(key) = key.as_object_mut() {
            key.entry("use").or_insert_with(|| "jwt-svid".into());
        }
        keys.push(key);
    }
    let document = json!({ "keys": keys }).to_string();
    Ok(KeySet::parse(document.as_bytes(), Purpose::JwtSvid)?)
}
