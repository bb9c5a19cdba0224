//! The messages.

use crate::document::{ChangeHash, StateTag};
use crate::domain::{DeviceId, DispatchId, FactId, RulingReason, Timestamp, Tombstone, Verdict, VisitCard};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A server database's identity: drawn anew when the database is made or restored from a copy (invariant 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// A position in one technician's feed; 0 is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub u64);

/// XOR of [`digest_entry`] over the visits that a phone holds; both sides keep it up to date with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u64);

impl Digest {
    /// Adds or removes one visit (XOR is its own inverse).
    #[must_use]
    pub fn toggled(self, dispatch: &DispatchId, tag: StateTag) -> Self {
        Self(self.0 ^ digest_entry(dispatch, tag))
    }
}

/// One visit's share of the digest: the first 8 bytes of SHA-256 over id and tag.
#[must_use]
pub fn digest_entry(dispatch: &DispatchId, tag: StateTag) -> u64 {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    hash.update(dispatch.as_str().as_bytes());
    hash.update([0]);
    hash.update(tag.0.to_be_bytes());
    let sum: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&sum[..8]);
    u64::from_be_bytes(first)
}

/// What a phone says.
#[derive(Debug, Clone, PartialEq)]
pub enum PhoneMessage {
    /// First, once.
    Hello(Hello),
    /// Here are my changes.
    Push(Push),
    /// Send me what came after.
    Pull(Pull),
    /// Send me these whole.
    Fetch(Fetch),
    /// I have durably stored everything up to here.
    Ack(Ack),
    /// Are you there, and what time is it?
    Ping(Ping),
    /// I was revoked, and have removed what I held.
    Wiped(Wiped),
    /// A kind of a newer release; ignored.
    Unknown(u8),
}

/// What a server says.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// Answers `Hello`.
    Welcome(Welcome),
    /// Feed items.
    Batch(Batch),
    /// Answers `Push`.
    PushAck(PushAck),
    /// Answers `Ping`.
    Pong(Pong),
    /// I am about to close the connection.
    Bye(Bye),
    /// A kind of a newer release; ignored.
    Unknown(u8),
}

/// First message of a phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// This install.
    #[serde(rename = "d")]
    pub device: DeviceId,
    /// App name and version, for the dispatcher's device list.
    #[serde(rename = "a", default, skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// The server database that `cursor` belongs to.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Up to here the phone has stored its feed.
    #[serde(rename = "c", default)]
    pub cursor: Cursor,
    /// What is unsent.
    #[serde(rename = "o")]
    pub outbox: OutboxMark,
    /// The phone's wall time.
    #[serde(rename = "t")]
    pub now: Timestamp,
}

/// What a phone still holds: the dispatcher sees which phone is behind, and a lost phone leaves a known gap (rule 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutboxMark {
    /// The highest fact sequence number that the device has given out.
    #[serde(rename = "h", default)]
    pub high_water: u64,
    /// Unacknowledged changes.
    #[serde(rename = "n", default)]
    pub pending: u32,
    /// When the oldest of them was made, device wall time.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
}

/// A phone's changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Comes back in the acknowledgement.
    #[serde(rename = "i")]
    pub id: u32,
    /// One lane a visit: a bad one does not hold up the others.
    #[serde(rename = "l")]
    pub lanes: Vec<PushLane>,
    /// What is unsent, these included.
    #[serde(rename = "o")]
    pub outbox: OutboxMark,
}

/// One visit's changes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushLane {
    /// Which visit.
    #[serde(rename = "d")]
    pub dispatch: DispatchId,
    /// Change chunks.
    #[serde(rename = "c")]
    pub changes: Vec<ByteBuf>,
}

/// Asks for the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Up to here the phone has stored its feed.
    #[serde(rename = "c")]
    pub cursor: Cursor,
}

/// Asks for whole documents: self-healing after a mismatch, a damaged row, or a refused change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which; empty for everything that the phone should hold.
    #[serde(rename = "d")]
    pub dispatches: Vec<DispatchId>,
}

