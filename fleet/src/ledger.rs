//! Ground truth: everything that simulated technicians did, written down beside the phones, so that the server's record
//! can be held against it at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use sync_core::domain::{ChecklistItemId, DispatchId, FactId, TechnicianId, Timestamp};

/// One thing a technician did on a phone, durable there.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// Who.
    pub technician: TechnicianId,
    /// On which visit.
    pub dispatch: DispatchId,
    /// What.
    pub what: What,
    /// The true time, which the phone may not know.
    pub at: Timestamp,
    /// The phone had no network.
    pub offline: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A fact was stated.
    Fact {
        /// Its id.
        id: FactId,
        /// Its kind's name.
        kind: &'static str,
    },
    /// A line was added to the notes.
    Note(String),
    /// A checklist item was answered.
    Answer(ChecklistItemId, String),
    /// The summary was set.
    Summary(String),
}

/// Everything done so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Deed>>>);

/// A deed that the server does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Missing(pub Deed);

/// What the server knows of one visit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerRecord {
    /// Facts in the document, whatever their ruling, and those kept in quarantine.
    pub facts: BTreeSet<FactId>,
    /// The notes.
    pub notes: String,
    /// Every answer ever kept for an item that is still standing: item -> values.
    pub answers: BTreeMap<ChecklistItemId, BTreeSet<String>>,
    /// The summary.
    pub summary: Option<String>,
}

impl Ledger {
    /// Writes a deed down.
    pub fn note(&self, deed: Deed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
    }

    /// Everything so far, in the order it was done.
    #[must_use]
    pub fn deeds(&self) -> Vec<Deed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many deeds so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True before anybody did anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits that somebody did something on.
    #[must_use]
    pub fn dispatches(&self) -> BTreeSet<DispatchId> {
        self.deeds().into_iter().map(|deed| deed.dispatch).collect()
    }

    /// Holds the server's records against the ledger.
    ///
    /// A summary is one register, and an answer is settled by a later one, so of those the last by each technician is
    /// looked for and any later value of somebody else will do.
    #[must_use]
    pub fn missing(&self, records: &BTreeMap<DispatchId, ServerRecord>) -> Vec<Missing> {
        let deeds = self.deeds();
        let nothing = ServerRecord::default();
        let mut missing = Vec::new();
        for (index, deed) in deeds.iter().enumerate() {
            let record = records.get(&deed.dispatch).unwrap_or(&nothing);
            let settled_later = |same: &dyn Fn(&What) -> bool| {
                deeds[index + 1..].iter().any(|later| later.dispatch == deed.dispatch && same(&later.what))
            };
            let known = match &deed.what {
                What::Fact { id, .. } => record.facts.contains(id),
                What::Note(text) => record.notes.contains(text.as_str()),
                What::Answer(item, value) => {
                    record.answers.get(item).is_some_and(|values| values.contains(value))
                        || (record.answers.contains_key(item)
                            && settled_later(&|what| matches!(what, What::Answer(other, _) if other == item)))
                }
                What::Summary(text) => {
                    record.summary.as_ref() == Some(text)
                        || (record.summary.is_some() && settled_later(&|what| matches!(what, What::Summary(_))))
                }
            };
            if !known {
                missing.push(Missing(deed.clone()));
            }
        }
        missing
    }
}

impl What {
    /// In a table.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Fact { id, kind } => format!("fact {kind} ({id})"),
            Self::Note(text) => format!("note {text:?}"),
            Self::Answer(item, value) => format!("answer {item} = {value:?}"),
            Self::Summary(text) => format!("summary {text:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn deed(what: What) -> Deed {
        Deed {
            technician: TechnicianId::new("TECH-10").unwrap(),
            dispatch: DispatchId::new("DSP-1").unwrap(),
            what,
            at: Timestamp::from_millis(0),
            offline: true,
        }
    }

    fn item(id: &str) -> ChecklistItemId {
        ChecklistItemId::new(id).unwrap()
    }

    #[test]
    fn a_fact_that_the_server_never_got_is_named() {
        let ledger = Ledger::default();
        let (kept, lost) = (FactId::new("f-1").unwrap(), FactId::new("f-2").unwrap());
        ledger.note(deed(What::Fact { id: kept.clone(), kind: "arrived" }));
        ledger.note(deed(What::Fact { id: lost.clone(), kind: "completed" }));
        let record = ServerRecord { facts: BTreeSet::from([kept]), ..ServerRecord::default() };
        let missing = ledger.missing(&BTreeMap::from([(DispatchId::new("DSP-1").unwrap(), record)]));
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].0.what, What::Fact { id: lost, kind: "completed" });
        assert_eq!(ledger.missing(&BTreeMap::new()).len(), 2, "an unknown visit has lost everything");
    }

    #[test]
    fn an_answer_settled_by_a_later_one_is_not_missed_but_a_lost_item_is() {
        let ledger = Ledger::default();
        ledger.note(deed(What::Answer(item("a"), "yes".into())));
        ledger.note(deed(What::Answer(item("a"), "no".into())));
        ledger.note(deed(What::Answer(item("b"), "7.2".into())));
        ledger.note(deed(What::Note("belt worn".into())));
        let record = ServerRecord {
            answers: BTreeMap::from([(item("a"), BTreeSet::from(["no".to_owned()]))]),
            notes: "belt worn; ordered".into(),
            ..ServerRecord::default()
        };
        let missing = ledger.missing(&BTreeMap::from([(DispatchId::new("DSP-1").unwrap(), record)]));
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].0.what.label().contains("answer b"));
    }
}
