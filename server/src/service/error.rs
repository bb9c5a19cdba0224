//! Why the service did not do what was asked: one typed table with stable codes.

use crate::service::actor::{Action, Role};
use crate::service::fit::Unfit;
use serde_json::{Value, json};
use sync_core::domain::state::VisitStatus;
use sync_core::domain::{DeviceId, DispatchId, EventId, LocationId, ServiceOrderId, TechnicianId};

/// Why a call failed. Each carries what a person needs; none carries the store's inner text to a client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ServiceError {
    /// There is no such dispatch, or it is not the caller's to see: the two are never told apart.
    #[error("there is no dispatch {0}")]
    DispatchNotFound(DispatchId),
    /// There is no such technician.
    #[error("there is no technician {0}")]
    TechnicianNotFound(TechnicianId),
    /// There is no such location.
    #[error("there is no location {0}")]
    LocationNotFound(LocationId),
    /// There is no such device.
    #[error("there is no device {0}")]
    DeviceNotFound(DeviceId),
    /// There is no such exception.
    #[error("there is no exception {0}")]
    ExceptionNotFound(String),
    /// The technician cannot take the visit.
    #[error("{technician} is not available for this visit")]
    TechnicianNotAvailable {
        /// Who.
        technician: TechnicianId,
        /// Everything that stands against it.
        reasons: Vec<Unfit>,
    },
    /// The technician is booked by another visit, travel included.
    #[error("{technician} is booked by {dispatch} at that time")]
    AssignmentConflict {
        /// Who.
        technician: TechnicianId,
        /// By which visit.
        dispatch: DispatchId,
    },
    /// The visit's status does not allow it.
    #[error("a visit that is {} cannot be {command}", .status.name())]
    IllegalTransition {
        /// Where the visit stands, as the office sees it.
        status: VisitStatus,
        /// The past participle of what was asked: `assigned`, `cancelled`, ….
        command: &'static str,
    },
    /// `If-Match` named another revision.
    #[error("the revision is {actual}, not {expected}; read it again and decide again")]
    RevisionMismatch {
        /// What the caller had seen.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// The service order has a dispatch already (rule 18).
    #[error("{order} already has the dispatch {dispatch}")]
    ServiceOrderExists {
        /// Which order.
        order: ServiceOrderId,
        /// Its dispatch.
        dispatch: DispatchId,
    },
    /// The input makes no sense.
    #[error("{field}: {message}")]
    ValidationFailed {
        /// The field, as the caller named it.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The caller's roles do not allow it.
    #[error("this needs one of the roles {}", .needs.iter().map(|role| role.name()).collect::<Vec<_>>().join(", "))]
    Forbidden {
        /// What was asked.
        action: Action,
        /// Which roles may.
        needs: Vec<Role>,
    },
    /// The device belongs to another technician.
    #[error("the device {0} belongs to another technician; a new install is a new device")]
    DeviceForeign(DeviceId),
    /// The device was revoked.
    #[error("the device {0} was revoked")]
    DeviceRevoked(DeviceId),
    /// A consumed event of a kind that means nothing here.
    #[error("events of type {0} are not consumed")]
    UnknownEvent(String),
    /// A consumed event that cannot be understood: for the dead-letter topic.
    #[error("the event cannot be read: {problem}")]
    PoisonEvent {
        /// Its id, where it has one.
        event: Option<EventId>,
        /// What is wrong with it.
        problem: String,
    },
    /// Others change the same thing all the time; try again in a moment.
    #[error("others are changing this right now; try again in a moment")]
    Busy,
    /// The database cannot be reached. Nothing was done; the text is for the log, never for a client.
    #[error("the server cannot reach its database; try again in a moment")]
    Unavailable(String),
    /// The server's fault. The text is for the log, never for a client.
    #[error("something went wrong on the server")]
    Internal(String),
}

/// What kind of failure it is, for those who translate it into a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No such thing (404).
    NotFound,
    /// It collides with what is (409).
    Conflict,
    /// `If-Match` did not match (412).
    Precondition,
    /// The input makes no sense (422).
    Invalid,
    /// Not allowed (403).
    Forbidden,
    /// Try again (503).
    Busy,
    /// The server's fault (500).
    Internal,
}

