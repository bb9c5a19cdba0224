//! What time alone decides: service levels, held facts, the window that phones hold.

use crate::service::{Service, ServiceError};
use serde::Serialize;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// Dispatches looked at.
    pub examined: u32,
    /// Breaches announced, confirmed or retracted.
    pub breaches: u32,
    /// Held facts that were ruled on.
    pub facts_released: u32,
    /// Visits that left their technicians' phones.
    pub let_go: u32,
    /// Dispatches that failed; they are tried again by the next sweep.
    pub failed: u32,
    /// Old idempotency keys and feed entries removed.
    pub pruned: u64,
}

impl Service {
    /// One sweep, over all tenants, of a bounded number of dispatches. Call it every few seconds.
    ///
    /// # Errors
    /// [`ServiceError::Internal`] when the store does not answer.
    pub async fn sweep(&self) -> Result<Swept, ServiceError> {
        unimplemented!()
    }
}
