//! The server's end of one phone's connection.

use super::rate::TokenBucket;
use crate::domain::{DispatchId, Timestamp};
use crate::protocol::limits::{
    BATCHES_UNACKNOWLEDGED_MAX, FRAME_BYTES_MAX, FRAMES_BURST_MAX, FRAMES_PER_SECOND_MAX, HELLO_TIMEOUT_MS,
    LATE_PUSHES_MAX, SILENCE_MAX_MS, WIPE_TIMEOUT_MS,
};
use crate::protocol::{
    Ack, Batch, Bye, ByeCode, CodecError, Cursor, Digest, FeedItem, FeedRange, Generation, Hello, PhoneMessage, Ping,
    Pong, Push, PushAck, ServerMessage, Welcome, Wiped, decode_phone, encode_items,
};
use std::sync::Arc;

/// The server's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerNow {
    /// Wall time, as told to phones.
    pub time: Timestamp,
    /// Milliseconds since some fixed point; never jumps. All timers run on it.
    pub monotonic_ms: u64,
}

/// What happens to a connection.
#[derive(Debug, Clone)]
pub enum ServerInput {
    /// A frame came.
    Frame(Vec<u8>),
    /// Answers [`ServerEffect::Greet`].
    Greeted(Greeting),
    /// Answers [`ServerEffect::LoadSince`].
    Page(Page),
    /// Answers [`ServerEffect::LoadSince`]: the feed was pruned beyond that cursor; only everything helps.
    TooOld,
    /// Answers [`ServerEffect::LoadAll`].
    All(AllPage),
    /// Answers [`ServerEffect::LoadSome`].
    Some(Vec<FeedItem>),
    /// Answers [`ServerEffect::Commit`], after the transaction is durable.
    Pushed(Pushed),
    /// The technician's feed grew.
    Notice(Notice),
    /// The feed grew by more than the notices tell.
    Lagged,
    /// Time passed.
    Tick,
    /// The driver ends the connection: drain, token expiry, revocation, replacement, its own failure.
    End {
        /// Why.
        code: ByeCode,
        /// Come back not earlier than this.
        retry_after_ms: Option<u32>,
        /// For people; may be empty.
        message: String,
    },
}

/// What the driver must do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEffect {
    /// Send this.
    Send(ServerMessage),
    /// Register the phone, record its cursor as a receipt; answer with `Greeted`.
    Greet(Hello),
    /// Load what lies after the cursor; answer with `Page` or `TooOld`.
    LoadSince(Cursor),
    /// Load a page of everything held, after that visit; answer with `All`.
    LoadAll(Option<DispatchId>),
    /// Load these whole; answer with `Some`.
    LoadSome(Vec<DispatchId>),
    /// Decide and commit; answer with `Pushed`.
    Commit(Push),
    /// Record the receipt. No answer.
    Acknowledge(Ack),
    /// Record what the phone says is unsent. No answer.
    Heard(Ping),
    /// Record that the revoked phone has removed what it held. No answer.
    Wiped(Wiped),
    /// Close the connection, after what was sent before.
    Close,
}

/// Who the server is, and where the technician's feed stands.
#[derive(Debug, Clone, Copy)]
pub struct Greeting {
    /// The database.
    pub generation: Generation,
    /// The feed's end.
    pub head: Cursor,
    /// Of what is held at `head`.
    pub digest: Digest,
}

/// What lies after a cursor.
#[derive(Debug, Clone)]
pub struct Page {
    /// Covers everything up to here.
    pub to: Cursor,
    /// The feed's end.
    pub head: Cursor,
    /// At `head`.
    pub digest: Digest,
    /// The news; may be empty when all of it was the phone's own.
    pub items: Vec<FeedItem>,
}

/// A page of everything held.
#[derive(Debug, Clone)]
pub struct AllPage {
    /// Whole visits, in id order.
    pub items: Vec<FeedItem>,
    /// True when there are more after the last one.
    pub more: bool,
    /// The feed's end as of this page's read.
    pub head: Cursor,
    /// At `head`.
    pub digest: Digest,
}

/// A push's result.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The answer, its `feed` not yet filled.
    pub ack: PushAck,
    /// The positions that the push made in this technician's feed, ascending, and the digest at the last.
    pub made: Vec<Cursor>,
    /// At the last of `made`.
    pub digest: Digest,
}

