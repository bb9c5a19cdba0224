//! PostgreSQL goes away and comes back: nothing acknowledged is lost, nothing is done twice, and work resumes by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_imports,
    reason = "a story that is not as told shall fail"
)]

mod postgres_support;

use crm_dispatch_server::service::commit::{Commit, CommitError};
use crm_dispatch_server::store::conformance::fixture::*;
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use crm_dispatch_server::store::{CommitLog as _, Dispatches as _, Feeds as _, Journal as _, StoreError};
use postgres_support::{Database, Server};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to the next COMMIT that passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Nothing.
    No,
    /// The wire is cut before it reaches the database.
    Before,
    /// The wire is cut after the database has answered, before the answer is through.
    After,
}

/// A wire to PostgreSQL that can be cut at the worst moment.
struct Wire {
    port: u16,
    cut: Arc<Mutex<Cut>>,
    cuts: Arc<AtomicUsize>,
    accepts: Arc<AtomicBool>,
}

impl Wire {
    async fn to(address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            cut: Arc::new(Mutex::new(Cut::No)),
            cuts: Arc::default(),
            accepts: Arc::new(AtomicBool::new(true)),
        };
        let (cut, cuts, accepts) = (wire.cut.clone(), wire.cuts.clone(), wire.accepts.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if accepts.load(Ordering::SeqCst) {
                    let far = TcpStream::connect(&address).await.unwrap();
                    tokio::spawn(carry(near, far, cut.clone(), cuts.clone()));
                }
            }
        });
        wire
    }

    fn cut_next(&self, cut: Cut) {
        *self.cut.lock().unwrap() = cut;
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, cut: Arc<Mutex<Cut>>, cuts: Arc<AtomicUsize>) {
    let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    let mut holds_back = false;
    loop {
        tokio::select! {
            read = near.read(&mut out) => match read {
                Ok(length) if length > 0 => {
                    let sent = &out[..length];
                    if sent.windows(7).any(|part| part == b"COMMIT\0") {
                        let asked = std::mem::replace(&mut *cut.lock().unwrap(), Cut::No);
                        if asked != Cut::No {
                            cuts.fetch_add(1, Ordering::SeqCst);
                        }
                        match asked {
                            Cut::No => {}
                            Cut::Before => return,
                            Cut::After => holds_back = true,
                        }
                    }
                    if far.write_all(sent).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = far.read(&mut back) => match read {
                Ok(length) if length > 0 && !holds_back => {
                    if near.write_all(&back[..length]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// A store behind a wire that can be cut.
async fn behind_a_wire() -> (Arc<PostgresStore>, Wire, Database) {
    let database = Database::create().await;
    let url = database.url();
    let place = url.split('@').next_back().unwrap().split('/').next().unwrap().to_owned();
    let wire = Wire::to(place.clone()).await;
    let through = url.replacen(&place, &format!("127.0.0.1:{}", wire.port), 1);
    (PostgresStore::open(&PostgresOptions::new(through)).await.unwrap(), wire, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_found_and_answered() {
    let (store, wire, _database) = behind_a_wire().await;
    let anna = tech("TECH-10");
    for (turn, cut) in (1..).zip([Cut::After, Cut::Before, Cut::After]) {
        wire.cut_next(cut);
        let told = Commit {
            dispatch: Some(held_by(write(&visit("DSP-1"), turn), &anna)),
            events: vec![event(&format!("evt-{turn}"), &visit("DSP-1"), &anna)],
            ..blank(0)
        };
        let committed = try_commit(&*store, told).await.unwrap();
        assert_eq!(committed.feed[0].seq, turn, "once, whether the database had written it or not");
        assert_eq!(wire.cuts.load(Ordering::SeqCst), usize::try_from(turn).unwrap(), "the wire was cut");
    }
    assert_eq!(store.events(&acme(), 0, None, None, 10).await.unwrap().len(), 3);
    assert_eq!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap().unwrap().row.revision, 3);
}

/// The answer is lost, and the database stays away longer than anybody wants to wait: the caller is told that nobody knows, and a
/// repetition is decided by what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_know_is_never_called_not_written() {
    let database = Database::create().await;
    let url = database.url();
    let place = url.split('@').next_back().unwrap().split('/').next().unwrap().to_owned();
    let wire = Wire::to(place.clone()).await;
    let through = url.replacen(&place, &format!("127.0.0.1:{}", wire.port), 1);
    let hasty = PostgresOptions { patience: Duration::from_millis(300), ..PostgresOptions::new(through) };
    let store = PostgresStore::open(&hasty).await.unwrap();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    wire.cut_next(Cut::After);
    wire.accepts.store(false, Ordering::SeqCst);
    let second = Commit { dispatch: Some(write(&visit("DSP-1"), 2)), ..blank(0) };
    let answer = try_commit(&*store, second.clone()).await;
    assert!(matches!(&answer, Err(CommitError::Store(why)) if why.contains("unknown")), "{answer:?}");
    let unreachable = loop {
        // One answer may still come through a connection that was open.
        if let Err(error) = store.dispatch(&acme(), &visit("DSP-9")).await {
            break error;
        }
    };
    assert!(matches!(unreachable, StoreError::Unreachable(_)), "{unreachable}");
    wire.accepts.store(true, Ordering::SeqCst);
    assert_eq!(try_commit(&*store, second).await, Err(CommitError::Conflict("dispatch")), "it had been written");
}

/// Two nodes write and read while PostgreSQL is restarted, and crashes, three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgresql_restarts_under_load_and_nobody_notices() {
    const CALLERS: usize = 8;
    let server = Arc::new(Server::start());
    let database = Database::create_on(&server.url()).await;
    let patient = PostgresOptions { patience: Duration::from_secs(60), ..PostgresOptions::new(database.url()) };
    let nodes = [PostgresStore::open(&patient).await.unwrap(), PostgresStore::open(&patient).await.unwrap()];
    let anna = tech("TECH-10");
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (node, anna) = (Arc::clone(&nodes[caller % 2]), anna.clone());
            let (stop, written) = (stop.clone(), written.clone());
            tokio::spawn(async move {
                let id = visit(&format!("DSP-{caller}"));
                let mut revision = 0;
                while !stop.load(Ordering::SeqCst) {
                    revision += 1;
                    let told = Commit {
                        dispatch: Some(held_by(write(&id, revision), &anna)),
                        events: vec![event(&format!("evt-{caller}-{revision}"), &id, &anna)],
                        audit: vec![audit(&format!("dispatch:{id}"), 0, serde_json::json!(revision))],
                        ..blank(0)
                    };
                    commit(&*node, told).await;
                    written.fetch_add(1, Ordering::SeqCst);
                    let read = node.dispatch(&acme(), &id).await.unwrap().unwrap();
                    assert_eq!(read.row.revision, revision, "what was acknowledged is there");
                }
                revision
            })
        })
        .collect();
    // Each time when there is load again.
    let load = async |more: usize| {
        let until = written.load(Ordering::SeqCst) + more;
        while written.load(Ordering::SeqCst) < until {
            assert!(callers.iter().all(|caller| !caller.is_finished()), "a caller was told of the restart");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for command in ["restart", "kill", "restart"] {
        load(40).await;
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || {
            server.run(command);
            if command == "kill" {
                server.run("start");
            }
        })
        .await
        .unwrap();
    }
    load(40).await;
    stop.store(true, Ordering::SeqCst);
    let mut all = 0;
    for (caller, task) in callers.into_iter().enumerate() {
        let revisions = task.await.unwrap();
        all += revisions;
        let id = visit(&format!("DSP-{caller}"));
        let stored = nodes[0].dispatch(&acme(), &id).await.unwrap().unwrap();
        assert_eq!(stored.row.revision, revisions);
        let events = nodes[0].events(&acme(), 0, None, Some(id.as_str()), 100_000).await.unwrap();
        let in_order: Vec<_> = (1..=revisions).map(|revision| format!("evt-{caller}-{revision}")).collect();
        assert_eq!(events.iter().map(|(_, event)| event.event_id.to_string()).collect::<Vec<_>>(), in_order);
        let lines = nodes[1].audit(&acme(), &format!("dispatch:{id}"), 0, 100_000).await.unwrap();
        assert_eq!(lines.len() as u64, revisions);
        assert_eq!(crm_dispatch_server::store::audit::verify_chain(&acme(), &lines), Ok(()));
    }
    assert_eq!(nodes[1].feed_head(&acme(), &anna).await.unwrap().0, all, "each entry once, without gaps");
    for node in nodes {
        node.close().await;
    }
}
