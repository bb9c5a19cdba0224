//! Where the test services are.

#![allow(dead_code, unreachable_pub, clippy::panic, reason = "a test fails by panicking")]

/// A test service's variable.
pub fn service(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; start the test services: eval \"$(scripts/services up)\""))
}

/// The broker that all tests share; each under a prefix of its own.
pub fn shared_broker() -> String {
    service("TEST_KAFKA_BROKERS")
}

/// A prefix that no other test has.
pub fn own_prefix() -> String {
    format!("test-{:016x}.", rand::random::<u64>())
}
