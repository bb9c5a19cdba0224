//! The two sessions, each alone against hand-written inputs: what is sent, what is not, and when a connection ends.

use std::sync::Arc;
use sync_core::domain::{DispatchId, Timestamp, Tombstone, TombstoneReason};
use sync_core::protocol::limits::{
    BATCHES_UNACKNOWLEDGED_MAX, FRAME_BYTES_MAX, FRAMES_BURST_MAX, HELLO_TIMEOUT_MS, PING_AFTER_IDLE_MS,
    PONG_TIMEOUT_MS, PUSH_TIMEOUT_MS, SILENCE_MAX_MS, WIPE_TIMEOUT_MS,
};
use sync_core::protocol::{
    Ack, Batch, ByeCode, Cursor, Digest, FeedItem, Fetch, Generation, Hello, LaneAck, LaneRefusal, OutboxMark,
    PhoneMessage, Ping, Pull, Push, PushAck, PushLane, Remedy, ServerMessage, Welcome, Wiped, decode_items,
    encode_items, encode_phone, encode_server,
};
use sync_core::session::phone::{BatchStored, Disconnect, PhoneState};
use sync_core::session::server::{AllPage, Greeting, Notice, Page, Pushed};
use sync_core::session::{
    PhoneEffect, PhoneInput, PhoneNow, PhoneSession, ServerEffect, ServerInput, ServerNow, ServerSession,
};

const T0: i64 = 1_770_000_000_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(T0 + ms)
}

fn on(ms: i64) -> ServerNow {
    ServerNow { time: at(ms), monotonic_ms: ms.unsigned_abs() }
}

fn phone_at(ms: u64) -> PhoneNow {
    PhoneNow { wall: at(i64::try_from(ms).unwrap_or(0)), monotonic_ms: ms }
}

fn id(text: &str) -> DispatchId {
    text.parse().unwrap_or_else(|_| unreachable!("a valid id"))
}

fn gone(dispatch: &str, note: Option<String>) -> FeedItem {
    FeedItem::Gone {
        tombstone: Tombstone {
            dispatch_id: id(dispatch),
            title: "Pump".into(),
            reason: TombstoneReason::Cancelled,
            note,
            by: "office".into(),
            at: at(0),
        },
    }
}

fn hello(cursor: u64) -> PhoneMessage {
    PhoneMessage::Hello(Hello {
        device: "dev-1".parse().unwrap_or_else(|_| unreachable!("a valid id")),
        app: "test".into(),
        generation: Some(Generation(1)),
        cursor: Cursor(cursor),
        outbox: OutboxMark::default(),
        now: at(0),
    })
}

fn frame(message: &PhoneMessage) -> ServerInput {
    ServerInput::Frame(encode_phone(message))
}

fn greeting(head: u64) -> ServerInput {
    ServerInput::Greeted(Greeting { generation: Generation(1), head: Cursor(head), digest: Digest(7) })
}

/// A session whose phone has said hello at `cursor` while the feed stood at `head`.
fn live(cursor: u64, head: u64) -> (ServerSession, Vec<ServerEffect>) {
    let mut session = ServerSession::new(on(0));
    assert!(matches!(session.handle(on(0), frame(&hello(cursor)))[..], [ServerEffect::Greet(_)]));
    let effects = session.handle(on(0), greeting(head));
    (session, effects)
}

fn notice(from: u64, to: u64, own: bool) -> ServerInput {
    let items: Arc<[FeedItem]> = Arc::from(vec![gone("DSP-9", None)]);
    ServerInput::Notice(Notice { from: Cursor(from), to: Cursor(to), digest: Digest(to), items, own })
}

fn page(to: u64, items: Vec<FeedItem>) -> ServerInput {
    ServerInput::Page(Page { to: Cursor(to), head: Cursor(to), digest: Digest(7), items })
}

fn batch(effect: &ServerEffect) -> &Batch {
    match effect {
        ServerEffect::Send(ServerMessage::Batch(batch)) => batch,
        other => unreachable!("expected a batch, got {other:?}"),
    }
}

