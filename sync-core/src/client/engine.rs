//! The whole phone in one object: its store, its connection, who is signed in, sleep and waking up.

use super::keys::{self, AtRest, VaultError};
use super::{Client, ClientConfig, ConnectionError, Event, Phase, Status};
use crate::domain::{DispatchId, TechnicianId, TenantId, Timestamp};
use crate::store::{Bound, OpenOptions, OpenReport, Protection, Store, StoreError, SyncState, Wiped};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};

/// How to open an engine.
#[derive(Clone)]
pub struct EngineConfig {
    /// The database file; its folder is made if there is none.
    pub path: PathBuf,
    /// App name and version, for the dispatcher's device list.
    pub app: String,
    /// The server, the clocks, the tokens.
    pub client: ClientConfig,
    /// Whether the file is encrypted at rest.
    pub at_rest: AtRest,
}

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Sign a technician in first.
    #[error("nobody is signed in")]
    NotSignedIn,
    /// There is a file, and the secure storage holds no key for it. The file is untouched.
    #[error("the secure storage holds no key for the store")]
    KeyMissing,
    /// The secure storage's fault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store's fault; [`StoreError::Closed`] while the engine sleeps, and after it was closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a sync with a deadline came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncOutcome {
    /// Everything is exchanged but what is parked.
    pub caught_up: bool,
    /// Unacknowledged changes that remain, parked ones included.
    pub pending: u32,
    /// When the oldest of them was made, the phone's wall time.
    pub oldest_pending: Option<Timestamp>,
    /// Refused changes that wait for a person.
    pub parked: u32,
    /// Visits that are still to be fetched.
    pub to_fetch: u32,
    /// What was in the way.
    pub error: Option<ConnectionError>,
}

/// A phone's engine. Its methods need a tokio runtime; none of them blocks it.
pub struct Engine {
    path: PathBuf,
    at_rest: AtRest,
    client: Client,
    report: Mutex<OpenReport>,
    /// One at a time: signing in and out, starting, stopping, sleeping, waking.
    life: tokio::sync::Mutex<Life>,
    /// The app wants a connection; a sync in the background leaves it be then.
    wanted: AtomicBool,
    closed: AtomicBool,
    /// One sync with a deadline at a time.
    job: tokio::sync::Mutex<()>,
    /// Syncs with a deadline are to end.
    jobs_ended: Notify,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("client", &self.client).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Awake,
    Asleep,
    Closed,
}

/// Ends the connection of a sync in the background, also of one that the app no longer waits for.
struct EndUnwanted<'a>(&'a Engine);

impl Drop for EndUnwanted<'_> {
    fn drop(&mut self) {
        if !self.0.wanted.load(Ordering::Relaxed) {
            drop(self.0.client.abort());
        }
    }
}

impl Engine {
    /// Opens the store; blocks on the disk, and needs no runtime. There is no connection before [`Self::start`].
    ///
    /// # Errors
    /// [`EngineError::KeyMissing`], [`EngineError::Vault`], or the store's.
    pub fn open(config: EngineConfig) -> Result<Self, EngineError> {
        let EngineConfig { path, app, mut client, at_rest } = config;
        let (file, keys_of) = (path.clone(), at_rest.clone());
        client.erase = Some(Arc::new(move |store| {
            store.destroy()?;
            // A key without a file opens nothing; a file without a key would be in the way of a new one.
            if let AtRest::Encrypted(vault) = &keys_of
                && let Err(error) = keys::destroy(&file, &**vault)
            {
                tracing::error!(%error, "the key of a destroyed store is still in the vault");
            }
            Ok(())
        }));
        let options = OpenOptions { app, now: client.clock.now().wall, protection: Protection::Unencrypted };
        let opened = keys::open(&path, &at_rest, options)?;
        Ok(Self {
            path,
            at_rest,
            client: Client::idle(Arc::new(opened.store), client),
            report: Mutex::new(opened.report),
            life: tokio::sync::Mutex::new(Life::Awake),
            wanted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            job: tokio::sync::Mutex::new(()),
            jobs_ended: Notify::new(),
        })
    }

