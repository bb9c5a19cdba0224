//! Tells connected phones that there is news, and never waits for one.
//!
//! A subscriber has a short queue. When it is full, what was in it is dropped and the subscriber learns that it lags: it
//! then pulls from its cursor. So a slow phone costs its queue and nothing else; an idle one costs a few pointers, since
//! the queue is allocated with its first notice.

use crate::telemetry::metrics::NEWS_LAGGED;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
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

/// All subscribers of this node.
#[derive(Debug, Default)]
pub struct Hub {
    subscribers: Mutex<HashMap<Key, Vec<Weak<Slot>>>>,
}

/// One connection's end; unsubscribes when dropped.
#[derive(Debug)]
pub struct Subscription {
    slot: Arc<Slot>,
    key: Key,
    hub: Weak<Hub>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Weak<Slot>>>> {
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
        let slot = Arc::new(Slot { device: device.clone(), waiting: Mutex::default(), wake: Notify::new() });
        let key = (tenant.clone(), technician.clone());
        let mut subscribers = self.lock();
        let slots = subscribers.entry(key.clone()).or_default();
        for older in slots.iter().filter_map(Weak::upgrade).filter(|older| older.device == *device) {
            older.disconnect(ByeCode::Replaced);
        }
        slots.push(Arc::downgrade(&slot));
        Subscription { slot, key, hub: Arc::downgrade(self) }
    }

    /// Tells a technician's phones. Never waits.
    pub fn publish(&self, tenant: &TenantId, technician: &TechnicianId, notice: &FeedNotice) {
        for slot in self.slots(&(tenant.clone(), technician.clone())) {
            slot.offer(notice);
        }
    }

    /// Tells a technician's phones that there is something to pull, without saying what. Never waits.
    pub fn nudge(&self, tenant: &TenantId, technician: &TechnicianId) {
        for slot in self.slots(&(tenant.clone(), technician.clone())) {
            let mut waiting = slot.lock();
            waiting.notices = VecDeque::new();
            waiting.lagged = true;
            drop(waiting);
            slot.wake.notify_one();
        }
    }

    /// Closes a device's connections.
    pub fn disconnect(&self, tenant: &TenantId, technician: &TechnicianId, device: &DeviceId, code: ByeCode) {
        for slot in self.slots(&(tenant.clone(), technician.clone())) {
            if slot.device == *device {
                slot.disconnect(code);
            }
        }
    }

    /// Closes every connection, for a shutdown.
    pub fn disconnect_all(&self, code: ByeCode) {
        let slots: Vec<_> = self.lock().values().flatten().filter_map(Weak::upgrade).collect();
        for slot in slots {
            slot.disconnect(code);
        }
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
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
        self.lock().get(key).map(|slots| slots.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
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
        if let Some(slots) = subscribers.get_mut(&self.key) {
            let own = Arc::as_ptr(&self.slot);
            slots.retain(|slot| !std::ptr::eq(slot.as_ptr(), own));
            if slots.is_empty() {
                subscribers.remove(&self.key);
            }
        }
    }
}
