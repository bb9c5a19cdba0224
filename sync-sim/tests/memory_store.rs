//! The simulator's store in memory does what every store does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use crm_dispatch_server::store::Store;
use std::sync::Arc;
use sync_core::document::ActorKey;
use sync_core::protocol::Generation;
use sync_sim::memory::MemoryStore;

async fn fresh() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryStore::new(Generation(7), ActorKey([7; 16]))), ())
}

crm_dispatch_server::store_conformance!(fresh);
