//! The phone's end of its connection.

use crate::domain::{DeviceId, DispatchId, Timestamp};
use crate::protocol::limits::{
    BACKOFF_MAX_MS, BACKOFF_MIN_MS, FETCH_VISITS_MAX, PING_AFTER_IDLE_MS, PONG_TIMEOUT_MS, PUSH_TIMEOUT_MS,
};
use crate::protocol::{
    Ack, Batch, Bye, Cursor, Digest, FeedItem, FeedRange, Fetch, Generation, Hello, OutboxMark, PhoneMessage, Ping,
    Pull, Push, PushAck, PushLane, Remedy, ServerMessage, Welcome, decode_items, decode_server,
};
use std::collections::BTreeSet;

/// The phone's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhoneNow {
    /// Wall time; may jump.
    pub wall: Timestamp,
    /// Milliseconds since boot; never jumps. All timers run on it.
    pub monotonic_ms: u64,
}

/// What the store knows when a connection opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneState {
    /// This install.
    pub device: DeviceId,
    /// App name and version.
    pub app: String,
    /// The server database that the cursor belongs to.
    pub generation: Option<Generation>,
    /// The feed is stored up to here.
    pub cursor: Cursor,
    /// Of what is held.
    pub digest: Digest,
    /// What is unsent.
    pub outbox: OutboxMark,
    /// Visits whose stored row is damaged or incomplete.
    pub needs_fetch: Vec<DispatchId>,
}

/// What happens to a connection.
#[derive(Debug, Clone)]
pub enum PhoneInput {
    /// A frame came.
    Frame(Vec<u8>),
    /// Answers [`PhoneEffect::Introduce`].
    Introduced(PhoneState),
    /// Answers [`PhoneEffect::LoadOutbox`]: as much of the outbox as one push takes; empty when nothing is queued.
    Outbox {
        /// The lanes, oldest first.
        lanes: Vec<PushLane>,
        /// What is unsent.
        mark: OutboxMark,
    },
    /// Answers [`PhoneEffect::StoreBatch`].
    BatchStored(BatchStored),
    /// Answers [`PhoneEffect::StorePushAck`].
    AckStored(BatchStored),
    /// The user did something: there is more in the outbox.
    OutboxGrew,
    /// Time passed.
    Tick,
}

/// What storing a batch or an acknowledgement came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchStored {
    /// The feed is stored up to here.
    pub cursor: Cursor,
    /// The digest was compared, and matched or did not.
    pub digest_matched: Option<bool>,
    /// The batch lies beyond the cursor; nothing of it was stored.
    pub gap: bool,
    /// Visits to ask for whole.
    pub needs_fetch: Vec<DispatchId>,
}

/// What the driver must do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum PhoneEffect {
    /// Send this.
    Send(PhoneMessage),
    /// Tell the store who the server is; answer with `Introduced`.
    Introduce(Welcome),
    /// Read the outbox; answer with `Outbox`.
    LoadOutbox,
    /// Store the items in one transaction; answer with `BatchStored`.
    StoreBatch {
        /// Its frame; `items` are decoded apart.
        batch: BatchSpan,
        /// The items.
        items: Vec<FeedItem>,
    },
    /// Store the acknowledgement in one transaction; answer with `AckStored`.
    StorePushAck {
        /// What was pushed.
        lanes: Vec<PushLane>,
        /// The answer.
        ack: PushAck,
    },
    /// Remember how far the phone's clock is off: `server - device`, milliseconds, and the half-width around it.
    SetClock {
        /// Offset.
        offset_ms: i64,
        /// Half-width.
        uncertainty_ms: u32,
    },
    /// Everything is exchanged as of now. Comes again after each further exchange.
    Synced,
    /// Close the connection and come back as told.
    Disconnect(Disconnect),
}

/// A batch without its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpan {
    /// The phone must be here or beyond.
    pub from: Cursor,
    /// The cursor afterwards.
    pub to: Cursor,
    /// Part of a run that names everything held.
    pub reset: bool,
    /// Another batch of the same answer follows.
    pub more: bool,
    /// At `to`.
    pub digest: Option<Digest>,
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disconnect {
    /// The server said so.
    Bye(Bye),
    /// No answer to a ping: the socket is half open.
    HalfOpen,
    /// No acknowledgement of a push.
    PushTimeout,
    /// No answer to `Hello`.
    NoWelcome,
    /// The server's database is another one, or an older copy, and a push is under way. What is in it shall be made again
    /// on that database's copy, which only a new connection shows with or without it.
    ServerReplaced,
    /// A frame that makes no sense.
    Malformed(String),
}

