//! The phone's WebSocket driver: a thin adapter around [`crate::session::PhoneSession`] with a socket, the phone's clock
//! and its store; the only tokio in the crate.
//!
//! [`Engine`] is the whole phone: it adds who is signed in, sleep and waking up, and jobs in the background.
//!
//! One task runs the life of the connection: wait (jittered backoff, or for the network), fetch a token, connect, drive the
//! session until it ends, decide how to come back. The app sees a [`Status`] that it can observe, and [`Event`]s.
//!
//! **Architecture invariant:** nothing the technician did goes through this room on its way to the disk; an action is
//! durable in the store before the client hears of it.

mod config;
mod connect;
mod diagnostics;
mod drive;
mod engine;
mod keys;
mod status;

pub use config::{BoxFuture, ClientConfig, Eraser, PhoneClock, SystemPhoneClock, TokenError, TokenNeed, TokenProvider};
pub use engine::{Engine, EngineConfig, EngineError, SyncOutcome};
pub use keys::{AtRest, KeyVault, VaultError};
pub use status::{ConnectionError, Event, Incident, Phase, Revoked, Status};

use crate::domain::{DispatchId, Position};
use crate::store::{ActError, Acted, NewEdit, Store, StoreError};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, broadcast, watch};

/// Most events that wait for one slow observer; it learns that it missed some, and lists anew.
const EVENTS_MAX: usize = 256;

/// Most incidents that are remembered for diagnostics.
const INCIDENTS_MAX: usize = 20;

tokio::task_local! {
    /// The number of the task that runs.
    static RUN: u64;
}

/// The store, and the task that keeps it in step with the server. Stops when dropped.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    /// `None` while stopped.
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

pub(crate) struct Shared {
    store: Arc<Store>,
    config: ClientConfig,
    status: watch::Sender<Status>,
    events: broadcast::Sender<Event>,
    /// The outbox grew, or the app wants a connection now.
    nudge: Notify,
    network: watch::Sender<bool>,
    /// The number of the last task; one more once it was ended.
    run: AtomicU64,
    rng: Mutex<StdRng>,
    /// Why connections ended, oldest first.
    incidents: Mutex<VecDeque<Incident>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("url", &self.config.url).finish_non_exhaustive()
    }
}

impl Shared {
    /// A generator of its own for work on another thread.
    fn fork_rng(&self) -> StdRng {
        StdRng::from_rng(&mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs blocking store work off the async threads.
    async fn with_store<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Store, &mut StdRng) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (store, mut rng) = (Arc::clone(&self.store), self.fork_rng());
        match tokio::task::spawn_blocking(move || work(&store, &mut rng)).await {
            Ok(result) => result,
            Err(lost) => Err(StoreError::Database(format!("store work was lost: {lost}"))),
        }
    }

    /// Changes the status. What a task says that was ended meanwhile does not stand.
    fn set(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let ended = RUN.try_with(|run| *run != self.run.load(Ordering::Relaxed)).unwrap_or(false);
            if !ended {
                change(status);
            }
            !ended
        });
    }

    /// A task begins, or the one that runs is ended: its number, under the status's lock, so that nothing comes in between.
    fn next_run(&self, change: impl FnOnce(&mut Status)) -> u64 {
        let mut number = 0;
        self.status.send_modify(|status| {
            number = self.run.fetch_add(1, Ordering::Relaxed) + 1;
            change(status);
        });
        number
    }

    fn tell(&self, event: Event) {
        // Nobody listening is no fault.
        let _ = self.events.send(event);
    }

    fn remember(&self, error: &ConnectionError) {
        let incident = Incident { at: self.config.clock.now().wall, error: error.clone() };
        let mut incidents = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        if incidents.len() == INCIDENTS_MAX {
            incidents.pop_front();
        }
        incidents.push_back(incident);
    }
}

impl Client {
    /// Starts on the current tokio runtime. The store must have a user bound ([`Store::bind_user`]).
    #[must_use]
    pub fn start(store: Arc<Store>, config: ClientConfig) -> Self {
        let client = Self::idle(store, config);
        client.run();
        client
    }

    /// Without a connection, until [`Self::run`].
    #[must_use]
    pub fn idle(store: Arc<Store>, config: ClientConfig) -> Self {
        let rng = config.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64);
        let network = config.network_at_start;
        let shared = Arc::new(Shared {
            store,
            config,
            status: watch::Sender::new(Status::default()),
            events: broadcast::Sender::new(EVENTS_MAX),
            nudge: Notify::new(),
            network: watch::Sender::new(network),
            run: AtomicU64::new(0),
            rng: Mutex::new(rng),
            incidents: Mutex::new(VecDeque::new()),
        });
        Self { shared, task: Mutex::new(None) }
    }

    /// Starts the task on the current tokio runtime, if it does not run already. The store must have a user bound
    /// ([`Store::bind_user`]).
    pub fn run(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            let number = self.shared.next_run(|status| status.phase = Phase::Starting);
            *task = Some(tokio::spawn(RUN.scope(number, drive::run(Arc::clone(&self.shared)))));
        }
    }

    /// True from [`Self::run`] to [`Self::stop`], or to the device's revocation.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// The store underneath, for lists and details.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    /// Takes an action: durable on the phone before it returns, sent as soon as there is a connection.
    ///
    /// # Errors
    /// [`ActError`]; nothing was stored.
    pub async fn act(
        &self,
        dispatch: &DispatchId,
        edit: NewEdit,
        position: Option<Position>,
    ) -> Result<Acted, ActError> {
        let (store, mut rng) = (Arc::clone(&self.shared.store), self.shared.fork_rng());
        let (now, id) = (self.shared.config.clock.now(), dispatch.clone());
        let acted = tokio::task::spawn_blocking(move || store.act(&id, edit, &now, position, &mut rng))
            .await
            .unwrap_or_else(|lost| Err(StoreError::Database(format!("the action was lost: {lost}")).into()))?;
        self.shared.set(|status| {
            status.pending = acted.pending;
            status.caught_up = false;
        });
        self.shared.tell(Event::VisitsChanged(vec![dispatch.clone()]));
        self.sync_soon();
        Ok(acted)
    }

    /// There may be something to send: sends it, or cuts a backoff short.
    pub fn sync_soon(&self) {
        self.shared.nudge.notify_one();
    }

    /// Tells what the operating system knows of the network: without one the client does not try, and with one again it
    /// tries at once.
    pub fn set_network(&self, available: bool) {
        self.shared.network.send_replace(available);
    }

    /// Observes the status; the receiver holds the present one.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Observes events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Waits until everything is exchanged: connected, nothing unsent but parked items, nothing unread. For ever, where
    /// that never happens: put it under a deadline.
    pub async fn caught_up(&self) {
        self.sync_soon();
        // The sender lives in `self.shared`, so waiting cannot fail.
        let _ = self.shared.status.subscribe().wait_for(|status| status.caught_up).await;
    }

    /// Why the last connections ended, oldest first; at most twenty.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        self.shared.incidents.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Closes the connection and ends the task; the store stays open.
    pub async fn stop(&self) {
        if let Some(task) = self.abort() {
            let _ = task.await;
        }
    }

    /// As [`Self::stop`], without waiting for the task's end.
    fn abort(&self) -> Option<tokio::task::JoinHandle<()>> {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        task.abort();
        self.shared.next_run(Status::set_stopped);
        Some(task)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
