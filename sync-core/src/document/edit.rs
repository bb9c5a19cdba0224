//! Writing: one change for each user action, with an explicit actor and time.

use super::cbor::to_cbor;
use super::ledger::Hand;
use super::schema::{PLAN_FIELDS, SUMMARY, actor_id, actor_key, plan_registers};
use super::{ActorKey, DocumentError, Edit, EncodedChange, Rebased, RebasedEdit, Refusal, VisitDoc};
use crate::domain::rules::admission::validate_fact;
use crate::domain::{Answer, ChecklistItemId, Fact, FactId, Plan, Ruling, Timestamp};
use crate::protocol::limits::{ANSWER_BYTES_MAX, CHANGE_BYTES_MAX, CHANGE_OPS_MAX, FACTS_MAX, NOTE_CHARS_MAX};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{AutomergeError, ReadDoc, ScalarValue};
use std::collections::BTreeMap;

/// A note edit that touches more characters than this is tried on a copy first, because its change might turn out larger
/// than a change may be. Six bytes a character is the most that a deletion takes.
const CHARS_SURELY_WITHIN_A_CHANGE: usize = CHANGE_BYTES_MAX / 16;

impl VisitDoc {
    /// The server's edit: the plan as it shall be, and new rulings, in one change. `None` when nothing differs.
    ///
    /// Writes the fields that differ, and nothing else, so that a ruling alone costs one operation.
    #[must_use]
    pub fn decide(
        &mut self,
        actor: ActorKey,
        plan: &Plan,
        rulings: &BTreeMap<FactId, Ruling>,
        now: Timestamp,
    ) -> Option<EncodedChange> {
        let mut before = super::view::present(&self.doc, &self.objects.plan);
        let after: Vec<_> = plan_registers(plan)
            .into_iter()
            .filter(|(key, value)| before.remove(key).as_ref() != Some(value))
            .collect();
        let gone: Vec<_> = before.into_keys().filter(|key| PLAN_FIELDS.contains(&key.as_str())).collect();
        self.write_decision(actor, after, gone, rulings, now)
    }

    /// As [`Self::decide`] with the plan that the document has: nothing of it is looked at.
    #[must_use]
    pub fn rule(
        &mut self,
        actor: ActorKey,
        rulings: &BTreeMap<FactId, Ruling>,
        now: Timestamp,
    ) -> Option<EncodedChange> {
        self.write_decision(actor, Vec::new(), Vec::new(), rulings, now)
    }

    fn write_decision(
        &mut self,
        actor: ActorKey,
        after: Vec<(String, ScalarValue)>,
        gone: Vec<String>,
        rulings: &BTreeMap<FactId, Ruling>,
        now: Timestamp,
    ) -> Option<EncodedChange> {
        let rulings: Vec<_> = rulings
            .iter()
            .filter_map(|(fact, ruling)| Some((fact.as_str(), ScalarValue::Bytes(to_cbor(ruling)?))))
            .filter(|(fact, ruling)| !self.holds(&self.objects.rulings, fact, ruling))
            .collect();
        if after.is_empty() && gone.is_empty() && rulings.is_empty() {
            return None;
        }
        let objects = self.objects.clone();
        // Automerge refuses a write only where the object is missing or of another type; the six were found when the
        // document was opened.
        self.commit(actor, now, Hand::Server, |tx| {
            for (key, value) in after {
                tx.put(&objects.plan, key, value)?;
            }
            for key in gone {
                tx.delete(&objects.plan, key)?;
            }
            for (fact, ruling) in rulings {
                tx.put(&objects.rulings, fact, ruling)?;
            }
            Ok(())
        })
        .ok()
    }

    /// A technician's edit on the phone, one change. An edit without effect (a summary set to what it is) is a change
    /// without operations.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] and [`Refusal::BadFact`] when the server would refuse the edit; the document is untouched.
    pub fn edit(&mut self, actor: ActorKey, edit: &Edit, now: Timestamp) -> Result<EncodedChange, Refusal> {
        let objects = self.objects.clone();
        let made = match edit {
            Edit::Fact { fact } => {
                self.check_new_fact(fact)?;
                let value = to_cbor(fact).ok_or_else(|| Refusal::BadFact("it cannot be encoded".into()))?;
                within("bytes", CHANGE_BYTES_MAX / 2, value.len())?;
                let put =
                    |tx: &mut Transaction<'_>| tx.put(&objects.facts, fact.id.as_str(), ScalarValue::Bytes(value));
                self.commit(actor, now, Hand::Phone, put).inspect(|_| self.ledger.add_facts(1))
            }
            Edit::Note { at, delete, insert } => return self.edit_note(actor, *at, *delete, insert, now),
            Edit::Answer { item, answer } => {
                within("bytes of an answer", ANSWER_BYTES_MAX, answer.value.len())?;
                let value = self.unheard_answer(item, answer.clone())?;
                self.commit(actor, now, Hand::Phone, |tx| {
                    tx.put(&objects.checklist, item.as_str(), ScalarValue::Bytes(value))
                })
            }
            Edit::Summary { text } => {
                within("bytes of the summary", ANSWER_BYTES_MAX, text.len())?;
                self.commit(actor, now, Hand::Phone, |tx| tx.put(&objects.report, SUMMARY, text.as_str()))
            }
        };
        made.map_err(|_| UNWRITABLE)
    }

