//! The technician acts: the hot path, durable before it returns.

use super::phone::random_hex;
use super::{ActError, Store, StoreError, Tx};
use crate::document::{Edit, Refusal};
use crate::domain::fact::FACT_SCHEMA;
use crate::domain::rules::legal::{IllegalAct, legal_next};
use crate::domain::{
    Answer, BootId, ChecklistItemId, DispatchId, Fact, FactId, FactKind, Position, Timestamp, VisitCard,
};
use crate::protocol::limits::DOCUMENT_BYTES_MAX;

/// What the phone's clocks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNow {
    /// Wall time; may be wrong.
    pub wall: Timestamp,
    /// Milliseconds since `boot`.
    pub monotonic_ms: u64,
    /// The boot that `monotonic_ms` counts from.
    pub boot: BootId,
}

/// What a technician does to a visit, before the store adds ids, sequence numbers and clocks.
#[derive(Debug, Clone, PartialEq)]
pub enum NewEdit {
    /// States a fact.
    Fact(FactKind),
    /// Replaces `delete` characters of the notes at `at` by `insert`.
    Note {
        /// Position in characters.
        at: usize,
        /// How many to delete.
        delete: usize,
        /// What to insert.
        insert: String,
    },
    /// Answers a checklist item.
    Answer {
        /// Which item.
        item: ChecklistItemId,
        /// The answer as entered.
        value: String,
    },
    /// Sets the summary.
    Summary(String),
}

/// A stored action.
#[derive(Debug, Clone, PartialEq)]
pub struct Acted {
    /// The fact's id, when it was a fact.
    pub fact: Option<FactId>,
    /// The fact's sequence number, when it was a fact.
    pub seq: Option<u64>,
    /// The visit afterwards.
    pub card: VisitCard,
    /// Unacknowledged changes on this phone, this one included.
    pub pending: u32,
}

impl Store {
    /// Takes an action. It is on disk when this returns.
    ///
    /// # Errors
    /// [`ActError`]; nothing was stored.
    pub fn act(
        &self,
        dispatch: &DispatchId,
        edit: NewEdit,
        now: &DeviceNow,
        position: Option<Position>,
        rng: &mut dyn rand::Rng,
    ) -> Result<Acted, ActError> {
        let result = self.write(|tx| act(tx, dispatch, edit, now, position, rng));
        if let Err(ActError::Store(StoreError::VisitDamaged(_))) = &result {
            self.write(|tx| tx.quarantine_visit(dispatch))?;
        }
        result
    }
}

fn act(
    tx: &mut Tx<'_>,
    dispatch: &DispatchId,
    edit: NewEdit,
    now: &DeviceNow,
    position: Option<Position>,
    rng: &mut dyn rand::Rng,
) -> Result<Acted, ActError> {
    let (_, technician) = tx.phone.user.clone().ok_or(ActError::NoUser)?;
    let mut open = tx.open_visit(dispatch).map_err(|error| match error {
        StoreError::NotFound(dispatch) => ActError::NotFound(dispatch),
        other => ActError::Store(other),
    })?;
    if !open.head.held {
        return Err(ActError::NotFound(dispatch.clone()));
    }
    let edit = match edit {
        NewEdit::Fact(kind) => {
            let state = open.state();
            let illegal = |why| ActError::Illegal { action: kind.name(), status: state.status, why };
            legal_next(&open.view.plan, &state, &technician, &kind).map_err(illegal)?;
            let epoch = open.view.plan.epoch_for(&technician).ok_or_else(|| illegal(IllegalAct::NotAssigned))?;
            tx.phone.last_seq += 1;
            Edit::Fact {
                fact: Fact {
                    schema: FACT_SCHEMA,
                    id: random_fact_id(rng)?,
                    epoch,
                    technician,
                    device: tx.phone.device.clone(),
                    seq: tx.phone.last_seq,
                    clock: tx.phone.read_clock(now),
                    position,
                    kind,
                },
            }
        }
        NewEdit::Note { at, delete, insert } => Edit::Note { at, delete, insert },
        NewEdit::Answer { item, value } => {
            Edit::Answer { item, answer: Answer { value, by: technician, at: now.wall } }
        }
        NewEdit::Summary(text) => Edit::Summary { text },
    };
    let change = open.doc.edit(tx.phone.actor, &edit, now.wall)?;
    open.append(&change.bytes);
    if open.len() > DOCUMENT_BYTES_MAX {
        return Err(Refusal::TooLarge { what: "document bytes", limit: DOCUMENT_BYTES_MAX, actual: open.len() }.into());
    }
    let (fact, seq) = match &edit {
        Edit::Fact { fact } => {
            open.view.facts.insert(fact.id.clone(), fact.clone());
            (Some(fact.id.clone()), Some(fact.seq))
        }
        _ => (None, None),
    };
    let card = open.card(dispatch);
    tx.store_edited(dispatch, &mut open, &card)?;
    tx.open.keep(dispatch, open);
    tx.enqueue(dispatch, &edit, &change, now.wall)?;
    Ok(Acted { fact, seq, card, pending: tx.pending })
}

fn random_fact_id(rng: &mut dyn rand::Rng) -> Result<FactId, StoreError> {
    FactId::new(format!("fact-{}", random_hex(rng))).map_err(|e| StoreError::Database(e.to_string()))
}
