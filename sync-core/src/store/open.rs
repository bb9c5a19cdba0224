//! Opening: the lock, what is set aside, the identity of this install.

use super::{Store, StoreError};
use crate::domain::Timestamp;
use std::path::{Path, PathBuf};

/// How to open.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// App name and version, for the dispatcher's device list.
    pub app: String,
    /// The phone's wall time: names what is set aside.
    pub now: Timestamp,
}

/// An opened store, and what was found on the way.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What the user or the office should hear of.
    pub report: OpenReport,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The file that was there could not be used: it was renamed, and a new store lies in its place.
    pub set_aside: Option<SetAside>,
    /// The store is new: nothing was there, or what was there was set aside.
    pub created: bool,
    /// The file is a copy, from a backup or another phone: it has a new device id, and everything is fetched anew.
    pub restored: bool,
    /// The schema version that the file had, when it was older than this release's.
    pub migrated_from: Option<u32>,
    /// Rows whose checksum is wrong, kept aside so far.
    pub rows_quarantined: u64,
}

/// A file that was renamed, never deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where the database file is now; its `-wal` and `-shm` lie beside it.
    pub path: PathBuf,
    /// Why.
    pub reason: SetAsideReason,
}

/// Why a file could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAsideReason {
    /// Made by a newer release.
    Newer {
        /// Its schema version.
        found: u32,
        /// The newest that this release knows.
        known: u32,
    },
    /// Not a database, truncated, or malformed. The text is for the log.
    Corrupt(String),
}

impl Store {
    /// Opens the database at `path`, making it if there is none. Beside it lie `<path>.lock` and `<path>.install`; leave the
    /// latter out of backups, so that a restored copy is known for one.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], or the disk's. A file that cannot be used is no error: it is set aside and reported.
    pub fn open(path: &Path, options: &OpenOptions, rng: &mut dyn rand::Rng) -> Result<Opened, StoreError> {
        let _ = (path, options, rng);
        unimplemented!()
    }

    /// Writes everything into the database file and closes it. Dropping the store is safe as well, and costs the next
    /// opening a check of the file.
    ///
    /// # Errors
    /// The disk's; what was acknowledged is safe in the write-ahead log.
    pub fn close(self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
