//! Several nodes on one PostgreSQL database: each `PostgresStore` is what one server process has.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_imports,
    reason = "a story that is not as told shall fail"
)]

mod postgres_support;

use crm_dispatch_server::service::commit::{Commit, CommitError, IdempotencyRecord};
use crm_dispatch_server::store::conformance::fixture::*;
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use crm_dispatch_server::store::{CommitLog as _, Directory as _, Dispatches as _, Feeds as _, Journal as _, Store};
use postgres_support::Database;
use sqlx::{Connection as _, Executor as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use sync_core::domain::TenantId;

async fn nodes(database: &Database, count: usize) -> Vec<Arc<PostgresStore>> {
    let opening = (0..count).map(|_| {
        let options = PostgresOptions::new(database.url());
        tokio::spawn(async move { PostgresStore::open(&options).await })
    });
    let opening: Vec<_> = opening.collect();
    let mut nodes = Vec::new();
    for node in opening {
        nodes.push(node.await.unwrap().unwrap());
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_start_at_once_make_one_schema_and_one_identity() {
    let database = Database::create().await;
    let nodes = nodes(&database, 4).await;
    let identities: BTreeSet<_> = nodes.iter().map(|node| node.identity().generation.0).collect();
    assert_eq!(identities.len(), 1);
    for (index, node) in nodes.iter().enumerate() {
        commit_dispatch(&**node, 0, write(&visit(&format!("DSP-{index}")), 1)).await;
    }
}

/// Forty dispatchers on two nodes want the same technician at the same hour, and another visit for each of them later.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dispatchers_on_two_nodes_book_one_technician_and_one_wins() {
    let database = Database::create().await;
    let nodes = nodes(&database, 2).await;
    let anna = tech("TECH-10");
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let (node, anna) = (Arc::clone(&nodes[number % 2]), anna.clone());
            tokio::spawn(async move {
                let id = visit(&format!("DSP-{number}"));
                let wanted = booked(assigned(&id, 1, &anna, 1), &anna, window(0, 60));
                let audit = vec![audit(&format!("dispatch:{id}"), 0, serde_json::json!({ "by": number }))];
                let first = try_commit(&*node, Commit { dispatch: Some(wanted), audit, ..blank(0) }).await;
                if let Err(CommitError::Overlap { technician, dispatch }) = &first {
                    assert_eq!(technician, &anna);
                    assert_ne!(dispatch, &id);
                }
                // Whoever lost takes an hour of their own.
                let hour = i64::try_from(number).unwrap() * 60 + 60;
                let later = booked(assigned(&id, 1, &anna, 1), &anna, window(hour, hour + 60));
                let second = match first {
                    Ok(_) => None,
                    Err(_) => Some(try_commit(&*node, Commit { dispatch: Some(later), ..blank(0) }).await),
                };
                (first, second)
            })
        })
        .collect();
    let (mut won, mut lost) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            (Ok(_), None) => won += 1,
            (Err(CommitError::Overlap { .. }), Some(Ok(_))) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((won, lost), (1, 39));
    for node in &nodes {
        let booked = node.bookings(&acme(), &anna, window(-60, 10_000)).await.unwrap();
        assert_eq!(booked.len(), 40);
        assert!(booked.windows(2).all(|pair| pair[0].1.end <= pair[1].1.start), "{booked:?}");
    }
    // Only who was written has an audit line.
    let mut lines = 0;
    for number in 0..40 {
        lines += nodes[0].audit(&acme(), &format!("dispatch:DSP-{number}"), 0, 10).await.unwrap().len();
    }
    assert_eq!(lines, 1);
}

