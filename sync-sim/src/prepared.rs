//! Empty databases of the shipped stores, made once: a simulated phone or server begins with a copy, and with an identity that
//! its seed fixes, instead of making the same tables again.

use crate::phone::DAWN;
use crm_dispatch_server::store::CommitLog as _;
use crm_dispatch_server::store::sqlite::SqliteStore;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rusqlite::Connection;
use std::error::Error;
use std::path::Path;
use std::sync::OnceLock;
use sync_core::document::ActorKey;
use sync_core::domain::Timestamp;
use sync_core::protocol::Generation;
use sync_core::store::{OpenOptions, Protection, Store};

type Made<T> = Result<T, Box<dyn Error>>;

/// Lays down the phone's file, which no install has written itself into.
///
/// # Errors
/// The machine's own disk.
pub(crate) fn phone_file(path: &Path) -> Result<(), String> {
    static FILE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    fn make(path: &Path) -> Made<()> {
        let now = Timestamp::from_millis(DAWN);
        let options = OpenOptions { app: "sim".to_owned(), now, protection: Protection::Unencrypted };
        Store::open(path, &options, &mut SmallRng::seed_from_u64(0))?.store.close()?;
        change(path, |conn| conn.execute("DELETE FROM phone", []))
    }
    let file = FILE.get_or_init(|| bytes(make)).as_deref().map_err(Clone::clone)?;
    std::fs::write(path, file).map_err(|error| error.to_string())
}

/// Lays down the server's file, of that identity.
///
/// # Errors
/// The machine's own disk.
pub(crate) fn server_file(path: &Path, generation: Generation, actor: ActorKey) -> Result<(), String> {
    static FILE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    fn make(path: &Path) -> Made<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            SqliteStore::open(path).await?.close().await;
            Made::Ok(())
        })?;
        change(path, |_| Ok(0))
    }
    let file = FILE.get_or_init(|| bytes(make)).as_deref().map_err(Clone::clone)?;
    std::fs::write(path, file).map_err(|error| error.to_string())?;
    let identity = (generation.0.cast_signed(), actor.0);
    change(path, |conn| conn.execute("UPDATE meta SET generation = ?1, actor = ?2", identity))
        .map_err(|error| error.to_string())
}

/// What a file has become that was made in a folder of its own.
fn bytes(make: impl FnOnce(&Path) -> Made<()>) -> Result<Vec<u8>, String> {
    let read = || {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("empty.db");
        make(&path)?;
        Made::Ok(std::fs::read(&path)?)
    };
    read().map_err(|error| error.to_string())
}

/// Changes a closed file, and leaves it without a log.
fn change(path: &Path, work: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> Made<()> {
    let conn = Connection::open(path)?;
    work(&conn)?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(conn.close().map_err(|(_, error)| error)?)
}
