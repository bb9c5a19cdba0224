//! The thread that owns the consumer.

use super::ConsumeError;
use super::partition::Owned;
use super::work::Work;
use crate::config::ConsumeConfig;
use crate::telemetry::metrics as figures;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Longest wait for a message; as often, full partitions are looked at again.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// An error that goes on is said again after this long.
const REPEAT_ERROR_AFTER: Duration = Duration::from_secs(60);
/// After a fatal error the consumer is made anew, this much later.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// How often librdkafka tells how far behind each partition is.
const STATISTICS_EVERY_MS: &str = "5000";
/// How soon a topic that did not exist is noticed.
const METADATA_EVERY_MS: &str = "30000";
/// How long a fetch may wait for events. A partition that is resumed waits for the one under way.
const FETCH_WAIT_MS: &str = "100";
/// Fetched ahead by librdkafka, over all partitions, kilobytes. Pausing throws it away, so it is no more than a sip.
const FETCHED_AHEAD_KBYTES: &str = "16384";

/// Starts the thread. The answer resolves when it has left the group.
pub(super) fn start(
    config: ConsumeConfig,
    client: ClientConfig,
    work: Arc<Work>,
    stopping: Arc<AtomicBool>,
) -> Result<oneshot::Receiver<()>, ConsumeError> {
    let settings = settings(&config, client);
    let members = Members {
        owned: Mutex::default(),
        work,
        runtime: Handle::current(),
        retry_delay_max: config.retry_delay_max(),
        stop_timeout: config.stop_timeout(),
    };
    // Made here, so that a setting librdkafka refuses fails the start.
    let first: BaseConsumer<Members> = settings.create_with_context(members.again())?;
    let (tell, ended) = oneshot::channel();
    std::thread::Builder::new().name("kafka-consume".to_owned()).spawn(move || {
        let mut next = Some(first);
        while !stopping.load(Ordering::Acquire) {
            let consumer = match next.take() {
                Some(consumer) => Ok(consumer),
                None => settings.create_with_context(members.again()),
            };
            match consumer.and_then(|consumer| {
                serve(&config, &consumer, settings.get("bootstrap.servers").unwrap_or_default(), &stopping)
            }) {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "consuming from Kafka ended; it starts again"),
            }
            let until = Instant::now() + RESTART_AFTER;
            while Instant::now() < until && !stopping.load(Ordering::Acquire) {
                std::thread::park_timeout(POLL_EVERY);
            }
        }
        // Nobody waits where the server was dropped rather than stopped.
        let _ = tell.send(());
    })?;
    Ok(ended)
}