#[derive(Debug)]
struct InFlight {
    id: u32,
    lanes: Vec<PushLane>,
    sent_at_ms: u64,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Phase {
    /// `Hello` is sent, `Welcome` has not come.
    Greeting,
    Live,
    Closed,
}

/// One connection of a phone.
#[derive(Debug)]
pub struct PhoneSession {
    phase: Phase,
    generation: Option<Generation>,
    cursor: Cursor,
    head: Cursor,
    outbox_mark: OutboxMark,
    hello_sent: PhoneNow,
    heard_at_ms: u64,
    ping: Option<(u32, PhoneNow)>,
    pings: u32,
    pushes: u32,
    in_flight: Option<InFlight>,
    /// The outbox is being read.
    reading: bool,
    /// More was put into the outbox than was read.
    outbox_dirty: bool,
    /// After a passing fault the server asked to retry: not before this.
    push_not_before_ms: u64,
    retries: u32,
    /// A mismatch was already healed on this connection; a second one is left for the next.
    healed: bool,
    /// Whole documents were asked for and have not all come.
    fetching: bool,
    /// Visits that were asked for whole on this connection.
    fetched: BTreeSet<DispatchId>,
    /// Until the store has answered it.
    welcome: Option<Welcome>,
}

impl PhoneSession {
    /// A connection whose socket is open; carry out the effects.
    #[must_use = "every effect must be carried out, in order"]
    pub fn open(now: PhoneNow, state: PhoneState) -> (Self, Vec<PhoneEffect>) {
        let mut session = Self {
            phase: Phase::Greeting,
            generation: state.generation,
            cursor: state.cursor,
            head: state.cursor,
            outbox_mark: state.outbox,
            hello_sent: now,
            heard_at_ms: now.monotonic_ms,
            ping: None,
            pings: 0,
            pushes: 0,
            in_flight: None,
            reading: false,
            outbox_dirty: state.outbox.pending > 0,
            push_not_before_ms: 0,
            retries: 0,
            healed: false,
            fetching: false,
            fetched: BTreeSet::new(),
            welcome: None,
        };
        let mut effects = vec![PhoneEffect::Send(PhoneMessage::Hello(Hello {
            device: state.device,
            app: state.app,
            generation: state.generation,
            cursor: state.cursor,
            outbox: state.outbox,
            now: now.wall,
        }))];
        // The outbox goes out in the same flight: no round trip is spent on waiting for the welcome.
        effects.extend(session.push_more(now));
        (session, effects)
    }

    /// True once the connection is to be closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// When [`PhoneInput::Tick`] is due at the latest, on the monotonic clock.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        let after = |at: u64, ms: i64| at.saturating_add(ms.unsigned_abs());
        let mut deadline = match (self.phase, &self.ping) {
            (Phase::Greeting, _) => after(self.hello_sent.monotonic_ms, PONG_TIMEOUT_MS),
            (_, Some((_, sent))) => after(sent.monotonic_ms, PONG_TIMEOUT_MS),
            (_, None) => after(self.heard_at_ms, PING_AFTER_IDLE_MS),
        };
        if let Some(push) = &self.in_flight {
            deadline = deadline.min(after(push.sent_at_ms, PUSH_TIMEOUT_MS));
        } else if self.outbox_dirty && self.push_not_before_ms > 0 {
            deadline = deadline.min(self.push_not_before_ms);
        }
        deadline
    }

    /// One step.
    #[must_use = "every effect must be carried out, in order"]
    pub fn handle(&mut self, now: PhoneNow, input: PhoneInput) -> Vec<PhoneEffect> {
        if self.phase == Phase::Closed {
            return Vec::new();
        }
        match input {
            PhoneInput::Frame(frame) => self.frame(now, &frame),
            PhoneInput::Introduced(state) => self.introduced(now, state),
            PhoneInput::Outbox { lanes, mark } => self.outbox(now, lanes, mark),
            PhoneInput::BatchStored(stored) => self.batch_stored(now, stored),
            PhoneInput::AckStored(stored) => self.ack_stored(now, stored),
            PhoneInput::OutboxGrew => {
                self.outbox_dirty = true;
                self.push_more(now)
            }
            PhoneInput::Tick => self.tick(now),
        }
    }

    fn disconnect(&mut self, why: Disconnect) -> Vec<PhoneEffect> {
        self.phase = Phase::Closed;
        vec![PhoneEffect::Disconnect(why)]
    }

