//! A server is killed between any two steps of a commit. All that it says to PostgreSQL passes a wire that counts the steps of its
//! transactions and holds one of them back; there the process gets SIGKILL. For every step in turn: the database is untouched
//! before COMMIT and whole after it, and whoever asks again has the effect once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod cluster_support;
mod support;

use cluster_support::{Cluster, LONG, until};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use support::postgres_support::Database;
use sync_core::domain::{DispatchId, FactKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What is held back, and what has passed.
#[derive(Default)]
struct Count {
    /// Steps are counted from here on, and this one does not pass; none is counted without.
    hold: Option<usize>,
    steps: usize,
    /// What was held back.
    held: Option<String>,
    /// COMMIT was answered by the database, whether or not the answer passed.
    committed: bool,
    /// The other nodes were told.
    told: bool,
}

/// The wire between the node and PostgreSQL.
#[derive(Clone)]
struct Wire {
    port: u16,
    count: Arc<Mutex<Count>>,
    held: Arc<Notify>,
}

impl Wire {
    async fn to(address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wire = Self { port, count: Arc::default(), held: Arc::default() };
        let carrying = wire.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&address).await.unwrap();
                tokio::spawn(carrying.clone().carry(near, far));
            }
        });
        wire
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap()
    }

    fn hold(&self, step: usize) {
        *self.count() = Count { hold: Some(step), ..Count::default() };
    }

    /// Whatever comes passes; answers what was seen.
    fn let_pass(&self) -> Count {
        std::mem::take(&mut self.count())
    }

    /// One more step; true when it shall not pass.
    fn is_held(&self, step: &str) -> bool {
        let mut count = self.count();
        let Some(hold) = count.hold else { return false };
        count.steps += 1;
        let held = count.steps - 1 == hold;
        if held {
            count.held = Some(step.to_owned());
            self.held.notify_one();
        }
        held
    }

    async fn carry(self, near: TcpStream, far: TcpStream) {
        let ((near_in, mut near_out), (mut far_in, far_out)) = (near.into_split(), far.into_split());
        let committing = Arc::new(Mutex::new(false));
        let back = {
            let (wire, committing) = (self.clone(), Arc::clone(&committing));
            tokio::spawn(async move {
                let mut answer = vec![0; 65_536];
                while let Ok(length) = far_in.read(&mut answer).await {
                    if std::mem::take(&mut *committing.lock().unwrap()) && length > 0 {
                        wire.count().committed = true;
                        if wire.is_held("the answer to COMMIT") {
                            return std::future::pending().await;
                        }
                    }
                    if length == 0 || near_out.write_all(&answer[..length]).await.is_err() {
                        return;
                    }
                }
            })
        };
        self.carry_there(near_in, far_out, &committing).await;
        back.abort();
    }

    /// What the node says, a statement at a time.
    async fn carry_there(&self, mut near: OwnedReadHalf, mut far: OwnedWriteHalf, committing: &Mutex<bool>) {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65_536]);
        let (mut began, mut writes, mut tells) = (false, false, false);
        loop {
            while let Some(length) = statement(&bytes, began) {
                let said: Vec<u8> = bytes.drain(..length).collect();
                began = true;
                let has = |text: &[u8]| said.windows(text.len()).any(|part| part == text);
                writes |= said.starts_with(b"Q") && has(b"BEGIN");
                tells |= has(b"pg_notify");
                let commits = writes && said.starts_with(b"Q") && has(b"COMMIT\0");
                let executes = said.starts_with(b"Q") || executes(&said);
                let step = match (commits, tells) {
                    (true, _) => "COMMIT",
                    (_, true) => "telling the other nodes",
                    _ => "a statement",
                };
                if (writes || tells) && executes && self.is_held(step) {
                    return wait_for_the_end(near).await;
                }
                self.count().told |= tells && executes;
                if commits {
                    writes = false;
                    *committing.lock().unwrap() = true;
                }
                if far.write_all(&said).await.is_err() {
                    return;
                }
            }
            match near.read(&mut buffer).await {
                Ok(length) if length > 0 => bytes.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        }
    }
}

