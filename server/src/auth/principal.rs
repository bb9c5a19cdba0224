//! What a verified token says.

use serde::{Deserialize, Serialize};
use sync_core::domain::{DeviceId, TechnicianId, TenantId, Timestamp, UserId};

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Plans, assigns, cancels, resolves.
    Dispatcher,
    /// Works in the field; the token names which technician.
    Technician,
    /// Another system: hands in consumed events, reads the journal.
    Integration,
    /// Keeps technicians, locations and devices; may do whatever a dispatcher may.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Dispatcher, Self::Technician, Self::Integration, Self::Admin];

    /// The name as in the token's `roles`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Technician => "technician",
            Self::Integration => "integration",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or(UnknownRole)
    }
}

/// The text names no role of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the roles are dispatcher, technician, integration and admin")]
pub struct UnknownRole;

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's `sub`.
    pub user: UserId,
    /// The token's `tenant`.
    pub tenant: TenantId,
    /// The token's `roles` that this server knows, without doubles; others are ignored.
    pub roles: Vec<Role>,
    /// The token's `technician`; always there with [`Role::Technician`].
    pub technician: Option<TechnicianId>,
    /// The token's `device`: when there, only that device may sync with it.
    pub device: Option<DeviceId>,
    /// The token's `exp`. A connection that outlives it needs a new token.
    pub expires_at: Timestamp,
}

impl Principal {
    /// True when the caller has the role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}
