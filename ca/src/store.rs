//! The embedded SQLite: one file, one writer, migrations, everything durable at commit.

use std::path::Path;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqlSafeStr as _, Sqlite, SqliteConnection,
    Transaction,
};
use tokio::sync::{Mutex, MutexGuard};

mod authorities;
pub(crate) mod bundles;
pub(crate) mod entries;
pub(crate) mod federations;
mod revocations;

pub use authorities::{AuthorityKind, AuthorityRow, AuthorityState};
pub use revocations::{RevocationListRow, RevocationRow};

/// Name of the database in the data folder.
pub const FILE_NAME: &str = "ca.sqlite";

/// Numbers and names that outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Our trust domain: a store belongs to one.
    TrustDomain,
    /// Revision of the registry.
    Revision,
    /// Sequence of our bundle.
    BundleSequence,
}

impl Meta {
    fn name(self) -> &'static str {
        match self {
            Self::TrustDomain => "trust_domain",
            Self::Revision => "revision",
            Self::BundleSequence => "bundle_sequence",
        }
    }
}

/// The store. Whoever writes holds it alone.
#[derive(Debug)]
pub struct Store {
    options: SqliteConnectOptions,
    connection: Mutex<Connection>,
}

/// The connection, and whether the last transaction on it was committed.
#[derive(Debug)]
struct Connection {
    sqlite: SqliteConnection,
    is_clean: bool,
}

/// A database that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened, or is damaged.
    #[error("database `{path}`: {cause}; restore it from a backup, or name another data folder")]
    Open {
        /// Which.
        path: String,
        /// Why.
        cause: String,
    },
    /// It cannot be read or written now.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// Something in it cannot be what we wrote.
    #[error("the database holds an unreadable {what} `{name}`: {cause}")]
    Content {
        /// What kind of row.
        what: &'static str,
        /// Which.
        name: String,
        /// Why.
        cause: String,
    },
}

impl Store {
    /// Opens the database at `path`, made when missing, checks it and brings its tables up to date.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |cause: String| StoreError::Open {
            path: path.display().to_string(),
            cause,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode anything less loses commits when the power goes.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        // Made with its mode before anything is in it, so that its logs have the same.
        create_restricted(path).map_err(|error| failed(error.to_string()))?;
        let connect = async {
            let mut connection = options.connect().await?;
            let check: String = sqlx::query("PRAGMA quick_check(1)")
                .fetch_one(&mut connection)
                .await?
                .try_get(0)?;
            Ok::<_, sqlx::Error>((connection, check))
        };
        let (mut connection, check) = connect.await.map_err(|error| failed(error.to_string()))?;
        if check != "ok" {
            return Err(failed(format!("it is damaged: {check}")));
        }
        migrator()
            .run(&mut connection)
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            options,
            connection: Mutex::new(Connection {
                sqlite: connection,
                is_clean: true,
            }),
        })
    }

    /// The connection, alone.
    pub(crate) async fn writer(&self) -> Writer<'_> {
        Writer {
            options: &self.options,
            connection: self.connection.lock().await,
        }
    }

    /// Closes the database: what the write-ahead log holds goes into the file.
    pub async fn close(self) {
        // All was durable at commit; only the log's length is at stake here.
        let _ = self.connection.into_inner().sqlite.close().await;
    }
}

/// The only one who writes now.
pub(crate) struct Writer<'a> {
    options: &'a SqliteConnectOptions,
    connection: MutexGuard<'a, Connection>,
}

impl Writer<'_> {
    /// Begins a transaction on another connection: it sees what is stored, not what somebody believes to have stored.
    pub(crate) async fn begin_anew(&mut self) -> Result<OpenTransaction<'_>, StoreError> {
        self.connection.is_clean = false;
        self.begin().await
    }

    /// Begins a transaction; dropping it undoes everything.
    ///
    /// After one that was not committed the connection is another one: when the disk fails, SQLite may be left within a
    /// transaction that its driver takes for over, and what is committed after that is in memory only.
    pub(crate) async fn begin(&mut self) -> Result<OpenTransaction<'_>, StoreError> {
        let connection = &mut *self.connection;
        if !connection.is_clean {
            connection.sqlite = self.options.connect().await?;
        }
        connection.is_clean = false;
        Ok(OpenTransaction {
            transaction: connection.sqlite.begin().await?,
            is_clean: &mut connection.is_clean,
        })
    }
}

/// A transaction that is undone unless it is committed.
pub(crate) struct OpenTransaction<'a> {
    transaction: Transaction<'a, Sqlite>,
    is_clean: &'a mut bool,
}

impl OpenTransaction<'_> {
    /// Makes it durable.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await?;
        *self.is_clean = true;
        Ok(())
    }
}

impl<'a> std::ops::Deref for OpenTransaction<'a> {
    type Target = Transaction<'a, Sqlite>;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl std::ops::DerefMut for OpenTransaction<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}

/// The trust domain that a data folder belongs to, read without changing anything; `None` when it belongs to none yet.
pub async fn trust_domain_of(data: &Path) -> Option<String> {
    let path = data.join(FILE_NAME);
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = options.disable_statement_logging().connect().await.ok()?;
    let row = sqlx::query("SELECT value FROM meta WHERE name = ?")
        .bind(Meta::TrustDomain.name())
        .fetch_optional(&mut connection)
        .await
        .ok()??;
    row.try_get(0).ok()
}

/// What is stored under `name`; `None` when nothing is.
pub(crate) async fn meta<T: std::str::FromStr>(
    transaction: &mut Transaction<'_, Sqlite>,
    name: Meta,
) -> Result<Option<T>, StoreError> {
    let row = sqlx::query("SELECT value FROM meta WHERE name = ?")
        .bind(name.name())
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.try_get(0)?;
    T::from_str(&text)
        .map(Some)
        .map_err(|_| StoreError::Content {
            what: "value",
            name: name.name().to_owned(),
            cause: format!("`{text}`"),
        })
}

/// Stores `value` under `name`.
pub(crate) async fn set_meta(
    transaction: &mut Transaction<'_, Sqlite>,
    name: Meta,
    value: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name.name())
        .bind(value)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The next of a sequence that only grows.
pub(crate) async fn next(
    transaction: &mut Transaction<'_, Sqlite>,
    name: Meta,
) -> Result<u64, StoreError> {
    let next = meta::<u64>(transaction, name).await?.unwrap_or(0) + 1;
    set_meta(transaction, name, &next.to_string()).await?;
    Ok(next)
}

fn migrator() -> Migrator {
    let migration = |version, name: &'static str, text: &'static str| {
        let text = text.into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, text, false)
    };
    let first = include_str!("../migrations/1_first.sql");
    let federation = include_str!("../migrations/2_federation.sql");
    let revocation = include_str!("../migrations/3_revocation.sql");
    let wit = include_str!("../migrations/4_wit.sql");
    Migrator::with_migrations(vec![
        migration(1, "first", first),
        migration(2, "federation", federation),
        migration(3, "revocation", revocation),
        migration(4, "wit", wit),
    ])
}

/// Mode 0600: names of workloads are nobody else's business.
fn create_restricted(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// A column that must hold what we wrote into it.
fn column<T>(
    row: &SqliteRow,
    name: &'static str,
    what: &'static str,
    id: &str,
) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text: String = row.try_get(name)?;
    T::from_str(&text).map_err(|cause| StoreError::Content {
        what,
        name: id.to_owned(),
        cause: format!("{name}: {cause}"),
    })
}
