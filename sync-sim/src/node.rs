//! A server node: the shipped service, and a third adapter around [`ServerSession`] beside the WebSocket's.

use crate::chaos::{Chaos, Switch};
use crm_dispatch_server::service::push::FeedAnswer;
use crm_dispatch_server::service::{
    Clock, IdSource, PhoneSession, Service, ServiceConfig, ServiceError, Signal, Subscription,
};
use crm_dispatch_server::store::Store;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use sync_core::domain::{TechnicianId, TenantId, Timestamp, UserId};
use sync_core::protocol::limits::{BATCH_BYTES_TARGET, BATCH_ITEMS_MAX};
use sync_core::protocol::{
    ByeCode, Cursor, Digest, LaneAck, LaneRefusal, OutboxMark, Push, PushAck, Remedy, encode_server,
};
use sync_core::session::server::{AllPage, Greeting, Notice, Page, Pushed};
use sync_core::session::{ServerEffect, ServerInput, ServerNow, ServerSession};

const FAULT_RETRY_AFTER_MS: u32 = 2_000;
const HEARD_EVERY_MS: u64 = 60_000;

/// The servers' clock: the true time.
pub(crate) struct TrueClock(pub(crate) Arc<AtomicI64>);

impl Clock for TrueClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// One process.
pub(crate) struct Node {
    pub(crate) service: Option<Service>,
    pub(crate) switch: Arc<Switch>,
    /// Grows with every start.
    pub(crate) life: u32,
    now: Arc<AtomicI64>,
}

impl Node {
    pub(crate) fn start(store: Arc<dyn Store>, now: &Arc<AtomicI64>, seed: u64, life: u32) -> Self {
        let switch = Switch::new(Arc::clone(now), seed);
        let chaos: Arc<dyn Store> = Arc::new(Chaos::new(store, Arc::clone(&switch)));
        let config = ServiceConfig::default();
        let clock = Arc::new(TrueClock(Arc::clone(now)));
        let service = Service::new(chaos, clock, IdSource::seeded(seed), config);
        Self { service: Some(service), switch, life, now: Arc::clone(now) }
    }

    pub(crate) fn server_now(&self) -> ServerNow {
        server_now(&self.now)
    }
}

fn server_now(now: &AtomicI64) -> ServerNow {
    let now = now.load(Ordering::Relaxed);
    ServerNow { time: Timestamp::from_millis(now), monotonic_ms: now.unsigned_abs() }
}

/// What a connection wants to be done on the wire.
pub(crate) enum Out {
    Frame(Vec<u8>),
    Close,
}

/// The server's end of a connection.
pub(crate) struct ServerEnd {
    pub(crate) session: ServerSession,
    service: Service,
    now: Arc<AtomicI64>,
    tenant: TenantId,
    technician: TechnicianId,
    phone: Option<PhoneSession>,
    pub(crate) subscription: Option<Subscription>,
    heard: Option<(u64, OutboxMark)>,
    /// The token's end.
    pub(crate) expires_at: i64,
    pub(crate) frames: VecDeque<Vec<u8>>,
    pub(crate) out: VecDeque<Out>,
    /// Something is being done for it.
    pub(crate) busy: bool,
    pub(crate) gone: bool,
    /// The session was told to end; as in the WebSocket's adapter, what told it to is not heard again.
    ending: bool,
    /// Anything that a phone shall never see.
    pub(crate) bye: Option<ByeCode>,
}

pub(crate) type End = Rc<RefCell<ServerEnd>>;

enum Stop {
    Gone,
    Service(ServiceError),
}

impl From<ServiceError> for Stop {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

pub(crate) fn end(code: ByeCode, retry_after_ms: Option<u32>) -> ServerInput {
    ServerInput::End { code, retry_after_ms, message: String::new() }
}

impl ServerEnd {
    pub(crate) fn open(node: &Node, service: Service, tenant: TenantId, technician: TechnicianId, until: i64) -> End {
        Rc::new(RefCell::new(Self {
            session: ServerSession::new(node.server_now()),
            service,
            now: Arc::clone(&node.now),
            tenant,
            technician,
            phone: None,
            subscription: None,
            heard: None,
            expires_at: until,
            frames: VecDeque::new(),
            out: VecDeque::new(),
            busy: false,
            gone: false,
            ending: false,
            bye: None,
        }))
    }

