//! Admission: a phone's change is authorised operation by operation before Automerge applies it.
//!
//! Never by patches or diffs: a write into an object that somebody deleted concurrently gives an empty diff, and would
//! pass. And never partly: a change is let in whole, or the document is untouched. A fact that comes too late, or
//! contradicts another, is let in; ruling on it is the conflict rules' work.
//!
//! Automerge assumes well-meaning peers. What it would answer with a panic, an endless loop, or a document that cannot be
//! opened again after saving is refused here; each refusal names what it protects.

use super::cbor::from_cbor;
use super::edit::{encoded, within};
use super::ledger::{Hand, deed, numbered};
use super::schema::{REVISION, Region, SUMMARY};
use super::view::read_fact;
use super::{Admission, Author, ChangeHash, EncodedChange, Refusal, VisitDoc, chunk};
use crate::domain::rules::admission::validate_fact;
use crate::domain::{Answer, ChecklistItemId, Fact};
use crate::protocol::limits::{ANSWER_BYTES_MAX, CHANGE_OPS_MAX, DOCUMENT_BYTES_MAX, FACTS_MAX, NOTE_CHARS_MAX};
use automerge::legacy::{ElementId, Key, Op, OpId, OpType};
use automerge::{Change, ExpandedChange, ObjId, ReadDoc, ScalarValue};
use std::collections::{HashMap, HashSet};

/// How much of [`DOCUMENT_BYTES_MAX`] phones may fill. The rest is the server's: it must be able to rule on every fact
/// that it has let in, and to change the plan of a full document.
const PHONES_BYTES_MAX: usize = DOCUMENT_BYTES_MAX / 4 * 3;
/// What a checklist answer's encoding may add to its text.
const ANSWER_OVERHEAD_BYTES: usize = 512;

/// Changes that were let in, and that Automerge has not applied yet: one application of many is much cheaper than many
/// of one. Only changes that do nothing but add facts wait here; everything else is held against an up-to-date document.
#[derive(Default)]
struct Waiting {
    changes: Vec<Change>,
    by_hash: HashMap<automerge::ChangeHash, Node>,
    facts: HashSet<String>,
    bytes: usize,
}

/// What a later change must know of a waiting one.
#[derive(Clone, Copy)]
struct Node {
    max_op: u64,
    knew_revision: u64,
}

impl VisitDoc {
    /// Authorises a phone's change operation by operation, and applies it.
    ///
    /// # Errors
    /// [`Refusal`]; the document is untouched.
    pub fn admit(&mut self, author: &Author<'_>, bytes: &[u8]) -> Result<Admission, Refusal> {
        match self.admit_batch(author, &[bytes]) {
            (mut admissions, None) => admissions.pop().ok_or(UNAPPLICABLE),
            (_, Some(refusal)) => Err(refusal),
        }
    }

    /// Admits changes in order until one is refused: the admissions of the longest prefix, and the refusal of the change
    /// after it. Much cheaper than as many calls of [`Self::admit`].
    #[must_use]
    pub fn admit_batch(
        &mut self,
        author: &Author<'_>,
        changes: &[impl AsRef<[u8]>],
    ) -> (Vec<Admission>, Option<Refusal>) {
        let mut waiting = Waiting::default();
        let mut admissions = Vec::with_capacity(changes.len());
        let mut refusal = None;
        for bytes in changes {
            match self.examine(author, bytes.as_ref(), &mut waiting) {
                Ok(admission) => admissions.push(admission),
                Err(refused) => {
                    refusal = Some(refused);
                    break;
                }
            }
        }
        if let Err(refused) = self.settle(&mut waiting) {
            admissions.retain(|admission| admission.duplicate || self.has_change(&admission.change.hash));
            refusal = Some(refused);
        }
        (admissions, refusal)
    }

    /// Applies what waits.
    fn settle(&mut self, waiting: &mut Waiting) -> Result<(), Refusal> {
        let Waiting { changes, facts, bytes, .. } = std::mem::take(waiting);
        if changes.is_empty() {
            return Ok(());
        }
        // Automerge checks a batch before it begins to apply it, and everything it checks was checked.
        if self.doc.apply_changes(changes).is_err() {
            self.ledger = Default::default();
            return Err(UNAPPLICABLE);
        }
        self.ledger.add_facts(facts.len());
        self.bytes += bytes;
        Ok(())
    }

