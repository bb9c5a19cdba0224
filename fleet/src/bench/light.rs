//! Phones that are as light as pgbench's clients: no file, their changes made beforehand, a bare WebSocket. What is measured with
//! them is the server.

use super::fixture::{World, real_time, technician_id};
use super::prime::{LightSocket, hello, light_socket};
use super::{Bench, BenchError};
use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt};
use serde_bytes::ByteBuf;
use std::time::Instant;
use sync_core::document::{ActorKey, Edit, VisitDoc};
use sync_core::domain::fact::{ClockReading, FACT_SCHEMA, Fact};
use sync_core::domain::{BootId, DeviceId, DispatchId, FactId, FactKind, TechnicianId};
use sync_core::protocol::{
    Ack, FeedItem, OutboxMark, PhoneMessage, Push, PushLane, ServerMessage, decode_items, decode_server, encode_phone,
};
use tokio_tungstenite::tungstenite::Message;

/// A connected phone, its visits in memory.
pub(super) struct LightPhone {
    socket: LightSocket,
    technician: TechnicianId,
    device: DeviceId,
    actor: ActorKey,
    visits: Vec<(DispatchId, VisitDoc)>,
    /// The last sequence number, and the last push's id.
    seq: u64,
    push: u32,
}

impl LightPhone {
    /// Connects the phone of technician number `index`, and takes in everything that the technician holds.
    pub(super) async fn connect(bench: &Bench, world: &World, index: usize) -> Result<Self, BenchError> {
        let technician = technician_id(index)?;
        let device = DeviceId::new(format!("dev-light-{index}"))?;
        let mut socket = light_socket(world.server.address(), &bench.technician_token(&technician)).await?;
        socket.send(Message::binary(hello(device.clone()))).await.map_err(BenchError::socket)?;
        let mut visits = Vec::new();
        loop {
            let ServerMessage::Batch(batch) = heard(&mut socket).await? else { continue };
            let items = decode_items(&batch.items, batch.zstd).map_err(|error| BenchError::World(error.to_string()))?;
            for item in items {
                if let FeedItem::Snapshot { dispatch, document, .. } = item {
                    let document = VisitDoc::load(&document).map_err(|error| BenchError::World(error.to_string()))?;
                    visits.push((dispatch, document));
                }
            }
            let receipt = PhoneMessage::Ack(Ack { cursor: batch.to, digest_matched: true });
            socket.send(Message::binary(encode_phone(&receipt))).await.map_err(BenchError::socket)?;
            if !batch.more {
                break;
            }
        }
        let mut actor = [0; 16];
        actor[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
        Ok(Self { socket, technician, device, actor: ActorKey(actor), visits, seq: 0, push: 0 })
    }

    /// The frame of one push with so many new time entries on each of so many visits, from visit number `first` on.
    fn push(&mut self, first: usize, visits: usize, changes: usize) -> Result<(u32, Vec<u8>), BenchError> {
        let mut lanes = Vec::with_capacity(visits);
        let count = self.visits.len();
        for visit in (first..first + visits).map(|number| number % count) {
            let mut lane = Vec::with_capacity(changes);
            for _ in 0..changes {
                self.seq += 1;
                let fact = self.time_entry(visit)?;
                let made = self.visits[visit].1.edit(self.actor, &Edit::Fact { fact }, real_time());
                let change = made.map_err(|refusal| BenchError::World(refusal.to_string()))?;
                lane.push(ByteBuf::from(change.bytes));
            }
            lanes.push(PushLane { dispatch: self.visits[visit].0.clone(), changes: lane });
        }
        self.push += 1;
        let pending = u32::try_from(visits * changes).unwrap_or(u32::MAX);
        let outbox = OutboxMark { high_water: self.seq, pending, oldest: Some(real_time()) };
        Ok((self.push, encode_phone(&PhoneMessage::Push(Push { id: self.push, lanes, outbox }))))
    }

    fn time_entry(&self, visit: usize) -> Result<Fact, BenchError> {
        let plan = self.visits[visit].1.plan();
        Ok(Fact {
            schema: FACT_SCHEMA,
            id: FactId::new(format!("FACT-{}-{}", self.device, self.seq))?,
            epoch: plan.epoch_for(&self.technician).unwrap_or_default(),
            technician: self.technician.clone(),
            device: self.device.clone(),
            seq: self.seq,
            clock: ClockReading {
                wall: real_time(),
                monotonic_ms: self.seq,
                boot: BootId::new("boot-light")?,
                offset_ms: Some(0),
                uncertainty_ms: Some(1),
            },
            position: None,
            kind: FactKind::TimeEntry { category: "labour".to_owned(), minutes: 15 },
        })
    }

    /// Sends one push after the other, each when the former one is acknowledged, as phones do.
    async fn send(&mut self, pushes: Vec<(u32, Vec<u8>)>) -> Result<(), BenchError> {
        for (id, frame) in pushes {
            self.socket.send(Message::binary(frame)).await.map_err(BenchError::socket)?;
            let ack = loop {
                match heard(&mut self.socket).await? {
                    ServerMessage::PushAck(ack) if ack.id == id => break ack,
                    ServerMessage::Bye(bye) => return Err(BenchError::World(format!("the server ended it: {bye:?}"))),
                    _ => {}
                }
            };
            if let Some(refused) = ack.lanes.iter().find_map(|lane| lane.refusal.as_ref()) {
                return Err(BenchError::World(format!("{}: {}", refused.code, refused.message)));
            }
        }
        Ok(())
    }
}

/// The next message.
async fn heard(socket: &mut LightSocket) -> Result<ServerMessage, BenchError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(frame))) => {
                return decode_server(&frame).map_err(|error| BenchError::World(error.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(BenchError::socket(error)),
            None => return Err(BenchError::World("the server closed the connection".to_owned())),
        }
    }
}

/// Every phone sends so many pushes, all phones at once: changes acknowledged per second.
pub(super) async fn rate(
    phones: &mut [LightPhone],
    pushes: usize,
    visits: usize,
    changes: usize,
) -> Result<f64, BenchError> {
    let mut prepared = Vec::with_capacity(phones.len());
    for phone in &mut *phones {
        let pushes = (0..pushes).map(|number| phone.push(number * visits, visits, changes));
        prepared.push(pushes.collect::<Result<Vec<_>, _>>()?);
    }
    let count = phones.len() * pushes * visits * changes;
    let since = Instant::now();
    try_join_all(phones.iter_mut().zip(prepared).map(|(phone, pushes)| phone.send(pushes))).await?;
    Ok(count as f64 / since.elapsed().as_secs_f64())
}
