//! The visit as an Automerge document; the only room that names `automerge`, and none of its types leave it.
//!
//! One document per dispatch, four regions: `plan` and `rulings` (server only), `facts` (a technician adds, nobody
//! edits), `report` (everybody on the visit). The server's first change makes every object there is; a phone's change
//! that makes another is a forgery.
//!
//! In reading order: `schema` (what lies where), `copy` (whole documents), `view` (reading), `edit` (writing), `chunk` and
//! `admission` (what a phone's change may do), `ledger` (what admission remembers), `chain`, `cbor`.

mod admission;
mod cbor;
mod chain;
mod chunk;
mod copy;
mod edit;
mod ledger;
mod schema;
mod view;

pub use chain::chained;

use crate::domain::{Answer, ChecklistItemId, DeviceId, Fact, TechnicianId};
use serde::{Deserialize, Serialize};

/// An Automerge actor: 16 random bytes. Fresh per install, per database, and per restore; a reused one ends in
/// duplicate sequence numbers for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorKey(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// SHA-256 of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One change, encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedChange {
    /// Its hash.
    pub hash: ChangeHash,
    /// Its actor.
    pub actor: ActorKey,
    /// Automerge's change chunk, uncompressed.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for EncodedChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "change {} ({} bytes)", self.hash, self.bytes.len())
    }
}

/// Names a document's exact content: the first 8 bytes of the SHA-256 over its sorted heads, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateTag(pub u64);

/// What a technician does to a visit, one change each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub enum Edit {
    /// States a fact.
    Fact {
        /// The fact.
        fact: Fact,
    },
    /// Replaces `delete` characters (Unicode scalar values) of the notes at `at` by `insert`.
    Note {
        /// Position in characters; clamped to the text's end.
        at: usize,
        /// How many to delete; clamped to the text's end.
        delete: usize,
        /// What to insert.
        insert: String,
    },
    /// Answers a checklist item; settles concurrent answers.
    Answer {
        /// Which item.
        item: ChecklistItemId,
        /// The answer.
        answer: Answer,
    },
    /// Sets the summary.
    Summary {
        /// The text.
        text: String,
    },
}

impl Edit {
    /// The stable name of what is done: a fact's kind, `note`, `answer` or `summary`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fact { fact } => fact.kind.name(),
            Self::Note { .. } => "note",
            Self::Answer { .. } => "answer",
            Self::Summary { .. } => "summary",
        }
    }
}

/// Who sends a change, as the server authenticated them.
#[derive(Debug, Clone)]
pub struct Author<'a> {
    /// From the token.
    pub technician: &'a TechnicianId,
    /// From the token or the registered device.
    pub device: &'a DeviceId,
}

/// A change that was let in.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// The change, as stored.
    pub change: EncodedChange,
    /// True when the document had it already: nothing was applied, the effect is not repeated (rule 18).
    pub duplicate: bool,
    /// The facts that it adds, in order, each with the plan revision in the change's causal history.
    pub facts: Vec<(Fact, u64)>,
    /// True when it edits the report.
    pub edits_report: bool,
}

/// Why a change was not let in. Nothing was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a change chunk, or its checksum is wrong.
    #[error("not a change: {0}")]
    Malformed(&'static str),
    /// Larger than a named limit.
    #[error("the change has {actual} {what}, at most {limit} are allowed")]
    TooLarge {
        /// `bytes`, `operations`, `document bytes`, ….
        what: &'static str,
        /// The limit.
        limit: usize,
        /// What it has.
        actual: usize,
    },
    /// It depends on changes that are not here (rule 16). Send them first.
    #[error("the change depends on changes that are not here; send those first")]
    CausallyOpen,
    /// The actor already used this Automerge sequence number for another change, or skips one.
    #[error("the actor's change number {0} is taken or out of order; start anew under a fresh actor")]
    DuplicateSequence(u64),
    /// It writes where its sender may not: a forgery. Rebase under a fresh actor.
    #[error("the sender may not write {0}")]
    Forbidden(String),
    /// A fact that is no fact, or names another technician or device than its sender.
    #[error("the fact is not acceptable: {0}")]
    BadFact(String),
}

impl Refusal {
    /// Stable code for the wire.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "CHANGE_MALFORMED",
            Self::TooLarge { .. } => "CHANGE_TOO_LARGE",
            Self::CausallyOpen => "CHANGE_CAUSALLY_OPEN",
            Self::DuplicateSequence(_) => "CHANGE_DUPLICATE_SEQUENCE",
            Self::Forbidden(_) => "CHANGE_FORBIDDEN",
            Self::BadFact(_) => "FACT_UNACCEPTABLE",
        }
    }
}

/// Why a stored or received document could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not a document, or its checksum is wrong.
    #[error("not a visit document: {0}")]
    Malformed(String),
    /// Larger than [`crate::protocol::limits::DOCUMENT_BYTES_MAX`].
    #[error("the document has {0} bytes, more than allowed")]
    TooLarge(usize),
    /// It depends on changes that are not here.
    #[error("changes are missing")]
    CausallyOpen,
}

/// What [`VisitDoc::rebase`] made.
#[derive(Debug, Clone)]
pub struct Rebased {
    /// The server's copy with the edits on top.
    pub document: VisitDoc,
    /// What became of each edit, in order.
    pub edits: Vec<RebasedEdit>,
}

/// What became of an edit that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebasedEdit {
    /// It is this change now; push it.
    Made(EncodedChange),
    /// The server has the fact already, from another actor; nothing is left to push.
    AlreadyThere,
    /// It would be refused again; park it.
    Refused(Refusal),
}

/// One visit's document, opened. About 25 kB of heap and 0.1 to 0.3 ms to open: keep few, and only while editing.
#[derive(Debug, Clone)]
pub struct VisitDoc {
    doc: automerge::Automerge,
    objects: schema::Objects,
    /// At least as many bytes as [`Self::save`] makes.
    bytes: usize,
    ledger: ledger::Ledger,
}
