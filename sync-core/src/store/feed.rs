//! Applying what the server sends.

use super::lanes::needs_fetch;
use super::outbox::OutboxRow;
use super::rows::Put;
use super::{Store, StoreError, Tx, VISITS_MAX, rows};
use crate::document::{StateTag, VisitDoc, chained};
use crate::domain::time::DAY_MS;
use crate::domain::{DispatchId, Timestamp, Tombstone, TombstoneReason, VisitCard, fold};
use crate::protocol::{Cursor, Digest, FeedItem};
use serde_bytes::ByteBuf;

/// A decoded [`crate::protocol::Batch`].
#[derive(Debug, Clone, PartialEq)]
pub struct FeedBatch {
    /// Exclusive.
    pub from: Cursor,
    /// Inclusive.
    pub to: Cursor,
    /// Part of everything that the phone should hold.
    pub reset: bool,
    /// Another batch of the same answer follows.
    pub more: bool,
    /// At `to`, when `to` was the feed's end.
    pub digest: Option<Digest>,
    /// The news.
    pub items: Vec<FeedItem>,
}

/// What a batch changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The cursor afterwards: durable, to be acknowledged.
    pub cursor: Cursor,
    /// Whether the digest is the server's, where it told one that can be compared.
    pub digest_matches: Option<bool>,
    /// Visits that came, changed or left.
    pub changed: Vec<DispatchId>,
    /// Visits to be fetched whole, earlier ones included.
    pub needs_fetch: Vec<DispatchId>,
    /// The batch starts beyond the cursor: nothing was applied, pull.
    pub cursor_gap: bool,
    /// Unsent changes were re-made or freed: push.
    pub outbox_changed: bool,
    /// Visits that were not stored because the phone holds as many as it may.
    pub over_limit: u32,
}

impl Store {
    /// Stores a batch, in one transaction.
    ///
    /// # Errors
    /// The database's; nothing was applied then, and the cursor is where it was.
    pub fn apply_batch(
        &self,
        batch: FeedBatch,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
    ) -> Result<Applied, StoreError> {
        self.write(|tx| tx.apply_batch(batch, now, rng))
    }

    /// Marks visits to be fetched whole, as after a digest mismatch. Those that the phone does not hold are left out.
    ///
    /// # Errors
    /// The database's.
    pub fn mark_for_fetch(&self, dispatches: &[DispatchId]) -> Result<(), StoreError> {
        self.write(|tx| {
            for dispatch in dispatches {
                if rows::head(tx.sql, dispatch)?.is_some_and(|head| head.held) {
                    tx.need_fetch(dispatch)?;
                }
            }
            Ok(())
        })
    }
}

/// Past this size a document is opened and saved anew, instead of appending changes to it: a long tail is slow to open.
const APPENDED_BYTES_MAX: usize = 32 * 1024;

/// A visit as the server sent it whole.
struct Snapshot<'a> {
    dispatch: &'a DispatchId,
    document: &'a [u8],
    card: &'a VisitCard,
    tag: StateTag,
}