fn bye(effects: &[ServerEffect]) -> ByeCode {
    match effects {
        [ServerEffect::Send(ServerMessage::Bye(bye)), ServerEffect::Close] => bye.code,
        other => unreachable!("expected a farewell, got {other:?}"),
    }
}

/// Invariant 1.
#[test]
fn a_phone_that_missed_nothing_gets_a_welcome_and_nothing_else() {
    let (_, effects) = live(42, 42);
    assert!(matches!(&effects[..], [ServerEffect::Send(ServerMessage::Welcome(w))] if w.head == Cursor(42)));
}

#[test]
fn a_phone_that_missed_something_gets_what_lies_after_its_cursor_in_the_same_flight() {
    let (mut session, effects) = live(40, 42);
    assert_eq!(effects[1], ServerEffect::LoadSince(Cursor(40)));
    let effects = session.handle(on(1), page(42, vec![gone("DSP-1", None)]));
    let sent = batch(&effects[0]);
    assert_eq!((sent.from, sent.to, sent.digest, sent.more), (Cursor(40), Cursor(42), Some(Digest(7)), false));
}

/// Invariant 11.
#[test]
fn a_cursor_from_another_database_or_from_the_future_starts_over() {
    let mut session = ServerSession::new(on(0));
    let _ = session.handle(on(0), frame(&hello(40)));
    let other = Greeting { generation: Generation(2), head: Cursor(50), digest: Digest(0) };
    assert_eq!(session.handle(on(0), ServerInput::Greeted(other))[1], ServerEffect::LoadAll(None));
    let (_, effects) = live(99, 50);
    assert_eq!(effects[1], ServerEffect::LoadAll(None));
}

/// The run ends where the feed stood when it began; what changed since follows as a page.
#[test]
fn priming_goes_page_by_page_and_misses_nothing_that_changes_meanwhile() {
    let (mut session, effects) = live(0, 10);
    assert_eq!(effects[1], ServerEffect::LoadAll(None));
    let first = AllPage { items: vec![gone("A", None)], more: true, head: Cursor(10), digest: Digest(1) };
    let effects = session.handle(on(1), ServerInput::All(first));
    assert_eq!((batch(&effects[0]).to, batch(&effects[0]).reset, batch(&effects[0]).more), (Cursor(0), true, true));
    assert_eq!(effects[1], ServerEffect::LoadAll(Some(id("A"))));
    let second = AllPage { items: vec![gone("B", None)], more: false, head: Cursor(12), digest: Digest(2) };
    let effects = session.handle(on(2), ServerInput::All(second));
    assert_eq!((batch(&effects[0]).to, batch(&effects[0]).digest), (Cursor(10), None));
    assert_eq!(effects[1], ServerEffect::LoadSince(Cursor(10)));
}

#[test]
fn a_delta_goes_straight_to_a_phone_that_is_up_to_date() {
    let (mut session, _) = live(5, 5);
    let effects = session.handle(on(1), notice(5, 6, false));
    assert_eq!((batch(&effects[0]).from, batch(&effects[0]).to), (Cursor(5), Cursor(6)));
    assert_eq!(effects.len(), 1);
    assert!(session.handle(on(2), notice(5, 6, false)).is_empty(), "seen twice, sent once");
    assert_eq!(session.handle(on(3), notice(7, 8, false)), [ServerEffect::LoadSince(Cursor(6))], "a hole is loaded");
}

/// Invariant 7: a slow phone slows nobody else, and holds nothing but its place.
#[test]
fn a_phone_that_does_not_acknowledge_is_sent_no_more_until_it_does() {
    let (mut session, _) = live(5, 5);
    for n in 0..u64::from(BATCHES_UNACKNOWLEDGED_MAX) {
        assert_eq!(session.handle(on(1), notice(5 + n, 6 + n, false)).len(), 1);
    }
    let head = 5 + u64::from(BATCHES_UNACKNOWLEDGED_MAX);
    assert!(session.handle(on(2), notice(head, head + 1, false)).is_empty());
    let ack = Ack { cursor: Cursor(6), digest_matched: true };
    let effects = session.handle(on(3), frame(&PhoneMessage::Ack(ack)));
    assert_eq!(effects, [ServerEffect::Acknowledge(ack), ServerEffect::LoadSince(Cursor(head))]);
}

