//! Rows of revoked SVIDs and of the lists that tell of them.

use std::time::SystemTime;

use bytes::Bytes;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{StoreError, column};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::x509::crl::Reason;

/// A revoked X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRow {
    /// Serial number, 32 hexadecimal digits.
    pub serial: String,
    /// Identifier of the authority that signed it.
    pub authority: String,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub revoked_at: SystemTime,
    /// End of its validity: after that nobody needs to know.
    pub not_after: SystemTime,
}

/// The newest list of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationListRow {
    /// Identifier of the authority.
    pub authority: String,
    /// CRL number.
    pub number: u64,
    /// When it was made.
    pub this_update: SystemTime,
    /// When there is a newer one at the latest.
    pub next_update: SystemTime,
    /// How many certificates it lists.
    pub entries: usize,
    /// The list, DER.
    pub der: Bytes,
}

type Write<'a, 'b> = &'a mut Transaction<'b, Sqlite>;

impl RevocationRow {
    pub(crate) async fn add(&self, transaction: Write<'_, '_>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO revocations (serial, authority, reason, revoked_at, not_after) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&self.serial)
        .bind(&self.authority)
        .bind(self.reason.as_str())
        .bind(unix_seconds(self.revoked_at))
        .bind(unix_seconds(self.not_after))
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    pub(crate) async fn remove(transaction: Write<'_, '_>, serial: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM revocations WHERE serial = ?")
            .bind(serial)
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    /// Every one, oldest first.
    pub(crate) async fn all(transaction: Write<'_, '_>) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM revocations ORDER BY revoked_at, serial")
            .fetch_all(&mut **transaction)
            .await?;
        let read = rows.iter().map(|row| {
            let serial: String = row.try_get("serial")?;
            Ok(Self {
                reason: column(row, "reason", "revocation", &serial)?,
                authority: row.try_get("authority")?,
                revoked_at: from_unix_seconds(row.try_get("revoked_at")?),
                not_after: from_unix_seconds(row.try_get("not_after")?),
                serial,
            })
        });
        read.collect()
    }
}

impl RevocationListRow {
    pub(crate) async fn put(&self, transaction: Write<'_, '_>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO revocation_lists (authority, number, this_update, next_update, entries, der) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&self.authority)
        .bind(i64::try_from(self.number).unwrap_or(i64::MAX))
        .bind(unix_seconds(self.this_update))
        .bind(unix_seconds(self.next_update))
        .bind(i64::try_from(self.entries).unwrap_or(i64::MAX))
        .bind(&self.der[..])
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    pub(crate) async fn remove(transaction: Write<'_, '_>, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM revocation_lists WHERE authority = ?")
            .bind(id)
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    pub(crate) async fn all(transaction: Write<'_, '_>) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM revocation_lists ORDER BY authority")
            .fetch_all(&mut **transaction)
            .await?;
        let read = rows.iter().map(|row| {
            let number: i64 = row.try_get("number")?;
            let entries: i64 = row.try_get("entries")?;
            let der: Vec<u8> = row.try_get("der")?;
            Ok(Self {
                authority: row.try_get("authority")?,
                number: u64::try_from(number).unwrap_or_default(),
                this_update: from_unix_seconds(row.try_get("this_update")?),
                next_update: from_unix_seconds(row.try_get("next_update")?),
                entries: usize::try_from(entries).unwrap_or_default(),
                der: der.into(),
            })
        });
        read.collect()
    }
}
