//! Rows whose checksum is wrong: kept aside as they were found, reported, and healed from the server where it has a copy.

use super::{StoreError, Tx, rows};
use crate::document::VisitDoc;
use crate::domain::{DispatchId, VisitCard, fold};
use rusqlite::{Connection, OptionalExtension as _};

/// Rows kept aside so far.
pub(super) fn quarantined(conn: &Connection) -> Result<u64, StoreError> {
    let count: i64 = conn.query_row("SELECT count(*) FROM damaged", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

impl Tx<'_> {
    /// Keeps a visit's row aside. What is right in it stays in use: a document gives its card again, and a card is listed
    /// until the document has been fetched.
    pub(super) fn quarantine_visit(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        self.open.take(dispatch);
        self.sql.execute(
            "INSERT INTO damaged (kind, dispatch_id, card, document, sum) \
             SELECT 'visit', dispatch_id, card, document, document_sum FROM visits WHERE dispatch_id = ?1",
            [dispatch.as_str()],
        )?;
        // A visit that has left the phone is only waiting for its unsent work, which lies in the outbox.
        if rows::head(self.sql, dispatch)?.is_some_and(|head| head.held) {
            self.need_fetch(dispatch)?;
        }
        let opened = rows::document(self.sql, dispatch).ok().and_then(|(head, bytes)| {
            let doc = VisitDoc::load(&bytes).ok()?;
            Some((head, doc))
        });
        match opened {
            Some((head, doc)) => {
                let view = doc.view();
                let card = VisitCard::new(dispatch.clone(), &view.plan, &fold(&view));
                self.put_card(dispatch, &head, head.tag, &card)?;
            }
            None => {
                self.sql.execute("DELETE FROM visits WHERE dispatch_id = ?1", [dispatch.as_str()])?;
            }
        }
        self.recompute_digest()
    }

    /// Keeps a visit's row aside whose very id may be wrong.
    pub(super) fn quarantine_visit_row(&mut self, visit: i64) -> Result<(), StoreError> {
        let id: Option<String> = self
            .sql
            .query_row("SELECT dispatch_id FROM visits WHERE visit = ?1", [visit], |row| row.get(0))
            .optional()?;
        match id.map(DispatchId::new) {
            Some(Ok(dispatch)) => self.quarantine_visit(&dispatch),
            Some(Err(_)) => {
                self.sql.execute(
                    "INSERT INTO damaged (kind, dispatch_id, card, document, sum) \
                     SELECT 'visit', dispatch_id, card, document, document_sum FROM visits WHERE visit = ?1",
                    [visit],
                )?;
                self.sql.execute("DELETE FROM visits WHERE visit = ?1", [visit])?;
                self.recompute_digest()
            }
            None => Ok(()),
        }
    }

    /// Keeps an outbox row aside. The changes after it depend on it, so the lane is re-made on the server's copy; a lost
    /// fact is found again in the visit's document then.
    pub(super) fn quarantine_outbox(&mut self, id: i64) -> Result<(), StoreError> {
        let found: Option<(String, String)> = self
            .sql
            .query_row("SELECT dispatch_id, state FROM outbox WHERE id = ?1", [id], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((dispatch, state)) = found else { return Ok(()) };
        self.sql.execute(
            "INSERT INTO damaged (kind, dispatch_id, edit, change, sum) \
             SELECT 'outbox', dispatch_id, edit, change, sum FROM outbox WHERE id = ?1",
            [id],
        )?;
        self.sql.execute("DELETE FROM outbox WHERE id = ?1", [id])?;
        self.recount_pending()?;
        if state == super::outbox::ACKNOWLEDGED {
            return Ok(());
        }
        match DispatchId::new(dispatch) {
            Ok(dispatch) if rows::head(self.sql, &dispatch)?.is_some_and(|head| head.held) => {
                self.need_rebase(&dispatch)
            }
            _ => Ok(()),
        }
    }
}
