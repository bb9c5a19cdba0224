//! Cost must not grow with what did not change: one command with few and with many stored dispatches.

use super::fixture::{World, technician_id};
use super::row::Row;
use super::{Bench, BenchError};
use crate::latency::Latency;
use std::time::Instant;

/// Commands measured at each size.
const COMMANDS: usize = 200;
/// Technicians that they go to.
const TECHNICIANS: usize = 20;
const SMALL: usize = 1_000;

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("growth")?;
    let world = World::start(&bench.options.server, dir.path(), TECHNICIANS).await?;
    let large = bench.options.growth_dispatches_max.max(SMALL + COMMANDS);
    world.orders(SMALL).await?;
    let small_ms = measure(&world).await?;
    bench.say(&format!("  the database is filled to {large} dispatches"));
    world.orders(large - SMALL - COMMANDS).await?;
    let large_ms = measure(&world).await?;
    let name = "growth";
    Ok(vec![
        Row::info(name, format!("assign, {SMALL} stored dispatches, p50"), small_ms, "ms"),
        Row::info(name, format!("assign, {large} stored dispatches, p50"), large_ms, "ms")
            .detail(format!("slope {:.2} x", large_ms / small_ms)),
    ])
}

/// One command after the other: decide, commit, fsync, answer.
async fn measure(world: &World) -> Result<f64, BenchError> {
    let dispatches = world.orders(COMMANDS).await?;
    let mut latency = Latency::default();
    for (number, dispatch) in dispatches.iter().enumerate() {
        let technician = technician_id(number % TECHNICIANS)?;
        let since = Instant::now();
        world.office.assign(dispatch, &technician, &[]).await?;
        latency.record(since.elapsed());
    }
    Ok(latency.quantile_ms(0.5))
}
