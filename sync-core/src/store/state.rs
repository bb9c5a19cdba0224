//! What a session needs to know, and to have remembered.

use super::lanes::needs_fetch;
use super::outbox::mark;
use super::phone::{Farewell, MeasuredOffset};
use super::{DeviceNow, Protection, Store, StoreError, Tx};
use crate::document::ActorKey;
use crate::domain::time::DAY_MS;
use crate::domain::{DeviceId, DispatchId, TechnicianId, TenantId, Timestamp};
use crate::protocol::limits::ACKNOWLEDGED_KEPT_MS;
use crate::protocol::{Cursor, Digest, Generation, OutboxMark};
use rusqlite::Connection;

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
    /// A revoked device's wipe, of which the office has no proof yet.
    pub farewell: Option<Farewell>,
}

/// What the server's greeting meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityCheck {
    /// Another server database, or one that has gone back in time: the cursor is 0 now (invariant 11).
    pub changed: bool,
    /// Acknowledged changes that were queued again.
    pub requeued: u32,
    /// Visits that this database knows nothing of, and that have left the phone.
    pub gone: Vec<DispatchId>,
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

/// How much lies in the store, for diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// Visits held.
    pub visits: u64,
    /// Acknowledged changes that are kept for a while.
    pub receipts: u64,
    /// Unacknowledged changes of technicians who are not signed in.
    pub sealed: u64,
    /// Cards of visits that left.
    pub tombstones: u64,
    /// Rows kept aside because their checksum is wrong.
    pub quarantined: u64,
    /// Length of the database file.
    pub database_bytes: u64,
    /// Length of its write-ahead log.
    pub log_bytes: u64,
    /// Encrypted at rest.
    pub encrypted: bool,
}

impl Store {
    /// How much lies in the store.
    ///
    /// # Errors
    /// The database's.
    pub fn counts(&self) -> Result<StoreCounts, StoreError> {
        let (database_bytes, log_bytes) = self.file_lengths();
        self.read(|conn| {
            let count = |what: &str| {
                conn.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0))
                    .map(i64::unsigned_abs)
            };
            Ok(StoreCounts {
                visits: count("visits WHERE held = 1")?,
                receipts: count("outbox WHERE state = 'acknowledged'")?,
                sealed: count("sealed_outbox WHERE state <> 'acknowledged'")?,
                tombstones: count("tombstones")?,
                quarantined: count("damaged")?,
                database_bytes,
                log_bytes,
                encrypted: self.protection() != Protection::Unencrypted,
            })
        })
    }

    /// Where this phone stands.
    ///
    /// # Errors
    /// The database's.
    pub fn sync_state(&self) -> Result<SyncState, StoreError> {
        let (phone, pending) = self.with_writer(|writer| Ok((writer.phone.clone(), writer.pending)))?;
        self.read(|conn| {
            let (outbox, parked) = if pending == 0 {
                (OutboxMark { high_water: phone.last_seq, pending, oldest: None }, 0)
            } else {
                let parked: i64 = conn
                    .prepare_cached("SELECT count(*) FROM outbox WHERE state <> 'acknowledged' AND state = 'parked'")?
                    .query_row([], |row| row.get(0))?;
                (mark(conn)?, u32::try_from(parked).unwrap_or(u32::MAX))
            };
            Ok(SyncState {
                outbox,
                parked,
                needs_fetch: needs_fetch(conn)?,
                device: phone.device,
                actor: phone.actor,
                app: self.app.clone(),
                user: phone.user,
                generation: phone.generation,
                cursor: phone.cursor,
                digest: phone.digest,
                last_sync: phone.last_sync,
                farewell: phone.farewell,
            })
        })
    }

    /// Compares the greeting with what is known; to be called on every `Welcome`, before anything is applied.
    ///
    /// A server that went back in time may lack what this phone's changes build on. So everything is fetched anew, what the
    /// server is known to have had is queued again, and each lane waits for the server's copy: what is in there is
    /// acknowledged, the rest is made again on it.
    ///
    /// # Errors
    /// The database's.
    pub fn server_identity(
        &self,
        generation: Generation,
        head: Cursor,
        now: Timestamp,
    ) -> Result<IdentityCheck, StoreError> {
        self.write(|tx| {
            let mut check = IdentityCheck::default();
            // A full answer of the former connection will not be finished.
            tx.phone.run_open = false;
            check.changed = tx.phone.generation.is_some_and(|known| known != generation) || head < tx.phone.cursor;
            if check.changed {
                check.requeued = tx.requeue_receipts(None)?;
                tx.rebase_lanes_if_copied()?;
                tx.phone.start_over();
            }
            tx.phone.generation = Some(generation);
            if head == Cursor(0) {
                // There is nothing to fetch, and no answer will come that names nothing.
                check.gone = tx.nothing_is_held(now)?;
                tx.phone.resync = false;
                tx.free_waiting_lanes()?;
            }
            check.cursor = tx.phone.cursor;
            Ok(check)
        })
    }

    /// Remembers a measured clock offset: `offset_ms` is server minus phone, `uncertainty_ms` the half-width around it.
    ///
    /// # Errors
    /// The database's.
    pub fn set_clock_offset(&self, offset_ms: i64, uncertainty_ms: u32, now: &DeviceNow) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.phone.clock = Some(MeasuredOffset {
                offset_ms,
                uncertainty_ms,
                wall: now.wall,
                monotonic_ms: now.monotonic_ms,
                boot: now.boot.clone(),
            });
            Ok(())
        })
    }

    /// The phone has everything, as of `now`. The first time on a day it also removes what is past its time, as
    /// [`Self::prune`] does: the clock has just been measured then.
    ///
    /// # Errors
    /// The database's.
    pub fn note_synced(&self, now: Timestamp) -> Result<Pruned, StoreError> {
        self.write(|tx| {
            let day = |at: Timestamp| at.millis().div_euclid(DAY_MS);
            let before = tx.phone.last_sync.replace(now);
            if before.is_some_and(|before| day(before) == day(now)) { Ok(Pruned::default()) } else { tx.prune(now) }
        })
    }

    /// Removes acknowledged changes and tombstones past their time, by the office's clock as far as it is known.
    ///
    /// # Errors
    /// The database's.
    pub fn prune(&self, now: Timestamp) -> Result<Pruned, StoreError> {
        self.write(|tx| tx.prune(now))
    }

    /// Moves the write-ahead log into the database file, as when the app goes to the background.
    ///
    /// # Errors
    /// The database's.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.with_writer(|writer| Ok(checkpoint(&writer.conn)?))
    }
}

impl Tx<'_> {
    fn prune(&mut self, now: Timestamp) -> Result<Pruned, StoreError> {
        let now = self.phone.office_time(now);
        let receipts = self.sql.execute(
            "DELETE FROM outbox WHERE state = 'acknowledged' AND acknowledged_at_ms < ?1",
            [now.plus_millis(-ACKNOWLEDGED_KEPT_MS).millis()],
        )?;
        Ok(Pruned { receipts: u32::try_from(receipts).unwrap_or(u32::MAX), tombstones: self.prune_tombstones(now)? })
    }
}

/// As much as readers let it; the rest is done later.
pub(super) fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