    /// What the last opening, or waking up, found.
    #[must_use]
    pub fn report(&self) -> OpenReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For lists, details and actions ([`Client::act`]).
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// For lists and details; each call blocks on the disk.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        self.client.store()
    }

    /// Observes the connection; the receiver holds its present state.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.client.status()
    }

    /// Observes events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.client.events()
    }

    async fn awake(&self) -> Result<tokio::sync::MutexGuard<'_, Life>, EngineError> {
        let life = self.life.lock().await;
        if *life == Life::Awake { Ok(life) } else { Err(StoreError::Closed.into()) }
    }

    /// Signs a technician in. Another one than before: the former one's unsent work is sealed, never erased; this one's
    /// sealed work is queued again.
    ///
    /// # Errors
    /// The store's.
    pub async fn sign_in(&self, tenant: TenantId, technician: TechnicianId) -> Result<Bound, EngineError> {
        let _life = self.awake().await?;
        let user = (tenant, technician);
        if self.sync_state().await?.user.as_ref() == Some(&user) {
            return Ok(Bound::default());
        }
        let was_running = self.client.is_running();
        self.client.stop().await;
        let (tenant, technician) = user;
        let bound = self.client.shared.with_store(move |store, rng| store.bind_user(&tenant, &technician, rng)).await?;
        if was_running {
            self.client.run();
        }
        self.client.shared.tell(Event::Refreshed);
        Ok(bound)
    }

    /// Signs out: the connection ends, unsent work is sealed under its technician's name, visits are gone from the phone.
    /// Try [`Self::sync_now`] first. Answers how much was sealed.
    ///
    /// # Errors
    /// The store's.
    pub async fn sign_out(&self) -> Result<Wiped, EngineError> {
        let _life = self.awake().await?;
        self.wanted.store(false, Ordering::Relaxed);
        self.client.stop().await;
        let sealed = self.client.shared.with_store(|store, rng| store.unbind_user(rng)).await?;
        self.client.shared.tell(Event::Refreshed);
        Ok(sealed)
    }

    /// Connects, and stays connected as far as the network lets it. Where it runs already and waits (for a sign-in, or
    /// before the next try), it tries at once.
    ///
    /// # Errors
    /// [`EngineError::NotSignedIn`], or the store's.
    pub async fn start(&self) -> Result<(), EngineError> {
        let _life = self.awake().await?;
        self.needs_user().await?;
        self.wanted.store(true, Ordering::Relaxed);
        self.client.run();
        self.client.sync_soon();
        Ok(())
    }

    /// Ends the connection; the store stays open, and what is done is queued.
    pub async fn stop(&self) {
        let _life = self.life.lock().await;
        self.wanted.store(false, Ordering::Relaxed);
        self.client.stop().await;
    }

    /// The app goes to the background: ends the connection, writes the log into the database, closes the file and lets go
    /// of its lock, so that the operating system finds nothing held. Until [`Self::resume`] every call that needs the store
    /// is [`StoreError::Closed`].
    ///
    /// # Errors
    /// The store's; it is closed all the same, and what was acknowledged is safe.
    pub async fn suspend(&self) -> Result<(), EngineError> {
        let mut life = self.life.lock().await;
        if *life == Life::Awake {
            *life = Life::Asleep;
            self.client.stop().await;
            self.client.shared.with_store(|store, _| store.close()).await?;
        }
        Ok(())
    }

    /// The app comes back: opens the file again, and connects if it was connected before.
    ///
    /// # Errors
    /// As [`Self::open`]; the engine goes on sleeping.
    pub async fn resume(&self) -> Result<OpenReport, EngineError> {
        let mut life = self.life.lock().await;
        match *life {
            Life::Awake => return Ok(self.report()),
            Life::Closed => return Err(StoreError::Closed.into()),
            Life::Asleep => {}
        }
        let now = self.client.shared.config.clock.now().wall;
        let report = self.client.shared.with_store(move |store, rng| store.reopen(now, rng)).await?;
        *life = Life::Awake;
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report.clone();
        if self.wanted.load(Ordering::Relaxed) && self.needs_user().await.is_ok() {
            self.client.run();
        }
        self.client.shared.tell(Event::Refreshed);
        Ok(report)
    }

    /// Ends the connection and closes the store, for good.
    ///
    /// # Errors
    /// The store's; it is closed all the same, and what was acknowledged is safe.
    pub async fn close(&self) -> Result<(), EngineError> {
        let mut life = self.life.lock().await;
        let was = std::mem::replace(&mut *life, Life::Closed);
        self.closed.store(true, Ordering::Relaxed);
        self.client.stop().await;
        if was == Life::Awake {
            self.client.shared.with_store(|store, _| store.close()).await?;
        }
        Ok(())
    }

    /// Exchanges everything now, for a job in the background: connects if there is no connection, and ends that one again.
    /// Gives up at the deadline, or as soon as nothing but a person can help.
    ///
    /// # Errors
    /// [`EngineError::NotSignedIn`], or the store's. That there is no network is no error: the outcome tells.
    pub async fn sync_now(&self, deadline: Duration) -> Result<SyncOutcome, EngineError> {
        // From here on an end is heard, also one that comes before the exchange begins.
        let ended = self.jobs_ended.notified();
        {
            let _life = self.awake().await?;
            self.needs_user().await?;
        }
        let caught_up = {
            let _ended = EndUnwanted(self);
            tokio::select! {
                done = tokio::time::timeout(deadline, self.exchange()) => done.unwrap_or(false),
                () = ended => false,
            }
        };
        let state = self.sync_state().await?;
        let error = self.client.status().borrow().error.clone();
        Ok(SyncOutcome {
            caught_up,
            pending: state.outbox.pending,
            oldest_pending: state.outbox.oldest,
            parked: state.parked,
            to_fetch: u32::try_from(state.needs_fetch.len()).unwrap_or(u32::MAX),
            error: error.filter(|_| !caught_up),
        })
    }

    /// Ends every [`Self::sync_now`] that is under way; each answers at once what remains.
    pub fn end_sync(&self) {
        self.jobs_ended.notify_waiters();
    }

    /// True once everything is exchanged, false when nothing but a person can help.
    async fn exchange(&self) -> bool {
        let _job = self.job.lock().await;
        let (mut events, mut status) = (self.client.events(), self.client.status());
        self.client.run();
        self.client.sync_soon();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(Event::CaughtUp) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        if status.borrow().caught_up {
                            return true;
                        }
                    }
                    Ok(Event::Revoked(_)) | Err(broadcast::error::RecvError::Closed) => return false,
                    Ok(_) => {}
                },
                changed = status.changed() => {
                    let phase = status.borrow_and_update().phase;
                    // A revoked phone may still have to say that it is wiped; the event comes after it has tried.
                    if changed.is_err() || matches!(phase, Phase::SignInNeeded | Phase::Stopped) {
                        return false;
                    }
                }
            }
        }
    }

    /// Encrypts the file anew with a fresh key; the former one opens nothing any more. Cut off anywhere, the next opening
    /// finds the key that fits.
    ///
    /// # Errors
    /// [`StoreError::NotEncrypted`], [`EngineError::Vault`], or the store's. The file opens as before or with the new key, and
    /// the vault holds both until that is certain.
    pub async fn rotate_key(&self) -> Result<(), EngineError> {
        let _life = self.awake().await?;
        let AtRest::Encrypted(vault) = &self.at_rest else { return Err(StoreError::NotEncrypted.into()) };
        let (path, vault, store) = (self.path.clone(), Arc::clone(vault), Arc::clone(self.store()));
        tokio::task::spawn_blocking(move || keys::rotate(&path, &*vault, &store))
            .await
            .unwrap_or_else(|lost| Err(StoreError::Database(format!("the rotation was lost: {lost}")).into()))
    }

    /// The technician has seen why a visit is gone. True when there was something to see.
    ///
    /// # Errors
    /// The store's.
    pub async fn acknowledge_tombstone(&self, dispatch: DispatchId) -> Result<bool, EngineError> {
        let now = self.client.shared.config.clock.now().wall;
        let id = dispatch.clone();
        let seen = self.client.shared.with_store(move |store, _| store.acknowledge_tombstone(&id, now)).await?;
        if seen {
            self.client.shared.tell(Event::VisitsChanged(vec![dispatch]));
        }
        Ok(seen)
    }

    /// Queues a visit's parked changes again and sends them. Answers how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn retry_parked(&self, dispatch: DispatchId) -> Result<u32, EngineError> {
        let id = dispatch.clone();
        let queued = self.client.shared.with_store(move |store, rng| store.retry_parked(&id, rng)).await?;
        if queued > 0 {
            self.client.shared.tell(Event::VisitsChanged(vec![dispatch]));
            self.client.sync_soon();
        }
        Ok(queued)
    }

    /// True after [`Self::close`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Where this phone stands, as it is on disk.
    ///
    /// # Errors
    /// The store's.
    pub async fn sync_state(&self) -> Result<SyncState, EngineError> {
        Ok(self.client.shared.with_store(|store, _| store.sync_state()).await?)
    }

    async fn needs_user(&self) -> Result<(), EngineError> {
        let state = self.sync_state().await?;
        // A revoked phone that owes its proof connects to say so, and for nothing else.
        if state.user.is_some() || state.farewell.is_some() { Ok(()) } else { Err(EngineError::NotSignedIn) }
    }
}
