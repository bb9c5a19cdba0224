//! A visit's row, and the few visits that are kept opened.

use super::checksum::sum;
use super::{StoreError, Tx};
use crate::document::{StateTag, VisitDoc};
use crate::domain::{DispatchId, Timestamp, VisitCard, VisitState, VisitView, fold};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_bytes::ByteBuf;

/// Most visits kept opened: the one at hand, and those that a technician switches between.
const OPEN_VISITS_MAX: usize = 4;
/// An action appends its change to the saved document. Past this many appended bytes the document is saved anew, so that
/// opening it stays quick.
const TAIL_BYTES_MAX: usize = 16 * 1024;

/// A row without its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) visit: i64,
    /// False when the visit has left the phone and is kept for its unsent work.
    pub(super) held: bool,
    /// Of the server's copy.
    pub(super) tag: StateTag,
    /// Of the document here.
    pub(super) local_tag: StateTag,
}

/// A visit with its document opened.
#[derive(Debug)]
pub(super) struct OpenVisit {
    pub(super) head: Head,
    pub(super) doc: VisitDoc,
    pub(super) view: VisitView,
    /// The document as stored.
    bytes: Vec<u8>,
    /// How many of them were appended since it was saved whole.
    tail: usize,
    /// Changes that are stored and that [`Self::doc`] gets when somebody needs it.
    behind: Vec<ByteBuf>,
}

/// The visits that were opened lately, latest last. Whoever changes a visit's row otherwise takes it out of here.
#[derive(Debug, Default)]
pub(super) struct OpenVisits(Vec<(DispatchId, OpenVisit)>);

impl OpenVisits {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn get_mut(&mut self, dispatch: &DispatchId) -> Option<&mut OpenVisit> {
        self.0.iter_mut().find(|(id, _)| id == dispatch).map(|(_, open)| open)
    }

    pub(super) fn take(&mut self, dispatch: &DispatchId) -> Option<OpenVisit> {
        let at = self.0.iter().position(|(id, _)| id == dispatch)?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn keep(&mut self, dispatch: &DispatchId, visit: OpenVisit) {
        if self.0.len() >= OPEN_VISITS_MAX {
            self.0.remove(0);
        }
        self.0.push((dispatch.clone(), visit));
    }
}

impl OpenVisit {
    pub(super) fn state(&self) -> VisitState {
        fold(&self.view)
    }

    pub(super) fn card(&self, dispatch: &DispatchId) -> VisitCard {
        VisitCard::new(dispatch.clone(), &self.view.plan, &self.state())
    }

