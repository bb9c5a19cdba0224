//! The phone's engine, and the rules that phone and server share.
//!
//! Principle: **facts are accepted, plans are arbitrated.** What physically happened is the technician's to state,
//! append-only, and never dropped. What shall happen is the office's. A visit's status is *computed* from both by
//! [`domain::fold()`], one pure function that phone and server share; it is never a mergeable register.
//!
//! Rooms, in reading order:
//! - [`domain`]: ids, time, plan, facts, rulings, the lifecycle fold, the conflict rules. No IO, no CRDT.
//! - [`document`]: the visit as an Automerge document; the only room that names `automerge`.
//! - [`protocol`]: messages, codec, versions, limits.
//! - [`session`]: sans-IO state machines of both ends: `(now, rng, input) -> effects`.
//! - `store` (feature): the phone's SQLite. `client` (feature): the phone's WebSocket driver, the only tokio here.
//!
//! **Architecture invariant:** the first four rooms read no clock, draw no randomness, open no file and no socket;
//! time and randomness are arguments.

pub mod document;
pub mod domain;
pub mod protocol;
pub mod session;

#[cfg(feature = "client")]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the room that has the clock, the randomness and the socket; the pure rooms take them as arguments"
)]
pub mod client;
#[cfg(feature = "store")]
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the room that has the files; the pure rooms take what they need as arguments"
)]
pub mod store;