    /// Decides about one change, and applies it or lets it wait.
    fn examine(&mut self, author: &Author<'_>, bytes: &[u8], waiting: &mut Waiting) -> Result<Admission, Refusal> {
        let hash = chunk::identify(bytes)?;
        if waiting.by_hash.contains_key(&(&hash).into()) || self.has_change(&hash) {
            return duplicate(hash, bytes);
        }
        within("operations", CHANGE_OPS_MAX, chunk::survey(bytes)?)?;
        let change = Change::try_from(bytes).map_err(|_| Refusal::Malformed("its columns cannot be read"))?;
        let expanded = change.decode();
        // Automerge saves operations, not chunks, and encodes the chunk anew when it loads. One that was encoded in another
        // way would get another hash there, and the document could not be opened any more.
        if Change::from(expanded.clone()).raw_bytes() != bytes {
            return Err(Refusal::Malformed("it is not encoded as Automerge encodes"));
        }
        let node = self.causes(&expanded, waiting)?;
        self.sequence(&expanded)?;
        self.room_for(bytes.len(), waiting)?;

        let regions: Vec<_> = expanded.operations.iter().map(|op| self.objects.region(&op.obj)).collect();
        if regions.iter().any(|region| *region != Region::Facts) {
            self.settle(waiting)?;
        }
        let mut writes = Writes::default();
        for ((id, op), region) in numbered(&expanded).zip(&regions) {
            self.authorise(author, &expanded, &id, op, *region, &mut writes, waiting)?;
        }
        if !writes.facts.is_empty() {
            let here = self.ledger.facts(&self.doc, &self.objects) + waiting.facts.len();
            within("facts", FACTS_MAX, here + writes.facts.len())?;
        }
        if writes.inserted > 0 {
            let length = self.doc.length(&self.objects.notes);
            within(
                "characters of notes",
                NOTE_CHARS_MAX,
                (length + writes.inserted).saturating_sub(writes.deleted.len()),
            )?;
        }

        let encoded = encoded(&change).ok_or(UNAPPLICABLE)?;
        self.ledger.set_latest(change.actor_id(), change.seq(), change.hash(), Hand::Phone);
        self.ledger.knew(change.hash(), || node.knew_revision);
        if writes.inserted > 0 {
            self.ledger.add_characters(&self.objects, &expanded, change.hash());
        }
        waiting.by_hash.insert(change.hash(), node);
        waiting.bytes += bytes.len();
        waiting.facts.extend(writes.facts.iter().map(|fact| fact.id.as_str().to_owned()));
        waiting.changes.push(change);
        if regions.iter().any(|region| *region != Region::Facts) || regions.is_empty() {
            self.settle(waiting)?;
        }
        Ok(Admission {
            change: encoded,
            duplicate: false,
            facts: writes.facts.into_iter().map(|fact| (fact, node.knew_revision)).collect(),
            edits_report: regions.iter().any(|region| *region != Region::Facts),
        })
    }

    /// The change's place in the history: its dependencies are here, and its operations are numbered after theirs.
    fn causes(&mut self, change: &ExpandedChange, waiting: &Waiting) -> Result<Node, Refusal> {
        if change.deps.is_empty() || !change.deps.is_sorted_by(|a, b| a < b) {
            return Err(Refusal::Malformed("its dependencies are none, or not in order"));
        }
        let mut before = Node { max_op: 0, knew_revision: 0 };
        for dep in &change.deps {
            let (max_op, knew_revision) = match waiting.by_hash.get(dep) {
                Some(node) => (node.max_op, node.knew_revision),
                None => {
                    let meta = self.doc.get_change_meta_by_hash(dep).ok_or(Refusal::CausallyOpen)?;
                    (meta.max_op, self.knew(*dep))
                }
            };
            before.max_op = before.max_op.max(max_op);
            before.knew_revision = before.knew_revision.max(knew_revision);
        }
        // A number too low repeats an operation's id, one too high uses up the numbers of everybody after it.
        if change.start_op.get() != before.max_op + 1 {
            return Err(Refusal::Malformed("its operations are not numbered after those it depends on"));
        }
        Ok(Node { max_op: before.max_op + change.operations.len() as u64, ..before })
    }

    /// The plan revision in a change's causal history. The plan has one writer, so that the highest revision of several
    /// histories is that of their union.
    fn knew(&mut self, hash: automerge::ChangeHash) -> u64 {
        let (doc, plan) = (&self.doc, &self.objects.plan);
        self.ledger.knew(hash, || match doc.get_at(plan, REVISION, &[hash]) {
            Ok(Some((value, _))) => value.as_u64().unwrap_or(0),
            _ => 0,
        })
    }

    /// The change is the actor's next, and the actor is a phone's.
    fn sequence(&mut self, change: &ExpandedChange) -> Result<(), Refusal> {
        let taken = Refusal::DuplicateSequence(change.seq);
        if self.ledger.hand(&self.doc, &self.objects, &change.actor_id) == Some(Hand::Server) {
            return Err(Refusal::Forbidden("as an actor of the server".into()));
        }
        match self.ledger.latest(&self.doc, &change.actor_id) {
            None if change.seq == 1 => Ok(()),
            // Automerge always names the actor's last change; a change that does not would run beside it.
            Some(latest) if latest.seq + 1 == change.seq && change.deps.contains(&latest.hash) => Ok(()),
            _ => Err(taken),
        }
    }

