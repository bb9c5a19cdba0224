//! The phone: one store, opened.

use crate::convert::timestamp;
use crate::error::PhoneError;
use crate::records::{
    Action, ActionTaken, DeviceClock, GoneVisit, OpenNotice, PositionFix, SyncStatus, VisitDetails, VisitSummary,
};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use sync_core::domain::{DispatchId, TechnicianId, TenantId, Window};
use sync_core::store::{NewEdit, OpenOptions, OpenReport, Store, VisitQuery};

/// A technician's phone: what it holds, and what the technician does. Every call blocks on the disk.
#[derive(Debug, uniffi::Object)]
pub struct Phone {
    store: Store,
    report: OpenReport,
}

#[uniffi::export]
impl Phone {
    /// Opens the store at `path`, making it if there is none. `app` is the app's name and version, for the dispatcher's list
    /// of devices; `now` is the phone's wall time. The store is closed when the last reference to the phone is gone.
    ///
    /// # Errors
    /// [`PhoneError::AlreadyOpen`], [`PhoneError::DiskFull`], or [`PhoneError::StoreFailed`] when no file can lie at `path`. A
    /// file that cannot be used is no error: it is renamed, and [`Self::open_notice`] says so.
    #[uniffi::constructor]
    pub fn open(path: &str, app: String, now: SystemTime) -> Result<Arc<Self>, PhoneError> {
        let options = OpenOptions { app, now: timestamp(now) };
        let opened = Store::open(Path::new(path), &options, &mut rand::rng())?;
        Ok(Arc::new(Self { store: opened.store, report: opened.report }))
    }

    /// What opening found.
    pub fn open_notice(&self) -> OpenNotice {
        self.report.clone().into()
    }

    /// Logs a technician in. Another one than before: the former one's unsent work is sealed, never erased.
    ///
    /// # Errors
    /// [`PhoneError::InvalidArgument`] when an id is none, or the store's.
    pub fn log_in(&self, tenant_id: String, technician_id: String) -> Result<(), PhoneError> {
        let (tenant, technician) = (TenantId::new(tenant_id)?, TechnicianId::new(technician_id)?);
        self.store.bind_user(&tenant, &technician, &mut rand::rng())?;
        Ok(())
    }

    /// The visits whose planned start lies in `[from, until)`, by start: a day in the technician's time zone. With
    /// `unscheduled`, those without a planned time follow.
    ///
    /// # Errors
    /// The store's.
    pub fn visits(
        &self,
        from: SystemTime,
        until: SystemTime,
        unscheduled: bool,
    ) -> Result<Vec<VisitSummary>, PhoneError> {
        let window = Window { start: timestamp(from), end: timestamp(until) };
        let query = VisitQuery { window: Some(window), unscheduled, ..VisitQuery::default() };
        Ok(self.store.visits(&query)?.into_iter().map(Into::into).collect())
    }

    /// One visit.
    ///
    /// # Errors
    /// [`PhoneError::UnknownVisit`], [`PhoneError::VisitDamaged`], or the store's.
    pub fn visit(&self, dispatch_id: String) -> Result<VisitDetails, PhoneError> {
        Ok(self.store.visit(&DispatchId::new(dispatch_id)?)?.into())
    }

    /// Takes an action. It is on disk when this returns, and reaches the office when there is a network.
    ///
    /// # Errors
    /// [`PhoneError::NotPossible`], [`PhoneError::UnknownVisit`], [`PhoneError::NotLoggedIn`], or the store's. Nothing was stored.
    pub fn act(
        &self,
        dispatch_id: String,
        action: Action,
        clock: DeviceClock,
        position: Option<PositionFix>,
    ) -> Result<ActionTaken, PhoneError> {
        let dispatch = DispatchId::new(dispatch_id)?;
        let edit = NewEdit::Fact(action.into());
        let acted = self.store.act(&dispatch, edit, &clock.try_into()?, position.map(Into::into), &mut rand::rng())?;
        Ok(ActionTaken { visit: acted.card.into(), unsent: acted.pending })
    }

    /// Visits that have left the phone and that the technician has not seen leave, newest first.
    ///
    /// # Errors
    /// The store's.
    pub fn gone_visits(&self) -> Result<Vec<GoneVisit>, PhoneError> {
        Ok(self.store.tombstones()?.into_iter().map(Into::into).collect())
    }

    /// The technician has seen why a visit is gone. True when there was something to see.
    ///
    /// # Errors
    /// The store's.
    pub fn acknowledge_gone(&self, dispatch_id: String, now: SystemTime) -> Result<bool, PhoneError> {
        Ok(self.store.acknowledge_tombstone(&DispatchId::new(dispatch_id)?, timestamp(now))?)
    }

    /// How much is unsent, refused, or still to be fetched.
    ///
    /// # Errors
    /// The store's.
    pub fn sync_status(&self) -> Result<SyncStatus, PhoneError> {
        Ok(self.store.sync_state()?.into())
    }

    /// Tidies the file, as when the app goes to the background.
    ///
    /// # Errors
    /// The store's; what was stored is safe.
    pub fn checkpoint(&self) -> Result<(), PhoneError> {
        Ok(self.store.checkpoint()?)
    }
}
