//! The one error of the library, and the one table of what becomes what.

use sync_core::client::{EngineError, VaultError};
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
    /// The client was shut down, or sleeps: resume it, or open another one.
    #[error("the client is closed")]
    Closed,
    /// The key in the secure storage is not the one that the file was encrypted with. The file is untouched: bring back the
    /// right key, or move the file away and tell the office what may be in it.
    #[error("the key does not open the store")]
    WrongKey,
    /// The app's secure storage failed, or does not answer: a locked phone, perhaps. Try again; the file is untouched.
    #[error("the secure storage failed: {reason}")]
    KeyUnavailable {
        /// For the log.
        reason: String,
    },
    /// There is a file, and the secure storage holds no key for it: a keychain that was reset, a file from a backup. The file
    /// is untouched: bring back the key, or move the file away and tell the office what may be in it.
    #[error("the secure storage holds no key for the store")]
    KeyMissing,
    /// The options do not say what the file is. It is untouched: open it as what it is.
    #[error("the store is {}", if *.encrypted { "encrypted, and the options say that it is not" } else { "not encrypted, and the options say that it is" })]
    EncryptionMismatch {
        /// What the file is.
        encrypted: bool,
    },
    /// This build of the library cannot encrypt: use one that can, or choose `Encryption::Off` knowingly.
    #[error("this build of the library cannot encrypt")]
    EncryptionUnavailable,
    /// Sign a technician in first.
    #[error("nobody is signed in")]
    NotSignedIn,
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
            StoreError::Closed => Self::Closed,
            StoreError::WrongKey => Self::WrongKey,
            StoreError::Encrypted => Self::EncryptionMismatch { encrypted: true },
            StoreError::NotEncrypted => Self::EncryptionMismatch { encrypted: false },
            StoreError::NoCipher => Self::EncryptionUnavailable,
            StoreError::DiskFull => Self::DiskFull,
            StoreError::File { .. } | StoreError::Database(_) | StoreError::Damaged(_) => {
                Self::StoreFailed { reason: error.to_string() }
            }
            StoreError::VisitDamaged(dispatch) => Self::VisitDamaged { dispatch_id: dispatch.to_string() },
            StoreError::NotFound(dispatch) => Self::UnknownVisit { dispatch_id: dispatch.to_string() },
        }
    }
}

impl From<EngineError> for PhoneError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::NotSignedIn => Self::NotSignedIn,
            EngineError::KeyMissing => Self::KeyMissing,
            EngineError::Vault(VaultError(reason)) => Self::KeyUnavailable { reason },
            EngineError::Store(error) => error.into(),
        }
    }
}

impl From<ActError> for PhoneError {
    fn from(error: ActError) -> Self {
        match error {
            ActError::NoUser => Self::NotSignedIn,
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