fn settings(config: &ConsumeConfig, mut client: ClientConfig) -> ClientConfig {
    client
        .set("group.id", &config.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A group without an offset, or with one that retention has overtaken, begins with the oldest event there is.
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", config.session_timeout_ms.to_string())
        .set("max.poll.interval.ms", config.max_poll_interval_ms.to_string())
        .set("topic.metadata.refresh.interval.ms", METADATA_EVERY_MS)
        .set("statistics.interval.ms", STATISTICS_EVERY_MS)
        .set("fetch.wait.max.ms", FETCH_WAIT_MS)
        .set("queued.max.messages.kbytes", FETCHED_AHEAD_KBYTES)
        .set("allow.auto.create.topics", "false");
    client
}

/// Consumes until it is time to stop, or a fatal error.
fn serve(
    config: &ConsumeConfig,
    consumer: &BaseConsumer<Members>,
    brokers: &str,
    stopping: &AtomicBool,
) -> KafkaResult<()> {
    consumer.subscribe(&config.topics.all())?;
    tracing::info!(group = config.group, topics = ?config.topics.all(), "consuming from Kafka");
    let members = consumer.context();
    let mut said = Said::default();
    let mut commit_at = Instant::now() + config.commit_every();
    let mut look_at = Instant::now() + POLL_EVERY;
    let outcome = loop {
        if stopping.load(Ordering::Acquire) {
            break Ok(());
        }
        match consumer.poll(POLL_EVERY) {
            Some(Ok(message)) => {
                said.0.clear();
                members.hand_out(consumer, &message, config.queue_events_max);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => break Err(error),
            Some(Err(error)) => said.say(&error, brokers),
            None => {}
        }
        let now = Instant::now();
        if now >= look_at {
            look_at = now + POLL_EVERY;
            members.resume(consumer, config.queue_events_max);
        }
        if now >= commit_at {
            commit_at = now + config.commit_every();
            members.commit(consumer, CommitMode::Async);
        }
    };
    members.let_go(consumer, None, true);
    outcome
}

/// What was said of errors lately, so that an outage is a line and not a storm.
#[derive(Default)]
struct Said(HashMap<i32, Instant>);

impl Said {
    fn say(&mut self, error: &KafkaError, brokers: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        // One broker of several is no news; that all are away is said by itself.
        let lately = self.0.get(&(code as i32)).is_some_and(|at| at.elapsed() < REPEAT_ERROR_AFTER);
        if lately || matches!(code, RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) {
            tracing::debug!(%error, brokers, "consuming from Kafka");
        } else {
            self.0.insert(code as i32, Instant::now());
            tracing::warn!("no events from Kafka at {brokers} for now, it is tried on: {code}; {}", remedy(error));
        }
    }
}

/// What a person can do about it.
fn remedy(error: &KafkaError) -> &'static str {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            "create the topic, or set its name in kafka.consume.topics"
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
            "let the user read the topics and the group"
        }
        Some(RDKafkaErrorCode::Authentication) => "check the user and the password",
        _ => "check kafka.brokers and that they run",
    }
}

/// The partitions that this member owns, and what happens when they come and go. Only the poll thread uses it: librdkafka
/// calls back inside of `poll`.
struct Members {
    owned: Mutex<BTreeMap<(String, i32), Owned>>,
    work: Arc<Work>,
    runtime: Handle,
    retry_delay_max: Duration,
    stop_timeout: Duration,
}

impl Members {
    /// The same for another consumer.
    fn again(&self) -> Self {
        Self {
            owned: Mutex::default(),
            work: Arc::clone(&self.work),
            runtime: self.runtime.clone(),
            retry_delay_max: self.retry_delay_max,
            stop_timeout: self.stop_timeout,
        }
    }

    fn owned(&self) -> MutexGuard<'_, BTreeMap<(String, i32), Owned>> {
        // One thread uses it, so it cannot be poisoned by another.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to its partition's worker, and pauses the partition where that is enough for now.
    fn hand_out(&self, consumer: &BaseConsumer<Self>, message: &BorrowedMessage<'_>, events_max: usize) {
        let key = (message.topic().to_owned(), message.partition());
        let mut owned = self.owned();
        let Some(partition) = owned.get_mut(&key) else {
            // It was fetched for a partition that is not owned any more; its new owner gets it.
            return;
        };
        partition.push(message.detach());
        if !partition.paused && partition.is_full(events_max) {
            match consumer.pause(&one(&key)) {
                Ok(()) => partition.paused = true,
                Err(error) => {
                    tracing::warn!(%error, topic = key.0, partition = key.1, "a full partition was not paused")
                }
            }
        }
    }

    fn resume(&self, consumer: &BaseConsumer<Self>, events_max: usize) {
        for (key, partition) in self.owned().iter_mut() {
            if partition.paused && partition.has_room(events_max) {
                match consumer.resume(&one(key)) {
                    Ok(()) => partition.paused = false,
                    Err(error) => {
                        tracing::warn!(%error, topic = key.0, partition = key.1, "a partition was not resumed");
                    }
                }
            }
        }
    }

    /// Commits the marks that have moved.
    fn commit(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let mut marks = TopicPartitionList::new();
        for ((topic, number), partition) in self.owned().iter_mut() {
            if let Some(done) = partition.to_commit()
                && marks.add_partition_offset(topic, *number, Offset::Offset(done)).is_ok()
            {
                partition.committed = done;
            }
        }
        commit(consumer, &marks, mode);
    }