/// Whoever writes past the nodes is stopped by the database itself, also when two do it at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_itself_forbids_overlaps_and_rewriting_history() {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    let anna = tech("TECH-10");
    let told = Commit {
        dispatch: Some(booked(write(&visit("DSP-1"), 1), &anna, window(0, 60))),
        audit: vec![audit("dispatch:DSP-1", 0, serde_json::json!({}))],
        ..blank(0)
    };
    commit(&*store, told).await;
    let mut stranger = database.connect().await;
    for forbidden in [
        "INSERT INTO bookings SELECT tenant, 'DSP-3', technician, start_ms + 1, end_ms + 1 FROM bookings LIMIT 1",
        "UPDATE bookings SET end_ms = start_ms WHERE dispatch_id = 'DSP-1'",
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "INSERT INTO audit SELECT tenant, aggregate, 3, at_ms, actor, action, detail, hash, hash FROM audit",
        "INSERT INTO audit SELECT tenant, aggregate, 0, at_ms, actor, action, detail, hash, hash FROM audit",
        "INSERT INTO audit SELECT tenant, aggregate, 1, at_ms, actor, action, detail, hash, hash FROM audit \
         ON CONFLICT (tenant, aggregate, seq) DO UPDATE SET actor = 'nobody'",
    ] {
        let refused = stranger.execute(forbidden).await;
        assert!(refused.is_err(), "{forbidden}");
    }

    // Two at the same moment: the second waits for the first, and is refused when the first is written.
    let mut other = database.connect().await;
    let mut first = stranger.begin().await.unwrap();
    let book = "INSERT INTO bookings SELECT tenant, $1, technician, start_ms + 7200000, end_ms + 7200000 FROM bookings LIMIT 1";
    sqlx::query(book).bind("DSP-7").execute(&mut *first).await.unwrap();
    let second = tokio::spawn(async move { sqlx::query(book).bind("DSP-8").execute(&mut other).await });
    tokio::task::yield_now().await;
    first.commit().await.unwrap();
    let refused = second.await.unwrap().unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("bookings_overlap"), "{refused}");
}

