//! The store's suite on PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a story that is not as told shall fail"
)]

mod postgres_support;

use crm_dispatch_server::store::Store;
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use postgres_support::Database;
use std::sync::Arc;

async fn fresh() -> (Arc<dyn Store>, Database) {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    println!("store conformance: PostgreSQL");
    (store, database)
}

async fn beside(database: &Database) -> Arc<dyn Store> {
    PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap()
}

crm_dispatch_server::store_conformance!(fresh, beside);
