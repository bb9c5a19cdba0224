//! On the phone alone: a list, and an action made durable.

use super::fixture::{blocking, plan, real_time};
use super::row::Row;
use super::{Bench, BenchError};
use crate::latency::Latency;
use rand::{SeedableRng, rngs::StdRng};
use rusqlite::Connection;
use std::path::Path;
use std::time::Instant;
use sync_core::document::{ActorKey, VisitDoc};
use sync_core::domain::plan::{Assignment, Plan};
use sync_core::domain::{
    BootId, DispatchId, FactKind, TechnicianId, TenantId, Timestamp, UserId, VisitCard, Window, fold,
};
use sync_core::protocol::{Cursor, FeedItem};
use sync_core::store::{DeviceNow, FeedBatch, NewEdit, OpenOptions, Protection, Store, VisitQuery};

/// Visits on the phone.
const VISITS: usize = 10_000;
/// Of them today.
const TODAY: usize = 20;
/// Lists read.
const READS: usize = 2_000;
/// Actions taken, and bare commits made between them.
const ACTIONS: usize = 300;
/// Visits in one batch.
const BATCH: usize = 1_000;
const DAY_MS: i64 = 24 * 3_600_000;

struct Local {
    store: Store,
    rng: StdRng,
    now: DeviceNow,
}

/// A phone with this many visits, none of them from a server.
fn phone(dir: &Path, visits: usize) -> Result<Local, BenchError> {
    let mut rng = StdRng::seed_from_u64(11);
    let now = DeviceNow { wall: real_time(), monotonic_ms: 1, boot: BootId::new("boot-local")? };
    let options = OpenOptions { app: "fleet".to_owned(), now: now.wall, protection: Protection::Unencrypted };
    let store = Store::open(&dir.join("phone.sqlite"), &options, &mut rng)?.store;
    let technician = TechnicianId::new("TECH-LOCAL")?;
    store.bind_user(&TenantId::new("tenant-001")?, &technician, &mut rng)?;
    for start in (0..visits).step_by(BATCH) {
        let numbers = start..(start + BATCH).min(visits);
        let to = Cursor(numbers.end as u64);
        let items = numbers.map(|number| snapshot(number, &technician, now.wall)).collect::<Result<_, _>>()?;
        let batch =
            FeedBatch { from: Cursor(start as u64), to, reset: false, more: to.0 < visits as u64, digest: None, items };
        store.apply_batch(batch, now.wall, &mut rng)?;
    }
    Ok(Local { store, rng, now })
}

/// A visit as a server sends it: [`TODAY`] of them today, the others on the days after.
fn snapshot(number: usize, technician: &TechnicianId, now: Timestamp) -> Result<FeedItem, BenchError> {
    let day = now.millis().div_euclid(DAY_MS) + i64::try_from(number / TODAY).unwrap_or(0);
    let start = Timestamp::from_millis(day * DAY_MS + i64::try_from(number % TODAY).unwrap_or(0) * 1_800_000);
    let scheduled = Window { start, end: start.plus_millis(1_200_000) };
    let assignment = Assignment {
        epoch: 1,
        lead: technician.clone(),
        crew: Vec::new(),
        continues: Vec::new(),
        offered_at: now,
        offered_by: UserId::new("office")?,
    };
    let plan = Plan { scheduled: Some(scheduled), assignment: Some(assignment), epoch: 1, ..plan(number)? };
    let (document, _) = VisitDoc::genesis(ActorKey([9; 16]), &plan, now);
    let dispatch = DispatchId::new(format!("DSP-L-{number:05}"))?;
    let card = VisitCard::new(dispatch.clone(), &plan, &fold(&document.view()));
    Ok(FeedItem::Snapshot { dispatch, document: document.save().into(), card, tag: document.tag() })
}

pub(super) async fn list(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("list")?;
    bench.say("  10,000 visits are put on a phone");
    blocking(move || {
        let local = phone(dir.path(), VISITS)?;
        let midnight = Timestamp::from_millis(local.now.wall.millis().div_euclid(DAY_MS) * DAY_MS);
        let today = Window { start: midnight, end: midnight.plus_millis(DAY_MS) };
        let query = VisitQuery { window: Some(today), ..VisitQuery::default() };
        let mut latency = Latency::default();
        for _ in 0..READS {
            let since = Instant::now();
            let cards = local.store.visits(&query)?;
            latency.record(since.elapsed());
            if cards.len() != TODAY {
                return Err(BenchError::World(format!("{} visits today, {TODAY} expected", cards.len())));
            }
        }
        let detail = format!("{TODAY} cards; p95 {:.3} ms", latency.quantile_ms(0.95));
        Ok(vec![
            Row::info("local-list", "today's visits out of 10,000, p50", latency.quantile_ms(0.5), "ms")
                .budget(0.1, "Syncular 0.10 ms")
                .detail(detail),
        ])
    })
    .await?
}

pub(super) async fn action(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("action")?;
    blocking(move || {
        let mut local = phone(dir.path(), ACTIONS)?;
        let bare = Connection::open(dir.path().join("bare.sqlite"))?;
        bare.pragma_update(None, "journal_mode", "WAL")?;
        bare.pragma_update(None, "synchronous", "FULL")?;
        bare.execute_batch("CREATE TABLE log (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL)")?;
        // The phone's log file has its size already; growing one is not what is compared.
        bare.execute_batch(
            "INSERT INTO log (at, body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             SELECT -i, zeroblob(4000) FROM n",
        )?;
        bare.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
        let (mut acted, mut again, mut committed) = (Latency::default(), Latency::default(), Latency::default());
        let body = [7_u8; 400];
        for number in 0..ACTIONS {
            let dispatch = DispatchId::new(format!("DSP-L-{number:05}"))?;
            let since = Instant::now();
            local.store.act(&dispatch, NewEdit::Fact(FactKind::Arrived), &local.now, None, &mut local.rng)?;
            acted.record(since.elapsed());
            // The same on a visit whose document is open by now: the difference is what opening one costs.
            let since = Instant::now();
            local.store.act(&dispatch, NewEdit::Fact(FactKind::WorkStarted), &local.now, None, &mut local.rng)?;
            again.record(since.elapsed());
            // Between the actions, so that both meet the same disk.
            let since = Instant::now();
            bare.execute("INSERT INTO log (at, body) VALUES (?1, ?2)", (number as i64, &body[..]))?;
            committed.record(since.elapsed());
        }
        let (act, raw) = (acted.quantile_ms(0.5), committed.quantile_ms(0.5));
        let detail = format!(
            "action {act:.3} ms (p95 {:.3}); {:.3} ms with the document open already: the rest is opening it; bare commit \
             {raw:.3} ms, of one row to the action's visit, outbox and sequence number",
            acted.quantile_ms(0.95),
            again.quantile_ms(0.5),
        );
        Ok(vec![
            Row::info("local-action", "arrive, durable, as a multiple of a bare SQLite commit", act / raw, "x")
                .budget(2.0, "raw SQLite commit")
                .detail(detail),
        ])
    })
    .await?
}
