//! One partition that this member owns: its queue, its worker, its mark.

use super::work::{NotNow, Work};
use crate::telemetry::metrics as figures;
use rdkafka::message::{Message, OwnedMessage};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// The first wait before an event is tried again; it doubles from there.
const RETRY_DELAY_MS: u64 = 100;
/// Bytes waiting in one partition's queue before the partition is paused, whatever their number.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the worker and the poll thread share.
#[derive(Default)]
struct Progress {
    /// Everything before this offset is done; 0 while nothing is.
    done: AtomicI64,
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// An owned partition, as the poll thread holds it.
pub(super) struct Owned {
    queue: mpsc::UnboundedSender<OwnedMessage>,
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
    /// Disconnected when the worker has ended.
    ended: Receiver<Infallible>,
    /// Fetching is paused.
    pub(super) paused: bool,
    /// The mark that was last handed over for committing.
    pub(super) committed: i64,
}

impl Owned {
    /// Starts a worker for a partition.
    pub(super) fn new(runtime: &Handle, work: &Arc<Work>, name: (&str, i32), retry_delay_max: Duration) -> Self {
        let (queue, events) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = channel();
        let progress = Arc::new(Progress::default());
        let worker = Worker {
            work: Arc::clone(work),
            topic: name.0.to_owned(),
            partition: name.1,
            progress: Arc::clone(&progress),
            stopped,
            retry_delay_max,
            _alive: alive,
        };
        runtime.spawn(worker.run(events));
        Self { queue, progress, stop, ended, paused: false, committed: 0 }
    }

    /// Queues an event. The queue itself has no limit, so that nothing fetched is ever dropped; [`Self::is_full`] says when to
    /// pause.
    pub(super) fn push(&self, message: OwnedMessage) {
        self.progress.events.fetch_add(1, Ordering::AcqRel);
        self.progress.bytes.fetch_add(size(&message), Ordering::AcqRel);
        // A worker that is gone was stopped: what it left is another's, or this member's next time.
        let _ = self.queue.send(message);
    }

    /// No more should be fetched for now.
    pub(super) fn is_full(&self, events_max: usize) -> bool {
        self.progress.events.load(Ordering::Acquire) >= events_max
            || self.progress.bytes.load(Ordering::Acquire) >= QUEUE_BYTES_MAX
    }

    /// Half of what fills it is worked off.
    pub(super) fn has_room(&self, events_max: usize) -> bool {
        self.progress.events.load(Ordering::Acquire) <= events_max / 2
            && self.progress.bytes.load(Ordering::Acquire) <= QUEUE_BYTES_MAX / 2
    }

    /// The mark, where it has moved since it was last handed over.
    pub(super) fn to_commit(&self) -> Option<i64> {
        let done = self.progress.done.load(Ordering::Acquire);
        (done > self.committed).then_some(done)
    }

    /// Has the worker end after what it is doing.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the worker's end; false when it goes on beyond `until`.
    pub(super) fn wait(&self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        !matches!(self.ended.recv_timeout(left), Err(RecvTimeoutError::Timeout))
    }
}

fn size(message: &OwnedMessage) -> usize {
    message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len)
}

struct Worker {
    work: Arc<Work>,
    topic: String,
    partition: i32,
    progress: Arc<Progress>,
    stopped: watch::Receiver<bool>,
    retry_delay_max: Duration,
    _alive: Sender<Infallible>,
}

impl Worker {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<OwnedMessage>) {
        loop {
            let message = tokio::select! {
                biased;
                () = stopped(&mut self.stopped) => return,
                message = events.recv() => match message {
                    Some(message) => message,
                    None => return,
                },
            };
            if !self.finish(&message).await {
                return;
            }
            self.progress.done.fetch_max(message.offset() + 1, Ordering::AcqRel);
            self.progress.bytes.fetch_sub(size(&message), Ordering::AcqRel);
            self.progress.events.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Tries until it is done, or the partition is taken away: false.
    async fn finish(&mut self, message: &OwnedMessage) -> bool {
        let began = Instant::now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.work.take(message, attempt).await {
                Ok(_) => break,
                Err(NotNow(reason)) => {
                    let delay = self.delay(attempt);
                    if attempt == 1 {
                        self.blocked(1.0);
                    }
                    metrics::counter!(figures::CONSUMER_RETRIES, "topic" => self.topic.clone()).increment(1);
                    let (topic, partition, offset) = (&self.topic, self.partition, message.offset());
                    tracing::warn!(topic, partition, offset, attempt, ?delay, reason, "an event is tried again");
                    tokio::select! {
                        () = stopped(&mut self.stopped) => {
                            self.blocked(0.0);
                            return false;
                        }
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        if attempt > 1 {
            self.blocked(0.0);
        }
        metrics::histogram!(figures::CONSUMED_SECONDS, "topic" => self.topic.clone())
            .record(began.elapsed().as_secs_f64());
        true
    }

    /// Doubles, up to the maximum; up to a quarter less, by partition, so that they do not all come at once.
    fn delay(&self, attempt: u32) -> Duration {
        let full = Duration::from_millis(RETRY_DELAY_MS << attempt.saturating_sub(1).min(20)).min(self.retry_delay_max);
        let share = (self.partition.unsigned_abs().wrapping_mul(7).wrapping_add(attempt * 3)) % 16;
        full - full * share / 64
    }

    fn blocked(&self, value: f64) {
        let labels = [("topic", self.topic.clone()), ("partition", self.partition.to_string())];
        metrics::gauge!(figures::CONSUMER_BLOCKED, &labels).set(value);
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
