//! An office and a phone, face to face: what the tests of the phone's store share. The office is the document room itself,
//! without a network or a database in between.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "each test file uses its share"
)]

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use sync_core::document::{ActorKey, Author, Edit, Refusal, StateTag, VisitDoc};
use sync_core::domain::plan::{Assignment, ChecklistItem, Site};
use sync_core::domain::{
    DeviceId, DispatchId, FactId, FactKind, Plan, Ruling, RulingReason, TechnicianId, TenantId, Timestamp, Tombstone,
    TombstoneReason, Verdict, VisitCard, Window, fold,
};
use sync_core::protocol::{Cursor, Digest, FeedItem, Generation, LaneAck, LaneRefusal, LaneUpdate, PushLane, Remedy};
use sync_core::store::{
    AckApplied, Acted, Applied, DatabaseKey, DeviceNow, FeedBatch, NewEdit, OpenOptions, Opened, PageLimits,
    Protection, Store, StoreError,
};

pub const DAY_START_MS: i64 = 1_770_105_600_000;

pub fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(DAY_START_MS + minute * 60_000)
}

pub fn now(minute: i64) -> DeviceNow {
    DeviceNow { wall: at(minute), monotonic_ms: minute.unsigned_abs() * 60_000, boot: "boot-1".parse().unwrap() }
}

pub fn id(number: u32) -> DispatchId {
    format!("DSP-{number}").parse().unwrap()
}

pub fn tech(number: u32) -> TechnicianId {
    format!("TECH-{number}").parse().unwrap()
}

pub fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A folder with a database in it.
pub struct Disk {
    pub folder: tempfile::TempDir,
    pub protection: Protection,
}

impl Disk {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), protection: Protection::Unencrypted }
    }

    /// One whose database is encrypted.
    pub fn encrypted(seed: u64) -> Self {
        Self { protection: Protection::Key(DatabaseKey::random(&mut rng(seed))), ..Self::new() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("visits.db")
    }

    pub fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path(), suffix)
    }

    pub fn open(&self, seed: u64) -> Opened {
        self.try_open(seed).unwrap()
    }

    pub fn try_open(&self, seed: u64) -> Result<Opened, StoreError> {
        let options = OpenOptions { protection: self.protection.clone(), ..options() };
        Store::open(&self.path(), &options, &mut rng(seed))
    }

    /// A phone whose technician is `TECH-10`.
    pub fn phone(&self, seed: u64) -> Phone {
        let opened = self.open(seed);
        let mut rng = rng(seed + 1_000);
        opened.store.bind_user(&tenant(), &tech(10), &mut rng).unwrap();
        Phone { store: opened.store, rng, minute: 0 }
    }

    /// What a crash at this moment would leave: the database and its log, without a word to the store.
    pub fn crashed(&self) -> Self {
        let copy = Self { protection: self.protection.clone(), ..Self::new() };
        for suffix in ["", "-wal"] {
            if self.beside(suffix).exists() {
                std::fs::copy(self.beside(suffix), copy.beside(suffix)).unwrap();
            }
        }
        copy
    }
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

pub fn options() -> OpenOptions {
    OpenOptions { app: "tests 1.0".into(), now: at(0), protection: Protection::Unencrypted }
}

pub fn open(path: &Path, seed: u64) -> Opened {
    Store::open(path, &options(), &mut rng(seed)).unwrap()
}

pub struct Phone {
    pub store: Store,
    pub rng: StdRng,
    pub minute: i64,
}

impl Phone {
    pub fn acts(&mut self, visit: u32, edit: NewEdit) -> Acted {
        self.minute += 1;
        self.store.act(&id(visit), edit, &now(self.minute), None, &mut self.rng).unwrap()
    }

    pub fn states(&mut self, visit: u32, kind: FactKind) -> Acted {
        self.acts(visit, NewEdit::Fact(kind))
    }

    pub fn notes(&mut self, visit: u32, text: &str) -> Acted {
        self.acts(visit, NewEdit::Note { at: 0, delete: 0, insert: text.into() })
    }

    pub fn device(&self) -> DeviceId {
        self.store.sync_state().unwrap().device
    }

    pub fn pending(&self) -> u32 {
        self.store.outbox_mark().unwrap().pending
    }

    pub fn applies(&mut self, batch: FeedBatch) -> Applied {
        self.store.apply_batch(batch, at(self.minute), &mut self.rng).unwrap()
    }

    /// Takes everything from the office.
    pub fn primes(&mut self, office: &Office) -> Applied {
        self.store.server_identity(office.generation, Cursor(office.head), at(self.minute)).unwrap();
        self.applies(office.everything())
    }

    /// Pushes a page and stores the answer; the answer may get lost on the way.
    pub fn pushes(&mut self, office: &mut Office) -> AckApplied {
        let page = self.store.outbox_page(&PageLimits::default()).unwrap();
        let lanes: Vec<_> = page.lanes.iter().map(|sent| sent.lane.clone()).collect();
        let acks = office.receives(&self.device(), &lanes);
        self.store.push_acknowledged(&page.lanes, &acks, None, at(self.minute), &mut rng(77)).unwrap()
    }

