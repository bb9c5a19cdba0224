//! Whether a file can be used: what its name, its header, its schema and its pages say.

use super::connect::connect;
use super::files::{file_error, length, log_is_empty};
use super::key::{Found, PAGE_BYTES, PLAIN_HEADER, look};
use super::{Protection, SetAsideReason, StoreError, schema};
use rusqlite::Connection;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The newest file format of SQLite's (write-ahead log), as the header names it.
const FORMAT_MAX: u8 = 2;

/// Why a file is not taken into use.
pub(super) enum Unusable {
    /// It is to be set aside.
    Unfit(SetAsideReason),
    /// It may be fine: the disk, or something else, stands in the way.
    Error(StoreError),
}

impl From<StoreError> for Unusable {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged(text) => Self::Unfit(SetAsideReason::Corrupt(text)),
            other => Self::Error(other),
        }
    }
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<Unusable> for StoreError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Error(error) => error,
            Unusable::Unfit(SetAsideReason::Corrupt(text)) => Self::Damaged(text),
            Unusable::Unfit(SetAsideReason::Newer { .. }) => Self::Damaged("a new file has another schema".into()),
        }
    }
}

/// Opens what is there and looks whether it can be used; a file that was not closed properly is read through.
pub(super) fn usable(path: &Path, trusted: bool, protection: &Protection) -> Result<Connection, Unusable> {
    let unfit = |text: &str| Unusable::Unfit(SetAsideReason::Corrupt(text.into()));
    let length = length(path).map_err(file_error("looking at the store"))?;
    if length == 0 && !log_is_empty(path) {
        // SQLite would throw the log away, and with it what was acknowledged.
        return Err(unfit("the database is empty or missing, and its log is not"));
    }
    let found = look(path).map_err(file_error("reading the store's first page"))?;
    match (protection, found) {
        (_, Found::Nothing) => {}
        (Protection::Key(_), Found::Plain) => return Err(StoreError::NotEncrypted.into()),
        (Protection::Unencrypted, Found::Cipher) => return Err(StoreError::Encrypted.into()),
        (Protection::Unencrypted, Found::Plain | Found::Other) => check_header(path, length)?,
        (Protection::Key(_), Found::Cipher | Found::Other) => {}
    }
    let conn = connect(path, protection)?;
    if matches!(protection, Protection::Key(_)) && log_is_empty(path) {
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if length > 0 && length < pages.unsigned_abs().saturating_mul(PAGE_BYTES as u64) {
            return Err(unfit("the file is shorter than its header says"));
        }
    }
    let found = schema::version(&conn)?;
    if found > schema::VERSION {
        return Err(Unusable::Unfit(SetAsideReason::Newer { found, known: schema::VERSION }));
    }
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (found > 0 && application != schema::APPLICATION_ID) || (found == 0 && tables > 0) {
        return Err(unfit("it is another program's database"));
    }
    if found > 0 && !schema::is_intact(&conn, found)? {
        return Err(unfit("its schema is not what it was made with"));
    }
    if found > 0 && !trusted {
        check_through(&conn)?;
    }
    Ok(conn)
}

/// Reads the whole file. Indices that do not lead to their rows are made anew: a change in the outbox that no index leads to
/// would never be sent.
fn check_through(conn: &Connection) -> Result<(), Unusable> {
    let verdict = |check: &str| conn.query_row(check, [], |row| row.get::<_, String>(0));
    let rows = verdict("PRAGMA quick_check(1)")?;
    if rows != "ok" {
        return Err(Unusable::Unfit(SetAsideReason::Corrupt(rows)));
    }
    let indices = verdict("PRAGMA integrity_check(1)")?;
    if indices == "ok" {
        return Ok(());
    }
    if conn.execute_batch("REINDEX").is_err() || verdict("PRAGMA integrity_check(1)")? != "ok" {
        return Err(Unusable::Unfit(SetAsideReason::Corrupt(indices)));
    }
    Ok(())
}

/// The header's own words against the file: SQLite reads some truncated files without complaint until it is too late.
fn check_header(path: &Path, length: u64) -> Result<(), Unusable> {
    let unfit = |text: &str| Unusable::Unfit(SetAsideReason::Corrupt(text.into()));
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(unfit("the file ends within its header"));
        }
        Err(error) => return Err(Unusable::Error(file_error("reading the store's header")(error))),
    }
    if !header.starts_with(PLAIN_HEADER) {
        return Err(unfit("the file is not a database"));
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    if page_bytes < 512 || !page_bytes.is_power_of_two() {
        return Err(unfit("the header names no page size"));
    }
    // SQLite reads a file of a later format, and refuses every write for ever.
    if header[18] > FORMAT_MAX || header[19] > FORMAT_MAX {
        return Err(unfit("the header names a format that SQLite does not have"));
    }
    // The log may hold pages past the file's end, so a short file is proof of a loss only without one.
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if log_is_empty(path) && length < pages * page_bytes {
        return Err(unfit("the file is shorter than its header says"));
    }
    Ok(())
}
