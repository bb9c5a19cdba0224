//! What the service asks of a database. There are two, SQLite (embedded, one process) and PostgreSQL (production, any number of
//! nodes); both pass the suite in `conformance`.
//!
//! Writes happen in one place only, [`CommitLog::commit`]: one transaction a call, every commit of the call its own
//! savepoint (group commit).

pub mod audit;
#[doc(hidden)]
pub mod conformance;
mod forms;
pub mod postgres;
pub mod sqlite;
pub mod verify;

use crate::events::Event;
use crate::service::commit::{Commit, CommitError, Committed, FeedEntry, HeldVisit, IdempotencyRecord};
use crate::service::model::{
    AuditRecord, Device, DispatchSearch, ExceptionRow, Location, SlaRow, Standing, StoredDispatch, Technician,
};
use async_trait::async_trait;
use rand::Rng as _;
use sync_core::document::{ActorKey, StateTag};
use sync_core::domain::{
    DeviceId, DispatchId, FactId, LocationId, SerialNumber, ServiceOrderId, TechnicianId, TenantId, Timestamp, Window,
};
use sync_core::protocol::Generation;
use verify::{AuditPlace, StoredAuditHead, StoredAuditLine};

/// The database failed or its content makes no sense. The text is for the log, never for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the database failed: {0}")]
    Database(String),
    /// The database cannot be reached, though it was tried for a while.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// A stored value could not be read.
    #[error("a stored {what} could not be read: {detail}")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// There is no usable database at this path.
    #[error("the database {path} cannot be used: {problem}; {remedy}")]
    Unusable {
        /// Where it should be.
        path: String,
        /// What is wrong.
        problem: String,
        /// What a person can do.
        remedy: &'static str,
    },
    /// The database was made by a newer release.
    #[error("the database has schema {found}, this release knows up to {known}; run the newer release")]
    Newer {
        /// Found.
        found: i64,
        /// Known.
        known: i64,
    },
}

/// What identifies a database; drawn when it is made, and drawn anew by `crm-dispatch restored` after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Phones compare it (invariant 11).
    pub generation: Generation,
    /// The server's Automerge actor in this database.
    pub actor: ActorKey,
}

impl Identity {
    /// A fresh one.
    pub(crate) fn draw() -> Self {
        let mut rng = rand::rng();
        let mut actor = [0; 16];
        rng.fill_bytes(&mut actor);
        Self { generation: Generation(rng.next_u64()), actor: ActorKey(actor) }
    }
}

/// Everything together, for those who hold it.
pub trait Store:
    std::fmt::Debug + CommitLog + Dispatches + Feeds + Directory + Devices + Journal + Outbox + Nodes + 'static
{
}
impl<T: std::fmt::Debug + CommitLog + Dispatches + Feeds + Directory + Devices + Journal + Outbox + Nodes + 'static>
    Store for T
{
}

/// How many numbers a restored database leaves out, of each kind and tenant. It does not know which were given out after the
/// copy was made, and phones still hold visits under them: a second `DSP-7` would get the first one's facts. A company
/// with 2,000 technicians takes about two months for as many.
pub const NUMBERS_SKIPPED: u64 = 1_000_000;

/// What a commit that follows a failed one conflicts with.
pub(crate) const BEFORE_IT: &str = "commit before it";

