//! A small service territory: a clock that is set by hand, an office, and phones.

use crm_dispatch_server::events::{Event, Payload};
use crm_dispatch_server::service::directory::{LocationInput, TechnicianInput};
use crm_dispatch_server::service::model::Skill;
use crm_dispatch_server::service::office::{AssignInput, NewRequest};
use crm_dispatch_server::service::push::{HeldAnswer, PushOutcome};
use crm_dispatch_server::service::view::DispatchView;
use crm_dispatch_server::service::{
    Caller, Clock, IdSource, PhoneSession, Request, Role, Service, ServiceConfig, ServiceError,
};
use crm_dispatch_server::store::Store;
use crm_dispatch_server::store::sqlite::SqliteStore;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use sync_core::document::{ActorKey, DocumentError, Edit, VisitDoc};
use sync_core::domain::fact::FACT_SCHEMA;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{
    BootId, ClockReading, DeviceId, DispatchId, Fact, FactId, FactKind, PartNumber, TechnicianId, TenantId, Timestamp,
    UserId, Window,
};
use sync_core::protocol::{Ack, Cursor, FeedItem, Hello, OutboxMark, Push, PushLane};
use tempfile::TempDir;

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;

/// 2026-02-03T06:00:00Z, before the day begins.
pub(crate) const DAWN: i64 = 1_770_098_400_000;

#[derive(Debug)]
pub(crate) struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) tenant: TenantId,
    directory: Arc<TempDir>,
}

pub(crate) fn id<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).unwrap()
}

pub(crate) fn caller(tenant: &str, user: &str, role: Role) -> Caller {
    Caller {
        tenant: id(tenant),
        user: id(user),
        roles: vec![role],
        technician: (role == Role::Technician).then(|| id::<TechnicianId>(user)),
    }
}

pub(crate) fn window(from_ms: i64, to_ms: i64) -> Window {
    Window { start: Timestamp::from_millis(DAWN + from_ms), end: Timestamp::from_millis(DAWN + to_ms) }
}

pub(crate) fn skill(code: &str, level: u8) -> Skill {
    Skill { code: id(code), level, expires_at: None }
}

