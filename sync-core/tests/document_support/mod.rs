//! A visit in Vienna, its office and its crew: what the tests of the document room share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test file uses its share"
)]

use std::collections::BTreeMap;
use sync_core::document::{ActorKey, Author, Edit, EncodedChange, VisitDoc};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{Assignment, ChecklistItem, Contact, PartRequirement, Site, SkillRequirement};
use sync_core::domain::{Answer, ClockReading, Fact, FactKind, Plan, TechnicianId, Timestamp, Window};

pub const SERVER: ActorKey = ActorKey([0x50; 16]);

pub fn actor(number: u8) -> ActorKey {
    ActorKey([number; 16])
}

pub fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_770_105_600_000 + minute * 60_000)
}

/// A technician with a phone.
#[derive(Debug, Clone)]
pub struct Phone {
    pub technician: TechnicianId,
    pub device: sync_core::domain::DeviceId,
    pub actor: ActorKey,
}

impl Phone {
    pub fn new(number: u8) -> Self {
        Self {
            technician: format!("TECH-{number}").parse().unwrap(),
            device: format!("phone-{number}").parse().unwrap(),
            actor: actor(number),
        }
    }

    pub fn author(&self) -> Author<'_> {
        Author { technician: &self.technician, device: &self.device }
    }

    pub fn fact(&self, id: &str, seq: u64, kind: FactKind) -> Fact {
        Fact {
            schema: 1,
            id: id.parse().unwrap(),
            epoch: 1,
            technician: self.technician.clone(),
            device: self.device.clone(),
            seq,
            clock: ClockReading {
                wall: at(i64::try_from(seq).unwrap()),
                monotonic_ms: seq * 1_000,
                boot: "boot-1".parse().unwrap(),
                offset_ms: Some(-120),
                uncertainty_ms: Some(40),
            },
            position: None,
            kind,
        }
    }

    pub fn states(&self, doc: &mut VisitDoc, id: &str, seq: u64, kind: FactKind) -> EncodedChange {
        doc.edit(self.actor, &Edit::Fact { fact: self.fact(id, seq, kind) }, at(0)).unwrap()
    }

    pub fn notes(&self, doc: &mut VisitDoc, position: usize, delete: usize, insert: &str) -> EncodedChange {
        let edit = Edit::Note { at: position, delete, insert: insert.into() };
        doc.edit(self.actor, &edit, at(0)).unwrap()
    }

    pub fn answers(&self, doc: &mut VisitDoc, item: &str, value: &str) -> EncodedChange {
        let answer = Answer { value: value.into(), by: self.technician.clone(), at: at(5) };
        doc.edit(self.actor, &Edit::Answer { item: item.parse().unwrap(), answer }, at(0)).unwrap()
    }

    pub fn summarises(&self, doc: &mut VisitDoc, text: &str) -> EncodedChange {
        doc.edit(self.actor, &Edit::Summary { text: text.into() }, at(0)).unwrap()
    }
}

/// A boiler in the seventh district, assigned to TECH-1 with TECH-2 as crew.
pub fn plan() -> Plan {
    Plan {
        revision: 1,
        service_order_id: Some("SO-100".parse().unwrap()),
        title: "Boiler loses pressure".into(),
        instructions: "Ring at the caretaker's".into(),
        site: Some(Site {
            location_id: "LOC-10".parse().unwrap(),
            name: "Zieglergasse 12".into(),
            address: "Zieglergasse 12, 1070 Wien".into(),
            coordinates: Coordinates { latitude: 48.2005, longitude: 16.3461 },
            access_notes: None,
        }),
        contact: Some(Contact { name: "Fr. Novak".into(), phone: Some("+43 1 555 01 23".into()) }),
        required_skills: vec![SkillRequirement { code: "HEATING".parse().unwrap(), level: 2 }],
        required_parts: vec![PartRequirement { part: "PART-55".parse().unwrap(), quantity: 1 }],
        scheduled: Some(Window { start: at(60), end: at(180) }),
        arrival_window: Some(Window { start: at(50), end: at(90) }),
        assignment: Some(Assignment {
            epoch: 1,
            lead: "TECH-1".parse().unwrap(),
            crew: vec!["TECH-2".parse().unwrap()],
            continues: vec![],
            offered_at: at(0),
            offered_by: "office-1".parse().unwrap(),
        }),
        epoch: 1,
        checklist: (1..=20)
            .map(|number| ChecklistItem {
                id: format!("item-{number}").parse().unwrap(),
                label: format!("Check {number}"),
                required: number % 2 == 0,
            })
            .collect(),
        attributes: (1..=15).map(|number| (format!("field-{number}"), format!("value {number}"))).collect(),
        ..Plan::default()
    }
}

