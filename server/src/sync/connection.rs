//! One phone's connection.

use super::{Drain, SyncGate};
use crate::auth::Principal;
use crate::service::push::FeedAnswer;
use crate::service::{Clock, PhoneSession, ServiceError, Signal, Subscription, SystemClock};
use crate::telemetry::metrics::{DELIVERY_SECONDS, DIGEST_MISMATCHES, PHONE_BYES, PUSHES, SYNC_BYTES, SYNC_FRAMES};
use axum::extract::ws::{Message, WebSocket};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_core::domain::TechnicianId;
use sync_core::protocol::limits::{BATCH_BYTES_TARGET, BATCH_ITEMS_MAX};
use sync_core::protocol::{
    ByeCode, Cursor, Digest, LaneAck, LaneRefusal, Push, PushAck, Remedy, ServerMessage, encode_server,
};
use sync_core::session::server::{AllPage, Greeting, Notice, Page, Pushed};
use sync_core::session::{ServerEffect, ServerInput, ServerNow, ServerSession};
use tokio::sync::watch;

/// A phone that does not take a frame for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// After the service's fault a phone comes back not earlier than this.
const FAULT_RETRY_AFTER_MS: u32 = 2_000;
/// What a phone says is unsent is stored at most this often, while it says the same.
const HEARD_EVERY_MS: u64 = 60_000;

/// The connection is over; nothing more can be done on it.
struct Gone;

struct Connection {
    gate: Arc<SyncGate>,
    socket: WebSocket,
    principal: Principal,
    technician: TechnicianId,
    /// Known once the phone has said hello.
    phone: Option<PhoneSession>,
    subscription: Option<Subscription>,
    heard: Option<(u64, sync_core::protocol::OutboxMark)>,
    /// The oldest news that the phone has not confirmed: where it ends, and since when there is such news.
    told: Option<(Cursor, Instant)>,
    /// The session was told to end. It may still wait for a revoked phone's proof, and what told it to end would tell it for ever.
    ending: bool,
}

/// Serves the phone until either side ends.
pub(super) async fn run(gate: Arc<SyncGate>, socket: WebSocket, principal: Principal, technician: TechnicianId) {
    let mut connection = Connection {
        gate,
        socket,
        principal,
        technician,
        phone: None,
        subscription: None,
        heard: None,
        told: None,
        ending: false,
    };
    let Err(Gone) = connection.serve().await else { return };
    tracing::debug!(technician = %connection.technician, "phone disconnected");
}

