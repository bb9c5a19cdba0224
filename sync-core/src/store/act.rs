//! The technician acts: the hot path, durable before it returns.

use super::phone::random_hex;
use super::{ActError, Store, StoreError, Tx};
use crate::document::{Edit, Refusal};
use crate::domain::fact::FACT_SCHEMA;
use crate::domain::rules::legal::{IllegalAct, legal_next};
use crate::domain::{
    Answer, BootId, ChecklistItemId, DispatchId, Fact, FactId, FactKind, Position, Timestamp, VisitCard,
};
use crate::protocol::limits::DOCUMENT_BYTES_MAX;

/// What the phone's clocks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNow {
    /// Wall time; may be wrong.
    pub wall: Timestamp,
    /// Milliseconds since `boot`.
    pub monotonic_ms: u64,
    /// The boot that `monotonic_ms` counts from.
    pub boot: BootId,
}

/// What a technician does to a visit, before the store adds ids, sequence numbers and clocks.
#[derive(Debug, Clone, PartialEq)]
pub enum NewEdit {
    /// States a fact.
    Fact(FactKind),
    /// Replaces `delete` characters of the notes at `at` by `insert`.
    Note {
        /// Position in characters.
        at: usize,
        /// How many to delete.
        delete: usize,
        /// What to insert.
        insert: String,
    },
    /// Answers a checklist item.
    Answer {
        /// Which item.
        item: ChecklistItemId,
        /// The answer as entered.
        value: String,
    },
    /// Sets the summary.
    Summary(String),
}

/// A stored action.
#[derive(Debug, Clone, PartialEq)]
pub struct Acted {
    /// The fact's id, when it was a fact.
    pub fact: Option<FactId>,
    /// The fact's sequence number, when it was a fact.
    pub seq: Option<u64>,
    /// The visit afterwards.
    pub card: VisitCard,
    /// Unacknowledged changes on this phone, this one included.
    pub pending: u32,
}

impl Store {
    /// Takes an action. It is on disk when this returns.
    ///
    /// # Errors
    /// [`ActError`]; nothing was stored.
    pub fn act(
        &self,
        dispatch: &DispatchId,
        edit: NewEdit,
        now: &DeviceNow,
        position: Option<Position>,
        rng: &mut dyn rand::Rng,
    ) -> Result<Acted, ActError> {
        let result = self.write(|tx| act(tx, dispatch, edit, now, position, rng));
        if let Err(ActError::Store(StoreError::VisitDamaged(_))) = &result {
            self.write(|tx| tx.quarantine_visit(dispatch))?;
        }
        result
    }
}

fn act(
    tx: &mut Tx<'_>,
    dispatch: &DispatchId,
    edit: NewEdit,
    now: &DeviceNow,
    position: Option<Position>,
    rng: &mut dyn rand::Rng,
) -> Result<Acted, ActError> {
    let (_, technician) = tx.phone.user.clone().ok_or(ActError::NoUser)?;
    let mut open = tx.open_visit(dispatch).map_err(|error| match error {
        StoreError::NotFound(dispatch) => ActError::NotFound(dispatch),
        other => ActError::Store(other),
    })?;
    if !open.head.held {
        return Err(ActError::NotFound(dispatch.clone()));
    }
    let edit = match edit {
        NewEdit::Fact(kind) => {
            let state = open.state();
            let illegal = |why| ActError::Illegal { action: kind.name(), status: state.status, why };
            legal_next(&open.view.plan, &state, &technician, &kind).map_err(illegal)?;
            let epoch = open.view.plan.epoch_for(&technician).ok_or_else(|| illegal(IllegalAct::NotAssigned))?;
            tx.phone.last_seq += 1;
            Edit::Fact {
                fact: Fact {
                    schema: FACT_SCHEMA,
                    id: random_fact_id(rng)?,
                    epoch,
                    technician,
                    device: tx.phone.device.clone(),
                    seq: tx.phone.last_seq,
                    clock: tx.phone.read_clock(now),
                    position,
                    kind,
                },
            }
        }
        NewEdit::Note { at, delete, insert } => Edit::Note { at, delete, insert },
        NewEdit::Answer { item, value } => {
            Edit::Answer { item, answer: Answer { value, by: technician, at: now.wall } }
        }
        NewEdit::Summary(text) => Edit::Summary { text },
    };
    let change = open.doc.edit(tx.phone.actor, &edit, now.wall)?;
    open.append(&change.bytes);
    if open.len() > DOCUMENT_BYTES_MAX {
        return Err(Refusal::TooLarge { what: "document bytes", limit: DOCUMENT_BYTES_MAX, actual: open.len() }.into());
    }
    let (fact, seq) = match &edit {
        Edit::Fact { fact } => {
            open.view.facts.insert(fact.id.clone(), fact.clone());
            (Some(fact.id.clone()), Some(fact.seq))
        }
        _ => (None, None),
    };
    let card = open.card(dispatch);
    tx.store_edited(dispatch, &mut open, &card)?;
    tx.open.keep(dispatch, open);
    tx.enqueue(dispatch, &edit, &change, now.wall)?;
    Ok(Acted { fact, seq, card, pending: tx.pending })
}

