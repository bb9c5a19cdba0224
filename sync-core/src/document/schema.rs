//! What lies where in the Automerge document, and how a plan becomes registers.

use super::{ActorKey, ChangeHash};
use crate::domain::Plan;
use automerge::legacy::ObjectId;
use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, ScalarValueRef};
use automerge::{Value, ValueRef};
use serde::Deserialize as _;
use std::collections::BTreeMap;

pub(super) const REVISION: &str = "revision";
pub(super) const SUMMARY: &str = "summary";

macro_rules! plan_fields {
    ($($field:ident),* $(,)?) => {
        /// The plan fields that this release writes, and so may delete when they are absent. A field of a newer release
        /// stays.
        pub(super) const PLAN_FIELDS: &[&str] = &[$(stringify!($field)),*];
        /// Does not compile when a field of the plan is missing from the list.
        const _: fn(Plan) = |plan| {
            let Plan { $($field: _),* } = plan;
        };
    };
}

plan_fields!(
    revision,
    service_order_id,
    title,
    instructions,
    priority,
    site,
    contact,
    required_skills,
    required_parts,
    scheduled,
    sla_deadline,
    arrival_window,
    confirmed_window,
    window_revision,
    proposed_window,
    assignment,
    epoch,
    former,
    cancellation,
    checklist,
    attributes,
    route_id,
);

/// The six objects of a visit document. The genesis change makes them, and there will never be others.
///
/// **Architecture invariant:** every change but the genesis descends from the genesis (an admitted change has
/// dependencies, and all are here). So each of the six exists at every change's dependencies, however old those are,
/// and comparing an operation's object with the six *is* resolving it there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Objects {
    pub(super) plan: ObjId,
    pub(super) facts: ObjId,
    pub(super) rulings: ObjId,
    pub(super) report: ObjId,
    pub(super) notes: ObjId,
    pub(super) checklist: ObjId,
}

/// A part of the document, as an operation names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    Root,
    Plan,
    Facts,
    Rulings,
    Report,
    Notes,
    Checklist,
    /// An object that the genesis did not make.
    Elsewhere,
}

impl Region {
    /// As a refusal names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Plan => "plan",
            Self::Facts => "facts",
            Self::Rulings => "rulings",
            Self::Report => "report",
            Self::Notes => "report.notes",
            Self::Checklist => "report.checklist",
            Self::Elsewhere => "an unknown object",
        }
    }
}

impl Objects {
    /// Makes them.
    pub(super) fn make(tx: &mut impl Transactable) -> Result<Self, AutomergeError> {
        let plan = tx.put_object(ROOT, "plan", ObjType::Map)?;
        let facts = tx.put_object(ROOT, "facts", ObjType::Map)?;
        let rulings = tx.put_object(ROOT, "rulings", ObjType::Map)?;
        let report = tx.put_object(ROOT, "report", ObjType::Map)?;
        let notes = tx.put_object(&report, "notes", ObjType::Text)?;
        let checklist = tx.put_object(&report, "checklist", ObjType::Map)?;
        Ok(Self { plan, facts, rulings, report, notes, checklist })
    }

    /// Finds them; `None` when one is missing.
    pub(super) fn find(doc: &Automerge) -> Option<Self> {
        let report = object(doc, &ROOT, "report", ObjType::Map)?;
        Some(Self {
            plan: object(doc, &ROOT, "plan", ObjType::Map)?,
            facts: object(doc, &ROOT, "facts", ObjType::Map)?,
            rulings: object(doc, &ROOT, "rulings", ObjType::Map)?,
            notes: object(doc, &report, "notes", ObjType::Text)?,
            checklist: object(doc, &report, "checklist", ObjType::Map)?,
            report,
        })
    }

    /// Which part an operation's object is. Compares ids; nothing that came from outside is ever looked up by text.
    pub(super) fn region(&self, object: &ObjectId) -> Region {
        let ObjectId::Id(id) = object else { return Region::Root };
        let is = |known: &ObjId| matches!(known, ObjId::Id(counter, actor, _) if *counter == id.0 && *actor == id.1);
        [
            (&self.plan, Region::Plan),
            (&self.facts, Region::Facts),
            (&self.rulings, Region::Rulings),
            (&self.report, Region::Report),
            (&self.notes, Region::Notes),
            (&self.checklist, Region::Checklist),
        ]
        .into_iter()
        .find_map(|(known, region)| is(known).then_some(region))
        .unwrap_or(Region::Elsewhere)
    }