    /// Saving is what tells how large a document is; between savings the sum of the changes is an upper bound.
    fn room_for(&mut self, bytes: usize, waiting: &mut Waiting) -> Result<(), Refusal> {
        if self.bytes + waiting.bytes + bytes > PHONES_BYTES_MAX {
            self.settle(waiting)?;
            self.bytes = self.save().len();
        }
        within("document bytes", PHONES_BYTES_MAX, self.bytes + waiting.bytes + bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "one operation's whole context; no subset is a thing of its own")]
    fn authorise(
        &mut self,
        author: &Author<'_>,
        change: &ExpandedChange,
        id: &OpId,
        op: &Op,
        region: Region,
        writes: &mut Writes,
        waiting: &Waiting,
    ) -> Result<(), Refusal> {
        match region {
            Region::Facts => {
                let Some(fact) = self.authorise_fact(author, op, waiting)? else { return Ok(()) };
                if writes.facts.iter().any(|other| other.id == fact.id) {
                    return Err(forbidden(region, op));
                }
                writes.facts.push(fact);
                Ok(())
            }
            Region::Notes => self.authorise_note(change, id, op, writes),
            Region::Checklist => {
                let (item, value) = put(op).ok_or_else(|| forbidden(region, op))?;
                let (ScalarValue::Bytes(bytes), Ok(_)) = (value, ChecklistItemId::new(item)) else {
                    return Err(forbidden(region, op));
                };
                within("bytes of an answer", ANSWER_BYTES_MAX + ANSWER_OVERHEAD_BYTES, bytes.len())?;
                let answer: Answer = from_cbor(bytes).ok_or_else(|| forbidden(region, op))?;
                within("bytes of an answer", ANSWER_BYTES_MAX, answer.value.len())?;
                if answer.by != *author.technician {
                    return Err(forbidden(region, op));
                }
                let checklist = self.objects.checklist.clone();
                self.authorise_overwrite(change, id, op, region, &checklist, item, writes)
            }
            Region::Report => match put(op) {
                Some((SUMMARY, ScalarValue::Str(text))) => {
                    within("bytes of the summary", ANSWER_BYTES_MAX, text.len())?;
                    let report = self.objects.report.clone();
                    self.authorise_overwrite(change, id, op, region, &report, SUMMARY, writes)
                }
                _ => Err(forbidden(region, op)),
            },
            Region::Root | Region::Plan | Region::Rulings | Region::Elsewhere => Err(forbidden(region, op)),
        }
    }

    /// A fact is added under a new key, by the one whom it names. `None` for the very fact that is here already: a phone made
    /// it again on an older copy, while its first change was still on the way. It says nothing new, and is no effect.
    fn authorise_fact(&self, author: &Author<'_>, op: &Op, waiting: &Waiting) -> Result<Option<Fact>, Refusal> {
        let refused = || forbidden(Region::Facts, op);
        let (key, ScalarValue::Bytes(bytes)) = put(op).ok_or_else(refused)? else { return Err(refused()) };
        // Also when the one who writes has not seen it: a fact is never overwritten, not even beside its author.
        if !op.pred.is_empty() || waiting.facts.contains(key) {
            return Err(refused());
        }
        let here = self.facts_at(key);
        if !here.iter().all(|there| there == bytes) {
            return Err(refused());
        }
        let fact =
            read_fact(key, bytes).ok_or_else(|| Refusal::BadFact("it is no fact, or its id is not its key".into()))?;
        if fact.technician != *author.technician {
            return Err(Refusal::BadFact(format!("it names technician {}", fact.technician)));
        }
        if fact.device != *author.device {
            return Err(Refusal::BadFact(format!("it names device {}", fact.device)));
        }
        validate_fact(&fact).map_err(Refusal::BadFact)?;
        Ok(here.is_empty().then_some(fact))
    }

    /// Text is inserted after a character that the sender has seen, or deleted where it stands. Automerge panics on a
    /// character that is not there, or that comes later than what refers to it.
    fn authorise_note(
        &mut self,
        change: &ExpandedChange,
        id: &OpId,
        op: &Op,
        writes: &mut Writes,
    ) -> Result<(), Refusal> {
        let refused = || forbidden(Region::Notes, op);
        let Key::Seq(element) = &op.key else { return Err(refused()) };
        match &op.action {
            OpType::Put(ScalarValue::Str(text)) if op.insert && op.pred.is_empty() => {
                let mut characters = text.chars();
                if characters.next().is_none() || characters.next().is_some() {
                    return Err(refused());
                }
                if let ElementId::Id(after) = element {
                    self.authorise_reference(change, after, writes).ok_or_else(refused)?;
                }
                writes.inserted += 1;
                writes.characters.insert(id.clone());
                Ok(())
            }
            OpType::Delete if !op.insert => {
                let ElementId::Id(deleted) = element else { return Err(refused()) };
                // A character is only ever inserted and deleted, so that it is its own only predecessor.
                if op.pred.len() != 1 || op.pred.get(0) != Some(deleted) || !writes.deleted.insert(deleted.clone()) {
                    return Err(refused());
                }
                self.authorise_reference(change, deleted, writes).ok_or_else(refused)
            }
            _ => Err(refused()),
        }
    }

