//! Whole documents: made, opened, saved, and brought together.

use super::edit::at;
use super::schema::{Objects, Region, actor_id, plan_registers};
use super::view::{Touched, read_fact};
use super::{ActorKey, ChangeHash, DocumentError, EncodedChange, VisitDoc, chunk};
use crate::domain::{Plan, TechnicianId, Timestamp, VisitView};
use crate::protocol::limits::DOCUMENT_BYTES_MAX;
use automerge::legacy::{Key, OpType};
use automerge::transaction::Transactable;
use automerge::{Automerge, AutomergeError, Change, ReadDoc, SaveOptions, ScalarValue};
use std::collections::HashSet;

impl VisitDoc {
    /// A new visit: the server's first change, which makes every object there will ever be.
    #[must_use]
    pub fn genesis(actor: ActorKey, plan: &Plan, now: Timestamp) -> (Self, EncodedChange) {
        // Nothing can refuse these writes: the document is empty, and every key is written once.
        #[expect(clippy::expect_used, reason = "writing to an empty document cannot fail")]
        Self::try_genesis(actor, plan, now).expect("an empty document takes every write")
    }

    fn try_genesis(actor: ActorKey, plan: &Plan, now: Timestamp) -> Result<(Self, EncodedChange), AutomergeError> {
        let mut doc = Automerge::new().with_actor(actor_id(actor));
        let mut tx = doc.transaction();
        let objects = Objects::make(&mut tx)?;
        for (key, value) in plan_registers(plan) {
            tx.put(&objects.plan, key, value)?;
        }
        let hash = tx.commit_with(at(now)).0.ok_or(AutomergeError::MissingDeps)?;
        let change = doc.get_change_by_hash(&hash).ok_or(AutomergeError::InvalidHash(hash))?;
        let encoded = EncodedChange { hash: hash.into(), actor, bytes: change.raw_bytes().to_vec() };
        Ok((Self { doc, objects, bytes: encoded.bytes.len(), ledger: Default::default() }, encoded))
    }