    /// The actor of the genesis.
    pub(super) fn genesis_actor(&self) -> Option<&ActorId> {
        match &self.plan {
            ObjId::Id(_, actor, _) => Some(actor),
            ObjId::Root => None,
        }
    }
}

fn object(doc: &Automerge, parent: &ObjId, key: &str, kind: ObjType) -> Option<ObjId> {
    match doc.get(parent, key) {
        Ok(Some((Value::Object(found), id))) if found == kind => Some(id),
        _ => None,
    }
}

/// A plan's fields as registers. What is nested is JSON text, so that a register can be compared and a person can read it.
pub(super) fn plan_registers(plan: &Plan) -> BTreeMap<String, ScalarValue> {
    // A plan is a struct with string keys all the way down: it always has a JSON form.
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(plan) else { return BTreeMap::new() };
    fields.into_iter().filter_map(|(key, value)| Some((key, register(value)?))).collect()
}

fn register(value: serde_json::Value) -> Option<ScalarValue> {
    use serde_json::Value as Json;
    match value {
        Json::Null => None,
        Json::Bool(flag) => Some(ScalarValue::Boolean(flag)),
        Json::String(text) => Some(ScalarValue::Str(text.into())),
        Json::Number(number) => number
            .as_u64()
            .map(ScalarValue::Uint)
            .or_else(|| number.as_i64().map(ScalarValue::Int))
            .or_else(|| number.as_f64().map(ScalarValue::F64)),
        nested @ (Json::Array(_) | Json::Object(_)) => serde_json::to_vec(&nested).ok().map(ScalarValue::Bytes),
    }
}

fn json(value: &ScalarValueRef<'_>) -> Option<serde_json::Value> {
    match value {
        ScalarValueRef::Boolean(flag) => Some((*flag).into()),
        ScalarValueRef::Str(text) => Some(text.as_ref().into()),
        ScalarValueRef::Uint(number) => Some((*number).into()),
        ScalarValueRef::Int(number) => Some((*number).into()),
        ScalarValueRef::F64(number) => Some((*number).into()),
        ScalarValueRef::Bytes(text) => serde_json::from_slice(text).ok(),
        ScalarValueRef::Null
        | ScalarValueRef::Counter(_)
        | ScalarValueRef::Timestamp(_)
        | ScalarValueRef::Unknown { .. } => None,
    }
}

/// The plan that the registers hold. Fields of a newer release are passed over, and so is a known field whose content is
/// of a newer release: the rest of the plan must still reach the technician.
pub(super) fn read_plan(doc: &Automerge, objects: &Objects) -> Plan {
    let fields: serde_json::Map<String, serde_json::Value> = doc
        .map_range(&objects.plan, ..)
        .filter_map(|item| match &item.value {
            ValueRef::Scalar(scalar) => Some((item.key.to_string(), json(scalar)?)),
            ValueRef::Object(_) => None,
        })
        .collect();
    Plan::deserialize(&fields).unwrap_or_else(|_| {
        let alone = |key: &String, value: &serde_json::Value| {
            let field: serde_json::Map<_, _> = [(key.clone(), value.clone())].into_iter().collect();
            Plan::deserialize(&field).is_ok()
        };
        let readable: serde_json::Map<_, _> = fields.into_iter().filter(|(key, value)| alone(key, value)).collect();
        Plan::deserialize(&readable).unwrap_or_default()
    })
}

impl From<automerge::ChangeHash> for ChangeHash {
    fn from(hash: automerge::ChangeHash) -> Self {
        Self(hash.0)
    }
}

impl From<&ChangeHash> for automerge::ChangeHash {
    fn from(hash: &ChangeHash) -> Self {
        Self(hash.0)
    }
}

pub(super) fn actor_id(actor: ActorKey) -> ActorId {
    ActorId::from(actor.0)
}

/// `None` when the actor has not 16 bytes, and so is not of this system.
pub(super) fn actor_key(actor: &ActorId) -> Option<ActorKey> {
    actor.to_bytes().try_into().ok().map(ActorKey)
}