fn random_fact_id(rng: &mut dyn rand::Rng) -> Result<FactId, StoreError> {
    FactId::new(format!("fact-{}", random_hex(rng))).map_err(|e| StoreError::Database(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{ActorKey, VisitDoc};
    use crate::domain::plan::Assignment;
    use crate::domain::{Plan, fold};
    use crate::protocol::{Cursor, FeedItem};
    use crate::store::{FeedBatch, OpenOptions, Protection};
    use rand::SeedableRng as _;

    fn phone_with_a_visit(path: &std::path::Path, dispatch: &DispatchId) -> Store {
        let (now, mut rng) = (Timestamp::from_millis(0), rand::rngs::StdRng::seed_from_u64(1));
        let options = OpenOptions { app: "tests".into(), now, protection: Protection::Unencrypted };
        let store = Store::open(path, &options, &mut rng).unwrap().store;
        let technician: crate::domain::TechnicianId = "TECH-10".parse().unwrap();
        store.bind_user(&"tenant-001".parse().unwrap(), &technician, &mut rng).unwrap();
        let assignment = Assignment {
            epoch: 1,
            lead: technician,
            crew: Vec::new(),
            continues: Vec::new(),
            offered_at: now,
            offered_by: "office".parse().unwrap(),
        };
        let plan = Plan { assignment: Some(assignment), epoch: 1, ..Plan::default() };
        let (document, _) = VisitDoc::genesis(ActorKey([7; 16]), &plan, now);
        let card = VisitCard::new(dispatch.clone(), &plan, &fold(&document.view()));
        let items = vec![FeedItem::Snapshot {
            dispatch: dispatch.clone(),
            document: document.save().into(),
            card,
            tag: document.tag(),
        }];
        let batch = FeedBatch { from: Cursor(0), to: Cursor(1), reset: false, more: false, digest: None, items };
        store.apply_batch(batch, now, &mut rng).unwrap();
        store
    }

    /// The disk fills up under the technician's hands, and somebody deletes a film.
    #[test]
    fn a_full_disk_refuses_the_action_and_keeps_what_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("visits.db");
        let dispatch: DispatchId = "DSP-100".parse().unwrap();
        let store = phone_with_a_visit(&path, &dispatch);
        let now = DeviceNow { wall: Timestamp::from_millis(1), monotonic_ms: 1, boot: "boot-1".parse().unwrap() };
        let mut rng = rand::rngs::StdRng::seed_from_u64(2);
        let mut works = |store: &Store| {
            let edit = NewEdit::Fact(FactKind::TimeEntry { category: "labour ".repeat(50), minutes: 1 });
            store.act(&dispatch, edit, &now, None, &mut rng)
        };
        let pages = |limit: i64| {
            let set = |writer: &mut super::super::Writer| {
                Ok(writer.conn.pragma_update_and_check(None, "max_page_count", limit, |row| row.get::<_, i64>(0))?)
            };
            store.with_writer(set).unwrap()
        };
        // Never below what the file has: SQLite answers what it made of it.
        pages(pages(1) + 4);
        let mut taken = 0;
        let full = loop {
            match works(&store) {
                Ok(acted) => taken = acted.pending,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, ActError::Store(StoreError::DiskFull)), "{full}");
        assert!(taken > 0);
        assert_eq!(store.outbox_mark().unwrap().pending, taken);
        assert!(store.visit(&dispatch).is_ok(), "reading goes on");

        pages(1_000_000);
        assert_eq!(works(&store).unwrap().pending, taken + 1);
        store.close().unwrap();
    }
}
