//! The stage that the worlds of a scene are played on: the shipped service on the store in memory, and phones around shipped
//! documents. A world is a value: it is copied at every fork, and played on from there.

use super::model::{DEADLINE, Deed, MOVED, Model, WINDOW};
use super::scene::Scene;
use super::step::{Act, How, Order, Phone, Step, Who, id};
use crate::memory::{MemoryStore, Tables};
use crate::node::TrueClock;
use crm_dispatch_server::service::directory::{LocationInput, TechnicianInput};
use crm_dispatch_server::service::office::{AssignInput, NewRequest, RescheduleInput};
use crm_dispatch_server::service::push::FeedAnswer;
use crm_dispatch_server::service::{
    Caller, IdSource, PhoneSession, Request, Role, Service, ServiceConfig, ServiceError,
};
use crm_dispatch_server::store::{Feeds as _, Store};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use sync_core::document::{ActorKey, DocumentError, Edit, VisitDoc};
use sync_core::domain::fact::FACT_SCHEMA;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{ChecklistItem, Priority};
use sync_core::domain::rules::legal::legal_next;
use sync_core::domain::{
    Answer, BootId, ClockReading, DispatchId, Fact, FactId, TechnicianId, TenantId, Timestamp, Tombstone, Window, fold,
};
use sync_core::protocol::{Ack, Cursor, FeedItem, Generation, Hello, LaneAck, OutboxMark, Push, PushLane, Remedy};

/// 2026-02-03T00:00:00Z.
const MIDNIGHT: i64 = 1_770_076_800_000;
const MINUTE: i64 = 60_000;
/// What every step takes.
const STEP: i64 = 5 * MINUTE;
const FEED_PAGE: u32 = 100;

/// A change that has not been acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    other_visit: bool,
    bytes: Vec<u8>,
    seq: Option<u64>,
    deed: Option<Deed>,
    poison: bool,
    /// The server has it, which the phone does not know.
    heard: bool,
    /// The server has kept it aside.
    aside: bool,
}

/// A phone and its state.
#[derive(Debug, Clone)]
pub(super) struct Handset {
    session: PhoneSession,
    actor: ActorKey,
    pub(super) visits: BTreeMap<DispatchId, Rc<VisitDoc>>,
    pub(super) gone: BTreeMap<DispatchId, Tombstone>,
    pub(super) outbox: Vec<Queued>,
    /// Parked lanes: the visit, or the other one.
    parked: BTreeSet<bool>,
    /// What a person has to look at on the phone.
    pub(super) poison: usize,
    seq: u64,
    cursor: u64,
    pushes: u32,
    knew: usize,
    pub(super) registered: bool,
    /// It has destroyed what it held.
    pub(super) dead: bool,
    /// How far the wall clock runs ahead, and what the phone has measured of it.
    ahead_ms: i64,
    measured_ms: i64,
    done: BTreeMap<Act, usize>,
}

/// What somebody wrote into the report.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) phone: Phone,
    pub(super) note: Option<String>,
    pub(super) answer: Option<String>,
    /// Steps at which it was made, and reached the server.
    pub(super) made: usize,
    pub(super) heard: Option<usize>,
    /// The last exchange before.
    pub(super) knew: usize,
}

/// A step as it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) step: Step,
    /// Whoever acted had not heard of the office's last order.
    pub(super) unaware: bool,
}

/// One small world.
#[derive(Debug, Clone)]
pub(super) struct World {
    tables: Rc<Tables>,
    now: i64,
    pub(super) phones: BTreeMap<Phone, Handset>,
    pub(super) model: Model,
    pub(super) taken: Vec<Taken>,
    pub(super) written: Vec<Written>,
    /// Facts on the other visit.
    pub(super) elsewhere: usize,
    events: usize,
    pub(super) exchanged: BTreeMap<Phone, usize>,
}

/// The stage of a scene.
pub(super) struct Stage {
    pub(super) store: Arc<MemoryStore>,
    service: Service,
    clock: Arc<AtomicI64>,
    runtime: tokio::runtime::Runtime,
    pub(super) tenant: TenantId,
    pub(super) visit: DispatchId,
    pub(super) other: Option<DispatchId>,
    uncertainty_ms: u32,
    watches_deadline: bool,
    /// Service calls so far.
    pub(super) calls: std::cell::Cell<u64>,
}

fn caller(tenant: &TenantId, user: &str, role: Role) -> Caller {
    Caller { tenant: tenant.clone(), user: id(user), roles: vec![role], technician: None }
}

