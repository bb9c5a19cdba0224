//! The server's answer to a push.

use super::{SentLane, Store, StoreError};
use crate::domain::{DispatchId, Timestamp};
use crate::protocol::{Cursor, FactVerdict, FeedRange, LaneAck};

/// What an acknowledgement changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckApplied {
    /// Changes that are durable on the server now.
    pub acknowledged: u32,
    /// Changes that were parked.
    pub parked: u32,
    /// Lanes that shall be sent again after a while.
    pub retry: Vec<DispatchId>,
    /// Lanes whose kept changes were queued again and can be sent at once.
    pub resend: Vec<DispatchId>,
    /// Visits whose list entry or content changed.
    pub changed: Vec<DispatchId>,
    /// Visits to be fetched whole.
    pub needs_fetch: Vec<DispatchId>,
    /// Verdicts for the technician.
    pub verdicts: Vec<(DispatchId, FactVerdict)>,
    /// The cursor afterwards.
    pub cursor: Cursor,
    /// The cursor moved on, so that the server wants a receipt.
    pub cursor_moved: bool,
    /// Whether the digest is the server's, where it told one that can be compared.
    pub digest_matches: Option<bool>,
}

impl Store {
    /// Stores the answer to a push, in one transaction.
    ///
    /// # Errors
    /// The database's; everything is still queued then, and is sent again.
    pub fn push_acknowledged(
        &self,
        sent: &[SentLane],
        lanes: &[LaneAck],
        feed: Option<&FeedRange>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
    ) -> Result<AckApplied, StoreError> {
        let _ = (sent, lanes, feed, now, rng);
        unimplemented!()
    }
}
