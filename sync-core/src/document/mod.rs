//! The visit as an Automerge document; the only room that names `automerge`, and none of its types leave it.
//!
//! One document per dispatch, four regions: `plan` and `rulings` (server only), `facts` (a technician adds, nobody
//! edits), `report` (everybody on the visit). The server's first change makes every object there is; a phone's change
//! that makes another is a forgery.

use crate::domain::{
    Answer, ChecklistItemId, DeviceId, Fact, FactId, Plan, Report, Ruling, TechnicianId, Timestamp, VisitView,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedChange {
    /// Its hash.
    pub hash: ChangeHash,
    /// Its actor.
    pub actor: ActorKey,
    /// Automerge's change chunk, uncompressed.
    pub bytes: Vec<u8>,
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

/// One visit's document, opened. About 25 kB of heap and 0.1 to 0.3 ms to open: keep few, and only while editing.
#[derive(Debug, Clone)]
pub struct VisitDoc {
    // Helper: private fields
}

impl VisitDoc {
    /// A new visit: the server's first change, which makes every object there will ever be.
    #[must_use]
    pub fn genesis(actor: ActorKey, plan: &Plan, now: Timestamp) -> (Self, EncodedChange) {
        let _ = (actor, plan, now);
        unimplemented!()
    }

    /// Opens a saved document: [`Self::save`]'s bytes, optionally followed by change chunks.
    ///
    /// # Errors
    /// [`DocumentError`]; the bytes are untouched.
    pub fn load(bytes: &[u8]) -> Result<Self, DocumentError> {
        let _ = bytes;
        unimplemented!()
    }

    /// The whole document, uncompressed (a batch of them is compressed together).
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Names the exact content.
    #[must_use]
    pub fn tag(&self) -> StateTag {
        unimplemented!()
    }

    /// The plan alone.
    #[must_use]
    pub fn plan(&self) -> Plan {
        unimplemented!()
    }

    /// What the fold reads.
    #[must_use]
    pub fn view(&self) -> VisitView {
        unimplemented!()
    }

    /// The shared report.
    #[must_use]
    pub fn report(&self) -> Report {
        unimplemented!()
    }

    /// True when the document has the change.
    #[must_use]
    pub fn has_change(&self, hash: &ChangeHash) -> bool {
        let _ = hash;
        unimplemented!()
    }

    /// The server's edit: the plan as it shall be, and new rulings, in one change. `None` when nothing differs.
    #[must_use]
    pub fn decide(
        &mut self,
        actor: ActorKey,
        plan: &Plan,
        rulings: &BTreeMap<FactId, Ruling>,
        now: Timestamp,
    ) -> Option<EncodedChange> {
        let _ = (actor, plan, rulings, now);
        unimplemented!()
    }

    /// A technician's edit on the phone, one change.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] when the edit is over a limit, so that nothing is made that the server would refuse.
    pub fn edit(&mut self, actor: ActorKey, edit: &Edit, now: Timestamp) -> Result<EncodedChange, Refusal> {
        let _ = (actor, edit, now);
        unimplemented!()
    }

    /// Authorises a phone's change operation by operation, and applies it.
    ///
    /// # Errors
    /// [`Refusal`]; the document is untouched.
    pub fn admit(&mut self, author: &Author<'_>, bytes: &[u8]) -> Result<Admission, Refusal> {
        let _ = (author, bytes);
        unimplemented!()
    }

    /// Applies the server's changes on the phone. Idempotent.
    ///
    /// # Errors
    /// [`DocumentError::CausallyOpen`] when something is missing: fetch the whole document instead. Nothing was applied.
    pub fn apply(&mut self, changes: &[impl AsRef<[u8]>]) -> Result<(), DocumentError> {
        let _ = changes.len();
        unimplemented!()
    }

    /// Merges another copy of the same visit into this one.
    ///
    /// # Errors
    /// [`DocumentError`]; the document is untouched.
    pub fn merge(&mut self, saved: &[u8]) -> Result<(), DocumentError> {
        let _ = saved;
        unimplemented!()
    }
}
