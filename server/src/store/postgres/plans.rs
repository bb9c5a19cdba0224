//! How PostgreSQL reads: every statement that can meet a large table finds its rows by an index.

use super::{
    PostgresStore, commit, connect::PostgresOptions, devices, directory, dispatches, feeds, journal, outbox, prune,
};
use crate::store::CommitLog as _;
use postgres_support::Database;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use std::sync::Arc;

#[path = "../../../tests/postgres_support/mod.rs"]
mod postgres_support;

/// Some thousand rows of several tenants in every table, and their statistics: where there is nothing to read, all plans cost the same.
const FILL: &str = "
CREATE TEMP TABLE n AS SELECT i, 'tenant-' || i % 3 AS t, 'DSP-' || i AS d, 'TECH-' || i % 100 AS h FROM generate_series(1, 6000) i;
INSERT INTO dispatches (tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, epoch, start_ms,
    end_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state)
  SELECT t, d, 'SO-' || i, 'LOC-' || i % 50, 1, (ARRAY['PENDING', 'ASSIGNED', 'COMPLETED'])[1 + i / 3 % 3], 1, h, 1, i * 100, i * 100 + 50, 0, 0, i,
    0, '', repeat('x', 500), '' FROM n;
INSERT INTO documents SELECT t, d, '' FROM n;
INSERT INTO changes SELECT t, d, r, 0, sha256((i || '-' || r)::bytea), substr(sha256(''), 1, 16), NULL, '' FROM n, generate_series(1, 4) r;
INSERT INTO facts SELECT t, 'FACT-' || i, d, 'phone-' || i % 100, i, 0, 1, 'arrived', 0, 'serial-' || i, CASE WHEN i % 50 > 0 THEN 'accepted' END, NULL,
    NULL, CASE WHEN i % 50 = 0 THEN i END FROM n;
INSERT INTO exceptions SELECT t, 'EXC-' || i, d, i, CASE WHEN i % 5 > 0 THEN i END, '' FROM n;
INSERT INTO sla SELECT t, d, i, CASE WHEN i % 50 = 0 THEN 'PROVISIONAL' ELSE 'CONFIRMED' END, i FROM n;
INSERT INTO technicians SELECT t, 'TECH-' || i, 1, '' FROM n;
INSERT INTO locations SELECT t, 'LOC-' || i, 1, '' FROM n;
INSERT INTO bookings SELECT t, d, h, i * 100, i * 100 + 50 FROM n;
INSERT INTO feed_heads SELECT t, 'TECH-' || i, 1, 0 FROM n;
INSERT INTO feed SELECT t, h, i, d, 1, 1, 'held', 0, NULL, i FROM n;
INSERT INTO held SELECT t, h, d, 1, 0, i, i FROM n;
INSERT INTO devices SELECT t, 'phone-' || i, 'TECH-' || i, '', 0, 0, '', 0, 0, NULL, NULL, 0, NULL, NULL, 0 FROM n;
INSERT INTO events (tenant, event_id, topic, aggregate_id, json, published_ms)
  SELECT t, 'evt-' || i, 'topic-' || i % 5, d, '', CASE WHEN i % 50 > 0 THEN 1 END FROM n;
INSERT INTO consumed_events SELECT t, 'evt-' || i, i FROM n;
INSERT INTO idempotency_keys SELECT t, 'key-' || i, '', 200, NULL, '', i FROM n;
INSERT INTO audit SELECT t, 'dispatch:' || d, 1, 0, '', '', '', sha256(''), sha256('') FROM n;
INSERT INTO audit_heads SELECT t, 'dispatch:' || d, 1, sha256('') FROM n;
ANALYZE;
";

async fn filled() -> (Arc<PostgresStore>, PgConnection, Database) {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    // As the store's own connections are set.
    let mut connection = store.target.connect().await.unwrap();
    connection.execute(FILL).await.unwrap();
    (store, connection, database)
}

/// The generic plan's lines: what every execution uses, whatever its parameters.
async fn plan(connection: &mut PgConnection, sql: &str) -> Vec<String> {
    let parameters = (1..=200).take_while(|number| sql.contains(&format!("${number}"))).count();
    let nulls = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    connection
        .execute(AssertSqlSafe(format!("PREPARE looked_at AS {sql}")))
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
    let rows = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN EXECUTE looked_at{arguments}")))
        .fetch_all(&mut *connection)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
    connection.execute("DEALLOCATE looked_at").await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0).trim().to_owned()).collect()
}

/// A line that says that as many rows are read as there are: a table from end to end, or everything of a tenant.
fn reads_everything(line: &str) -> bool {
    let scans = line.contains("Seq Scan on ");
    let condition = line.strip_prefix("Index Cond: ");
    scans || condition.is_some_and(|condition| condition.starts_with("(tenant = ") && !condition.contains(" AND "))
}

