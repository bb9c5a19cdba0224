//! The dispatch server: REST back office, WebSocket sync, event journal.
//!
//! `http` and `sync` know `service`; `service` knows the traits of `store` and the pure rules of `sync-core`; only the wiring
//! names a backend.

pub mod app;
pub mod auth;
pub mod config;
pub mod events;
pub mod http;
pub mod service;
pub mod store;
pub mod sync;
pub mod telemetry;
