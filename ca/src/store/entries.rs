//! Rows of registration entries.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, Sqlite, Transaction};

use super::{StoreError, column};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::entry::Entry;

const WHAT: &str = "entry";

/// Rows of one statement: each statement is a way to the database's own thread and back.
const ROWS: usize = 100;
const COLUMNS: &str = "id, spiffe_id, parent_id, selectors, x509_ttl, jwt_ttl, dns_names, federates_with, hint, admin, \
                       downstream, store_svid, expires_at, revision_number, created_at, revision";
const ROW: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
const REPLACE: &str = "ON CONFLICT (id) DO UPDATE SET spiffe_id = excluded.spiffe_id, parent_id = excluded.parent_id, \
                       selectors = excluded.selectors, x509_ttl = excluded.x509_ttl, jwt_ttl = excluded.jwt_ttl, \
                       dns_names = excluded.dns_names, federates_with = excluded.federates_with, hint = excluded.hint, \
                       admin = excluded.admin, downstream = excluded.downstream, store_svid = excluded.store_svid, \
                       expires_at = excluded.expires_at, revision_number = excluded.revision_number, \
                       revision = excluded.revision";

/// Adds entries, in order, or replaces those with their IDs.
pub(crate) async fn put(
    transaction: &mut Transaction<'_, Sqlite>,
    entries: &[Arc<Entry>],
    revision: u64,
) -> Result<(), StoreError> {
    let seconds =
        |ttl: Option<Duration>| ttl.map(|ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    for rows in entries.chunks(ROWS) {
        let values = vec![ROW; rows.len()].join(", ");
        let text = format!("INSERT INTO entries ({COLUMNS}) VALUES {values} {REPLACE}");
        // Made of the constants above; every value is bound. The two usual lengths are kept prepared.
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(matches!(rows.len(), 1 | ROWS));
        for entry in rows {
            query = query
                .bind(entry.id.as_str())
                .bind(entry.spiffe_id.as_str())
                .bind(entry.parent_id.as_str())
                .bind(list(&entry.selectors))
                .bind(seconds(entry.x509_ttl))
                .bind(seconds(entry.jwt_ttl))
                .bind(list(&entry.dns_names))
                .bind(list(&entry.federates_with))
                .bind(entry.hint.as_str())
                .bind(entry.admin)
                .bind(entry.downstream)
                .bind(entry.store_svid)
                .bind(entry.expires_at.map(unix_seconds))
                .bind(entry.revision_number)
                .bind(unix_seconds(entry.created_at))
                .bind(i64::try_from(revision).unwrap_or(i64::MAX));
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Removes the entry.
pub(crate) async fn remove(
    transaction: &mut Transaction<'_, Sqlite>,
    id: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM entries WHERE id = ?")
        .bind(id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Every entry, oldest first.
pub(crate) async fn all(
    transaction: &mut Transaction<'_, Sqlite>,
) -> Result<Vec<Entry>, StoreError> {
    let rows = sqlx::query("SELECT * FROM entries ORDER BY created_at, rowid")
        .fetch_all(&mut **transaction)
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<Entry, StoreError> {
    let id: String = row.try_get("id")?;
    let seconds = |name: &str| {
        let seconds: Option<i64> = row.try_get(name)?;
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Ok::<_, StoreError>(seconds.map(Duration::from_secs))
    };
    let expires_at: Option<i64> = row.try_get("expires_at")?;
    Ok(Entry {
        spiffe_id: column(row, "spiffe_id", WHAT, &id)?,
        parent_id: column(row, "parent_id", WHAT, &id)?,
        selectors: read_list(row, "selectors", &id)?,
        x509_ttl: seconds("x509_ttl")?,
        jwt_ttl: seconds("jwt_ttl")?,
        dns_names: read_list(row, "dns_names", &id)?,
        federates_with: read_list(row, "federates_with", &id)?,
        hint: row.try_get("hint")?,
        admin: row.try_get("admin")?,
        downstream: row.try_get("downstream")?,
        store_svid: row.try_get("store_svid")?,
        expires_at: expires_at.map(from_unix_seconds),
        revision_number: row.try_get("revision_number")?,
        created_at: from_unix_seconds(row.try_get("created_at")?),
        id,
    })
}

/// A list as a JSON array of texts.
fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    serde_json::Value::from(items).to_string()
}

fn read_list<T>(row: &SqliteRow, name: &'static str, id: &str) -> Result<Vec<T>, StoreError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        serde_json::from_str(text).map_err(|cause| cause.to_string())
    }
    let text: String = row.try_get(name)?;
    json::<Vec<String>>(&text)
        .and_then(|items| {
            let parsed = items
                .iter()
                .map(|item| item.parse::<T>().map_err(|cause| cause.to_string()));
            parsed.collect()
        })
        .map_err(|cause| StoreError::Content {
            what: WHAT,
            name: id.to_owned(),
            cause: format!("{name}: {cause}"),
        })
}
