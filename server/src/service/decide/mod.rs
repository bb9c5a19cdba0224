//! Deciding: pure functions from what was loaded to a [`Commit`](crate::service::commit::Commit).
//!
//! - [`draft`]: a dispatch that is being changed, and what its change becomes;
//! - [`office`]: the office's commands; [`fit`]: whether a technician can go;
//! - [`facts`]: ruling on what technicians stated;
//! - [`quarantine`]: what is kept although it is not let in;
//! - [`audience`]: who holds a visit, and what those are told who no longer do.
//!
//! **Architecture invariant:** nothing here awaits, reads a clock, or knows a store.

pub(crate) mod audience;
pub(crate) mod directory;
pub(crate) mod draft;
pub(crate) mod facts;
pub(crate) mod fit;
pub(crate) mod ingest;
pub(crate) mod office;
pub(crate) mod quarantine;
pub(crate) mod sla;
pub(crate) mod sweep;

pub(crate) use draft::{Draft, Frame, Opened, bare_commit};
