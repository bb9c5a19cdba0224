//! The relay: from the outbox to Kafka.
//!
//! It runs beside everything else and holds up nobody: with Kafka away, events wait in the database. Among all nodes of a
//! database one relay publishes at a time; the others stand by.
//!
//! **At least once, in order per key.** Events are handed over oldest first, many under way at once; the idempotent producer
//! keeps their order within a partition across its own retries, and a message never times out. A row is marked after its
//! receipt only. On a failure, or a long silence, the relay gives up on everything under way, learns what became of each, and
//! begins again with the oldest unmarked one; the receipt of an event that came after a failed one of its key does not count. So what a
//! consumer sees anew is always in order, whatever it sees twice.

use super::encoding::{EncodeError, Encoder};
use super::producer::{Producer, Report, SendError};
use super::registry::RegistryError;
use super::topics::{self, TopicError};
use crate::config::KafkaConfig;
use crate::events::RelayStatus;
use crate::events::TOPICS;
use crate::service::Clock;
use crate::store::{OutboxEvent, RelayTurn, Store, StoreError};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use rand::RngExt as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Most events read at once.
const PAGE_EVENTS_MAX: u32 = 1_000;
/// Most receipts in one mark.
const MARK_EVENTS_MAX: usize = 1_000;
/// Receipts are marked at least this often: a mark is a transaction, and dispatchers want theirs too.
const MARK_EVERY: Duration = Duration::from_millis(50);
/// How often the turn is made sure of, and stragglers with lower positions are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a relay that stands by asks for the turn.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// How often what waits is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// Without a receipt for this long while events are under way, Kafka counts as away.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Without one for this long the client is given up, and another one begins with the oldest unmarked event: whatever a client got stuck
/// in, it does not stay so for ever.
const STUCK_MAX: Duration = Duration::from_secs(30);
/// How long to wait for receipts under way when stopping, and for the reports of what was given up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause after a failure; it doubles up to the configured one.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// How a turn ended.
enum Ended {
    /// The server stops.
    Stopping,
    /// Another node may publish now.
    TurnLost,
    /// Try again later.
    Later { reason: String, progressed: bool },
    /// Only a person can help.
    Never(String),
}

impl Ended {
    fn later(reason: impl std::fmt::Display) -> Self {
        Self::Later { reason: reason.to_string(), progressed: false }
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::later(error)
    }
}

impl From<TopicError> for Ended {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Unavailable { .. } | TopicError::Refused { .. } => Self::later(error),
            TopicError::TooFewPartitions { .. } | TopicError::Settings(_) => Self::Never(error.to_string()),
        }
    }
}

impl From<RegistryError> for Ended {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unavailable { .. }
            | RegistryError::Unauthorized { .. }
            | RegistryError::UnknownSchema(_) => Self::later(error),
            RegistryError::Refused { .. } | RegistryError::Settings(_) => Self::Never(error.to_string()),
        }
    }
}