/// Resolves with the next signal; never, before there is a subscription.
async fn signal(subscription: Option<&Subscription>) -> Signal {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the server shuts down.
async fn draining(drain: &mut watch::Receiver<Option<Drain>>) -> Drain {
    loop {
        if let Some(drain) = *drain.borrow_and_update() {
            return drain;
        }
        if drain.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn end(code: ByeCode, retry_after_ms: Option<u32>, message: impl Into<String>) -> ServerInput {
    ServerInput::End { code, retry_after_ms, message: message.into() }
}

impl Connection {
    fn now(&self) -> ServerNow {
        ServerNow { time: self.gate.service.now(), monotonic_ms: self.gate.monotonic_ms() }
    }

    async fn serve(&mut self) -> Result<(), Gone> {
        let mut session = ServerSession::new(self.now());
        let mut drain = self.gate.drain.subscribe();
        let lifetime_ms = self.principal.expires_at.millis_since(SystemClock.now());
        let expired = tokio::time::sleep(Duration::from_millis(u64::try_from(lifetime_ms).unwrap_or(0)));
        tokio::pin!(expired);
        while !session.is_closed() {
            let wait_ms = session.deadline_ms().saturating_sub(self.gate.monotonic_ms());
            let input = tokio::select! {
                frame = self.socket.recv() => match frame {
                    Some(Ok(Message::Binary(frame))) => {
                        count_frame("in", frame.len());
                        ServerInput::Frame(frame.into())
                    }
                    Some(Ok(Message::Text(_))) => end(ByeCode::Malformed, None, "frames are binary"),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => return Err(Gone),
                    Some(Err(error)) => {
                        tracing::debug!(%error, technician = %self.technician, "unreadable frame");
                        end(ByeCode::TooLarge, None, "the frame could not be read")
                    }
                },
                signal = signal(self.subscription.as_ref()), if !self.ending => self.input(signal),
                () = &mut expired, if !self.ending => end(ByeCode::TokenExpired, None, "come back with a fresh token"),
                drain = draining(&mut drain), if !self.ending => {
                    end(ByeCode::GoingAway, Some(drain.retry_after_ms()), "the server is restarting")
                }
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => ServerInput::Tick,
            };
            self.ending |= matches!(input, ServerInput::End { .. });
            let effects = session.handle(self.now(), input);
            self.carry_out(&mut session, effects).await?;
        }
        Ok(())
    }

    fn input(&mut self, signal: Signal) -> ServerInput {
        match signal {
            Signal::Notice(notice) => {
                let own = self.phone.as_ref().is_some_and(|phone| notice.origin_device.as_ref() == Some(&phone.device));
                if !own {
                    self.told.get_or_insert((Cursor(notice.to_seq), notice.since));
                }
                ServerInput::Notice(Notice {
                    from: Cursor(notice.from_seq),
                    to: Cursor(notice.to_seq),
                    digest: Digest(notice.digest),
                    own,
                    items: notice.items,
                })
            }
            Signal::Lagged => ServerInput::Lagged,
            Signal::Disconnect(code) => end(code, None, ""),
        }
    }

    /// Carries out effects in order; what an answer leads to comes before what was waiting.
    async fn carry_out(&mut self, session: &mut ServerSession, effects: Vec<ServerEffect>) -> Result<(), Gone> {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            // Boxed, so that the state of a call into the service is no part of an idle phone's.
            let answer = match Box::pin(self.effect(effect)).await {
                Ok(answer) => answer,
                Err(Stop::Gone) => return Err(Gone),
                Err(Stop::Service(error)) => {
                    queue.clear();
                    self.ending = true;
                    Some(self.farewell(&error))
                }
            };
            if let Some(answer) = answer {
                for next in session.handle(self.now(), answer).into_iter().rev() {
                    queue.push_front(next);
                }
            }
        }
        Ok(())
    }

    /// The service would not: what the phone is told.
    fn farewell(&self, error: &ServiceError) -> ServerInput {
        match error {
            ServiceError::DeviceRevoked(_) => end(ByeCode::DeviceRevoked, None, ""),
            ServiceError::DeviceForeign(_) | ServiceError::Forbidden { .. } => {
                end(ByeCode::OutOfTurn, None, error.to_string())
            }
            other => {
                tracing::error!(error = ?other, technician = %self.technician, "sync failed");
                end(ByeCode::Internal, Some(FAULT_RETRY_AFTER_MS), "something went wrong on the server")
            }
        }
    }

    /// The phone, which the session guarantees to be known after its hello.
    fn phone(&self) -> Result<&PhoneSession, Stop> {
        self.phone.as_ref().ok_or(Stop::Gone)
    }

    async fn effect(&mut self, effect: ServerEffect) -> Result<Option<ServerInput>, Stop> {
        let service = self.gate.service.clone();
        Ok(match effect {
            ServerEffect::Send(message) => {
                if let ServerMessage::Bye(bye) = &message {
                    metrics::counter!(PHONE_BYES, "code" => format!("{:?}", bye.code)).increment(1);
                }
                let frame = encode_server(&message);
                count_frame("out", frame.len());
                let frame = Message::Binary(frame.into());
                match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(frame)).await {
                    Ok(Ok(())) => None,
                    Ok(Err(_)) | Err(_) => return Err(Stop::Gone),
                }
            }
            ServerEffect::Greet(hello) => {
                let named = self.principal.device.as_ref();
                if named.is_some_and(|device| *device != hello.device) {
                    return Ok(Some(end(ByeCode::OutOfTurn, None, "the token is for another device")));
                }
                let phone = PhoneSession {
                    tenant: self.principal.caller.tenant.clone(),
                    user: self.principal.caller.user.clone(),
                    technician: self.technician.clone(),
                    device: hello.device.clone(),
                };
                // Subscribed before the feed's end is read: what is committed in between comes as a notice.
                self.subscription = Some(service.hub().subscribe(&phone.tenant, &phone.technician, &phone.device));
                let phone = self.phone.insert(phone);
                let welcome = service.hello(phone, &hello).await?;
                service.announce_connected(phone);
                Some(ServerInput::Greeted(Greeting {
                    generation: welcome.generation,
                    head: welcome.head,
                    digest: welcome.digest,
                }))
            }
            ServerEffect::LoadSince(after) => {
                let limit = u32::try_from(BATCH_ITEMS_MAX).unwrap_or(u32::MAX);
                Some(match service.feed_page(self.phone()?, after, limit).await? {
                    FeedAnswer::Items { items, to, head, digest } => {
                        ServerInput::Page(Page { to, head, digest, items })
                    }
                    FeedAnswer::TooOld => ServerInput::TooOld,
                })
            }
            ServerEffect::LoadAll(after) => {
                let limit = u32::try_from(BATCH_ITEMS_MAX).unwrap_or(u32::MAX);
                let page = service.held(self.phone()?, after.as_ref(), limit, BATCH_BYTES_TARGET).await?;
                Some(ServerInput::All(AllPage {
                    items: page.items,
                    more: page.more,
                    head: page.head,
                    digest: page.digest,
                }))
            }
            ServerEffect::LoadSome(dispatches) => {
                Some(ServerInput::Some(service.fetch(self.phone()?, &dispatches).await?))
            }
            ServerEffect::Commit(push) => Some(self.push(push).await?),
            ServerEffect::Acknowledge(ack) => {
                if let Some((_, since)) = self.told.take_if(|(told, _)| *told <= ack.cursor) {
                    metrics::histogram!(DELIVERY_SECONDS).record(since.elapsed());
                }
                service.ack(self.phone()?, &ack).await?;
                if !ack.digest_matched {
                    metrics::counter!(DIGEST_MISMATCHES).increment(1);
                    let phone = self.phone()?;
                    tracing::warn!(device = %phone.device, technician = %phone.technician, "a phone holds something else than it should, and fetches everything anew");
                }
                None
            }
            ServerEffect::Heard(ping) => {
                let now_ms = self.gate.monotonic_ms();
                let same = self
                    .heard
                    .is_some_and(|(at_ms, mark)| mark == ping.outbox && now_ms.saturating_sub(at_ms) < HEARD_EVERY_MS);
                if !same {
                    self.heard = Some((now_ms, ping.outbox));
                    service.heard(self.phone()?, &ping.outbox).await?;
                }
                None
            }
            ServerEffect::Wiped(wiped) => {
                service.wiped(self.phone()?, wiped.sealed).await?;
                None
            }
            ServerEffect::Close => {
                let _ = tokio::time::timeout(SEND_TIMEOUT, self.socket.send(Message::Close(None))).await;
                None
            }
        })
    }

    /// A fault of ours costs the phone a resend, never its connection: every lane is answered with *retry*.
    async fn push(&mut self, push: Push) -> Result<ServerInput, Stop> {
        let result = self.gate.service.push(self.phone()?, &push).await;
        metrics::counter!(PUSHES, "result" => if result.is_ok() { "stored" } else { "failed" }).increment(1);
        match result {
            Ok(outcome) => Ok(ServerInput::Pushed(Pushed {
                digest: Digest(outcome.feed.last().map_or(0, |entry| entry.digest)),
                made: outcome.told(),
                ack: outcome.ack,
            })),
            Err(error @ (ServiceError::Busy | ServiceError::Unavailable(_) | ServiceError::Internal(_))) => {
                tracing::error!(?error, technician = %self.technician, "a push failed");
                let refusal = LaneRefusal {
                    code: error.code().to_owned(),
                    message: "the server could not store this now".to_owned(),
                    remedy: Remedy::Retry,
                    ground: None,
                };
                let lanes = push.lanes.into_iter().map(|lane| LaneAck {
                    dispatch: lane.dispatch,
                    accepted: 0,
                    refusal: Some(refusal.clone()),
                    verdicts: Vec::new(),
                    update: None,
                });
                let ack = PushAck { id: push.id, lanes: lanes.collect(), feed: None };
                Ok(ServerInput::Pushed(Pushed { ack, made: Vec::new(), digest: Digest(0) }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Counts a frame from (`in`) or to (`out`) a phone.
fn count_frame(direction: &'static str, bytes: usize) {
    metrics::counter!(SYNC_FRAMES, "direction" => direction).increment(1);
    metrics::counter!(SYNC_BYTES, "direction" => direction).increment(bytes as u64);
}

/// Why an effect could not be carried out.
enum Stop {
    Gone,
    Service(ServiceError),
}

impl From<ServiceError> for Stop {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}
