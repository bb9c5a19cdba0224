//! What a verified token says.

use crate::service::{Caller, Role};
use sync_core::domain::{DeviceId, Timestamp};

/// A verified caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose data, who, with which rights. Roles that this server does not know are left out; with [`Role::Technician`]
    /// there is always a technician.
    pub caller: Caller,
    /// The token's `device`: when there, only that device may sync with it.
    pub device: Option<DeviceId>,
    /// The token's `exp`. A connection that outlives it needs a new token.
    pub expires_at: Timestamp,
}

impl Principal {
    /// True when the caller has the role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.caller.roles.contains(&role)
    }
}
