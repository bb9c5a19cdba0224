//! The one error of the library, and the one table of what becomes what.

use sync_core::domain::ids::IdError;
use sync_core::domain::rules::legal::IllegalAct;
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
    /// It makes no sense from where the visit stands: show the visit again, and say why.
    #[error("{action} is not possible: {hindrance}")]
    NotPossible {
        /// The action's name.
        action: String,
        /// What is in the way.
        hindrance: Hindrance,
    },
    /// An argument is over a limit, or malformed: a fault of the app.
    #[error("invalid argument: {reason}")]
    InvalidArgument {
        /// For the log.
        reason: String,
    },
}

/// What is in the way of an action; the app has the words in the technician's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, uniffi::Enum)]
pub enum Hindrance {
    /// The technician is not on the present assignment.
    #[error("the visit is not assigned to this technician")]
    NotAssigned,
    /// Only the lead can do this.
    #[error("only the lead of the visit can do this")]
    NotLead,
    /// The office has cancelled the visit.
    #[error("the visit is cancelled")]
    Cancelled,
    /// The office asks to stop: the visit can only end as not completed.
    #[error("the office asks to stop work")]
    StopWork,
    /// The visit has ended.
    #[error("the visit has ended")]
    AlreadyEnded,
    /// It was done before.
    #[error("it was done before")]
    AlreadyDone,
    /// Only work in progress can be paused.
    #[error("the work is not in progress")]
    NotInProgress,
    /// Only paused work can be resumed.
    #[error("the work is not paused")]
    NotPaused,
    /// The office proposes no such window.
    #[error("the office proposes no such window")]
    NoProposal,
    /// This release of the library cannot record that.
    #[error("this release cannot record that")]
    UnknownKind,
}

impl From<IllegalAct> for Hindrance {
    fn from(why: IllegalAct) -> Self {
        match why {
            IllegalAct::NotAssigned => Self::NotAssigned,
            IllegalAct::NotLead => Self::NotLead,
            IllegalAct::Cancelled => Self::Cancelled,
            IllegalAct::StopWork => Self::StopWork,
            IllegalAct::AlreadyEnded => Self::AlreadyEnded,
            IllegalAct::AlreadyDone { status: _ } => Self::AlreadyDone,
            IllegalAct::NotInProgress => Self::NotInProgress,
            IllegalAct::NotPaused => Self::NotPaused,
            IllegalAct::NoProposal => Self::NoProposal,
            IllegalAct::UnknownKind => Self::UnknownKind,
        }
    }
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
            ActError::Illegal { action, why, status: _ } => {
                Self::NotPossible { action: action.to_owned(), hindrance: why.into() }
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
