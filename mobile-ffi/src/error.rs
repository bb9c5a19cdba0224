//! The one error of the library, and the one table of what becomes what.

use sync_core::domain::ids::IdError;
use sync_core::store::{ActError, StoreError};

/// What an app can do something about. `reason` is for the log, not for the technician.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum PhoneError {
    /// Another part of the app, or another process, has this store open: use that one, or close it first.
    #[error("the store is open already")]
    AlreadyOpen,
    /// Ask the technician to free space, then try again. What was stored is safe.
    #[error("the disk is full")]
    DiskFull,
    /// The store cannot be read or written. Close the phone and open it again; if that does not help, tell the office. Nothing
    /// was deleted.
    #[error("the store failed: {reason}")]
    StoreFailed {
        /// For the log.
        reason: String,
    },
    /// Log a technician in first.
    #[error("nobody is logged in")]
    NotLoggedIn,
    /// The phone does not hold this visit, or not any more: read the list again.
    #[error("this phone does not hold {dispatch_id}")]
    UnknownVisit {
        /// Which one was asked for.
        dispatch_id: String,
    },
    /// The visit's copy is damaged; the next sync fetches it anew.
    #[error("the copy of {dispatch_id} is damaged and will be fetched anew")]
    VisitDamaged {
        /// Which one.
        dispatch_id: String,
    },
    /// Not possible from where the visit stands: show its status again.
    #[error("{action} is not possible on a visit that is {status}")]
    NotPossible {
        /// The action's name.
        action: String,
        /// The status that is in the way.
        status: String,
    },
    /// An argument is over a limit, or malformed: a fault of the app.
    #[error("invalid argument: {reason}")]
    InvalidArgument {
        /// For the log.
        reason: String,
    },
}

impl From<StoreError> for PhoneError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyOpen(_) => Self::AlreadyOpen,
            StoreError::DiskFull => Self::DiskFull,
            StoreError::File { .. } | StoreError::Database(_) | StoreError::Damaged(_) => {
                Self::StoreFailed { reason: error.to_string() }
            }
            StoreError::VisitDamaged(dispatch) => Self::VisitDamaged { dispatch_id: dispatch.to_string() },
            StoreError::NotFound(dispatch) => Self::UnknownVisit { dispatch_id: dispatch.to_string() },
        }
    }
}

impl From<ActError> for PhoneError {
    fn from(error: ActError) -> Self {
        match error {
            ActError::NoUser => Self::NotLoggedIn,
            ActError::NotFound(dispatch) => Self::UnknownVisit { dispatch_id: dispatch.to_string() },
            ActError::Illegal { action, status, why: _ } => {
                Self::NotPossible { action: action.to_owned(), status: status.name().to_owned() }
            }
            ActError::Refused(refusal) => Self::InvalidArgument { reason: refusal.to_string() },
            ActError::Store(error) => error.into(),
        }
    }
}

impl From<IdError> for PhoneError {
    fn from(error: IdError) -> Self {
        Self::InvalidArgument { reason: error.to_string() }
    }
}
