//! Who calls, and what they may: the one place where authorisation is decided.

use crate::service::error::ServiceError;
use serde::{Deserialize, Serialize};
use sync_core::domain::{DeviceId, TechnicianId, TenantId, UserId};

/// What a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Plans visits.
    Dispatcher,
    /// Goes there.
    Technician,
    /// Another system: Service Orders, Inventory.
    Integration,
    /// Everything a dispatcher may, and the master data and devices.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Dispatcher, Self::Technician, Self::Integration, Self::Admin];

    /// The name, as in a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Technician => "technician",
            Self::Integration => "integration",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Who calls, as the token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose data. Comes from the token only.
    pub tenant: TenantId,
    /// The token's `sub`.
    pub user: UserId,
    /// What they are.
    pub roles: Vec<Role>,
    /// Which technician they are, if one.
    pub technician: Option<TechnicianId>,
}

/// A phone's connection: a technician on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneSession {
    /// Whose data. Comes from the token only.
    pub tenant: TenantId,
    /// The token's `sub`.
    pub user: UserId,
    /// Comes from the token only.
    pub technician: TechnicianId,
    /// From the `Hello`, checked by [`crate::service::Service::hello`].
    pub device: DeviceId,
}

/// Everything that can be asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each is named after the method it guards")]
pub enum Action {
    CreateRequest,
    Assign,
    Unassign,
    Confirm,
    Reject,
    Cancel,
    Reinstate,
    EndStopWork,
    Reschedule,
    SetPriority,
    SetTechnicianStatus,
    ChangeTechnician,
    ChangeLocation,
    RevokeDevice,
    ResolveException,
    ReadDispatch,
    SearchDispatches,
    ReadTechnician,
    ListTechnicians,
    ReadLocations,
    ReadAudit,
    ReadEvents,
    ReadDevices,
    ReadExceptions,
    ReadSla,
    Ingest,
    Sync,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 27] = [
        Self::CreateRequest,
        Self::Assign,
        Self::Unassign,
        Self::Confirm,
        Self::Reject,
        Self::Cancel,
        Self::Reinstate,
        Self::EndStopWork,
        Self::Reschedule,
        Self::SetPriority,
        Self::SetTechnicianStatus,
        Self::ChangeTechnician,
        Self::ChangeLocation,
        Self::RevokeDevice,
        Self::ResolveException,
        Self::ReadDispatch,
        Self::SearchDispatches,
        Self::ReadTechnician,
        Self::ListTechnicians,
        Self::ReadLocations,
        Self::ReadAudit,
        Self::ReadEvents,
        Self::ReadDevices,
        Self::ReadExceptions,
        Self::ReadSla,
        Self::Ingest,
        Self::Sync,
    ];

    /// Which roles may. A technician who may, may only on their own visits, own status and own record: the methods see
    /// to that through [`Caller::only_own`].
    #[must_use]
    pub fn roles(self) -> &'static [Role] {
        use Role::{Admin, Dispatcher, Integration, Technician};
        match self {
            Self::CreateRequest => &[Dispatcher, Integration, Admin],
            Self::Assign
            | Self::Unassign
            | Self::Reinstate
            | Self::EndStopWork
            | Self::Reschedule
            | Self::SetPriority
            | Self::ChangeTechnician
            | Self::ChangeLocation
            | Self::ResolveException
            | Self::ListTechnicians
            | Self::ReadAudit
            | Self::ReadDevices
            | Self::ReadExceptions => &[Dispatcher, Admin],
            Self::Cancel | Self::SearchDispatches | Self::ReadLocations | Self::ReadSla => {
                &[Dispatcher, Integration, Admin]
            }
            Self::ReadEvents | Self::Ingest => &[Integration, Admin],
            Self::RevokeDevice => &[Dispatcher, Admin],
            Self::Confirm | Self::Reject | Self::Sync => &[Technician],
            Self::SetTechnicianStatus | Self::ReadTechnician => &[Dispatcher, Technician, Admin],
            Self::ReadDispatch => &[Dispatcher, Technician, Integration, Admin],
        }
    }
}

impl Caller {
    /// Lets the caller pass, or says which roles may.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub fn may(&self, action: Action) -> Result<(), ServiceError> {
        if action.roles().iter().any(|role| self.roles.contains(role)) {
            Ok(())
        } else {
            Err(ServiceError::Forbidden { action, needs: action.roles().to_vec() })
        }
    }

    /// The technician whose things alone the caller may see for this action; `None` when the caller may see everybody's.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`] for a technician's token that does not say which technician.
    pub fn only_own(&self, action: Action) -> Result<Option<&TechnicianId>, ServiceError> {
        self.may(action)?;
        let office = action.roles().iter().any(|role| *role != Role::Technician && self.roles.contains(role));
        if office {
            return Ok(None);
        }
        self.technician
            .as_ref()
            .map(Some)
            .ok_or_else(|| ServiceError::Forbidden { action, needs: action.roles().to_vec() })
    }
}
