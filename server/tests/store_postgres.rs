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
use postgres_support::{Database, PATIENCE};
use std::sync::Arc;

fn options(url: String) -> PostgresOptions {
    PostgresOptions {
        url,
        connections_max: 10,
        connect_timeout: PATIENCE,
        statement_timeout: 6 * PATIENCE,
        patience: PATIENCE,
    }
}

async fn fresh() -> (Arc<dyn Store>, Database) {
    let database = Database::create().await;
    let store = PostgresStore::open(&options(database.url())).await.unwrap();
    println!("store conformance: PostgreSQL");
    (store, database)
}

crm_dispatch_server::store_conformance!(fresh);
