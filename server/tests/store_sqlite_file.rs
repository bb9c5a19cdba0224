//! What only a store in a file can get wrong: the file itself, a crash, an older or newer release, a restored copy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

use crm_dispatch_server::service::commit::{Commit, CommitError};
use crm_dispatch_server::store::conformance::fixture::*;
use crm_dispatch_server::store::sqlite::SqliteStore;
use crm_dispatch_server::store::{CommitLog as _, Directory as _, Dispatches as _, Feeds as _, StoreError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dispatch.db");
    (directory, path)
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

/// What a power cut leaves behind: the files as they are at this moment, without the process that had them open.
fn pull_the_plug(path: &Path, into: &Path) -> PathBuf {
    let copy = into.join("after-the-crash.db");
    std::fs::copy(path, &copy).unwrap();
    std::fs::copy(path.with_extension("db-wal"), into.join("after-the-crash.db-wal")).unwrap();
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_power_cut() {
    let (directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let anna = tech("TECH-10");
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let (store, anna) = (store.clone(), anna.clone());
            tokio::spawn(async move {
                let id = visit(&format!("DSP-{n}"));
                commit_dispatch(&*store, 0, held_by(write(&id, 1), &anna)).await
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let number = store.next_number(&acme(), "DSP").await.unwrap();
    let (head, identity) = (store.feed_head(&acme(), &anna).await.unwrap(), store.identity());

    let crashed = SqliteStore::open(&pull_the_plug(&path, directory.path())).await.unwrap();
    assert_eq!(crashed.feed_head(&acme(), &anna).await.unwrap(), head);
    assert_eq!(head.0, 50);
    assert_eq!(crashed.identity(), identity, "a restart is no restore");
    for n in 0..50 {
        assert!(crashed.dispatch(&acme(), &visit(&format!("DSP-{n}"))).await.unwrap().is_some());
    }
    assert!(crashed.next_number(&acme(), "DSP").await.unwrap() > number, "no number twice");
    let next = commit_dispatch(&*crashed, 0, held_by(write(&visit("DSP-50"), 1), &anna)).await;
    assert_eq!(next.feed[0].seq, 51);
}

#[tokio::test]
async fn a_store_that_was_dropped_without_closing_is_whole() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap().unwrap().row.revision, 1);
}

#[tokio::test]
async fn closing_leaves_one_file_and_answers_late_calls() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    store.close().await;
    assert!(!path.with_extension("db-wal").exists(), "the log was copied and removed");
    let late = try_commit(&*store, blank(0)).await;
    assert!(matches!(late, Err(CommitError::Store(_))), "{late:?}");
    assert!(store.prune(at(0)).await.is_err());
    assert!(store.dispatch(&acme(), &visit("DSP-1")).await.is_err());
    store.close().await;

    let store = SqliteStore::open(&path).await.unwrap();
    assert!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_newer_release_is_refused_and_nothing_is_touched() {
    let (_directory, path) = directory();
    SqliteStore::open(&path).await.unwrap().close().await;
    let mut newer = raw(&path).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', true, x'00', 0)",
    )
    .execute(&mut newer)
    .await
    .unwrap();
    newer.close().await.unwrap();

    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).await.unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 9999, known } if known < 9999), "{refused}");
    assert!(refused.to_string().contains("run the newer release"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_path_that_cannot_hold_a_database_names_the_remedy() {
    let (directory, path) = directory();
    let refused = SqliteStore::open(directory.path()).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Unusable { .. }), "{refused}");
    assert!(refused.to_string().contains("name a file in it"), "{refused}");

    std::fs::write(
        &path,
        b"this is a letter to a customer, not a database; it is long enough to be looked at".repeat(99),
    )
    .unwrap();
    let letter = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).await.unwrap_err();
    assert!(refused.to_string().contains("restore it from a backup"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), letter, "it is left alone");

    let below_a_file = SqliteStore::open(&path.join("dispatch.db")).await.unwrap_err();
    assert!(below_a_file.to_string().contains("may write"), "{below_a_file}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_are_the_owners_alone_and_directories_are_made() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("var/lib/dispatch.db");
    let store = SqliteStore::open(&path).await.unwrap();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    for file in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_restored_copy_gets_an_identity_of_its_own() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let original = store.identity();
    let renewed = store.renew_identity().await.unwrap();
    assert_ne!(renewed.generation, original.generation);
    assert_ne!(renewed.actor, original.actor);
    assert_eq!(store.identity(), renewed);
    drop(store);
    assert_eq!(SqliteStore::open(&path).await.unwrap().identity(), renewed);
    let (_other, other_path) = self::directory();
    assert_ne!(SqliteStore::open(&other_path).await.unwrap().identity().generation, renewed.generation);
}

