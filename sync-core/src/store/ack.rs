//! The server's answer to a push.

use super::lanes::needs_fetch;
use super::rows::Put;
use super::{SentLane, Store, StoreError, Tx, rows};
use crate::document::{Edit, VisitDoc};
use crate::domain::{DispatchId, Timestamp};
use crate::protocol::{Cursor, FactVerdict, FeedRange, LaneAck, LaneRefusal, LaneUpdate, Remedy};
use std::collections::HashMap;

/// What an acknowledgement changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AckApplied {
    /// Changes that are durable on the server now.
    pub acknowledged: u32,
    /// Changes that were parked.
    pub parked: u32,
    /// Lanes that shall be sent again after a while.
    pub retry: Vec<DispatchId>,
    /// Lanes whose kept changes were queued again and can be sent at once.
    pub resend: Vec<DispatchId>,
    /// Visits whose list entry or content changed.
    pub changed: Vec<DispatchId>,
    /// Visits to be fetched whole.
    pub needs_fetch: Vec<DispatchId>,
    /// Verdicts for the technician.
    pub verdicts: Vec<(DispatchId, FactVerdict)>,
    /// The cursor afterwards.
    pub cursor: Cursor,
    /// The cursor moved on, so that the server wants a receipt.
    pub cursor_moved: bool,
    /// Whether the digest is the server's, where it told one that can be compared.
    pub digest_matches: Option<bool>,
}

impl Store {
    /// Stores the answer to a push, in one transaction.
    ///
    /// # Errors
    /// The database's; everything is still queued then, and is sent again.
    pub fn push_acknowledged(
        &self,
        sent: &[SentLane],
        lanes: &[LaneAck],
        feed: Option<&FeedRange>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
    ) -> Result<AckApplied, StoreError> {
        self.write(|tx| {
            let mut applied = AckApplied::default();
            let mut tags_known = true;
            let answers: HashMap<_, _> = lanes.iter().map(|ack| (&ack.dispatch, ack)).collect();
            for lane in sent {
                if let Some(ack) = answers.get(&lane.lane.dispatch) {
                    tags_known &= tx.lane_answered(lane, ack, now, rng, &mut applied)?;
                }
            }
            if let Some(range) = feed.filter(|range| range.from <= tx.phone.cursor) {
                applied.cursor_moved = range.to > tx.phone.cursor;
                tx.phone.cursor = tx.phone.cursor.max(range.to);
                applied.digest_matches = range
                    .digest
                    .filter(|_| tags_known && tx.phone.cursor == range.to)
                    .map(|digest| digest == tx.phone.digest);
            }
            applied.cursor = tx.phone.cursor;
            applied.needs_fetch = needs_fetch(tx.sql)?;
            Ok(applied)
        })
    }
}

/// `lanes.resent`: the receipts were queued again.
const RECEIPTS_QUEUED_AGAIN: i64 = 1;
/// `lanes.resent`: the edits were made again on what the server sent with a refusal.
const MADE_ON_GROUND: i64 = 2;

/// A lane of which a change was refused.
#[derive(Clone, Copy)]
struct Refused<'a> {
    dispatch: &'a DispatchId,
    /// The change's row in the outbox.
    row: i64,
    refusal: &'a LaneRefusal,
    /// The visit is still this phone's.
    held: bool,
}