    pub fn loses_the_answer(&mut self, office: &mut Office) {
        let page = self.store.outbox_page(&PageLimits::default()).unwrap();
        let lanes: Vec<_> = page.lanes.iter().map(|sent| sent.lane.clone()).collect();
        office.receives(&self.device(), &lanes);
    }

    /// Pushes and fetches until nothing is left to do, in a bounded number of exchanges.
    pub fn syncs(&mut self, office: &mut Office) -> u32 {
        for round in 0..10 {
            let state = self.store.sync_state().unwrap();
            if state.needs_fetch.is_empty() && self.store.outbox_page(&PageLimits::default()).unwrap().lanes.is_empty()
            {
                return round;
            }
            let answer = office.fetched(&state.needs_fetch, state.cursor);
            self.applies(answer);
            self.pushes(office);
        }
        panic!("the phone and the office do not come to an end");
    }
}

/// The server's side of some visits, all led by `TECH-10`.
#[derive(Clone)]
pub struct Office {
    pub actor: ActorKey,
    pub generation: Generation,
    pub head: u64,
    pub visits: BTreeMap<DispatchId, VisitDoc>,
    /// Visits that the phone does not hold any more.
    pub gone: BTreeSet<DispatchId>,
    /// Refusals to come: for a visit's next new change.
    pub refuses: BTreeMap<DispatchId, LaneRefusal>,
    /// Every fact, as often as it was accepted as new.
    pub accepted: Vec<FactId>,
}

pub fn plan(number: u32, start: Timestamp) -> Plan {
    Plan {
        revision: 1,
        service_order_id: Some(format!("SO-{number}").parse().unwrap()),
        title: format!("Boiler {number}"),
        instructions: "Check the pressure, bleed the radiators.".into(),
        site: Some(Site {
            location_id: "LOC-10".parse().unwrap(),
            name: "Café Prückel".into(),
            address: "Stubenring 24, 1010 Wien".into(),
            coordinates: sync_core::domain::geo::Coordinates { latitude: 48.2076, longitude: 16.3808 },
            access_notes: None,
        }),
        scheduled: Some(Window { start, end: start.plus_millis(3_600_000) }),
        assignment: Some(Assignment {
            epoch: 1,
            lead: tech(10),
            crew: Vec::new(),
            continues: Vec::new(),
            offered_at: at(-60),
            offered_by: "dispatcher".parse().unwrap(),
        }),
        epoch: 1,
        checklist: vec![ChecklistItem {
            id: "pressure".parse().unwrap(),
            label: "Pressure in bar?".into(),
            required: true,
        }],
        ..Plan::default()
    }
}

impl Office {
    pub fn new(visits: impl IntoIterator<Item = u32>) -> Self {
        let mut office = Self {
            actor: ActorKey([0x50; 16]),
            generation: Generation(7),
            head: 0,
            visits: BTreeMap::new(),
            gone: BTreeSet::new(),
            refuses: BTreeMap::new(),
            accepted: Vec::new(),
        };
        for number in visits {
            office.plans(number, at(i64::from(number % 1_000)));
        }
        office
    }

    pub fn plans(&mut self, number: u32, start: Timestamp) {
        let (doc, _) = VisitDoc::genesis(self.actor, &plan(number, start), at(-60));
        self.visits.insert(id(number), doc);
        self.head += 1;
    }

    fn card(&self, dispatch: &DispatchId) -> VisitCard {
        let view = self.visits[dispatch].view();
        VisitCard::new(dispatch.clone(), &view.plan, &fold(&view))
    }

    pub fn snapshot(&self, dispatch: &DispatchId) -> FeedItem {
        let doc = &self.visits[dispatch];
        FeedItem::Snapshot {
            dispatch: dispatch.clone(),
            document: ByteBuf::from(doc.save()),
            card: self.card(dispatch),
            tag: doc.tag(),
        }
    }

    pub fn held(&self) -> impl Iterator<Item = (&DispatchId, &VisitDoc)> {
        self.visits.iter().filter(|(dispatch, _)| !self.gone.contains(*dispatch))
    }

    pub fn digest(&self) -> Digest {
        self.held().fold(Digest(0), |digest, (dispatch, doc)| digest.toggled(dispatch, doc.tag()))
    }

    /// The full answer.
    pub fn everything(&self) -> FeedBatch {
        FeedBatch {
            from: Cursor(0),
            to: Cursor(self.head),
            reset: true,
            more: false,
            digest: Some(self.digest()),
            items: self.held().map(|(dispatch, _)| self.snapshot(dispatch)).collect(),
        }
    }