/// Whoever writes past the store's own checks is stopped by the database itself.
#[tokio::test]
async fn the_database_itself_forbids_overlaps_and_rewriting_history() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let anna = tech("TECH-10");
    let first = booked(write(&visit("DSP-1"), 1), &anna, window(0, 60));
    commit_dispatch(&*store, 0, booked(write(&visit("DSP-2"), 1), &anna, window(60, 90))).await;
    let told =
        Commit { dispatch: Some(first), audit: vec![audit("dispatch:DSP-1", 0, serde_json::json!({}))], ..blank(0) };
    commit(&*store, told).await;
    let mut stranger = raw(&path).await;
    for forbidden in [
        "INSERT INTO bookings SELECT tenant, 'DSP-3', technician, start_ms + 1, end_ms + 1 FROM bookings LIMIT 1",
        "UPDATE bookings SET end_ms = end_ms + 1 WHERE dispatch_id = 'DSP-1'",
        "UPDATE bookings SET end_ms = start_ms WHERE dispatch_id = 'DSP-1'",
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT tenant, aggregate, seq, 0, actor, action, detail, previous_hash, hash FROM audit",
    ] {
        let refused = sqlx::query(forbidden).execute(&mut stranger).await;
        assert!(refused.is_err(), "{forbidden}");
    }
    let booked_now = store.bookings(&acme(), &anna, window(0, 100)).await.unwrap();
    assert_eq!(booked_now.iter().map(|booking| booking.1).collect::<Vec<_>>(), [window(0, 60), window(60, 90)]);
}

/// Another process holds the database for a while (a backup, a curious administrator): calls wait, none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_held_by_somebody_else_is_waited_for() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut stranger = raw(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut stranger).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { try_commit(&*store, Commit { dispatch: Some(write(&visit("DSP-1"), 1)), ..blank(0) }).await }
    });
    // Reading goes on meanwhile.
    assert_eq!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap(), None);
    assert!(!waiting.is_finished());
    sqlx::query("ROLLBACK").execute(&mut stranger).await.unwrap();
    assert!(waiting.await.unwrap().is_ok());
}

/// Many readers beside many writers, while the log is copied again and again: nobody is told that the database is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_writers_and_checkpoints_do_not_lock_each_other_out() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let anna = tech("TECH-10");
    let writers: Vec<_> = (0..8)
        .map(|call| {
            let (store, anna) = (store.clone(), anna.clone());
            tokio::spawn(async move {
                for turn in 0..15 {
                    let mut large = held_by(write(&visit(&format!("DSP-{call}-{turn}")), 1), &anna);
                    large.document = vec![0; 200_000];
                    commit_dispatch(&*store, 0, large).await;
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, anna) = (store.clone(), anna.clone());
            tokio::spawn(async move {
                let mut last = 0;
                while last < 120 {
                    let page = store.held(&acme(), &anna, None, 5, usize::MAX).await.unwrap();
                    assert!(page.head >= last, "a reader never sees the past again");
                    last = page.head;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in writers.into_iter().chain(readers) {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_for_ever() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    for n in 0..120 {
        let mut large = write(&visit(&format!("DSP-{n}")), 1);
        large.document = vec![0; 1_500_000];
        commit_dispatch(&*store, 0, large).await;
    }
    let log = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    assert!(log < 120_000_000, "{log} bytes of log after 180 MB of documents");
}
