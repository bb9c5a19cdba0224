//! One simulated phone: the real store in its own SQLite file, the real client over a real WebSocket, a network switch,
//! and the ledger beside it.

use crate::clock::PhoneClock;
use crate::ledger::{Deed, Ledger, What};
use crate::office::{Caller, TokenIssuer};
use rand::{SeedableRng, rngs::StdRng};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use sync_core::client::{BoxFuture, Client, ClientConfig, Event, Status, TokenError, TokenNeed, TokenProvider};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{
    ChecklistItemId, DispatchId, FactKind, Position, TechnicianId, TenantId, Timestamp, VisitCard,
};
use sync_core::store::{
    ActError, Acted, NewEdit, OpenOptions, Protection, Store, StoreError, TombstoneCard, VisitDetail, VisitQuery,
};
use tokio::sync::{broadcast, watch};

/// Accuracy of a simulated position fix, metres.
const FIX_ACCURACY_M: f64 = 12.0;

/// Why a phone could not be started.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Work on another thread was lost.
    #[error("the phone's work was lost: {0}")]
    Lost(String),
}

/// Who holds the phone, and how it reaches the server.
#[derive(Clone)]
pub struct PhoneSetup {
    /// The server, as `http://host:port`.
    pub base_url: String,
    /// Whose data.
    pub tenant: TenantId,
    /// Who holds it.
    pub technician: TechnicianId,
    /// Its clocks.
    pub clock: PhoneClock,
    /// Where tokens come from.
    pub tokens: TokenIssuer,
    /// Seeds actors, ids and jitter.
    pub seed: u64,
    /// Starts with a network.
    pub online: bool,
}

impl std::fmt::Debug for PhoneSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PhoneSetup").field("technician", &self.technician).finish_non_exhaustive()
    }
}

/// A phone that is switched on.
#[derive(Debug)]
pub struct Phone {
    technician: TechnicianId,
    client: Client,
    clock: PhoneClock,
    ledger: Ledger,
    online: AtomicBool,
}

struct Tokens {
    issuer: TokenIssuer,
    caller: Caller,
}

impl TokenProvider for Tokens {
    fn token(&self, _need: TokenNeed) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(async { Ok((self.issuer)(&self.caller)) })
    }
}

/// How the client of a phone is set up.
#[must_use]
pub fn client_config(setup: &PhoneSetup) -> ClientConfig {
    let caller = Caller::Technician(setup.technician.clone());
    let tokens = Arc::new(Tokens { issuer: Arc::clone(&setup.tokens), caller });
    ClientConfig {
        clock: Arc::new(setup.clock.clone()),
        seed: Some(setup.seed),
        network_at_start: setup.online,
        ..ClientConfig::new(setup.base_url.clone(), tokens)
    }
}

/// Opens a phone's store and logs the technician in.
///
/// # Errors
/// The store's.
pub fn open_store(path: &Path, setup: &PhoneSetup) -> Result<Arc<Store>, StoreError> {
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let options =
        OpenOptions { app: "fleet 0.1".to_owned(), now: setup.clock.read().wall, protection: Protection::Unencrypted };
    let opened = Store::open(path, &options, &mut rng)?;
    opened.store.bind_user(&setup.tenant, &setup.technician, &mut rng)?;
    Ok(Arc::new(opened.store))
}

