//! Stands between a server node and its store: the node's process dies around a commit, calls take time, calls fail, and a
//! commit whose answer is lost has been written all the same.

use async_trait::async_trait;
use crm_dispatch_server::events::Event;
use crm_dispatch_server::service::commit::{Commit, CommitError, Committed, HeldVisit, IdempotencyRecord};
use crm_dispatch_server::service::model::{
    AuditRecord, Device, DispatchSearch, ExceptionRow, Location, SlaRow, StoredDispatch, Technician,
};
use crm_dispatch_server::store::verify::{AuditPlace, StoredAuditHead, StoredAuditLine};
use crm_dispatch_server::store::{
    CommitLog, Devices, Directory, Dispatches, FactKeyQuery, FactKeys, FeedPage, Feeds, Heard, HeldFact, HeldPage,
    Hint, Identity, Journal, Nodes, Outbox, OutboxEvent, OutboxLag, RelayTurn, StandingOf, Store, StoreError,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use sync_core::domain::{DeviceId, DispatchId, LocationId, ServiceOrderId, TechnicianId, TenantId, Timestamp, Window};

/// One node's way to the store.
#[derive(Debug)]
pub(crate) struct Chaos {
    store: Arc<dyn Store>,
    pub(crate) switch: Arc<Switch>,
}

/// What the simulator sets, and looks at.
#[derive(Debug)]
pub(crate) struct Switch {
    /// The true time, milliseconds.
    now: Arc<AtomicI64>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rng: SmallRng,
    /// Calls take time now and then, so that other calls come in between.
    slow: bool,
    dead: bool,
    /// Dies at the commit after so many, before or after it is written.
    dies: Option<(u8, bool)>,
    /// Dies at the call after so many.
    dies_at_call: Option<u32>,
    /// So many calls fail; a commit may have been written.
    fails: Option<(u8, bool)>,
    /// Which calls those are.
    fails_at: FailsAt,
    /// When somebody wants to be asked again.
    wakes: Vec<i64>,
    /// Other nodes are to be told.
    announced: bool,
    faults: u64,
}

/// What a fault of the store meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailsAt {
    Anything,
    /// Reading goes well meanwhile: what fails is one transaction, after everything was decided.
    Commit,
    /// One transaction with a phone's changes. Their acknowledgement is what a technician relies on.
    Push,
}

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Commit,
    Push,
}

impl FailsAt {
    fn meets(self, call: Call) -> bool {
        match self {
            Self::Anything => true,
            Self::Commit => call != Call::Read,
            Self::Push => call == Call::Push,
        }
    }
}

impl Call {
    fn of(commits: &[Commit]) -> Self {
        let changes = commits.iter().filter_map(|commit| commit.dispatch.as_ref()).flat_map(|write| &write.changes);
        if changes.into_iter().any(|change| change.device.is_some()) { Self::Push } else { Self::Commit }
    }
}

const LOST: &str = "the connection to the database was lost";

impl Switch {
    pub(crate) fn new(now: Arc<AtomicI64>, seed: u64) -> Arc<Self> {
        let rng = SmallRng::seed_from_u64(seed);
        let inner = Inner {
            rng,
            slow: false,
            dead: false,
            dies: None,
            dies_at_call: None,
            fails: None,
            fails_at: FailsAt::Anything,
            wakes: Vec::new(),
            announced: false,
            faults: 0,
        };
        Arc::new(Self { now, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.inner().dead
    }

    /// Calls take time now and then.
    pub(crate) fn slows(&self) {
        self.inner().slow = true;
    }

    pub(crate) fn dies_at(&self, commits: u8, after: bool) {
        self.inner().dies = Some((commits, after));
    }

    pub(crate) fn dies_at_call(&self, calls: u32) {
        self.inner().dies_at_call = Some(calls);
    }

    pub(crate) fn fails(&self, calls: u8, written: bool) {
        let mut inner = self.inner();
        inner.fails_at = match inner.rng.random_range(0..4) {
            0..2 => FailsAt::Anything,
            2 => FailsAt::Commit,
            _ => FailsAt::Push,
        };
        inner.fails = Some((if inner.fails_at == FailsAt::Anything { calls } else { 1 }, written));
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        let mut inner = self.inner();
        (inner.dies, inner.dies_at_call, inner.fails) = (None, None, None);
    }

    pub(crate) fn wakes(&self) -> Vec<i64> {
        std::mem::take(&mut self.inner().wakes)
    }

    /// Whether other nodes were to be told something since the last time.
    pub(crate) fn take_announced(&self) -> bool {
        std::mem::take(&mut self.inner().announced)
    }

    pub(crate) fn faults(&self) -> u64 {
        self.inner().faults
    }

    /// What a call meets: how long it takes, and whether it fails.
    fn draw(&self, call: Call) -> (Option<i64>, bool) {
        let mut inner = self.inner();
        inner.dies_at_call = match inner.dies_at_call {
            Some(0) => {
                inner.dead = true;
                None
            }
            calls => calls.map(|calls| calls - 1),
        };
        let delay = (inner.slow && inner.rng.random_bool(0.15)).then(|| inner.rng.random_range(1..400));
        let met = inner.fails_at.meets(call);
        let fails = inner.dead || (met && inner.fails.as_ref().is_some_and(|(_, written)| !written));
        if fails {
            inner.count_fault();
        }
        (delay, fails)
    }

    async fn call(&self) -> Result<(), StoreError> {
        self.call_that(Call::Read).await
    }

    async fn call_that(&self, call: Call) -> Result<(), StoreError> {
        let (delay, fails) = self.draw(call);
        if let Some(delay) = delay {
            Nap { switch: self, until: None, delay }.await;
        }
        if fails || self.is_dead() { Err(StoreError::Database(LOST.to_owned())) } else { Ok(()) }
    }
}

impl Inner {
    fn count_fault(&mut self) {
        self.faults += 1;
        self.fails = match self.fails {
            Some((calls, written)) if calls > 1 => Some((calls - 1, written)),
            _ => None,
        };
    }
}

/// Waits in simulated time.
struct Nap<'a> {
    switch: &'a Switch,
    until: Option<i64>,
    delay: i64,
}

impl Future for Nap<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let now = self.switch.now.load(Ordering::Relaxed);
        match self.until {
            Some(until) if now >= until => Poll::Ready(()),
            Some(_) => Poll::Pending,
            None => {
                let until = now + self.delay;
                self.until = Some(until);
                self.switch.inner().wakes.push(until);
                Poll::Pending
            }
        }
    }
}

