//! The stage that the worlds of a scene are played on: the shipped service on the store in memory, and phones around shipped
//! documents. What happens on it: `act` on the phones, `office`, `exchange` between them.

use super::model::{DEADLINE, Model};
use super::office::visit_request;
use super::scene::Scene;
use super::step::{Act, How, Phone, Step, Who, id};
use super::world::{Handset, Taken, World};
use crate::memory::MemoryStore;
use crate::node::TrueClock;
use crm_dispatch_server::service::directory::{LocationInput, TechnicianInput};
use crm_dispatch_server::service::office::AssignInput;
use crm_dispatch_server::service::{Caller, IdSource, Request, Role, Service, ServiceConfig, ServiceError};
use crm_dispatch_server::store::Store;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use sync_core::document::ActorKey;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{DispatchId, TenantId, Timestamp, Window};
use sync_core::protocol::Generation;

/// 2026-02-03T00:00:00Z.
const MIDNIGHT: i64 = 1_770_076_800_000;
pub(super) const MINUTE: i64 = 60_000;
/// What every step takes.
pub(super) const STEP: i64 = 5 * MINUTE;
pub(super) const FEED_PAGE: u32 = 100;

/// The stage of a scene.
pub(super) struct Stage {
    pub(super) store: Arc<MemoryStore>,
    pub(super) service: Service,
    clock: Arc<AtomicI64>,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) tenant: TenantId,
    pub(super) visit: DispatchId,
    pub(super) other: Option<DispatchId>,
    pub(super) uncertainty_ms: u32,
    pub(super) watches_deadline: bool,
    /// Service calls so far.
    pub(super) calls: std::cell::Cell<u64>,
}

pub(super) fn caller(tenant: &TenantId, user: &str, role: Role) -> Caller {
    Caller { tenant: tenant.clone(), user: id(user), roles: vec![role], technician: None }
}

pub(super) fn minutes((from, to): (i64, i64)) -> Window {
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
        for phone in scene.phones() {
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
        for step in &scene.opening {
            let next = stage.step(&world, *step)?;
            world = next.ok_or_else(|| format!("\"{}\" cannot begin with: {step}", scene.name))?;
        }
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

    pub(super) fn pass(&self, world: &mut World, ms: i64) {
        world.now += ms;
        self.clock.store(MIDNIGHT + world.now, Ordering::Relaxed);
    }

    pub(super) fn wait<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
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
        if world.did(step) >= step.times_max() {
            return Ok(None);
        }
        let mut next = world.clone();
        if let Step::Does(phone, act) = step {
            // Offline: the database stays as it is.
            next.now += STEP;
            let unaware = next.handset(phone)?.knew < next.model.orders;
            let happened = self.act(&mut next, phone, act)?;
            next.taken.push(Taken { step, unaware });
            return Ok(happened.then_some(next));
        }
        self.enter(&next);
        self.pass(&mut next, STEP);
        let happened = match step {
            Step::Does(..) => false,
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
        next.taken.push(Taken { step, unaware: false });
        self.leave(&mut next);
        Ok(Some(next))
    }

    pub(super) fn sweep(&self, world: &mut World) -> Result<(), String> {
        world.model.sweeps(world.now);
        let swept = self.wait(self.service.sweep()).map_err(service_error)?;
        if swept.failed > 0 {
            return Err("a sweep failed on a visit".to_owned());
        }
        Ok(())
    }
    /// Everybody gets a network, in that order; time passes; parked lanes are tried again by a person. Bounded: three rounds.
    /// The store is left as it is then, for [`Stage::check`].
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
                // Where the deadline is watched, a phone with nothing to say says so.
                let reports = round == 0 && self.watches_deadline;
                if reports || self.worth_exchanging(&mut last, *phone, How::Whole)? {
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
        Ok(last)
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
