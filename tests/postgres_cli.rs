//! The commands on a PostgreSQL database, as an administrator types them: each says what it did, or in one line what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

#[path = "../server/tests/postgres_support/mod.rs"]
mod postgres_support;

use postgres_support::{Database, with_path};
use sqlx::Row as _;
use std::process::{Command, Output, Stdio};

/// Runs a command with this and nothing else of the environment.
fn crm_dispatch(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", url)
        .env("CRM_DISPATCH__SERVER__PORT", "0")
        .env("CRM_DISPATCH__ADMIN__PORT", "0")
        .env("CRM_DISPATCH__AUTH__SECRET", "a shared secret for tests only, long enough to be one")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of a command that failed.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("crm-dispatch: ") && !line.contains("hunter2"), "{line}");
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_postgresql() {
    let database = Database::create().await;
    let url = database.url();
    let line = said(&crm_dispatch(&url, &["migrate"]));
    assert!(line.trim_end().ends_with(&format!("{} is up to date", database.name())), "{line}");
    assert!(!line.contains('@'), "neither user nor password: {line}");

    let folder = tempfile::tempdir().unwrap();
    let orders = folder.path().join("orders.jsonl");
    let order = |id: &str, order: &str| {
        serde_json::json!({ "eventType": "ServiceOrderScheduledEvent", "eventId": id, "timestamp": "2026-02-02T10:30:00Z",
            "aggregateId": order, "tenantId": "tenant-001", "payload": { "serviceOrderId": order, "locationId": "LOC-10",
            "scheduleStart": "2026-02-03T08:00:00Z", "scheduleEnd": "2026-02-03T09:00:00Z" } })
        .to_string()
    };
    std::fs::write(&orders, format!("{}\n{}\n{}\n", order("e-1", "SO-1"), order("e-2", "SO-2"), order("e-1", "SO-1")))
        .unwrap();
    let mut connection = database.connect().await;
    sqlx::query("INSERT INTO locations VALUES ('tenant-001', 'LOC-10', 1, $1)")
        .bind(r#"{"locationId":"LOC-10","revision":1,"name":"Site","address":"Wien","coordinates":{"latitude":48.2,"longitude":16.3}}"#)
        .execute(&mut connection)
        .await
        .unwrap();
    for _ in 0..2 {
        let line = said(&crm_dispatch(&url, &["ingest", orders.to_str().unwrap()]));
        assert!(line.contains("3 taken, 0 refused"), "{line}");
    }
    let row = sqlx::query("SELECT (SELECT count(*) FROM dispatches), generation FROM meta")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 2, "each order once, however often it is taken in");
    let generation: i64 = row.get(1);

    let line = said(&crm_dispatch(&url, &["restored"]));
    assert!(line.contains("has a new identity"), "{line}");
    let row = sqlx::query("SELECT generation FROM meta").fetch_one(&mut connection).await.unwrap();
    assert_ne!(row.get::<i64, _>(0), generation);

    assert_eq!(said(&crm_dispatch(&url, &["token", "--role", "dispatcher"])).trim().split('.').count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_database_url_is_one_line_with_the_remedy() {
    let database = Database::create().await;
    let url = database.url();
    let place = url.split('@').next_back().unwrap().split('/').next().unwrap().to_owned();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, remedy) in [
        ("postgres://office:hunter2@[no-host/x".to_owned(), "write postgres://USER:PASSWORD@HOST"),
        ("mysql://office:hunter2@db/x".to_owned(), "use postgres://USER:PASSWORD@HOST"),
        (format!("postgres://office:hunter2@{free}/x"), "start PostgreSQL"),
        (format!("postgres://office:hunter2@{place}/postgres"), "correct user and password"),
        (with_path(&url, "no_such_database"), "create it first"),
    ] {
        for command in ["migrate", "serve"] {
            let line = refused(&crm_dispatch(&url, &[command]));
            assert!(line.contains(remedy), "{line}");
        }
    }
    // Nothing was made on the way.
    let mut connection = database.connect().await;
    let row = sqlx::query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}

/// An older release meets a database of a newer one: each command ends at once, and neither schema nor data has changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_release_is_one_line_with_the_remedy_and_stays_as_it_is() {
    let database = Database::create().await;
    let url = database.url();
    said(&crm_dispatch(&url, &["migrate"]));
    let mut connection = database.connect().await;
    for sql in [
        "INSERT INTO locations VALUES ('tenant-001', 'LOC-10', 1, '{}')",
        "INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', now(), true, '\\x00', 0)",
    ] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let dumped = |name: &str| {
        let file = folder.path().join(name);
        database.dump_plain(&file);
        std::fs::read_to_string(file).unwrap()
    };
    let before = dumped("before");
    assert!(before.contains("LOC-10") && before.contains("from the future"));
    for command in [&["serve"][..], &["migrate"], &["restored"], &["ingest", "-"]] {
        let line = refused(&crm_dispatch(&url, command));
        assert!(line.contains("has schema 9999") && line.contains("run the newer release"), "{command:?}: {line}");
    }
    assert_eq!(dumped("after"), before);
}
