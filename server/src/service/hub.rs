//! Tells connected phones that there is news, and never waits for one.
//!
//! A subscriber has a short queue. When it is full, what was in it is dropped and the subscriber learns that it lags: it
//! then pulls from its cursor. So a slow phone costs its queue and nothing else; an idle one costs a few pointers, since
//! the queue is allocated with its first notice.

use crate::telemetry::metrics::NEWS_LAGGED;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use sync_core::domain::{DeviceId, TechnicianId, TenantId};
use sync_core::protocol::{ByeCode, FeedItem};
use tokio::sync::Notify;

/// Most notices that wait for one subscriber.
pub const NOTICES_MAX: usize = 64;

/// News of one technician's feed: the items from `from_seq` (exclusive) to `to_seq` (inclusive).
#[derive(Debug, Clone, PartialEq)]
pub struct FeedNotice {
    /// Position before the items. A subscriber at another position pulls instead.
    pub from_seq: u64,
    /// Position after the items.
    pub to_seq: u64,
    /// Of everything that the technician holds at `to_seq`.
    pub digest: u64,
    /// The items, shared by all of the technician's phones.
    pub items: Arc<[FeedItem]>,
    /// The device whose push made them: it gets them with its acknowledgement, not by this notice.
    pub origin_device: Option<DeviceId>,
    /// Before the commit that made it, on this node: for the figures.
    pub since: Instant,
}

/// What a subscriber learns.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// News.
    Notice(FeedNotice),
    /// There was more than the queue holds: pull.
    Lagged,
    /// Close the connection with this code. The last signal.
    Disconnect(ByeCode),
}

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<FeedNotice>,
    lagged: bool,
    disconnect: Option<ByeCode>,
}

#[derive(Debug)]
struct Slot {
    device: DeviceId,
    opened: Instant,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, notice: &FeedNotice) {
        let mut waiting = self.lock();
        if waiting.lagged {
            return;
        }
        // What only says *look* is said once.
        if notice.items.is_empty()
            && let Some(last) = waiting.notices.back_mut().filter(|last| last.items.is_empty())
        {
            (last.from_seq, last.to_seq) = (last.from_seq.max(notice.from_seq), last.to_seq.max(notice.to_seq));
            return;
        }
        if waiting.notices.len() >= NOTICES_MAX {
            waiting.notices = VecDeque::new();
            waiting.lagged = true;
            metrics::counter!(NEWS_LAGGED).increment(1);
        } else {
            waiting.notices.push_back(notice.clone());
        }
        drop(waiting);
        self.wake.notify_one();
    }

    fn disconnect(&self, code: ByeCode) {
        self.lock().disconnect.get_or_insert(code);
        self.wake.notify_one();
    }
}

type Key = (TenantId, TechnicianId);

/// A technician's connections to this node.
#[derive(Debug, Default)]
struct Listening {
    slots: Vec<Weak<Slot>>,
    /// How far those who are subscribed have been told of the feed.
    told: u64,
}

impl Listening {
    fn slots(&self) -> impl Iterator<Item = Arc<Slot>> {
        self.slots.iter().filter_map(Weak::upgrade)
    }
}

/// All subscribers of this node.
#[derive(Debug, Default)]
pub struct Hub {
    subscribers: Mutex<HashMap<Key, Listening>>,
}

/// Who is connected to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Whose data.
    pub tenant: TenantId,
    /// Who.
    pub technician: TechnicianId,
    /// By which phones.
    pub devices: Vec<DeviceId>,
}

/// One connection's end; unsubscribes when dropped.
#[derive(Debug)]
pub struct Subscription {
    slot: Arc<Slot>,
    key: Key,
    hub: Weak<Hub>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Listening>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes a connection. An older one of the same device is told that it was replaced.
    #[must_use]
    pub fn subscribe(
        self: &Arc<Self>,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
    ) -> Subscription {
        let slot = Arc::new(Slot {
            device: device.clone(),
            opened: Instant::now(),
            waiting: Mutex::default(),
            wake: Notify::new(),
        });
        let key = (tenant.clone(), technician.clone());
        let mut subscribers = self.lock();
        let listening = subscribers.entry(key.clone()).or_default();
        for older in listening.slots().filter(|older| older.device == *device) {
            older.disconnect(ByeCode::Replaced);
        }
        listening.slots.push(Arc::downgrade(&slot));
        Subscription { slot, key, hub: Arc::downgrade(self) }
    }

