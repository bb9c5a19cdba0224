//! Starting on PostgreSQL: what is wrong is said in one line with the remedy, at once, and no data is touched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_imports,
    reason = "a story that is not as told shall fail"
)]

mod postgres_support;

use crm_dispatch_server::store::conformance::fixture::*;
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use crm_dispatch_server::store::sqlite::SqliteStore;
use crm_dispatch_server::store::{CommitLog as _, Dispatches as _, StoreError};
use postgres_support::{Database, random_name, with_path};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, Row as _, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The refusal's line.
async fn refused(url: &str) -> String {
    let error = PostgresStore::open(&PostgresOptions::new(url.to_owned())).await.unwrap_err();
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
    line
}

/// The url with something else in place of a part.
fn changed(url: &str, from: &str, to: &str) -> String {
    assert!(url.contains(from), "{from} is not in the url");
    url.replacen(from, to, 1)
}

#[tokio::test]
async fn a_wrong_url_is_refused_with_the_remedy() {
    let database = Database::create().await;
    let url = database.url();
    let place = url.split('@').next_back().unwrap().split('/').next().unwrap();

    let line = refused("postgres://office:hunter2@[no-host/x").await;
    assert!(line.contains("no PostgreSQL url") && line.contains("postgres://USER:PASSWORD@HOST"), "{line}");
    let line = refused(&changed(&url, place, "no-such-host.invalid:5432")).await;
    assert!(line.contains("no-such-host.invalid") && line.contains("correct host and port"), "{line}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let line = refused(&changed(&url, place, &format!("127.0.0.1:{free}"))).await;
    assert!(line.contains("nothing listens there") && line.contains("start PostgreSQL"), "{line}");
    let line = refused(&with_path(&url, "no_such_database")).await;
    assert!(line.contains("no_such_database") && line.contains("create it first"), "{line}");

    // A role of the test's own, so that its password is known.
    let role = random_name("office");
    let mut admin = database.connect().await;
    admin.execute(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN PASSWORD 'right'"))).await.unwrap();
    let rest = url.split('@').next_back().unwrap();
    let line = refused(&format!("postgres://{role}:hunter2@{rest}")).await;
    assert!(line.contains("password authentication failed") && line.contains("correct user and password"), "{line}");
    // The right password, but no right to make tables: nothing is left half-made.
    let line = refused(&format!("postgres://{role}:right@{rest}")).await;
    assert!(line.contains("permission denied"), "{line}");
    admin.execute(AssertSqlSafe(format!("DROP ROLE {role}"))).await.unwrap();

    // Something that takes connections and says nothing, as a firewall does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = changed(&url, place, &silent.local_addr().unwrap().to_string());
    let hasty = PostgresOptions { connect_timeout: Duration::from_millis(300), ..PostgresOptions::new(url) };
    let line = PostgresStore::open(&hasty).await.unwrap_err().to_string();
    assert!(line.contains("does not answer") && line.contains("firewall"), "{line}");
    assert!(!format!("{hasty:?}").contains("dispatch:"), "{hasty:?}");
}

#[tokio::test]
async fn tls_that_the_server_does_not_speak_is_not_given_up_silently() {
    let database = Database::create().await;
    let line = refused(&format!("{}?sslmode=require", database.url())).await;
    assert!(line.contains("sslmode"), "{line}");
}

/// Everything in a database, as text: to see that nothing was touched.
async fn contents(connection: &mut PgConnection) -> Vec<String> {
    let rows = sqlx::query(
        "SELECT c.relname::text || c.relkind::text || c.oid::text FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn somebody_elses_database_is_left_alone() {
    let database = Database::create().await;
    let mut admin = database.connect().await;
    admin.execute("CREATE TABLE invoices (number int); INSERT INTO invoices VALUES (1)").await.unwrap();
    let before = contents(&mut admin).await;
    let line = refused(&database.url()).await;
    assert!(line.contains("tables of something else") && line.contains("name an empty database"), "{line}");
    assert_eq!(contents(&mut admin).await, before);

    // Another program that keeps its migrations in the same way.
    let database = Database::create().await;
    let mut admin = database.connect().await;
    admin
        .execute(
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz \
             NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL); \
             INSERT INTO _sqlx_migrations VALUES (20240101, 'shop', now(), true, '\\x00', 0)",
        )
        .await
        .unwrap();
    let before = contents(&mut admin).await;
    let line = refused(&database.url()).await;
    assert!(line.contains("tables of something else"), "{line}");
    assert_eq!(contents(&mut admin).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_release_is_refused_and_nothing_is_touched() {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    store.close().await;
    let mut admin = database.connect().await;
    admin
        .execute("INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', now(), true, '\\x00', 0)")
        .await
        .unwrap();
    let before = contents(&mut admin).await;
    let error = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 9999, .. }), "{error}");
    assert!(error.to_string().contains("run the newer release"), "{error}");
    assert_eq!(contents(&mut admin).await, before);

    admin.execute("DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    assert!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap().is_some());

    admin.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2").await.unwrap();
    let error = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { what: "schema", .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_answers_late_calls() {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    store.close().await;
    assert!(try_commit(&*store, blank(0)).await.is_err());
    assert!(store.prune(at(0)).await.is_err());
    assert!(store.dispatch(&acme(), &visit("DSP-1")).await.is_err());
    store.close().await;
}

/// Tables with their columns (name, kind of value, may be missing), and the keys: sets of columns.
type Shape = BTreeMap<String, (BTreeSet<(String, &'static str, bool)>, BTreeSet<BTreeSet<String>>)>;

/// The kinds of value that both databases have.
fn kind(name: &str) -> &'static str {
    match name.to_ascii_lowercase().as_str() {
        "integer" | "bigint" => "number",
        "text" => "text",
        "blob" | "bytea" => "bytes",
        other => panic!("what is {other} in the other database?"),
    }
}

async fn sqlite_shape(connection: &mut SqliteConnection) -> Shape {
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
    let mut shape = Shape::new();
    for table in sqlx::query(tables).fetch_all(&mut *connection).await.unwrap() {
        let table: String = table.get(0);
        let entry = shape.entry(table.clone()).or_default();
        let columns = "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo($1)";
        let mut primary = BTreeSet::new();
        for column in sqlx::query(columns).bind(&table).fetch_all(&mut *connection).await.unwrap() {
            let name: String = column.get(0);
            entry.0.insert((name.clone(), kind(column.get(1)), column.get::<i64, _>(2) == 0));
            if column.get::<i64, _>(3) > 0 {
                primary.insert(name);
            }
        }
        entry.1.insert(primary);
        let keys = "SELECT i.name, group_concat(c.name) FROM pragma_index_list($1) i, pragma_index_info(i.name) c \
             WHERE i.\"unique\" = 1 GROUP BY i.name";
        for key in sqlx::query(keys).bind(&table).fetch_all(&mut *connection).await.unwrap() {
            entry.1.insert(key.get::<String, _>(1).split(',').map(str::to_owned).collect());
        }
    }
    shape
}

async fn postgres_shape(connection: &mut PgConnection) -> Shape {
    let columns = "SELECT table_name::text, column_name::text, data_type::text, is_nullable = 'YES' FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'";
    let mut shape = Shape::new();
    for column in sqlx::query(columns).fetch_all(&mut *connection).await.unwrap() {
        let entry = shape.entry(column.get(0)).or_default();
        entry.0.insert((column.get(1), kind(column.get(2)), column.get(3)));
    }
    let keys = "SELECT t.relname::text, ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid \
           AND a.attnum = ANY(i.indkey)) FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid \
         WHERE i.indisunique AND t.relnamespace = 'public'::regnamespace AND t.relname <> '_sqlx_migrations'";
    for key in sqlx::query(keys).fetch_all(&mut *connection).await.unwrap() {
        let columns: Vec<String> = key.get(1);
        shape.get_mut(&key.get::<String, _>(0)).unwrap().1.insert(columns.into_iter().collect());
    }
    shape
}

/// Both schemas end with the same tables, columns and keys. What has no twin in the other's language is proven by behaviour, in the
/// conformance suite (overlaps, the audit trail).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_schemas_end_alike() {
    let database = Database::create().await;
    PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap().close().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dispatch.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut sqlite = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let mut postgres = database.connect().await;
    let (left, right) = (sqlite_shape(&mut sqlite).await, postgres_shape(&mut postgres).await);
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>(), "the tables");
    for (table, shape) in &left {
        assert_eq!(shape, &right[table], "{table}: SQLite left, PostgreSQL right");
    }
    assert!(left.len() >= 20, "{} tables", left.len());
    let numbers = "SELECT version, description FROM _sqlx_migrations ORDER BY version";
    let left: Vec<(i64, String)> =
        sqlx::query(numbers).fetch_all(&mut sqlite).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let right: Vec<(i64, String)> = sqlx::query(numbers)
        .fetch_all(&mut postgres)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(left, right, "the same numbers and names");
}