impl Phone {
    /// Switches a phone on. Its database is `path`.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn start(path: &Path, setup: PhoneSetup, ledger: Ledger) -> Result<Self, PhoneError> {
        let (path, for_store) = (path.to_owned(), setup.clone());
        let store = tokio::task::spawn_blocking(move || open_store(&path, &for_store))
            .await
            .map_err(|lost| PhoneError::Lost(lost.to_string()))??;
        let client = Client::start(store, client_config(&setup));
        Ok(Self {
            technician: setup.technician,
            client,
            clock: setup.clock,
            ledger,
            online: AtomicBool::new(setup.online),
        })
    }

    /// Who holds it.
    #[must_use]
    pub fn technician(&self) -> &TechnicianId {
        &self.technician
    }

    /// Its clocks.
    #[must_use]
    pub fn clock(&self) -> &PhoneClock {
        &self.clock
    }

    /// The network goes or comes.
    pub fn set_network(&self, available: bool) {
        self.online.store(available, Ordering::Release);
        self.client.set_network(available);
    }

    /// True while it has a network.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// Observes the client.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.client.status()
    }

    /// Observes what the client tells.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.client.events()
    }

    /// Waits until everything is exchanged. False when that took longer than `patience`.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.client.caught_up()).await.is_ok()
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PhoneError> {
        let store = Arc::clone(self.client.store());
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|lost| PhoneError::Lost(lost.to_string()))?
            .map_err(PhoneError::Store)
    }

    /// Today's list.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn visits(&self) -> Result<Vec<VisitCard>, PhoneError> {
        self.read(|store| store.visits(&VisitQuery { unscheduled: true, ..VisitQuery::default() })).await
    }

    /// One visit, looked into.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn visit(&self, dispatch: &DispatchId) -> Result<VisitDetail, PhoneError> {
        let dispatch = dispatch.clone();
        self.read(move |store| store.visit(&dispatch)).await
    }

    /// Reads the cards that say why a visit is gone, and marks them as seen.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn read_tombstones(&self) -> Result<Vec<TombstoneCard>, PhoneError> {
        let now = self.clock.read().wall;
        self.read(move |store| {
            let cards = store.tombstones()?;
            for card in &cards {
                store.acknowledge_tombstone(&card.tombstone.dispatch_id, now)?;
            }
            Ok(cards)
        })
        .await
    }

    /// What the phone could not send for good.
    ///
    /// # Errors
    /// [`PhoneError`].
    pub async fn parked(&self) -> Result<Vec<sync_core::store::ParkedItem>, PhoneError> {
        self.read(Store::parked).await
    }

    async fn act(&self, dispatch: &DispatchId, edit: NewEdit, at: Option<Coordinates>) -> Result<Acted, ActError> {
        let position =
            at.map(|at| Position { latitude: at.latitude, longitude: at.longitude, accuracy_m: FIX_ACCURACY_M });
        self.client.act(dispatch, edit, position).await
    }

    fn deed(&self, dispatch: &DispatchId, what: What, at: Timestamp) {
        self.ledger.note(Deed {
            technician: self.technician.clone(),
            dispatch: dispatch.clone(),
            what,
            at,
            offline: !self.is_online(),
        });
    }

    /// States a fact; it is in the ledger when it is on the phone's disk.
    ///
    /// # Errors
    /// [`ActError`]; nothing was stored then, and nothing is in the ledger.
    pub async fn state(
        &self,
        dispatch: &DispatchId,
        kind: FactKind,
        at: Option<Coordinates>,
    ) -> Result<Acted, ActError> {
        let (name, when) = (kind.name(), self.clock.true_now());
        let acted = self.act(dispatch, NewEdit::Fact(kind), at).await?;
        if let Some(id) = &acted.fact {
            self.deed(dispatch, What::Fact { id: id.clone(), kind: name }, when);
        }
        Ok(acted)
    }

    /// Adds a line to the notes' end.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn note(&self, dispatch: &DispatchId, line: &str) -> Result<Acted, ActError> {
        let when = self.clock.true_now();
        let edit = NewEdit::Note { at: usize::MAX, delete: 0, insert: format!("{line}\n") };
        let acted = self.act(dispatch, edit, None).await?;
        self.deed(dispatch, What::Note(line.to_owned()), when);
        Ok(acted)
    }

    /// Answers a checklist item.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn answer(&self, dispatch: &DispatchId, item: &ChecklistItemId, value: &str) -> Result<Acted, ActError> {
        let when = self.clock.true_now();
        let edit = NewEdit::Answer { item: item.clone(), value: value.to_owned() };
        let acted = self.act(dispatch, edit, None).await?;
        self.deed(dispatch, What::Answer(item.clone(), value.to_owned()), when);
        Ok(acted)
    }

    /// Sets the summary.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn summary(&self, dispatch: &DispatchId, text: &str) -> Result<Acted, ActError> {
        let when = self.clock.true_now();
        let acted = self.act(dispatch, NewEdit::Summary(text.to_owned()), None).await?;
        self.deed(dispatch, What::Summary(text.to_owned()), when);
        Ok(acted)
    }

    /// Switches the phone off.
    pub async fn stop(self) {
        self.client.stop().await;
    }
}
