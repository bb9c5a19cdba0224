//! What Service Orders and Inventory publish has its effect here, once: a real broker, another system's own client, a real store.

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod members;
mod poison;
#[path = "../postgres_support/mod.rs"]
mod postgres_support;
#[path = "../kafka_support/registry.rs"]
mod registry;
mod stories;
mod world;
