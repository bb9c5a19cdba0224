//! The phone's store: one SQLite file that holds what the technician may see and what the office does not know yet.
//!
//! **Invariants:**
//! - An action is durable before [`Store::act`] returns (`synchronous=FULL`), and nothing unacknowledged is ever deleted:
//!   another user's work is sealed, a refused change is parked, a row whose checksum is wrong is kept aside, a file that
//!   cannot be used is renamed. Each is reported.
//! - Writes happen inside a transaction only: the writing connection is reached through one function, and the reading
//!   one cannot write.
//! - One engine a file: a second [`Store::open`], in this process or another, is [`StoreError::AlreadyOpen`].
//! - A list opens no document. A snapshot from the server is stored without being opened. A document is opened while
//!   somebody edits it or looks into it, and a handful are kept open.
//! - Nothing here reads a clock or draws randomness; both are arguments.
//!
//! - With a key, the database, its log and what is set aside are encrypted; temporary tables stay in memory.
//!
//! Rooms, in reading order: `open` (set-aside, identity), `files` (lock, lengths), `inspect` (is a file fit for use), `connect`, `key`
//! (encryption at rest), `schema`, `phone` (the one row about this install),
//! `rows` (a visit's row and its opened document), `visits` (lists and details), `act` (local edits), `outbox`, `lanes` and
//! `ack` (what is unsent), `feed` (what the server sends), `rebase` (re-making edits on the server's copy), `tombstones`, `user`
//! (who is logged in), `damage`, `checksum`, `error`, `transaction`.

mod ack;
mod act;
mod checksum;
mod connect;
mod damage;
mod error;
mod feed;
mod files;
mod inspect;
mod key;
mod lanes;
mod open;
mod outbox;
mod phone;
mod rebase;
mod rows;
mod schema;
mod state;
mod tombstones;
mod transaction;
mod user;
mod visits;

pub use ack::AckApplied;
pub use act::{Acted, DeviceNow, NewEdit};
pub use error::{ActError, StoreError};
pub use feed::{Applied, FeedBatch};
pub use key::{DatabaseKey, Protection};
pub use open::{OpenOptions, OpenReport, Opened, SetAside, SetAsideReason};
pub use outbox::{OutboxPage, PageLimits, ParkedItem, SentLane};
pub use phone::Farewell;
pub use schema::VERSION as SCHEMA_VERSION;
pub use state::{IdentityCheck, Pruned, StoreCounts, SyncState};
pub use tombstones::TombstoneCard;
pub use user::{Bound, Wiped};
pub use visits::{PendingEdit, PendingState, VisitDetail, VisitQuery};

use error::DamageSign;
use files::FileLock;
use phone::Phone;
use rows::OpenVisits;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use transaction::Transaction;

/// Most visits that a phone holds; the server's window keeps far below it.
pub const VISITS_MAX: u32 = 20_000;

/// One phone's database, opened. Shared by reference; every method blocks on the disk, so keep it off an async thread.
#[derive(Debug)]
pub struct Store {
    /// `None` while closed.
    // Before the writer: the last connection to go moves the log into the database, and the lock must be held until then.
    reader: Mutex<Option<Connection>>,
    /// `None` while closed.
    writer: Mutex<Option<Writer>>,
    /// SQLite has called the file damaged: it is checked at the next opening, however it is closed.
    suspect: AtomicBool,
    /// The file was removed for good.
    destroyed: AtomicBool,
    path: PathBuf,
    app: String,
    protection: Mutex<Protection>,
}

/// The writing side.
#[derive(Debug)]
struct Writer {
    conn: Connection,
    /// The phone's row, as it is on disk.
    phone: Phone,
    /// Visits that were opened lately, as they are on disk.
    open: OpenVisits,
    /// Unacknowledged changes on disk.
    pending: u32,
    // Last, so that it is released after the connection is closed.
    lock: FileLock,
}

/// A write under way. What it changes in memory counts only if the transaction is committed.
struct Tx<'a> {
    sql: &'a Connection,
    phone: Phone,
    open: &'a mut OpenVisits,
    /// Unacknowledged changes; kept exact by who adds or removes some.
    pending: u32,
}

impl Store {
    /// The writing side, for as long as the guard lives; `None` in it while the store is closed.
    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(|poisoned: PoisonError<MutexGuard<'_, Option<Writer>>>| {
            // A panic in the middle of a write: the transaction was rolled back, the open visits may be ahead of it.
            let mut writer = poisoned.into_inner();
            writer.iter_mut().for_each(|writer| writer.open.clear());
            writer
        })
    }

    /// Uses the writing side outside of a transaction.
    fn with_writer<T>(&self, work: impl FnOnce(&mut Writer) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.writer().as_mut().ok_or(StoreError::Closed).and_then(work)
    }

    /// The only way to write: all of `work`, durable when this returns, or nothing.
    fn write<T, E: From<StoreError> + DamageSign>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut guard = self.writer();
        let Writer { conn, phone, open, pending, lock: _ } = guard.as_mut().ok_or(StoreError::Closed)?;
        let result = transact(conn, phone, open, pending, work);
        if let Err(error) = &result {
            open.clear();
            self.note_damage(error);
        }
        result
    }

    /// One consistent look at the database.
    fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = reader.as_mut().ok_or(StoreError::Closed)?;
        let result = Transaction::read(reader).map_err(StoreError::from).and_then(|tx| look(&tx));
        if let Err(error) = &result {
            self.note_damage(error);
        }
        result
    }

    fn note_damage(&self, error: &impl DamageSign) {
        if error.is_file_damage() {
            self.suspect.store(true, Ordering::Relaxed);
        }
    }
}

fn transact<T, E: From<StoreError>>(
    conn: &mut Connection,
    phone: &mut Phone,
    open: &mut OpenVisits,
    pending: &mut u32,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let sql = Transaction::write(conn).map_err(StoreError::from)?;
    let mut tx = Tx { sql: &sql, phone: phone.clone(), open, pending: *pending };
    let done = work(&mut tx)?;
    let Tx { phone: phone_after, pending: pending_after, .. } = tx;
    if phone_after != *phone {
        phone_after.save(&sql)?;
    }
    sql.commit().map_err(StoreError::from)?;
    *phone = phone_after;
    *pending = pending_after;
    Ok(done)
}
