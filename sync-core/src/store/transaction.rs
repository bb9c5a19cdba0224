//! Transactions. Every action and every look is one, so the statements around them stay prepared.

use rusqlite::Connection;
use std::ops::Deref;

/// A transaction under way; rolled back when it is dropped before it was committed.
pub(super) struct Transaction<'c>(&'c Connection);

impl<'c> Transaction<'c> {
    /// One that reads what is there now.
    pub(super) fn read(conn: &'c mut Connection) -> rusqlite::Result<Self> {
        Self::begin(conn, "BEGIN")
    }

    /// One that writes: nobody else does until it ends.
    pub(super) fn write(conn: &'c mut Connection) -> rusqlite::Result<Self> {
        Self::begin(conn, "BEGIN IMMEDIATE")
    }

    fn begin(conn: &'c mut Connection, begin: &str) -> rusqlite::Result<Self> {
        conn.prepare_cached(begin)?.execute([])?;
        Ok(Self(conn))
    }

    /// Makes it durable.
    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(drop)
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Committed, or SQLite has rolled it back already, as it does when the disk fails.
        if self.0.is_autocommit() {
            return;
        }
        // Where even this fails, the next transaction cannot begin, and says so.
        let _ = self.0.prepare_cached("ROLLBACK").and_then(|mut rollback| rollback.execute([]));
    }
}