impl Tx<'_> {
    /// One lane's answer. False when the visit's tag on the server is not known now.
    fn lane_answered(
        &mut self,
        sent: &SentLane,
        ack: &LaneAck,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut AckApplied,
    ) -> Result<bool, StoreError> {
        let dispatch = &ack.dispatch;
        let accepted = usize::try_from(ack.accepted).unwrap_or(usize::MAX).min(sent.rows.len());
        let (done, rest) = sent.rows.split_at(accepted);
        for id in done {
            applied.acknowledged += self.acknowledge(*id, now)?;
        }
        applied.verdicts.extend(ack.verdicts.iter().map(|verdict| (dispatch.clone(), verdict.clone())));
        let head = rows::head(self.sql, dispatch)?;
        match (&ack.refusal, rest.first()) {
            (Some(refusal), Some(refused)) => {
                let held = head.as_ref().is_some_and(|head| head.held);
                let refused = Refused { dispatch, row: *refused, refusal, held };
                self.lane_refused(&refused, now, rng, applied)?;
            }
            _ => self.lane_moved_on(dispatch)?,
        }
        let Some(head) = head else { return Ok(true) };
        let unsent = self.has_unsent(dispatch)?;
        if !head.held {
            if !unsent {
                // It was kept for what has arrived now.
                self.let_go(dispatch)?;
            }
            return Ok(true);
        }
        match &ack.update {
            Some(update) => self.take_update(dispatch, update, applied)?,
            None if accepted == 0 => {}
            // It had all of them already, and may have added something in an answer that was lost: the feed will tell.
            None => return Ok(false),
        }
        if accepted > 0 && ack.update.is_none() {
            applied.changed.push(dispatch.clone());
        }
        Ok(true)
    }

    fn lane_moved_on(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "UPDATE lanes SET attempts = 0, resent = resent AND \
                 EXISTS (SELECT 1 FROM outbox o WHERE o.dispatch_id = lanes.dispatch_id AND o.state = 'queued') \
                 WHERE dispatch_id = ?1",
            )?
            .execute([dispatch.as_str()])?;
        Ok(())
    }

    fn lane_refused(
        &mut self,
        refused: &Refused<'_>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
        let Refused { dispatch, row, refusal, held } = *refused;
        match refusal.remedy {
            Remedy::Retry => {
                self.sql
                    .prepare_cached(
                        "INSERT INTO lanes (dispatch_id, attempts) VALUES (?1, 1) \
                         ON CONFLICT (dispatch_id) DO UPDATE SET attempts = attempts + 1",
                    )?
                    .execute([dispatch.as_str()])?;
                applied.retry.push(dispatch.clone());
            }
            Remedy::Rebase if held || refusal.ground.is_some() => {
                // A fact in the name of another device was made before a restore, or a revocation: it is stated anew.
                if !self.names_another_device(dispatch, row)? {
                    self.park(row, &refusal.code, &refusal.message)?;
                    applied.parked += 1;
                }
                self.make_again(refused, now, rng, applied)?;
            }
            Remedy::Resend => self.resend(refused, now, rng, applied)?,
            // Without a copy of the server's there is nothing to rebase on.
            Remedy::Rebase | Remedy::Park | Remedy::Unknown => {
                applied.parked += self.park_lane(dispatch, &refusal.code, &refusal.message)?;
            }
        }
        Ok(())
    }

    fn names_another_device(&mut self, dispatch: &DispatchId, row: i64) -> Result<bool, StoreError> {
        let rows = self.lane_rows(dispatch)?;
        let edit = rows.into_iter().find(|other| other.id == row).map(|other| other.edit);
        Ok(matches!(edit, Some(Edit::Fact { fact }) if fact.device != self.phone.device))
    }

    /// Queues the lane's receipts again, once. When that does not help, or there are none, the server lacks something that
    /// this phone never made or has no more: its edits are made again.
    fn resend(
        &mut self,
        refused: &Refused<'_>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
        let dispatch = refused.dispatch;
        let first_time = !self
            .sql
            .prepare_cached("SELECT 1 FROM lanes WHERE dispatch_id = ?1 AND resent <> 0")?
            .exists([dispatch.as_str()])?;
        if first_time && self.requeue_receipts(Some(dispatch))? > 0 {
            self.set_resent(dispatch, RECEIPTS_QUEUED_AGAIN)?;
            applied.resend.push(dispatch.clone());
            return Ok(());
        }
        self.make_again(refused, now, rng, applied)
    }

    /// A visit that is here is fetched, and the edits are made again on the server's copy. One that has left is not to be had:
    /// they are made again on that part of it which the server sends with the refusal. Once: when even that is refused, a
    /// person must look.
    fn make_again(
        &mut self,
        refused: &Refused<'_>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
        let Refused { dispatch, refusal, held, .. } = *refused;
        if held {
            return self.need_rebase(dispatch);
        }
        let made_already = self
            .sql
            .prepare_cached("SELECT 1 FROM lanes WHERE dispatch_id = ?1 AND resent = ?2")?
            .exists((dispatch.as_str(), MADE_ON_GROUND))?;
        let ground = refusal.ground.as_ref().filter(|_| !made_already).and_then(|saved| VisitDoc::load(saved).ok());
        let Some(mut doc) = ground else {
            applied.parked += self.park_lane(dispatch, &refusal.code, &refusal.message)?;
            return Ok(());
        };
        let rows = self.lane_rows(dispatch)?;
        self.rebase(dispatch, &mut doc, None, rows, now, rng)?;
        self.set_resent(dispatch, MADE_ON_GROUND)?;
        if let Some((head, card)) = rows::head(self.sql, dispatch)?.zip(self.stored_card(dispatch)?) {
            let document = doc.save();
            let put = Put { held: false, tag: head.tag, local_tag: doc.tag(), card: &card, document: &document };
            self.put_visit(dispatch, &put)?;
        }
        applied.resend.push(dispatch.clone());
        Ok(())
    }

    fn set_resent(&mut self, dispatch: &DispatchId, how: i64) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "INSERT INTO lanes (dispatch_id, resent) VALUES (?1, ?2) \
                 ON CONFLICT (dispatch_id) DO UPDATE SET resent = ?2",
            )?
            .execute((dispatch.as_str(), how))?;
        Ok(())
    }

    fn take_update(
        &mut self,
        dispatch: &DispatchId,
        update: &LaneUpdate,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
        if !self.apply_changes(dispatch, &update.changes, &update.card, update.tag, update.base)? {
            self.need_fetch(dispatch)?;
        }
        applied.changed.push(dispatch.clone());
        Ok(())
    }
}
