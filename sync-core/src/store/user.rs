//! Who is logged in (rule 10): a store belongs to one technician at a time, and keeps everybody's unsent work.

use super::{Store, StoreError};
use crate::domain::{TechnicianId, TenantId};

/// What logging in changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// Another user than before: the visits are gone from the phone and everything is fetched anew.
    pub changed: bool,
    /// The former user's unacknowledged changes, sealed now.
    pub sealed: u32,
    /// This user's changes that had been sealed, queued again.
    pub unsealed: u32,
}

/// What a revocation removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wiped {
    /// Visits removed.
    pub visits: u32,
    /// Unacknowledged changes, sealed.
    pub sealed: u32,
}

impl Store {
    /// Logs a technician in. Another one than before: the former one's outbox is sealed, never erased.
    ///
    /// # Errors
    /// The database's.
    pub fn bind_user(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        rng: &mut dyn rand::Rng,
    ) -> Result<Bound, StoreError> {
        let _ = (tenant, technician, rng);
        unimplemented!()
    }

    /// Sealed changes of every user: whose, and how many.
    ///
    /// # Errors
    /// The database's.
    pub fn sealed(&self) -> Result<Vec<(TenantId, TechnicianId, u32)>, StoreError> {
        unimplemented!()
    }

    /// The device was revoked: seals the outbox, removes visits, documents and cards, overwrites their pages, and logs the
    /// technician out.
    ///
    /// # Errors
    /// The database's.
    pub fn wipe_after_revocation(&self, rng: &mut dyn rand::Rng) -> Result<Wiped, StoreError> {
        let _ = rng;
        unimplemented!()
    }
}
