//! Brokers that go away, and relays that die.

use super::*;
use support::broker::Broker;
use support::reader::read;
use support::{kafka, own_prefix, shared_broker};

/// On the embedded database and on PostgreSQL, beside each other on one broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_wait_while_the_broker_is_down() {
    let broker = Broker::start().await;
    let mut nodes = Vec::new();
    for (prefix, (store, kept)) in [("embedded.", store().await), ("postgres.", postgres().await)] {
        let node = Node::on(store, kept, &kafka(&broker.address(), prefix, &[]));
        write(&node.store, 0, 10, 100).await;
        node.until_published().await;
        nodes.push((prefix, node));
    }

    broker.stop().await;
    for (_, node) in &nodes {
        write(&node.store, 10, 10_000, 100).await;
        node.until_status("WAITING").await;
        let RelayStatus::Waiting(reason) = node.status() else { panic!("{:?}", node.status()) };
        assert!(reason.contains(&broker.address()) && reason.contains("kafka.brokers"), "{reason}");
        assert_eq!(node.waiting().await, 10_000, "nothing is marked without a receipt");
    }

    broker.again().await;
    for (prefix, node) in nodes {
        node.until_published().await;
        node.until_status("PUBLISHING").await;
        let seen = read(&broker.address(), prefix, 10_010).await;
        assert_all_arrived(&node.store, prefix, &seen).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_in_the_middle_gets_every_event_in_order_when_it_is_back() {
    const EVENTS: u64 = 15_000;
    let broker = Broker::start().await;
    let mut nodes = Vec::new();
    for (prefix, (store, kept)) in [("embedded.", store().await), ("postgres.", postgres().await)] {
        write(&store, 0, EVENTS as usize, 100).await;
        nodes.push((prefix, store, kept));
    }
    // A small window, so that the middle lasts.
    let mut running = Vec::new();
    for (prefix, store, kept) in nodes {
        running.push((prefix, Node::on(store, kept, &kafka(&broker.address(), prefix, &[("in_flight_max", "200")]))));
    }
    for left in [EVENTS * 4 / 5, EVENTS / 2] {
        until("one of them is in the middle", async || {
            running[0].1.waiting().await < left || running[1].1.waiting().await < left
        })
        .await;
        broker.kill().await;
        for (prefix, node) in &running {
            assert!(node.waiting().await > 0, "it was killed with events of {prefix} under way");
        }
        broker.again().await;
    }
    for (prefix, node) in running {
        node.until_published().await;
        let seen = read(&broker.address(), prefix, EVENTS as usize).await;
        assert_all_arrived(&node.store, prefix, &seen).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_relays_one_publishes_and_the_other_takes_over_when_it_dies() {
    let prefix = own_prefix();
    let config = kafka(&shared_broker(), &prefix, &[("in_flight_max", "500")]);
    let mut first = Node::start(&config).await;
    first.until_status("PUBLISHING").await;
    let second = first.beside(&config);
    second.until_status("STANDBY").await;
    write(&first.store, 0, 5_000, 50).await;
    until("the first is in the middle", async || first.waiting().await < 4_000).await;
    assert_eq!((first.status().name(), second.status().name()), ("PUBLISHING", "STANDBY"));

    first.die().await;
    write(&second.store, 5_000, 1_000, 50).await;
    second.until_status("PUBLISHING").await;
    second.until_published().await;
    let seen = read(&shared_broker(), &prefix, 6_000).await;
    assert_all_arrived(&second.store, &prefix, &seen).await;
    // The turn is free again for whoever comes next.
    let third = second.beside(&config);
    third.until_status("STANDBY").await;
    second.stop().await;
    third.until_status("PUBLISHING").await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_dies_again_and_again_between_sending_and_marking_loses_nothing() {
    let prefix = own_prefix();
    let config = kafka(&shared_broker(), &prefix, &[("in_flight_max", "300")]);
    let (store, dir) = store().await;
    write(&store, 0, 6_000, 40).await;
    for left in [5_000, 3_500, 2_000, 500] {
        let mut node = Node::on(Arc::clone(&store), Arc::clone(&dir), &config);
        until("some are published", async || node.waiting().await < left).await;
        node.die().await;
    }
    let node = Node::on(Arc::clone(&store), dir, &config);
    node.until_published().await;
    let seen = read(&shared_broker(), &prefix, 6_000).await;
    assert!(seen.len() > 6_000, "a receipt that nobody noted means that the event is sent again, under the same id");
    assert_all_arrived(&store, &prefix, &seen).await;
    node.stop().await;
}
