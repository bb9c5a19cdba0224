//! Several nodes on one PostgreSQL.

use super::*;
use sqlx::Executor as _;
use support::reader::read;
use support::{PATIENCE, kafka, own_prefix, shared_broker};

async fn node(database: &Arc<Database>, config: &KafkaConfig) -> Node {
    let options = PostgresOptions {
        url: database.url(),
        connections_max: 4,
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        patience: PATIENCE,
    };
    Node::on(PostgresStore::open(&options).await.unwrap(), Arc::clone(database) as Kept, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_one_publishes_and_the_other_takes_over_when_it_dies() {
    let database = Arc::new(Database::create().await);
    let prefix = own_prefix();
    let config = kafka(&shared_broker(), &prefix, &[("in_flight_max", "300")]);
    let mut first = node(&database, &config).await;
    first.until_status("PUBLISHING").await;
    let second = node(&database, &config).await;
    second.until_status("STANDBY").await;
    // Whichever node commits, the one whose turn it is publishes.
    write(&second.store, 0, 4_000, 50).await;
    write(&first.store, 4_000, 500, 50).await;
    until("the first is in the middle", async || first.waiting().await < 3_500).await;
    assert_eq!((first.status().name(), second.status().name()), ("PUBLISHING", "STANDBY"));

    first.die().await;
    second.until_status("PUBLISHING").await;
    write(&second.store, 4_500, 500, 50).await;
    second.until_published().await;
    let seen = read(&shared_broker(), &prefix, 5_000).await;
    assert_all_arrived(&second.store, &prefix, &seen).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_loses_its_connection_loses_its_turn_and_nothing_else() {
    let database = Arc::new(Database::create().await);
    let prefix = own_prefix();
    let config = kafka(&shared_broker(), &prefix, &[("in_flight_max", "300")]);
    let first = node(&database, &config).await;
    first.until_status("PUBLISHING").await;
    let second = node(&database, &config).await;
    second.until_status("STANDBY").await;
    write(&first.store, 0, 3_000, 50).await;

    // The connection that holds the turn is cut, as a network would; both nodes go on living.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks \
        WHERE locktype = 'advisory' AND objid = 1000 AND granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut operator = database.connect().await;
    operator.execute(cut).await.unwrap();
    until("one of them publishes and the other stands by", async || {
        let mut both = [first.status(), second.status()];
        both.sort_by_key(RelayStatus::name);
        both == [RelayStatus::Publishing, RelayStatus::Standby]
    })
    .await;
    write(&second.store, 3_000, 1_000, 50).await;
    first.until_published().await;
    let seen = read(&shared_broker(), &prefix, 4_000).await;
    assert_all_arrived(&first.store, &prefix, &seen).await;
    first.stop().await;
    second.stop().await;
}
