//! How SQLite reads: every statement that can meet a large table finds its rows by an index.

use super::{commit, devices, directory, dispatches, feeds, journal, nodes, outbox, schema, writer};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

/// A schema as a database has it that was never analysed, which is how the server leaves it: plans then depend on the
/// schema alone.
async fn empty() -> SqliteConnection {
    let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
    schema::migrate(&mut connection, None).await.unwrap();
    connection
}

/// The plan's steps. Parameters are unbound: a plan does not depend on them.
async fn plan(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for statement in sql.split(';').map(str::trim).filter(|statement| !statement.starts_with("SAVEPOINT")) {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{error}: {statement}"));
        steps.extend(rows.iter().map(|row| row.get::<String, _>("detail")));
    }
    steps
}

/// A step that reads as many rows as there are: a table from end to end, or everything of a tenant.
fn reads_everything(step: &str) -> bool {
    // A list that was handed in, a constant, the one row that was handed in, a materialised page or list, the result of a subquery.
    let small = ["VIRTUAL TABLE", "CONSTANT ROW", "SCAN given", "SCAN p", "SCAN f", "SCAN (subquery"];
    let scans = step.starts_with("SCAN ") && !small.iter().any(|small| step.contains(small));
    scans || step.ends_with("(tenant=?)")
}

#[tokio::test]
async fn no_statement_reads_a_large_table_from_end_to_end() {
    let mut connection = empty().await;
    let narrow = [
        commit::LOOK,
        commit::REMEMBERED,
        commit::dispatch::UPDATE,
        commit::dispatch::BOOKED_BY,
        commit::device::LOOK_AT_DEVICE,
        commit::device::MARK_DELIVERED,
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
        nodes::FEED_HEADS,
        nodes::REVOKED,
        outbox::MARK_PUBLISHED,
        outbox::UNPUBLISHED,
        outbox::WAITING,
        writer::NEW_FLOOR,
        writer::PRUNE_FEED,
        writer::PRUNE_KEYS,
    ];
    for sql in narrow {
        let wide: Vec<_> = plan(&mut connection, sql).await.into_iter().filter(|step| reads_everything(step)).collect();
        assert_eq!(wide, [""; 0], "{sql}");
    }
    // These are asked for everything there is of something small, or stop after a page in the index's order.
    let wide = [
        (devices::DEVICES, "SEARCH v USING PRIMARY KEY (tenant=?)"),
        (devices::HELD_OF_TENANT, "SEARCH facts USING INDEX facts_held_by_device (tenant=?)"),
        (dispatches::EXCEPTIONS_OPEN, "SEARCH exceptions USING INDEX exceptions_open (tenant=?)"),
        (dispatches::EXCEPTIONS_ALL, "SEARCH exceptions USING INDEX exceptions_by_time (tenant=?)"),
        // Breaches that wait for a phone.
        (dispatches::DUE_PROVISIONAL, "SCAN s USING COVERING INDEX sla_provisional"),
        // One row a technician, now and then.
        (writer::PRUNABLE_FEEDS, "SCAN h"),
    ];
    for (sql, expected) in wide {
        let steps = plan(&mut connection, sql).await;
        let found: Vec<_> = steps.into_iter().filter(|step| reads_everything(step)).collect();
        assert_eq!(found, [expected], "{sql}");
    }
}

#[tokio::test]
async fn pages_come_in_the_index_order_and_are_never_sorted() {
    let mut connection = empty().await;
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
        let steps = plan(&mut connection, sql).await;
        assert!(!steps.iter().any(|step| step.contains("ORDER BY")), "{sql}: {steps:?}");
    }
}

#[tokio::test]
async fn a_visits_former_entry_and_a_calendars_neighbour_are_one_look_each() {
    let mut connection = empty().await;
    let steps = plan(&mut connection, feeds::NEWS).await;
    let former = "SEARCH b USING INDEX feed_by_dispatch (tenant=? AND dispatch_id=? AND technician=? AND seq<?)";
    assert!(steps.iter().any(|step| step == former), "{steps:?}");

    let migration = include_str!("../../../../migrations/sqlite/0003_directory.sql");
    let trigger = migration.split("WHEN (").nth(1).unwrap().split(") > NEW").next().unwrap();
    let columns = ["tenant", "technician", "dispatch_id", "start_ms", "end_ms"];
    let look = columns.iter().fold(trigger.to_owned(), |look, column| look.replace(&format!("NEW.{column}"), "?"));
    let steps = plan(&mut connection, &look).await;
    let neighbour = "SEARCH b USING COVERING INDEX bookings_by_technician (tenant=? AND technician=? AND start_ms<?)";
    assert_eq!(steps, [neighbour]);
}