fn minutes((from, to): (i64, i64)) -> Window {
    Window { start: at(from * MINUTE), end: at(to * MINUTE) }
}

/// Milliseconds of the day.
pub(super) fn at(of_day: i64) -> Timestamp {
    Timestamp::from_millis(MIDNIGHT + of_day)
}

pub(super) fn service_error(error: ServiceError) -> String {
    format!("the service failed: {error} ({})", error.code())
}

impl Stage {
    /// The stage, and the world at eight o'clock: the visit is assigned, the phones hold it.
    pub(super) fn new(scene: &Scene) -> Result<(Self, World), String> {
        let tenant: TenantId = id("tenant-1");
        let clock = Arc::new(AtomicI64::new(MIDNIGHT + 8 * 60 * MINUTE));
        let store = Arc::new(MemoryStore::new(Generation(1), ActorKey([1; 16])));
        let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let service = Service::new(
            shared,
            Arc::new(TrueClock(Arc::clone(&clock))),
            IdSource::seeded(1),
            ServiceConfig::default(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
        let (visit, other) = runtime.block_on(furnish(&service, &tenant, scene)).map_err(service_error)?;
        let mut phones = BTreeMap::new();
        for phone in Phone::ALL {
            phones
                .insert(phone, Handset::new(phone, &tenant, if phone.who() == Who::Anna { scene.ahead_ms } else { 0 }));
        }
        let mut world = World {
            tables: Rc::new(store.copy()),
            now: 8 * 60 * MINUTE,
            phones,
            model: Model::new(scene.crew),
            taken: Vec::new(),
            written: Vec::new(),
            elsewhere: 0,
            events: 0,
            exchanged: BTreeMap::new(),
        };
        let watches_deadline = scene.alphabet.contains(&Step::Wait);
        let uncertainty_ms = scene.uncertainty_ms;
        let calls = std::cell::Cell::new(0);
        let stage =
            Self { store, service, clock, runtime, tenant, visit, other, uncertainty_ms, watches_deadline, calls };
        stage.enter(&world);
        for phone in [Phone::Anna, Phone::Ben] {
            stage.exchange(&mut world, phone, How::Whole)?;
        }
        if scene.alphabet.contains(&Step::Does(Phone::Ben, Act::ClaimForeign)) {
            // He has copied the document from Anna's phone.
            let copied = world.handset(Phone::Anna)?.visits.clone();
            world.handset(Phone::Ben)?.visits = copied;
        }
        stage.leave(&mut world);
        Ok((stage, world))
    }

    /// The database is as the world left it.
    fn enter(&self, world: &World) {
        self.store.rewind((*world.tables).clone());
        self.clock.store(MIDNIGHT + world.now, Ordering::Relaxed);
    }

    fn leave(&self, world: &mut World) {
        world.tables = Rc::new(self.store.copy());
    }

    fn pass(&self, world: &mut World, ms: i64) {
        world.now += ms;
        self.clock.store(MIDNIGHT + world.now, Ordering::Relaxed);
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
        self.calls.set(self.calls.get() + 1);
        self.runtime.block_on(call)
    }

    /// The shipped service.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Waits for the store.
    pub(super) fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// Takes a step in a copy of the world; `None` when nothing would happen: the phone or the server refuses, or there is
    /// nothing to exchange.
    pub(super) fn step(&self, world: &World, step: Step) -> Result<Option<World>, String> {
        let mut next = world.clone();
        self.enter(&next);
        self.pass(&mut next, STEP);
        let unaware = match step {
            Step::Does(phone, _) => next.handset(phone)?.knew < next.model.orders,
            _ => false,
        };
        let happened = match step {
            Step::Does(phone, act) => self.act(&mut next, phone, act)?,
            Step::Office(order) => self.office(&mut next, order)?,
            Step::Exchange(phone, how) => {
                self.worth_exchanging(&mut next, phone, how)? && {
                    self.exchange(&mut next, phone, how)?;
                    true
                }
            }
            Step::Wait => {
                let deadline = DEADLINE * MINUTE + STEP;
                let first = next.now < deadline;
                if first {
                    let wait = deadline - next.now;
                    self.pass(&mut next, wait);
                    self.sweep(&mut next)?;
                }
                first
            }
            Step::ClockBack => {
                let handset = next.handset(Phone::Anna)?;
                let first = handset.ahead_ms == 0;
                handset.ahead_ms = -60 * MINUTE;
                first
            }
        };
        if !happened {
            return Ok(None);
        }
        next.taken.push(Taken { step, unaware });
        self.leave(&mut next);
        Ok(Some(next))
    }

    fn sweep(&self, world: &mut World) -> Result<(), String> {
        world.model.sweeps(world.now);
        let swept = self.wait(self.service.sweep()).map_err(service_error)?;
        if swept.failed > 0 {
            return Err("a sweep failed on a visit".to_owned());
        }
        Ok(())
    }

    fn act(&self, world: &mut World, phone: Phone, act: Act) -> Result<bool, String> {
        let (now, made, orders) = (world.now, world.taken.len(), world.model.orders);
        let knew_exchange = world.exchanged.get(&phone).copied().unwrap_or(0);
        let uncertainty_ms = self.uncertainty_ms;
        let other = act == Act::ArriveElsewhere;
        let visit = if other { self.other.clone() } else { Some(self.visit.clone()) };
        let Some(visit) = visit else { return Ok(false) };
        let handset = world.handset(phone)?;
        let repeats = handset.done.get(&act).copied().unwrap_or(0);
        let Some(doc) = handset.visits.get(&visit).filter(|_| !handset.dead && repeats < 2) else { return Ok(false) };
        let view = doc.view();
        let who: TechnicianId = id(phone.who().id());
        let wall = at(now + handset.ahead_ms);
        let window = view.plan.proposed_window.as_ref().map_or(0, |proposal| proposal.window_revision);
        let fact = act.fact(window);
        let asked = !matches!(act, Act::CompleteUnasked | Act::ClaimForeign | Act::Newer);
        if let Some(kind) = &fact
            && asked
            && legal_next(&view.plan, &fold(&view), &who, kind).is_err()
        {
            return Ok(false);
        }
        let mut written = None;
        let (edit, deed) = if let Some(kind) = fact {
            let own = view.plan.epoch_for(&who);
            let epoch = if act == Act::ClaimForeign {
                let assignments = view.plan.assignment.iter().chain(view.plan.former.iter().map(|f| &f.assignment));
                assignments.filter(|assignment| !assignment.includes(&who)).map(|assignment| assignment.epoch).max()
            } else {
                own
            };
            let Some(epoch) = epoch else { return Ok(false) };
            handset.seq += 1;
            let clock = ClockReading {
                wall,
                monotonic_ms: now.unsigned_abs(),
                boot: id::<BootId>("boot-1"),
                offset_ms: Some(-handset.measured_ms),
                uncertainty_ms: Some(uncertainty_ms),
            };
            let name = format!("{}-{}", handset.session.device, handset.seq);
            let fact = Fact {
                schema: if act == Act::Newer { FACT_SCHEMA + 1 } else { FACT_SCHEMA },
                id: id::<FactId>(name.clone()),
                epoch,
                technician: who,
                device: handset.session.device.clone(),
                seq: handset.seq,
                clock,
                position: None,
                kind,
            };
            let deed = Deed {
                fact: name,
                phone,
                act,
                at: now + handset.ahead_ms - handset.measured_ms,
                unsure: i64::from(uncertainty_ms),
                knew: handset.knew,
                turn: usize::try_from(epoch).unwrap_or(usize::MAX),
                seq: handset.seq,
                window,
                clock_off: handset.measured_ms.abs() > 2 * MINUTE,
            };
            (Some(Edit::Fact { fact }), (!other).then_some(deed))
        } else {
            let text = format!("{}-{}-{made}", phone.who().id(), repeats);
            let edit = match act {
                Act::Note => Edit::Note { at: 0, delete: 0, insert: format!("[{text}]") },
                Act::Answer => {
                    let answer = Answer { value: text.clone(), by: who, at: wall };
                    Edit::Answer { item: id("pressure"), answer }
                }
                _ => return self.poison(world, phone, orders),
            };
            written = Some(Written {
                phone,
                note: (act == Act::Note).then(|| format!("[{text}]")),
                answer: (act == Act::Answer).then_some(text),
                made,
                heard: None,
                knew: knew_exchange,
            });
            (Some(edit), None)
        };
        let Some(edit) = edit else { return Ok(false) };
        let mut doc = (**doc).clone();
        let change =
            doc.edit(handset.actor, &edit, wall).map_err(|refusal| format!("the phone refuses {act:?}: {refusal}"))?;
        handset.visits.insert(visit, Rc::new(doc));
        let seq = matches!(edit, Edit::Fact { .. }).then_some(handset.seq);
        handset.outbox.push(Queued {
            other_visit: other,
            bytes: change.bytes,
            seq,
            deed,
            poison: false,
            heard: false,
            aside: false,
        });
        *handset.done.entry(act).or_default() += 1;
        world.written.extend(written);
        world.elsewhere += usize::from(other);
        Ok(true)
    }

    fn poison(&self, world: &mut World, phone: Phone, _orders: usize) -> Result<bool, String> {
        let handset = world.handset(phone)?;
        if handset.done.contains_key(&Act::Poison) {
            return Ok(false);
        }
        handset.done.insert(Act::Poison, 1);
        let bytes = b"not a change, but a damaged row".to_vec();
        handset.outbox.push(Queued {
            other_visit: false,
            bytes,
            seq: None,
            deed: None,
            poison: true,
            heard: false,
            aside: false,
        });
        Ok(true)
    }

    fn office(&self, world: &mut World, order: Order) -> Result<bool, String> {
        let dora = caller(&self.tenant, "dora", Role::Admin);
        let request = Request::plain(&dora);
        let visit = &self.visit;
        let assign = |lead: Who, crew: &[Who]| {
            let crew = crew.iter().map(|who| id(who.id())).collect();
            self.service.assign(request, visit, AssignInput { technician_id: id(lead.id()), crew })
        };
        let moved = |confirmed| RescheduleInput {
            scheduled: None,
            arrival_window: Some(minutes(MOVED)),
            customer_confirmed: confirmed,
        };
        let holding_before =
            order == Order::Cancel && world.phones.values().any(|phone| phone.visits.contains_key(visit));
        let answer = match order {
            Order::AssignAnna => self.wait(assign(Who::Anna, &[])).map(drop),
            Order::AssignBen => self.wait(assign(Who::Ben, &[])).map(drop),
            Order::BenLeads => self.wait(assign(Who::Ben, &[Who::Anna])).map(drop),
            Order::Unassign => self.wait(self.service.unassign(request, visit)).map(drop),
            Order::Cancel => self.wait(self.service.cancel(request, visit, "the customer called")).map(drop),
            Order::CalledOff => {
                world.events += 1;
                return self.order_cancelled(world, true);
            }
            Order::CalledOffAgain if world.events == 0 => return Ok(false),
            Order::CalledOffAgain => return self.order_cancelled(world, false),
            Order::RequestAgain => {
                let again = self.wait(self.service.create_request(request, visit_request("SO-1")));
                world.model.order(order, world.now);
                return match again {
                    Err(ServiceError::ServiceOrderExists { dispatch, .. }) if dispatch == *visit => {
                        Ok(world.taken.last().is_none_or(|taken| taken.step != Step::Office(order)))
                    }
                    other => Err(format!("a second request for the order is answered with {other:?}")),
                };
            }
            Order::Reinstate => self.wait(self.service.reinstate(request, visit)).map(drop),
            Order::EndStopWork => self.wait(self.service.end_stop_work(request, visit)).map(drop),
            Order::MoveConfirmed => self.wait(self.service.reschedule(request, visit, moved(true))).map(drop),
            Order::Move => self.wait(self.service.reschedule(request, visit, moved(false))).map(drop),
            Order::Confirmed => {
                let input = RescheduleInput { customer_confirmed: true, ..RescheduleInput::default() };
                self.wait(self.service.reschedule(request, visit, input)).map(drop)
            }
            Order::Revoke => {
                let device = world.handset(Phone::Anna)?.session.device.clone();
                self.wait(self.service.revoke_device(request, &device)).map(drop)
            }
            Order::Settle => {
                let open = self.wait(self.service.exceptions(&dora, Some(visit), true, 100)).map_err(service_error)?;
                match open.last() {
                    Some(row) => {
                        self.wait(self.service.resolve_exception(request, visit, &row.exception_id, "talked")).map(drop)
                    }
                    None => return Ok(world.model.order(order, world.now)),
                }
            }
        };
        let allowed = match answer {
            Ok(()) => true,
            Err(ServiceError::IllegalTransition { .. }) => false,
            Err(error) => return Err(service_error(error)),
        };
        let expected = world.model.order(order, world.now);
        if expected != allowed && order != Order::Revoke {
            return Err(format!("{}: by the rules this is {}", Step::Office(order), possible(expected)));
        }
        if allowed && holding_before {
            // Rule 1: accepted at once, and shown as not yet delivered.
            let seen = self.wait(self.service.dispatch(&dora, visit)).map_err(service_error)?;
            if seen.cancellation.is_none_or(|cancellation| cancellation.delivered) {
                return Err("a cancellation that no phone knows of is not shown as undelivered".to_owned());
            }
        }
        Ok(allowed && expected)
    }

    /// Rule 18: an event has its effect once, and so has the same cancellation under another event's name.
    fn order_cancelled(&self, world: &mut World, fresh: bool) -> Result<bool, String> {
        use crm_dispatch_server::service::ingest::IngestEffect;
        let erp = caller(&self.tenant, "erp", Role::Integration);
        let event = serde_json::json!({
            "eventType": "ServiceOrderCancelledEvent",
            "eventId": format!("evt-{}", world.events),
            "timestamp": at(world.now),
            "tenantId": self.tenant,
            "payload": { "serviceOrderId": "SO-1", "reason": "withdrawn" },
        });
        let came_to = self.wait(self.service.ingest(&erp, &event.to_string())).map_err(service_error)?.effect;
        let order = if fresh { Order::CalledOff } else { Order::CalledOffAgain };
        let effective = world.model.order(order, world.now);
        let expected = match (fresh, effective) {
            (true, true) => IngestEffect::Applied,
            (true, false) => IngestEffect::NoEffect,
            (false, _) => IngestEffect::Duplicate,
        };
        if came_to != expected {
            return Err(format!("{} comes to {came_to:?} instead of {expected:?}", Step::Office(order)));
        }
        // Again and again changes nothing: once is enough.
        Ok(effective || world.taken.last().is_none_or(|taken| taken.step != Step::Office(order)))
    }

    fn worth_exchanging(&self, world: &mut World, phone: Phone, how: How) -> Result<bool, String> {
        let (head, _) = self
            .runtime
            .block_on(self.store.feed_head(&self.tenant, &id(phone.who().id())))
            .map_err(|error| error.to_string())?;
        let reported = world.model.reported.get(&phone).and_then(|(_, complete)| *complete);
        let late = self.watches_deadline
            && world.now > DEADLINE * MINUTE
            && reported.is_none_or(|at| at <= DEADLINE * MINUTE)
            && world.model.ever_had(phone.who());
        let revoked = world.model.revoked.is_some();
        let handset = world.handset(phone)?;
        if handset.dead {
            return Ok(false);
        }
        let lanes: BTreeSet<bool> = handset.sendable().map(|queued| queued.other_visit).collect();
        let behind = handset.cursor < head;
        Ok(match how {
            How::Whole => {
                !lanes.is_empty() || behind || late || !handset.registered || (revoked && phone == Phone::Anna)
            }
            How::AnswerLost => !lanes.is_empty(),
            How::OneLane => lanes.len() == 2,
        })
    }

    /// A phone talks to the server.
    fn exchange(&self, world: &mut World, phone: Phone, how: How) -> Result<(), String> {
        let now = world.now;
        let tick = world.taken.len();
        let session = world.handset(phone)?.session.clone();
        let revoked = phone == Phone::Anna && world.model.revoked.is_some();
        let hello = world.handset(phone)?.hello();
        match self.wait(self.service.hello(&session, &hello)) {
            Ok(_) if !revoked => {}
            Err(ServiceError::DeviceRevoked(_)) if revoked => {}
            Ok(_) => return Err("a revoked phone is welcome".to_owned()),
            Err(error) => return Err(service_error(error)),
        }
        if !revoked {
            let unsent = world.handset(phone)?.outbox.len();
            let before = world.model.reported.get(&phone).and_then(|(_, complete)| *complete);
            world.model.reported.insert(phone, (now, if unsent == 0 { Some(now) } else { before }));
            world.handset(phone)?.registered = true;
        }
        self.push(world, phone, how)?;
        if how == How::AnswerLost {
            return Ok(());
        }
        if revoked {
            // It is heard once more, and destroys what it holds.
            self.wait(self.service.wiped(&session, 0)).map_err(service_error)?;
            let handset = world.handset(phone)?;
            handset.visits.clear();
            handset.outbox.clear();
            handset.dead = true;
            return Ok(());
        }
        self.pull(world, phone)?;
        let orders = world.model.orders;
        let handset = world.handset(phone)?;
        handset.knew = orders;
        handset.measured_ms = handset.ahead_ms;
        world.exchanged.insert(phone, tick + 1);
        Ok(())
    }

    fn push(&self, world: &mut World, phone: Phone, how: How) -> Result<(), String> {
        let (now, tick) = (world.now, world.taken.len());
        let ever_had = world.model.ever_had(phone.who());
        let handset = world.handset(phone)?;
        handset.pushes += 1;
        let mut lanes: Vec<(bool, PushLane)> = Vec::new();
        for queued in handset.sendable() {
            if how == How::OneLane && queued.other_visit {
                continue;
            }
            let dispatch = match (&self.other, queued.other_visit) {
                (Some(other), true) => other.clone(),
                _ => self.visit.clone(),
            };
            match lanes.iter_mut().find(|(other, _)| *other == queued.other_visit) {
                Some((_, lane)) => lane.changes.push(ByteBuf::from(queued.bytes.clone())),
                None => {
                    let lane = PushLane { dispatch, changes: vec![ByteBuf::from(queued.bytes.clone())] };
                    lanes.push((queued.other_visit, lane));
                }
            }
        }
        if lanes.is_empty() {
            return Ok(());
        }
        let push = Push {
            id: handset.pushes,
            lanes: lanes.iter().map(|(_, lane)| lane.clone()).collect(),
            outbox: handset.mark(),
        };
        let pending = handset.outbox.len();
        let session = handset.session.clone();
        let outcome = self.wait(self.service.push(&session, &push)).map_err(service_error)?;
        let mut accepted_all = 0;
        let (mut numbers, mut deeds, mut heard_report) = (Vec::new(), Vec::new(), Vec::new());
        for ((other, lane), ack) in lanes.iter().zip(&outcome.ack.lanes) {
            // What the rules let in: everything up to what is damaged; nothing of somebody who never had the visit.
            let of_lane = |queued: &&mut Queued| queued.other_visit == *other;
            let handset = world.phones.get_mut(&phone).ok_or("there is no such phone")?;
            let parked_already = handset.parked.contains(other);
            let mut queue: Vec<&mut Queued> = handset.outbox.iter_mut().filter(of_lane).collect();
            let damaged = queue.iter().position(|queued| queued.poison);
            let expected = if ever_had { damaged.unwrap_or(queue.len()) } else { 0 };
            if parked_already || ack.accepted as usize != expected || lane.dispatch != ack.dispatch {
                return Err(format!(
                    "{} of {} changes are let in, and not {expected}: {ack:?}",
                    ack.accepted,
                    queue.len()
                ));
            }
            accepted_all += expected;
            for queued in queue.iter_mut().take(expected) {
                numbers.extend(queued.seq);
                if !queued.heard {
                    deeds.extend(queued.deed.clone());
                    heard_report.push(queued.bytes.clone());
                } else {
                    world.model.touched.insert(18);
                }
                queued.heard = true;
            }
            let refused = queue.len() - expected;
            if !ever_had {
                for queued in queue.iter_mut().filter(|queued| !queued.aside) {
                    queued.aside = true;
                    world.model.keeps_aside(14);
                }
            } else if damaged.is_some() {
                world.model.keeps_aside(15);
            }
            if (refused > 0) != (ack.refusal.as_ref().is_some_and(|refusal| refusal.remedy == Remedy::Park)) {
                return Err(format!("what is damaged or foreign is not parked: {ack:?}"));
            }
        }
        numbers.sort_unstable();
        // What is written into the report reaches the server as well.
        if !heard_report.is_empty() && ever_had && !(phone == Phone::Anna && world.model.revoked.is_some()) {
            for written in world.written.iter_mut().filter(|written| written.phone == phone) {
                written.heard.get_or_insert(tick);
            }
        }
        world.model.hears(phone, &numbers, deeds, now);
        if accepted_all == pending && !(phone == Phone::Anna && world.model.revoked.is_some()) {
            world.model.reported.insert(phone, (now, Some(now)));
        }
        if how != How::AnswerLost {
            for (other, ack) in lanes.iter().map(|(other, _)| *other).zip(&outcome.ack.lanes) {
                self.acknowledged(world, phone, other, ack)?;
            }
        }
        Ok(())
    }

    fn acknowledged(&self, world: &mut World, phone: Phone, other: bool, ack: &LaneAck) -> Result<(), String> {
        let handset = world.handset(phone)?;
        let mut left = ack.accepted;
        handset.outbox.retain(|queued| {
            let done = queued.other_visit == other && left > 0;
            left -= u32::from(done);
            !done
        });
        if ack.refusal.is_some() {
            handset.parked.insert(other);
        }
        let (Some(update), Some(doc)) = (&ack.update, handset.visits.get(&ack.dispatch)) else { return Ok(()) };
        let mut doc = (**doc).clone();
        match doc.apply(&update.changes) {
            Ok(()) => {
                handset.visits.insert(ack.dispatch.clone(), Rc::new(doc));
            }
            // The feed brings what it builds upon.
            Err(DocumentError::CausallyOpen) => {}
            Err(error) => return Err(format!("the server's answer cannot be applied: {error}")),
        }
        Ok(())
    }

    /// Takes the feed to its end.
    fn pull(&self, world: &mut World, phone: Phone) -> Result<(), String> {
        let session = world.handset(phone)?.session.clone();
        loop {
            let after = Cursor(world.handset(phone)?.cursor);
            let page = self.wait(self.service.feed_page(&session, after, FEED_PAGE)).map_err(service_error)?;
            let FeedAnswer::Items { items, to, head, .. } = page else {
                return Err("a feed of a few entries is too old".to_owned());
            };
            for item in items {
                self.take(world, phone, item)?;
            }
            world.handset(phone)?.cursor = to.0;
            if to >= head {
                break;
            }
        }
        let cursor = Cursor(world.handset(phone)?.cursor);
        self.wait(self.service.ack(&session, &Ack { cursor, digest_matched: true })).map_err(service_error)
    }

    fn take(&self, world: &mut World, phone: Phone, item: FeedItem) -> Result<(), String> {
        let handset = world.handset(phone)?;
        match item {
            FeedItem::Snapshot { dispatch, document, .. } => {
                let mut doc = VisitDoc::load(&document).map_err(|error| error.to_string())?;
                // Unsent work stays on top of what the server gives.
                let own = handset.outbox.iter().filter(|queued| !queued.poison && !queued.other_visit);
                let own: Vec<&Vec<u8>> = own.map(|queued| &queued.bytes).collect();
                if dispatch == self.visit && !own.is_empty() {
                    doc.apply(&own).map_err(|error| format!("unsent work does not fit a snapshot: {error}"))?;
                }
                handset.gone.remove(&dispatch);
                handset.visits.insert(dispatch, Rc::new(doc));
            }
            FeedItem::Changes { dispatch, changes, .. } => {
                let doc = handset.visits.get(&dispatch).ok_or("changes of a visit that the phone does not hold")?;
                let mut doc = (**doc).clone();
                doc.apply(&changes).map_err(|error| format!("the feed's changes cannot be applied: {error}"))?;
                handset.visits.insert(dispatch, Rc::new(doc));
            }
            FeedItem::Gone { tombstone } => {
                handset.visits.remove(&tombstone.dispatch_id);
                handset.gone.insert(tombstone.dispatch_id.clone(), tombstone);
            }
        }
        Ok(())
    }

    /// Everybody gets a network, in that order; time passes; parked lanes are tried again by a person. Bounded: three rounds.
    pub(super) fn settle(&self, world: &World, order: &[Phone]) -> Result<World, String> {
        let mut last = world.clone();
        self.enter(&last);
        for round in 0..3 {
            for phone in order {
                let handset = last.handset(*phone)?;
                if handset.dead || !handset.registered && handset.outbox.is_empty() {
                    continue;
                }
                if round > 0 {
                    handset.retry();
                }
                if round == 0 || self.worth_exchanging(&mut last, *phone, How::Whole)? {
                    self.exchange(&mut last, *phone, How::Whole)?;
                }
            }
            if round == 0 {
                self.pass(&mut last, STEP);
                self.sweep(&mut last)?;
            }
        }
        // A lane that was parked may have made others wait.
        self.pass(&mut last, STEP);
        self.sweep(&mut last)?;
        for phone in order {
            if self.worth_exchanging(&mut last, *phone, How::Whole)? {
                self.exchange(&mut last, *phone, How::Whole)?;
            }
            let handset = last.handset(*phone)?;
            if !handset.dead
                && handset.outbox.iter().any(|queued| queued.deed.is_some())
                && last.model.ever_had(phone.who())
            {
                return Err(format!("after three exchanges {}'s phone still has unsent work", phone.who()));
            }
        }
        self.leave(&mut last);
        Ok(last)
    }
}

fn possible(possible: bool) -> &'static str {
    if possible { "possible, and it is refused" } else { "not possible, and it is done" }
}

impl World {
    pub(super) fn handset(&mut self, phone: Phone) -> Result<&mut Handset, String> {
        self.phones.get_mut(&phone).ok_or_else(|| "there is no such phone".to_owned())
    }
}

impl Handset {
    fn new(phone: Phone, tenant: &TenantId, ahead_ms: i64) -> Self {
        let (device, actor) = match phone {
            Phone::Anna => ("phone-1", 11),
            Phone::AnnaNew => ("phone-2", 12),
            Phone::Ben => ("phone-3", 13),
        };
        Self {
            session: PhoneSession {
                tenant: tenant.clone(),
                user: id(phone.who().id()),
                technician: id(phone.who().id()),
                device: id(device),
            },
            actor: ActorKey([actor; 16]),
            visits: BTreeMap::new(),
            gone: BTreeMap::new(),
            outbox: Vec::new(),
            parked: BTreeSet::new(),
            poison: 0,
            seq: 0,
            cursor: 0,
            pushes: 0,
            knew: 0,
            registered: false,
            dead: false,
            ahead_ms,
            measured_ms: ahead_ms,
            done: BTreeMap::new(),
        }
    }