    /// Takes a change into the stored bytes that [`Self::doc`] has made already.
    pub(super) fn append(&mut self, change: &[u8]) {
        if self.tail + change.len() > TAIL_BYTES_MAX {
            self.bytes = self.doc.save();
            self.tail = 0;
        } else {
            self.bytes.extend_from_slice(change);
            self.tail += change.len();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The document as stored.
    pub(super) fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// The server's changes were appended to what is stored; they lead to the content of that tag.
    pub(super) fn was_appended_to(&mut self, changes: &[ByteBuf], tag: StateTag) {
        let before = self.bytes.len();
        self.bytes.extend(changes.iter().flat_map(|change| change.as_slice()));
        self.tail += self.bytes.len() - before;
        self.behind.extend(changes.iter().cloned());
        (self.head.held, self.head.tag, self.head.local_tag) = (true, tag, tag);
    }

    /// The document has the server's changes, and was stored whole.
    pub(super) fn was_stored(&mut self, tag: StateTag, bytes: Vec<u8>) {
        (self.bytes, self.tail) = (bytes, 0);
        (self.head.held, self.head.tag, self.head.local_tag) = (true, tag, self.doc.tag());
    }

    /// Brings the document and its view up to what is stored. False when the changes do not lead there.
    fn catch_up(&mut self) -> bool {
        let behind = std::mem::take(&mut self.behind);
        behind.is_empty()
            || self.doc.apply_and_view(&behind, &mut self.view).is_ok() && self.doc.tag() == self.head.local_tag
    }
}

/// The row of a visit, without its content.
pub(super) fn head(conn: &Connection, dispatch: &DispatchId) -> Result<Option<Head>, StoreError> {
    let head = conn
        .prepare_cached("SELECT visit, held, tag, local_tag FROM visits WHERE dispatch_id = ?1")?
        .query_row([dispatch.as_str()], |row| {
            Ok(Head {
                visit: row.get(0)?,
                held: row.get(1)?,
                tag: StateTag(row.get::<_, i64>(2)?.cast_unsigned()),
                local_tag: StateTag(row.get::<_, i64>(3)?.cast_unsigned()),
            })
        })
        .optional()?;
    Ok(head)
}

/// The saved document of a visit, whose checksum is right.
///
/// # Errors
/// [`StoreError::NotFound`], [`StoreError::VisitDamaged`].
pub(super) fn document(conn: &Connection, dispatch: &DispatchId) -> Result<(Head, Vec<u8>), StoreError> {
    let (visit, held, tag, local_tag, bytes, stored): (i64, bool, i64, i64, Vec<u8>, Vec<u8>) = conn
        .prepare_cached(
            "SELECT visit, held, tag, local_tag, document, document_sum FROM visits WHERE dispatch_id = ?1",
        )?
        .query_row([dispatch.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .optional()?
        .ok_or_else(|| StoreError::NotFound(dispatch.clone()))?;
    if document_sum(dispatch.as_str(), local_tag, &bytes) != *stored {
        return Err(StoreError::VisitDamaged(dispatch.clone()));
    }
    let (tag, local_tag) = (StateTag(tag.cast_unsigned()), StateTag(local_tag.cast_unsigned()));
    Ok((Head { visit, held, tag, local_tag }, bytes))
}

pub(super) fn card_sum(
    dispatch: &str,
    status: &str,
    start_ms: Option<i64>,
    held: bool,
    tag: i64,
    card: &[u8],
) -> [u8; 8] {
    let start = start_ms.map_or([0; 9], |ms| {
        let mut some = [1; 9];
        some[1..].copy_from_slice(&ms.to_be_bytes());
        some
    });
    sum(&[dispatch.as_bytes(), status.as_bytes(), &start, &[u8::from(held)], &tag.to_be_bytes(), card])
}

pub(super) fn document_sum(dispatch: &str, local_tag: i64, document: &[u8]) -> [u8; 8] {
    sum(&[dispatch.as_bytes(), &local_tag.to_be_bytes(), document])
}

/// A row as it shall be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put<'a> {
    pub(super) held: bool,
    pub(super) tag: StateTag,
    pub(super) local_tag: StateTag,
    pub(super) card: &'a VisitCard,
    pub(super) document: &'a [u8],
}

impl Tx<'_> {
    /// Opens a visit, or takes it from those that are open; the caller stores it and hands it to `open.keep`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::VisitDamaged`].
    pub(super) fn open_visit(&mut self, dispatch: &DispatchId) -> Result<OpenVisit, StoreError> {
        if let Some(mut open) = self.open.take(dispatch)
            && open.catch_up()
        {
            return Ok(open);
        }
        let (head, bytes) = document(self.sql, dispatch)?;
        let doc = VisitDoc::load(&bytes).map_err(|_| StoreError::VisitDamaged(dispatch.clone()))?;
        let view = doc.view();
        // How much of it was appended is not known any more; the saved form is at least a change long.
        Ok(OpenVisit { head, doc, view, bytes, tail: 0, behind: Vec::new() })
    }

    /// Stores an edited visit: content and card. The server's tag and whether it is held stay as they are.
    pub(super) fn store_edited(
        &mut self,
        dispatch: &DispatchId,
        open: &mut OpenVisit,
        card: &VisitCard,
    ) -> Result<(), StoreError> {
        let card_bytes = encode_card(card)?;
        let status = card.status.name();
        let start = start_ms(card);
        open.head.local_tag = open.doc.tag();
        let tag = open.head.tag.0.cast_signed();
        let local_tag = open.head.local_tag.0.cast_signed();
        self.sql
            .prepare_cached(
                "UPDATE visits SET status = ?2, scheduled_start_ms = ?3, local_tag = ?4, card = ?5, card_sum = ?6, \
                 document_sum = ?7, document = ?8 WHERE visit = ?1",
            )?
            .execute(params![
                open.head.visit,
                status,
                start,
                local_tag,
                card_bytes,
                card_sum(dispatch.as_str(), status, start, open.head.held, tag, &card_bytes),
                document_sum(dispatch.as_str(), local_tag, &open.bytes),
                open.bytes,
            ])?;
        Ok(())
    }

    /// Inserts or replaces a visit's row and keeps the digest. The opened document, if there is one, is forgotten.
    pub(super) fn put_visit(&mut self, dispatch: &DispatchId, put: &Put<'_>) -> Result<(), StoreError> {
        self.open.take(dispatch);
        let before = head(self.sql, dispatch)?;
        let before_held = before.filter(|head| head.held).map(|head| head.tag);
        let after_held = put.held.then_some(put.tag);
        if before_held != after_held {
            for tag in before_held.into_iter().chain(after_held) {
                self.phone.digest = self.phone.digest.toggled(dispatch, tag);
            }
        }
        let card = encode_card(put.card)?;
        let status = put.card.status.name();
        let start = start_ms(put.card);
        let (tag, local_tag) = (put.tag.0.cast_signed(), put.local_tag.0.cast_signed());
        self.sql
            .prepare_cached(
                "INSERT INTO visits (dispatch_id, status, scheduled_start_ms, held, run, tag, local_tag, card, card_sum, \
                 document_sum, document) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
                 ON CONFLICT (dispatch_id) DO UPDATE SET status = excluded.status, \
                 scheduled_start_ms = excluded.scheduled_start_ms, held = excluded.held, run = excluded.run, \
                 tag = excluded.tag, local_tag = excluded.local_tag, card = excluded.card, card_sum = excluded.card_sum, \
                 document_sum = excluded.document_sum, document = excluded.document",
            )?
            .execute(params![
                dispatch.as_str(),
                status,
                start,
                put.held,
                self.phone.run.cast_signed(),
                tag,
                local_tag,
                card,
                card_sum(dispatch.as_str(), status, start, put.held, tag, &card),
                document_sum(dispatch.as_str(), local_tag, put.document),
                put.document,
            ])?;
        Ok(())
    }

    /// The visit has left the phone: removed, or kept out of sight while it has unsent work.
    pub(super) fn let_go(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        let Some(before) = head(self.sql, dispatch)? else { return Ok(()) };
        self.open.take(dispatch);
        if before.held {
            self.phone.digest = self.phone.digest.toggled(dispatch, before.tag);
        }
        if self.has_unsent(dispatch)? {
            self.sql.prepare_cached("UPDATE visits SET held = 0 WHERE visit = ?1")?.execute([before.visit])?;
            self.reseal_card(dispatch)
        } else {
            self.sql.prepare_cached("DELETE FROM visits WHERE visit = ?1")?.execute([before.visit])?;
            Ok(())
        }
    }

    /// Sets the card and tag that the server told, without touching the document.
    pub(super) fn put_card(
        &mut self,
        dispatch: &DispatchId,
        before: &Head,
        tag: StateTag,
        card: &VisitCard,
    ) -> Result<(), StoreError> {
        if let Some(open) = self.open.get_mut(dispatch) {
            open.head.tag = tag;
        }
        if before.held && before.tag != tag {
            self.phone.digest = self.phone.digest.toggled(dispatch, before.tag).toggled(dispatch, tag);
        }
        let card_bytes = encode_card(card)?;
        let status = card.status.name();
        let start = start_ms(card);
        let tag = tag.0.cast_signed();
        self.sql
            .prepare_cached(
                "UPDATE visits SET status = ?2, scheduled_start_ms = ?3, tag = ?4, card = ?5, card_sum = ?6 WHERE visit = ?1",
            )?
            .execute(params![
                before.visit,
                status,
                start,
                tag,
                card_bytes,
                card_sum(dispatch.as_str(), status, start, before.held, tag, &card_bytes),
            ])?;
        Ok(())
    }

    /// The stored card of a visit, if it can be read.
    pub(super) fn stored_card(&self, dispatch: &DispatchId) -> Result<Option<VisitCard>, StoreError> {
        let card: Option<Vec<u8>> = self
            .sql
            .prepare_cached("SELECT card FROM visits WHERE dispatch_id = ?1")?
            .query_row([dispatch.as_str()], |row| row.get(0))
            .optional()?;
        Ok(card.and_then(|bytes| minicbor_serde::from_slice(&bytes).ok()))
    }

    fn reseal_card(&self, dispatch: &DispatchId) -> Result<(), StoreError> {
        let (status, start, held, tag, card): (String, Option<i64>, bool, i64, Vec<u8>) = self
            .sql
            .prepare_cached("SELECT status, scheduled_start_ms, held, tag, card FROM visits WHERE dispatch_id = ?1")?
            .query_row([dispatch.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
        self.sql
            .prepare_cached("UPDATE visits SET card_sum = ?2 WHERE dispatch_id = ?1")?
            .execute((dispatch.as_str(), card_sum(dispatch.as_str(), &status, start, held, tag, &card)))?;
        Ok(())
    }

    /// True when the visit has changes that the server has not acknowledged.
    pub(super) fn has_unsent(&self, dispatch: &DispatchId) -> Result<bool, StoreError> {
        Ok(self.pending > 0
            && self
                .sql
                .prepare_cached("SELECT 1 FROM outbox WHERE dispatch_id = ?1 AND state <> 'acknowledged' LIMIT 1")?
                .exists([dispatch.as_str()])?)
    }

    /// True when some of them are facts, so that the server's card is behind.
    pub(super) fn has_unsent_facts(&self, dispatch: &DispatchId) -> Result<bool, StoreError> {
        Ok(self.pending > 0 && self
            .sql
            .prepare_cached(
                "SELECT 1 FROM outbox WHERE dispatch_id = ?1 AND state <> 'acknowledged' AND fact_id IS NOT NULL LIMIT 1",
            )?
            .exists([dispatch.as_str()])?)
    }

    /// Computes the digest from the rows; after a row was lost the kept one means nothing.
    pub(super) fn recompute_digest(&mut self) -> Result<(), StoreError> {
        self.phone.digest = digest_of_rows(self.sql)?;
        Ok(())
    }
}

/// The digest, computed from the rows.
pub(super) fn digest_of_rows(conn: &Connection) -> Result<crate::protocol::Digest, StoreError> {
    let mut digest = crate::protocol::Digest(0);
    let mut statement = conn.prepare_cached("SELECT dispatch_id, tag FROM visits WHERE held = 1")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(dispatch) = DispatchId::new(row.get::<_, String>(0)?) {
            digest = digest.toggled(&dispatch, StateTag(row.get::<_, i64>(1)?.cast_unsigned()));
        }
    }
    Ok(digest)
}

pub(super) fn start_ms(card: &VisitCard) -> Option<i64> {
    card.scheduled.map(|window| window.start).map(Timestamp::millis)
}

pub(super) fn encode_card(card: &VisitCard) -> Result<Vec<u8>, StoreError> {
    minicbor_serde::to_vec(card).map_err(|e| StoreError::Database(e.to_string()))
}