/// Publishes a database's events.
pub struct Relay {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: KafkaConfig,
    status: watch::Sender<RelayStatus>,
    stop: watch::Receiver<bool>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay that runs until `stop` says so, and tells `status` how it is.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: KafkaConfig,
        status: watch::Sender<RelayStatus>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { store, clock, config, status, stop }
    }

    /// Publishes until it is stopped.
    pub async fn run(self) {
        describe();
        tokio::join!(self.publish(), self.measure());
    }

    async fn publish(&self) {
        let mut attempt = 0_u32;
        // One line a change: a relay that stands by now and then while Kafka is away has said so already.
        let mut warned = false;
        while !*self.stop.borrow() {
            let ended = self.take_turn(&mut warned).await;
            gauge!("crm_dispatch_relay_active").set(0.0);
            match ended {
                Ended::Stopping => return,
                Ended::TurnLost => tracing::info!("the relay's turn was lost; another node may publish"),
                Ended::Later { reason, progressed } => {
                    counter!("crm_dispatch_events_publish_failures_total").increment(1);
                    self.is_away(&reason, &mut warned);
                    attempt = if progressed { 0 } else { attempt.saturating_add(1) };
                    self.pause(backoff(attempt, self.config.backoff_max())).await;
                }
                Ended::Never(reason) => {
                    counter!("crm_dispatch_events_publish_failures_total").increment(1);
                    tracing::error!("publishing has stopped, events wait in the database: {reason}");
                    self.status.send_replace(RelayStatus::Stopped(reason));
                    return;
                }
            }
        }
    }

    fn is_away(&self, reason: &str, warned: &mut bool) {
        if !std::mem::replace(warned, true) {
            tracing::warn!("events wait in the database and are published when it works again: {reason}");
        }
        self.status.send_replace(RelayStatus::Waiting(reason.to_owned()));
    }

    fn is_there(&self, warned: &mut bool) {
        if std::mem::take(warned) {
            tracing::info!("events are published again");
        }
        self.status.send_if_modified(|status| {
            let changed = *status != RelayStatus::Publishing;
            *status = RelayStatus::Publishing;
            changed
        });
    }

    /// Waits for the turn, and publishes while it lasts.
    async fn take_turn(&self, warned: &mut bool) -> Ended {
        let turn = loop {
            match self.store.relay_turn().await {
                Ok(Some(turn)) => break turn,
                Ok(None) => {
                    self.status.send_replace(RelayStatus::Standby);
                    self.pause(jitter(TURN_EVERY)).await;
                }
                Err(error) => return error.into(),
            }
            if *self.stop.borrow() {
                return Ended::Stopping;
            }
        };
        gauge!("crm_dispatch_relay_active").set(1.0);
        let mut stop = self.stop.clone();
        let opened = tokio::select! {
            opened = self.open() => opened,
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopping,
        };
        match opened {
            Ok((encoder, producer, reports)) => {
                self.is_there(warned);
                Pump::new(self, turn, encoder, producer, reports, warned).run().await
            }
            Err(ended) => ended,
        }
    }

    async fn open(&self) -> Result<(Encoder, Producer, mpsc::UnboundedReceiver<Report>), Ended> {
        topics::ensure(&self.config).await?;
        let encoder = Encoder::open(&self.config).await?;
        let (producer, reports) = Producer::open(&self.config).await.map_err(Ended::Never)?;
        Ok((encoder, producer, reports))
    }

    /// Says how much waits, whoever publishes.
    async fn measure(&self) {
        while !*self.stop.borrow() {
            match self.store.outbox_lag().await {
                Ok(lag) => {
                    let age_ms = lag.oldest.map_or(0, |oldest| self.clock.now().millis_since(oldest).max(0));
                    gauge!("crm_dispatch_outbox_waiting").set(lag.waiting as f64);
                    gauge!("crm_dispatch_outbox_oldest_age_seconds").set(age_ms as f64 / 1_000.0);
                }
                Err(error) => tracing::debug!(%error, "what waits was not measured this time"),
            }
            self.pause(MEASURE_EVERY).await;
        }
    }

    /// Waits, or until the server stops.
    async fn pause(&self, time: Duration) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep(time) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// An event between being handed over and being marked.
struct UnderWay {
    key: String,
    topic: usize,
    receipted: bool,
}

/// One turn's work.
struct Pump<'a> {
    relay: &'a Relay,
    turn: Box<dyn RelayTurn>,
    encoder: Encoder,
    producer: Producer,
    reports: mpsc::UnboundedReceiver<Report>,
    warned: &'a mut bool,
    topics: [String; TOPICS.len()],
    under_way: BTreeMap<u64, UnderWay>,
    /// Sent and without a receipt.
    in_flight: usize,
    /// With a receipt, not marked.
    receipted: Vec<u64>,
    mark_due: Instant,
    /// Everything up to here was read.
    cursor: u64,
    /// The last look found no more.
    dry: bool,
    /// The client takes no more until a receipt comes.
    full: bool,
    last_receipt: Instant,
    progressed: bool,
    /// The first failed position of each key, and why the first of all failed.
    failed: HashMap<String, u64>,
    failure: Option<String>,
}

impl<'a> Pump<'a> {
    fn new(
        relay: &'a Relay,
        turn: Box<dyn RelayTurn>,
        encoder: Encoder,
        producer: Producer,
        reports: mpsc::UnboundedReceiver<Report>,
        warned: &'a mut bool,
    ) -> Self {
        Self {
            topics: TOPICS.map(|(name, _)| relay.config.topic(name)),
            relay,
            turn,
            encoder,
            producer,
            reports,
            warned,
            under_way: BTreeMap::new(),
            in_flight: 0,
            receipted: Vec::new(),
            mark_due: Instant::now(),
            cursor: 0,
            dry: false,
            full: false,
            last_receipt: Instant::now(),
            progressed: false,
            failed: HashMap::new(),
            failure: None,
        }
    }

