//! What everybody on the demo's day shares.

use super::board::Board;
use super::script::Script;
use crate::city::City;
use crate::clock::DayClock;
use crate::latency::Latency;
use crate::ledger::Ledger;
use crate::office::{Office, OfficeError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sync_core::domain::{DispatchId, ServiceOrderId, TechnicianId, Timestamp};

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
    timings: Arc<Mutex<Timings>>,
}

#[derive(Debug, Default)]
struct Timings {
    on_the_way: BTreeMap<(TechnicianId, DispatchId), Instant>,
    assign_to_phone: Latency,
    replay: Latency,
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
            timings: Arc::default(),
        }
    }

    /// Writes an observation down.
    pub fn observe(&self, rule: u8, dispatch: impl ToString, outcome: impl Into<String>) {
        let note = Note { rule, dispatch: dispatch.to_string(), outcome: outcome.into() };
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    fn timings(&self) -> MutexGuard<'_, Timings> {
        self.timings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Assigns a visit. The way to each phone that has a network is timed.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn assign(
        &self,
        dispatch: &DispatchId,
        lead: &TechnicianId,
        crew: &[TechnicianId],
    ) -> Result<(), OfficeError> {
        for technician in std::iter::once(lead).chain(crew) {
            if !self.board.is_offline(technician) {
                self.timings().on_the_way.insert((technician.clone(), dispatch.clone()), Instant::now());
            }
        }
        self.office.assign(dispatch, lead, crew).await
    }

    /// The visit is durable on the technician's phone.
    pub fn arrived_on_phone(&self, technician: &TechnicianId, dispatch: &DispatchId) {
        let mut timings = self.timings();
        if let Some(since) = timings.on_the_way.remove(&(technician.clone(), dispatch.clone())) {
            timings.assign_to_phone.record(since.elapsed());
        }
    }

    /// A phone's offline work was acknowledged, this long after its network came back.
    pub fn replayed(&self, taken: Duration) {
        self.timings().replay.record(taken);
    }

    /// Assignment to phone, and offline replay.
    #[must_use]
    pub fn latencies(&self) -> (Latency, Latency) {
        let timings = self.timings();
        (timings.assign_to_phone.clone(), timings.replay.clone())
    }

    /// Everything observed.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
