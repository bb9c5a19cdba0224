//! The two ends of a sync connection as sans-IO state machines.
//!
//! A driver owns the socket, the clock and the store; a session owns the order of things. The driver hands in an input
//! with the time, and *must* carry out every effect it gets back, in order; an effect that asks a question (load, commit,
//! store) is answered by handing in the matching input before anything else. The phone's WebSocket driver and the
//! server's handler are two thin adapters around this room; the simulator is a third.
//!
//! **Architecture invariant:** no clock, no socket, no thread, no disk, no randomness that is not an argument.

pub mod backoff;
pub mod phone;
pub mod rate;
pub mod server;

pub use backoff::Backoff;
pub use phone::{PhoneEffect, PhoneInput, PhoneNow, PhoneSession};
pub use server::{ServerEffect, ServerInput, ServerNow, ServerSession};
