//! What the server's own stories about Kafka use too.

#[path = "../../server/tests/kafka_support/broker.rs"]
pub mod broker;
#[path = "../../server/tests/kafka_support/registry.rs"]
pub mod registry;
#[path = "../../server/tests/kafka_support/services.rs"]
pub mod services;
