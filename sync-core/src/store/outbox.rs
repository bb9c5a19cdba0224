//! What the office does not know yet.

use super::{Store, StoreError};
use crate::document::Edit;
use crate::domain::{DispatchId, Timestamp};
use crate::protocol::{OutboxMark, PushLane, limits};

/// Bounds of one push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Most changes.
    pub changes: usize,
    /// Most change bytes; one change larger than this still makes a page.
    pub bytes: usize,
    /// Most lanes.
    pub lanes: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { changes: limits::PUSH_CHANGES_MAX, bytes: limits::PUSH_BYTES_MAX, lanes: limits::PUSH_LANES_MAX }
    }
}

/// What to push next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboxPage {
    /// The lanes, those that were never refused first. Empty when nothing can be sent now.
    pub lanes: Vec<SentLane>,
    /// There is more to send than fits.
    pub more: bool,
    /// What is unsent, the page included.
    pub mark: OutboxMark,
}

/// A lane of a push, with what the acknowledgement needs to find its changes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentLane {
    /// For the wire.
    pub lane: PushLane,
    /// The outbox's row of each change.
    pub rows: Vec<i64>,
}

/// A change that was refused, with its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedItem {
    /// Which visit.
    pub dispatch: DispatchId,
    /// What the technician had done.
    pub edit: Edit,
    /// When, the phone's wall time.
    pub made_at: Timestamp,
    /// The server's stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Store {
    /// The next push: queued changes in order, without the lanes that are parked or wait for the server's copy.
    ///
    /// # Errors
    /// The database's.
    pub fn outbox_page(&self, limits: &PageLimits) -> Result<OutboxPage, StoreError> {
        let _ = limits;
        unimplemented!()
    }

    /// What is unsent, as announced to the server.
    ///
    /// # Errors
    /// The database's.
    pub fn outbox_mark(&self) -> Result<OutboxMark, StoreError> {
        unimplemented!()
    }

    /// Everything that was refused and waits for a person, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub fn parked(&self) -> Result<Vec<ParkedItem>, StoreError> {
        unimplemented!()
    }

    /// Queues a visit's parked changes again. Answers how many.
    ///
    /// # Errors
    /// The database's.
    pub fn retry_parked(&self, dispatch: &DispatchId, rng: &mut dyn rand::Rng) -> Result<u32, StoreError> {
        let _ = (dispatch, rng);
        unimplemented!()
    }
}