    /// Opens a saved document: [`Self::save`]'s bytes, optionally followed by change chunks.
    ///
    /// # Errors
    /// [`DocumentError`]; the bytes are untouched.
    pub fn load(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLarge(bytes.len()));
        }
        let doc = Automerge::load(bytes).map_err(malformed)?;
        // Automerge keeps changes whose dependencies are missing in a queue; here that is a damaged document.
        if !doc.get_missing_deps(&[]).is_empty() {
            return Err(DocumentError::CausallyOpen);
        }
        let objects =
            Objects::find(&doc).ok_or_else(|| DocumentError::Malformed("it lacks a region of a visit".into()))?;
        Ok(Self { doc, objects, bytes: bytes.len(), ledger: Default::default() })
    }

    /// The whole document, uncompressed (a batch of them is compressed together).
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.doc.save_with_options(SaveOptions { deflate: false, retain_orphans: false })
    }

    /// The part of the document that a technician's own changes build on, saved: the first change, the changes of those who
    /// stated facts in this name, those of `pushed` that are here, and all that lies before them. Nothing that the
    /// technician has not seen is in it, so it can be given to somebody who does not hold the visit any more.
    ///
    /// # Errors
    /// [`DocumentError::Malformed`] when the part does not stand by itself, which an admitted document's always does.
    pub fn ground(&self, technician: &TechnicianId, pushed: &[impl AsRef<[u8]>]) -> Result<Vec<u8>, DocumentError> {
        let changes = self.doc.get_changes(&[]);
        let theirs: HashSet<_> = changes
            .iter()
            .filter(|change| self.states_fact_of(change, technician))
            .map(|change| change.actor_id().clone())
            .collect();
        let mut wanted: HashSet<automerge::ChangeHash> =
            pushed.iter().filter_map(|bytes| chunk::identify(bytes.as_ref()).ok()).map(|hash| (&hash).into()).collect();
        // Each change comes after those that it depends on.
        let mut part = Vec::new();
        for change in changes.into_iter().rev() {
            if change.deps().is_empty() || theirs.contains(change.actor_id()) || wanted.contains(&change.hash()) {
                wanted.extend(change.deps());
                part.push(change);
            }
        }
        part.reverse();
        let mut doc = Automerge::new();
        doc.apply_changes(part).map_err(malformed)?;
        Ok(doc.save_with_options(SaveOptions { deflate: false, retain_orphans: false }))
    }

    fn states_fact_of(&self, change: &Change, technician: &TechnicianId) -> bool {
        change.decode().operations.iter().any(|op| match (&op.key, &op.action) {
            (Key::Map(key), OpType::Put(ScalarValue::Bytes(bytes))) => {
                self.objects.region(&op.obj) == Region::Facts
                    && read_fact(key, bytes).is_some_and(|fact| fact.technician == *technician)
            }
            _ => false,
        })
    }

    /// True when the document has the change.
    #[must_use]
    pub fn has_change(&self, hash: &ChangeHash) -> bool {
        self.doc.get_change_meta_by_hash(&hash.into()).is_some()
    }

    /// Applies the server's changes on the phone. Idempotent.
    ///
    /// # Errors
    /// [`DocumentError::CausallyOpen`] when something is missing: fetch the whole document instead. Nothing was applied.
    pub fn apply(&mut self, changes: &[impl AsRef<[u8]>]) -> Result<(), DocumentError> {
        self.apply_new(changes, |(): &mut (), _| ())
    }

    /// As [`Self::apply`], and brings a view of the document as it was up to what it is: what the changes leave alone is not
    /// read again.
    ///
    /// # Errors
    /// As [`Self::apply`]; the view is untouched then, too.
    pub fn apply_and_view(&mut self, changes: &[impl AsRef<[u8]>], view: &mut VisitView) -> Result<(), DocumentError> {
        let touched = self.apply_new(changes, Touched::note)?;
        self.refresh(view, touched);
        Ok(())
    }

    /// Applies what is new, and shows each such change to `look` beforehand.
    fn apply_new<T: Default>(
        &mut self,
        changes: &[impl AsRef<[u8]>],
        look: impl Fn(&mut T, (&Objects, &Change)),
    ) -> Result<T, DocumentError> {
        let mut new = Vec::with_capacity(changes.len());
        let mut known = HashSet::new();
        for bytes in changes {
            let bytes = bytes.as_ref();
            let hash = chunk::identify_any_size(bytes).map_err(malformed)?;
            if self.has_change(&hash) || !known.insert(hash) {
                continue;
            }
            chunk::survey(bytes).map_err(malformed)?;
            new.push(Change::try_from(bytes).map_err(malformed)?);
        }
        let here = |hash: &automerge::ChangeHash| {
            let hash = ChangeHash::from(*hash);
            known.contains(&hash) || self.has_change(&hash)
        };
        if !new.iter().all(|change| change.deps().iter().all(here)) {
            return Err(DocumentError::CausallyOpen);
        }
        let bytes: usize = new.iter().map(|change| change.raw_bytes().len()).sum();
        let mut seen = T::default();
        new.iter().for_each(|change| look(&mut seen, (&self.objects, change)));
        self.doc.apply_changes(new).map_err(malformed)?;
        self.bytes += bytes;
        self.ledger = Default::default();
        Ok(seen)
    }

    /// Merges another copy of the same visit into this one.
    ///
    /// # Errors
    /// [`DocumentError`]; the document is untouched.
    pub fn merge(&mut self, saved: &[u8]) -> Result<(), DocumentError> {
        let mut other = Self::load(saved)?;
        if other.objects != self.objects {
            return Err(DocumentError::Malformed("it is another visit's document".into()));
        }
        self.doc.merge(&mut other.doc).map_err(malformed)?;
        self.bytes += saved.len();
        self.ledger = Default::default();
        Ok(())
    }
}

fn malformed(error: impl std::fmt::Display) -> DocumentError {
    DocumentError::Malformed(error.to_string())
}