/// Readers follow the journal by its positions while four nodes write: nobody misses an event that was in flight when they
/// looked, a dispatch's events come in their order, and feeds have no gaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_with_a_cursor_never_skips_what_was_in_flight() {
    const CALLS: usize = 12;
    const TURNS: u64 = 12;
    let database = Database::create().await;
    let nodes = nodes(&database, 4).await;
    let anna = tech("TECH-10");
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (node, done) = (Arc::clone(node), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut after, mut seen) = (0, Vec::new());
                loop {
                    let last = done.load(Ordering::SeqCst);
                    let page = node.events(&acme(), after, None, None, 7).await.unwrap();
                    if page.is_empty() && last {
                        return seen;
                    }
                    for (position, event) in page {
                        assert!(position > after);
                        after = position;
                        seen.push(event.event_id.to_string());
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..CALLS)
        .map(|call| {
            let (nodes, anna) = (nodes.clone(), anna.clone());
            tokio::spawn(async move {
                let id = visit(&format!("DSP-{call}"));
                for turn in 1..=TURNS {
                    let node = &nodes[(call + turn as usize) % nodes.len()];
                    let told = Commit {
                        dispatch: Some(held_by(write(&id, turn), &anna)),
                        events: vec![event(&format!("evt-{call}-{turn}"), &id, &anna)],
                        audit: vec![audit("technician:TECH-10", 0, serde_json::json!([call, turn]))],
                        ..blank(0)
                    };
                    commit(&**node, told).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let expected = CALLS * TURNS as usize;
    for reader in readers {
        let seen = reader.await.unwrap();
        assert_eq!(seen.len(), expected, "each event once");
        for call in 0..CALLS {
            let own: Vec<_> = seen.iter().filter(|id| id.starts_with(&format!("evt-{call}-"))).collect();
            let in_order: Vec<_> = (1..=TURNS).map(|turn| format!("evt-{call}-{turn}")).collect();
            assert_eq!(own, in_order.iter().collect::<Vec<_>>());
        }
    }
    let head = nodes[0].feed_head(&acme(), &anna).await.unwrap();
    assert_eq!(head.0, expected as u64, "positions without gaps");
    assert_eq!(nodes[3].feed_head(&acme(), &anna).await.unwrap(), head);
    let lines = nodes[1].audit(&acme(), "technician:TECH-10", 0, 1_000).await.unwrap();
    assert_eq!(lines.len(), expected);
    assert_eq!(crm_dispatch_server::store::audit::verify_chain(&acme(), &lines), Ok(()));
}

/// Calls about many tenants, some about several at once, criss-cross on three nodes: none waits for ever, none is told of a
/// deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_about_many_tenants_do_not_lock_each_other_out() {
    let database = Database::create().await;
    let nodes = nodes(&database, 3).await;
    let tenant = |number: usize| TenantId::new(format!("tenant-{}", number % 12)).unwrap();
    let calls: Vec<_> = (0..90)
        .map(|number| {
            let node = Arc::clone(&nodes[number % 3]);
            let commits: Vec<_> = [number, number * 7 + 3, number * 5 + 1]
                .into_iter()
                .enumerate()
                .map(|(part, of)| {
                    let id = visit(&format!("DSP-{number}-{part}"));
                    let anna = tech("TECH-10");
                    Commit { tenant: tenant(of), dispatch: Some(held_by(write(&id, 1), &anna)), ..blank(0) }
                })
                .collect();
            tokio::spawn(async move { node.commit(commits).await })
        })
        .collect();
    for call in calls {
        let results = call.await.unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    let mut entries = 0;
    for number in 0..12 {
        entries += nodes[0].feed_head(&tenant(number), &tech("TECH-10")).await.unwrap().0;
    }
    assert_eq!(entries, 270);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_unique_over_all_nodes() {
    let database = Database::create().await;
    let nodes = nodes(&database, 3).await;
    let mut all = BTreeSet::new();
    for turn in 0..250 {
        assert!(all.insert(nodes[turn % 3].next_number(&acme(), "DSP").await.unwrap()), "given twice");
    }
}

/// One caller's request is repeated at another node, as after a lost answer: it is answered, not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_repeated_at_another_node_is_answered_as_before() {
    let database = Database::create().await;
    let nodes = nodes(&database, 2).await;
    let record = |body: &str| IdempotencyRecord {
        key: "key-1".into(),
        request_hash: "hash".into(),
        status: 201,
        etag: Some("\"1\"".into()),
        body: body.into(),
    };
    let call = |body: &str| Commit { idempotency: Some(record(body)), ..blank(0) };
    commit(&*nodes[0], call("first")).await;
    assert_eq!(try_commit(&*nodes[1], call("second")).await, Err(CommitError::KeyUsed(record("first"))));
    assert_eq!(nodes[1].remembered(&acme(), "key-1").await.unwrap(), Some(record("first")));
}

/// The database was restored, and one node was told so; the others learn it with their next commit, which is decided anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_identity_reaches_every_node_before_it_writes() {
    let database = Database::create().await;
    let nodes = nodes(&database, 2).await;
    let renewed = nodes[0].renew_identity().await.unwrap();
    let stale = Commit { dispatch: Some(write(&visit("DSP-1"), 1)), ..blank(0) };
    let refused = try_commit(&*nodes[1], stale.clone()).await;
    assert!(matches!(refused, Err(CommitError::Conflict(_))), "{refused:?}");
    assert_eq!(nodes[1].identity(), renewed);
    commit(&*nodes[1], stale).await;
}

/// A node is gone in the middle of a transaction (the machine lost its power): the tenant is writable again as soon as PostgreSQL
/// has noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_while_it_writes_holds_nobody_up() {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    let mut dying = database.connect().await;
    // Every stripe's lock, as a writer holds one.
    for stripe in 0..8 {
        sqlx::query("SELECT pg_advisory_lock($1, $2)")
            .bind(0x0063_726d_i32)
            .bind(stripe)
            .execute(&mut dying)
            .await
            .unwrap();
    }
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { try_commit(&*store, Commit { dispatch: Some(write(&visit("DSP-1"), 1)), ..blank(0) }).await }
    });
    // Reading goes on meanwhile.
    assert_eq!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap(), None);
    assert!(!waiting.is_finished());
    drop(dying);
    waiting.await.unwrap().unwrap();
}

/// What a caller may choose freely may hold any character; PostgreSQL's texts cannot hold a zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zero_character_harms_only_who_sends_it() {
    let database = Database::create().await;
    let store: Arc<dyn Store> = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    let anna = tech("TECH-10");
    let mut bad = device(&phone("phone-a"), &anna);
    bad.app = Some("app\0".into());
    let results = store
        .commit(vec![
            Commit { dispatch: Some(write(&visit("DSP-1"), 1)), ..blank(0) },
            Commit { devices: vec![bad], ..blank(0) },
            Commit { dispatch: Some(write(&visit("DSP-2"), 1)), ..blank(0) },
        ])
        .await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(CommitError::Store(_))), "{results:?}");
    assert_eq!(store.events(&acme(), 0, Some("a\0"), None, 10).await.unwrap(), []);
    assert_eq!(store.audit(&acme(), "a\0", 0, 10).await.unwrap(), []);
}
