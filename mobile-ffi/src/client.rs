//! The client: what an app holds.

use crate::convert::{new_edit, parked_action, sync_status, timestamp};
use crate::error::PhoneError;
use crate::host::{
    GoneVisitObserver, LogSink, NoticeObserver, SecureStorage, SyncStatusObserver, TokenProvider, Tokens, Vault,
    VisitListObserver, VisitObserver,
};
use crate::log;
use crate::observe::{Subscription, follow, held, reading, tell_notices};
use crate::records::{
    Action, ActionTaken, ClientOptions, Encryption, GoneVisit, OpenNotice, ParkedAction, PositionFix, SignedIn,
    SignedOut, SyncReport, SyncStatus, VisitDetails, VisitFilter, VisitSummary,
};
use crate::threads::Threads;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sync_core::client::{AtRest, ClientConfig, Engine, EngineConfig, Event};
use sync_core::domain::{DispatchId, TechnicianId, TenantId};
use sync_core::store::{Store, StoreError, VisitQuery};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

/// Observers at once; an app has a handful of screens.
const SUBSCRIPTIONS_MAX: usize = 32;

/// A technician's phone. One a database file; every method may be called from any thread, and none blocks the one that it is
/// called from but [`DispatchClient::open`].
#[derive(uniffi::Object)]
pub struct DispatchClient {
    engine: Arc<Engine>,
    subscriptions: Mutex<JoinSet<()>>,
    host: Threads,
    runtime: Threads,
}

impl std::fmt::Debug for DispatchClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DispatchClient").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Ends the work when the app no longer waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[uniffi::export]
impl DispatchClient {
    /// Opens the phone's store, making it if there is none; blocks on the disk and on `storage`, so call it off the main
    /// thread. There is no connection before [`Self::start`]. `tokens`, `storage` and `logs` are the app's; whatever they throw
    /// becomes an error, and one that never returns is given up on.
    ///
    /// # Errors
    /// [`PhoneError::AlreadyOpen`], [`PhoneError::DiskFull`], [`PhoneError::EncryptionUnavailable`],
    /// [`PhoneError::EncryptionMismatch`], [`PhoneError::KeyMissing`], [`PhoneError::WrongKey`],
    /// [`PhoneError::KeyUnavailable`], or [`PhoneError::StoreFailed`] when no file can lie there. A file that cannot be used
    /// is no error: it is renamed, and [`Self::open_notice`] says so.
    #[uniffi::constructor]
    pub fn open(
        options: ClientOptions,
        tokens: Arc<dyn TokenProvider>,
        storage: Arc<dyn SecureStorage>,
        logs: Option<Arc<dyn LogSink>>,
    ) -> Result<Arc<Self>, PhoneError> {
        let host = Threads::for_host()?;
        let runtime = Threads::for_engine(logs.map(|sink| log::dispatch_to(sink, options.log_level)))?;
        let mut client = ClientConfig::new(options.server_url, Arc::new(Tokens(tokens)));
        client.network_at_start = options.network_at_start;
        let at_rest = match options.encryption {
            Encryption::SecureStorage => {
                let threads = host.handle()?.clone();
                AtRest::Encrypted(Arc::new(Vault { storage, threads }))
            }
            Encryption::Off => AtRest::Unencrypted,
        };
        let engine = Engine::open(EngineConfig { path: options.path.into(), app: options.app, client, at_rest })?;
        Ok(Arc::new(Self { engine: Arc::new(engine), subscriptions: Mutex::new(JoinSet::new()), host, runtime }))
    }

    /// What the last opening, or waking up, found.
    pub fn open_notice(&self) -> OpenNotice {
        self.engine.report().into()
    }