/// Both ends stay open until the process is gone.
async fn wait_for_the_end(mut near: OwnedReadHalf) {
    let mut rest = [0; 1024];
    while near.read(&mut rest).await.is_ok_and(|length| length > 0) {}
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().unwrap()) as usize)
}

/// How long the first complete statement is: messages up to one after which the database answers.
fn statement(bytes: &[u8], began: bool) -> Option<usize> {
    if !began {
        // The start message has no kind.
        return length_at(bytes, 0).filter(|length| bytes.len() >= *length);
    }
    let mut at = 0;
    loop {
        let kind = *bytes.get(at)?;
        at += 1 + length_at(bytes, at + 1)?;
        if bytes.len() < at {
            return None;
        }
        // Query, Sync, Flush, password, end.
        if matches!(kind, b'Q' | b'S' | b'H' | b'p' | b'X') {
            return Some(at);
        }
    }
}

/// True when something is carried out, not only prepared.
fn executes(statement: &[u8]) -> bool {
    let mut at = 0;
    while let (Some(kind), Some(length)) = (statement.get(at), length_at(statement, at + 1)) {
        if *kind == b'E' {
            return true;
        }
        at += 1 + length;
    }
    false
}

/// One node, all of whose words to its database pass the wire.
async fn a_node_behind_the_wire() -> (Cluster, Wire) {
    let database = Database::create().await;
    // Nothing but what the story does writes.
    let mut cluster = Cluster::without_nodes(database, &[("SYNC__LOOK_INTERVAL_MS", "60000")]).await;
    let place = cluster.url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
    let wire = Wire::to(place.clone()).await;
    cluster.url = cluster.url.replacen(&place, &format!("127.0.0.1:{}", wire.port), 1) + "?sslmode=disable";
    let node = cluster.node(0, 0);
    cluster.nodes.push(node);
    (cluster, wire)
}

/// SIGKILL, and what the database holds while nobody serves; then a new process on the same port.
async fn kill_and_start_again<T>(cluster: &mut Cluster, look: impl AsyncFnOnce() -> T) -> T {
    let node = cluster.nodes.remove(0);
    let port = node.port;
    node.kill().await;
    let seen = look().await;
    let node = cluster.node(0, port);
    cluster.nodes.push(node);
    seen
}

/// Every table with its number of rows and a hash of all of them.
async fn everything(connection: &mut PgConnection) -> BTreeMap<String, (i64, Option<String>)> {
    let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    let mut contents = BTreeMap::new();
    for table in sqlx::query(tables).fetch_all(&mut *connection).await.unwrap() {
        let table: String = table.get(0);
        let rows = format!("SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM \"{table}\" t");
        let row = sqlx::query(AssertSqlSafe(rows)).fetch_one(&mut *connection).await.unwrap();
        contents.insert(table, (row.get(0), row.get(1)));
    }
    assert!(contents.len() >= 20, "{contents:?}");
    contents
}

