//! Applying what the server sends.

use super::{Store, StoreError};
use crate::domain::{DispatchId, Timestamp};
use crate::protocol::{Cursor, Digest, FeedItem};

/// A decoded [`crate::protocol::Batch`].
#[derive(Debug, Clone, PartialEq)]
pub struct FeedBatch {
    /// Exclusive.
    pub from: Cursor,
    /// Inclusive.
    pub to: Cursor,
    /// Part of everything that the phone should hold.
    pub reset: bool,
    /// Another batch of the same answer follows.
    pub more: bool,
    /// At `to`, when `to` was the feed's end.
    pub digest: Option<Digest>,
    /// The news.
    pub items: Vec<FeedItem>,
}

/// What a batch changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The cursor afterwards: durable, to be acknowledged.
    pub cursor: Cursor,
    /// Whether the digest is the server's, where it told one that can be compared.
    pub digest_matches: Option<bool>,
    /// Visits that came, changed or left.
    pub changed: Vec<DispatchId>,
    /// Visits to be fetched whole, earlier ones included.
    pub needs_fetch: Vec<DispatchId>,
    /// The batch starts beyond the cursor: nothing was applied, pull.
    pub cursor_gap: bool,
    /// Unsent changes were re-made or freed: push.
    pub outbox_changed: bool,
    /// Visits that were not stored because the phone holds as many as it may.
    pub over_limit: u32,
}

impl Store {
    /// Stores a batch, in one transaction.
    ///
    /// # Errors
    /// The database's; nothing was applied then, and the cursor is where it was.
    pub fn apply_batch(
        &self,
        batch: FeedBatch,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
    ) -> Result<Applied, StoreError> {
        let _ = (batch, now, rng);
        unimplemented!()
    }

    /// Marks visits to be fetched whole, as after a digest mismatch.
    ///
    /// # Errors
    /// The database's.
    pub fn mark_for_fetch(&self, dispatches: &[DispatchId]) -> Result<(), StoreError> {
        let _ = dispatches;
        unimplemented!()
    }
}
