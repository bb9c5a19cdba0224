//! Making edits again on the server's copy, under a fresh actor: after a refusal, a restore, or a server that went back.

use super::outbox::OutboxRow;
use super::phone::random_actor;
use super::{StoreError, Tx};
use crate::document::{Edit, VisitDoc};
use crate::domain::{DispatchId, Fact, Timestamp};
use std::collections::BTreeSet;

impl Tx<'_> {
    /// Makes a lane's unacknowledged edits again on `doc`, the server's copy, in their order.
    ///
    /// What the server's copy has already is acknowledged instead: a fact keeps its id through every re-making, so it can
    /// be recognised. A fact that another device had stated, from before a restore, is stated under this one's name, and
    /// so are all after it in the lane, because sequence numbers order a device's facts. A fact of this device that only
    /// the former document has, because its outbox row was damaged, is queued anew.
    pub(super) fn rebase(
        &mut self,
        dispatch: &DispatchId,
        doc: &mut VisitDoc,
        former: Option<&VisitDoc>,
        rows: Vec<OutboxRow>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
    ) -> Result<(), StoreError> {
        let there = doc.view().facts;
        let lost = former.map(|former| self.facts_without_row(former, doc, &rows)).unwrap_or_default();
        self.phone.actor = random_actor(rng);
        let mut renumber = false;
        for row in rows {
            let known = match &row.edit {
                Edit::Fact { fact } => there.contains_key(&fact.id),
                Edit::Note { .. } | Edit::Answer { .. } | Edit::Summary { .. } => false,
            };
            if known || doc.has_change(&row.hash) {
                self.acknowledge(row.id, now)?;
                continue;
            }
            if row.parked {
                continue;
            }
            let mut edit = row.edit;
            if let Edit::Fact { fact } = &mut edit {
                renumber |= fact.device != self.phone.device;
                if renumber {
                    self.restate(fact);
                }
            }
            match doc.edit(self.phone.actor, &edit, row.made_at) {
                Ok(change) => {
                    self.drop_row(row.id)?;
                    self.enqueue(dispatch, &edit, &change, row.made_at)?;
                }
                Err(refusal) => self.park(row.id, refusal.code(), &refusal.to_string())?,
            }
        }
        for fact in lost {
            let made_at = fact.clock.wall;
            let edit = Edit::Fact { fact };
            if let Ok(change) = doc.edit(self.phone.actor, &edit, made_at) {
                self.enqueue(dispatch, &edit, &change, made_at)?;
            }
        }
        Ok(())
    }

    fn restate(&mut self, fact: &mut Fact) {
        self.phone.last_seq += 1;
        fact.device = self.phone.device.clone();
        fact.seq = self.phone.last_seq;
    }

    /// This device's facts that the former document has, and neither the server's copy nor the outbox.
    fn facts_without_row(&self, former: &VisitDoc, server: &VisitDoc, rows: &[OutboxRow]) -> Vec<Fact> {
        let queued: BTreeSet<_> = rows
            .iter()
            .filter_map(|row| match &row.edit {
                Edit::Fact { fact } => Some(&fact.id),
                Edit::Note { .. } | Edit::Answer { .. } | Edit::Summary { .. } => None,
            })
            .collect();
        let there = server.view().facts;
        let mut lost: Vec<_> = former
            .view()
            .facts
            .into_values()
            .filter(|fact| fact.device == self.phone.device)
            .filter(|fact| !queued.contains(&fact.id) && !there.contains_key(&fact.id))
            .collect();
        lost.sort_by_key(|fact| fact.seq);
        lost
    }
}