    /// A reference to a character: of this change, before; or in the change's causal history.
    fn authorise_reference(&mut self, change: &ExpandedChange, id: &OpId, writes: &mut Writes) -> Option<()> {
        if writes.characters.contains(id) {
            return Some(());
        }
        let made_by = self.ledger.character(&self.doc, &self.objects, id)?;
        let doc = &self.doc;
        let unseen = writes.unseen.get_or_insert_with(|| {
            if doc.get_heads() == change.deps {
                return HashSet::new();
            }
            doc.get_changes_meta(&change.deps).into_iter().map(|meta| meta.hash).collect()
        });
        (!unseen.contains(&made_by)).then_some(())
    }

    /// A register is overwritten where the sender saw it. A predecessor elsewhere would hide what lies there from some
    /// copies, and not from others.
    #[expect(clippy::too_many_arguments, reason = "one operation's whole context; no subset is a thing of its own")]
    fn authorise_overwrite(
        &self,
        change: &ExpandedChange,
        id: &OpId,
        op: &Op,
        region: Region,
        map: &ObjId,
        key: &str,
        writes: &mut Writes,
    ) -> Result<(), Refusal> {
        let seen = self.doc.get_all_at(map, key, &change.deps).map_err(|_| forbidden(region, op))?;
        let own = writes.registers.entry((region.name(), key.to_owned())).or_default();
        let saw = |pred: &OpId| {
            own.contains(pred)
                || seen
                    .iter()
                    .any(|(_, id)| matches!(id, ObjId::Id(counter, actor, _) if *counter == pred.0 && *actor == pred.1))
        };
        if !op.pred.iter().all(saw) {
            return Err(forbidden(region, op));
        }
        own.push(id.clone());
        Ok(())
    }

    /// What stands under a fact's key; something that is no fact is empty, and so equal to none.
    fn facts_at(&self, key: &str) -> Vec<Vec<u8>> {
        // An error is impossible: facts is a map.
        let there = self.doc.get_all(&self.objects.facts, key).unwrap_or_default();
        there.into_iter().map(|(value, _)| value.into_bytes().unwrap_or_default()).collect()
    }
}

/// What the operations of one change have done so far.
#[derive(Default)]
struct Writes {
    facts: Vec<Fact>,
    /// Characters that the change inserts.
    characters: HashSet<OpId>,
    inserted: usize,
    deleted: HashSet<OpId>,
    /// The writes to each register, so that a later one may replace an earlier one.
    registers: HashMap<(&'static str, String), Vec<OpId>>,
    /// Changes that the sender had not seen.
    unseen: Option<HashSet<automerge::ChangeHash>>,
}

/// A plain write of a map entry.
fn put(op: &Op) -> Option<(&str, &ScalarValue)> {
    match (&op.key, &op.action) {
        (Key::Map(key), OpType::Put(value)) if !op.insert => Some((key.as_str(), value)),
        _ => None,
    }
}

/// Keys come from outside: a refusal quotes so many characters.
const QUOTED_CHARS_MAX: usize = 64;

fn forbidden(region: Region, op: &Op) -> Refusal {
    let deed = match &op.action {
        OpType::Put(_) => String::new(),
        action => format!(" ({})", deed(action)),
    };
    Refusal::Forbidden(match &op.key {
        Key::Map(key) => {
            let key: String = key.chars().take(QUOTED_CHARS_MAX).collect();
            format!("{}.{key}{deed}", region.name())
        }
        Key::Seq(_) => format!("{}{deed}", region.name()),
    })
}

fn duplicate(hash: ChangeHash, bytes: &[u8]) -> Result<Admission, Refusal> {
    let change = Change::try_from(bytes).map_err(|_| UNAPPLICABLE)?;
    let EncodedChange { actor, bytes, .. } = encoded(&change).ok_or(UNAPPLICABLE)?;
    Ok(Admission {
        change: EncodedChange { hash, actor, bytes },
        duplicate: true,
        facts: Vec::new(),
        edits_report: false,
    })
}

const UNAPPLICABLE: Refusal = Refusal::Malformed("Automerge could not apply it");