    /// What the hub has for the phone.
    pub(crate) fn signal(&self) -> Option<ServerInput> {
        if self.ending {
            return None;
        }
        Some(match self.subscription.as_ref()?.try_next()? {
            Signal::Notice(notice) => ServerInput::Notice(Notice {
                from: Cursor(notice.from_seq),
                to: Cursor(notice.to_seq),
                digest: Digest(notice.digest),
                own: self.phone.as_ref().is_some_and(|phone| notice.origin_device.as_ref() == Some(&phone.device)),
                items: notice.items,
            }),
            Signal::Lagged => ServerInput::Lagged,
            Signal::Disconnect(code) => end(code, None),
        })
    }
}

/// One input, and everything that it leads to.
pub(crate) async fn serve(end: End, input: ServerInput) {
    let effects = {
        let mut state = end.borrow_mut();
        let now = server_now(&state.now);
        state.ending |= matches!(input, ServerInput::End { .. });
        state.session.handle(now, input)
    };
    let mut queue = VecDeque::from(effects);
    while let Some(effect) = queue.pop_front() {
        let answer = match carry_out(&end, effect).await {
            Ok(answer) => answer,
            Err(Stop::Gone) => {
                end.borrow_mut().gone = true;
                break;
            }
            Err(Stop::Service(error)) => {
                queue.clear();
                end.borrow_mut().ending = true;
                Some(farewell(&error))
            }
        };
        if let Some(answer) = answer {
            let mut state = end.borrow_mut();
            let now = server_now(&state.now);
            for next in state.session.handle(now, answer).into_iter().rev() {
                queue.push_front(next);
            }
        }
    }
    let mut state = end.borrow_mut();
    state.busy = false;
    if state.session.is_closed() {
        state.gone = true;
    }
}

fn farewell(error: &ServiceError) -> ServerInput {
    match error {
        ServiceError::DeviceRevoked(_) => end(ByeCode::DeviceRevoked, None),
        ServiceError::DeviceForeign(_) | ServiceError::Forbidden { .. } => end(ByeCode::OutOfTurn, None),
        _ => end(ByeCode::Internal, Some(FAULT_RETRY_AFTER_MS)),
    }
}

async fn carry_out(end_: &End, effect: ServerEffect) -> Result<Option<ServerInput>, Stop> {
    let (service, now) = {
        let state = end_.borrow();
        (state.service.clone(), Arc::clone(&state.now))
    };
    let phone = || end_.borrow().phone.clone().ok_or(Stop::Gone);
    let limit = u32::try_from(BATCH_ITEMS_MAX).unwrap_or(u32::MAX);
    Ok(match effect {
        ServerEffect::Send(message) => {
            let mut state = end_.borrow_mut();
            if let sync_core::protocol::ServerMessage::Bye(bye) = &message {
                state.bye = Some(bye.code);
            }
            state.out.push_back(Out::Frame(encode_server(&message)));
            None
        }
        ServerEffect::Greet(hello) => {
            let phone = {
                let mut state = end_.borrow_mut();
                let user = UserId::from(&state.technician);
                let (tenant, technician) = (state.tenant.clone(), state.technician.clone());
                let phone = PhoneSession { tenant, user, technician, device: hello.device.clone() };
                let subscription = service.hub().subscribe(&phone.tenant, &phone.technician, &phone.device);
                state.subscription = Some(subscription);
                state.phone = Some(phone.clone());
                phone
            };
            let welcome = service.hello(&phone, &hello).await?;
            Some(ServerInput::Greeted(Greeting {
                generation: welcome.generation,
                head: welcome.head,
                digest: welcome.digest,
            }))
        }
        ServerEffect::LoadSince(after) => Some(match service.feed_page(&phone()?, after, limit).await? {
            FeedAnswer::Items { items, to, head, digest } => ServerInput::Page(Page { to, head, digest, items }),
            FeedAnswer::TooOld => ServerInput::TooOld,
        }),
        ServerEffect::LoadAll(after) => {
            let page = service.held(&phone()?, after.as_ref(), limit, BATCH_BYTES_TARGET).await?;
            Some(ServerInput::All(AllPage { items: page.items, more: page.more, head: page.head, digest: page.digest }))
        }
        ServerEffect::LoadSome(dispatches) => Some(ServerInput::Some(service.fetch(&phone()?, &dispatches).await?)),
        ServerEffect::Commit(push) => Some(commit(&service, &phone()?, push).await?),
        ServerEffect::Acknowledge(ack) => {
            service.ack(&phone()?, &ack).await?;
            None
        }
        ServerEffect::Heard(ping) => {
            let now_ms = server_now(&now).monotonic_ms;
            let heard = end_.borrow().heard;
            let same =
                heard.is_some_and(|(at, mark)| mark == ping.outbox && now_ms.saturating_sub(at) < HEARD_EVERY_MS);
            if !same {
                end_.borrow_mut().heard = Some((now_ms, ping.outbox));
                service.heard(&phone()?, &ping.outbox).await?;
            }
            None
        }
        ServerEffect::Wiped(wiped) => {
            service.wiped(&phone()?, wiped.sealed).await?;
            None
        }
        ServerEffect::Close => {
            end_.borrow_mut().out.push_back(Out::Close);
            None
        }
    })
}

async fn commit(service: &Service, phone: &PhoneSession, push: Push) -> Result<ServerInput, Stop> {
    match service.push(phone, &push).await {
        Ok(outcome) => Ok(ServerInput::Pushed(Pushed {
            digest: Digest(outcome.feed.last().map_or(0, |entry| entry.digest)),
            made: outcome.told(),
            ack: outcome.ack,
        })),
        Err(error @ (ServiceError::Busy | ServiceError::Internal(_))) => {
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
