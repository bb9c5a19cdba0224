//! Simulated technicians and a simulated office on the real `sync-core`: demo, load, benchmarks.
//!
//! Nothing here knows the server's code: it is spoken to through REST and the WebSocket like any other.

pub mod bench;
pub mod city;
pub mod clock;
pub mod demo;
pub mod latency;
pub mod ledger;
pub mod office;
pub mod phone;
mod tables;