/// The only way to write.
#[async_trait]
pub trait CommitLog: Send + Sync {
    /// Writes all commits in one transaction, each in its own savepoint; answers one result a commit, in order, after the
    /// transaction is durable. Concurrent calls may be joined into one transaction. A commit that [`Commit::follows`] one which
    /// fails, fails with it.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>>;
    /// The database's identity.
    fn identity(&self) -> Identity;
    /// Draws the database's identity anew, after it was restored from a copy: phones then give again what it has lost, and
    /// the server's changes get a fresh actor. Every count of [`Self::next_number`] goes on [`NUMBERS_SKIPPED`] further.
    async fn renew_identity(&self) -> Result<Identity, StoreError>;
    /// The answer remembered under an idempotency key.
    async fn remembered(&self, tenant: &TenantId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError>;
    /// The next free number for ids of this kind (`DSP`, `ROUTE`): unique over all nodes, growing on each, gaps allowed.
    async fn next_number(&self, tenant: &TenantId, kind: &'static str) -> Result<u64, StoreError>;
    /// Removes what is past its time: idempotency keys older than `before`, feed entries that every device has
    /// acknowledged and that are older than `before`.
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError>;
    /// Writes what waits, and closes. Calls that come later are answered with an error. Dropping a store without closing it
    /// loses nothing either.
    async fn close(&self);
}

/// Reading dispatches.
#[async_trait]
pub trait Dispatches: Send + Sync {
    /// One dispatch.
    async fn dispatch(&self, tenant: &TenantId, id: &DispatchId) -> Result<Option<StoredDispatch>, StoreError>;
    /// Where these dispatches stand: what is little to read, and tells whether the rest has changed. Unknown ones are left out.
    async fn standings(&self, tenant: &TenantId, ids: &[DispatchId]) -> Result<Vec<StandingOf>, StoreError>;
    /// The saved documents of these dispatches, with their revisions; unknown ones are left out.
    async fn documents(
        &self,
        tenant: &TenantId,
        ids: &[DispatchId],
    ) -> Result<Vec<(StoredDispatch, Vec<u8>)>, StoreError>;
    /// The dispatch of a service order.
    async fn by_service_order(
        &self,
        tenant: &TenantId,
        order: &ServiceOrderId,
    ) -> Result<Option<DispatchId>, StoreError>;
    /// A page, ordered by scheduled start, then id.
    async fn search(&self, search: &DispatchSearch) -> Result<Vec<StoredDispatch>, StoreError>;
    /// Exceptions, newest first: open ones, or all; of one dispatch, or all.
    async fn exceptions(
        &self,
        tenant: &TenantId,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, StoreError>;
    /// Dispatches, over all tenants, that need a look: deadline passed and not arrived or breach provisional, or facts
    /// held since before `held_before`.
    async fn due(
        &self,
        now: Timestamp,
        held_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DispatchId)>, StoreError>;
    /// Service-level records announced in a window.
    async fn sla(&self, tenant: &TenantId, window: Window) -> Result<Vec<SlaRow>, StoreError>;
    /// What is known of facts by natural key, for judging new ones.
    async fn fact_keys(&self, tenant: &TenantId, query: &FactKeyQuery) -> Result<FactKeys, StoreError>;
}

/// Where a dispatch stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StandingOf {
    /// Which.
    pub dispatch: DispatchId,
    /// The row's revision.
    pub revision: u64,
    /// Names the document's content.
    pub tag: StateTag,
    /// What may change while both stay.
    pub standing: Standing,
}

/// Which natural keys a judgement needs.
#[derive(Debug, Clone, Default)]
pub struct FactKeyQuery {
    /// `(device, seq)` pairs.
    pub sequence: Vec<(DeviceId, u64)>,
    /// Serial numbers.
    pub serials: Vec<SerialNumber>,
}

/// What is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactKeys {
    /// The facts that have these sequence numbers.
    pub sequence: Vec<((DeviceId, u64), FactId)>,
    /// The facts that used these serial numbers (accepted or held ones).
    pub serials: Vec<(SerialNumber, FactId)>,
}

/// Reading feeds.
#[async_trait]
pub trait Feeds: Send + Sync {
    /// The feed's end and its digest; `(0, 0)` when there is none.
    async fn feed_head(&self, tenant: &TenantId, technician: &TechnicianId) -> Result<(u64, u64), StoreError>;
    /// What a phone at `after` lacks, at most `limit` visits, in feed order; see [`FeedPage`].
    async fn feed_page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        after: u64,
        limit: u32,
    ) -> Result<FeedPage, StoreError>;
    /// Everything that the technician holds, from `after` on in id order, at most `limit` visits and about `bytes` bytes;
    /// with the feed's head as of the same read.
    async fn held(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError>;
    /// These visits whole, as far as the technician holds them.
    async fn held_some(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        ids: &[DispatchId],
    ) -> Result<Vec<HeldVisit>, StoreError>;
    /// Visits held by somebody although they ended, or were scheduled to end, before `before`: to be let go
    /// (partial sync). Over all tenants.
    async fn outside_window(&self, before: Timestamp, limit: u32) -> Result<Vec<(TenantId, DispatchId)>, StoreError>;
    /// Which technicians hold the visit now.
    async fn holders(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Vec<TechnicianId>, StoreError>;
}

/// A phone's news since a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedPage {
    /// The last position that the page covers; equals `head` on the last page.
    pub to: u64,
    /// The feed's end as of the same read.
    pub head: u64,
    /// Its digest.
    pub digest: u64,
    /// One a visit: the latest entry only.
    pub news: Vec<FeedNewsItem>,
    /// True when entries after the cursor were pruned, so that only a reset helps.
    pub too_old: bool,
}

/// One visit's news since a cursor.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedNewsItem {
    /// The phone has an older revision: these changes lead to the present one (the device's own are left out).
    Changes {
        /// Which visit, and its card and tag; `document` is empty.
        visit: HeldVisit,
        /// Change chunks in causal order.
        changes: Vec<Vec<u8>>,
    },
    /// The phone has none.
    Whole(HeldVisit),
    /// It left.
    Gone(FeedEntry),
}

