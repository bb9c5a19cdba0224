//! `[kafka.consume]`: what is consumed, and how.

use super::{ConfigError, list};
use serde::Deserialize;
use std::time::Duration;

/// Consuming the events of Service Orders and Inventory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumeConfig {
    /// Off where another deployment consumes.
    pub enabled: bool,
    /// The consumer group: its members share the partitions.
    pub group: String,
    /// Tenants whose events are taken; `*` for any. An event of another one is a dead letter.
    #[serde(deserialize_with = "list")]
    pub tenants: Vec<String>,
    /// Where the events are.
    pub topics: ConsumeTopics,
    /// Where events go that cannot be consumed.
    pub dead_letter_topic: String,
    /// Effects at the same time, over all partitions.
    pub parallel_max: usize,
    /// Events waiting in memory for one partition's worker before fetching is paused.
    pub queue_events_max: usize,
    /// How often offsets are committed.
    pub commit_every_ms: u64,
    /// Longest wait between two attempts.
    pub retry_delay_ms_max: u64,
    /// How long an effect under way may take when its partition goes to another member, or the server stops.
    pub stop_timeout_ms: u64,
    /// A member that is not heard from for so long has its partitions taken away.
    pub session_timeout_ms: u32,
    /// So has one that is heard from and does not ask for events.
    pub max_poll_interval_ms: u32,
    /// Copies of the dead-letter topic where it is made here; 0 leaves it to the cluster. Not a setting of its own: see
    /// [`super::KafkaConfig::consuming`].
    #[serde(skip)]
    pub dead_letter_copies: u16,
}

/// Topic names by what is published there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumeTopics {
    /// `ServiceOrderScheduledEvent`.
    pub service_order_scheduled: String,
    /// `ServiceOrderCancelledEvent`.
    pub service_order_cancelled: String,
    /// `SlaBreachedEvent`.
    pub sla_breached: String,
    /// `StockChangedEvent`.
    pub stock_changed: String,
}

impl ConsumeTopics {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> [&str; 4] {
        [&self.service_order_scheduled, &self.service_order_cancelled, &self.sla_breached, &self.stock_changed]
    }
}

impl ConsumeConfig {
    /// How often offsets are committed.
    #[must_use]
    pub fn commit_every(&self) -> Duration {
        Duration::from_millis(self.commit_every_ms)
    }

    /// Longest wait between two attempts.
    #[must_use]
    pub fn retry_delay_max(&self) -> Duration {
        Duration::from_millis(self.retry_delay_ms_max)
    }

    /// How long an effect under way may take when it has to end.
    #[must_use]
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.stop_timeout_ms)
    }

    /// On a cluster: with this before every name, and so many copies.
    #[must_use]
    pub fn on_cluster(&self, prefix: &str, copies: u16) -> Self {
        let named = |name: &String| format!("{prefix}{name}");
        Self {
            group: named(&self.group),
            topics: ConsumeTopics {
                service_order_scheduled: named(&self.topics.service_order_scheduled),
                service_order_cancelled: named(&self.topics.service_order_cancelled),
                sla_breached: named(&self.topics.sla_breached),
                stock_changed: named(&self.topics.stock_changed),
            },
            dead_letter_topic: named(&self.dead_letter_topic),
            dead_letter_copies: copies,
            ..self.clone()
        }
    }

    /// Checks what can be checked without a broker.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !self.enabled {
            return Ok(());
        }
        let bad = |key: &str, problem: String| Err(ConfigError(format!("kafka.consume.{key} {problem}")));
        if self.tenants.is_empty() {
            return bad(
                "tenants",
                "is empty; name the tenants whose events are taken, or \"*\" for any that a producer names".to_owned(),
            );
        }
        if self.group.trim().is_empty() {
            return bad("group", "is empty; the default is \"crm-dispatch-cg\"".to_owned());
        }
        let mut names = self.topics.all().to_vec();
        names.push(&self.dead_letter_topic);
        for (index, name) in names.iter().enumerate() {
            // With a prefix it has at most 249.
            let fine = (1..=149).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if !fine {
                return bad(
                    "topics",
                    format!("has {name:?}; a topic has 1 to 149 letters, digits, \".\", \"_\", \"-\""),
                );
            }
            if names[..index].contains(name) {
                return bad(
                    "topics",
                    format!("has {name:?} twice; each kind of event, and the dead letters, has its own"),
                );
            }
        }
        for (key, value, min, max) in [
            ("parallel_max", self.parallel_max as u64, 1, 1_000),
            ("queue_events_max", self.queue_events_max as u64, 2, 100_000),
            ("commit_every_ms", self.commit_every_ms, 10, 3_600_000),
            ("retry_delay_ms_max", self.retry_delay_ms_max, 100, 3_600_000),
            ("stop_timeout_ms", self.stop_timeout_ms, 0, u64::from(self.max_poll_interval_ms) / 2),
            ("session_timeout_ms", u64::from(self.session_timeout_ms), 1_000, u64::from(self.max_poll_interval_ms)),
            ("max_poll_interval_ms", u64::from(self.max_poll_interval_ms), 10_000, 3_600_000),
        ] {
            if !(min..=max).contains(&value) {
                return bad(key, format!("is {value}; use {min} to {max}"));
            }
        }
        Ok(())
    }
}