impl Tx<'_> {
    fn apply_batch(
        &mut self,
        batch: FeedBatch,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
    ) -> Result<Applied, StoreError> {
        let mut applied = Applied { cursor: self.phone.cursor, ..Applied::default() };
        if !batch.reset && batch.from > self.phone.cursor {
            applied.cursor_gap = true;
            applied.needs_fetch = needs_fetch(self.sql)?;
            return Ok(applied);
        }
        if batch.reset && !self.phone.run_open {
            self.phone.run += 1;
            self.phone.run_open = true;
        }
        // Older than what is stored: only what was asked for is news.
        let stale = !batch.reset && batch.to < self.phone.cursor;
        let waiting = if stale { needs_fetch(self.sql)? } else { Vec::new() };
        for item in &batch.items {
            if !stale || waiting.contains(item.dispatch()) {
                self.apply_item(item, now, rng, &mut applied)?;
            }
        }
        if !batch.more && !stale {
            if batch.reset {
                self.end_run(now, &mut applied)?;
            }
            if self.phone.resync {
                self.phone.resync = false;
                applied.outbox_changed |= self.free_waiting_lanes()?;
            }
        }
        // A full answer counts when it is complete: cut off in the middle, it begins anew.
        if batch.reset && batch.more {
            applied.cursor = self.phone.cursor;
        } else {
            self.phone.cursor = if batch.reset { batch.to } else { self.phone.cursor.max(batch.to) };
            applied.cursor = self.phone.cursor;
            applied.digest_matches = batch
                .digest
                .filter(|_| self.phone.cursor == batch.to && applied.over_limit == 0)
                .map(|digest| digest == self.phone.digest);
        }
        applied.needs_fetch = needs_fetch(self.sql)?;
        Ok(applied)
    }

    fn apply_item(
        &mut self,
        item: &FeedItem,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut Applied,
    ) -> Result<(), StoreError> {
        match item {
            FeedItem::Snapshot { dispatch, document, card, tag } => {
                let snapshot = Snapshot { dispatch, document, card, tag: *tag };
                if !self.apply_snapshot(&snapshot, now, rng, applied)? {
                    return Ok(());
                }
            }
            FeedItem::Changes { dispatch, changes, card, tag } => {
                if !self.apply_changes(dispatch, changes, card, *tag, None)? {
                    self.need_fetch(dispatch)?;
                }
            }
            FeedItem::Gone { tombstone } => {
                self.put_tombstone(tombstone)?;
                self.visit_gone(&tombstone.dispatch_id, applied)?;
            }
        }
        applied.changed.push(item.dispatch().clone());
        Ok(())
    }

    /// False when the phone holds as many visits as it may.
    fn apply_snapshot(
        &mut self,
        snapshot: &Snapshot<'_>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut Applied,
    ) -> Result<bool, StoreError> {
        let dispatch = snapshot.dispatch;
        if rows::head(self.sql, dispatch)?.is_none() && self.is_full()? {
            applied.over_limit += 1;
            return Ok(false);
        }
        self.remove_tombstone(dispatch)?;
        if self.has_unsent(dispatch)? {
            self.free_what_waited_for_the_visit(dispatch)?;
            self.merge_snapshot(snapshot, now, rng, applied)?;
        } else {
            self.put_visit(
                dispatch,
                &Put {
                    held: true,
                    tag: snapshot.tag,
                    local_tag: snapshot.tag,
                    card: snapshot.card,
                    document: snapshot.document,
                },
            )?;
        }
        self.fetched(dispatch)?;
        Ok(true)
    }

    fn merge_snapshot(
        &mut self,
        snapshot: &Snapshot<'_>,
        now: Timestamp,
        rng: &mut dyn rand::Rng,
        applied: &mut Applied,
    ) -> Result<(), StoreError> {
        let dispatch = snapshot.dispatch;
        let former = match self.open_visit(dispatch) {
            Ok(open) => Some(open.doc),
            Err(StoreError::NotFound(_) | StoreError::VisitDamaged(_)) => None,
            Err(other) => return Err(other),
        };
        let Ok(server) = VisitDoc::load(snapshot.document) else {
            // Not to be used; what is here stays, and is asked for again.
            return self.need_fetch(dispatch);
        };
        let rows = self.lane_rows(dispatch)?;
        // Read after the rows: a damaged one asks for a rebase.
        let rebase = self.rebase_mode(dispatch)? != 0;
        let joined = if rebase { None } else { join(&server, former.as_ref(), snapshot.document, &rows) };
        let doc = match joined {
            Some(doc) => doc,
            None => {
                let mut doc = server;
                self.rebase(dispatch, &mut doc, former.as_ref(), rows, now, rng)?;
                applied.outbox_changed = true;
                doc
            }
        };
        let card = if self.has_unsent_facts(dispatch)? {
            let view = doc.view();
            VisitCard::new(dispatch.clone(), &view.plan, &fold(&view))
        } else {
            snapshot.card.clone()
        };
        let document = doc.save();
        self.put_visit(
            dispatch,
            &Put { held: true, tag: snapshot.tag, local_tag: doc.tag(), card: &card, document: &document },
        )
    }

    /// Applies the server's changes to a visit that is here; `base` names the content that they were made on, where that is
    /// known. False when they do not fit, so that it must be fetched.
    pub(super) fn apply_changes(
        &mut self,
        dispatch: &DispatchId,
        changes: &[ByteBuf],
        card: &VisitCard,
        tag: StateTag,
        base: Option<StateTag>,
    ) -> Result<bool, StoreError> {
        if changes.is_empty() {
            let Some(head) = rows::head(self.sql, dispatch)? else { return Ok(false) };
            if !self.has_unsent_facts(dispatch)? {
                self.put_card(dispatch, &head, tag, card)?;
                return Ok(true);
            }
        }
        if self.append_changes(dispatch, changes, card, tag, base)? {
            return Ok(true);
        }
        let mut open = match self.open_visit(dispatch) {
            Ok(open) => open,
            Err(StoreError::NotFound(_)) => return Ok(false),
            Err(StoreError::VisitDamaged(_)) => {
                self.quarantine_visit(dispatch)?;
                return Ok(false);
            }
            Err(other) => return Err(other),
        };
        if open.doc.apply_and_view(changes, &mut open.view).is_err() {
            return Ok(false);
        }
        let local;
        let card = if self.has_unsent_facts(dispatch)? {
            local = open.card(dispatch);
            &local
        } else {
            card
        };
        let document = open.doc.save();
        self.put_visit(dispatch, &Put { held: true, tag, local_tag: open.doc.tag(), card, document: &document })?;
        open.was_stored(tag, document);
        self.open.keep(dispatch, open);
        Ok(true)
    }

    /// The way without opening the document: where nothing is unsent and the changes lead from exactly what is here to
    /// exactly what the server has, they are appended as they are. False when that is not so.
    fn append_changes(
        &mut self,
        dispatch: &DispatchId,
        changes: &[ByteBuf],
        card: &VisitCard,
        tag: StateTag,
        base: Option<StateTag>,
    ) -> Result<bool, StoreError> {
        if self.has_unsent(dispatch)? {
            return Ok(false);
        }
        let appended: usize = changes.iter().map(|change| change.len()).sum();
        let fits = |local_tag, length: usize| {
            length + appended <= APPENDED_BYTES_MAX && chained(local_tag, base, changes) == Some(tag)
        };
        if let Some(open) = self.open.get_mut(dispatch) {
            if !fits(open.head.local_tag, open.len()) {
                return Ok(false);
            }
            // Opened it stays: the next action on it is near, and need not open it anew.
            let Some(mut open) = self.open.take(dispatch) else { return Ok(false) };
            open.was_appended_to(changes, tag);
            self.put_visit(dispatch, &Put { held: true, tag, local_tag: tag, card, document: open.stored() })?;
            self.open.keep(dispatch, open);
            return Ok(true);
        }
        let (head, mut document) = match rows::document(self.sql, dispatch) {
            Ok(found) => found,
            Err(StoreError::NotFound(_) | StoreError::VisitDamaged(_)) => return Ok(false),
            Err(other) => return Err(other),
        };
        if !fits(head.local_tag, document.len()) {
            return Ok(false);
        }
        document.extend(changes.iter().flat_map(|change| change.as_slice()));
        self.put_visit(dispatch, &Put { held: true, tag, local_tag: tag, card, document: &document })?;
        Ok(true)
    }

    /// The server says, or its full answer shows, that the visit is not this phone's any more.
    fn visit_gone(&mut self, dispatch: &DispatchId, applied: &mut Applied) -> Result<(), StoreError> {
        self.let_go(dispatch)?;
        // Edits that were to be made again on the server's copy go as they are: it will not come, and the server's refusal
        // brings what they can be made on.
        self.fetched(dispatch)?;
        applied.outbox_changed = true;
        Ok(())
    }

    /// A feed without any entry is a full answer that names nothing. Answers what has left.
    pub(super) fn nothing_is_held(&mut self, now: Timestamp) -> Result<Vec<DispatchId>, StoreError> {
        self.phone.run += 1;
        let mut applied = Applied::default();
        self.end_run(now, &mut applied)?;
        Ok(applied.changed)
    }

    /// A full answer is complete: what it did not name is gone. Nobody says why, as when the office's database has come back
    /// from a copy, or the entry that said so is too old to be kept; the technician gets a card all the same.
    fn end_run(&mut self, now: Timestamp, applied: &mut Applied) -> Result<(), StoreError> {
        self.phone.run_open = false;
        let now = self.phone.office_time(now);
        let unnamed = {
            let mut statement =
                self.sql.prepare_cached("SELECT dispatch_id FROM visits WHERE held = 1 AND run <> ?1")?;
            let ids = statement.query_map([self.phone.run.cast_signed()], |row| row.get::<_, String>(0))?;
            ids.collect::<Result<Vec<_>, _>>()?
        };
        for dispatch in unnamed.into_iter().filter_map(|id| DispatchId::new(id).ok()) {
            // Of yesterday's finished work nobody needs to be told that it has left.
            let is_past = |card: &VisitCard| {
                let ended = card.scheduled.is_some_and(|window| now.millis_since(window.end) > DAY_MS);
                card.status.is_final() && ended
            };
            if let Some(card) = self.stored_card(&dispatch)?.filter(|card| !is_past(card)) {
                self.put_tombstone(&Tombstone {
                    dispatch_id: dispatch.clone(),
                    title: card.title,
                    reason: TombstoneReason::Unassigned,
                    note: None,
                    by: "system".to_owned(),
                    at: now,
                })?;
            }
            self.visit_gone(&dispatch, applied)?;
            applied.changed.push(dispatch);
        }
        // What was to be fetched and was not in the answer does not exist for this phone.
        for dispatch in needs_fetch(self.sql)? {
            self.visit_gone(&dispatch, applied)?;
        }
        self.recompute_digest()
    }

    /// Everything has been fetched anew: lanes that no copy has come for are sent as they are.
    pub(super) fn free_waiting_lanes(&mut self) -> Result<bool, StoreError> {
        Ok(self.sql.execute("UPDATE lanes SET rebase = 0 WHERE rebase = 2", [])? > 0)
    }

    fn is_full(&self) -> Result<bool, StoreError> {
        // Only a phone near the limit counts: the highest row number bounds the count.
        let highest: Option<i64> =
            self.sql.prepare_cached("SELECT max(visit) FROM visits")?.query_row([], |row| row.get(0))?;
        if highest.unwrap_or(0) < i64::from(VISITS_MAX) {
            return Ok(false);
        }
        let count: i64 = self.sql.prepare_cached("SELECT count(*) FROM visits")?.query_row([], |row| row.get(0))?;
        Ok(count >= i64::from(VISITS_MAX))
    }
}

/// The server's copy and this phone's unacknowledged changes in one document; `None` when they do not fit together.
fn join(server: &VisitDoc, former: Option<&VisitDoc>, snapshot: &[u8], rows: &[OutboxRow]) -> Option<VisitDoc> {
    if let Some(mut doc) = former.cloned()
        && doc.merge(snapshot).is_ok()
    {
        return Some(doc);
    }
    let mut doc = server.clone();
    let missing: Vec<_> =
        rows.iter().filter(|row| !doc.has_change(&row.hash)).map(|row| row.change.as_slice()).collect();
    doc.apply(&missing).ok()?;
    Some(doc)
}
