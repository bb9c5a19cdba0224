//! Lists and details.

use super::{Store, StoreError};
use crate::document::Edit;
use crate::domain::{DispatchId, Report, Timestamp, VisitCard, VisitState, VisitStatus, VisitView, Window};

/// Which visits to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VisitQuery {
    /// Those whose planned start lies inside; all when `None`.
    pub window: Option<Window>,
    /// Those without a planned time as well. They come last.
    pub unscheduled: bool,
    /// Those in one of these statuses; any when empty.
    pub statuses: Vec<VisitStatus>,
    /// At most this many; 0 for as many as there are.
    pub limit: u32,
}

/// One visit, looked into.
#[derive(Debug, Clone, PartialEq)]
pub struct VisitDetail {
    /// For the headline.
    pub card: VisitCard,
    /// Plan, facts and rulings.
    pub view: VisitView,
    /// Their fold, this phone's pending facts included.
    pub state: VisitState,
    /// The shared report.
    pub report: Report,
    /// This phone's edits that the server has not acknowledged, oldest first.
    pub pending: Vec<PendingEdit>,
}

/// An edit that the server has not acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingEdit {
    /// The edit.
    pub edit: Edit,
    /// When it was made, the phone's wall time.
    pub made_at: Timestamp,
    /// Where it stands.
    pub state: PendingState,
}

/// Where an unacknowledged edit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingState {
    /// Waits to be sent.
    Queued,
    /// Refused; a person must look.
    Parked {
        /// The server's stable code.
        code: String,
        /// For people.
        message: String,
    },
}

impl Store {
    /// Visits for a list, by planned start; opens no document.
    ///
    /// # Errors
    /// The database's.
    pub fn visits(&self, query: &VisitQuery) -> Result<Vec<VisitCard>, StoreError> {
        let _ = query;
        unimplemented!()
    }

    /// One visit. A visit that has left the phone but has unsent work is still answered.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::VisitDamaged`], or the database's.
    pub fn visit(&self, dispatch: &DispatchId) -> Result<VisitDetail, StoreError> {
        let _ = dispatch;
        unimplemented!()
    }
}
