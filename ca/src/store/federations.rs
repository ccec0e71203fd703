//! Rows of federation relationships.

use std::time::SystemTime;

use sqlx::{Row as _, Sqlite, Transaction};

use super::{StoreError, column};
use crate::clock::unix_seconds;
use crate::federation::{EndpointProfile, Relationship};
use crate::trust_domain::TrustDomain;

/// Adds the relationship, or replaces the one with its trust domain.
pub(crate) async fn put(
    transaction: &mut Transaction<'_, Sqlite>,
    relationship: &Relationship,
    now: SystemTime,
) -> Result<(), StoreError> {
    let endpoint = match &relationship.profile {
        EndpointProfile::HttpsWeb => None,
        EndpointProfile::HttpsSpiffe(id) => Some(id.as_str()),
    };
    sqlx::query(
        "INSERT INTO federations (trust_domain, url, endpoint_id, created_at) VALUES (?, ?, ?, ?) \
         ON CONFLICT (trust_domain) DO UPDATE SET url = excluded.url, endpoint_id = excluded.endpoint_id",
    )
    .bind(relationship.trust_domain.as_str())
    .bind(relationship.url.as_str())
    .bind(endpoint)
    .bind(unix_seconds(now))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Removes the relationship.
pub(crate) async fn remove(
    transaction: &mut Transaction<'_, Sqlite>,
    trust_domain: &TrustDomain,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM federations WHERE trust_domain = ?")
        .bind(trust_domain.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Every relationship, by name.
pub(crate) async fn all(
    transaction: &mut Transaction<'_, Sqlite>,
) -> Result<Vec<Relationship>, StoreError> {
    let rows = sqlx::query("SELECT * FROM federations ORDER BY trust_domain")
        .fetch_all(&mut **transaction)
        .await?;
    rows.iter()
        .map(|row| {
            const WHAT: &str = "federation relationship";
            let name: String = row.try_get("trust_domain")?;
            let endpoint: Option<String> = row.try_get("endpoint_id")?;
            Ok(Relationship {
                trust_domain: column(row, "trust_domain", WHAT, &name)?,
                url: column(row, "url", WHAT, &name)?,
                profile: match endpoint {
                    None => EndpointProfile::HttpsWeb,
                    Some(_) => {
                        EndpointProfile::HttpsSpiffe(column(row, "endpoint_id", WHAT, &name)?)
                    }
                },
            })
        })
        .collect()
}