impl Chaos {
    pub(crate) fn new(store: Arc<dyn Store>, switch: Arc<Switch>) -> Self {
        Self { store, switch }
    }
}

#[async_trait]
impl CommitLog for Chaos {
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        let (count, call) = (commits.len(), Call::of(&commits));
        let lost = || std::iter::repeat_with(|| Err(CommitError::Store(LOST.to_owned()))).take(count).collect();
        if self.switch.call_that(call).await.is_err() {
            return lost();
        }
        let dies = {
            let mut inner = self.switch.inner();
            match &mut inner.dies {
                Some((0, after)) => Some(*after),
                Some((commits, _)) => {
                    *commits -= 1;
                    None
                }
                None => None,
            }
        };
        if dies == Some(false) {
            self.switch.inner().dead = true;
            return lost();
        }
        let results = self.store.commit(commits).await;
        if dies == Some(true) {
            self.switch.inner().dead = true;
            return lost();
        }
        let forgets = {
            let inner = self.switch.inner();
            inner.fails_at.meets(call) && inner.fails.is_some_and(|(_, written)| written)
        };
        if forgets {
            self.switch.inner().count_fault();
            return lost();
        }
        results
    }

    fn identity(&self) -> Identity {
        self.store.identity()
    }

    async fn remembered(&self, tenant: &TenantId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.switch.call().await?;
        self.store.remembered(tenant, key).await
    }

    async fn next_number(&self, tenant: &TenantId, kind: &'static str) -> Result<u64, StoreError> {
        self.switch.call().await?;
        self.store.next_number(tenant, kind).await
    }

    async fn renew_identity(&self) -> Result<Identity, StoreError> {
        self.store.renew_identity().await
    }

    async fn close(&self) {
        self.store.close().await;
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.switch.call().await?;
        self.store.prune(before).await
    }
}

#[async_trait]
impl Dispatches for Chaos {
    async fn dispatch(&self, tenant: &TenantId, id: &DispatchId) -> Result<Option<StoredDispatch>, StoreError> {
        self.switch.call().await?;
        self.store.dispatch(tenant, id).await
    }

    async fn standings(&self, tenant: &TenantId, ids: &[DispatchId]) -> Result<Vec<StandingOf>, StoreError> {
        self.switch.call().await?;
        self.store.standings(tenant, ids).await
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        ids: &[DispatchId],
    ) -> Result<Vec<(StoredDispatch, Vec<u8>)>, StoreError> {
        self.switch.call().await?;
        self.store.documents(tenant, ids).await
    }

    async fn by_service_order(
        &self,
        tenant: &TenantId,
        order: &ServiceOrderId,
    ) -> Result<Option<DispatchId>, StoreError> {
        self.switch.call().await?;
        self.store.by_service_order(tenant, order).await
    }

    async fn search(&self, search: &DispatchSearch) -> Result<Vec<StoredDispatch>, StoreError> {
        self.switch.call().await?;
        self.store.search(search).await
    }

    async fn exceptions(
        &self,
        tenant: &TenantId,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, StoreError> {
        self.switch.call().await?;
        self.store.exceptions(tenant, dispatch, open_only, limit).await
    }

    async fn due(
        &self,
        now: Timestamp,
        held_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        self.switch.call().await?;
        self.store.due(now, held_before, limit).await
    }

    async fn sla(&self, tenant: &TenantId, window: Window) -> Result<Vec<SlaRow>, StoreError> {
        self.switch.call().await?;
        self.store.sla(tenant, window).await
    }

    async fn fact_keys(&self, tenant: &TenantId, query: &FactKeyQuery) -> Result<FactKeys, StoreError> {
        self.switch.call().await?;
        self.store.fact_keys(tenant, query).await
    }
}

#[async_trait]
impl Feeds for Chaos {
    async fn feed_head(&self, tenant: &TenantId, technician: &TechnicianId) -> Result<(u64, u64), StoreError> {
        self.switch.call().await?;
        self.store.feed_head(tenant, technician).await
    }

