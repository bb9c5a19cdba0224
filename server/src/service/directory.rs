//! Master data: technicians, locations, devices; and what the office settles by hand.

use crate::events::{Event, Payload};
use crate::service::commit::{Commit, DeviceWrite};
use crate::service::decide::directory as decide;
use crate::service::decide::draft::Finished;
use crate::service::decide::{Draft, bare_commit, quarantine};
use crate::service::model::{Absence, ExceptionRow, Location, Skill, Technician, TechnicianStatus};
use crate::service::push::touch;
use crate::service::reads::device_view;
use crate::service::shell::ATTEMPTS_MAX;
use crate::service::view::DeviceView;
use crate::service::{Action, Outcome, PhoneSession, Request, Service, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{DeviceId, DispatchId, LocationId, PartNumber, TechnicianId, Window};
use sync_core::protocol::ByeCode;

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
        self.change_technician(request, Action::ChangeTechnician, technician, true, |row, _| {
            decide::technician(row, &input)?;
            Ok(("TECHNICIAN_CHANGED", json!(input)))
        })
        .await
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
        self.change_technician(request, Action::ChangeTechnician, technician, false, |row, _| {
            decide::absence(row, &absence)?;
            Ok(("ABSENCE_ADDED", json!(absence)))
        })
        .await
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
        if let Some(own) = request.caller.only_own(Action::SetTechnicianStatus)?
            && own != technician
        {
            return Err(ServiceError::TechnicianNotFound(technician.clone()));
        }
        if let Some(id) = dispatch {
            let stored = self.store().dispatch(&request.caller.tenant, id).await?;
            let known = stored.is_some_and(|stored| stored.row.plan.epoch_for(technician).is_some());
            if !known {
                return Err(ServiceError::DispatchNotFound(id.clone()));
            }
        }
        self.change_technician(request, Action::SetTechnicianStatus, technician, false, |row, commit| {
            let now = commit.at;
            row.status = status;
            row.status_since = Some(now);
            commit.events.push(Event {
                event_id: self.ids().event(),
                timestamp: now,
                aggregate_id: dispatch.map_or_else(|| technician.to_string(), ToString::to_string),
                tenant_id: commit.tenant.clone(),
                payload: Payload::TechnicianStatusChanged {
                    technician_id: technician.clone(),
                    dispatch_id: dispatch.cloned(),
                    status: status.name().to_owned(),
                    occurred_at: now,
                    recorded_at: now,
                },
            });
            Ok(("TECHNICIAN_STATUS_SET", json!({ "status": status, "dispatchId": dispatch })))
        })
        .await
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
        request.caller.may(Action::ChangeLocation)?;
        if let Some(outcome) = self.replay(&request).await? {
            return Ok(outcome);
        }
        decide::location(&input)?;
        for _ in 0..ATTEMPTS_MAX {
            let known = self.store().location(&request.caller.tenant, location).await?;
            request.check_revision(known.as_ref().map_or(0, |known| known.revision))?;
            let row = Location {
                location_id: location.clone(),
                revision: known.as_ref().map_or(0, |known| known.revision) + 1,
                name: input.name.clone(),
                address: input.address.clone(),
                coordinates: input.coordinates,
                access_notes: input.access_notes.clone(),
            };
            let frame = self.frame(&request.caller.tenant, request.caller.user.as_str());
            let mut commit = bare_commit(&frame);
            commit.audit.push(frame.audit(format!("location:{location}"), "LOCATION_CHANGED", json!(input)));
            commit.locations.push((known.as_ref().map(|known| known.revision), row.clone()));
            let outcome = Outcome::Done { revision: row.revision, value: row, created: known.is_none() };
            if let Some(outcome) = self.settle_other(&request, commit, outcome).await? {
                return Ok(outcome);
            }
        }
        Err(ServiceError::Busy)
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
        request.caller.may(Action::RevokeDevice)?;
        if let Some(outcome) = self.replay(&request).await? {
            return Ok(outcome);
        }
        let tenant = &request.caller.tenant;
        for _ in 0..ATTEMPTS_MAX {
            let known = self.store().device(tenant, device).await?;
            let mut known = known.ok_or_else(|| ServiceError::DeviceNotFound(device.clone()))?;
            let frame = self.frame(tenant, request.caller.user.as_str());
            let mut commit = bare_commit(&frame);
            let technician = known.technician.clone();
            if known.revoked_at.is_none() {
                known.revoked_at = Some(frame.now);
                let session = PhoneSession {
                    tenant: tenant.clone(),
                    user: request.caller.user.clone(),
                    technician: technician.clone(),
                    device: device.clone(),
                };
                commit.devices.push(DeviceWrite {
                    revoked_at: known.revoked_at,
                    seen_at: None,
                    ..touch(&session, frame.now)
                });
                let detail = json!({ "technicianId": technician, "missingActions": known.ledger.missing() });
                commit.audit.push(frame.audit(format!("device:{device}"), "DEVICE_REVOKED", detail));
            }
            let (head, _) = self.store().feed_head(tenant, &technician).await?;
            let value = device_view(known, head, false);
            // A device has no revision of its own; what identifies its state for a caller is when it was revoked.
            let outcome = Outcome::Done { value, revision: 1, created: false };
            if let Some(outcome) = self.settle_other(&request, commit, outcome).await? {
                self.hub().disconnect(tenant, &technician, device, ByeCode::DeviceRevoked);
                return Ok(outcome);
            }
        }
        Err(ServiceError::Busy)
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
        request.caller.may(Action::ResolveException)?;
        if let Some(outcome) = self.replay(&request).await? {
            return Ok(outcome);
        }
        let tenant = &request.caller.tenant;
        for _ in 0..ATTEMPTS_MAX {
            let rows = self.store().exceptions(tenant, Some(dispatch), false, EXCEPTIONS_MAX).await?;
            let row = rows.into_iter().find(|row| row.exception_id == exception);
            let frame = self.frame(tenant, request.caller.user.as_str());
            let opened = match (self.open(tenant, dispatch).await, row.clone()) {
                // Work on a visit that is not here has an exception all the same.
                (Err(ServiceError::DispatchNotFound(_)), Some(row)) => {
                    let commit = quarantine::resolve(&frame, row, &request.caller.user, resolution)?;
                    let value = commit.exceptions.first().cloned();
                    let value = value.ok_or_else(|| ServiceError::Internal("a resolution without a row".to_owned()))?;
                    let outcome = Outcome::Done { value, revision: 0, created: false };
                    match self.settle_other(&request, commit, outcome).await? {
                        Some(outcome) => return Ok(outcome),
                        None => continue,
                    }
                }
                (opened, _) => opened?,
            };
            request.check_revision(opened.stored.row.revision)?;
            let row = row.ok_or_else(|| ServiceError::ExceptionNotFound(exception.to_owned()))?;
            let mut draft = Draft::open(frame, self.ids(), opened);
            crate::service::decide::office::resolve(&mut draft, row, &request.caller.user, resolution)?;
            let Finished { commit, after, .. } = draft.finish();
            let value = commit.exceptions.first().cloned();
            let value = value.ok_or_else(|| ServiceError::Internal("a resolution without a row".to_owned()))?;
            let outcome = Outcome::Done { value, revision: after.stored.row.revision, created: false };
            if let Some(outcome) = self.settle_other(&request, commit, outcome).await? {
                self.0.documents.put(tenant, after);
                return Ok(outcome);
            }
        }
        Err(ServiceError::Busy)
    }

    /// Reads, decides, writes a technician's row.
    async fn change_technician(
        &self,
        request: Request<'_>,
        action: Action,
        technician: &TechnicianId,
        create: bool,
        decide: impl Fn(&mut Technician, &mut Commit) -> Result<(&'static str, serde_json::Value), ServiceError> + Send,
    ) -> Result<Outcome<Technician>, ServiceError> {
        request.caller.may(action)?;
        if let Some(outcome) = self.replay(&request).await? {
            return Ok(outcome);
        }
        let tenant = &request.caller.tenant;
        for _ in 0..ATTEMPTS_MAX {
            let known = self.store().technician(tenant, technician).await?;
            if known.is_none() && !create {
                return Err(ServiceError::TechnicianNotFound(technician.clone()));
            }
            let expected = known.as_ref().map(|row| row.revision);
            request.check_revision(expected.unwrap_or(0))?;
            let mut row = known.unwrap_or_else(|| decide::new_technician(technician));
            let frame = self.frame(tenant, request.caller.user.as_str());
            let mut commit = bare_commit(&frame);
            let (name, detail) = decide(&mut row, &mut commit)?;
            row.revision = expected.unwrap_or(0) + 1;
            commit.audit.push(frame.audit(format!("technician:{technician}"), name, detail));
            commit.technicians.push((expected, row.clone()));
            let outcome = Outcome::Done { revision: row.revision, value: row, created: expected.is_none() };
            if let Some(outcome) = self.settle_other(&request, commit, outcome).await? {
                return Ok(outcome);
            }
        }
        Err(ServiceError::Busy)
    }
}

/// Most exceptions of one visit that are looked through.
const EXCEPTIONS_MAX: u32 = 10_000;