    async fn run(mut self) -> Ended {
        let ended = self.work().await.unwrap_or_else(|ended| ended);
        if matches!(ended, Ended::Stopping) {
            self.settle().await;
        }
        self.producer.give_up();
        self.settle().await;
        if let Err(error) = self.mark_what_counts().await {
            tracing::debug!(%error, "receipts were not marked; those events are sent again");
        }
        self.producer.end();
        match ended {
            Ended::Later { reason, .. } => Ended::Later { reason, progressed: self.progressed },
            other => other,
        }
    }

    async fn work(&mut self) -> Result<Ended, Ended> {
        let mut stop = self.relay.stop.clone();
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            while let Ok(report) = self.reports.try_recv() {
                self.note(report);
            }
            if let Some(reason) = self.failure.take() {
                return Err(Ended::later(format!("Kafka did not take an event: {reason}")));
            }
            if *stop.borrow() {
                return Ok(Ended::Stopping);
            }
            let now = Instant::now();
            if self.receipted.len() >= MARK_EVENTS_MAX || (!self.receipted.is_empty() && now >= self.mark_due) {
                self.mark().await?;
            }
            if now >= next_look {
                next_look = now + LOOK_EVERY;
                // An answer that does not come is as bad as a no.
                if !timeout(SETTLE_TIMEOUT, self.turn.is_held()).await.unwrap_or(false) {
                    return Ok(Ended::TurnLost);
                }
                if self.in_flight > 0 && self.last_receipt.elapsed() > STUCK_MAX {
                    let stuck = STUCK_MAX.as_secs();
                    return Err(Ended::later(format!("Kafka has given no receipt for {stuck} s; beginning anew")));
                }
                self.look_back().await?;
                if self.in_flight > 0 && self.last_receipt.elapsed() > SILENCE_MAX {
                    let silence = SILENCE_MAX.as_secs();
                    self.relay.is_away(&format!("Kafka has given no receipt for {silence} s"), self.warned);
                }
            }
            let room = (self.relay.config.in_flight_max as usize).saturating_sub(self.in_flight);
            // A page at a time, unless the window is smaller than that.
            let worth_it = room >= (PAGE_EVENTS_MAX as usize).min(self.relay.config.in_flight_max as usize);
            if !self.dry && !self.full && worth_it {
                self.fill(room).await?;
                continue;
            }
            let mark_due = self.mark_due;
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(report) => self.note(report),
                    None => return Err(Ended::later("the Kafka client ended")),
                },
                () = sleep_until(mark_due), if !self.receipted.is_empty() => {}
                () = self.relay.store.event_written(), if self.dry => self.dry = false,
                () = sleep(self.relay.config.poll_interval()), if self.dry => self.dry = false,
                () = sleep_until(next_look) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Reads on and hands over.
    async fn fill(&mut self, room: usize) -> Result<(), Ended> {
        let limit = PAGE_EVENTS_MAX.min(u32::try_from(room).unwrap_or(u32::MAX));
        let page = self.relay.store.unpublished(self.cursor, limit).await?;
        self.dry = page.len() < limit as usize;
        for waiting in page {
            let position = waiting.position;
            if !self.under_way.contains_key(&position) && !self.hand_over(waiting)? {
                return Ok(());
            }
            self.cursor = position;
        }
        Ok(())
    }

    /// An event may be committed later than one with a higher position; then it lies before the cursor.
    async fn look_back(&mut self) -> Result<(), Ended> {
        if self.full {
            return Ok(());
        }
        for waiting in self.relay.store.unpublished(0, PAGE_EVENTS_MAX).await? {
            if waiting.position >= self.cursor {
                break;
            }
            if !self.under_way.contains_key(&waiting.position) && !self.hand_over(waiting)? {
                break;
            }
        }
        Ok(())
    }