    /// What waits in lanes that are not parked.
    fn sendable(&self) -> impl Iterator<Item = &Queued> {
        self.outbox.iter().filter(|queued| !self.parked.contains(&queued.other_visit))
    }

    /// A person tries again what is parked; what is damaged stays.
    fn retry(&mut self) {
        if !self.parked.is_empty() {
            self.parked.clear();
            let before = self.outbox.len();
            self.outbox.retain(|queued| !queued.poison);
            self.poison += before - self.outbox.len();
        }
    }

    fn mark(&self) -> OutboxMark {
        let pending = u32::try_from(self.outbox.len()).unwrap_or(u32::MAX);
        OutboxMark { high_water: self.seq, pending, oldest: None }
    }

    fn hello(&self) -> Hello {
        Hello {
            device: self.session.device.clone(),
            app: "small worlds".to_owned(),
            generation: Some(Generation(1)),
            cursor: Cursor(self.cursor),
            outbox: self.mark(),
            now: Timestamp::default(),
        }
    }
}

fn visit_request(order: &str) -> NewRequest {
    NewRequest {
        service_order_id: id(order),
        location_id: id("LOC-1"),
        required_skills: Vec::new(),
        title: format!("Boiler of {order}"),
        instructions: String::new(),
        priority: Priority::Normal,
        scheduled: None,
        arrival_window: Some(minutes(WINDOW)),
        customer_confirmed: true,
        sla_deadline: Some(at(DEADLINE * MINUTE)),
        required_parts: Vec::new(),
        checklist: vec![ChecklistItem { id: id("pressure"), label: "Pressure?".to_owned(), required: false }],
        contact: None,
        attributes: BTreeMap::new(),
    }
}

async fn furnish(
    service: &Service,
    tenant: &TenantId,
    scene: &Scene,
) -> Result<(DispatchId, Option<DispatchId>), ServiceError> {
    let admin = caller(tenant, "dora", Role::Admin);
    let request = Request::plain(&admin);
    let site = LocationInput {
        name: "Ring 1".to_owned(),
        address: "Ring 1, 1010 Wien".to_owned(),
        coordinates: Coordinates { latitude: 48.2, longitude: 16.37 },
        access_notes: None,
    };
    service.put_location(request, &id("LOC-1"), site).await?;
    for who in Who::ALL {
        let input = TechnicianInput {
            name: Some(who.to_string()),
            van_stock: Some(BTreeMap::from([(id("FILTER"), 1), (id("PUMP"), 9)])),
            ..TechnicianInput::default()
        };
        service.put_technician(request, &id(who.id()), input).await?;
    }
    let mut visits = Vec::new();
    for order in ["SO-1", "SO-2"].into_iter().take(1 + usize::from(scene.second)) {
        let made = service.create_request(request, visit_request(order)).await?.into_value();
        let dispatch = made.ok_or(ServiceError::Busy)?.dispatch_id;
        let crew = if scene.crew { vec![id(Who::Ben.id())] } else { Vec::new() };
        service.assign(request, &dispatch, AssignInput { technician_id: id(Who::Anna.id()), crew }).await?;
        visits.push(dispatch);
    }
    let mut visits = visits.into_iter();
    Ok((visits.next().ok_or(ServiceError::Busy)?, visits.next()))
}

impl From<&Step> for Taken {
    fn from(step: &Step) -> Self {
        Self { step: *step, unaware: false }
    }
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.step, if self.unaware { ", not knowing" } else { "" })
    }
}