    /// The answer, a millisecond later where the very same one stands there already: Automerge takes writing the value that
    /// it shows for no write, and two answers given at once would stay unsettled although the lead has confirmed one.
    fn unheard_answer(&self, item: &ChecklistItemId, mut answer: Answer) -> Result<Vec<u8>, Refusal> {
        let present = self.doc.get_all(&self.objects.checklist, item.as_str()).unwrap_or_default();
        loop {
            let value = to_cbor(&answer).ok_or(Refusal::Malformed("the answer cannot be encoded"))?;
            if !present.iter().any(|(there, _)| there.as_bytes() == Some(value.as_slice())) {
                return Ok(value);
            }
            answer.at = answer.at.plus_millis(1);
        }
    }

    /// Loads the server's copy and makes the edits again under a fresh actor: what a phone does after a refusal.
    ///
    /// # Errors
    /// [`DocumentError`] when the server's copy cannot be used. An edit that is refused does not stop the others.
    pub fn rebase(
        server_saved: &[u8],
        actor: ActorKey,
        edits: &[Edit],
        now: Timestamp,
    ) -> Result<Rebased, DocumentError> {
        let mut document = Self::load(server_saved)?;
        let edits = edits
            .iter()
            .map(|edit| match edit {
                Edit::Fact { fact } if document.has_fact(&fact.id) => RebasedEdit::AlreadyThere,
                edit => match document.edit(actor, edit, now) {
                    Ok(change) => RebasedEdit::Made(change),
                    Err(refusal) => RebasedEdit::Refused(refusal),
                },
            })
            .collect();
        Ok(Rebased { document, edits })
    }

    fn edit_note(
        &mut self,
        actor: ActorKey,
        at: usize,
        delete: usize,
        insert: &str,
        now: Timestamp,
    ) -> Result<EncodedChange, Refusal> {
        let length = self.doc.length(&self.objects.notes);
        let at = at.min(length);
        let delete = delete.min(length - at);
        let inserted = insert.chars().count();
        within("characters of notes", NOTE_CHARS_MAX, length - delete + inserted)?;
        within("operations", CHANGE_OPS_MAX, delete + inserted)?;
        let notes = self.objects.notes.clone();
        let deleted = isize::try_from(delete).map_err(|_| UNWRITABLE)?;
        let splice = |tx: &mut Transaction<'_>| tx.splice_text(&notes, at, deleted, insert);
        if delete + insert.len() <= CHARS_SURELY_WITHIN_A_CHANGE {
            return self.commit(actor, now, Hand::Phone, splice).map_err(|_| UNWRITABLE);
        }
        let mut copy = self.clone();
        let change = copy.commit(actor, now, Hand::Phone, splice).map_err(|_| UNWRITABLE)?;
        within("bytes", CHANGE_BYTES_MAX, change.bytes.len())?;
        *self = copy;
        Ok(change)
    }

    fn check_new_fact(&mut self, fact: &Fact) -> Result<(), Refusal> {
        validate_fact(fact).map_err(Refusal::BadFact)?;
        if self.has_fact(&fact.id) {
            return Err(Refusal::BadFact(format!("fact {} is stated already", fact.id)));
        }
        within("facts", FACTS_MAX, self.ledger.facts(&self.doc, &self.objects) + 1)
    }

    pub(super) fn has_fact(&self, fact: &FactId) -> bool {
        matches!(self.doc.get(&self.objects.facts, fact.as_str()), Ok(Some(_)))
    }

    fn holds(&self, map: &automerge::ObjId, key: &str, value: &ScalarValue) -> bool {
        match self.doc.get(map, key) {
            Ok(Some((automerge::Value::Scalar(held), _))) => held.as_ref() == value,
            _ => false,
        }
    }

    /// Makes one change. Actor and time are given: Automerge's own default actor is drawn at random and never used.
    pub(super) fn commit(
        &mut self,
        actor: ActorKey,
        now: Timestamp,
        hand: Hand,
        write: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<EncodedChange, AutomergeError> {
        self.doc.set_actor(actor_id(actor));
        let mut tx = self.doc.transaction();
        if let Err(error) = write(&mut tx) {
            tx.rollback();
            return Err(error);
        }
        let hash = match tx.commit_with(at(now)).0 {
            Some(hash) => hash,
            None => self.doc.empty_commit(at(now)),
        };
        let change = self.doc.get_change_by_hash(&hash).ok_or(AutomergeError::InvalidHash(hash))?;
        let encoded = EncodedChange { hash: hash.into(), actor, bytes: change.raw_bytes().to_vec() };
        self.bytes += encoded.bytes.len();
        self.ledger.set_latest(change.actor_id(), change.seq(), change.hash(), hand);
        Ok(encoded)
    }
}

/// Automerge counts seconds.
pub(super) fn at(now: Timestamp) -> CommitOptions {
    CommitOptions::default().with_time(now.millis().div_euclid(1000))
}

const UNWRITABLE: Refusal = Refusal::Malformed("Automerge could not write it");

pub(super) fn within(what: &'static str, limit: usize, actual: usize) -> Result<(), Refusal> {
    if actual <= limit { Ok(()) } else { Err(Refusal::TooLarge { what, limit, actual }) }
}

/// The change as others see it; `None` when its actor is not of this system.
pub(super) fn encoded(change: &automerge::Change) -> Option<EncodedChange> {
    Some(EncodedChange {
        hash: change.hash().into(),
        actor: actor_key(change.actor_id())?,
        bytes: change.raw_bytes().to_vec(),
    })
}
