//! Members of the group come and go.

use crate::world::{World, metric, until};
use serde_json::{Value, json};

const TECHNICIANS: i64 = 10;
const CHANGES: i64 = 60;

/// What each truck's stock was set to, in the order it was: `1, 2, 3, …` when nothing was lost, doubled or swapped.
async fn set_to(world: &World, technician: i64) -> Vec<i64> {
    let chain = world.audit(&format!("technician:TECH-{technician}")).await;
    let stock = chain.into_iter().filter(|record| record.action == "STOCK_CHANGED");
    stock.map(|record| record.detail["quantity"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_in_mid_load_and_nothing_is_lost_doubled_or_swapped() {
    let mut world = World::new(6).await;
    world.config.queue_events_max = 10;
    // Rarely, so that a rebalance finds much that is done and not committed.
    world.config.commit_every_ms = 5_000;
    let mut records: Vec<Value> = Vec::new();
    for quantity in 1..=CHANGES {
        for technician in 0..TECHNICIANS {
            let payload =
                json!({ "technicianId": format!("TECH-{technician}"), "partNumber": "FILTER", "quantity": quantity });
            records.push(world.event("StockChangedEvent", &format!("evt-{technician}-{quantity}"), payload));
        }
    }
    let (first, second) = records.split_at(records.len() / 2);
    let total = || async {
        let mut total = 0;
        for technician in 0..TECHNICIANS {
            total += set_to(&world, technician).await.len();
        }
        total
    };
    world.publish(first);
    let one = world.member();
    until("it has begun", || async { total().await > 20 }).await;
    let two = world.member();
    world.publish(second);
    until("they share", || async { total().await > 200 }).await;
    let three = world.member();
    until("more is done", || async { total().await > 350 }).await;
    one.stop().await;
    until("nearly all is done", || async { total().await > 500 }).await;
    // Not stopped but dropped, as when a node goes without a word to the server's own shutdown.
    drop(two);
    world.caught_up().await;
    let all: Vec<i64> = (1..=CHANGES).collect();
    for technician in 0..TECHNICIANS {
        assert_eq!(set_to(&world, technician).await, all, "TECH-{technician}");
        assert_eq!(world.stock(&format!("TECH-{technician}"), "FILTER").await, CHANGES);
    }
    assert!(world.dead_letters(0).is_empty());
    assert!(metric("crm_dispatch_consumer_rebalances_total", &["revoked"]) > 0.0, "partitions did move");
    three.stop().await;
    assert_eq!(world.behind(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_get_the_same_order_at_once_make_one_dispatch() {
    let world = World::new(4).await;
    let mut records = Vec::new();
    for n in 0..40 {
        for partition in 0..4 {
            let payload = json!({ "serviceOrderId": format!("SO-{n}"), "locationId": "LOC-1" });
            let mut record = world.event("ServiceOrderScheduledEvent", &format!("evt-{n}-{partition}"), payload);
            record["partition"] = json!(partition);
            records.push(record);
        }
    }
    world.publish(&records);
    let (one, two) = (world.member(), world.member());
    world.caught_up().await;
    assert_eq!(world.dispatches().await, 40);
    assert_eq!(world.consumed("applied"), 40.0);
    one.stop().await;
    two.stop().await;
}
