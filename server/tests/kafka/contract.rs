//! What other systems may rely on: names, partitions, keys, headers, envelopes.

use super::*;
use crm_dispatch_server::events::TOPICS;
use support::broker::Broker;
use support::reader::{partitions, read};
use support::{kafka, own_prefix, shared_broker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_five_topics_are_made_with_their_partitions_and_used_as_agreed() {
    let broker = Broker::start().await;
    let node = Node::start(&kafka(&broker.address(), "", &[])).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = Commit {
        events: vec![event("evt-1", &visit("DSP-1"), &tech("TECH-10"))],
        traceparent: Some(trace.to_owned()),
        ..blank(0)
    };
    commit(&*node.store, traced).await;
    write_status(&node.store, "evt-2", "TECH-10").await;
    node.until_published().await;

    let expected: BTreeMap<String, usize> =
        TOPICS.iter().map(|(name, count)| ((*name).to_owned(), usize::from(*count))).collect();
    assert_eq!(partitions(&broker.address(), "crm.dispatch.").await, expected);

    let seen = read(&broker.address(), "crm.dispatch.", 2).await;
    assert_eq!(seen.len(), 2);
    let assigned = seen.iter().find(|one| one.topic == "crm.dispatch.assignment.created").unwrap();
    assert_eq!((assigned.key.as_str(), assigned.event_id()), ("DSP-1", "evt-1"));
    assert_eq!(assigned.headers["event-type"], "TechnicianAssignedEvent");
    assert_eq!(assigned.headers["content-type"], "application/json");
    assert_eq!(assigned.headers["traceparent"], trace);
    let envelope: serde_json::Value = serde_json::from_slice(&assigned.value).unwrap();
    let told = node.store.events(&blank(0).tenant, 0, None, None, 1).await.unwrap();
    assert_eq!(envelope, serde_json::to_value(&told[0].1).unwrap(), "the journal and the topic say the same");
    let status = seen.iter().find(|one| one.topic == "crm.dispatch.technician.status").unwrap();
    assert_eq!(status.key, "TECH-10", "without a dispatch the technician is the key");
    assert!(!status.headers.contains_key("traceparent"));

    // The next relay finds them, and makes nothing.
    node.stop().await;
    let node = Node::start(&kafka(&broker.address(), "", &[])).await;
    node.until_status("PUBLISHING").await;
    assert_eq!(partitions(&broker.address(), "crm.dispatch.").await, expected);
    node.stop().await;
}

#[test]
fn every_way_of_signing_in_is_built_in() {
    use rdkafka::producer::{BaseProducer, DefaultProducerContext};
    for protocol in ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            if (protocol, mechanism) == ("sasl_plaintext", "PLAIN") {
                continue;
            }
            let settings = [
                ("security_protocol", protocol),
                ("sasl_mechanism", mechanism),
                ("sasl_username", "dispatch"),
                ("sasl_password", "hunter2"),
            ];
            let client = crm_dispatch_server::events::kafka::client(&kafka("127.0.0.1:9", "", &settings));
            let opened: Result<BaseProducer<DefaultProducerContext>, _> = client.create();
            assert!(opened.is_ok(), "{protocol} {mechanism}: {:?}", opened.err());
        }
    }
}

/// The figures of this process, as the operator's listener shows them.
fn figures() -> &'static metrics_exporter_prometheus::PrometheusHandle {
    static HANDLE: std::sync::OnceLock<metrics_exporter_prometheus::PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE.get_or_init(|| metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_what_is_published_and_what_waits() {
    let figures = figures();
    let prefix = own_prefix();
    let node = Node::start(&kafka(&shared_broker(), &prefix, &[])).await;
    write(&node.store, 0, 5, 5).await;
    node.until_published().await;
    until("all figures are there", async || {
        let text = figures.render();
        [
            "crm_dispatch_events_published_total{topic=\"crm.dispatch.assignment.created\"}",
            "crm_dispatch_outbox_waiting",
            "crm_dispatch_outbox_oldest_age_seconds",
            "crm_dispatch_relay_active",
        ]
        .iter()
        .all(|series| text.lines().any(|line| line.starts_with(series)))
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_on_its_topic_soon_after_its_commit_and_each_once() {
    let prefix = own_prefix();
    // Nothing but the wake-up could be as fast.
    let node = Node::start(&kafka(&shared_broker(), &prefix, &[("poll_interval_ms", "60000")])).await;
    node.until_status("PUBLISHING").await;
    for round in 0..5 {
        write(&node.store, round * 100, 100, 7).await;
        node.until_published().await;
    }
    let seen = read(&shared_broker(), &prefix, 500).await;
    assert_eq!(seen.len(), 500, "without a failure each comes once");
    assert_all_arrived(&node.store, &prefix, &seen).await;
    node.stop().await;
}
