//! What a session needs to know, and to have remembered.

use super::{DeviceNow, Store, StoreError};
use crate::document::ActorKey;
use crate::domain::{DeviceId, DispatchId, TechnicianId, TenantId, Timestamp};
use crate::protocol::{Cursor, Digest, Generation, OutboxMark};

/// Where this phone stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncState {
    /// This install.
    pub device: DeviceId,
    /// Its Automerge actor.
    pub actor: ActorKey,
    /// App name and version, as given when opening.
    pub app: String,
    /// Who is logged in.
    pub user: Option<(TenantId, TechnicianId)>,
    /// The server database that `cursor` belongs to.
    pub generation: Option<Generation>,
    /// Up to here the feed is stored.
    pub cursor: Cursor,
    /// Of what the phone holds.
    pub digest: Digest,
    /// What is unsent.
    pub outbox: OutboxMark,
    /// Refused changes that wait for a person.
    pub parked: u32,
    /// Visits to be fetched whole.
    pub needs_fetch: Vec<DispatchId>,
    /// When the phone last knew that it has everything.
    pub last_sync: Option<Timestamp>,
}

/// What the server's greeting meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdentityCheck {
    /// Another server database, or one that has gone back in time: the cursor is 0 now (invariant 11).
    pub changed: bool,
    /// Acknowledged changes that were queued again.
    pub requeued: u32,
    /// The cursor afterwards.
    pub cursor: Cursor,
}

/// What pruning removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Acknowledged changes past their time.
    pub receipts: u32,
    /// Tombstones past their time.
    pub tombstones: u32,
}

impl Store {
    /// Where this phone stands.
    ///
    /// # Errors
    /// The database's.
    pub fn sync_state(&self) -> Result<SyncState, StoreError> {
        unimplemented!()
    }

    /// Compares the greeting with what is known; to be called on every `Welcome`, before anything is applied.
    ///
    /// # Errors
    /// The database's.
    pub fn server_identity(&self, generation: Generation, head: Cursor) -> Result<IdentityCheck, StoreError> {
        let _ = (generation, head);
        unimplemented!()
    }

    /// Remembers a measured clock offset: `offset_ms` is server minus phone, `uncertainty_ms` the half-width around it.
    ///
    /// # Errors
    /// The database's.
    pub fn set_clock_offset(&self, offset_ms: i64, uncertainty_ms: u32, now: &DeviceNow) -> Result<(), StoreError> {
        let _ = (offset_ms, uncertainty_ms, now);
        unimplemented!()
    }

    /// The phone has everything, as of `now`.
    ///
    /// # Errors
    /// The database's.
    pub fn note_synced(&self, now: Timestamp) -> Result<(), StoreError> {
        let _ = now;
        unimplemented!()
    }

    /// Removes acknowledged changes and tombstones past their time.
    ///
    /// # Errors
    /// The database's.
    pub fn prune(&self, now: Timestamp) -> Result<Pruned, StoreError> {
        let _ = now;
        unimplemented!()
    }

    /// Moves the write-ahead log into the database file, as when the app goes to the background.
    ///
    /// # Errors
    /// The database's.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
