//! What a decision becomes: a plain value that the store writes in one transaction, or not at all.
//!
//! **Architecture invariant:** nothing is published, acknowledged or fanned out before its commit is durable.

use crate::events::Event;
use crate::service::model::{AuditEntry, DispatchRow, ExceptionRow, Location, SlaRow, Technician};
use serde::{Deserialize, Serialize};
use sync_core::document::{ActorKey, ChangeHash, StateTag};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{
    DeviceId, DispatchId, EventId, FactId, Ruling, SerialNumber, TechnicianId, TenantId, Timestamp, Tombstone,
    VisitCard, Window,
};

/// One decision. All parts are written together.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Whose.
    pub tenant: TenantId,
    /// The server's time of the decision.
    pub at: Timestamp,
    /// It was decided on what the one before it in the same call leaves behind; where that one fails, this one is a
    /// [`CommitError::Conflict`]. Versions alone would not tell: another call may have brought a row to the very one expected here.
    pub follows: bool,
    /// The dispatch it is about, if it is about one.
    pub dispatch: Option<DispatchWrite>,
    /// Exceptions raised by this commit, or replaced by it (resolved), by their id. Of the dispatch above, or of one that is
    /// not here (a phone's work on a visit that a restore has lost).
    pub exceptions: Vec<ExceptionRow>,
    /// Technicians to insert or replace, each with the version it expects (`None`: must not exist).
    pub technicians: Vec<(Option<u64>, Technician)>,
    /// Locations to insert or replace, likewise.
    pub locations: Vec<(Option<u64>, Location)>,
    /// Device rows to insert or update.
    pub devices: Vec<DeviceWrite>,
    /// Outbox events, in order; published under the key `dispatchId`.
    pub events: Vec<Event>,
    /// Audit entries, in order; the store chains each to its aggregate's last one.
    pub audit: Vec<AuditEntry>,
    /// The consumed event that caused this, remembered for ever: a second one is [`CommitError::AlreadyDone`] (rule 18).
    pub consumed: Option<EventId>,
    /// The REST call that caused this: key and answer are remembered with the effect.
    pub idempotency: Option<IdempotencyRecord>,
    /// The W3C trace of that call, sent with the events.
    pub traceparent: Option<String>,
}

/// The dispatch's part of a commit.
#[derive(Debug, Clone, PartialEq)]
pub struct DispatchWrite {
    /// The row as it shall be; its `revision` is `expected + 1`, or 1.
    pub row: DispatchRow,
    /// The revision that was decided on; `None` inserts. Another one in the store is [`CommitError::Conflict`].
    pub expected: Option<u64>,
    /// The saved document afterwards.
    pub document: Vec<u8>,
    /// Names its content.
    pub tag: StateTag,
    /// The changes that lead there, in causal order.
    pub changes: Vec<ChangeWrite>,
    /// Facts that are new, with their rulings; and held ones that are ruled on now.
    pub facts: Vec<FactWrite>,
    /// What the technicians' calendars hold for this dispatch afterwards: one booking a crew member, none when nobody has
    /// it or it has ended. Overlap with another dispatch is [`CommitError::Overlap`]. `None` leaves them as they are.
    pub bookings: Option<Vec<Booking>>,
    /// Who gets to know. The store gives each the next position of that technician's feed and keeps the digest.
    pub feed: Vec<FeedWrite>,
    /// The service-level record afterwards, where it changed.
    pub sla: Option<SlaRow>,
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeWrite {
    /// Its hash.
    pub hash: ChangeHash,
    /// Its actor.
    pub actor: ActorKey,
    /// The device that made it; `None` for the server's own. A device's changes are never echoed to it.
    pub device: Option<DeviceId>,
    /// The change chunk.
    pub bytes: Vec<u8>,
}

/// One fact's row: for idempotency, gaps, ledgers.
#[derive(Debug, Clone, PartialEq)]
pub struct FactWrite {
    /// Which.
    pub fact: FactId,
    /// From which device.
    pub device: DeviceId,
    /// The device's sequence number. Unique per device, except where the ruling says that it was reused.
    pub seq: u64,
    /// The plan revision in the causal history of the change that brought it; needed when a held fact is ruled on later.
    pub knew_revision: u64,
    /// The kind's name.
    pub kind: &'static str,
    /// Corrected time.
    pub occurred_at: Timestamp,
    /// For parts: the serial number.
    pub serial: Option<SerialNumber>,
    /// `None` while it is held for its predecessors (rule 16).
    pub ruling: Option<Ruling>,
}

/// One entry of a technician's calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// Who is busy.
    pub technician: TechnicianId,
    /// When, travel to the visit included.
    pub span: Window,
}