#[test]
fn a_push_moves_the_cursor_without_an_echo() {
    let (mut session, _) = live(5, 5);
    let push = Push { id: 1, lanes: vec![], outbox: OutboxMark::default() };
    assert_eq!(session.handle(on(1), frame(&PhoneMessage::Push(push.clone()))), [ServerEffect::Commit(push)]);
    let ack = PushAck { id: 1, lanes: vec![], feed: None };
    let made = vec![Cursor(6), Cursor(7)];
    let effects = session.handle(on(1), ServerInput::Pushed(Pushed { ack, made, digest: Digest(3) }));
    let [ServerEffect::Send(ServerMessage::PushAck(ack))] = &effects[..] else { unreachable!("{effects:?}") };
    let range = ack.feed.map(|range| (range.from, range.to, range.digest));
    assert_eq!(range, Some((Cursor(5), Cursor(7), Some(Digest(3)))));
    assert!(session.handle(on(2), notice(5, 6, true)).is_empty());
}

#[test]
fn a_push_that_somebody_elses_news_overtook_is_followed_by_that_news() {
    let (mut session, _) = live(5, 5);
    let ack = PushAck { id: 1, lanes: vec![], feed: None };
    let pushed = Pushed { ack, made: vec![Cursor(7)], digest: Digest(3) };
    let effects = session.handle(on(1), ServerInput::Pushed(pushed));
    assert!(matches!(&effects[0], ServerEffect::Send(ServerMessage::PushAck(ack)) if ack.feed.is_none()));
    assert_eq!(effects[1], ServerEffect::LoadSince(Cursor(5)));
}

#[test]
fn items_that_one_frame_cannot_hold_travel_in_several_and_only_the_last_moves_the_cursor() {
    let (mut session, _) = live(1, 2);
    let noise = |seed: u32| {
        let mut x = seed.wrapping_mul(2_654_435_761).max(1);
        let next = || {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            char::from(33 + u8::try_from(x % 90).unwrap_or(0))
        };
        std::iter::repeat_with(next).take(400_000).collect::<String>()
    };
    let items: Vec<_> = (0..4).map(|n| gone(&format!("DSP-{n}"), Some(noise(n + 1)))).collect();
    let effects = session.handle(on(1), page(2, items.clone()));
    assert!(effects.len() > 1);
    let last = effects.len() - 1;
    let mut received = Vec::new();
    for (n, effect) in effects.iter().enumerate() {
        let batch = batch(effect);
        assert!(encode_server(&ServerMessage::Batch(batch.clone())).len() <= FRAME_BYTES_MAX);
        assert_eq!((batch.to, batch.more), if n == last { (Cursor(2), false) } else { (Cursor(1), true) });
        received.extend(decode_items(&batch.items, batch.zstd).unwrap_or_default());
    }
    assert_eq!(received, items);
}

#[test]
fn what_makes_no_sense_ends_the_connection_with_a_reason() {
    let cases: Vec<(Vec<ServerInput>, ByeCode)> = vec![
        (vec![ServerInput::Frame(vec![])], ByeCode::Malformed),
        (vec![ServerInput::Frame(vec![1, 1, 0xff])], ByeCode::Malformed),
        (vec![ServerInput::Frame(vec![77, 1])], ByeCode::Version),
        (vec![ServerInput::Frame(vec![1; 2_000_000])], ByeCode::TooLarge),
        (vec![frame(&PhoneMessage::Pull(Pull { cursor: Cursor(1) }))], ByeCode::OutOfTurn),
        (vec![frame(&hello(0)), greeting(0), frame(&hello(0))], ByeCode::OutOfTurn),
    ];
    for (inputs, expected) in cases {
        let mut session = ServerSession::new(on(0));
        let last = inputs.into_iter().map(|input| session.handle(on(0), input)).last().unwrap_or_default();
        assert_eq!(bye(&last), expected);
        assert!(session.is_closed());
        assert!(session.handle(on(1), frame(&hello(0))).is_empty(), "nothing after the end");
    }
}

