//! What everybody on the demo's day shares.

use super::board::Board;
use super::script::Script;
use crate::city::City;
use crate::clock::DayClock;
use crate::ledger::Ledger;
use crate::office::Office;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use sync_core::domain::{DispatchId, ServiceOrderId, Timestamp};

/// Takes one line of output.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Shared by technicians, incidents, office and progress line.
#[derive(Clone)]
pub struct World {
    /// Simulated time.
    pub clock: DayClock,
    /// The day's input.
    pub city: Arc<City>,
    /// What goes wrong.
    pub script: Arc<Script>,
    /// What everybody can see.
    pub board: Board,
    /// What was done.
    pub ledger: Ledger,
    /// The back office.
    pub office: Office,
    /// Order -> dispatch, known once the orders are in.
    pub dispatches: Arc<BTreeMap<ServiceOrderId, DispatchId>>,
    /// When everybody goes home.
    pub day_end: Timestamp,
    notes: Arc<Mutex<Vec<Note>>>,
}

/// Something that the final report mentions beside the facts' rulings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The conflict rule that decided; 0 where none did.
    pub rule: u8,
    /// On which dispatch.
    pub dispatch: String,
    /// What was observed.
    pub outcome: String,
}

impl World {
    /// A world before anybody has done anything.
    #[must_use]
    pub fn new(
        clock: DayClock,
        city: Arc<City>,
        script: Script,
        office: Office,
        dispatches: BTreeMap<ServiceOrderId, DispatchId>,
        day_end: Timestamp,
    ) -> Self {
        Self {
            clock,
            city,
            script: Arc::new(script),
            board: Board::default(),
            ledger: Ledger::default(),
            office,
            dispatches: Arc::new(dispatches),
            day_end,
            notes: Arc::default(),
        }
    }

    /// Writes an observation down.
    pub fn observe(&self, rule: u8, dispatch: impl ToString, outcome: impl Into<String>) {
        let note = Note { rule, dispatch: dispatch.to_string(), outcome: outcome.into() };
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Everything observed.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