/// One number.
async fn number(connection: &mut PgConnection, sql: &str, of: &DispatchId) -> i64 {
    sqlx::query(AssertSqlSafe(sql.to_owned())).bind(of.as_str()).fetch_one(connection).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_at_any_step_of_an_assignment_has_made_it_once_or_not_at_all() {
    let (mut cluster, wire) = a_node_behind_the_wire().await;
    let office = Arc::new(cluster.office(0));
    office.furnish(&["TECH-10"]).await;
    let mut database = cluster.database().connect().await;
    let mut held = Vec::new();
    for step in 0.. {
        let dispatch = office.request(&format!("SO-{step}"), step).await;
        let before = everything(&mut database).await;
        wire.hold(usize::try_from(step).unwrap());
        let calling = {
            let (office, path) = (Arc::clone(&office), format!("/{dispatch}/assign"));
            // Asks again under the same key until it is answered.
            tokio::spawn(
                async move { office.call(Method::POST, &path, Some(json!({ "technicianId": "TECH-10" }))).await },
            )
        };
        let told = async || until("told", async || wire.count().told).await;
        let passed = tokio::select! {
            () = wire.held.notified() => false,
            () = told() => true,
        };
        let seen = wire.let_pass();
        let answer: Value = if passed {
            calling.await.unwrap()
        } else {
            let after = kill_and_start_again(&mut cluster, async || everything(&mut database).await).await;
            let what = seen.held.unwrap();
            if seen.committed {
                assert_ne!(after, before, "step {step}, {what}: written");
            } else {
                assert_eq!(after, before, "step {step}, {what}: nothing is there of a commit that was not committed");
            }
            held.push(what);
            let answer = tokio::time::timeout(LONG, calling).await.expect("answered in the end").unwrap();
            if seen.committed {
                assert_eq!(everything(&mut database).await, after, "step {step}: what was written is not done again");
            } else {
                // Told late, it would be taken for the next step's.
                told().await;
            }
            answer
        };
        assert_eq!((&answer["revision"], &answer["assignment"]["technicianId"]), (&json!(2), &json!("TECH-10")));
        for (rows, sql) in [
            ("event", "SELECT count(*) FROM events WHERE aggregate_id = $1"),
            ("feed entry", "SELECT count(*) FROM feed WHERE dispatch_id = $1"),
            ("booking", "SELECT count(*) FROM bookings WHERE dispatch_id = $1"),
            ("visit held", "SELECT count(*) FROM held WHERE dispatch_id = $1 AND revision = 2"),
            (
                "audit line",
                "SELECT count(*) FROM audit WHERE aggregate = 'dispatch:' || $1 AND action = 'DISPATCH_ASSIGNED'",
            ),
        ] {
            assert_eq!(number(&mut database, sql, &dispatch).await, 1, "step {step}: one {rows}");
        }
        if passed {
            break;
        }
    }
    let of = |what: &str| held.iter().filter(|held| *held == what).count();
    assert!(of("a statement") >= 3, "{held:?}");
    assert_eq!((of("COMMIT"), of("the answer to COMMIT"), of("telling the other nodes")), (1, 1, 1), "{held:?}");
}

/// The same for what a technician did: durable on the phone before, on the server once afterwards, whenever the server died.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_at_any_step_of_taking_a_phones_work_has_it_once_in_the_end() {
    let (mut cluster, wire) = a_node_behind_the_wire().await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[0].url());
    let mut database = cluster.database().connect().await;
    let mut held = Vec::new();
    for step in 0.. {
        wire.let_pass();
        let dispatch = office.assigned(&format!("SO-{step}"), step, "TECH-10").await;
        until("told", async || wire.count().told).await;
        phone.until_holding(&dispatch).await;
        // The phone's receipt is a commit too.
        let path = format!("/{dispatch}");
        until("delivered", async || office.get(&path).await["status"] == "DISPATCHED").await;
        wire.hold(usize::try_from(step).unwrap());
        phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
        let passed = tokio::select! {
            () = wire.held.notified() => false,
            () = phone.caught_up() => true,
        };
        let seen = wire.let_pass();
        let facts = "SELECT count(*) FROM facts WHERE dispatch_id = $1";
        let events = "SELECT count(*) FROM events WHERE aggregate_id = $1 AND json::json ->> 'eventType' = 'DispatchConfirmedEvent'";
        if !passed {
            let look = async || {
                (number(&mut database, facts, &dispatch).await, number(&mut database, events, &dispatch).await)
            };
            let there = kill_and_start_again(&mut cluster, look).await;
            let expected = i64::from(seen.committed);
            assert_eq!(there, (expected, expected), "step {step}, {:?}", seen.held);
            held.extend(seen.held);
            phone.client.sync_soon();
            tokio::time::timeout(LONG, phone.client.caught_up()).await.expect("the phone finds the server again");
        }
        assert_eq!(number(&mut database, facts, &dispatch).await, 1, "step {step}");
        assert_eq!(number(&mut database, events, &dispatch).await, 1, "step {step}");
        assert_eq!(office.get(&path).await["status"], "CONFIRMED");
        if passed {
            break;
        }
    }
    let of = |what: &str| held.iter().filter(|held| *held == what).count();
    assert!(of("a statement") >= 3 && of("COMMIT") >= 1 && of("the answer to COMMIT") >= 1, "{held:?}");
}
