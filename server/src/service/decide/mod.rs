//! Deciding: pure functions from what was loaded to a [`Commit`](crate::service::commit::Commit).
//!
//! - [`draft`]: a dispatch that is being changed, and what its change becomes;
//! - [`office`]: the office's commands; [`fit`]: whether a technician can go;
//! - [`facts`]: ruling on what technicians stated;
//! - [`audience`]: who holds a visit, and what those are told who no longer do.
//!
//! **Architecture invariant:** nothing here awaits, reads a clock, or knows a store.

pub(crate) mod audience;
pub(crate) mod draft;
pub(crate) mod facts;
pub(crate) mod fit;
pub(crate) mod office;
pub(crate) mod sla;

pub(crate) use draft::{Draft, Frame, Opened, bare_commit};