    /// Ends the workers of these partitions (of all), and commits what they did, unless somebody else owns them already.
    fn let_go(&self, consumer: &BaseConsumer<Self>, list: Option<&TopicPartitionList>, ours: bool) {
        let gone: Vec<((String, i32), Owned)> = match list {
            None => std::mem::take(&mut *self.owned()).into_iter().collect(),
            Some(list) => {
                let mut owned = self.owned();
                let keys = list.elements().into_iter().map(|element| (element.topic().to_owned(), element.partition()));
                keys.filter_map(|key| owned.remove_entry(&key)).collect()
            }
        };
        for (key, partition) in &gone {
            partition.stop();
            if partition.paused {
                // librdkafka remembers the pause beyond the assignment, and the partition may come back.
                let _ = consumer.resume(&one(key));
            }
        }
        let until = Instant::now() + self.stop_timeout;
        let mut marks = TopicPartitionList::new();
        for (key, partition) in &gone {
            if !partition.wait(until) {
                // It goes on alone; its effect is stored or not, and either way the next owner may repeat it.
                tracing::warn!(topic = key.0, partition = key.1, "an effect takes long; its event is consumed again");
            }
            if let Some(done) = partition.to_commit() {
                // Only fails for offsets that no broker gives out.
                let _ = marks.add_partition_offset(&key.0, key.1, Offset::Offset(done));
            }
            lag(key, 0);
        }
        if ours {
            commit(consumer, &marks, CommitMode::Sync);
        }
    }
}

fn commit(consumer: &BaseConsumer<Members>, marks: &TopicPartitionList, mode: CommitMode) {
    if marks.count() == 0 {
        return;
    }
    if let Err(error) = consumer.commit(marks, mode) {
        failed(&error);
    }
}

fn failed(error: &KafkaError) {
    metrics::counter!(figures::CONSUMER_COMMITS_FAILED).increment(1);
    tracing::warn!(%error, "offsets were not committed; what they cover may be consumed again, without effect");
}

fn one((topic, partition): &(String, i32)) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, *partition);
    list
}

fn lag((topic, partition): &(String, i32), events: i64) {
    let labels = [("topic", topic.clone()), ("partition", partition.to_string())];
    // Exact up to 2^53 events.
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!(figures::CONSUMER_LAG, &labels).set(events as f64);
}

impl ConsumerContext for Members {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let kind = match rebalance {
            Rebalance::Assign(list) => {
                let mut owned = self.owned();
                for element in list.elements() {
                    let (topic, partition) = (element.topic(), element.partition());
                    let worker = Owned::new(&self.runtime, &self.work, (topic, partition), self.retry_delay_max);
                    owned.insert((topic.to_owned(), partition), worker);
                }
                "assigned"
            }
            Rebalance::Revoke(list) => {
                let lost = consumer.assignment_lost();
                self.let_go(consumer, Some(list), !lost);
                if lost { "lost" } else { "revoked" }
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, "a rebalance failed");
                return;
            }
        };
        metrics::counter!(figures::CONSUMER_REBALANCES, "kind" => kind).increment(1);
        if let Rebalance::Assign(list) | Rebalance::Revoke(list) = rebalance
            && list.count() > 0
        {
            tracing::info!(partitions = ?list.to_topic_map().keys().collect::<Vec<_>>(), "partitions {kind}");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        failed(&error);
        let mut owned = self.owned();
        for element in offsets.elements() {
            if let Some(partition) = owned.get_mut(&(element.topic().to_owned(), element.partition())) {
                partition.committed = 0;
            }
        }
    }
}

impl ClientContext for Members {
    fn stats(&self, statistics: Statistics) {
        for key in self.owned().keys() {
            let Some(it) = statistics.topics.get(&key.0).and_then(|topic| topic.partitions.get(&key.1)) else {
                continue;
            };
            if it.consumer_lag >= 0 {
                lag(key, it.consumer_lag);
            } else if it.hi_offset >= 0 && it.lo_offset >= 0 {
                // The group has never committed here: everything there is.
                lag(key, it.hi_offset - it.lo_offset);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // `poll` gives it back, and that is where it is said.
        tracing::debug!(%error, reason, "librdkafka");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::events::kafka::log(level, facility, message);
    }
}