/// A page of everything held.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldPage {
    /// The visits.
    pub visits: Vec<HeldVisit>,
    /// True when there are more.
    pub more: bool,
    /// The feed's end.
    pub head: u64,
    /// Its digest.
    pub digest: u64,
}

/// Reading technicians and locations.
#[async_trait]
pub trait Directory: Send + Sync {
    /// One technician.
    async fn technician(&self, tenant: &TenantId, id: &TechnicianId) -> Result<Option<Technician>, StoreError>;
    /// All technicians, by id, from `after` on.
    async fn technicians(
        &self,
        tenant: &TenantId,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, StoreError>;
    /// One location.
    async fn location(&self, tenant: &TenantId, id: &LocationId) -> Result<Option<Location>, StoreError>;
    /// All locations, by id, from `after` on.
    async fn locations(
        &self,
        tenant: &TenantId,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, StoreError>;
    /// The technician's bookings that overlap the window, with the sites' ids, by start.
    async fn bookings(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        window: Window,
    ) -> Result<Vec<(DispatchId, Window, LocationId)>, StoreError>;
}

/// Reading devices.
#[async_trait]
pub trait Devices: Send + Sync {
    /// One device.
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Option<Device>, StoreError>;
    /// All devices, of one technician or all.
    async fn devices(&self, tenant: &TenantId, technician: Option<&TechnicianId>) -> Result<Vec<Device>, StoreError>;
    /// Facts that wait for their predecessors (stored without a ruling), by sequence number: those of a device, or those
    /// on a dispatch, or both.
    async fn held_facts(
        &self,
        tenant: &TenantId,
        device: Option<&DeviceId>,
        dispatch: Option<&DispatchId>,
    ) -> Result<Vec<HeldFact>, StoreError>;
}

/// A fact that waits for its predecessors (rule 16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFact {
    /// On which visit.
    pub dispatch: DispatchId,
    /// Which.
    pub fact: FactId,
    /// From which device.
    pub device: DeviceId,
    /// Its number there.
    pub seq: u64,
    /// See [`crate::service::commit::FactWrite::knew_revision`].
    pub knew_revision: u64,
    /// When it was stored: the time of its commit.
    pub since: Timestamp,
}

/// Reading the event journal and the audit trail.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Events after a journal position, oldest first, optionally of one topic or dispatch, with their positions.
    async fn events(
        &self,
        tenant: &TenantId,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, StoreError>;
    /// One chain of the audit trail, oldest first, from `after` on.
    async fn audit(
        &self,
        tenant: &TenantId,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError>;
    /// Lines of all chains of all tenants after a place, in the order of places, as they lie there.
    async fn audit_walk(&self, after: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditLine>, StoreError>;
    /// The recorded ends of all chains of all tenants, from this chain on (whatever the place's line), in the order of chains.
    async fn audit_heads(&self, from: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditHead>, StoreError>;
}

/// Waiting events are counted up to this many; more are as bad.
pub const OUTBOX_COUNTED_MAX: u32 = 100_000;

/// Events on their way to other systems. Those of one aggregate have positions in the order in which they happened;
/// beyond that, one with a lower position may turn up after one with a higher one.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Events after a position that are not published yet, over all tenants, oldest first.
    async fn unpublished(&self, after: u64, limit: u32) -> Result<Vec<OutboxEvent>, StoreError>;
    /// Notes that the broker has these. Only after its receipt; a second time changes nothing.
    async fn mark_published(&self, positions: &[u64], at: Timestamp) -> Result<(), StoreError>;
    /// How much waits, and since when. Cheap enough to be asked every few seconds.
    async fn outbox_lag(&self) -> Result<OutboxLag, StoreError>;
    /// The right to publish, which one relay has at a time among all nodes of a database; `None` while another one has it.
    /// It ends when the turn is dropped, or the process with it.
    async fn relay_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError>;
    /// Returns soon after this process has committed an event. A hint: what other processes commit is found by looking.
    async fn event_written(&self);
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEvent {
    /// Its place in the journal.
    pub position: u64,
    /// The event.
    pub event: Event,
    /// The W3C trace of the call that caused it, if one did.
    pub traceparent: Option<String>,
}

/// How much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLag {
    /// Events not published; counted up to [`OUTBOX_COUNTED_MAX`].
    pub waiting: u64,
    /// When the first of them happened.
    pub oldest: Option<Timestamp>,
}

/// A relay's turn.
#[async_trait]
pub trait RelayTurn: Send + Sync {
    /// False when it was lost, say with the connection that held it: somebody else may be publishing. Asked now and then.
    async fn is_held(&mut self) -> bool;
}

/// What server nodes on one database need of each other. Hints may be lost, come late, or twice; what they are about is found in
/// the database.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// True when other nodes may be working on the same database.
    fn is_shared(&self) -> bool;
    /// Tells the other nodes, soon. Never waits; what cannot be told is dropped.
    fn announce(&self, hints: Vec<Hint>);
    /// The next thing that another node tells; for ever waiting where there is none. A node never hears itself. May be
    /// dropped at any time without losing anything; one listener a store.
    async fn heard(&self) -> Heard;
    /// The ends of these technicians' feeds, in the order asked; 0 where there is none. One query, answered by an index.
    async fn feed_heads(&self, of: &[(TenantId, TechnicianId)]) -> Result<Vec<u64>, StoreError>;
    /// Which of these devices are revoked. One query, answered by an index.
    async fn revoked(&self, among: &[(TenantId, DeviceId)]) -> Result<Vec<(TenantId, DeviceId)>, StoreError>;
    /// The right to sweep, which one node has at a time; `None` while another one has it. It ends when the turn is dropped, or
    /// the process with it.
    async fn sweep_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError>;
}

/// What one node tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The technician's feed reaches this far.
    Grew {
        /// Whose data.
        tenant: TenantId,
        /// Whose feed.
        technician: TechnicianId,
        /// Its end, at least.
        seq: u64,
    },
    /// The phone has connected to the node that tells.
    Connected {
        /// Whose data.
        tenant: TenantId,
        /// Whose phone.
        technician: TechnicianId,
        /// Which.
        device: DeviceId,
    },
    /// The phone was revoked.
    Revoked {
        /// Whose data.
        tenant: TenantId,
        /// Whose phone.
        technician: TechnicianId,
        /// Which.
        device: DeviceId,
    },
}

/// What a node hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A hint.
    Hint(Hint),
    /// Nobody could be heard for a while: look.
    Missed,
}
