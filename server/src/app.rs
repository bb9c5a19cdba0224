//! The wiring: the one place that names a backend and puts the rooms together.

use crate::auth::{
    Authenticator, IssueError, JwksFile, KeyError, Secret, SecretError, TokenRequest, development_secret, issue_token,
    system_clock,
};
use crate::config::{Config, ConfigError, Database};
use crate::events::{self, RelayStatus};
use crate::http::{AppState, admin_router, router};
use crate::service::{Clock, IdSource, Service, ServiceConfig, SystemClock};
use crate::store::postgres::{PostgresOptions, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics;
use axum::Router;
use axum::serve::ListenerExt;
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often time alone is given a chance to decide: service levels, held facts, the phones' window.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// On shutdown phones are told to come back after this long, and up to twice as long.
const DRAIN_RETRY_AFTER_MS: u32 = 1_000;
/// On shutdown phones have this long to take the farewell.
const DRAIN_PHONES_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the server did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The shared secret.
    #[error("auth.secret: {0}")]
    Secret(#[from] SecretError),
    /// The published keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// An address.
    #[error("cannot listen on {address}: {source}; another server may be running there, or set {setting}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The setting of its port.
        setting: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// Makes tokens with the server's own secret.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    secret: Secret,
    issuer: String,
    audience: String,
    lifetime_seconds: i64,
}

impl TokenIssuer {
    /// The issuer of a configuration with a secret; where none is set, the one kept beside the embedded database.
    ///
    /// # Errors
    /// [`StartError`] when there is none and none can be made.
    pub fn new(config: &Config) -> Result<Option<Self>, StartError> {
        let secret = match (&config.auth.secret, config.development_secret_path()) {
            (Some(secret), _) => secret.clone(),
            (None, _) if config.auth.jwks_file.is_some() => return Ok(None),
            (None, Some(path)) => development_secret(&path)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            secret,
            issuer: config.auth.issuer.clone(),
            audience: config.auth.audience.clone(),
            lifetime_seconds: i64::from(config.auth.token_lifetime_seconds),
        }))
    }

    /// A token, valid from now for the configured time.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, request: &TokenRequest) -> Result<String, IssueError> {
        self.issue_for(request, self.lifetime_seconds)
    }

    /// A token, valid from now for `lifetime_seconds`.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_for(&self, request: &TokenRequest, lifetime_seconds: i64) -> Result<String, IssueError> {
        let now_seconds = SystemClock.now().millis() / 1000;
        issue_token(&self.secret, &self.issuer, &self.audience, now_seconds, lifetime_seconds, request)
    }
}

/// What a test or a demo brings of its own.
pub struct Parts {
    /// The domain's time; tokens and timers stay on the machine's.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: IdSource,
}

impl Default for Parts {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), ids: IdSource::random() }
    }
}

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    service: Service,
    issuer: Option<TokenIssuer>,
    store: Arc<dyn Store>,
    app: AppState,
    stop: watch::Sender<bool>,
    http: JoinHandle<()>,
    admin: Option<(SocketAddr, JoinHandle<()>)>,
    sweep: JoinHandle<()>,
    others: JoinHandle<()>,
    drain_notice: Duration,
    relay: Option<JoinHandle<()>>,
    consumers: Option<JoinHandle<()>>,
    relay_status: watch::Receiver<RelayStatus>,
    drain_timeout: Duration,
}

/// Opens the database that the configuration names, and brings its schema up to date; a file is made when missing.
///
/// # Errors
/// [`StartError`].
pub async fn open_store(config: &Config) -> Result<(Arc<dyn Store>, Database), StartError> {
    let database = config.database.parse()?;
    let store: Arc<dyn Store> = match &database {
        Database::SqliteFile(path) => SqliteStore::open(path).await?,
        Database::Postgres(url) => {
            let settings = &config.database;
            let options = PostgresOptions {
                url: url.clone(),
                connections_max: settings.connections_max,
                connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
                statement_timeout: Duration::from_millis(settings.statement_timeout_ms),
                patience: Duration::from_millis(settings.retry_ms),
            };
            PostgresStore::open(&options).await?
        }
    };
    Ok((store, database))
}

/// A service on a store that is not served: for `ingest` and other commands.
#[must_use]
pub fn service(store: &Arc<dyn Store>, config: &Config, parts: Parts) -> Service {
    let held_after_end_ms = i64::from(config.sync.window_days_back) * sync_core::domain::time::DAY_MS;
    let settings = ServiceConfig { held_after_end_ms, ..ServiceConfig::default() };
    Service::new(Arc::clone(store), parts.clock, parts.ids, settings)
}