    /// Signs a technician in; works without a network. Another one than before: the former one's unsent work is sealed under
    /// their name, never erased, and this one's is queued again.
    ///
    /// # Errors
    /// [`PhoneError::InvalidArgument`] when an id is none, [`PhoneError::Closed`], or the store's.
    pub async fn sign_in(&self, tenant_id: String, technician_id: String) -> Result<SignedIn, PhoneError> {
        let (tenant, technician) = (TenantId::new(tenant_id)?, TechnicianId::new(technician_id)?);
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.sign_in(tenant, technician).await?.into()) }).await
    }

    /// Signs out: the connection ends, the visits are gone from the phone, unsent work is sealed under the technician's name
    /// until they sign in again. Call [`Self::sync_now`] before, and warn the technician when something would remain.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn sign_out(&self) -> Result<SignedOut, PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.sign_out().await?.into()) }).await
    }

    /// Connects, and stays connected as far as the network lets it; waiting to try again is the library's business. Call it
    /// again after the technician has renewed a sign-in: it tries at once.
    ///
    /// # Errors
    /// [`PhoneError::NotSignedIn`], [`PhoneError::Closed`], or the store's.
    pub async fn start(&self) -> Result<(), PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.start().await?) }).await
    }

    /// Ends the connection. What the technician does is stored and queued as before.
    ///
    /// # Errors
    /// [`PhoneError::Closed`].
    pub async fn stop(&self) -> Result<(), PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move {
            engine.stop().await;
            Ok(())
        })
        .await
    }

    /// The app goes to the background: the connection ends, the file is closed and its lock released, so that the operating
    /// system has no reason to end the app. Until [`Self::resume`] other calls are [`PhoneError::Closed`].
    ///
    /// # Errors
    /// The store's; it is closed all the same, and what was stored is safe.
    pub async fn suspend(&self) -> Result<(), PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.suspend().await?) }).await
    }

    /// The app comes back: opens the file, connects if it was connected, and tells the observers what has changed.
    ///
    /// # Errors
    /// As [`Self::open`]; the client goes on sleeping.
    pub async fn resume(&self) -> Result<OpenNotice, PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.resume().await?.into()) }).await
    }

    /// Ends everything, for good: observers, the connection, the file. Every later call is [`PhoneError::Closed`].
    ///
    /// # Errors
    /// The store's; it is closed all the same, and what was stored is safe.
    pub async fn shutdown(&self) -> Result<(), PhoneError> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.close().await?) }).await
    }

    /// Tells what the operating system knows of the network. Without one nothing is tried; with one again it is tried at once.
    pub fn network_changed(&self, available: bool) {
        self.engine.client().set_network(available);
    }

    /// Exchanges everything now, for a job in the background (WorkManager, BGTask): connects if there is no connection, and
    /// ends that one again. Gives up after `deadline`, or as soon as only a person can help. Cancelling the call ends it.
    ///
    /// # Errors
    /// [`PhoneError::NotSignedIn`], [`PhoneError::Closed`], or the store's. That there is no network is no error: the report
    /// says what remains.
    pub async fn sync_now(&self, deadline: Duration) -> Result<SyncReport, PhoneError> {
        let engine = Arc::clone(&self.engine);
        let work = self.runtime.handle()?.spawn(async move { engine.sync_now(deadline).await });
        let _ended_with_the_call = AbortOnDrop(work.abort_handle());
        Ok(work.await.map_err(lost)??.into())
    }

    /// Ends every [`Self::sync_now`] that is under way; each answers at once what remains. For a system that takes its time back
    /// where a cancelled task of the app's does not end the call by itself, as in Swift.
    pub fn end_sync(&self) {
        self.engine.end_sync();
    }

    /// Visits, by planned start. A day in the technician's time zone is a filter from its midnight to the next.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn visits(&self, filter: VisitFilter) -> Result<Vec<VisitSummary>, PhoneError> {
        let query = VisitQuery::from(filter);
        self.read(move |store| Ok(store.visits(&query)?.into_iter().map(Into::into).collect())).await
    }

    /// One visit. One that has left the phone but has unsent work is still answered.
    ///
    /// # Errors
    /// [`PhoneError::UnknownVisit`], [`PhoneError::VisitDamaged`], [`PhoneError::Closed`], or the store's.
    pub async fn visit(&self, dispatch_id: String) -> Result<VisitDetails, PhoneError> {
        let dispatch = DispatchId::new(dispatch_id)?;
        self.read(move |store| Ok(store.visit(&dispatch)?.into())).await
    }

    /// Takes an action, with the position where it is known. It is on disk when this returns, and reaches the office when
    /// there is a network.
    ///
    /// # Errors
    /// [`PhoneError::NotPossible`], [`PhoneError::UnknownVisit`], [`PhoneError::NotSignedIn`], [`PhoneError::InvalidArgument`],
    /// [`PhoneError::DiskFull`], [`PhoneError::Closed`], or the store's. Nothing was stored.
    pub async fn act(
        &self,
        dispatch_id: String,
        action: Action,
        position: Option<PositionFix>,
    ) -> Result<ActionTaken, PhoneError> {
        let (dispatch, edit) = (DispatchId::new(dispatch_id)?, new_edit(action)?);
        let engine = Arc::clone(&self.engine);
        self.run(async move {
            let acted = engine.client().act(&dispatch, edit, position.map(Into::into)).await?;
            Ok(ActionTaken { visit: acted.card.into(), unsent: acted.pending })
        })
        .await
    }

    /// Visits that have left the phone and that the technician has not seen leave, newest first.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn gone_visits(&self) -> Result<Vec<GoneVisit>, PhoneError> {
        self.read(|store| Ok(store.tombstones()?.into_iter().map(Into::into).collect())).await
    }

    /// The technician has seen why a visit is gone. True when there was something to see.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn acknowledge_gone(&self, dispatch_id: String) -> Result<bool, PhoneError> {
        let dispatch = DispatchId::new(dispatch_id)?;
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.acknowledge_tombstone(dispatch).await?) }).await
    }

    /// How much is unsent, since when, and how the connection is.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn sync_status(&self) -> Result<SyncStatus, PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.blocking(move || read_status(&engine)).await
    }

    /// What the server refused, oldest first, each with the reason. It is kept until it is retried.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn parked(&self) -> Result<Vec<ParkedAction>, PhoneError> {
        self.read(|store| Ok(store.parked()?.into_iter().map(parked_action).collect())).await
    }

    /// Sends a visit's parked actions again. Answers how many.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn retry(&self, dispatch_id: String) -> Result<u32, PhoneError> {
        let dispatch = DispatchId::new(dispatch_id)?;
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.retry_parked(dispatch).await?) }).await
    }

    /// Encrypts the file anew with a fresh key, which replaces the one in the secure storage; once in a while, and after a
    /// suspicion. Cut off anywhere, the next [`Self::open`] finds the key that fits.
    ///
    /// # Errors
    /// [`PhoneError::EncryptionMismatch`] when the file is not encrypted, [`PhoneError::KeyUnavailable`],
    /// [`PhoneError::DiskFull`], [`PhoneError::Closed`], or the store's; the file is usable as before.
    pub async fn rotate_key(&self) -> Result<(), PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.rotate_key().await?) }).await
    }

    /// A report for support, as JSON: versions, counts, the last errors. It holds no token, no key, and names no customer.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or the store's.
    pub async fn diagnostics(&self) -> Result<String, PhoneError> {
        let engine = Arc::clone(&self.engine);
        self.run(async move { Ok(engine.diagnostics().await?) }).await
    }

    /// Observes a list of visits: the observer hears it at once, and after each change of it.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or [`PhoneError::InvalidArgument`] when there are too many observers.
    pub fn observe_visits(
        &self,
        filter: VisitFilter,
        observer: Arc<dyn VisitListObserver>,
    ) -> Result<Arc<Subscription>, PhoneError> {
        let query = VisitQuery::from(filter);
        let list = move |engine: &Engine| {
            let visits = reading(engine.store().visits(&query))?;
            Ok(visits.into_iter().map(VisitSummary::from).collect::<Vec<_>>())
        };
        self.subscribe(|engine, threads| {
            follow(engine, threads, of_visits, list, move |visits| observer.on_visits(visits))
        })
    }

    /// Observes one visit: the observer hears it at once, and after each change of it.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or [`PhoneError::InvalidArgument`] when the id is none or there are too many observers.
    pub fn observe_visit(
        &self,
        dispatch_id: String,
        observer: Arc<dyn VisitObserver>,
    ) -> Result<Arc<Subscription>, PhoneError> {
        let dispatch = DispatchId::new(dispatch_id)?;
        let this = dispatch.clone();
        let concerns = move |event: &Event| match event {
            Event::VisitsChanged(changed) => changed.contains(&this),
            Event::Ruled { dispatch, .. } => *dispatch == this,
            Event::Refreshed | Event::Revoked(_) | Event::ServerReplaced { .. } => true,
            Event::CaughtUp => false,
        };
        let look = move |engine: &Engine| Ok(held(engine.store().visit(&dispatch))?.map(VisitDetails::from));
        self.subscribe(|engine, threads| follow(engine, threads, concerns, look, move |visit| observer.on_visit(visit)))
    }

    /// Observes the visits that left.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or [`PhoneError::InvalidArgument`] when there are too many observers.
    pub fn observe_gone_visits(&self, observer: Arc<dyn GoneVisitObserver>) -> Result<Arc<Subscription>, PhoneError> {
        let list = |engine: &Engine| {
            let cards = reading(engine.store().tombstones())?;
            Ok(cards.into_iter().map(GoneVisit::from).collect::<Vec<_>>())
        };
        self.subscribe(|engine, threads| {
            follow(engine, threads, of_visits, list, move |visits| observer.on_gone_visits(visits))
        })
    }

    /// Observes the state of the sync.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or [`PhoneError::InvalidArgument`] when there are too many observers.
    pub fn observe_sync_status(&self, observer: Arc<dyn SyncStatusObserver>) -> Result<Arc<Subscription>, PhoneError> {
        self.subscribe(|engine, threads| {
            follow(engine, threads, |_| true, read_status, move |status| observer.on_sync_status(status))
        })
    }

    /// Hears what the technician should be told, from now on: rulings of the office, a revocation.
    ///
    /// # Errors
    /// [`PhoneError::Closed`], or [`PhoneError::InvalidArgument`] when there are too many observers.
    pub fn observe_notices(&self, observer: Arc<dyn NoticeObserver>) -> Result<Arc<Subscription>, PhoneError> {
        self.subscribe(|engine, threads| tell_notices(engine.events(), threads, observer))
    }
}

