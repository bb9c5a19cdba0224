//! The server's answer to a push.

use super::lanes::needs_fetch;
use super::{SentLane, Store, StoreError, Tx, rows};
use crate::document::StateTag;
use crate::domain::{DispatchId, Timestamp, VisitCard};
use crate::protocol::{Cursor, FactVerdict, FeedRange, LaneAck, LaneRefusal, Remedy};
use serde_bytes::ByteBuf;
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
    ) -> Result<AckApplied, StoreError> {
        self.write(|tx| {
            let mut applied = AckApplied::default();
            let mut tags_known = true;
            let answers: HashMap<_, _> = lanes.iter().map(|ack| (&ack.dispatch, ack)).collect();
            for lane in sent {
                if let Some(ack) = answers.get(&lane.lane.dispatch) {
                    tags_known &= tx.lane_answered(lane, ack, now, &mut applied)?;
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

impl Tx<'_> {
    /// One lane's answer. False when the visit's tag on the server is not known now.
    fn lane_answered(
        &mut self,
        sent: &SentLane,
        ack: &LaneAck,
        now: Timestamp,
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
                self.lane_refused(dispatch, *refused, refusal, head.is_some_and(|head| head.held), applied)?;
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
            Some(update) => self.take_update(dispatch, &update.changes, &update.card, update.tag, applied)?,
            None if accepted == 0 => {}
            // The server added nothing, so it has what is here.
            None if !unsent => {
                if let Some(card) = self.stored_card(dispatch)? {
                    self.put_card(dispatch, &head, head.local_tag, &card)?;
                }
            }
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
        dispatch: &DispatchId,
        refused: i64,
        refusal: &LaneRefusal,
        held: bool,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
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
            Remedy::Rebase if held => {
                self.park(refused, &refusal.code, &refusal.message)?;
                applied.parked += 1;
                self.need_rebase(dispatch)?;
            }
            Remedy::Resend => self.resend(dispatch, refusal, held, applied)?,
            // Without a copy of the server's there is nothing to rebase on.
            Remedy::Rebase | Remedy::Park | Remedy::Unknown => {
                applied.parked += self.park_lane(dispatch, &refusal.code, &refusal.message)?;
            }
        }
        Ok(())
    }

    /// Queues the lane's receipts again, once. When that does not help, or there are none, the server lacks something that
    /// this phone never made or has no more: its edits are made again on the server's copy.
    fn resend(
        &mut self,
        dispatch: &DispatchId,
        refusal: &LaneRefusal,
        held: bool,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
        let first_time = !self
            .sql
            .prepare_cached("SELECT 1 FROM lanes WHERE dispatch_id = ?1 AND resent = 1")?
            .exists([dispatch.as_str()])?;
        if first_time && self.requeue_receipts(Some(dispatch))? > 0 {
            self.sql
                .prepare_cached(
                    "INSERT INTO lanes (dispatch_id, resent) VALUES (?1, 1) \
                     ON CONFLICT (dispatch_id) DO UPDATE SET resent = 1",
                )?
                .execute([dispatch.as_str()])?;
            applied.resend.push(dispatch.clone());
            Ok(())
        } else if held {
            self.need_rebase(dispatch)
        } else {
            applied.parked += self.park_lane(dispatch, &refusal.code, &refusal.message)?;
            Ok(())
        }
    }

    fn take_update(
        &mut self,
        dispatch: &DispatchId,
        changes: &[ByteBuf],
        card: &VisitCard,
        tag: StateTag,
        applied: &mut AckApplied,
    ) -> Result<(), StoreError> {
        if !self.apply_changes(dispatch, changes, card, tag)? {
            self.need_fetch(dispatch)?;
        }
        applied.changed.push(dispatch.clone());
        Ok(())
    }
}
