//! What can go wrong, for the caller to act on.

use crate::document::Refusal;
use crate::domain::rules::legal::IllegalAct;
use crate::domain::{DispatchId, VisitStatus};
use std::path::PathBuf;

/// Why the store could not do what was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// This file is open already, here or in another process.
    #[error("{0} is open already")]
    AlreadyOpen(PathBuf),
    /// The store is closed, or sleeps: open it again.
    #[error("the store is closed")]
    Closed,
    /// The key does not open this file; or, which cannot be told apart, its first page is damaged. The file is untouched.
    #[error("the key does not open the database")]
    WrongKey,
    /// The file is encrypted, and no key was given. The file is untouched.
    #[error("the database is encrypted; open it with its key")]
    Encrypted,
    /// A key was given, and the file is not encrypted. The file is untouched.
    #[error("the database is not encrypted; open it without a key")]
    NotEncrypted,
    /// A key was given, and this build has no SQLCipher: it would have written everything in the clear.
    #[error("this build cannot encrypt: the feature `encrypted` is off")]
    NoCipher,
    /// The disk is full. Free space and try again; what was stored is safe.
    #[error("the disk is full")]
    DiskFull,
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// SQLite refused. The text is for the log.
    #[error("the database failed: {0}")]
    Database(String),
    /// The file is damaged: close the store and open it again, which sets the file aside. The text is for the log.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The visit's document is damaged; it was marked to be fetched anew.
    #[error("the document of {0} is damaged and will be fetched anew")]
    VisitDamaged(DispatchId),
    /// The phone does not hold this visit.
    #[error("this phone does not hold {0}")]
    NotFound(DispatchId),
}

/// Why an action was not taken. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    NoUser,
    /// The phone does not hold this visit, or not any more.
    #[error("this phone does not hold {0}")]
    NotFound(DispatchId),
    /// It makes no sense now.
    #[error("{why}")]
    Illegal {
        /// The fact's kind.
        action: &'static str,
        /// Where the visit stands.
        status: VisitStatus,
        /// Why not.
        why: IllegalAct,
    },
    /// Over a limit that the server holds it to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        // Tables are strict: a value of another type than its column's was not written by us.
        if matches!(
            error,
            Error::InvalidColumnType(..)
                | Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::Utf8Error(..)
        ) {
            return Self::Damaged(error.to_string());
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Database(error.to_string()),
        }
    }
}

/// Tells errors that speak against the file itself.
pub(super) trait DamageSign {
    fn is_file_damage(&self) -> bool;
}

impl DamageSign for StoreError {
    fn is_file_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl DamageSign for ActError {
    fn is_file_damage(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_file_damage())
    }
}
