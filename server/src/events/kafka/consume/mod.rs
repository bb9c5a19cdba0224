//! Consuming: what Service Orders and Inventory publish becomes effects here, each once.
//!
//! ```text
//! broker ── poll thread ──► a queue a partition ──► a worker a partition ──► Service::ingest
//!               ▲   (pauses a full one)                 │  └── poison ──► dead-letter topic
//!               └────────── offsets done ◄──────────────┘
//! ```
//!
//! - **The offset follows the effect.** A worker takes one event after the other, in the partition's order, and moves the
//!   partition's mark only when the effect is stored, or the dead letter has the broker's receipt. The mark is all that is
//!   ever committed. After a crash an event is consumed again; the service knows it (rule 18).
//! - **One thread owns the consumer.** It polls, hands out, commits, and answers rebalances, and it waits for no effect; so
//!   the group hears from it however slow the database is. Since it alone commits, and only for what it owns at that
//!   moment, a worker whose partition went elsewhere cannot commit.
//! - **Transient is not poison.** A database that is away, a conflict, a schema registry or a dead-letter topic that cannot be
//!   reached: the event is tried again, ever more slowly and for ever, and its partition waits. The others go on.
//! - **Poison is not lost.** What no retry helps goes whole to the dead-letter topic, with the reason in its headers.

mod avro;
mod dead_letter;
mod envelope;
pub mod letters;
mod partition;
mod poll;
mod work;

pub use dead_letter::DEAD_LETTER_HEADERS;
pub use envelope::{SchemaError, SchemaSource};

use crate::config::ConsumeConfig;
use crate::service::Service;
use dead_letter::DeadLetters;
use envelope::Decoder;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use work::{Effects, Work};

/// What leaving the group may take beyond the work under way: the broker may be away.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The consumers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// A setting that librdkafka refuses.
    #[error("kafka.consume: {0}")]
    Kafka(#[from] KafkaError),
    /// No thread could be started.
    #[error("kafka.consume: no thread for it could be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A member of the consumer group, running. Dropped without [`Self::stop`], it ends on its own soon after.
#[derive(Debug)]
pub struct Consumers {
    stopping: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
    stop_timeout: Duration,
}

impl Consumers {
    /// Joins the group and consumes until stopped. `client` says where the brokers are and how to talk to them. A broker
    /// that cannot be reached is no error: it is awaited.
    ///
    /// # Errors
    /// [`ConsumeError`].
    pub fn start(
        config: &ConsumeConfig,
        client: &ClientConfig,
        schemas: Option<Arc<dyn SchemaSource>>,
        service: Service,
    ) -> Result<Self, ConsumeError> {
        let dead_letters = DeadLetters::new(config, client);
        let effects = Effects::new(config, service, Decoder::new(schemas));
        let work = Arc::new(Work::new(effects, dead_letters));
        let stopping = Arc::new(AtomicBool::new(false));
        let ended = poll::start(config.clone(), client.clone(), work, Arc::clone(&stopping))?;
        Ok(Self { stopping, ended, stop_timeout: config.stop_timeout() + LEAVE_TIMEOUT })
    }

    /// Takes nothing new, lets effects under way finish, commits what is done, leaves the group.
    pub async fn stop(mut self) {
        self.stopping.store(true, Ordering::Release);
        if tokio::time::timeout(self.stop_timeout, &mut self.ended).await.is_err() {
            tracing::warn!(
                "the Kafka consumers did not leave their group in time; what they did last is consumed again"
            );
        }
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}
