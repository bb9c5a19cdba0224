//! The database's file and those beside it: lengths, the lock, and space.

use super::StoreError;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// What the lock file says after a clean close.
pub(super) const CLOSED: &[u8] = b"closed";
/// What it says while the store is open, and for ever after a crash.
pub(super) const OPEN: &[u8] = b"open  ";
/// What a change of the key needs beside a second copy of the database: heads of the log's pages, and some actions.
const ROOM_BYTES_SPARE: u64 = 64 * 1024;
/// Ends the name of the file that is written to find out whether there is so much space.
pub(super) const ROOM: &str = ".room";

/// The lock beside the database, held while the store is open.
#[derive(Debug)]
pub(super) struct FileLock(File);

impl FileLock {
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(beside(database, ".lock"))
            .map_err(file_error("opening the store's lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::AlreadyOpen(database.to_path_buf())),
            Err(TryLockError::Error(error)) => Err(file_error("locking the store")(error)),
        }
    }

    pub(super) fn was_closed(&mut self) -> Result<bool, StoreError> {
        let mut text = Vec::new();
        let file = &mut self.0;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.take(64).read_to_end(&mut text))
            .map_err(file_error("reading the store's lock"))?;
        Ok(text == CLOSED)
    }

    pub(super) fn write(&mut self, text: &[u8]) -> Result<(), StoreError> {
        let file = &mut self.0;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(text))
            .and_then(|()| file.sync_data())
            .map_err(file_error("writing the store's lock"))
    }
}

/// Looks for as much space as the database has, and gives it back.
pub(super) fn find_room_for_another(path: &Path) -> Result<(), StoreError> {
    let database = length(path).map_err(file_error("looking at the store"))?;
    let trial = beside(path, ROOM);
    let tried = File::create(&trial).and_then(|mut file| {
        // Zeros that are written take space; a length that is set may not.
        std::io::copy(&mut std::io::repeat(0).take(database + ROOM_BYTES_SPARE), &mut file)?;
        file.sync_data()
    });
    let removed = std::fs::remove_file(&trial);
    tried.and(removed).map_err(file_error("looking for space"))
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn length(path: &Path) -> std::io::Result<u64> {
    match std::fs::metadata(path) {
        Ok(data) => Ok(data.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

pub(super) fn log_is_empty(path: &Path) -> bool {
    length(&beside(path, "-wal")).is_ok_and(|bytes| bytes == 0)
}

pub(super) fn file_error(what: &'static str) -> impl Fn(std::io::Error) -> StoreError {
    move |source| match source.kind() {
        std::io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::File { what, source },
    }
}
