//! The life of the connection, and one connection's effects.

use super::connect::{Failed, Socket, connect};
use super::status::{ConnectionError, Event, Phase, Revoked};
use super::{Shared, TokenError, TokenNeed};
use crate::domain::{TechnicianId, TenantId};
use crate::protocol::limits::{LATE_PUSHES_MAX, PUSH_BYTES_MAX, PUSH_CHANGES_MAX, PUSH_LANES_MAX};
use crate::protocol::{Bye, ByeCode, PhoneMessage, Push, PushLane, ServerMessage, Wiped, decode_server, encode_phone};
use crate::session::phone::{BatchStored, Disconnect, PhoneState};
use crate::session::{Backoff, PhoneEffect, PhoneInput, PhoneNow, PhoneSession};
use crate::store::{FeedBatch, PageLimits, SentLane, StoreError, SyncState};
use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// How a connection ended.
struct Ended {
    error: ConnectionError,
    retry_after_ms: Option<i64>,
    /// It was greeted: the next failure starts the backoff over.
    was_good: bool,
    next: Next,
}

enum Next {
    Retry,
    /// With a token that is not the last one.
    FreshToken,
    /// Not before the user has signed in again.
    SignIn,
    /// Not at all; or only to give the server what is unsent, and the proof, where it has not heard of that.
    Revoked {
        /// It has.
        proven: bool,
    },
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self {
            error: ConnectionError::Store(error.to_string()),
            retry_after_ms: None,
            was_good: false,
            next: Next::Retry,
        }
    }
}

/// Runs until revoked or dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut need = TokenNeed::Connect;
    let mut network = shared.network.subscribe();
    loop {
        // Also a wipe that the end of the app cut off goes on.
        let mut revoked = refresh_counts(&shared).await.is_some_and(|state| state.farewell.is_some());
        let show = |phase| shared.set(|status| status.phase = if revoked { Phase::Revoked } else { phase });
        if !*network.borrow_and_update() {
            show(Phase::NoNetwork);
            // The sender lives in `shared`, so waiting cannot fail.
            let _ = network.wait_for(|available| *available).await;
            backoff.succeeded();
        }
        show(Phase::Connecting);
        let ended = tokio::select! {
            ended = attempt(&shared, need) => ended,
            _ = network.wait_for(|available| !*available) => Ended {
                error: ConnectionError::Lost("no network".into()),
                retry_after_ms: None,
                was_good: true,
                next: Next::Retry,
            },
        };
        tracing::debug!(error = %ended.error, "sync connection ended");
        shared.remember(&ended.error);
        if ended.was_good {
            backoff.succeeded();
        }
        let rejected_again = need == TokenNeed::Rejected && !ended.was_good;
        let fresh = matches!(ended.next, Next::FreshToken);
        need = if fresh { TokenNeed::Rejected } else { TokenNeed::Connect };
        shared.set(|status| {
            status.caught_up = false;
            status.error = Some(ended.error);
        });
        match ended.next {
            Next::Revoked { proven } => {
                shared.set(|status| status.phase = Phase::Revoked);
                if proven {
                    return;
                }
                revoked = true;
            }
            Next::SignIn => {
                show(Phase::SignInNeeded);
                shared.nudge.notified().await;
                continue;
            }
            // A refused token is replaced at once, but only once: an identity provider that hands out tokens that the
            // server does not take must not become a loop (token expired while asleep).
            Next::FreshToken if !rejected_again => continue,
            Next::FreshToken | Next::Retry => {}
        }
        let delay_ms = {
            let mut rng = shared.rng.lock().unwrap_or_else(PoisonError::into_inner);
            backoff.next_delay_ms(ended.retry_after_ms, &mut *rng)
        };
        let asked_to_wait = ended.retry_after_ms.is_some();
        shared.set(|status| status.phase = if revoked { Phase::Revoked } else { Phase::Waiting });
        let wait = tokio::time::sleep(Duration::from_millis(delay_ms.unsigned_abs()));
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                // The network came back, or went: either way there is something to decide.
                _ = network.changed() => break,
                // The user did something or asks for a sync: try now, unless the server asked for time.
                () = shared.nudge.notified() => if !asked_to_wait { break },
            }
        }
    }
}

