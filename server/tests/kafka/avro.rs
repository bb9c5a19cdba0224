//! Avro, with a schema registry.

use super::*;
use crm_dispatch_server::events::TOPICS;
use crm_dispatch_server::events::kafka::encoding::{Decoder, SCHEMAS};
use crm_dispatch_server::events::kafka::registry::{Registry, RegistryError};
use std::process::Command;
use support::reader::read;
use support::registry::TestRegistry;
use support::{kafka, own_prefix, service, shared_broker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_in_avro_are_read_with_the_registrys_schemas() {
    let prefix = own_prefix();
    let registry = TestRegistry::start().await;
    let settings = [("encoding", "avro"), ("schema_registry_url", registry.url())];
    let config = kafka(&shared_broker(), &prefix, &settings);
    let node = Node::start(&config).await;
    write(&node.store, 0, 20, 3).await;
    write_status(&node.store, "evt-status", "TECH-10").await;
    node.until_published().await;
    let subjects = TOPICS.iter().map(|(topic, _)| (format!("{prefix}{topic}-value"), 1));
    let mut subjects: Vec<_> = subjects.collect();
    subjects.sort();
    assert_eq!(registry.subjects(), subjects, "a subject a topic, one version each");

    let decoder = Decoder::new(&config).unwrap();
    let seen = read(&shared_broker(), &prefix, 21).await;
    let told = node.store.events(&blank(0).tenant, 0, None, None, 100).await.unwrap();
    for one in &seen {
        assert_eq!(one.headers["content-type"], "application/avro");
        let (_, event) = told.iter().find(|(_, event)| event.event_id.as_str() == one.event_id()).unwrap();
        let mut expected = serde_json::to_value(event).unwrap();
        let fields = expected.as_object_mut().unwrap();
        assert_eq!(fields.remove("aggregateId").unwrap(), one.key.as_str());
        if fields["payload"]["dispatchId"].is_null() {
            fields["payload"].as_object_mut().unwrap().remove("dispatchId");
        }
        assert_eq!(decoder.decode(&one.value).await.unwrap(), expected);
    }
    assert_all_arrived(&node.store, &prefix, &seen).await;
    node.stop().await;

    // A relay that starts again registers nothing: the schemas are known.
    let node = Node::start(&config).await;
    node.until_status("PUBLISHING").await;
    assert_eq!(registry.subjects(), subjects);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registrys_word_on_a_schema_counts() {
    let registry = TestRegistry::start().await;
    let config =
        |more: &[(&str, &str)]| kafka("127.0.0.1:9", "", &[&[("schema_registry_url", registry.url())], more].concat());
    let client = Registry::new(&config(&[])).unwrap();
    let id = client.register("visits-value", SCHEMAS[0]).await.unwrap();
    assert_eq!(client.register("visits-value", SCHEMAS[0]).await.unwrap(), id, "known is known");
    assert_eq!(client.register("others-value", SCHEMAS[0]).await.unwrap(), id, "an id is the same everywhere");
    let text = client.schema(id).await.unwrap();
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(read(&text), read(SCHEMAS[0]));

    // A field more is fine with a default, and refused without.
    let with = |field: &str| SCHEMAS[0].replacen("\"fields\": [", &format!("\"fields\": [ {field},"), 1);
    let better = with(r#"{ "name": "crew", "type": ["null", "string"], "default": null }"#);
    assert_ne!(client.register("visits-value", &better).await.unwrap(), id);
    let worse = with(r#"{ "name": "crew", "type": "string" }"#);
    match client.register("visits-value", &worse).await {
        Err(RegistryError::Refused { subject, reason }) => {
            assert_eq!(subject, "visits-value");
            assert!(reason.contains("crew"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.schema(999).await, Err(RegistryError::UnknownSchema(999))));
    assert!(matches!(client.register("visits-value", "{}").await, Err(RegistryError::Refused { .. })));

    registry.ask_for("dispatch", "hunter2");
    assert!(matches!(client.schema(id).await, Err(RegistryError::Unauthorized { status: 401, .. })));
    let known = [("schema_registry_username", "dispatch"), ("schema_registry_password", "hunter2")];
    assert_eq!(Registry::new(&config(&known)).unwrap().schema(id).await.unwrap(), text);
    let nobody = kafka("127.0.0.1:9", "", &[("schema_registry_url", "http://127.0.0.1:9/registry")]);
    assert!(matches!(
        Registry::new(&nobody).unwrap().register("visits-value", SCHEMAS[0]).await,
        Err(RegistryError::Unavailable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tests_registry_passes_for_one_with_confluents_own_client() {
    let python = service("TEST_PYTHON");
    let registry = TestRegistry::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/check_registry.py");
    let url = registry.url().to_owned();
    let output = tokio::task::spawn_blocking(move || Command::new(python).args([script, &url]).output().unwrap());
    let output = output.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("the registry keeps its word"), "{said}");
}
