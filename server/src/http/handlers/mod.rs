//! The calls, one file a resource.

pub(super) mod devices;
pub(super) mod dispatches;
pub(super) mod events;
pub(super) mod exceptions;
pub(super) mod health;
pub(super) mod locations;
pub(super) mod reports;
pub(super) mod sync;
pub(super) mod technicians;