#[test]
fn a_flood_ends_its_own_connection() {
    let (mut session, _) = live(5, 5);
    let ping = PhoneMessage::Ping(Ping { id: 1, outbox: OutboxMark::default() });
    let answered = (0..FRAMES_BURST_MAX + 10)
        .take_while(|_| matches!(session.handle(on(1), frame(&ping))[..], [_, ServerEffect::Heard(_)]))
        .count();
    assert!(session.is_closed());
    assert!(answered < FRAMES_BURST_MAX as usize);
}

#[test]
fn silence_ends_a_connection() {
    let mut session = ServerSession::new(on(0));
    assert!(session.handle(on(HELLO_TIMEOUT_MS - 1), ServerInput::Tick).is_empty());
    assert_eq!(bye(&session.handle(on(HELLO_TIMEOUT_MS), ServerInput::Tick)), ByeCode::Silent);
    let (mut session, _) = live(5, 5);
    assert!(session.handle(on(SILENCE_MAX_MS - 1), ServerInput::Tick).is_empty());
    assert_eq!(bye(&session.handle(on(SILENCE_MAX_MS), ServerInput::Tick)), ByeCode::Silent);
}

#[test]
fn a_revoked_phone_hands_over_what_is_unsent_and_proves_that_it_has_removed_what_it_held() {
    let (mut session, _) = live(5, 5);
    let end = ServerInput::End { code: ByeCode::DeviceRevoked, retry_after_ms: None, message: String::new() };
    assert!(matches!(&session.handle(on(1), end.clone())[..], [ServerEffect::Send(ServerMessage::Bye(_))]));
    let late = PhoneMessage::Push(Push { id: 1, lanes: vec![], outbox: OutboxMark::default() });
    assert!(matches!(&session.handle(on(2), frame(&late))[..], [ServerEffect::Commit(_)]));
    let ack = PushAck { id: 1, lanes: vec![], feed: None };
    let pushed = Pushed { ack: ack.clone(), made: vec![Cursor(6)], digest: Digest(1) };
    let told = session.handle(on(2), ServerInput::Pushed(pushed));
    assert_eq!(told, [ServerEffect::Send(ServerMessage::PushAck(ack))], "no news for a revoked phone");
    let pull = PhoneMessage::Pull(Pull { cursor: Cursor(1) });
    assert!(session.handle(on(2), frame(&pull)).is_empty());
    let wiped = Wiped { sealed: 3 };
    let effects = session.handle(on(3), frame(&PhoneMessage::Wiped(wiped)));
    assert_eq!(effects, [ServerEffect::Wiped(wiped), ServerEffect::Close]);
    let (mut session, _) = live(5, 5);
    let _ = session.handle(on(1), end);
    assert_eq!(session.handle(on(1 + WIPE_TIMEOUT_MS), ServerInput::Tick), [ServerEffect::Close]);
}

#[test]
fn frames_of_a_newer_release_are_ignored() {
    let (mut session, _) = live(5, 5);
    assert!(session.handle(on(1), ServerInput::Frame(vec![1, 33, 0xa0])).is_empty());
    assert!(!session.is_closed());
}

fn state(cursor: u64, pending: u32) -> PhoneState {
    PhoneState {
        device: "dev-1".parse().unwrap_or_else(|_| unreachable!("a valid id")),
        app: "test".into(),
        generation: Some(Generation(1)),
        cursor: Cursor(cursor),
        digest: Digest(7),
        outbox: OutboxMark { high_water: u64::from(pending), pending, oldest: None },
        needs_fetch: vec![],
    }
}

fn server_frame(message: ServerMessage) -> PhoneInput {
    PhoneInput::Frame(encode_server(&message))
}

fn welcome(head: u64, digest: u64) -> Welcome {
    Welcome { generation: Generation(1), server_time: at(100), head: Cursor(head), digest: Digest(digest) }
}

/// A phone at cursor 5 that was welcomed, its store introduced.
fn welcomed(digest: u64) -> (PhoneSession, Vec<PhoneEffect>) {
    let (mut session, _) = PhoneSession::open(phone_at(0), state(5, 0));
    let _ = session.handle(phone_at(50), server_frame(ServerMessage::Welcome(welcome(5, digest))));
    let effects = session.handle(phone_at(50), PhoneInput::Introduced(state(5, 0)));
    (session, effects)
}

