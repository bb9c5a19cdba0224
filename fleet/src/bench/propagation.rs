//! From the office's call until the visit is durable on the phone, at a steady rate: on the embedded database, and on PostgreSQL with the
//! phone on the node that was called and on another one.

use super::fixture::{World, caught_up, each, technician_id};
use super::postgres::Database;
use super::row::Row;
use super::server::Server;
use super::{Bench, BenchError};
use crate::latency::Latency;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use sync_core::client::Event;
use sync_core::domain::DispatchId;
use tokio::task::JoinSet;

/// Connected phones.
const PHONES: usize = 50;
/// Assigns in all.
const ASSIGNS: usize = 1_000;
/// Assigns a second.
const RATE: u32 = 100;
/// Flushes of the disk, for comparison.
const FLUSHES: usize = 300;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("propagation")?;
    let world = World::start(&bench.options.server, dir.path(), PHONES).await?;
    let url = world.server.base_url();
    let measured = measure(&world, dir.path(), &url).await?;
    Ok(measured.rows("propagation", "assign to durable on phone", 4.0, "Syncular 5.3 ms"))
}

/// On PostgreSQL: the figure that the owner's limit is about.
pub(super) async fn run_on_postgres(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let database = Database::create(bench.options.postgres.as_deref(), "assign")?;
    let command = database.command(bench);
    let (dir, second_dir) = (bench.dir("assign")?, bench.dir("assign-second")?);
    let world = World::start(&command, dir.path(), PHONES).await?;
    let second = Server::start(&command, second_dir.path()).await?;
    let mut rows = Vec::new();
    for (what, dir, url) in [
        ("PostgreSQL, phone on the same node", dir.path(), world.server.base_url()),
        ("PostgreSQL, phone on another node", second_dir.path(), second.base_url()),
    ] {
        rows.extend(measure(&world, dir, &url).await?.rows("assign", what, 4.0, "the owner's limit: p95 2,000 ms"));
    }
    let flush = flushes(dir.path())?;
    for (name, quantile) in [("p50", 0.5), ("p95", 0.95)] {
        let row = Row::info(
            "assign",
            format!("one flush of this disk (16 kB, fdatasync), {name}"),
            flush.quantile_ms(quantile),
            "ms",
        );
        rows.push(row.detail("an assignment waits for two: PostgreSQL's log, then the phone's file"));
    }
    Ok(rows)
}

/// What this disk takes to make a page or two durable: the floor of everything above.
fn flushes(dir: &Path) -> Result<Latency, BenchError> {
    const PAGES: usize = 16 * 1024;
    let mut file = std::fs::File::create(dir.join("flushes"))?;
    let mut latency = Latency::default();
    for number in 0..FLUSHES {
        std::io::Write::write_all(&mut file, &[number as u8; PAGES])?;
        let since = Instant::now();
        file.sync_data()?;
        latency.record(since.elapsed());
    }
    Ok(latency)
}

/// What was measured.
struct Measured {
    /// From the call until the visit was durable on its phone.
    durable: Latency,
    /// From the call until its answer.
    answered: Latency,
}

impl Measured {
    fn rows(&self, name: &'static str, what: &str, budget_ms: f64, beside: &'static str) -> Vec<Row> {
        let Self { durable, answered } = self;
        let parts = format!(
            "REST answer after p50 {:.1} / p95 {:.1} ms (decide, commit, fsync); the rest is push and the phone's commit",
            answered.quantile_ms(0.5),
            answered.quantile_ms(0.95)
        );
        vec![
            Row::info(name, format!("{what}, {RATE}/s, p50"), durable.quantile_ms(0.5), "ms"),
            Row::info(name, format!("{what}, {RATE}/s, p95"), durable.quantile_ms(0.95), "ms")
                .budget(budget_ms, beside)
                .detail(parts),
            Row::info(name, format!("{what}, {RATE}/s, p99"), durable.quantile_ms(0.99), "ms"),
        ]
    }
}

/// Assigns fresh visits to technicians whose phones are connected to the node at `url`.
async fn measure(world: &World, dir: &Path, url: &str) -> Result<Measured, BenchError> {
    let dispatches = world.orders(ASSIGNS).await?;
    let clients = each((0..PHONES).collect(), |index| async move {
        let setup = world.setup(technician_id(index)?, url.to_owned(), index as u64)?;
        let client = world.phone(&dir.join(format!("phone-{index}.sqlite")), setup).await?;
        client.set_network(true);
        caught_up(&client).await?;
        Ok(client)
    })
    .await?;

    // Dispatch -> when the office called, until the phone has it.
    let called: Arc<Mutex<HashMap<DispatchId, Instant>>> = Arc::default();
    let (durable, answered): (Arc<Mutex<Latency>>, Arc<Mutex<Latency>>) = (Arc::default(), Arc::default());
    let mut listeners = JoinSet::new();
    for client in &clients {
        let (mut events, called, durable) = (client.events(), Arc::clone(&called), Arc::clone(&durable));
        listeners.spawn(async move {
            while let Ok(event) = events.recv().await {
                let Event::VisitsChanged(changed) = event else { continue };
                let now = Instant::now();
                let mut called = called.lock().unwrap_or_else(PoisonError::into_inner);
                for since in changed.iter().filter_map(|dispatch| called.remove(dispatch)) {
                    durable.lock().unwrap_or_else(PoisonError::into_inner).record(now.duration_since(since));
                }
            }
        });
    }
    let mut calls = JoinSet::new();
    let mut beat = tokio::time::interval(Duration::from_secs(1) / RATE);
    for (index, dispatch) in dispatches.into_iter().enumerate() {
        beat.tick().await;
        let (office, called, answered) = (world.office.clone(), Arc::clone(&called), Arc::clone(&answered));
        let technician = technician_id(index % PHONES)?;
        calls.spawn(async move {
            let since = Instant::now();
            called.lock().unwrap_or_else(PoisonError::into_inner).insert(dispatch.clone(), since);
            let done = office.assign(&dispatch, &technician, &[]).await;
            answered.lock().unwrap_or_else(PoisonError::into_inner).record(since.elapsed());
            done
        });
    }
    while let Some(call) = calls.join_next().await {
        call.map_err(|lost| BenchError::Machine(lost.to_string()))??;
    }
    for client in &clients {
        caught_up(client).await?;
    }
    // The last event may still be on its way to its listener.
    tokio::time::sleep(Duration::from_millis(50)).await;
    listeners.shutdown().await;
    let durable = durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answered = answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if (durable.count() as usize) < ASSIGNS {
        let lost = ASSIGNS - durable.count() as usize;
        return Err(BenchError::World(format!("{lost} of {ASSIGNS} assigned visits were never told to an app")));
    }
    Ok(Measured { durable, answered })
}