/// One feed entry to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedWrite {
    /// Whose feed.
    pub technician: TechnicianId,
    /// What to say.
    pub news: FeedNews,
}

/// What a feed entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedNews {
    /// The technician holds the visit, at the commit's revision and tag.
    Held,
    /// The visit has left the technician.
    Gone(Tombstone),
}

/// A device's row. Fields that are `None` stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceWrite {
    /// Which.
    pub device: DeviceId,
    /// Whose. A device belongs to the technician who first used it; another one is refused.
    pub technician: TechnicianId,
    /// App name and version.
    pub app: Option<String>,
    /// Last heard.
    pub seen_at: Option<Timestamp>,
    /// Which sequence numbers have arrived. Written as a whole: the session of a device is served by one connection, and
    /// `expected_ledger` guards against a second one.
    pub ledger: Option<SequenceLedger>,
    /// The ledger's version that was decided on; another one is [`CommitError::Conflict`].
    pub expected_ledger: Option<u64>,
    /// Unacknowledged changes on the phone, and when the oldest was made.
    pub pending: Option<(u32, Option<Timestamp>)>,
    /// Feed position that the phone has durably stored.
    pub acknowledged: Option<u64>,
    /// Revoked at.
    pub revoked_at: Option<Timestamp>,
    /// The phone removed what it held, at.
    pub wiped_at: Option<Timestamp>,
    /// A digest mismatch was reported (counted).
    pub digest_mismatch: bool,
}

/// A REST call's remembered answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// The caller's key.
    pub key: String,
    /// Hash of caller, method, path and body: the same key with another request is an error.
    pub request_hash: String,
    /// The answer's status.
    pub status: u16,
    /// The answer's `ETag`, if any.
    pub etag: Option<String>,
    /// The answer's body.
    pub body: String,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Committed {
    /// The feed entries made, in the order of [`DispatchWrite::feed`].
    pub feed: Vec<FeedEntry>,
}

/// One entry of a technician's feed.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEntry {
    /// Whose feed.
    pub technician: TechnicianId,
    /// Its position: 1, 2, 3, … per technician, without gaps.
    pub seq: u64,
    /// Of everything the technician holds at `seq`.
    pub digest: u64,
    /// The visit.
    pub dispatch: DispatchId,
    /// The dispatch's revision.
    pub revision: u64,
    /// What it says.
    pub news: FeedNews,
}

/// Why a commit was not written. Nothing of it was, except perhaps where [`CommitError::Store`] says that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Somebody was faster: load again and decide again.
    #[error("the {0} was changed meanwhile")]
    Conflict(&'static str),
    /// The technician is booked by another dispatch.
    #[error("{technician} is booked by {dispatch} at that time")]
    Overlap {
        /// Who.
        technician: TechnicianId,
        /// By which dispatch.
        dispatch: DispatchId,
    },
    /// Consumed event, natural key, change, or fact id: it was done before.
    #[error("this was done before: {0}")]
    AlreadyDone(&'static str),
    /// The idempotency key was used by a call that finished first: answer what it answered.
    #[error("the idempotency key was used before")]
    KeyUsed(IdempotencyRecord),
    /// The device belongs to somebody else.
    #[error("the device belongs to another technician")]
    ForeignDevice,
    /// The database's fault. It may have been written all the same (the connection broke after COMMIT, and the database stayed
    /// away): who repeats it is safe by revision, change hash, event id or idempotency key. `0` is for the log, never for a client.
    #[error("the database failed: {0}")]
    Store(String),
}

/// A visit as a phone receives it whole.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldVisit {
    /// Which.
    pub dispatch: DispatchId,
    /// The saved document.
    pub document: Vec<u8>,
    /// For lists.
    pub card: VisitCard,
    /// Names the content.
    pub tag: StateTag,
}