    async fn feed_page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        after: u64,
        limit: u32,
    ) -> Result<FeedPage, StoreError> {
        self.switch.call().await?;
        self.store.feed_page(tenant, technician, device, after, limit).await
    }

    async fn held(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError> {
        self.switch.call().await?;
        self.store.held(tenant, technician, after, limit, bytes).await
    }

    async fn held_some(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        ids: &[DispatchId],
    ) -> Result<Vec<HeldVisit>, StoreError> {
        self.switch.call().await?;
        self.store.held_some(tenant, technician, ids).await
    }

    async fn outside_window(&self, before: Timestamp, limit: u32) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        self.switch.call().await?;
        self.store.outside_window(before, limit).await
    }

    async fn holders(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Vec<TechnicianId>, StoreError> {
        self.switch.call().await?;
        self.store.holders(tenant, dispatch).await
    }
}

#[async_trait]
impl Directory for Chaos {
    async fn technician(&self, tenant: &TenantId, id: &TechnicianId) -> Result<Option<Technician>, StoreError> {
        self.switch.call().await?;
        self.store.technician(tenant, id).await
    }

    async fn technicians(
        &self,
        tenant: &TenantId,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, StoreError> {
        self.switch.call().await?;
        self.store.technicians(tenant, after, limit).await
    }

    async fn location(&self, tenant: &TenantId, id: &LocationId) -> Result<Option<Location>, StoreError> {
        self.switch.call().await?;
        self.store.location(tenant, id).await
    }

    async fn locations(
        &self,
        tenant: &TenantId,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, StoreError> {
        self.switch.call().await?;
        self.store.locations(tenant, after, limit).await
    }

    async fn bookings(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        window: Window,
    ) -> Result<Vec<(DispatchId, Window, LocationId)>, StoreError> {
        self.switch.call().await?;
        self.store.bookings(tenant, technician, window).await
    }
}

#[async_trait]
impl Devices for Chaos {
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        self.switch.call().await?;
        self.store.device(tenant, device).await
    }

    async fn devices(&self, tenant: &TenantId, technician: Option<&TechnicianId>) -> Result<Vec<Device>, StoreError> {
        self.switch.call().await?;
        self.store.devices(tenant, technician).await
    }

    async fn held_facts(
        &self,
        tenant: &TenantId,
        device: Option<&DeviceId>,
        dispatch: Option<&DispatchId>,
    ) -> Result<Vec<HeldFact>, StoreError> {
        self.switch.call().await?;
        self.store.held_facts(tenant, device, dispatch).await
    }
}

#[async_trait]
impl Journal for Chaos {
    async fn events(
        &self,
        tenant: &TenantId,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        self.switch.call().await?;
        self.store.events(tenant, after, topic, aggregate, limit).await
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        self.switch.call().await?;
        self.store.audit(tenant, aggregate, after, limit).await
    }

    async fn audit_walk(&self, after: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditLine>, StoreError> {
        self.switch.call().await?;
        self.store.audit_walk(after, limit).await
    }

    async fn audit_heads(&self, from: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditHead>, StoreError> {
        self.switch.call().await?;
        self.store.audit_heads(from, limit).await
    }
}

#[async_trait]
impl Outbox for Chaos {
    async fn unpublished(&self, after: u64, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
        self.switch.call().await?;
        self.store.unpublished(after, limit).await
    }

    async fn mark_published(&self, positions: &[u64], at: Timestamp) -> Result<(), StoreError> {
        self.switch.call().await?;
        self.store.mark_published(positions, at).await
    }

    async fn outbox_lag(&self) -> Result<OutboxLag, StoreError> {
        self.switch.call().await?;
        self.store.outbox_lag().await
    }

    async fn relay_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        self.switch.call().await?;
        self.store.relay_turn().await
    }

    async fn event_written(&self) {
        self.store.event_written().await;
    }
}

#[async_trait]
impl Nodes for Chaos {
    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn announce(&self, hints: Vec<Hint>) {
        self.switch.inner().announced |= !hints.is_empty();
    }

    async fn heard(&self) -> Heard {
        std::future::pending().await
    }

    async fn feed_heads(&self, of: &[(TenantId, TechnicianId)]) -> Result<Vec<u64>, StoreError> {
        self.switch.call().await?;
        self.store.feed_heads(of).await
    }

    async fn revoked(&self, among: &[(TenantId, DeviceId)]) -> Result<Vec<(TenantId, DeviceId)>, StoreError> {
        self.switch.call().await?;
        self.store.revoked(among).await
    }

    async fn sweep_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        self.switch.call().await?;
        self.store.sweep_turn().await
    }
}