pub fn visit() -> VisitDoc {
    VisitDoc::genesis(SERVER, &plan(), at(0)).0
}

/// The server's copy as a phone receives it.
pub fn copy(doc: &VisitDoc) -> VisitDoc {
    VisitDoc::load(&doc.save()).unwrap()
}

/// The office renames the visit.
pub fn retitle(doc: &mut VisitDoc, server: ActorKey, title: &str) -> EncodedChange {
    let mut plan = doc.plan();
    plan.title = title.into();
    plan.revision += 1;
    doc.decide(server, &plan, &BTreeMap::new(), at(1)).unwrap()
}

/// Changes as a modified app could make them, with Automerge itself and without the rules of this crate.
pub mod forge {
    use automerge::transaction::{CommitOptions, Transaction};
    use automerge::{ActorId, Automerge, Change, ExpandedChange, ObjId, ROOT, ReadDoc};
    use sha2::{Digest, Sha256};
    use sync_core::document::{ActorKey, VisitDoc};

    /// The six objects.
    pub struct Objects {
        pub plan: ObjId,
        pub facts: ObjId,
        pub rulings: ObjId,
        pub report: ObjId,
        pub notes: ObjId,
        pub checklist: ObjId,
    }

    pub fn automerge(doc: &VisitDoc) -> (Automerge, Objects) {
        let doc = Automerge::load(&doc.save()).unwrap();
        let find = |parent: &ObjId, key: &str| doc.get(parent, key).unwrap().unwrap().1;
        let report = find(&ROOT, "report");
        let objects = Objects {
            plan: find(&ROOT, "plan"),
            facts: find(&ROOT, "facts"),
            rulings: find(&ROOT, "rulings"),
            notes: find(&report, "notes"),
            checklist: find(&report, "checklist"),
            report,
        };
        (doc, objects)
    }

    /// A change on top of `doc`.
    pub fn change(doc: &VisitDoc, actor: ActorKey, write: impl FnOnce(&mut Transaction<'_>, &Objects)) -> Change {
        change_with(doc, actor, CommitOptions::default().with_time(1_770_105_600), write)
    }

    pub fn change_with(
        doc: &VisitDoc,
        actor: ActorKey,
        options: CommitOptions,
        write: impl FnOnce(&mut Transaction<'_>, &Objects),
    ) -> Change {
        let (mut doc, objects) = automerge(doc);
        doc.set_actor(ActorId::from(actor.0));
        let mut tx = doc.transaction();
        write(&mut tx, &objects);
        let hash = tx.commit_with(options).0.unwrap();
        doc.get_change_by_hash(&hash).unwrap()
    }

    pub fn bytes(doc: &VisitDoc, actor: ActorKey, write: impl FnOnce(&mut Transaction<'_>, &Objects)) -> Vec<u8> {
        change(doc, actor, write).raw_bytes().to_vec()
    }

    /// A change taken apart, altered, and put together again with a right checksum.
    pub fn altered(bytes: &[u8], alter: impl FnOnce(&mut ExpandedChange)) -> Vec<u8> {
        let mut expanded = Change::from_bytes(bytes.to_vec()).unwrap().decode();
        alter(&mut expanded);
        Change::from(expanded).raw_bytes().to_vec()
    }

    /// A chunk around `body`, with a right checksum.
    pub fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut hashed = vec![kind];
        let mut length = body.len();
        while length >= 0x80 {
            hashed.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        hashed.push(length as u8);
        hashed.extend(body);
        let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
        chunk.extend(&Sha256::digest(&hashed)[..4]);
        chunk.extend(hashed);
        chunk
    }

    /// The body of a chunk.
    pub fn body(chunk: &[u8]) -> Vec<u8> {
        let length = chunk[9..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        chunk[9 + length..].to_vec()
    }
}