impl ServiceError {
    /// The stable code, as clients see it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::DispatchNotFound(_) => "DISPATCH_NOT_FOUND",
            Self::TechnicianNotFound(_) => "TECHNICIAN_NOT_FOUND",
            Self::LocationNotFound(_) => "LOCATION_NOT_FOUND",
            Self::DeviceNotFound(_) => "DEVICE_NOT_FOUND",
            Self::ExceptionNotFound(_) => "EXCEPTION_NOT_FOUND",
            Self::TechnicianNotAvailable { .. } => "TECHNICIAN_NOT_AVAILABLE",
            Self::AssignmentConflict { .. } => "ASSIGNMENT_CONFLICT",
            Self::IllegalTransition { .. } => "ILLEGAL_TRANSITION",
            Self::RevisionMismatch { .. } => "REVISION_MISMATCH",
            Self::ServiceOrderExists { .. } => "SERVICE_ORDER_EXISTS",
            Self::ValidationFailed { .. } => "VALIDATION_FAILED",
            Self::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::Forbidden { .. } => "FORBIDDEN",
            Self::DeviceForeign(_) => "DEVICE_FOREIGN",
            Self::DeviceRevoked(_) => "DEVICE_REVOKED",
            Self::UnknownEvent(_) => "EVENT_UNKNOWN",
            Self::PoisonEvent { .. } => "EVENT_UNREADABLE",
            Self::Busy => "BUSY",
            Self::Unavailable(_) => "DATABASE_UNAVAILABLE",
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// Its kind.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::DispatchNotFound(_)
            | Self::TechnicianNotFound(_)
            | Self::LocationNotFound(_)
            | Self::DeviceNotFound(_)
            | Self::ExceptionNotFound(_) => Fault::NotFound,
            Self::TechnicianNotAvailable { .. }
            | Self::AssignmentConflict { .. }
            | Self::IllegalTransition { .. }
            | Self::ServiceOrderExists { .. } => Fault::Conflict,
            Self::RevisionMismatch { .. } => Fault::Precondition,
            Self::ValidationFailed { .. }
            | Self::IdempotencyKeyReused
            | Self::UnknownEvent(_)
            | Self::PoisonEvent { .. } => Fault::Invalid,
            Self::Forbidden { .. } | Self::DeviceForeign(_) | Self::DeviceRevoked(_) => Fault::Forbidden,
            Self::Busy | Self::Unavailable(_) => Fault::Busy,
            Self::Internal(_) => Fault::Internal,
        }
    }

    /// What a client may know beside code and message: a JSON object.
    #[must_use]
    pub fn details(&self) -> Value {
        match self {
            Self::DispatchNotFound(id) => json!({ "dispatchId": id }),
            Self::TechnicianNotFound(id) => json!({ "technicianId": id }),
            Self::LocationNotFound(id) => json!({ "locationId": id }),
            Self::DeviceNotFound(id) | Self::DeviceForeign(id) | Self::DeviceRevoked(id) => json!({ "deviceId": id }),
            Self::ExceptionNotFound(id) => json!({ "exceptionId": id }),
            Self::TechnicianNotAvailable { technician, reasons } => {
                json!({ "technicianId": technician, "reasons": reasons })
            }
            Self::AssignmentConflict { technician, dispatch } => {
                json!({ "technicianId": technician, "bookedBy": dispatch })
            }
            Self::IllegalTransition { status, command } => json!({ "status": status, "command": command }),
            Self::RevisionMismatch { expected, actual } => json!({ "expected": expected, "actual": actual }),
            Self::ServiceOrderExists { order, dispatch } => json!({ "serviceOrderId": order, "dispatchId": dispatch }),
            Self::ValidationFailed { field, .. } => json!({ "field": field }),
            Self::Forbidden { action, needs } => json!({ "action": action, "roles": needs }),
            Self::UnknownEvent(event_type) => json!({ "eventType": event_type }),
            Self::PoisonEvent { event, .. } => json!({ "eventId": event }),
            Self::IdempotencyKeyReused | Self::Busy | Self::Unavailable(_) | Self::Internal(_) => json!({}),
        }
    }

    /// Shorthand for [`Self::ValidationFailed`].
    #[must_use]
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self::ValidationFailed { field, message: message.into() }
    }
}

impl From<crate::store::StoreError> for ServiceError {
    fn from(error: crate::store::StoreError) -> Self {
        match error {
            crate::store::StoreError::Unreachable(problem) => Self::Unavailable(problem),
            error => Self::Internal(error.to_string()),
        }
    }
}
