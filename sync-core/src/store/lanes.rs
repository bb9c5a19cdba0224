//! What is out of the ordinary about a visit's lane: it waits for the server's copy, or is to be fetched.

use super::{StoreError, Tx};
use crate::domain::DispatchId;
use rusqlite::{Connection, OptionalExtension as _};

/// Visits to be fetched whole.
pub(super) fn needs_fetch(conn: &Connection) -> Result<Vec<DispatchId>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT dispatch_id FROM lanes WHERE needs_fetch = 1 ORDER BY dispatch_id")?;
    let ids = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(ids.into_iter().filter_map(|id| DispatchId::new(id).ok()).collect())
}

impl Tx<'_> {
    /// The visit's document is to be fetched whole.
    pub(super) fn need_fetch(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "INSERT INTO lanes (dispatch_id, needs_fetch) VALUES (?1, 1) \
                 ON CONFLICT (dispatch_id) DO UPDATE SET needs_fetch = 1",
            )?
            .execute([dispatch.as_str()])?;
        Ok(())
    }

    /// The visit's edits are to be made again on the server's copy, which is to be fetched.
    pub(super) fn need_rebase(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "INSERT INTO lanes (dispatch_id, needs_fetch, rebase) VALUES (?1, 1, 1) \
                 ON CONFLICT (dispatch_id) DO UPDATE SET needs_fetch = 1, rebase = 1",
            )?
            .execute([dispatch.as_str()])?;
        Ok(())
    }

    /// Every lane with queued changes waits for the server's copy, if there is one: it may lack what they build on.
    pub(super) fn rebase_lanes_if_copied(&mut self) -> Result<(), StoreError> {
        self.sql.execute(
            "INSERT INTO lanes (dispatch_id, rebase) SELECT DISTINCT dispatch_id, 2 FROM outbox WHERE state = 'queued' \
             ON CONFLICT (dispatch_id) DO UPDATE SET rebase = max(rebase, 2), resent = 0",
            [],
        )?;
        Ok(())
    }

    /// What the lane waits for: see `lanes.rebase`.
    pub(super) fn rebase_mode(&self, dispatch: &DispatchId) -> Result<i64, StoreError> {
        Ok(self
            .sql
            .prepare_cached("SELECT rebase FROM lanes WHERE dispatch_id = ?1")?
            .query_row([dispatch.as_str()], |row| row.get(0))
            .optional()?
            .unwrap_or(0))
    }

    /// The visit is this phone's again: what was parked because the server did not have it, or not enough of it, is made again
    /// on the copy that has come.
    pub(super) fn free_what_waited_for_the_visit(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        let freed = self
            .sql
            .prepare_cached(
                "UPDATE outbox SET state = 'queued', error_code = NULL, error_message = NULL \
                 WHERE dispatch_id = ?1 AND state = 'parked' AND error_code IN ('DISPATCH_NOT_FOUND', 'CHANGE_CAUSALLY_OPEN')",
            )?
            .execute([dispatch.as_str()])?;
        if freed > 0 {
            self.sql
                .prepare_cached("UPDATE lanes SET parked = 0, attempts = 0, rebase = 1 WHERE dispatch_id = ?1")?
                .execute([dispatch.as_str()])?;
        }
        Ok(())
    }

    /// The server's copy has come.
    pub(super) fn fetched(&mut self, dispatch: &DispatchId) -> Result<(), StoreError> {
        self.sql
            .prepare_cached("UPDATE lanes SET needs_fetch = 0, rebase = 0, resent = 0 WHERE dispatch_id = ?1")?
            .execute([dispatch.as_str()])?;
        Ok(())
    }
}
