//! Rows of authorities.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use super::{StoreError, column};
use crate::clock::{from_unix_seconds, unix_seconds};

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthorityKind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
    /// WIT-SVIDs, where they are switched on.
    Wit,
}

/// Where an authority is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthorityState {
    /// Published, signs nothing yet.
    Prepared,
    /// Published, signs.
    Active,
    /// Published, signs no more; what it signed is valid.
    Old,
    /// Published, not to be trusted much longer: what it signed is being replaced.
    Tainted,
    /// Not published: what it signed is invalid.
    Revoked,
}

/// A word that should have been written by us.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is unknown")]
pub struct UnknownWord(String);

impl AuthorityKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X509, Self::Jwt, Self::Wit];

    /// The word in tables, journal and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
            Self::Wit => "wit",
        }
    }
}

impl AuthorityState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 5] = [
        Self::Prepared,
        Self::Active,
        Self::Old,
        Self::Tainted,
        Self::Revoked,
    ];

    /// The word in tables, journal and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
            Self::Tainted => "tainted",
            Self::Revoked => "revoked",
        }
    }
}

impl FromStr for AuthorityKind {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

impl FromStr for AuthorityState {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownWord(word.to_owned()))
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AuthorityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that is stored of an authority: everything but its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRow {
    /// X.509: its subject key identifier, hexadecimal; JWT: its `kid`.
    pub id: String,
    /// What it signs.
    pub kind: AuthorityKind,
    /// Where it is in its life.
    pub state: AuthorityState,
    /// Kind of key, for people.
    pub algorithm: String,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Bytes,
    /// X.509: its certificate, DER.
    pub certificate: Option<Bytes>,
    /// X.509: what stands in the bundle for it, DER: its own certificate, or the upstream root.
    pub root: Option<Bytes>,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity: it signs nothing that lives longer.
    pub not_after: SystemTime,
    /// Sequence of the first bundle that it stands in.
    pub published: u64,
    /// When it was made.
    pub prepared_at: SystemTime,
    /// When it began to sign.
    pub activated_at: Option<SystemTime>,
    /// When another took its place.
    pub retired_at: Option<SystemTime>,
    /// When it was tainted.
    pub tainted_at: Option<SystemTime>,
    /// When it was revoked.
    pub revoked_at: Option<SystemTime>,
}

impl AuthorityRow {
    /// Adds the row, or replaces the one with its ID.
    pub(crate) async fn put(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
    ) -> Result<(), StoreError> {
        let seconds = |time: Option<SystemTime>| time.map(unix_seconds);
        sqlx::query(
            "INSERT INTO authorities (id, kind, state, algorithm, public_key, certificate, root, not_before, not_after, \
             published, prepared_at, activated_at, retired_at, tainted_at, revoked_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, published = excluded.published, \
             activated_at = excluded.activated_at, retired_at = excluded.retired_at, \
             tainted_at = excluded.tainted_at, revoked_at = excluded.revoked_at",
        )
        .bind(self.id.as_str())
        .bind(self.kind.as_str())
        .bind(self.state.as_str())
        .bind(self.algorithm.as_str())
        .bind(self.public_key.to_vec())
        .bind(self.certificate.as_ref().map(|der| der.to_vec()))
        .bind(self.root.as_ref().map(|der| der.to_vec()))
        .bind(unix_seconds(self.not_before))
        .bind(unix_seconds(self.not_after))
        .bind(i64::try_from(self.published).unwrap_or(i64::MAX))
        .bind(unix_seconds(self.prepared_at))
        .bind(seconds(self.activated_at))
        .bind(seconds(self.retired_at))
        .bind(seconds(self.tainted_at))
        .bind(seconds(self.revoked_at))
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    /// Removes a row whose time is over.
    pub(crate) async fn remove(
        transaction: &mut Transaction<'_, Sqlite>,
        id: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM authorities WHERE id = ?")
            .bind(id)
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }

    /// Every row, oldest first.
    pub(crate) async fn all(
        transaction: &mut Transaction<'_, Sqlite>,
    ) -> Result<Vec<Self>, StoreError> {
        let rows = sqlx::query("SELECT * FROM authorities ORDER BY prepared_at, rowid")
            .fetch_all(&mut **transaction)
            .await?;
        rows.iter().map(Self::read).collect()
    }

    fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        const WHAT: &str = "authority";
        let id: String = row.try_get("id")?;
        let time = |name: &str| Ok::<_, StoreError>(from_unix_seconds(row.try_get(name)?));
        let maybe = |name: &str| {
            let seconds: Option<i64> = row.try_get(name)?;
            Ok::<_, StoreError>(seconds.map(from_unix_seconds))
        };
        let bytes = |name: &str| {
            let bytes: Option<Vec<u8>> = row.try_get(name)?;
            Ok::<_, StoreError>(bytes.map(Bytes::from))
        };
        Ok(Self {
            kind: column(row, "kind", WHAT, &id)?,
            state: column(row, "state", WHAT, &id)?,
            algorithm: row.try_get("algorithm")?,
            public_key: bytes("public_key")?.unwrap_or_default(),
            certificate: bytes("certificate")?,
            root: bytes("root")?,
            not_before: time("not_before")?,
            not_after: time("not_after")?,
            published: u64::try_from(row.try_get::<i64, _>("published")?).unwrap_or(0),
            prepared_at: time("prepared_at")?,
            activated_at: maybe("activated_at")?,
            retired_at: maybe("retired_at")?,
            tainted_at: maybe("tainted_at")?,
            revoked_at: maybe("revoked_at")?,
            id,
        })
    }
}
