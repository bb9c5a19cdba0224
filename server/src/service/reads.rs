//! What the back office reads.

use crate::events::Event;
use crate::service::model::{AuditRecord, DispatchSearch, ExceptionRow, Location, Technician};
use crate::service::view::{CandidateView, DeviceView, DispatchPage, DispatchView, SlaReport};
use crate::service::{Caller, Service, ServiceError};
use serde::{Deserialize, Serialize};
use sync_core::domain::plan::SkillRequirement;
use sync_core::domain::{DispatchId, LocationId, TechnicianId, Window};

/// Whom to look for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateSearch {
    /// Where to go.
    pub location_id: LocationId,
    /// When; `None`: the hour from now on.
    #[serde(default)]
    pub window: Option<Window>,
    /// What they must be able to do.
    #[serde(default, deserialize_with = "crate::service::office::skills")]
    pub required_skills: Vec<SkillRequirement>,
    /// For this visit: its own booking does not count against anybody.
    #[serde(default)]
    pub dispatch_id: Option<DispatchId>,
    /// Also list who cannot, and why.
    #[serde(default)]
    pub include_unavailable: bool,
}

impl Service {
    /// One dispatch. Roles: dispatcher, integration, admin; a technician their own.
    ///
    /// # Errors
    /// [`ServiceError::DispatchNotFound`].
    pub async fn dispatch(&self, caller: &Caller, dispatch: &DispatchId) -> Result<DispatchView, ServiceError> {
        let _ = (caller, dispatch);
        unimplemented!()
    }

    /// A page of dispatches, ordered by scheduled start. The search's tenant is overridden by the caller's.
    /// Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn search_dispatches(
        &self,
        caller: &Caller,
        search: DispatchSearch,
    ) -> Result<DispatchPage, ServiceError> {
        let _ = (caller, search);
        unimplemented!()
    }

    /// Who could go, nearest first; then, if asked for, who could not and why. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::LocationNotFound`].
    pub async fn available_technicians(
        &self,
        caller: &Caller,
        search: CandidateSearch,
    ) -> Result<Vec<CandidateView>, ServiceError> {
        let _ = (caller, search);
        unimplemented!()
    }

    /// One technician. Roles: dispatcher, admin; a technician their own.
    ///
    /// # Errors
    /// [`ServiceError::TechnicianNotFound`].
    pub async fn technician(&self, caller: &Caller, technician: &TechnicianId) -> Result<Technician, ServiceError> {
        let _ = (caller, technician);
        unimplemented!()
    }

    /// Technicians by id, from `after` on. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn technicians(
        &self,
        caller: &Caller,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, ServiceError> {
        let _ = (caller, after, limit);
        unimplemented!()
    }

    /// One location. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::LocationNotFound`].
    pub async fn location(&self, caller: &Caller, location: &LocationId) -> Result<Location, ServiceError> {
        let _ = (caller, location);
        unimplemented!()
    }

    /// Locations by id, from `after` on. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn locations(
        &self,
        caller: &Caller,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, ServiceError> {
        let _ = (caller, after, limit);
        unimplemented!()
    }

    /// A chain of the audit trail (`dispatch:DSP-1`, `technician:TECH-1`, `device:…`, `location:LOC-1`), oldest first.
    /// Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn audit(
        &self,
        caller: &Caller,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, ServiceError> {
        let _ = (caller, aggregate, after, limit);
        unimplemented!()
    }

    /// The event journal after a position, oldest first, each with its position. Roles: integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn events(
        &self,
        caller: &Caller,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, ServiceError> {
        let _ = (caller, after, topic, aggregate, limit);
        unimplemented!()
    }

    /// The phones' health, those behind first. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn devices(
        &self,
        caller: &Caller,
        technician: Option<&TechnicianId>,
    ) -> Result<Vec<DeviceView>, ServiceError> {
        let _ = (caller, technician);
        unimplemented!()
    }

    /// What a person must decide, newest first. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn exceptions(
        &self,
        caller: &Caller,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, ServiceError> {
        let _ = (caller, dispatch, open_only, limit);
        unimplemented!()
    }

    /// Service-level breaches announced in a window. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn sla_report(&self, caller: &Caller, window: Window) -> Result<SlaReport, ServiceError> {
        let _ = (caller, window);
        unimplemented!()
    }
}