async fn attempt(shared: &Arc<Shared>, need: TokenNeed) -> Ended {
    let failed = |error, next| Ended { error, retry_after_ms: None, was_good: false, next };
    let token = match shared.config.tokens.token(need).await {
        Ok(token) => token,
        Err(error @ TokenError::Unavailable(_)) => return failed(ConnectionError::Token(error), Next::Retry),
        Err(error @ TokenError::SignInNeeded(_)) => return failed(ConnectionError::Token(error), Next::SignIn),
    };
    let socket = match connect(&shared.config, &token).await {
        Ok(socket) => socket,
        Err(Failed { error, retry_after_ms }) => {
            let next = if error == ConnectionError::Unauthorized { Next::FreshToken } else { Next::Retry };
            return Ended { retry_after_ms, ..failed(error, next) };
        }
    };
    let mut connection = Connection {
        shared: Arc::clone(shared),
        socket,
        in_flight: Vec::new(),
        greeted: false,
        farewell: false,
        clock: None,
        noted_ms: None,
    };
    match connection.drive().await {
        Ok(never) => match never {},
        Err(ended) => Ended { was_good: ended.was_good || connection.greeted, ..ended },
    }
}

async fn refresh_counts(shared: &Arc<Shared>) -> Option<SyncState> {
    let state = shared.with_store(|store, _| store.sync_state()).await.ok()?;
    show_counts(shared, &state);
    Some(state)
}

fn show_counts(shared: &Shared, state: &SyncState) {
    shared.set(|status| {
        status.pending = state.outbox.pending;
        status.oldest_pending = state.outbox.oldest;
        status.parked = state.parked;
        status.last_sync = state.last_sync;
    });
}

struct Connection {
    shared: Arc<Shared>,
    socket: Socket,
    /// The rows behind the push in flight.
    in_flight: Vec<SentLane>,
    greeted: bool,
    /// It is made in the name of a revoked device, to finish its wipe.
    farewell: bool,
    /// When the clock's offset was last stored, and which.
    clock: Option<(u64, i64)>,
    /// When the last sync was last stored.
    noted_ms: Option<u64>,
}

/// How long a revoked phone waits for each answer of the server's.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a fact about the connection that changes all the time is written to the disk.
const PERSIST_EVERY_MS: u64 = 60_000;
/// A clock that moved by more than this is stored at once.
const DRIFT_MS: u64 = 100;

fn phone_state(state: SyncState) -> PhoneState {
    PhoneState {
        device: state.farewell.map_or(state.device, |owed| owed.device),
        app: state.app,
        generation: state.generation,
        cursor: state.cursor,
        digest: state.digest,
        outbox: state.outbox,
        needs_fetch: state.needs_fetch,
    }
}

impl Connection {
    fn now(&self) -> PhoneNow {
        let clock = &self.shared.config.clock;
        PhoneNow { wall: clock.now().wall, monotonic_ms: clock.timer_ms() }
    }

    fn lost(error: impl std::fmt::Display) -> Ended {
        Ended {
            error: ConnectionError::Lost(error.to_string()),
            retry_after_ms: None,
            was_good: false,
            next: Next::Retry,
        }
    }

    async fn drive(&mut self) -> Result<std::convert::Infallible, Ended> {
        let state = self.shared.with_store(|store, _| store.sync_state()).await?;
        show_counts(&self.shared, &state);
        self.farewell = state.farewell.is_some();
        let (mut session, effects) = PhoneSession::open(self.now(), phone_state(state));
        self.carry_out(&mut session, effects).await?;
        loop {
            let wait_ms = session.deadline_ms().saturating_sub(self.now().monotonic_ms);
            let input = tokio::select! {
                frame = self.socket.next() => match frame {
                    Some(Ok(Message::Binary(frame))) => PhoneInput::Frame(frame.into()),
                    // Text is not of this protocol; pings are answered by the library.
                    Some(Ok(Message::Close(_))) | None => return Err(Self::lost("closed")),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Err(Self::lost(error)),
                },
                () = self.shared.nudge.notified() => PhoneInput::OutboxGrew,
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => PhoneInput::Tick,
            };
            let effects = session.handle(self.now(), input);
            self.carry_out(&mut session, effects).await?;
        }
    }