/// News for a connected phone, shared between its receivers.
#[derive(Debug, Clone)]
pub struct Notice {
    /// Exclusive.
    pub from: Cursor,
    /// Inclusive.
    pub to: Cursor,
    /// At `to`.
    pub digest: Digest,
    /// The news.
    pub items: Arc<[FeedItem]>,
    /// True when this phone's own push made it: its changes must not be echoed.
    pub own: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before `Hello`.
    Opened,
    /// Between `Hello` and its answer.
    Greeting,
    Live,
    /// The phone was told that it is revoked; it may hand over what is unsent, and prove that it has removed what it held.
    Revoked,
    Closed,
}

/// A run that sends everything held, page by page.
#[derive(Debug, Clone)]
struct Run {
    /// The feed's end when the run began: what changed since lies after it and follows as a page.
    head: Cursor,
    digest: Digest,
    after: Option<DispatchId>,
}

/// One phone's connection.
#[derive(Debug)]
pub struct ServerSession {
    phase: Phase,
    /// The phone has been sent everything up to here.
    sent: Cursor,
    /// The feed is known to reach at least this far.
    head: Cursor,
    unacknowledged: u32,
    run: Option<Run>,
    bucket: TokenBucket,
    opened_at_ms: u64,
    heard_at_ms: u64,
    hello_cursor: Cursor,
    hello_generation: Option<Generation>,
    /// What a revoked phone has handed over.
    late_pushes: u32,
}

impl ServerSession {
    /// A connection that was just accepted; the caller has checked the token.
    #[must_use]
    pub fn new(now: ServerNow) -> Self {
        Self {
            phase: Phase::Opened,
            sent: Cursor(0),
            head: Cursor(0),
            unacknowledged: 0,
            run: None,
            bucket: TokenBucket::new(FRAMES_PER_SECOND_MAX, FRAMES_BURST_MAX, now.monotonic_ms),
            opened_at_ms: now.monotonic_ms,
            heard_at_ms: now.monotonic_ms,
            hello_cursor: Cursor(0),
            hello_generation: None,
            late_pushes: 0,
        }
    }