/// What is asked for by name.
fn narrow() -> Vec<String> {
    let whole = commit::whole();
    [
        commit::LOOK,
        commit::LOOK_AT_DEVICES,
        commit::REMEMBERED,
        &whole,
        commit::BOOKINGS_GONE,
        commit::BOOKED_BY,
        commit::MARK_DELIVERED,
        devices::DEVICE,
        devices::DEVICES_OF_TECHNICIAN,
        devices::HELD_OF_DEVICE,
        devices::HELD_OF_DISPATCH,
        directory::TECHNICIAN,
        directory::TECHNICIANS,
        directory::LOCATION,
        directory::LOCATIONS,
        directory::BOOKINGS,
        dispatches::ONE,
        dispatches::STANDINGS,
        dispatches::DOCUMENTS,
        dispatches::BY_SERVICE_ORDER,
        dispatches::SEARCH_BY_TECHNICIAN,
        dispatches::SEARCH_BY_LOCATION,
        dispatches::SEARCH_BY_STATUS,
        dispatches::SEARCH_BY_START,
        dispatches::SEARCH_BY_ORDER,
        dispatches::EXCEPTIONS_OF_DISPATCH,
        dispatches::DUE_DEADLINE,
        dispatches::DUE_HELD,
        dispatches::SLA,
        dispatches::FACTS_BY_SEQUENCE,
        dispatches::FACTS_BY_SERIAL,
        feeds::HEAD,
        feeds::NEWS,
        feeds::WHOLE,
        feeds::CARDS,
        feeds::CHANGES,
        feeds::HELD,
        feeds::HELD_SOME,
        feeds::OUTSIDE_WINDOW,
        feeds::HOLDERS,
        journal::EVENTS,
        journal::EVENTS_OF_TOPIC,
        journal::EVENTS_OF_AGGREGATE,
        journal::AUDIT,
        journal::AUDIT_WALK,
        journal::AUDIT_HEADS,
        outbox::MARK_PUBLISHED,
        outbox::UNPUBLISHED,
        outbox::WAITING,
        prune::KEYS,
        prune::FEED,
    ]
    .map(str::to_owned)
    .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_reads_a_large_table_from_end_to_end() {
    let (store, mut connection, _database) = filled().await;
    for sql in narrow() {
        let sql = sql.as_str();
        let lines = plan(&mut connection, sql).await;
        let wide: Vec<_> = lines.iter().filter(|line| reads_everything(line)).collect();
        // The one row of the database's identity.
        let wide: Vec<_> = wide.into_iter().filter(|line| !line.contains("Seq Scan on meta ")).collect();
        assert_eq!(wide, [""; 0], "{sql}\n{}", lines.join("\n"));
    }
    // These are asked for everything there is of something small, or stop after a page in the index's order.
    let wide = [devices::DEVICES, devices::HELD_OF_TENANT, dispatches::EXCEPTIONS_OPEN, dispatches::EXCEPTIONS_ALL];
    for sql in wide {
        let lines = plan(&mut connection, sql).await;
        assert!(!lines.iter().any(|line| line.contains("Seq Scan on ")), "{sql}\n{}", lines.join("\n"));
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_from_end_to_end_while_there_are_no_statistics() {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    let mut connection = store.target.connect().await.unwrap();
    let mut wrong = Vec::new();
    // Where all indices seem equally good for one row, PostgreSQL takes the oldest; that costs a request of the office little.
    for sql in narrow().into_iter().filter(|sql| sql != dispatches::BY_SERVICE_ORDER) {
        let lines = plan(&mut connection, &sql).await;
        if lines.iter().any(|line| reads_everything(line) && !line.contains("Seq Scan on meta ")) {
            wrong.push(format!("{sql}\n{}", lines.join("\n")));
        }
    }
    assert_eq!(wrong, [""; 0], "{}", wrong.join("\n\n"));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_come_in_the_index_order_and_are_never_sorted() {
    let (store, mut connection, _database) = filled().await;
    let pages = [
        dispatches::SEARCH_BY_TECHNICIAN,
        dispatches::SEARCH_BY_LOCATION,
        dispatches::SEARCH_BY_STATUS,
        dispatches::SEARCH_BY_START,
        dispatches::EXCEPTIONS_OPEN,
        dispatches::EXCEPTIONS_ALL,
        dispatches::EXCEPTIONS_OF_DISPATCH,
        feeds::HELD,
        journal::EVENTS,
        journal::EVENTS_OF_TOPIC,
        journal::EVENTS_OF_AGGREGATE,
        journal::AUDIT,
        journal::AUDIT_WALK,
        journal::AUDIT_HEADS,
        outbox::UNPUBLISHED,
    ];
    for sql in pages {
        let lines = plan(&mut connection, sql).await;
        // The list of technicians inside a row is sorted, and short.
        let outer = lines.iter().take_while(|line| !line.starts_with("SubPlan"));
        let sorts: Vec<_> = outer.filter(|line| line.contains("Sort")).collect();
        assert_eq!(sorts, [""; 0], "{sql}\n{}", lines.join("\n"));
    }
    store.close().await;
}
