//! Connected, nothing to do: what a phone costs the server's memory.

use super::fixture::{World, technician_id};
use super::prime::{LightSocket, hello, light_socket};
use super::row::Row;
use super::server::open_files_max;
use super::{Bench, BenchError};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use sync_core::domain::DeviceId;
use tokio_tungstenite::tungstenite::Message;

/// Technicians that the phones are spread over.
const TECHNICIANS: usize = 100;
/// Files that this process needs beside the phones' sockets.
const FILES_RESERVED: u64 = 200;
/// Connections opened at once.
const CONNECTING: usize = 64;
/// After the last greeting, until the memory is read.
const SETTLING: Duration = Duration::from_millis(500);

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for wanted in [100, 1_000, 10_000] {
        if wanted <= bench.options.idle_phones_max {
            rows.push(measure(bench, wanted).await?);
        }
    }
    Ok(rows)
}

async fn measure(bench: &Bench, wanted: usize) -> Result<Row, BenchError> {
    let dir = bench.dir("idle")?;
    let world = World::start(&bench.options.server, dir.path(), TECHNICIANS).await?;
    let room = usize::try_from(open_files_max().saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
    let phones = wanted.min(room);
    // What a server allocates for its first connections is not what the next one costs.
    let mut connected = connect(bench, &world, 0..TECHNICIANS.min(phones)).await?;
    tokio::time::sleep(SETTLING).await;
    let warm = world.server.resident_bytes()?;
    let counted_from = if phones > TECHNICIANS { connected.len() } else { 0 };
    let before = if counted_from == 0 { 0 } else { warm };
    connected.extend(connect(bench, &world, connected.len()..phones).await?);
    tokio::time::sleep(SETTLING).await;
    let after = world.server.resident_bytes()?;
    let each = after.saturating_sub(before) as f64 / (phones - counted_from).max(1) as f64 / 1_000.0;
    let megabytes = after as f64 / 1_000_000.0;
    let row = Row::info("idle", format!("{phones} connected phones, server memory each"), each, "kB");
    Ok(if phones < wanted {
        row.capped().detail(format!(
            "{wanted} wanted; this process may open {} files; server {megabytes:.0} MB",
            open_files_max()
        ))
    } else if counted_from == 0 {
        row.detail(format!("server {megabytes:.0} MB in all, its own base included"))
    } else {
        row.budget(20.0, "nobody publishes one")
            .detail(format!("server {megabytes:.0} MB in all; slope from {counted_from} to {phones} phones"))
    })
}

async fn connect(
    bench: &Bench,
    world: &World,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<LightSocket>, BenchError> {
    let address = world.server.address();
    futures_util::stream::iter(numbers)
        .map(|number| async move {
            let technician = technician_id(number % TECHNICIANS)?;
            let mut socket = light_socket(address, &bench.technician_token(&technician)).await?;
            let device = DeviceId::new(format!("dev-idle-{number}"))?;
            socket.send(Message::binary(hello(device))).await.map_err(BenchError::socket)?;
            match socket.next().await {
                Some(Ok(Message::Binary(_))) => Ok(socket),
                other => Err(BenchError::World(format!("phone {number} was not greeted: {other:?}"))),
            }
        })
        .buffer_unordered(CONNECTING)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect()
}