    /// The answer to a fetch.
    pub fn fetched(&self, dispatches: &[DispatchId], cursor: Cursor) -> FeedBatch {
        let items = dispatches.iter().filter(|dispatch| !self.gone.contains(*dispatch));
        FeedBatch {
            from: cursor,
            to: cursor,
            reset: false,
            more: false,
            digest: None,
            items: items.map(|dispatch| self.snapshot(dispatch)).collect(),
        }
    }

    pub fn batch(&mut self, items: Vec<FeedItem>) -> FeedBatch {
        let from = Cursor(self.head);
        self.head += items.len() as u64;
        FeedBatch { from, to: Cursor(self.head), reset: false, more: false, digest: Some(self.digest()), items }
    }

    /// The office changes a plan; the answer is what the phone's feed says of it.
    pub fn replans(&mut self, number: u32, change: impl FnOnce(&mut Plan)) -> FeedItem {
        let dispatch = id(number);
        let doc = self.visits.get_mut(&dispatch).unwrap();
        let mut plan = doc.plan();
        plan.revision += 1;
        change(&mut plan);
        let made = doc.decide(self.actor, &plan, &BTreeMap::new(), at(0)).unwrap();
        let tag = doc.tag();
        FeedItem::Changes { changes: vec![ByteBuf::from(made.bytes)], card: self.card(&dispatch), tag, dispatch }
    }

    pub fn takes_away(&mut self, number: u32, reason: TombstoneReason) -> FeedItem {
        self.gone.insert(id(number));
        FeedItem::Gone {
            tombstone: Tombstone {
                dispatch_id: id(number),
                title: format!("Boiler {number}"),
                reason,
                note: Some("The customer called.".into()),
                by: "dispatcher".into(),
                at: at(30),
            },
        }
    }

    /// Takes a push of TECH-10's phone, as the service does: admits, rules, answers.
    pub fn receives(&mut self, device: &DeviceId, lanes: &[PushLane]) -> Vec<LaneAck> {
        lanes.iter().map(|lane| self.lane(device, lane)).collect()
    }

    fn lane(&mut self, device: &DeviceId, lane: &PushLane) -> LaneAck {
        let dispatch = &lane.dispatch;
        let mut ack =
            LaneAck { dispatch: dispatch.clone(), accepted: 0, refusal: None, verdicts: Vec::new(), update: None };
        let technician = tech(10);
        let author = Author { technician: &technician, device };
        let doc = self.visits.get_mut(dispatch).unwrap();
        let mut rulings = BTreeMap::new();
        for bytes in &lane.changes {
            let before = doc.clone();
            match doc.admit(&author, bytes) {
                Ok(admission) => {
                    if !admission.duplicate
                        && let Some(refusal) = self.refuses.remove(dispatch)
                    {
                        *doc = before;
                        ack.refusal = Some(refusal);
                        break;
                    }
                    ack.accepted += 1;
                    for (fact, knew_revision) in admission.facts.into_iter().filter(|_| !admission.duplicate) {
                        self.accepted.push(fact.id.clone());
                        rulings.insert(
                            fact.id,
                            Ruling {
                                verdict: Verdict::Accepted,
                                reason: RulingReason::InOrder,
                                recorded_at: at(0),
                                knew_revision,
                                clock_flagged: false,
                                gap_flagged: false,
                            },
                        );
                    }
                }
                Err(refusal) => {
                    let remedy = match refusal {
                        Refusal::CausallyOpen => Remedy::Resend,
                        Refusal::Forbidden(_) | Refusal::DuplicateSequence(_) | Refusal::BadFact(_) => Remedy::Rebase,
                        _ => Remedy::Park,
                    };
                    ack.refusal = Some(LaneRefusal {
                        code: refusal.code().into(),
                        message: refusal.to_string(),
                        remedy,
                        ground: Some(ByteBuf::from(doc.ground(&technician, &lane.changes).unwrap())),
                    });
                    break;
                }
            }
        }
        let plan = doc.plan();
        let base = Some(doc.tag());
        let made = doc.decide(self.actor, &plan, &rulings, at(0));
        let tag = doc.tag();
        if !self.gone.contains(dispatch) {
            let changes = made.into_iter().map(|change| ByteBuf::from(change.bytes)).collect();
            ack.update = Some(LaneUpdate { changes, card: self.card(dispatch), tag, base });
        }
        ack
    }

    pub fn tag(&self, number: u32) -> StateTag {
        self.visits[&id(number)].tag()
    }

    pub fn has_fact(&self, number: u32, fact: &FactId) -> bool {
        self.visits[&id(number)].view().facts.contains_key(fact)
    }
}

pub fn refusal(code: &str, remedy: Remedy) -> LaneRefusal {
    LaneRefusal { code: code.into(), message: "for the test".into(), remedy, ground: None }
}

/// The facts among a visit's unacknowledged edits.
pub fn pending_facts(store: &Store, number: u32) -> Vec<FactId> {
    let edits = store.visit(&id(number)).unwrap().pending;
    edits
        .into_iter()
        .filter_map(|pending| match pending.edit {
            Edit::Fact { fact } => Some(fact.id),
            _ => None,
        })
        .collect()
}