fn lanes() -> Vec<PushLane> {
    vec![PushLane { dispatch: id("DSP-1"), changes: vec![serde_bytes::ByteBuf::from(vec![1])] }]
}

#[test]
fn the_outbox_leaves_in_the_same_flight_as_the_hello() {
    let (mut session, effects) = PhoneSession::open(phone_at(0), state(5, 1));
    assert!(matches!(&effects[..], [PhoneEffect::Send(PhoneMessage::Hello(_)), PhoneEffect::LoadOutbox]));
    let mark = OutboxMark { high_water: 1, pending: 1, oldest: None };
    let effects = session.handle(phone_at(1), PhoneInput::Outbox { lanes: lanes(), mark });
    assert!(matches!(&effects[..], [PhoneEffect::Send(PhoneMessage::Push(push))] if push.lanes == lanes()));
}

#[test]
fn nothing_changed_is_one_round_trip_and_the_clock_is_measured_on_the_way() {
    let (mut session, _) = PhoneSession::open(phone_at(0), state(5, 0));
    let effects = session.handle(phone_at(50), server_frame(ServerMessage::Welcome(welcome(5, 7))));
    // The server read 100 ms somewhere in the 50 ms of the round trip: 75 ms ahead, give or take 26.
    assert_eq!(effects[0], PhoneEffect::SetClock { offset_ms: 75, uncertainty_ms: 26 });
    assert!(matches!(effects[1], PhoneEffect::Introduce(_)));
    assert_eq!(session.handle(phone_at(50), PhoneInput::Introduced(state(5, 0))), [PhoneEffect::Synced]);
}

/// Invariant 9.
#[test]
fn a_digest_that_does_not_match_heals_once_a_connection() {
    let (mut session, effects) = welcomed(8);
    let everything = PhoneEffect::Send(PhoneMessage::Fetch(Fetch { dispatches: vec![] }));
    assert!(matches!(&effects[0], PhoneEffect::Send(PhoneMessage::Ack(ack)) if !ack.digest_matched));
    assert_eq!(effects[1], everything);
    let stored = BatchStored { cursor: Cursor(5), digest_matched: Some(false), ..BatchStored::default() };
    let again = session.handle(phone_at(60), PhoneInput::BatchStored(stored));
    assert!(!again.contains(&everything), "one healing a connection: {again:?}");
}

#[test]
fn a_batch_is_stored_then_acknowledged() {
    let (mut session, _) = welcomed(7);
    let (items, zstd) = encode_items(&[gone("DSP-1", None)]);
    let (from, to, digest) = (Cursor(5), Cursor(6), Some(Digest(9)));
    let batch = Batch { from, to, reset: false, more: false, digest, items, zstd };
    let effects = session.handle(phone_at(60), server_frame(ServerMessage::Batch(batch)));
    assert!(matches!(&effects[..], [PhoneEffect::StoreBatch { items, .. }] if items.len() == 1));
    let stored = BatchStored { cursor: Cursor(6), digest_matched: Some(true), ..BatchStored::default() };
    let effects = session.handle(phone_at(61), PhoneInput::BatchStored(stored));
    let ack = Ack { cursor: Cursor(6), digest_matched: true };
    assert_eq!(effects, [PhoneEffect::Send(PhoneMessage::Ack(ack)), PhoneEffect::Synced]);
}

#[test]
fn a_batch_beyond_the_cursor_is_asked_for_again_from_the_cursor() {
    let (mut session, _) = welcomed(7);
    let stored = BatchStored { cursor: Cursor(5), gap: true, ..BatchStored::default() };
    let effects = session.handle(phone_at(60), PhoneInput::BatchStored(stored));
    assert_eq!(effects, [PhoneEffect::Send(PhoneMessage::Pull(Pull { cursor: Cursor(5) }))]);
}

