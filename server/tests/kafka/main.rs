//! Events on their way to a real Kafka, through good days and bad ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

#[path = "../postgres_support/mod.rs"]
mod postgres_support;
#[path = "../kafka_support/mod.rs"]
mod support;

mod asyncapi;
mod avro;
mod contract;
mod faults;
mod nodes;
mod refusals;

use crm_dispatch_server::config::KafkaConfig;
use crm_dispatch_server::events::Event;
use crm_dispatch_server::events::RelayStatus;
use crm_dispatch_server::events::kafka::relay::Relay;
use crm_dispatch_server::service::SystemClock;
use crm_dispatch_server::service::commit::Commit;
use crm_dispatch_server::store::Store;
use crm_dispatch_server::store::conformance::fixture::{blank, commit, event, status_event, tech, visit};
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use crm_dispatch_server::store::sqlite::SqliteStore;
use postgres_support::Database;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::reader::{Seen, first_sights};
use support::until;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A node's store, and the relay beside it.
struct Node {
    store: Arc<dyn Store>,
    /// What the store lies in.
    kept: Kept,
    status: watch::Receiver<RelayStatus>,
    stop: watch::Sender<bool>,
    relay: Option<JoinHandle<()>>,
}

type Kept = Arc<dyn Any + Send + Sync>;

async fn store() -> (Arc<dyn Store>, Kept) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("dispatch.db")).await.unwrap();
    (store, Arc::new(dir))
}

/// The same on PostgreSQL.
async fn postgres() -> (Arc<dyn Store>, Kept) {
    let database = Database::create().await;
    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await.unwrap();
    (store, Arc::new(database))
}

impl Node {
    async fn start(config: &KafkaConfig) -> Self {
        let (store, dir) = store().await;
        Self::on(store, dir, config)
    }

    /// A further node on the same database.
    fn beside(&self, config: &KafkaConfig) -> Self {
        Self::on(Arc::clone(&self.store), Arc::clone(&self.kept), config)
    }

    fn on(store: Arc<dyn Store>, kept: Kept, config: &KafkaConfig) -> Self {
        let (says, status) = watch::channel(RelayStatus::Journal);
        let stop = watch::Sender::new(false);
        let relay = Relay::new(Arc::clone(&store), Arc::new(SystemClock), config.clone(), says, stop.subscribe());
        Self { store, kept, status, stop, relay: Some(tokio::spawn(relay.run())) }
    }

    fn status(&self) -> RelayStatus {
        self.status.borrow().clone()
    }

    async fn until_status(&self, name: &str) {
        until(&format!("the relay is {name}, not {:?}", self.status()), async || self.status().name() == name).await;
    }

    async fn waiting(&self) -> u64 {
        self.store.outbox_lag().await.unwrap().waiting
    }

    async fn until_published(&self) {
        until("everything is published", async || self.waiting().await == 0).await;
    }

    /// As a server does when it stops.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        self.relay.take().unwrap().await.unwrap();
    }

    /// Ends the relay between any two steps: nothing is settled, nothing is marked.
    async fn die(&mut self) {
        let relay = self.relay.take().unwrap();
        relay.abort();
        let _ = relay.await;
    }
}

/// Writes that many assignments, `keys` visits in turn, a hundred a commit.
async fn write(store: &Arc<dyn Store>, from: usize, count: usize, keys: usize) {
    let numbers: Vec<usize> = (from..from + count).collect();
    for hundred in numbers.chunks(100) {
        let events = hundred.iter().map(|n| {
            let visit = visit(&format!("DSP-{}", n % keys));
            event(&format!("evt-{n:07}"), &visit, &tech("TECH-10"))
        });
        commit(&**store, Commit { events: events.collect(), ..blank(0) }).await;
    }
}

/// Every event of the journal is on its topic, and a consumer that remembers ids sees each key's in the journal's order.
async fn assert_all_arrived(store: &Arc<dyn Store>, prefix: &str, seen: &[Seen]) {
    let mut told = BTreeMap::<(String, String), Vec<String>>::new();
    let tenant = blank(0).tenant;
    let mut after = 0;
    loop {
        let page = store.events(&tenant, after, None, None, 1_000).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (_, event) in page {
            let Event { event_id, aggregate_id, payload, .. } = event;
            told.entry((format!("{prefix}{}", payload.topic()), aggregate_id)).or_default().push(event_id.to_string());
        }
    }
    let sights = first_sights(seen);
    assert_eq!(sights.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
    for (place, ids) in &told {
        assert_eq!(&sights[place], ids, "{place:?}");
    }
}

/// One event of a technician without a dispatch.
async fn write_status(store: &Arc<dyn Store>, id: &str, technician: &str) {
    let event = status_event(id, &tech(technician));
    commit(&**store, Commit { events: vec![event], ..blank(0) }).await;
}