/// The phone's receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Durably stored up to here.
    #[serde(rename = "c")]
    pub cursor: Cursor,
    /// The digest matched (`false`: it did not, and a fetch follows; counted by the server).
    #[serde(rename = "m", default = "yes")]
    pub digest_matched: bool,
}

fn yes() -> bool {
    true
}

/// Liveness and clock probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back.
    #[serde(rename = "i")]
    pub id: u32,
    /// What is unsent.
    #[serde(rename = "o", default)]
    pub outbox: OutboxMark,
}

/// Last message of a revoked phone: the proof that nothing is left on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiped {
    /// Unsent changes that the phone keeps sealed.
    #[serde(rename = "n", default)]
    pub sealed: u32,
}

/// Answers `Ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// From the ping.
    #[serde(rename = "i")]
    pub id: u32,
    /// The server's time.
    #[serde(rename = "t")]
    pub server_time: Timestamp,
}

/// Answers `Hello`. When nothing has changed this is the whole reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The server database. Another one than the phone's: cursor and receipts are void, acknowledged changes are given
    /// again (invariant 11).
    #[serde(rename = "g")]
    pub generation: Generation,
    /// The server's time.
    #[serde(rename = "t")]
    pub server_time: Timestamp,
    /// The feed's end. A phone whose cursor lies beyond it has met a restored server.
    #[serde(rename = "c")]
    pub head: Cursor,
    /// Of what the phone should hold at `head`.
    #[serde(rename = "x")]
    pub digest: Digest,
}

/// Feed items from `from` (exclusive) to `to` (inclusive).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The phone must be at or beyond this cursor; otherwise it pulls.
    #[serde(rename = "f")]
    pub from: Cursor,
    /// The phone's cursor afterwards.
    #[serde(rename = "c")]
    pub to: Cursor,
    /// True when the batch is (part of) everything that the phone should hold: what it does not name is gone. Set on
    /// every batch of such a run; the phone drops the rest when the last one (`more == false`) is stored.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// True when another batch of the same answer follows.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// At `to`, when `to` was the feed's end.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// A CBOR list of [`FeedItem`], compressed with zstd when `zstd` is set.
    #[serde(rename = "b", with = "serde_bytes")]
    pub items: Vec<u8>,
    /// See `items`.
    #[serde(rename = "z", default, skip_serializing_if = "std::ops::Not::not")]
    pub zstd: bool,
}

/// One visit's news.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FeedItem {
    /// The whole document as the server has saved it, and its card. Nobody opens it on the way.
    #[serde(rename = "s")]
    Snapshot {
        /// Which visit.
        #[serde(rename = "d")]
        dispatch: DispatchId,
        /// The saved document.
        #[serde(rename = "b")]
        document: ByteBuf,
        /// For lists.
        #[serde(rename = "c")]
        card: VisitCard,
        /// Names the content.
        #[serde(rename = "t")]
        tag: StateTag,
    },
    /// What is new since the phone's last one; none of its own changes are echoed.
    #[serde(rename = "c")]
    Changes {
        /// Which visit.
        #[serde(rename = "d")]
        dispatch: DispatchId,
        /// Change chunks in causal order.
        #[serde(rename = "b")]
        changes: Vec<ByteBuf>,
        /// For lists.
        #[serde(rename = "c")]
        card: VisitCard,
        /// Names the content.
        #[serde(rename = "t")]
        tag: StateTag,
    },
    /// The visit has left this phone.
    #[serde(rename = "g")]
    Gone {
        /// Why.
        #[serde(rename = "t")]
        tombstone: Tombstone,
    },
}

impl FeedItem {
    /// The visit it is about.
    #[must_use]
    pub fn dispatch(&self) -> &DispatchId {
        match self {
            Self::Snapshot { dispatch, .. } | Self::Changes { dispatch, .. } => dispatch,
            Self::Gone { tombstone } => &tombstone.dispatch_id,
        }
    }
}