    fn frame(&mut self, now: PhoneNow, frame: &[u8]) -> Vec<PhoneEffect> {
        self.heard_at_ms = now.monotonic_ms;
        let message = match decode_server(frame) {
            Ok(message) => message,
            Err(error) => return self.disconnect(Disconnect::Malformed(error.to_string())),
        };
        match message {
            ServerMessage::Welcome(welcome) if self.phase == Phase::Greeting => {
                self.phase = Phase::Live;
                self.head = welcome.head;
                self.welcome = Some(welcome);
                let mut effects = vec![self.clock(now, self.hello_sent, welcome.server_time)];
                effects.push(PhoneEffect::Introduce(welcome));
                effects
            }
            ServerMessage::Welcome(_) | ServerMessage::Unknown(_) => Vec::new(),
            ServerMessage::Batch(batch) => self.batch(batch),
            ServerMessage::PushAck(ack) => match self.in_flight.take_if(|push| push.id == ack.id) {
                Some(push) => {
                    self.note_retries(now, &ack);
                    vec![PhoneEffect::StorePushAck { lanes: push.lanes, ack }]
                }
                None => Vec::new(),
            },
            ServerMessage::Pong(pong) => match self.ping.take_if(|(id, _)| *id == pong.id) {
                Some((_, sent)) => vec![self.clock(now, sent, pong.server_time)],
                None => Vec::new(),
            },
            ServerMessage::Bye(bye) => self.disconnect(Disconnect::Bye(bye)),
        }
    }

    /// The server's time was read somewhere between sending and hearing.
    fn clock(&self, now: PhoneNow, sent: PhoneNow, server_time: Timestamp) -> PhoneEffect {
        let round_trip_ms = now.monotonic_ms.saturating_sub(sent.monotonic_ms);
        let half = i64::try_from(round_trip_ms / 2).unwrap_or(i64::MAX);
        PhoneEffect::SetClock {
            offset_ms: server_time.plus_millis(half).millis_since(now.wall),
            uncertainty_ms: u32::try_from(half.saturating_add(1)).unwrap_or(u32::MAX),
        }
    }

    fn introduced(&mut self, now: PhoneNow, state: PhoneState) -> Vec<PhoneEffect> {
        let replaced = self.generation.is_some() && self.generation != state.generation || state.cursor < self.cursor;
        if replaced && self.in_flight.is_some() {
            return self.disconnect(Disconnect::ServerReplaced);
        }
        self.generation = state.generation;
        self.cursor = state.cursor;
        self.outbox_dirty |= state.outbox.pending > self.outbox_mark.pending;
        self.outbox_mark = state.outbox;
        let mut effects = Vec::new();
        // With nothing after the cursor the digests can be compared at once (invariant 9).
        if let Some(welcome) = self.welcome.take() {
            let comparable = state.cursor == welcome.head && state.cursor > Cursor(0);
            if comparable && state.digest != welcome.digest {
                effects.extend(self.heal());
            }
        }
        effects.extend(self.fetch(state.needs_fetch));
        effects.extend(self.push_more(now));
        effects.extend(self.synced());
        effects
    }

    /// What the phone holds is not what the server says it should hold: ask for everything, once a connection (invariant 9).
    fn heal(&mut self) -> Vec<PhoneEffect> {
        if std::mem::replace(&mut self.healed, true) {
            return Vec::new();
        }
        self.fetching = true;
        vec![
            PhoneEffect::Send(PhoneMessage::Ack(Ack { cursor: self.cursor, digest_matched: false })),
            PhoneEffect::Send(PhoneMessage::Fetch(Fetch { dispatches: Vec::new() })),
        ]
    }

    /// Each visit is asked for once a connection: what the server does not have, asking again does not bring.
    fn fetch(&mut self, mut dispatches: Vec<DispatchId>) -> Option<PhoneEffect> {
        dispatches.retain(|dispatch| !self.fetched.contains(dispatch));
        dispatches.truncate(FETCH_VISITS_MAX);
        if dispatches.is_empty() {
            return None;
        }
        self.fetching = true;
        self.fetched.extend(dispatches.iter().cloned());
        Some(PhoneEffect::Send(PhoneMessage::Fetch(Fetch { dispatches })))
    }

    fn batch(&mut self, batch: Batch) -> Vec<PhoneEffect> {
        match decode_items(&batch.items, batch.zstd) {
            Ok(items) => {
                let Batch { from, to, reset, more, digest, .. } = batch;
                vec![PhoneEffect::StoreBatch { batch: BatchSpan { from, to, reset, more, digest }, items }]
            }
            Err(error) => self.disconnect(Disconnect::Malformed(error.to_string())),
        }
    }

    fn batch_stored(&mut self, now: PhoneNow, stored: BatchStored) -> Vec<PhoneEffect> {
        if stored.gap {
            return vec![PhoneEffect::Send(PhoneMessage::Pull(Pull { cursor: stored.cursor }))];
        }
        self.fetching = false;
        self.cursor = stored.cursor;
        self.head = self.head.max(stored.cursor);
        let mismatch = stored.digest_matched == Some(false) && !self.healed;
        let mut effects = Vec::new();
        if mismatch {
            effects.extend(self.heal());
        } else {
            effects.push(PhoneEffect::Send(PhoneMessage::Ack(Ack { cursor: self.cursor, digest_matched: true })));
        }
        effects.extend(self.fetch(stored.needs_fetch));
        // A whole document may have brought the ground that a parked or refused edit was waiting for.
        effects.extend(self.push_more(now));
        effects.extend(self.synced());
        effects
    }