#[test]
fn a_damaged_visit_is_fetched_once_a_connection() {
    let (mut session, _) = welcomed(7);
    let stored = BatchStored { cursor: Cursor(5), needs_fetch: vec![id("DSP-1")], ..BatchStored::default() };
    let fetch = PhoneEffect::Send(PhoneMessage::Fetch(Fetch { dispatches: vec![id("DSP-1")] }));
    assert!(session.handle(phone_at(60), PhoneInput::BatchStored(stored.clone())).contains(&fetch));
    assert!(!session.handle(phone_at(61), PhoneInput::BatchStored(stored)).contains(&fetch));
}

/// A phone with one push in flight.
fn pushing() -> PhoneSession {
    let (mut session, _) = welcomed(7);
    assert_eq!(session.handle(phone_at(60), PhoneInput::OutboxGrew), [PhoneEffect::LoadOutbox]);
    let _ = session.handle(phone_at(60), PhoneInput::Outbox { lanes: lanes(), mark: OutboxMark::default() });
    session
}

fn push_ack(remedy: Option<Remedy>) -> PushAck {
    let refusal = remedy.map(|remedy| LaneRefusal { code: "X".into(), message: String::new(), remedy, ground: None });
    let lane = LaneAck { dispatch: id("DSP-1"), accepted: 1, refusal, verdicts: vec![], update: None };
    PushAck { id: 1, lanes: vec![lane], feed: None }
}

#[test]
fn one_push_is_in_flight_at_a_time_and_the_next_follows_its_acknowledgement() {
    let mut session = pushing();
    assert!(session.handle(phone_at(61), PhoneInput::OutboxGrew).is_empty());
    let effects = session.handle(phone_at(70), server_frame(ServerMessage::PushAck(push_ack(None))));
    assert!(matches!(&effects[..], [PhoneEffect::StorePushAck { .. }]));
    let stored = BatchStored { cursor: Cursor(6), ..BatchStored::default() };
    assert_eq!(session.handle(phone_at(71), PhoneInput::AckStored(stored)), [PhoneEffect::LoadOutbox]);
}

/// Liveness without a hot loop: a passing fault is retried, later.
#[test]
fn a_lane_to_be_retried_waits_and_is_then_sent_without_the_user() {
    let mut session = pushing();
    let _ = session.handle(phone_at(70), server_frame(ServerMessage::PushAck(push_ack(Some(Remedy::Retry)))));
    let stored = BatchStored { cursor: Cursor(5), ..BatchStored::default() };
    assert!(session.handle(phone_at(71), PhoneInput::AckStored(stored)).is_empty());
    let due = session.deadline_ms();
    assert!(due <= 1_000, "{due}");
    assert_eq!(session.handle(phone_at(due), PhoneInput::Tick), [PhoneEffect::LoadOutbox]);
}

#[test]
fn a_half_open_socket_is_noticed() {
    let (mut session, _) = welcomed(7);
    let ping_at = 50 + PING_AFTER_IDLE_MS.unsigned_abs();
    assert_eq!(session.deadline_ms(), ping_at);
    let effects = session.handle(phone_at(ping_at), PhoneInput::Tick);
    assert!(matches!(&effects[..], [PhoneEffect::Send(PhoneMessage::Ping(_))]));
    let dead_at = ping_at + PONG_TIMEOUT_MS.unsigned_abs();
    assert_eq!(session.deadline_ms(), dead_at);
    assert_eq!(session.handle(phone_at(dead_at), PhoneInput::Tick), [PhoneEffect::Disconnect(Disconnect::HalfOpen)]);
}

#[test]
fn a_push_that_is_never_acknowledged_and_a_hello_that_is_never_answered_end_the_connection() {
    let mut session = pushing();
    let effects = session.handle(phone_at(60 + PUSH_TIMEOUT_MS.unsigned_abs()), PhoneInput::Tick);
    assert_eq!(effects, [PhoneEffect::Disconnect(Disconnect::PushTimeout)]);
    let (mut session, _) = PhoneSession::open(phone_at(0), state(5, 0));
    let effects = session.handle(phone_at(PONG_TIMEOUT_MS.unsigned_abs()), PhoneInput::Tick);
    assert_eq!(effects, [PhoneEffect::Disconnect(Disconnect::NoWelcome)]);
}
