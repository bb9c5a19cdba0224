//! What admission remembers of a document's history while it is open, so that a change costs what the change is, not
//! what the document is. Every part is built when it is first needed, and forgotten when changes come in unexamined.

use super::schema::{Objects, Region};
use automerge::legacy::{ObjectId, OpId, OpType};
use automerge::{ActorId, Automerge, ChangeHash, ExpandedChange, ObjId, ReadDoc};
use std::collections::{HashMap, HashSet};

/// Who writes under an actor. An actor's changes are all the server's or all one phone's: admission lets no phone continue
/// a server's actor, and the server draws its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    Server,
    Phone,
}

/// An actor's latest change.
#[derive(Debug, Clone)]
pub(super) struct Latest {
    pub(super) seq: u64,
    pub(super) hash: ChangeHash,
    hand: Option<Hand>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    /// How many facts there are.
    facts: Option<usize>,
    actors: Option<HashMap<ActorId, Latest>>,
    /// The notes' characters, deleted ones included, that have been looked up, each with its change.
    characters: HashMap<OpId, ChangeHash>,
    /// The changes whose characters are in `characters`.
    scanned: HashSet<ChangeHash>,
    /// The plan revision in the causal history of changes that were asked about.
    knew: HashMap<ChangeHash, u64>,
}

impl Ledger {
    pub(super) fn facts(&mut self, doc: &Automerge, objects: &Objects) -> usize {
        *self.facts.get_or_insert_with(|| doc.length(&objects.facts))
    }

    pub(super) fn add_facts(&mut self, count: usize) {
        self.facts = self.facts.map(|facts| facts + count);
    }

    /// The actor's latest change, if it has one.
    pub(super) fn latest(&mut self, doc: &Automerge, actor: &ActorId) -> Option<&mut Latest> {
        self.actors.get_or_insert_with(|| latest_by_actor(doc)).get_mut(actor)
    }

    pub(super) fn set_latest(&mut self, actor: &ActorId, seq: u64, hash: ChangeHash, hand: Hand) {
        if let Some(actors) = &mut self.actors {
            actors.insert(actor.clone(), Latest { seq, hash, hand: Some(hand) });
        }
    }

    /// Who writes under an actor that has changes. The last change tells: a server's always writes plan or rulings.
    pub(super) fn hand(&mut self, doc: &Automerge, objects: &Objects, actor: &ActorId) -> Option<Hand> {
        if objects.genesis_actor() == Some(actor) {
            return Some(Hand::Server);
        }
        let latest = self.latest(doc, actor)?;
        if latest.hand.is_none() {
            let change = doc.get_change_by_hash(&latest.hash)?;
            let is_servers = |object: &ObjectId| matches!(objects.region(object), Region::Plan | Region::Rulings);
            let servers = change.decode().operations.iter().any(|op| is_servers(&op.obj));
            latest.hand = Some(if servers { Hand::Server } else { Hand::Phone });
        }
        latest.hand
    }

    /// The change that inserted this character into the notes; `None` when no change did.
    pub(super) fn character(&mut self, doc: &Automerge, objects: &Objects, id: &OpId) -> Option<ChangeHash> {
        if let Some(hash) = self.characters.get(id) {
            return Some(*hash);
        }
        // The index in the id is only a hint; Automerge looks the actor up when it does not fit.
        let hash = doc.hash_for_opid(&ObjId::Id(id.0, id.1.clone(), usize::MAX))?;
        if self.scanned.insert(hash) {
            self.add_characters(objects, &doc.get_change_by_hash(&hash)?.decode(), hash);
        }
        self.characters.get(id).copied()
    }

    pub(super) fn add_characters(&mut self, objects: &Objects, change: &ExpandedChange, hash: ChangeHash) {
        self.scanned.insert(hash);
        for (id, op) in numbered(change) {
            if op.insert && objects.region(&op.obj) == Region::Notes {
                self.characters.insert(id, hash);
            }
        }
    }

    pub(super) fn knew(&mut self, hash: ChangeHash, find: impl FnOnce() -> u64) -> u64 {
        *self.knew.entry(hash).or_insert_with(find)
    }
}

/// A change's operations with their ids.
pub(super) fn numbered(change: &ExpandedChange) -> impl Iterator<Item = (OpId, &automerge::legacy::Op)> {
    (change.start_op.get()..).zip(&change.operations).map(|(counter, op)| (OpId::new(counter, &change.actor_id), op))
}

fn latest_by_actor(doc: &Automerge) -> HashMap<ActorId, Latest> {
    let mut actors: HashMap<ActorId, Latest> = HashMap::new();
    for change in doc.get_changes_meta(&[]) {
        let latest = Latest { seq: change.seq, hash: change.hash, hand: None };
        match actors.get_mut(change.actor.as_ref()) {
            Some(known) if known.seq >= change.seq => {}
            Some(known) => *known = latest,
            None => drop(actors.insert(change.actor.into_owned(), latest)),
        }
    }
    actors
}

/// What an operation does, as a refusal names it.
pub(super) fn deed(action: &OpType) -> &'static str {
    match action {
        OpType::Make(_) => "a new object",
        OpType::Delete => "a deletion",
        OpType::Increment(_) => "an increment",
        OpType::Put(_) => "a value",
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => "a mark",
    }
}
