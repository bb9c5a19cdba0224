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
//! Rooms, in reading order: `open` (lock, set-aside, identity), `schema`, `phone` (the one row about this install),
//! `visits` (lists and details), `act` (local edits), `outbox` and `ack` (what is unsent), `feed` (what the server sends),
//! `rebase` (re-making refused edits), `tombstones`, `user` (who is logged in), `damage`, `checksum`, `error`.

mod ack;
mod act;
mod error;
mod feed;
mod open;
mod outbox;
mod state;
mod tombstones;
mod user;
mod visits;

pub use ack::AckApplied;
pub use act::{Acted, DeviceNow, NewEdit};
pub use error::{ActError, StoreError};
pub use feed::{Applied, FeedBatch};
pub use open::{OpenOptions, OpenReport, Opened, SetAside, SetAsideReason};
pub use outbox::{OutboxPage, PageLimits, ParkedItem, SentLane};
pub use state::{IdentityCheck, Pruned, SyncState};
pub use tombstones::TombstoneCard;
pub use user::{Bound, Wiped};
pub use visits::{PendingEdit, PendingState, VisitDetail, VisitQuery};

/// One phone's database, opened. Shared by reference; every method blocks on the disk, so keep it off an async thread.
#[derive(Debug)]
pub struct Store {
    _private: (),
}
