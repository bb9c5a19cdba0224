//! `crm-dispatch audit verify` on the trail that a real server wrote: untouched it passes, and whatever an intruder with every right
//! on the database does to it is found, on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use crm_dispatch_server::app::open_store;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use std::process::{Command, Output, Stdio};
use support::postgres_support::Database;
use support::{Place, SECRET, TENANT, World};

/// Takes the append-only triggers away, as somebody would who owns the database.
const SQLITE_UNGUARDED: &str =
    "DROP TRIGGER audit_is_one_chain; DROP TRIGGER audit_is_final_update; DROP TRIGGER audit_is_final_delete";
const POSTGRES_UNGUARDED: &str = "ALTER TABLE audit DISABLE TRIGGER USER";

/// The chain's last line, whose number depends on how the phone's facts were grouped.
const LAST: &str = "last";

/// What an intruder does to `dispatch:DSP-1`, and what the command says then: the line, and a part of the reason.
const INTRUSIONS: [(&str, &[&str], &str, &str); 8] = [
    (
        "a line that was changed",
        &["UPDATE audit SET actor = 'somebody else' WHERE aggregate = 'dispatch:DSP-1' AND seq = 3"],
        "3",
        "the line was changed",
    ),
    (
        "a line that is JSON no more",
        &["UPDATE audit SET detail = '{' WHERE aggregate = 'dispatch:DSP-1' AND seq = 2"],
        "2",
        "its detail cannot be read",
    ),
    (
        "a line in the middle that was removed",
        &["DELETE FROM audit WHERE aggregate = 'dispatch:DSP-1' AND seq = 4"],
        "5",
        "lines 4 to 4 are missing",
    ),
    (
        "two lines that changed places",
        &[
            "UPDATE audit SET seq = 1000 WHERE aggregate = 'dispatch:DSP-1' AND seq = 2",
            "UPDATE audit SET seq = 2 WHERE aggregate = 'dispatch:DSP-1' AND seq = 3",
            "UPDATE audit SET seq = 3 WHERE aggregate = 'dispatch:DSP-1' AND seq = 1000",
        ],
        "2",
        "does not follow the line before it",
    ),
    (
        "a removed line whose place the later ones took",
        &[
            "DELETE FROM audit WHERE aggregate = 'dispatch:DSP-1' AND seq = 4",
            "UPDATE audit SET seq = seq + 1000 WHERE aggregate = 'dispatch:DSP-1' AND seq > 4",
            "UPDATE audit SET seq = seq - 1001 WHERE aggregate = 'dispatch:DSP-1' AND seq > 1000",
        ],
        "4",
        "does not follow the line before it",
    ),
    (
        "an end that was cut off",
        &["DELETE FROM audit WHERE aggregate = 'dispatch:DSP-1' AND seq > 4"],
        "4",
        "later ones were written: they are missing",
    ),
    (
        "a chain that is gone",
        &["DELETE FROM audit WHERE aggregate = 'dispatch:DSP-1'"],
        LAST,
        "lines of the chain are missing",
    ),
    (
        "an end that says something else",
        &["DELETE FROM audit_heads WHERE aggregate = 'dispatch:DSP-1'"],
        LAST,
        "recorded end of the chain",
    ),
];

fn verify(url: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
        .args(["audit", "verify"])
        .args(more)
        .env("CRM_DISPATCH__DATABASE__URL", url)
        .env("CRM_DISPATCH__AUTH__SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A morning's work of office and phone: three visits, of which one moves from hand to hand.
async fn morning(place: Place, dir: tempfile::TempDir) -> World {
    let mut world = World::at(dir, place, &[]).await;
    let phone = world.phone("TECH-10", "maria");
    let first = world.request("SO-1", 1).await;
    for technician in ["TECH-10", "TECH-20", "TECH-10"] {
        let path = if technician == "TECH-20" { "reassign" } else { "assign" };
        let path = if world.status(&first).await == "PENDING" { path } else { "reassign" };
        world.post(&format!("/{first}/{path}"), json!({ "technicianId": technician })).await;
    }
    world.assigned("SO-2", 3, "TECH-10").await;
    world.request("SO-3", 5).await;
    phone.until_holding(&first).await;
    phone.starts_work(&first).await;
    phone.caught_up().await;
    drop(phone);
    world.stop_server().await;
    world
}

/// The trail's own statements, on whatever database it is.
async fn change(place: &Place, sql: &str) {
    match place {
        Place::File(path) => {
            let mut connection =
                sqlx::SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
            connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
            connection.close().await.unwrap();
        }
        Place::Postgres(database) => {
            let mut connection = database.connect().await;
            connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

async fn every_intrusion_is_found(world: World, unguarded: &str) {
    let url = world.place.url();
    world.back_up();
    let (store, _) = open_store(&world.config()).await.unwrap();
    let whole = store.audit(&TENANT.parse().unwrap(), "dispatch:DSP-1", 0, 100).await.unwrap();
    assert!(whole.len() >= 6, "office and phone: {whole:?}");
    let last = whole.len().to_string();
    store.close().await;
    let untouched = verify(&url, &[]);
    assert!(untouched.status.success(), "{}", said(&untouched));
    assert!(said(&untouched).contains("the audit trail is unbroken"), "{}", said(&untouched));
    for (what, statements, line, reason) in INTRUSIONS {
        change(&world.place, unguarded).await;
        for sql in statements {
            change(&world.place, sql).await;
        }
        let found = verify(&url, &[]);
        assert_eq!(found.status.code(), Some(1), "{what}: {}", said(&found));
        let row = said(&found).lines().find(|row| row.contains("dispatch:DSP-1")).map(str::to_owned);
        let row = row.unwrap_or_else(|| panic!("{what}: {}", said(&found)));
        let cells: Vec<_> = row.split(['│', '┆']).map(str::trim).collect();
        let line = if line == LAST { last.as_str() } else { line };
        assert_eq!((cells[1], cells[2], cells[3]), (TENANT, "dispatch:DSP-1", line), "{what}: {row}");
        assert!(cells[4].contains(reason), "{what}: {row}");
        assert!(said(&found).contains("BROKEN: 1 of "), "{what}: {}", said(&found));
        // Asked for by name it is found too; its neighbour is whole.
        let by_name = |chain| verify(&url, &["--tenant", "tenant-001", "--aggregate", chain]);
        assert_eq!(by_name("dispatch:DSP-1").status.code(), Some(1), "{what}");
        assert!(by_name("dispatch:DSP-2").status.success(), "{what}");
        world.restore().await;
    }
    let again = verify(&url, &["--tenant", "tenant-001"]);
    assert!(again.status.success(), "{}", said(&again));
    let nobody = verify(&url, &["--tenant", "tenant-404"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(said(&nobody).contains("there is no such chain"), "{}", said(&nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intruder_in_the_sqlite_file_is_found_at_the_exact_line() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::File(dir.path().join("server.db"));
    every_intrusion_is_found(morning(place, dir).await, SQLITE_UNGUARDED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intruder_in_postgresql_is_found_at_the_exact_line() {
    let place = Place::Postgres(Database::create().await);
    every_intrusion_is_found(morning(place, tempfile::tempdir().unwrap()).await, POSTGRES_UNGUARDED).await;
}

#[test]
fn a_database_that_is_not_there_was_not_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nowhere.db");
    let output = verify(&format!("sqlite://{}", path.display()), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("there is no database"), "{}", said(&output));
    assert!(!path.exists(), "and none is made");
}
