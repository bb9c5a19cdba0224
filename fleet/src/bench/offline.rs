//! What was made offline goes out: ten actions, a thousand, and five hundred phones at once.

use super::fixture::{PATIENCE, World, caught_up, disconnect, each, technician_id};
use super::row::{Row, median};
use super::tap::Tap;
use super::{Bench, BenchError};
use std::path::Path;
use std::time::{Duration, Instant};
use sync_core::client::{Client, Phase};
use sync_core::domain::{ChecklistItemId, DispatchId, FactKind};
use sync_core::store::NewEdit;

/// Rounds that a figure is the median of.
const ROUNDS: usize = 7;
/// Phones in the storm, and changes on each.
const STORM_PHONES: usize = 500;
const STORM_CHANGES: usize = 10;

/// Ten actions of a working day, over and over: acceptance to completion does not repeat, so answers and time entries do.
fn action(number: usize) -> Result<NewEdit, BenchError> {
    Ok(match number % 10 {
        0 => NewEdit::Fact(FactKind::TimeEntry { category: "labour".to_owned(), minutes: 15 }),
        1 => NewEdit::Note { at: usize::MAX, delete: 0, insert: "belt checked\n".to_owned() },
        other => {
            NewEdit::Answer { item: ChecklistItemId::new(format!("item-{other:02}"))?, value: format!("{number}") }
        }
    })
}

/// One server, one phone with `visits` visits, connected through a tap and now offline.
async fn one_phone(
    bench: &Bench,
    dir: &Path,
    visits: usize,
) -> Result<(World, Tap, Client, Vec<DispatchId>), BenchError> {
    let world = World::start(&bench.options.server, dir, 1).await?;
    let technician = technician_id(0)?;
    let dispatches = world.orders(visits).await?;
    world.assign_all(dispatches.iter().map(|dispatch| (dispatch.clone(), technician.clone())).collect()).await?;
    let tap = Tap::on(world.server.address()).await?;
    let setup = world.setup(technician, tap.base_url(), 7)?;
    let client = world.phone(&dir.join("phone.sqlite"), setup).await?;
    client.set_network(true);
    caught_up(&client).await?;
    Ok((world, tap, client, dispatches))
}

/// Makes actions offline, then measures from the network's return until all are acknowledged and stored as such.
async fn round(
    client: &Client,
    tap: &Tap,
    dispatches: &[DispatchId],
    actions: usize,
) -> Result<(f64, u64, u64), BenchError> {
    disconnect(client).await;
    for number in 0..actions {
        client.act(&dispatches[number % dispatches.len()], action(number / dispatches.len())?, None).await?;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    tap.take();
    let since = Instant::now();
    client.set_network(true);
    let mut status = client.status();
    let sent = status.wait_for(|status| status.pending == 0 && status.phase == Phase::Connected);
    let sent = tokio::time::timeout(PATIENCE, sent).await.is_ok();
    let taken = since.elapsed().as_secs_f64() * 1_000.0;
    if !sent {
        return Err(BenchError::World(format!("the outbox does not empty: {:?}", client.status().borrow().clone())));
    }
    caught_up(client).await?;
    let counted = tap.take();
    Ok((taken, counted.flights, counted.up + counted.down))
}

pub(super) async fn replay(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("replay")?;
    let (_world, tap, client, dispatches) = one_phone(bench, dir.path(), 10).await?;
    let (mut times, mut flights, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (taken, round_trips, wire) = round(&client, &tap, &dispatches, 10).await?;
        times.push(taken);
        flights.push(round_trips as f64);
        bytes.push(wire as f64);
    }
    client.stop().await;
    let name = "offline-replay";
    Ok(vec![
        Row::info(name, "10 actions on 10 visits, network to acknowledged", median(times), "ms")
            .budget(10.0, "Syncular 48 ms")
            .detail("TCP, upgrade, hello with the push behind it, one server transaction, one phone transaction"),
        Row::info(name, "10 actions, round trips", median(flights), "")
            .detail(format!("{:.0} B both ways", median(bytes))),
    ])
}

pub(super) async fn large_queue(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("queue")?;
    let (_world, tap, client, dispatches) = one_phone(bench, dir.path(), 100).await?;
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (taken, _, wire) = round(&client, &tap, &dispatches, 1_000).await?;
        times.push(taken);
        bytes.push(wire as f64);
    }
    client.stop().await;
    Ok(vec![
        Row::info("large-queue", "1,000 actions on 100 visits, durable", median(times), "ms")
            .budget(200.0, "PouchDB 465 ms, durable")
            .detail(format!("{:.0} B both ways", median(bytes))),
    ])
}

pub(super) async fn storm(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("storm")?;
    let world = World::start(&bench.options.server, dir.path(), STORM_PHONES).await?;
    let dispatches = world.orders(STORM_PHONES).await?;
    let pairs: Vec<_> = dispatches
        .iter()
        .enumerate()
        .map(|(index, dispatch)| Ok((dispatch.clone(), technician_id(index)?)))
        .collect::<Result<_, BenchError>>()?;
    world.assign_all(pairs).await?;
    bench.say("  500 phones prime and work offline");
    let clients = each(dispatches.into_iter().enumerate().collect(), |(index, dispatch)| {
        let (world, dir) = (&world, dir.path());
        async move {
            let setup = world.setup(technician_id(index)?, world.server.base_url(), index as u64)?;
            let client = world.phone(&dir.join(format!("phone-{index}.sqlite")), setup).await?;
            client.set_network(true);
            caught_up(&client).await?;
            disconnect(&client).await;
            for number in 0..STORM_CHANGES {
                client.act(&dispatch, action(number)?, None).await?;
            }
            Ok(client)
        }
    })
    .await?;
    bench.say("  the network is back for all of them");
    let since = Instant::now();
    clients.iter().for_each(|client| client.set_network(true));
    let (mut worst, mut refused) = (0.0_f64, 0_u32);
    for client in &clients {
        let mut status = client.status();
        let sent = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.pending == 0)).await;
        if sent.is_err() {
            return Err(BenchError::World(format!("a phone is stuck: {:?}", client.status().borrow().clone())));
        }
        worst = worst.max(since.elapsed().as_secs_f64() * 1_000.0);
        refused += u32::from(client.status().borrow().error.is_some());
    }
    Ok(vec![
        Row::info("storm", "500 phones at once, 10 changes each, last one acknowledged", worst, "ms")
            .budget(1_000.0, "Electric 2.0 s; Syncular 19.8 s here")
            .detail("server and all 500 phones with their own SQLite share this machine's cores and disk"),
        Row::info("storm", "phones turned away meanwhile", f64::from(refused), "").budget(0.0, ""),
    ])
}

pub(super) async fn revoke(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("revoke")?;
    let (world, _tap, client, _) = one_phone(bench, dir.path(), 100).await?;
    let devices = world.office.devices().await?;
    let Some(device) = devices.first() else {
        return Err(BenchError::World("the server knows no phone".to_owned()));
    };
    let mut status = client.status();
    let since = Instant::now();
    world.office.revoke(&device.device_id).await?;
    let gone = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.phase == Phase::Revoked)).await;
    let taken = since.elapsed().as_secs_f64() * 1_000.0;
    if gone.is_err() {
        return Err(BenchError::World("the phone did not hear that it was revoked".to_owned()));
    }
    Ok(vec![
        Row::info("revoke", "device revoked, 100 visits purged from the phone", taken, "ms")
            .budget(10.0, "Replicache 11 ms"),
    ])
}