    fn note_retries(&mut self, now: PhoneNow, ack: &PushAck) {
        let retry = |refusal: &crate::protocol::LaneRefusal| matches!(refusal.remedy, Remedy::Retry | Remedy::Resend);
        if ack.lanes.iter().any(|lane| lane.refusal.as_ref().is_some_and(retry)) {
            let delay_ms = BACKOFF_MIN_MS.saturating_mul(1 << self.retries.min(10)).min(BACKOFF_MAX_MS);
            self.retries = self.retries.saturating_add(1);
            self.push_not_before_ms = now.monotonic_ms.saturating_add(delay_ms.unsigned_abs());
        } else {
            self.retries = 0;
            self.push_not_before_ms = 0;
        }
    }

    fn ack_stored(&mut self, now: PhoneNow, stored: BatchStored) -> Vec<PhoneEffect> {
        self.cursor = stored.cursor;
        self.head = self.head.max(stored.cursor);
        self.outbox_dirty = true;
        let mut effects = Vec::new();
        if stored.digest_matched == Some(false) {
            effects.extend(self.heal());
        }
        effects.extend(self.fetch(stored.needs_fetch));
        effects.extend(self.push_more(now));
        effects
    }

    /// Reads the outbox when there may be something in it and nothing is under way.
    fn push_more(&mut self, now: PhoneNow) -> Vec<PhoneEffect> {
        let waits = self.in_flight.is_some() || self.reading || now.monotonic_ms < self.push_not_before_ms;
        if waits || !self.outbox_dirty {
            return Vec::new();
        }
        self.reading = true;
        self.outbox_dirty = false;
        vec![PhoneEffect::LoadOutbox]
    }

    fn outbox(&mut self, now: PhoneNow, lanes: Vec<PushLane>, mark: OutboxMark) -> Vec<PhoneEffect> {
        self.reading = false;
        self.outbox_mark = mark;
        if lanes.is_empty() {
            let mut effects = self.push_more(now);
            effects.extend(self.synced());
            return effects;
        }
        self.pushes = self.pushes.wrapping_add(1);
        let push = Push { id: self.pushes, lanes: lanes.clone(), outbox: mark };
        self.in_flight = Some(InFlight { id: self.pushes, lanes, sent_at_ms: now.monotonic_ms });
        vec![PhoneEffect::Send(PhoneMessage::Push(push))]
    }

    fn synced(&self) -> Vec<PhoneEffect> {
        let quiet = self.in_flight.is_none() && !self.reading && !self.outbox_dirty && !self.fetching;
        if self.phase == Phase::Live && quiet && self.cursor >= self.head {
            vec![PhoneEffect::Synced]
        } else {
            Vec::new()
        }
    }

    fn tick(&mut self, now: PhoneNow) -> Vec<PhoneEffect> {
        let since = |at_ms: u64| i64::try_from(now.monotonic_ms.saturating_sub(at_ms)).unwrap_or(i64::MAX);
        if self.phase == Phase::Greeting && since(self.hello_sent.monotonic_ms) >= PONG_TIMEOUT_MS {
            return self.disconnect(Disconnect::NoWelcome);
        }
        if self.in_flight.as_ref().is_some_and(|push| since(push.sent_at_ms) >= PUSH_TIMEOUT_MS) {
            return self.disconnect(Disconnect::PushTimeout);
        }
        if let Some((_, sent)) = &self.ping {
            // Anything heard since shows that the socket lives, though the pong itself is late.
            if since(sent.monotonic_ms) >= PONG_TIMEOUT_MS {
                if self.heard_at_ms <= sent.monotonic_ms {
                    return self.disconnect(Disconnect::HalfOpen);
                }
                self.ping = None;
            }
        }
        let mut effects = self.push_more(now);
        if self.phase == Phase::Live && self.ping.is_none() && since(self.heard_at_ms) >= PING_AFTER_IDLE_MS {
            self.pings = self.pings.wrapping_add(1);
            self.ping = Some((self.pings, now));
            effects.push(PhoneEffect::Send(PhoneMessage::Ping(Ping { id: self.pings, outbox: self.outbox_mark })));
        }
        effects
    }
}

/// Where the store's answer to an acknowledgement's feed range comes from.
impl From<FeedRange> for BatchSpan {
    fn from(range: FeedRange) -> Self {
        Self { from: range.from, to: range.to, reset: false, more: false, digest: range.digest }
    }
}