    /// Carries out effects in order; what an answer leads to comes before what was waiting.
    async fn carry_out(&mut self, session: &mut PhoneSession, effects: Vec<PhoneEffect>) -> Result<(), Ended> {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            if let Some(answer) = self.effect(effect).await? {
                for next in session.handle(self.now(), answer).into_iter().rev() {
                    queue.push_front(next);
                }
            }
        }
        self.socket.flush().await.map_err(Self::lost)
    }

    async fn effect(&mut self, effect: PhoneEffect) -> Result<Option<PhoneInput>, Ended> {
        let shared = Arc::clone(&self.shared);
        let now = shared.config.clock.now();
        Ok(match effect {
            PhoneEffect::Send(message) => {
                let frame = Message::Binary(encode_phone(&message).into());
                self.socket.feed(frame).await.map_err(Self::lost)?;
                None
            }
            // Nobody waits for a proof: the server's database is from before the revocation, say. Where a technician has signed in
            // again, the next connection is theirs.
            PhoneEffect::Introduce(_) if self.farewell => {
                let in_use = shared.with_store(|store, _| Ok(store.sync_state()?.user.is_some())).await?;
                let erased = self.leave().await?;
                let ended = Self::lost("the server knows of no revocation");
                if in_use {
                    return Err(ended);
                }
                shared.set(|status| status.phase = Phase::Revoked);
                shared.tell(Event::Revoked(Revoked { erased, ..Revoked::default() }));
                return Err(Ended { next: Next::Revoked { proven: true }, ..ended });
            }
            PhoneEffect::Introduce(welcome) => {
                let (check, state) = shared
                    .with_store(move |store, _| {
                        let check = store.server_identity(welcome.generation, welcome.head, now.wall)?;
                        Ok((check, store.sync_state()?))
                    })
                    .await?;
                self.greeted = true;
                shared.set(|status| {
                    status.phase = Phase::Connected;
                    status.error = None;
                });
                if check.changed && check.requeued > 0 {
                    shared.tell(Event::ServerReplaced { requeued: check.requeued });
                }
                if !check.gone.is_empty() {
                    shared.tell(Event::VisitsChanged(check.gone));
                }
                show_counts(&shared, &state);
                Some(PhoneInput::Introduced(phone_state(state)))
            }
            PhoneEffect::LoadOutbox => {
                let limits = PageLimits { changes: PUSH_CHANGES_MAX, bytes: PUSH_BYTES_MAX, lanes: PUSH_LANES_MAX };
                let page = shared.with_store(move |store, _| store.outbox_page(&limits)).await?;
                let lanes: Vec<PushLane> = page.lanes.iter().map(|sent| sent.lane.clone()).collect();
                self.in_flight = page.lanes;
                Some(PhoneInput::Outbox { lanes, mark: page.mark })
            }
            PhoneEffect::StoreBatch { batch, items } => {
                let batch = FeedBatch {
                    from: batch.from,
                    to: batch.to,
                    reset: batch.reset,
                    more: batch.more,
                    digest: batch.digest,
                    items,
                };
                let applied = shared.with_store(move |store, rng| store.apply_batch(batch, now.wall, rng)).await?;
                if applied.over_limit > 0 {
                    tracing::warn!(visits = applied.over_limit, "the phone holds as many visits as it may");
                }
                if applied.outbox_changed {
                    shared.nudge.notify_one();
                }
                if !applied.changed.is_empty() {
                    shared.tell(Event::VisitsChanged(applied.changed));
                }
                Some(PhoneInput::BatchStored(BatchStored {
                    cursor: applied.cursor,
                    digest_matched: applied.digest_matches,
                    gap: applied.cursor_gap,
                    needs_fetch: applied.needs_fetch,
                }))
            }
            PhoneEffect::StorePushAck { lanes: _, ack } => {
                let sent = std::mem::take(&mut self.in_flight);
                let (applied, state) = shared
                    .with_store(move |store, rng| {
                        let applied = store.push_acknowledged(&sent, &ack.lanes, ack.feed.as_ref(), now.wall, rng)?;
                        Ok((applied, store.sync_state()?))
                    })
                    .await?;
                show_counts(&shared, &state);
                if !applied.changed.is_empty() {
                    shared.tell(Event::VisitsChanged(applied.changed));
                }
                for (dispatch, verdict) in applied.verdicts {
                    shared.tell(Event::Ruled { dispatch, verdict });
                }
                Some(PhoneInput::AckStored(BatchStored {
                    cursor: applied.cursor,
                    digest_matched: applied.digest_matches,
                    gap: false,
                    needs_fetch: applied.needs_fetch,
                }))
            }
            PhoneEffect::SetClock { offset_ms, uncertainty_ms } => {
                let drifted = self.clock.is_none_or(|(at_ms, offset)| {
                    now.monotonic_ms.saturating_sub(at_ms) > PERSIST_EVERY_MS || offset.abs_diff(offset_ms) > DRIFT_MS
                });
                if drifted {
                    self.clock = Some((now.monotonic_ms, offset_ms));
                    shared.with_store(move |store, _| store.set_clock_offset(offset_ms, uncertainty_ms, &now)).await?;
                }
                None
            }
            PhoneEffect::Synced => {
                // The receipt goes out before anybody is told: a job in the background hangs up then.
                self.socket.flush().await.map_err(Self::lost)?;
                let due = self.noted_ms.is_none_or(|at| now.monotonic_ms.saturating_sub(at) > PERSIST_EVERY_MS);
                if due {
                    self.noted_ms = Some(now.monotonic_ms);
                    shared.with_store(move |store, _| store.note_synced(now.wall)).await?;
                }
                // What was done since the last read is not exchanged: it has nudged, and the next round says so.
                let state = shared.with_store(|store, _| store.sync_state()).await?;
                show_counts(&shared, &state);
                shared.set(|status| {
                    status.caught_up = status.pending <= status.parked;
                    status.last_sync = Some(now.wall);
                });
                shared.tell(Event::CaughtUp);
                None
            }
            PhoneEffect::Disconnect(why) => return Err(self.ended(why).await),
        })
    }

    async fn ended(&mut self, why: Disconnect) -> Ended {
        let ended = |error, next, retry_after_ms| Ended { error, retry_after_ms, was_good: false, next };
        match why {
            Disconnect::HalfOpen => Self::lost("no answer to a ping"),
            Disconnect::PushTimeout => Self::lost("no acknowledgement"),
            Disconnect::NoWelcome => Self::lost("no answer to the greeting"),
            Disconnect::ServerReplaced => Self::lost("the server's database is another one; starting over"),
            Disconnect::Malformed(detail) => ended(ConnectionError::Closed(detail), Next::Retry, None),
            Disconnect::Bye(bye) => {
                let Bye { code, retry_after_ms, message } = bye;
                let after = retry_after_ms.map(i64::from);
                let text = if message.is_empty() { format!("{code:?}") } else { message };
                match code {
                    ByeCode::TokenExpired => ended(ConnectionError::Unauthorized, Next::FreshToken, after),
                    ByeCode::Version => ended(ConnectionError::Version(text), Next::Retry, after),
                    ByeCode::DeviceRevoked => match self.wipe().await {
                        Ok(proven) => {
                            let error = ConnectionError::Closed("this device was revoked".into());
                            ended(error, Next::Revoked { proven }, None)
                        }
                        Err(error) => error.into(),
                    },
                    ByeCode::GoingAway
                    | ByeCode::Malformed
                    | ByeCode::TooLarge
                    | ByeCode::TooFast
                    | ByeCode::OutOfTurn
                    | ByeCode::Silent
                    | ByeCode::Replaced
                    | ByeCode::Internal
                    | ByeCode::Unknown => ended(ConnectionError::Closed(text), Next::Retry, after),
                }
            }
        }
    }

    /// Removes what the phone holds, seals what is unsent, hands that over, tells the server, and then destroys the file and its
    /// key. The wipe comes first and needs no network. Cut off anywhere later, by the network or by the end of the app, the next
    /// connection goes on: see [`SyncState::farewell`]. True once the server has heard of it.
    async fn wipe(&mut self) -> Result<bool, StoreError> {
        let owed = self
            .shared
            .with_store(|store, rng| {
                store.wipe_after_revocation(rng)?;
                Ok(store.sync_state()?.farewell)
            })
            .await?;
        let mut outcome = Revoked::default();
        if let Some(owed) = owed {
            outcome.handed_over = self.hand_over(&owed.user).await?;
            let sealed = self.shared.with_store(|store, _| store.sealed()).await?;
            let of_theirs =
                sealed.into_iter().find(|(tenant, technician, _)| (tenant, technician) == (&owed.user.0, &owed.user.1));
            outcome.sealed = of_theirs.map_or(0, |(.., sealed)| sealed);
        }
        let proven = self.prove(outcome.sealed).await;
        if proven {
            outcome.erased = self.leave().await?;
        }
        tracing::info!(?outcome, proven, "this device was revoked");
        self.shared.set(|status| status.phase = Phase::Revoked);
        self.shared.tell(Event::Revoked(outcome));
        Ok(proven)
    }

    /// Tells the server that the visits are gone. True once it has heard: it closes when that is stored.
    async fn prove(&mut self, sealed: u32) -> bool {
        let report = encode_phone(&PhoneMessage::Wiped(Wiped { sealed }));
        let heard = async {
            self.socket.send(Message::Binary(report.into())).await.ok()?;
            loop {
                match self.socket.next().await?.ok()? {
                    Message::Close(_) => return Some(()),
                    Message::Binary(frame) if matches!(decode_server(&frame), Ok(ServerMessage::Bye(_))) => {
                        return None;
                    }
                    _ => {}
                }
            }
        };
        let proven = matches!(tokio::time::timeout(PATIENCE, heard).await, Ok(Some(())));
        let _ = self.socket.close(None).await;
        proven
    }

    /// The server is owed nothing more: destroys the file and its key, unless somebody's unsent work is in it. True when they
    /// are gone.
    async fn leave(&self) -> Result<bool, StoreError> {
        let erase = self.shared.config.erase.clone();
        self.shared
            .with_store(move |store, _| {
                // Other technicians' work may be in here too, or what was found damaged. Or somebody has the phone already.
                let in_use = store.sync_state()?.user.is_some();
                match erase {
                    Some(erase) if !in_use && store.holds_nothing_unsent()? => erase(store).map(|()| true),
                    _ => store.wipe_proven().map(|()| false),
                }
            })
            .await
    }

    /// Gives sealed changes to the server, which quarantines them for the office. Answers how many it has.
    async fn hand_over(&mut self, user: &(TenantId, TechnicianId)) -> Result<u32, StoreError> {
        let mut handed_over: u32 = 0;
        for turn in 0..LATE_PUSHES_MAX {
            let (whose, limits) = (user.clone(), PageLimits::default());
            let page = self.shared.with_store(move |store, _| store.sealed_page(&whose, &limits)).await?;
            if page.lanes.is_empty() {
                break;
            }
            // No number that an ordinary push of this connection has had.
            let id = u32::MAX - turn;
            let lanes = page.lanes.iter().map(|sent| sent.lane.clone()).collect();
            let push = encode_phone(&PhoneMessage::Push(Push { id, lanes, outbox: page.mark }));
            let answer = async {
                self.socket.send(Message::Binary(push.into())).await.ok()?;
                loop {
                    if let Message::Binary(frame) = self.socket.next().await?.ok()?
                        && let Ok(ServerMessage::PushAck(ack)) = decode_server(&frame)
                        && ack.id == id
                    {
                        return Some(ack);
                    }
                }
            };
            let Ok(Some(ack)) = tokio::time::timeout(PATIENCE, answer).await else { break };
            let taken = self.shared.with_store(move |store, _| store.sealed_taken(&page.lanes, &ack.lanes)).await?;
            if taken == 0 {
                break;
            }
            handed_over = handed_over.saturating_add(taken);
        }
        Ok(handed_over)
    }
}
