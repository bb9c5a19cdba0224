//! The technician acts: the hot path, durable before it returns.

use super::{ActError, Store};
use crate::domain::{BootId, ChecklistItemId, DispatchId, FactId, FactKind, Position, Timestamp, VisitCard};

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
        let _ = (dispatch, edit, now, position, rng);
        unimplemented!()
    }
}
