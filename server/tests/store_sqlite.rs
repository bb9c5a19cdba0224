//! The store's suite on SQLite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a story that is not as told shall fail"
)]

use crm_dispatch_server::store::Store;
use crm_dispatch_server::store::sqlite::SqliteStore;
use std::sync::Arc;
use tempfile::TempDir;

async fn fresh() -> (Arc<dyn Store>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("dispatch.db")).await.unwrap();
    println!("store conformance: SQLite");
    (store, directory)
}

async fn beside(directory: &TempDir) -> Arc<dyn Store> {
    SqliteStore::open(&directory.path().join("dispatch.db")).await.unwrap()
}

crm_dispatch_server::store_conformance!(fresh, beside);
