//! Connections to the database, and how they are set.

use super::{Protection, StoreError};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::Path;
use std::time::Duration;

/// Page cache of each connection at most, KiB: a full answer of some hundred visits is written without spilling.
const CACHE_KIB: i64 = 8 * 1024;
/// The write-ahead log is moved into the database past this many pages (4 MiB): seldom enough not to be felt by actions.
const CHECKPOINT_PAGES: i64 = 1_000;
/// After a large batch the log is cut back to this.
const LOG_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// How long a statement waits for a lock. Only a backup tool could hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared by each connection.
const STATEMENTS_KEPT: usize = 64;

pub(super) fn connect_reader(path: &Path, protection: &Protection) -> Result<Connection, StoreError> {
    let reader = connect(path, protection)?;
    reader.pragma_update(None, "query_only", true)?;
    Ok(reader)
}

pub(super) fn connect(path: &Path, protection: &Protection) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    if let Protection::Key(key) = protection {
        key.unlock(&conn)?;
        // A wrong key shows at the first reading, as a file that is no database. Once the first page has been read with it, the
        // key is the right one, and what else is wrong is damage.
        let read = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        if let Err(error) = read {
            let is_wrong = error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase);
            return Err(if is_wrong { StoreError::WrongKey } else { error.into() });
        }
    }
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Otherwise a statement whose plan might depend on a bound value is prepared anew for each value.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Database(format!("the disk does not carry a write-ahead log, only {mode}")));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // A page that is read through a map and fails kills the process; read through a call it is an error.
    conn.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_MAX, |_| Ok(()))?;
    // What is deleted is overwritten where that costs no extra write.
    conn.pragma_update_and_check(None, "secure_delete", "FAST", |_| Ok(()))?;
    Ok(conn)
}