    /// Tells a technician's phones. Never waits.
    pub fn publish(&self, tenant: &TenantId, technician: &TechnicianId, notice: &FeedNotice) {
        for slot in self.told(tenant, technician, notice.to_seq, false) {
            slot.offer(notice);
        }
    }

    /// Tells a technician's phones that the feed reaches at least `seq`, without saying what is new: they pull. Never waits.
    /// False when nobody had to be told.
    pub fn grew(&self, tenant: &TenantId, technician: &TechnicianId, seq: u64) -> bool {
        let since = Instant::now();
        let items = Arc::default();
        // From its own end: to a subscriber before it this is no delta, and to one that is there it is nothing.
        let hint = FeedNotice { from_seq: seq, to_seq: seq, digest: 0, items, origin_device: None, since };
        let slots = self.told(tenant, technician, seq, true);
        for slot in &slots {
            slot.offer(&hint);
        }
        !slots.is_empty()
    }

    /// The technician's connections, which are told of the feed up to `seq` now; none of them, if that is asked for, when they
    /// have been told that much before.
    fn told(&self, tenant: &TenantId, technician: &TechnicianId, seq: u64, only_news: bool) -> Vec<Arc<Slot>> {
        let mut subscribers = self.lock();
        let Some(listening) = subscribers.get_mut(&(tenant.clone(), technician.clone())) else { return Vec::new() };
        if only_news && seq <= listening.told {
            return Vec::new();
        }
        listening.told = listening.told.max(seq);
        listening.slots().collect()
    }

    /// Closes a device's connections; false when there is none.
    pub fn disconnect(&self, tenant: &TenantId, technician: &TechnicianId, device: &DeviceId, code: ByeCode) -> bool {
        self.end(tenant, technician, device, Duration::ZERO, code)
    }

    /// Closes a device's connections that are at least so old, because it has connected elsewhere; false when there is none.
    pub fn replace(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        older_than: Duration,
    ) -> bool {
        self.end(tenant, technician, device, older_than, ByeCode::Replaced)
    }

    fn end(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        older_than: Duration,
        code: ByeCode,
    ) -> bool {
        let mut any = false;
        for slot in self.slots(&(tenant.clone(), technician.clone())) {
            if slot.device == *device && slot.opened.elapsed() >= older_than {
                slot.disconnect(code);
                any = true;
            }
        }
        any
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().values().map(|listening| listening.slots.len()).sum()
    }

    /// Who is connected.
    #[must_use]
    pub fn connected(&self) -> Vec<Connected> {
        let subscribers = self.lock();
        let each = subscribers.iter().map(|((tenant, technician), listening)| Connected {
            tenant: tenant.clone(),
            technician: technician.clone(),
            devices: listening.slots().map(|slot| slot.device.clone()).collect(),
        });
        each.collect()
    }

    /// True when a phone of the technician is connected.
    #[must_use]
    pub fn is_connected(&self, tenant: &TenantId, technician: &TechnicianId) -> bool {
        self.lock().contains_key(&(tenant.clone(), technician.clone()))
    }

    /// True when this device is connected to this node.
    #[must_use]
    pub fn is_device_connected(&self, tenant: &TenantId, technician: &TechnicianId, device: &DeviceId) -> bool {
        self.slots(&(tenant.clone(), technician.clone())).iter().any(|slot| slot.device == *device)
    }

    fn slots(&self, key: &Key) -> Vec<Arc<Slot>> {
        self.lock().get(key).map(|listening| listening.slots().collect()).unwrap_or_default()
    }
}

impl Subscription {
    /// Waits for the next signal. May be dropped at any time without losing one.
    pub async fn next(&self) -> Signal {
        loop {
            if let Some(signal) = self.try_next() {
                return signal;
            }
            self.slot.wake.notified().await;
        }
    }

    /// The next signal, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<Signal> {
        let mut waiting = self.slot.lock();
        if let Some(code) = waiting.disconnect {
            return Some(Signal::Disconnect(code));
        }
        if waiting.lagged {
            waiting.lagged = false;
            return Some(Signal::Lagged);
        }
        let notice = waiting.notices.pop_front()?;
        if waiting.notices.is_empty() {
            waiting.notices = VecDeque::new();
        }
        Some(Signal::Notice(notice))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(hub) = self.hub.upgrade() else { return };
        let mut subscribers = hub.lock();
        if let Some(listening) = subscribers.get_mut(&self.key) {
            let own = Arc::as_ptr(&self.slot);
            listening.slots.retain(|slot| !std::ptr::eq(slot.as_ptr(), own));
            if listening.slots.is_empty() {
                subscribers.remove(&self.key);
            }
        }
    }
}
