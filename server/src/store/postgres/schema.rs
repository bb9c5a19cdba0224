//! The schema's history: the same SQL files for every database, applied in order, each in its own transaction, by one node at
//! a time (an advisory lock).

use super::rows::fault;
use crate::store::StoreError;
use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Row as _, SqlSafeStr as _};

/// Number, name and text of every migration. A released one is never edited; a new one is added at the end.
const MIGRATIONS: [(i64, &str, &str); 6] = [
    (1, "identity", include_str!("../../../../migrations/postgres/0001_identity.sql")),
    (2, "dispatches", include_str!("../../../../migrations/postgres/0002_dispatches.sql")),
    (3, "directory", include_str!("../../../../migrations/postgres/0003_directory.sql")),
    (4, "feeds", include_str!("../../../../migrations/postgres/0004_feeds.sql")),
    (5, "journal", include_str!("../../../../migrations/postgres/0005_journal.sql")),
    (6, "outbox", include_str!("../../../../migrations/postgres/0006_outbox.sql")),
];

/// The newest schema that this release knows.
const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// How many tables the database has that no extension brought, and whether one of them is the list of migrations.
const LOOK: &str = "SELECT count(*), coalesce(bool_or(c.relname = '_sqlx_migrations'), false) FROM pg_class c \
     WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') \
     AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')";

/// What is found in a database before anything is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or our schema up to this migration.
    Ours(i64),
    /// Tables of something else.
    Foreign,
}

/// Looks, and only looks.
pub(super) async fn found(connection: &mut PgConnection) -> Result<Found, StoreError> {
    let row = sqlx::query(LOOK).fetch_one(&mut *connection).await.map_err(fault)?;
    let (tables, migrated): (i64, bool) = (row.try_get(0).map_err(fault)?, row.try_get(1).map_err(fault)?);
    if !migrated {
        return Ok(if tables == 0 { Found::Ours(0) } else { Found::Foreign });
    }
    let row = sqlx::query(
        "SELECT coalesce(max(version), 0), coalesce(bool_and(description = 'identity') FILTER (WHERE version = 1), false) \
         FROM _sqlx_migrations",
    )
    .fetch_one(connection)
    .await
    .map_err(fault)?;
    let (version, ours): (i64, bool) = (row.try_get(0).map_err(fault)?, row.try_get(1).map_err(fault)?);
    Ok(if version == 0 || ours { Found::Ours(version) } else { Found::Foreign })
}

/// Brings the schema up to `target`, or to the newest. A newer one is refused before anything is touched; `None` says that the
/// database is somebody else's.
pub(super) async fn migrate(connection: &mut PgConnection, target: Option<i64>) -> Result<Option<()>, StoreError> {
    match found(connection).await? {
        Found::Foreign => return Ok(None),
        Found::Ours(found) if found > SCHEMA_VERSION => {
            return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
        }
        // Looked at once more under the lock, unless there is nothing to do.
        Found::Ours(_) => {}
    }
    let migrator = Migrator::with_migrations(
        MIGRATIONS
            .into_iter()
            .map(|(number, name, sql)| {
                Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    );
    migrator.run_direct(target, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMismatch(version) => StoreError::Corrupt {
            what: "schema",
            detail: format!("migration {version} was applied with another text; this is not a released version"),
        },
        MigrateError::VersionMissing(found) => StoreError::Newer { found, known: SCHEMA_VERSION },
        MigrateError::ExecuteMigration(error, version) => StoreError::Database(format!(
            "migration {version} failed and was undone: {error}; the role in database.url must be allowed to create tables and the \
             extension btree_gist in this database"
        )),
        error => StoreError::Database(format!("the schema could not be brought up to date: {error}")),
    })?;
    Ok(Some(()))
}
