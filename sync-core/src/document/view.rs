//! Reading: the document as plain values.

use super::cbor::from_cbor;
use super::schema::{Objects, Region, SUMMARY, read_plan};
use super::{StateTag, VisitDoc};
use crate::domain::{
    Answer, ChecklistItemId, ClockReading, DeviceId, Fact, FactId, FactKind, Plan, Position, Report, Ruling,
    TechnicianId, VisitView,
};
use automerge::legacy::Key;
use automerge::{Change, ObjId, ReadDoc, ScalarValueRef, Value, ValueRef};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

impl VisitDoc {
    /// Names the exact content.
    #[must_use]
    pub fn tag(&self) -> StateTag {
        let mut hash = Sha256::new();
        // Automerge answers its heads sorted.
        for head in self.doc.get_heads() {
            hash.update(head.0);
        }
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        StateTag(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The plan alone.
    #[must_use]
    pub fn plan(&self) -> Plan {
        read_plan(&self.doc, &self.objects)
    }

    /// What the fold reads. What cannot be read (see [`Self::unreadable`]) is left out and stays in the document.
    #[must_use]
    pub fn view(&self) -> VisitView {
        VisitView {
            plan: self.plan(),
            facts: self.entries(&self.objects.facts, read_fact).flatten().map(|fact| (fact.id.clone(), fact)).collect(),
            rulings: self.entries(&self.objects.rulings, read_ruling).flatten().collect(),
        }
    }

    /// Reads what changes have touched.
    pub(super) fn refresh(&self, view: &mut VisitView, touched: Touched) {
        if touched.plan {
            view.plan = self.plan();
        }
        for key in touched.facts {
            match self.entry(&self.objects.facts, &key, read_fact) {
                Some(fact) => drop(view.facts.insert(fact.id.clone(), fact)),
                None => view.facts.retain(|id, _| id.as_str() != key),
            }
        }
        for key in touched.rulings {
            match self.entry(&self.objects.rulings, &key, read_ruling) {
                Some((fact, ruling)) => drop(view.rulings.insert(fact, ruling)),
                None => view.rulings.retain(|id, _| id.as_str() != key),
            }
        }
    }

    fn entry<T>(&self, map: &ObjId, key: &str, read: impl Fn(&str, &[u8]) -> Option<T>) -> Option<T> {
        let (value, _) = self.doc.get(map, key).ok()??;
        read(key, value.as_bytes()?)
    }

    /// How many facts and rulings are of a release so much newer that not even their common fields can be read.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.entries(&self.objects.facts, read_fact).filter(Option::is_none).count()
            + self.entries(&self.objects.rulings, read_ruling).filter(Option::is_none).count()
    }

    /// The shared report.
    #[must_use]
    pub fn report(&self) -> Report {
        let summary = match self.doc.get(&self.objects.report, SUMMARY) {
            Ok(Some((Value::Scalar(scalar), _))) => scalar.as_str().map(str::to_owned),
            _ => None,
        };
        let items: Vec<String> = self.doc.keys(&self.objects.checklist).collect();
        Report {
            notes: self.doc.text(&self.objects.notes).unwrap_or_default(),
            summary,
            answers: items.into_iter().filter_map(|item| self.answers(item)).collect(),
        }
    }

    /// An item's answers, sorted, so that every copy of the document shows concurrent ones in the same order.
    fn answers(&self, item: String) -> Option<(ChecklistItemId, Vec<Answer>)> {
        let values = self.doc.get_all(&self.objects.checklist, item.as_str()).ok()?;
        let mut answers: Vec<Answer> =
            values.iter().filter_map(|(value, _)| value.as_bytes().and_then(from_cbor)).collect();
        answers.sort();
        (!answers.is_empty()).then_some(())?;
        Some((ChecklistItemId::new(item).ok()?, answers))
    }

    fn entries<'a, T: 'a>(
        &'a self,
        map: &'a ObjId,
        read: impl Fn(&str, &[u8]) -> Option<T> + 'a,
    ) -> impl Iterator<Item = Option<T>> + 'a {
        self.doc.map_range(map, ..).map(move |item| match &item.value {
            ValueRef::Scalar(ScalarValueRef::Bytes(bytes)) => read(&item.key, bytes),
            _ => None,
        })
    }
}

/// The parts of a view that changes may have made another.
#[derive(Debug, Default)]
pub(super) struct Touched {
    plan: bool,
    facts: BTreeSet<String>,
    rulings: BTreeSet<String>,
}

impl Touched {
    pub(super) fn note(&mut self, (objects, change): (&Objects, &Change)) {
        for op in change.decode().operations {
            match (objects.region(&op.obj), op.key) {
                (Region::Plan, _) => self.plan = true,
                (Region::Facts, Key::Map(key)) => drop(self.facts.insert(key.to_string())),
                (Region::Rulings, Key::Map(key)) => drop(self.rulings.insert(key.to_string())),
                _ => {}
            }
        }
    }
}

/// What every fact has had since the first release, whatever its kind carries.
#[derive(Deserialize)]
struct CommonFact {
    #[serde(rename = "v")]
    schema: u16,
    id: FactId,
    epoch: u64,
    technician: TechnicianId,
    device: DeviceId,
    seq: u64,
    clock: ClockReading,
    #[serde(default)]
    position: Option<Position>,
}

/// A stored fact. A kind whose content this release cannot read becomes [`FactKind::Unknown`].
pub(super) fn read_fact(key: &str, bytes: &[u8]) -> Option<Fact> {
    from_cbor(bytes).or_else(|| from_cbor(bytes).map(unknown_kind)).filter(|fact: &Fact| fact.id.as_str() == key)
}

fn unknown_kind(common: CommonFact) -> Fact {
    let CommonFact { schema, id, epoch, technician, device, seq, clock, position } = common;
    Fact { schema, id, epoch, technician, device, seq, clock, position, kind: FactKind::Unknown }
}

fn read_ruling(key: &str, bytes: &[u8]) -> Option<(FactId, Ruling)> {
    Some((FactId::new(key).ok()?, from_cbor(bytes)?))
}

/// Present values of a map, for comparing.
pub(super) fn present(doc: &automerge::Automerge, map: &ObjId) -> BTreeMap<String, automerge::ScalarValue> {
    doc.map_range(map, ..)
        .filter_map(|item| match item.value {
            ValueRef::Scalar(scalar) => Some((item.key.into_owned(), scalar.into())),
            ValueRef::Object(_) => None,
        })
        .collect()
}
