//! A deterministic simulator around the shipped code: real phones' stores and sessions, the real service with its session and
//! store, and in between a network, clocks, disks and processes that fail as a seed says.
//!
//! One seed is one day. The same seed gives the same trace, byte for byte. What an oracle finds is shrunk to the shortest list
//! of events that still shows it, and kept under `cases/`.
//!
//! Rooms, in reading order: `scenario` (what happens), `world` (the queue, the network, the drivers), `phone`, `disk`, `node`,
//! `chaos` and `memory` (the server's store), `staff` (what people do), `oracle` (what must hold), `report`, `shrink`.

mod chaos;
mod disk;
pub mod exhaustive;
pub mod heap;
pub mod memory;
mod node;
mod oracle;
mod phone;
mod prepared;
pub mod report;
pub mod scenario;
pub mod shrink;
mod staff;
pub mod world;

pub use report::Report;
pub use scenario::Scenario;
pub use world::{Outcome, Violation, play};
