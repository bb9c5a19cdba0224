//! The schema's history: the same SQL files for every database, applied in order, each in its own transaction.

use super::rows::fault;
use crate::store::StoreError;
use sqlx::SqliteConnection;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Row as _, SqlSafeStr as _};

/// Number, name and text of every migration. A released one is never edited; a new one is added at the end.
const MIGRATIONS: [(i64, &str, &str); 6] = [
    (1, "identity", include_str!("../../../../migrations/sqlite/0001_identity.sql")),
    (2, "dispatches", include_str!("../../../../migrations/sqlite/0002_dispatches.sql")),
    (3, "directory", include_str!("../../../../migrations/sqlite/0003_directory.sql")),
    (4, "feeds", include_str!("../../../../migrations/sqlite/0004_feeds.sql")),
    (5, "journal", include_str!("../../../../migrations/sqlite/0005_journal.sql")),
    (6, "outbox", include_str!("../../../../migrations/sqlite/0006_outbox.sql")),
];

/// The newest schema that this release knows.
pub(super) const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

fn migrator() -> Migrator {
    Migrator::with_migrations(
        MIGRATIONS
            .into_iter()
            .map(|(number, name, sql)| {
                Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect(),
    )
}

/// The schema that the database has; 0 for an empty one. Only reads.
pub(super) async fn found(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let known = sqlx::query("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await
        .map_err(fault)?;
    if known.try_get::<i64, _>(0).map_err(fault)? == 0 {
        return Ok(0);
    }
    let row = sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(fault)?;
    row.try_get(0).map_err(fault)
}

/// Refuses a database that a newer release made. Only reads.
pub(super) async fn refuse_newer(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found = found(connection).await?;
    if found > SCHEMA_VERSION { Err(StoreError::Newer { found, known: SCHEMA_VERSION }) } else { Ok(()) }
}

/// Brings the schema up to `target`, or to the newest.
pub(super) async fn migrate(connection: &mut SqliteConnection, target: Option<i64>) -> Result<(), StoreError> {
    let migrator = migrator();
    migrator.run_direct(target, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMismatch(version) => StoreError::Corrupt {
            what: "schema",
            detail: format!("migration {version} was applied with another text; this is not a released version"),
        },
        error => StoreError::Database(format!("the schema could not be brought up to date: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;

    async fn memory() -> SqliteConnection {
        SqliteConnectOptions::new().in_memory(true).connect().await.unwrap()
    }

    async fn shape(connection: &mut SqliteConnection) -> Vec<(String, String)> {
        sqlx::query("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name")
            .fetch_all(connection)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    #[tokio::test]
    async fn steps_taken_one_by_one_end_where_one_run_ends() {
        let mut at_once = memory().await;
        migrate(&mut at_once, None).await.unwrap();
        let mut by_steps = memory().await;
        for (number, _, _) in MIGRATIONS {
            migrate(&mut by_steps, Some(number)).await.unwrap();
            assert_eq!(found(&mut by_steps).await.unwrap(), number);
        }
        assert_eq!(shape(&mut at_once).await, shape(&mut by_steps).await);

        let before = shape(&mut at_once).await;
        migrate(&mut at_once, None).await.unwrap();
        assert_eq!(shape(&mut at_once).await, before, "a second run changes nothing");
    }

    #[tokio::test]
    async fn an_edited_migration_is_noticed() {
        let mut connection = memory().await;
        migrate(&mut connection, None).await.unwrap();
        sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 2")
            .execute(&mut connection)
            .await
            .unwrap();
        assert!(matches!(migrate(&mut connection, None).await, Err(StoreError::Corrupt { what: "schema", .. })));
    }
}