impl Server {
    /// Opens the database, binds the address, serves.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        events::can_start_relay(&config.kafka)?;
        let config = Arc::new(config);
        let issuer = TokenIssuer::new(&config)?;
        let jwks = match &config.auth.jwks_file {
            Some(path) => Some(JwksFile::open(path, i64::from(config.auth.jwks_recheck_seconds), system_clock())?),
            None => None,
        };
        let secrets: Vec<Secret> =
            issuer.iter().map(|issuer| issuer.secret.clone()).chain(config.auth.previous_secret.clone()).collect();
        let auth = Authenticator::new(
            config.auth.issuer.as_str(),
            config.auth.audience.as_str(),
            i64::from(config.auth.leeway_seconds),
            &secrets,
            jwks,
            system_clock(),
        );
        let (listener, address) = listen(config.server.address(), "server.port").await?;
        let admin = match config.admin.address() {
            Some(address) => Some(listen(address, "admin.port").await?),
            None => None,
        };
        let (store, _) = open_store(&config).await?;
        let stop = watch::Sender::new(false);
        let figures = if admin.is_some() { metrics::start() } else { None };
        if let (Some((_, address)), None) = (&admin, figures) {
            tracing::warn!("something else in this process collects figures; there are none on {address}");
        }
        let admin = admin.zip(figures).map(|((listener, address), figures)| {
            (address, tokio::spawn(serve(listener, admin_router(figures), stop.subscribe())))
        });
        let (relay, relay_status) =
            events::start_relay(&config.kafka, Arc::clone(&store), &parts.clock, stop.subscribe());
        let service = service(&store, &config, parts);
        let app = AppState::new(service.clone(), Arc::new(auth), Arc::clone(&config)).with_relay(relay_status.clone());
        let router = router(app.clone());
        let consumers = events::start_consumers(&config.kafka, &service, stop.subscribe())?;
        Ok(Self {
            admin,
            http: tokio::spawn(serve(listener, router, stop.subscribe())),
            sweep: tokio::spawn(sweep(service.clone(), figures, stop.subscribe())),
            others: tokio::spawn(follow(service.clone(), config.sync.look_every(), stop.subscribe())),
            drain_notice: config.server.drain_notice(),
            relay,
            relay_status,
            consumers,
            drain_timeout: config.server.drain_timeout(),
            address,
            service,
            issuer,
            store,
            app,
            stop,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator's listener is, if there is one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    /// The base URL for REST clients and phones.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The service, in the same process.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Makes tokens; `None` where only published keys are trusted.
    #[must_use]
    pub fn issuer(&self) -> Option<&TokenIssuer> {
        self.issuer.as_ref()
    }

    /// How publishing to Kafka is going.
    #[must_use]
    pub fn relay_status(&self) -> watch::Receiver<RelayStatus> {
        self.relay_status.clone()
    }

    /// Phones connected now.
    #[must_use]
    pub fn phones(&self) -> usize {
        self.app.sync.connected()
    }

    /// Drains: not ready any more, phones are told when to come back, requests go on until the balancer has had time to notice,
    /// those under way finish, the database is closed.
    pub async fn shutdown(self) {
        let noticed = tokio::time::Instant::now() + self.drain_notice;
        self.app.drain();
        if tokio::time::timeout(DRAIN_PHONES_TIMEOUT, self.app.sync.drain(DRAIN_RETRY_AFTER_MS)).await.is_err() {
            tracing::warn!(phones = self.app.sync.connected(), "some phones did not take the farewell in time");
        }
        // Whoever sends requests here needs a moment to see that the server is not ready; until then they are answered.
        tokio::time::sleep_until(noticed).await;
        self.stop.send_replace(true);
        if tokio::time::timeout(self.drain_timeout, self.http).await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
        let _ = self.sweep.await;
        let _ = self.others.await;
        for task in [self.consumers, self.relay].into_iter().flatten() {
            let _ = task.await;
        }
        self.store.close().await;
        if let Some((_, admin)) = self.admin {
            // A scraper that keeps its connection is not waited for.
            admin.abort();
        }
    }
}

async fn listen(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { address, setting, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    let listener = listener.tap_io(|socket| {
        // Small frames must not wait for acknowledgements of earlier ones.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped(stop)).await {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn sweep(service: Service, figures: Option<&'static PrometheusHandle>, stop: watch::Receiver<bool>) {
    let stopped = stopped(stop);
    tokio::pin!(stopped);
    let mut every = tokio::time::interval(SWEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = None;
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = every.tick() => {
                let result = match service.sweep_in_turn(&mut turn).await {
                    Ok(Some(_)) => "done",
                    Ok(None) => "elsewhere",
                    Err(error) => {
                        tracing::error!(?error, "the sweep failed; it is tried again");
                        "failed"
                    }
                };
                ::metrics::counter!(metrics::SWEEPS, "result" => result).increment(1);
                // Durations are kept one by one until somebody adds them up; nobody may be scraping.
                if let Some(figures) = figures {
                    figures.run_upkeep();
                }
            }
        }
    }
}

/// Tells the phones connected here what other nodes, or other processes, did.
async fn follow(service: Service, look_every: Duration, stop: watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(stop) => {}
        () = service.follow_other_nodes(look_every) => {}
    }
}
