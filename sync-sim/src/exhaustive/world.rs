//! A world: what the phones, the database and the oracle hold at a moment. It is a value: it is copied at every fork, and played
//! on from there.

use super::model::{Deed, Model};
use super::step::{Act, Phone, Step, id};
use crate::memory::Tables;
use crm_dispatch_server::service::PhoneSession;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use sync_core::document::{ActorKey, VisitDoc};
use sync_core::domain::{DispatchId, TenantId, Timestamp, Tombstone, VisitView};
use sync_core::protocol::{Cursor, Generation, Hello, OutboxMark};

/// A change that has not been acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) other_visit: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) seq: Option<u64>,
    pub(super) deed: Option<Deed>,
    pub(super) poison: bool,
    /// The server has it, which the phone does not know.
    pub(super) heard: bool,
    /// The server has kept it aside.
    pub(super) aside: bool,
}

/// A visit on a phone: its document, read once.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) doc: VisitDoc,
    read: OnceCell<VisitView>,
}

impl Visit {
    pub(super) fn view(&self) -> &VisitView {
        self.read.get_or_init(|| self.doc.view())
    }
}

impl From<VisitDoc> for Visit {
    fn from(doc: VisitDoc) -> Self {
        Self { doc, read: OnceCell::new() }
    }
}

/// A phone and its state.
#[derive(Debug, Clone)]
pub(super) struct Handset {
    pub(super) session: PhoneSession,
    pub(super) actor: ActorKey,
    pub(super) visits: BTreeMap<DispatchId, Rc<Visit>>,
    pub(super) gone: BTreeMap<DispatchId, Tombstone>,
    pub(super) outbox: Vec<Queued>,
    /// Parked lanes: the visit, or the other one.
    pub(super) parked: BTreeSet<bool>,
    /// What a person has to look at on the phone.
    pub(super) poison: usize,
    pub(super) seq: u64,
    pub(super) cursor: u64,
    pub(super) pushes: u32,
    pub(super) knew: usize,
    pub(super) registered: bool,
    /// It has destroyed what it held.
    pub(super) dead: bool,
    /// How far the wall clock runs ahead, and what the phone has measured of it.
    pub(super) ahead_ms: i64,
    pub(super) measured_ms: i64,
    pub(super) done: BTreeMap<Act, usize>,
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
    pub(super) tables: Rc<Tables>,
    pub(super) now: i64,
    pub(super) phones: BTreeMap<Phone, Handset>,
    pub(super) model: Model,
    pub(super) taken: Vec<Taken>,
    pub(super) written: Vec<Written>,
    /// Facts on the other visit.
    pub(super) elsewhere: usize,
    pub(super) events: usize,
    pub(super) exchanged: BTreeMap<Phone, usize>,
}

impl World {
    pub(super) fn handset(&mut self, phone: Phone) -> Result<&mut Handset, String> {
        self.phones.get_mut(&phone).ok_or_else(|| "there is no such phone".to_owned())
    }

    /// How often that was done already.
    pub(super) fn did(&self, step: Step) -> usize {
        self.taken.iter().filter(|taken| taken.step == step).count()
    }
}

impl Handset {
    pub(super) fn new(phone: Phone, tenant: &TenantId, ahead_ms: i64) -> Self {
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
    pub(super) fn sendable(&self) -> impl Iterator<Item = &Queued> {
        self.outbox.iter().filter(|queued| !self.parked.contains(&queued.other_visit))
    }

    /// A person tries again what is parked; what is damaged stays.
    pub(super) fn retry(&mut self) {
        if !self.parked.is_empty() {
            self.parked.clear();
            let before = self.outbox.len();
            self.outbox.retain(|queued| !queued.poison);
            self.poison += before - self.outbox.len();
        }
    }

    pub(super) fn mark(&self) -> OutboxMark {
        let pending = u32::try_from(self.outbox.len()).unwrap_or(u32::MAX);
        OutboxMark { high_water: self.seq, pending, oldest: None }
    }

    pub(super) fn hello(&self) -> Hello {
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