impl World {
    /// An office in Vienna with two sites, ten minutes apart, and three technicians who work today.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = SqliteStore::open(&directory.path().join("dispatch.db")).await.unwrap();
        let clock = Arc::new(HandClock(AtomicI64::new(DAWN)));
        let service = Service::new(store, clock.clone(), IdSource::seeded(7), ServiceConfig::default());
        let world = Self { service, clock, tenant: id("tenant-1"), directory: Arc::new(directory) };
        world.furnish("tenant-1").await;
        world
    }

    /// The same world through another node of the same database.
    pub(crate) fn other_node(&self) -> Self {
        let (store, clock) = (Arc::clone(self.service.store()), Arc::clone(&self.clock));
        Self {
            service: Service::new(store, clock.clone(), IdSource::seeded(8), ServiceConfig::default()),
            clock,
            tenant: self.tenant.clone(),
            directory: Arc::clone(&self.directory),
        }
    }

    pub(crate) async fn furnish(&self, tenant: &str) {
        let admin = caller(tenant, "admin", Role::Admin);
        for (name, latitude, longitude) in [("LOC-1", 48.2082, 16.3738), ("LOC-2", 48.1986, 16.3700)] {
            let input = LocationInput {
                name: format!("Site {name}"),
                address: "Ring 1, 1010 Wien".into(),
                coordinates: Coordinates { latitude, longitude },
                access_notes: None,
            };
            self.service.put_location(Request::plain(&admin), &id(name), input).await.unwrap();
        }
        for name in ["TECH-A", "TECH-B", "TECH-C"] {
            let input = TechnicianInput {
                name: Some(format!("Technician {name}")),
                skills: Some(vec![skill("HVAC", 2)]),
                home_base: Some(Coordinates { latitude: 48.2000, longitude: 16.3600 }),
                availability: Some(vec![window(0, 14 * HOUR)]),
                van_stock: Some(BTreeMap::from([(id::<PartNumber>("FILTER"), 2)])),
                ..TechnicianInput::default()
            };
            self.service.put_technician(Request::plain(&admin), &id(name), input).await.unwrap();
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn dispatcher(&self) -> Caller {
        caller(self.tenant.as_str(), "dora", Role::Dispatcher)
    }

    pub(crate) fn request(&self, order: &str, scheduled: Option<Window>) -> NewRequest {
        NewRequest {
            service_order_id: id(order),
            location_id: id("LOC-1"),
            required_skills: vec![sync_core::domain::plan::SkillRequirement { code: id("HVAC"), level: 2 }],
            title: format!("Boiler of {order}"),
            instructions: String::new(),
            priority: Default::default(),
            scheduled,
            arrival_window: scheduled,
            customer_confirmed: scheduled.is_some(),
            sla_deadline: None,
            required_parts: Vec::new(),
            checklist: Vec::new(),
            contact: None,
            attributes: BTreeMap::new(),
        }
    }

    pub(crate) async fn create(&self, request: NewRequest) -> DispatchView {
        let dora = self.dispatcher();
        self.service.create_request(Request::plain(&dora), request).await.unwrap().into_value().unwrap()
    }

    /// A visit for one order, at nine o'clock for an hour.
    pub(crate) async fn visit(&self, order: &str) -> DispatchId {
        self.create(self.request(order, Some(window(3 * HOUR, 4 * HOUR)))).await.dispatch_id
    }

    pub(crate) async fn assign(&self, dispatch: &DispatchId, technician: &str) -> Result<DispatchView, ServiceError> {
        let dora = self.dispatcher();
        let input = AssignInput { technician_id: id(technician), crew: Vec::new() };
        Ok(self.service.assign(Request::plain(&dora), dispatch, input).await?.into_value().unwrap())
    }

    pub(crate) async fn cancel(&self, dispatch: &DispatchId, reason: &str) -> DispatchView {
        let dora = self.dispatcher();
        self.service.cancel(Request::plain(&dora), dispatch, reason).await.unwrap().into_value().unwrap()
    }

    pub(crate) async fn see(&self, dispatch: &DispatchId) -> DispatchView {
        self.service.dispatch(&self.dispatcher(), dispatch).await.unwrap()
    }

    /// A visit that is assigned, and the lead's phone that holds it.
    pub(crate) async fn assigned(&self, order: &str, technician: &str) -> (DispatchId, Phone) {
        let dispatch = self.visit(order).await;
        self.assign(&dispatch, technician).await.unwrap();
        let mut phone = Phone::new(self, technician, 1);
        phone.prime(self).await;
        (dispatch, phone)
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let other = caller(self.tenant.as_str(), "erp", Role::Integration);
        let events = self.service.events(&other, 0, None, None, 500).await.unwrap();
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Names and statuses of a dispatch's events, in order.
    pub(crate) async fn told(&self, dispatch: &DispatchId) -> Vec<String> {
        let events = self.events().await;
        let of_dispatch = events.iter().filter(|event| event.aggregate_id == dispatch.as_str());
        of_dispatch
            .map(|event| match &event.payload {
                Payload::TechnicianStatusChanged { status, .. } => status.clone(),
                Payload::TechnicianAssigned { technician_id, .. } => format!("assigned {technician_id}"),
                Payload::DispatchRejected { reason, .. } => format!("rejected {reason}"),
                other => other.event_type().to_owned(),
            })
            .collect()
    }

    pub(crate) async fn audit(&self, aggregate: &str) -> Vec<String> {
        let lines = self.service.audit(&self.dispatcher(), aggregate, 0, 500).await.unwrap();
        lines.into_iter().map(|line| line.action).collect()
    }
}

/// A technician's phone: documents, an outbox, and a counter; it is offline until it pushes.
pub(crate) struct Phone {
    pub(crate) session: PhoneSession,
    pub(crate) documents: BTreeMap<DispatchId, VisitDoc>,
    pub(crate) gone: Vec<sync_core::domain::Tombstone>,
    pub(crate) outbox: Vec<(DispatchId, Vec<u8>)>,
    pub(crate) actor: ActorKey,
    pub(crate) seq: u64,
    pub(crate) cursor: u64,
    pushes: u32,
}

impl Phone {
    pub(crate) fn new(world: &World, technician: &str, number: u8) -> Self {
        let mut actor = [number; 16];
        for (slot, byte) in actor.iter_mut().zip(technician.bytes()) {
            *slot ^= byte;
        }
        Self {
            session: PhoneSession {
                tenant: world.tenant.clone(),
                user: UserId::new(technician).unwrap(),
                technician: id(technician),
                device: DeviceId::new(format!("{technician}-phone-{number}")).unwrap(),
            },
            documents: BTreeMap::new(),
            gone: Vec::new(),
            outbox: Vec::new(),
            actor: ActorKey(actor),
            seq: 0,
            cursor: 0,
            pushes: 0,
        }
    }

    pub(crate) fn mark(&self) -> OutboxMark {
        OutboxMark { high_water: self.seq, pending: self.outbox.len() as u32, oldest: None }
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            device: self.session.device.clone(),
            app: "stories 1.0".into(),
            generation: None,
            cursor: Cursor(self.cursor),
            outbox: self.mark(),
            now: Timestamp::default(),
        }
    }

    /// Connects, and takes everything that it should hold.
    pub(crate) async fn prime(&mut self, world: &World) {
        world.service.hello(&self.session, &self.hello()).await.unwrap();
        let HeldAnswer { items, more, head, .. } = world.service.held(&self.session, None, 500, 8 << 20).await.unwrap();
        assert!(!more);
        self.documents.clear();
        self.take(items);
        self.cursor = head.0;
        world.service.ack(&self.session, &Ack { cursor: head, digest_matched: true }).await.unwrap();
    }

    pub(crate) fn take(&mut self, items: Vec<FeedItem>) {
        for item in items {
            match item {
                FeedItem::Snapshot { dispatch, document, tag, .. } => {
                    let document = VisitDoc::load(&document).unwrap();
                    assert_eq!(document.tag(), tag);
                    self.documents.insert(dispatch, document);
                }
                FeedItem::Changes { dispatch, changes, tag, .. } => {
                    let document = self.documents.get_mut(&dispatch).unwrap();
                    document.apply(&changes).unwrap();
                    assert_eq!(document.tag(), tag);
                }
                FeedItem::Gone { tombstone } => {
                    self.documents.remove(&tombstone.dispatch_id);
                    self.gone.push(tombstone);
                }
            }
        }
    }

    pub(crate) fn edit(&mut self, dispatch: &DispatchId, edit: &Edit, at: Timestamp) -> Vec<u8> {
        let change = self.documents.get_mut(dispatch).unwrap().edit(self.actor, edit, at).unwrap();
        self.outbox.push((dispatch.clone(), change.bytes.clone()));
        change.bytes
    }

    /// Does something, with a clock that is right to the second.
    pub(crate) fn act(&mut self, dispatch: &DispatchId, kind: FactKind, at: Timestamp) -> FactId {
        self.seq += 1;
        let fact = Fact {
            schema: FACT_SCHEMA,
            id: FactId::new(format!("{}-{}", self.session.device, self.seq)).unwrap(),
            epoch: self.documents[dispatch].plan().epoch_for(&self.session.technician).unwrap(),
            technician: self.session.technician.clone(),
            device: self.session.device.clone(),
            seq: self.seq,
            clock: ClockReading {
                wall: at,
                monotonic_ms: 0,
                boot: BootId::new("boot-1").unwrap(),
                offset_ms: Some(0),
                uncertainty_ms: Some(1_000),
            },
            position: None,
            kind,
        };
        let name = fact.id.clone();
        self.edit(dispatch, &Edit::Fact { fact }, at);
        name
    }

    /// Everything in the outbox as one push, a lane a visit.
    pub(crate) fn packed(&mut self) -> Push {
        self.pushes += 1;
        let mut lanes: Vec<PushLane> = Vec::new();
        for (dispatch, bytes) in &self.outbox {
            match lanes.iter_mut().find(|lane| lane.dispatch == *dispatch) {
                Some(lane) => lane.changes.push(ByteBuf::from(bytes.clone())),
                None => {
                    lanes.push(PushLane { dispatch: dispatch.clone(), changes: vec![ByteBuf::from(bytes.clone())] })
                }
            }
        }
        Push { id: self.pushes, lanes, outbox: self.mark() }
    }

    /// Sends everything, and takes over what the server added.
    pub(crate) async fn push(&mut self, world: &World) -> PushOutcome {
        let push = self.packed();
        let outcome = world.service.push(&self.session, &push).await.unwrap();
        self.outbox.clear();
        for lane in &outcome.ack.lanes {
            if let (Some(update), Some(document)) = (&lane.update, self.documents.get_mut(&lane.dispatch)) {
                match document.apply(&update.changes) {
                    Ok(()) => assert_eq!(document.tag(), update.tag, "phone and server hold the same"),
                    // It builds upon what this phone has not seen yet: the visit is fetched whole.
                    Err(DocumentError::CausallyOpen) => {
                        let dispatch = std::slice::from_ref(&lane.dispatch);
                        let items = world.service.fetch(&self.session, dispatch).await.unwrap();
                        self.take(items);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        outcome
    }
}