impl DispatchClient {
    /// Runs on the engine's threads; goes on when the app no longer waits for it, so that an action is taken whole.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PhoneError>> + Send + 'static,
    ) -> Result<T, PhoneError> {
        self.runtime.handle()?.spawn(work).await.map_err(lost)?
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PhoneError> + Send + 'static,
    ) -> Result<T, PhoneError> {
        self.runtime.handle()?.spawn_blocking(work).await.map_err(lost)?
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PhoneError> {
        let store = Arc::clone(self.engine.store());
        self.blocking(move || Ok(look(&store)?)).await
    }

    fn subscribe<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl FnOnce(Arc<Engine>, Handle) -> F,
    ) -> Result<Arc<Subscription>, PhoneError> {
        let threads = self.host.handle()?.clone();
        let runtime = self.runtime.handle()?;
        if self.engine.is_closed() {
            return Err(PhoneError::Closed);
        }
        let mut subscriptions = self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        while subscriptions.try_join_next().is_some() {}
        if subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(PhoneError::InvalidArgument { reason: format!("more than {SUBSCRIPTIONS_MAX} observers") });
        }
        let task = task(Arc::clone(&self.engine), threads);
        Ok(Subscription::new(subscriptions.spawn_on(task, runtime)))
    }
}

fn of_visits(event: &Event) -> bool {
    match event {
        Event::VisitsChanged(_)
        | Event::Ruled { .. }
        | Event::Refreshed
        | Event::Revoked(_)
        | Event::ServerReplaced { .. } => true,
        Event::CaughtUp => false,
    }
}

fn read_status(engine: &Engine) -> Result<SyncStatus, PhoneError> {
    let state = engine.store().sync_state()?;
    let status = engine.status().borrow().clone();
    Ok(sync_status(state, status))
}

fn lost(error: tokio::task::JoinError) -> PhoneError {
    if error.is_cancelled() {
        PhoneError::Closed
    } else {
        PhoneError::StoreFailed { reason: "the work was lost to a fault of the library".into() }
    }
}

/// To the domain's time, for those who hand a filter on.
impl From<VisitFilter> for VisitQuery {
    fn from(filter: VisitFilter) -> Self {
        use sync_core::domain::{Timestamp, Window};
        let window = (filter.from.is_some() || filter.until.is_some()).then(|| Window {
            start: filter.from.map_or(Timestamp::from_millis(i64::MIN), timestamp),
            end: filter.until.map_or(Timestamp::from_millis(i64::MAX), timestamp),
        });
        Self {
            window,
            unscheduled: filter.unscheduled,
            statuses: filter.stages.into_iter().map(Into::into).collect(),
            limit: filter.limit,
        }
    }
}
