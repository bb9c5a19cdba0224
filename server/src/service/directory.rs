//! Master data: technicians, locations, devices; and what the office settles by hand.

use crate::service::model::{Absence, ExceptionRow, Location, Skill, Technician, TechnicianStatus};
use crate::service::view::DeviceView;
use crate::service::{Outcome, Request, Service, ServiceError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{DeviceId, DispatchId, LocationId, PartNumber, TechnicianId, Window};

/// A technician as the office enters one. What is `None` stays as it is (empty for a new one).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TechnicianInput {
    /// Name; needed for a new one.
    pub name: Option<String>,
    /// What they can do.
    pub skills: Option<Vec<Skill>>,
    /// Where the day starts.
    pub home_base: Option<Coordinates>,
    /// Service territory.
    pub territory: Option<String>,
    /// When they can be booked. Empty: never.
    pub availability: Option<Vec<Window>>,
    /// When they cannot, in spite of it.
    pub absences: Option<Vec<Absence>>,
    /// Truck stock.
    pub van_stock: Option<BTreeMap<PartNumber, i64>>,
}

/// A location as the office enters one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationInput {
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    #[serde(default)]
    pub access_notes: Option<String>,
}

impl Service {
    /// Inserts or changes a technician: name, skills, availability, absences, stock. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::ValidationFailed`], [`ServiceError::RevisionMismatch`].
    pub async fn put_technician(
        &self,
        request: Request<'_>,
        technician: &TechnicianId,
        input: TechnicianInput,
    ) -> Result<Outcome<Technician>, ServiceError> {
        let _ = (request, technician, input);
        unimplemented!()
    }

    /// Adds a planned absence. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::TechnicianNotFound`], [`ServiceError::ValidationFailed`].
    pub async fn add_absence(
        &self,
        request: Request<'_>,
        technician: &TechnicianId,
        absence: Absence,
    ) -> Result<Outcome<Technician>, ServiceError> {
        let _ = (request, technician, absence);
        unimplemented!()
    }

    /// Sets what a technician is doing, optionally on a dispatch. Roles: dispatcher, admin; a technician their own.
    ///
    /// # Errors
    /// [`ServiceError::TechnicianNotFound`], [`ServiceError::DispatchNotFound`].
    pub async fn set_technician_status(
        &self,
        request: Request<'_>,
        technician: &TechnicianId,
        status: TechnicianStatus,
        dispatch: Option<&DispatchId>,
    ) -> Result<Outcome<Technician>, ServiceError> {
        let _ = (request, technician, status, dispatch);
        unimplemented!()
    }

    /// Inserts or changes a location. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::ValidationFailed`], [`ServiceError::RevisionMismatch`].
    pub async fn put_location(
        &self,
        request: Request<'_>,
        location: &LocationId,
        input: LocationInput,
    ) -> Result<Outcome<Location>, ServiceError> {
        let _ = (request, location, input);
        unimplemented!()
    }

    /// Revokes a device: its connection is closed, and what it still sends is quarantined (rule 9). Roles: dispatcher,
    /// admin. Revoking twice changes nothing.
    ///
    /// # Errors
    /// [`ServiceError::DeviceNotFound`].
    pub async fn revoke_device(
        &self,
        request: Request<'_>,
        device: &DeviceId,
    ) -> Result<Outcome<DeviceView>, ServiceError> {
        let _ = (request, device);
        unimplemented!()
    }

    /// Settles an exception. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::DispatchNotFound`], [`ServiceError::ExceptionNotFound`].
    pub async fn resolve_exception(
        &self,
        request: Request<'_>,
        dispatch: &DispatchId,
        exception: &str,
        resolution: &str,
    ) -> Result<Outcome<ExceptionRow>, ServiceError> {
        let _ = (request, dispatch, exception, resolution);
        unimplemented!()
    }
}
