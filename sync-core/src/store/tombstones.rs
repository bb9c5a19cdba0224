//! "Why is my job gone?"

use super::{Store, StoreError};
use crate::domain::{DispatchId, Timestamp, Tombstone};

/// A visit that has left this phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneCard {
    /// Why.
    pub tombstone: Tombstone,
    /// Unsent work on it that is still kept.
    pub unsent: u32,
}

impl Store {
    /// Visits that have left and that the technician has not seen leave, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn tombstones(&self) -> Result<Vec<TombstoneCard>, StoreError> {
        unimplemented!()
    }

    /// The technician has seen it. True when there was one to see.
    ///
    /// # Errors
    /// The database's.
    pub fn acknowledge_tombstone(&self, dispatch: &DispatchId, now: Timestamp) -> Result<bool, StoreError> {
        let _ = (dispatch, now);
        unimplemented!()
    }
}