/// Answers `Push`, after the transaction was committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PushAck {
    /// From the push.
    #[serde(rename = "i")]
    pub id: u32,
    /// One answer a lane, in the push's order.
    #[serde(rename = "l")]
    pub lanes: Vec<LaneAck>,
    /// The feed entries that the push itself made, when nothing else lies between: the phone's cursor moves on without a
    /// batch.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<FeedRange>,
}

/// A range of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRange {
    /// Exclusive.
    #[serde(rename = "f")]
    pub from: Cursor,
    /// Inclusive.
    #[serde(rename = "c")]
    pub to: Cursor,
    /// At `to`, when `to` was the feed's end.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// One lane's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneAck {
    /// Which visit.
    #[serde(rename = "d")]
    pub dispatch: DispatchId,
    /// How many of the lane's changes, from its start, are durable on the server (duplicates included).
    #[serde(rename = "n")]
    pub accepted: u32,
    /// The change after the accepted ones was refused.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<LaneRefusal>,
    /// Verdicts other than accepted-in-order, for the technician.
    #[serde(rename = "v", default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<FactVerdict>,
    /// What the server added (rulings, plan effects), while the phone still holds the visit.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub update: Option<LaneUpdate>,
}

/// The server's additions to a pushed lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneUpdate {
    /// Change chunks in causal order.
    #[serde(rename = "b")]
    pub changes: Vec<ByteBuf>,
    /// For lists.
    #[serde(rename = "c")]
    pub card: VisitCard,
    /// Names the content.
    #[serde(rename = "t")]
    pub tag: StateTag,
    /// Names the content that the additions were made on. A phone that has exactly this need not open the document.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub base: Option<StateTag>,
}

/// Why a change was refused, and what the phone shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRefusal {
    /// Stable code: those of [`crate::document::Refusal::code`], `DISPATCH_NOT_FOUND`, `INTERNAL`, ….
    #[serde(rename = "c")]
    pub code: String,
    /// For people.
    #[serde(rename = "m", default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What to do.
    #[serde(rename = "r")]
    pub remedy: Remedy,
    /// The part of the server's document that the sender's own changes build on, saved: what is to be made again is made on
    /// this by a phone that does not hold the visit any more, and so cannot fetch it.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<ByteBuf>,
}

/// What a phone does about a refused change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// A passing fault: send again later.
    Retry,
    /// Park the refused change with its payload, rebase the ones after it under a fresh actor.
    Rebase,
    /// Send all changes of this visit that the phone has kept, from the oldest.
    Resend,
    /// Park the whole lane; a person must look.
    Park,
    /// A remedy of a newer release: park.
    #[serde(other)]
    Unknown,
}

/// A verdict on a pushed fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactVerdict {
    /// Which fact.
    #[serde(rename = "f")]
    pub fact: FactId,
    /// The verdict.
    #[serde(rename = "v")]
    pub verdict: Verdict,
    /// Why.
    #[serde(rename = "r")]
    pub reason: RulingReason,
}

/// Last message before a server closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why.
    #[serde(rename = "c")]
    pub code: ByeCode,
    /// Come back not earlier than this, milliseconds.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// For people.
    #[serde(rename = "m", default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Why a server closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByeCode {
    /// The server restarts; come back.
    GoingAway,
    /// The token has run out; come back with a fresh one.
    TokenExpired,
    /// The device was revoked: seal what is unsent, remove the rest.
    DeviceRevoked,
    /// A frame that makes no sense.
    Malformed,
    /// Larger than a limit.
    TooLarge,
    /// Too many frames.
    TooFast,
    /// The phone's protocol version is no longer, or not yet, understood.
    Version,
    /// Something out of turn: a second `Hello`, a push before it.
    OutOfTurn,
    /// Silent for too long.
    Silent,
    /// The same device connected again; this is the older connection.
    Replaced,
    /// The server's fault; come back.
    Internal,
    /// A code of a newer release: come back.
    #[serde(other)]
    Unknown,
}

/// Names a change on the wire and in the outbox.
pub type ChangeId = ChangeHash;