    /// True once the connection is to be closed; further inputs do nothing.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// When [`ServerInput::Tick`] is due at the latest, on the monotonic clock.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        let (from, wait_ms) = match self.phase {
            Phase::Opened | Phase::Greeting => (self.opened_at_ms, HELLO_TIMEOUT_MS),
            Phase::Revoked => (self.heard_at_ms, WIPE_TIMEOUT_MS),
            Phase::Live | Phase::Closed => (self.heard_at_ms, SILENCE_MAX_MS),
        };
        from.saturating_add(wait_ms.unsigned_abs())
    }

    /// One step.
    #[must_use = "every effect must be carried out, in order"]
    pub fn handle(&mut self, now: ServerNow, input: ServerInput) -> Vec<ServerEffect> {
        if self.phase == Phase::Closed {
            return Vec::new();
        }
        if self.phase == Phase::Revoked {
            return self.after_revocation(now, input);
        }
        match input {
            ServerInput::Frame(frame) => self.frame(now, &frame),
            ServerInput::Greeted(greeting) => self.greeted(now, greeting),
            ServerInput::Page(page) => self.page(page),
            ServerInput::TooOld => self.start_run(),
            ServerInput::All(page) => self.all(page),
            ServerInput::Some(items) => self.some(items),
            ServerInput::Pushed(pushed) => self.pushed(pushed),
            ServerInput::Notice(notice) => self.notice(notice),
            ServerInput::Lagged => {
                self.head = self.head.max(Cursor(self.sent.0.saturating_add(1)));
                self.advance()
            }
            ServerInput::Tick if now.monotonic_ms >= self.deadline_ms() => {
                self.end(ByeCode::Silent, None, String::new())
            }
            ServerInput::Tick => Vec::new(),
            ServerInput::End { code: ByeCode::DeviceRevoked, .. } => {
                self.phase = Phase::Revoked;
                self.heard_at_ms = self.heard_at_ms.max(now.monotonic_ms);
                let bye = Bye { code: ByeCode::DeviceRevoked, retry_after_ms: None, message: String::new() };
                vec![ServerEffect::Send(ServerMessage::Bye(bye))]
            }
            ServerInput::End { code, retry_after_ms, message } => self.end(code, retry_after_ms, message),
        }
    }

    /// From a revoked phone only two things are heard: what it has not sent yet, which is quarantined, and the proof that it
    /// has removed what it held. It is told nothing but that its changes have come.
    fn after_revocation(&mut self, now: ServerNow, input: ServerInput) -> Vec<ServerEffect> {
        match input {
            ServerInput::Frame(frame) => match decode_phone(&frame) {
                Ok(PhoneMessage::Wiped(wiped)) => {
                    self.phase = Phase::Closed;
                    return vec![ServerEffect::Wiped(wiped), ServerEffect::Close];
                }
                Ok(PhoneMessage::Push(push)) if self.late_pushes < LATE_PUSHES_MAX => {
                    self.late_pushes += 1;
                    self.heard_at_ms = self.heard_at_ms.max(now.monotonic_ms);
                    return vec![ServerEffect::Commit(push)];
                }
                _ => {}
            },
            ServerInput::Pushed(pushed) => {
                let mut ack = pushed.ack;
                ack.lanes.iter_mut().for_each(|lane| lane.update = None);
                return vec![ServerEffect::Send(ServerMessage::PushAck(ack))];
            }
            _ => {}
        }
        if now.monotonic_ms >= self.deadline_ms() {
            self.phase = Phase::Closed;
            return vec![ServerEffect::Close];
        }
        Vec::new()
    }

    fn end(&mut self, code: ByeCode, retry_after_ms: Option<u32>, message: String) -> Vec<ServerEffect> {
        self.phase = Phase::Closed;
        vec![ServerEffect::Send(ServerMessage::Bye(Bye { code, retry_after_ms, message })), ServerEffect::Close]
    }

    fn frame(&mut self, now: ServerNow, frame: &[u8]) -> Vec<ServerEffect> {
        self.heard_at_ms = self.heard_at_ms.max(now.monotonic_ms);
        if !self.bucket.take(now.monotonic_ms) {
            return self.end(ByeCode::TooFast, Some(5_000), format!("at most {FRAMES_PER_SECOND_MAX} frames a second"));
        }
        let message = match decode_phone(frame) {
            Ok(message) => message,
            Err(error) => {
                let code = match error {
                    CodecError::Version(_) => ByeCode::Version,
                    CodecError::TooLarge { .. } => ByeCode::TooLarge,
                    CodecError::Short | CodecError::Body { .. } => ByeCode::Malformed,
                };
                return self.end(code, None, error.to_string());
            }
        };
        match (self.phase, message) {
            (Phase::Opened, PhoneMessage::Hello(hello)) => {
                self.phase = Phase::Greeting;
                self.hello_cursor = hello.cursor;
                self.hello_generation = hello.generation;
                vec![ServerEffect::Greet(hello)]
            }
            (_, PhoneMessage::Unknown(_)) => Vec::new(),
            (Phase::Live, PhoneMessage::Push(push)) => vec![ServerEffect::Commit(push)],
            (Phase::Live, PhoneMessage::Pull(pull)) => {
                self.unacknowledged = 0;
                self.run = None;
                self.sent = pull.cursor.min(self.head);
                // A pull is an honest question even when nothing is known to lie after the cursor.
                vec![ServerEffect::LoadSince(self.sent)]
            }
            (Phase::Live, PhoneMessage::Fetch(fetch)) if fetch.dispatches.is_empty() => self.start_run(),
            (Phase::Live, PhoneMessage::Fetch(fetch)) => vec![ServerEffect::LoadSome(fetch.dispatches)],
            (Phase::Live, PhoneMessage::Ack(ack)) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                let mut effects = vec![ServerEffect::Acknowledge(ack)];
                effects.extend(self.advance());
                effects
            }
            (Phase::Live, PhoneMessage::Ping(ping)) => {
                let pong = ServerMessage::Pong(Pong { id: ping.id, server_time: now.time });
                vec![ServerEffect::Send(pong), ServerEffect::Heard(ping)]
            }
            (_, _) => self.end(ByeCode::OutOfTurn, None, "hello comes first, and once".into()),
        }
    }

    fn greeted(&mut self, now: ServerNow, greeting: Greeting) -> Vec<ServerEffect> {
        self.phase = Phase::Live;
        self.head = greeting.head;
        // A cursor of another database, or from this one's future, says nothing about this feed (invariant 11).
        let known = self.hello_generation == Some(greeting.generation) && self.hello_cursor <= greeting.head;
        self.sent = if known { self.hello_cursor } else { Cursor(0) };
        let mut effects = vec![ServerEffect::Send(ServerMessage::Welcome(Welcome {
            generation: greeting.generation,
            server_time: now.time,
            head: greeting.head,
            digest: greeting.digest,
        }))];
        effects.extend(self.advance());
        effects
    }

    /// Loads what is missing, when something is and the phone keeps up.
    fn advance(&mut self) -> Vec<ServerEffect> {
        if self.unacknowledged >= BATCHES_UNACKNOWLEDGED_MAX {
            // A slow phone holds nothing but its place: its next receipt goes on from here.
            return Vec::new();
        }
        if let Some(run) = &self.run {
            return vec![ServerEffect::LoadAll(run.after.clone())];
        }
        match (self.sent, self.head) {
            (sent, head) if sent >= head => Vec::new(),
            (Cursor(0), _) => self.start_run(),
            (sent, _) => vec![ServerEffect::LoadSince(sent)],
        }
    }

    fn start_run(&mut self) -> Vec<ServerEffect> {
        self.run = None;
        vec![ServerEffect::LoadAll(None)]
    }

    fn page(&mut self, page: Page) -> Vec<ServerEffect> {
        self.head = self.head.max(page.head);
        if page.to <= self.sent {
            return Vec::new();
        }
        let digest = (page.to == page.head).then_some(page.digest);
        let mut effects =
            self.batches(page.items, Span { from: self.sent, to: page.to, reset: false, more: false, digest });
        self.sent = page.to;
        effects.extend(self.advance());
        effects
    }

    fn all(&mut self, page: AllPage) -> Vec<ServerEffect> {
        self.head = self.head.max(page.head);
        let (head, digest) = match &self.run {
            Some(run) => (run.head, run.digest),
            None => (page.head, page.digest),
        };
        let last = page.items.last().map(|item| item.dispatch().clone());
        let digest_holds = page.head == head;
        let span = Span {
            from: Cursor(0),
            to: if page.more { Cursor(0) } else { head },
            reset: true,
            more: page.more,
            digest: (!page.more && digest_holds).then_some(digest),
        };
        let mut effects = self.batches(page.items, span);
        if page.more {
            self.run = Some(Run { head, digest, after: last });
        } else {
            self.run = None;
            self.sent = head;
        }
        effects.extend(self.advance());
        effects
    }

    fn some(&mut self, items: Vec<FeedItem>) -> Vec<ServerEffect> {
        self.batches(items, Span { from: self.sent, to: self.sent, reset: false, more: false, digest: None })
    }

    /// One batch, or several when one frame cannot hold them; only the last moves the phone's cursor.
    fn batches(&mut self, items: Vec<FeedItem>, span: Span) -> Vec<ServerEffect> {
        let mut effects = Vec::new();
        let mut waiting = vec![items];
        while let Some(mut part) = waiting.pop() {
            let (bytes, zstd) = encode_items(&part);
            if bytes.len() > FRAME_BYTES_MAX - FRAME_SLACK_BYTES && part.len() > 1 {
                let tail = part.split_off(part.len() / 2);
                waiting.push(tail);
                waiting.push(part);
                continue;
            }
            let last = waiting.is_empty();
            self.unacknowledged = self.unacknowledged.saturating_add(1);
            effects.push(ServerEffect::Send(ServerMessage::Batch(Batch {
                from: span.from,
                to: if last { span.to } else { span.from },
                reset: span.reset,
                more: span.more || !last,
                digest: if last { span.digest } else { None },
                items: bytes,
                zstd,
            })));
        }
        effects
    }

    fn pushed(&mut self, pushed: Pushed) -> Vec<ServerEffect> {
        let mut ack = pushed.ack;
        let idle = self.run.is_none();
        if let (Some(first), Some(last)) = (pushed.made.first(), pushed.made.last()) {
            let count = pushed.made.len() as u64;
            self.head = self.head.max(*last);
            if idle && first.0 == self.sent.0 + 1 && last.0 == self.sent.0 + count {
                let digest = (self.head == *last).then_some(pushed.digest);
                ack.feed = Some(FeedRange { from: self.sent, to: *last, digest });
                self.sent = *last;
            }
        }
        let mut effects = vec![ServerEffect::Send(ServerMessage::PushAck(ack))];
        if idle {
            effects.extend(self.advance());
        }
        effects
    }

    fn notice(&mut self, notice: Notice) -> Vec<ServerEffect> {
        if self.phase != Phase::Live || notice.to <= self.sent {
            return Vec::new();
        }
        self.head = self.head.max(notice.to);
        let up_to_date = notice.from == self.sent && self.run.is_none();
        if !up_to_date || notice.own || self.unacknowledged >= BATCHES_UNACKNOWLEDGED_MAX {
            return if self.run.is_some() { Vec::new() } else { self.advance() };
        }
        let digest = (self.head == notice.to).then_some(notice.digest);
        let span = Span { from: self.sent, to: notice.to, reset: false, more: false, digest };
        self.sent = notice.to;
        self.batches(notice.items.to_vec(), span)
    }
}

/// Room for a batch frame's fields beside its items.
const FRAME_SLACK_BYTES: usize = 1024;

struct Span {
    from: Cursor,
    to: Cursor,
    reset: bool,
    more: bool,
    digest: Option<Digest>,
}
