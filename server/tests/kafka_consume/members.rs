//! Members of the group come and go.

use crate::postgres_support::Database;
use crate::world::{World, metric, node, postgres, until};
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

/// Four nodes' worth of luck: each order comes four times, in four partitions, to two nodes on one PostgreSQL; and so does its
/// cancellation, in a topic of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_one_postgresql_that_get_the_same_order_at_once_make_one_dispatch() {
    const ORDERS: usize = 40;
    let database = Database::create().await;
    let world = World::on_postgres(4, database.url()).await;
    let other = node(postgres(database.url()).await);
    let mut records = Vec::new();
    for n in 0..ORDERS {
        let order = format!("SO-{n}");
        for partition in 0..4 {
            let scheduled = json!({ "serviceOrderId": order, "locationId": "LOC-1" });
            let cancelled = json!({ "serviceOrderId": order, "reason": "moved" });
            let mut pair = [
                world.event("ServiceOrderScheduledEvent", &format!("evt-{n}-{partition}"), scheduled),
                world.event("ServiceOrderCancelledEvent", &format!("evt-c{n}-{partition}"), cancelled),
            ];
            for record in &mut pair {
                record["partition"] = json!(partition);
            }
            records.extend(pair);
        }
    }
    let (one, two) = (world.member(), world.member_on(&other));
    world.publish(&records);
    world.caught_up().await;
    assert_eq!(world.dispatches().await, ORDERS);
    for n in 0..ORDERS {
        let dispatch = world.dispatch_of(&format!("SO-{n}")).await.unwrap();
        let chain = world.audit(&format!("dispatch:{}", dispatch.row.dispatch_id)).await;
        let actions: Vec<&str> = chain.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(actions, ["DISPATCH_REQUESTED", "DISPATCH_CANCELLED"], "SO-{n}");
    }
    assert!(world.dead_letters(0).is_empty());
    one.stop().await;
    two.stop().await;
    world.service.store().close().await;
    other.store().close().await;
}