    /// False when the client takes no more for now.
    fn hand_over(&mut self, waiting: OutboxEvent) -> Result<bool, Ended> {
        let event = &waiting.event;
        let value = self.encoder.encode(event).map_err(|error: EncodeError| {
            Ended::Never(format!("event {} at position {}: {error}", event.event_id, waiting.position))
        })?;
        let topic = event.payload.topic_index();
        match self.producer.send(&self.topics[topic], self.encoder.content_type(), &waiting, &value) {
            Ok(()) => {
                if self.in_flight == 0 {
                    self.last_receipt = Instant::now();
                }
                self.in_flight += 1;
                let key = waiting.event.aggregate_id;
                self.under_way.insert(waiting.position, UnderWay { key, topic, receipted: false });
                Ok(true)
            }
            Err(SendError::Full) => {
                self.full = true;
                Ok(false)
            }
            Err(SendError::Failed(code)) => {
                Err(Ended::later(format!("Kafka did not take event {}: {code}", event.event_id)))
            }
        }
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Receipt(position, outcome) => self.note_receipt(position, outcome),
            Report::Down(reason) => {
                let brokers = self.relay.config.brokers.join(",");
                let reason =
                    format!("Kafka at {brokers} does not answer: {reason}; check kafka.brokers and that it runs");
                self.relay.is_away(&reason, self.warned);
            }
            Report::Up if self.in_flight == 0 || self.last_receipt.elapsed() <= SILENCE_MAX => {
                self.relay.is_there(self.warned);
            }
            Report::Up => {}
        }
    }

    fn note_receipt(&mut self, position: u64, outcome: Result<(), rdkafka::error::RDKafkaErrorCode>) {
        let Some(entry) = self.under_way.get_mut(&position) else { return };
        if entry.receipted {
            return;
        }
        self.in_flight -= 1;
        match outcome {
            Ok(()) => {
                entry.receipted = true;
                if self.receipted.is_empty() {
                    self.mark_due = Instant::now() + MARK_EVERY;
                }
                self.receipted.push(position);
                self.full = false;
                self.progressed = true;
                self.last_receipt = Instant::now();
                self.relay.is_there(self.warned);
            }
            Err(code) => {
                if let Some(UnderWay { key, .. }) = self.under_way.remove(&position) {
                    self.failed.entry(key).and_modify(|first| *first = position.min(*first)).or_insert(position);
                }
                self.failure.get_or_insert_with(|| code.to_string());
            }
        }
    }

    async fn mark(&mut self) -> Result<(), StoreError> {
        let positions = std::mem::take(&mut self.receipted);
        self.relay.store.mark_published(&positions, self.relay.clock.now()).await?;
        let mut published = [0_u64; TOPICS.len()];
        for position in positions {
            if let Some(marked) = self.under_way.remove(&position) {
                published[marked.topic] += 1;
            }
        }
        for ((topic, _), count) in TOPICS.iter().zip(published).filter(|(_, count)| *count > 0) {
            counter!("crm_dispatch_events_published_total", "topic" => *topic).increment(count);
        }
        Ok(())
    }

    /// Waits for what is under way, for a while.
    async fn settle(&mut self) {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while self.in_flight > 0 {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => self.note(report),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Marks the receipts, except of events that came after a failed one of their key.
    async fn mark_what_counts(&mut self) -> Result<(), StoreError> {
        let (under_way, failed) = (&self.under_way, &self.failed);
        self.receipted.retain(|position| {
            let first_failed = under_way.get(position).and_then(|entry| failed.get(&entry.key));
            first_failed.is_none_or(|first| position < first)
        });
        if self.receipted.is_empty() { Ok(()) } else { self.mark().await }
    }
}

fn describe() {
    describe_gauge!("crm_dispatch_outbox_waiting", "Events not published yet, counted up to 100000");
    describe_gauge!("crm_dispatch_outbox_oldest_age_seconds", "Age of the oldest event not published yet");
    describe_gauge!("crm_dispatch_relay_active", "1 on the node that publishes");
    describe_counter!("crm_dispatch_events_published_total", "Events with a receipt, by topic");
    describe_counter!("crm_dispatch_events_publish_failures_total", "Times that publishing had to begin again");
}

/// Half of it to all of it, so that nodes do not ask in step.
fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn backoff(attempt: u32, max: Duration) -> Duration {
    jitter(BACKOFF_FIRST.saturating_mul(1_u32 << attempt.min(16)).min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No storm of attempts: half a minute after Kafka went away there have been a handful.
    #[test]
    fn pauses_double_up_to_the_configured_longest_and_stay_there() {
        let full = [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000];
        for (attempt, full) in (0..).zip(full).chain([(100, 10_000), (u32::MAX, 10_000)]) {
            for _ in 0..50 {
                let pause = backoff(attempt, Duration::from_secs(10)).as_millis();
                assert!((full / 2..=full).contains(&pause), "attempt {attempt}: {pause} ms");
            }
        }
    }
}
