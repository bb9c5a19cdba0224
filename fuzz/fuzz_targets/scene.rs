//! A visit with a little of everything, and valid changes on top of it.

#![allow(dead_code, reason = "each target uses its share")]

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use sync_core::document::{ActorKey, Author, Edit, VisitDoc};
use sync_core::domain::plan::Assignment;
use sync_core::domain::{Answer, ClockReading, DeviceId, Fact, FactKind, Plan, TechnicianId, Timestamp};

pub const SERVER: ActorKey = ActorKey([0x50; 16]);
pub const PHONE: ActorKey = ActorKey([0x01; 16]);
pub const NEW_PHONE: ActorKey = ActorKey([0x02; 16]);
pub const THIRD_PHONE: ActorKey = ActorKey([0x03; 16]);

pub struct Scene {
    pub technician: TechnicianId,
    pub device: DeviceId,
    /// The server's copy.
    pub server: VisitDoc,
    /// Valid changes, each on top of `server`.
    pub changes: Vec<Vec<u8>>,
}

pub fn now() -> Timestamp {
    Timestamp::from_millis(1_770_105_600_000)
}

impl Scene {
    pub fn author(&self) -> Author<'_> {
        Author { technician: &self.technician, device: &self.device }
    }

    pub fn fact(&self, id: &str, seq: u64, kind: FactKind) -> Edit {
        Edit::Fact {
            fact: Fact {
                schema: 1,
                id: id.parse().unwrap(),
                epoch: 1,
                technician: self.technician.clone(),
                device: self.device.clone(),
                seq,
                clock: ClockReading {
                    wall: now(),
                    monotonic_ms: seq,
                    boot: "boot-1".parse().unwrap(),
                    offset_ms: None,
                    uncertainty_ms: None,
                },
                position: None,
                kind,
            },
        }
    }

    pub fn new() -> Self {
        let technician: TechnicianId = "TECH-1".parse().unwrap();
        let plan = Plan {
            revision: 1,
            title: "Boiler loses pressure".into(),
            assignment: Some(Assignment {
                epoch: 1,
                lead: technician.clone(),
                crew: vec![],
                continues: vec![],
                offered_at: now(),
                offered_by: "office-1".parse().unwrap(),
            }),
            epoch: 1,
            ..Plan::default()
        };
        let (server, _) = VisitDoc::genesis(SERVER, &plan, now());
        let mut scene = Self { technician, device: "phone-1".parse().unwrap(), server, changes: Vec::new() };
        let note = |at, delete, insert: &str| Edit::Note { at, delete, insert: insert.into() };
        let answer = |value: &str| Edit::Answer {
            item: "item-1".parse().unwrap(),
            answer: Answer { value: value.into(), by: "TECH-1".parse().unwrap(), at: now() },
        };
        for edit in [
            note(0, 0, "Pump worn"),
            scene.fact("fact-1", 1, FactKind::Arrived),
            answer("yes"),
            Edit::Summary { text: "Pump".into() },
            note(2, 1, ""),
        ] {
            let change = scene.server.clone().edit(PHONE, &edit, now()).unwrap();
            scene
                .server
                .admit(&Author { technician: &scene.technician, device: &scene.device }, &change.bytes)
                .unwrap();
        }
        let plan = Plan { revision: 2, title: "Boiler is cold".into(), ..scene.server.plan() };
        scene.server.decide(SERVER, &plan, &BTreeMap::new(), now()).unwrap();
        let edits = [
            note(4, 2, "ü🙂"),
            note(0, 0, "x"),
            note(3, 1, ""),
            scene.fact("fact-2", 2, FactKind::Completed),
            answer("no"),
            Edit::Summary { text: "Done".into() },
        ];
        for actor in [PHONE, NEW_PHONE] {
            scene.changes.extend(edits.iter().map(|edit| scene.server.clone().edit(actor, edit, now()).unwrap().bytes));
        }
        scene
    }
}

/// A change chunk around `body`, with a right checksum.
pub fn chunk(body: &[u8]) -> Vec<u8> {
    let mut hashed = vec![1];
    let mut length = body.len();
    while length >= 0x80 {
        hashed.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    hashed.push(length as u8);
    hashed.extend(body);
    [&[0x85, 0x6f, 0x4a, 0x83][..], &Sha256::digest(&hashed)[..4], &hashed].concat()
}

/// The body of a chunk.
pub fn body(chunk: &[u8]) -> &[u8] {
    let length = chunk[9..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    &chunk[9 + length..]
}
