//! Rows of other trust domains' bundles.

use std::time::SystemTime;

use sqlx::{Row as _, Sqlite, Transaction};

use super::{StoreError, column};
use crate::bundle::Bundle;
use crate::clock::unix_seconds;
use crate::trust_domain::TrustDomain;

/// Adds the bundle, or replaces the one of its trust domain.
pub(crate) async fn put(
    transaction: &mut Transaction<'_, Sqlite>,
    bundle: &Bundle,
    now: SystemTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO bundles (trust_domain, document, updated_at) VALUES (?, ?, ?) \
         ON CONFLICT (trust_domain) DO UPDATE SET document = excluded.document, updated_at = excluded.updated_at",
    )
    .bind(bundle.trust_domain.as_str())
    .bind(bundle.to_document())
    .bind(unix_seconds(now))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Removes the bundle.
pub(crate) async fn remove(
    transaction: &mut Transaction<'_, Sqlite>,
    trust_domain: &TrustDomain,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM bundles WHERE trust_domain = ?")
        .bind(trust_domain.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Every bundle, by name.
pub(crate) async fn all(
    transaction: &mut Transaction<'_, Sqlite>,
) -> Result<Vec<Bundle>, StoreError> {
    let rows = sqlx::query("SELECT * FROM bundles ORDER BY trust_domain")
        .fetch_all(&mut **transaction)
        .await?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get("trust_domain")?;
            let trust_domain: TrustDomain = column(row, "trust_domain", "bundle", &name)?;
            let document: String = row.try_get("document")?;
            Bundle::from_document(trust_domain, document.as_bytes()).map_err(|cause| {
                StoreError::Content {
                    what: "bundle",
                    name,
                    cause: cause.to_string(),
                }
            })
        })
        .collect()
}
