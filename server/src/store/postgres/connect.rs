//! Where the database is, how connections to it are made, and what a person is told when there are none.

use super::rows::{fault, is_passing};
use crate::store::StoreError;
use rand::RngExt as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, PgPool, Row as _};
use std::str::FromStr as _;
use std::time::Duration;

/// Prepared statements kept per connection; more than there are.
const STATEMENTS: usize = 200;
/// What the program itself adds to the time that PostgreSQL gives a statement, before it takes the connection for dead.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);
/// A transaction whose node has fallen silent (pulled plug, lost network) is ended by PostgreSQL after this long, and with it the
/// tenant's writing lock.
const SILENT_TRANSACTION_SECONDS: u32 = 10;
/// The oldest release that the statements were tried with.
const SERVER_VERSION_MIN: i32 = 15_00_00;

/// How to reach the database.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, with `sslmode` and the other parameters of libpq's urls.
    pub url: String,
    /// Most connections that read. Beside them each writer has one.
    pub connections_max: u32,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// PostgreSQL gives a statement up after this long.
    pub statement_timeout: Duration,
    /// While the database cannot be reached (a restart, a fail-over), calls are tried again for this long before they fail.
    pub patience: Duration,
}

impl PostgresOptions {
    /// The url, with the defaults of the configuration.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: 10,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(5),
        }
    }
}

impl std::fmt::Debug for PostgresOptions {
    /// Without the url, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions").field("connections_max", &self.connections_max).finish_non_exhaustive()
    }
}

/// A database, ready to be connected to.
pub(super) struct Target {
    options: PgConnectOptions,
    /// Host, port and database: what may be shown.
    shown: String,
    /// What every connection is told first.
    session: String,
    connections_max: u32,
    connect_timeout: Duration,
    pub(super) patience: Duration,
    /// Longer than any answer can take.
    pub(super) answer_within: Duration,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Target").field(&self.shown).finish()
    }
}

impl Target {
    pub(super) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let parsed = PgConnectOptions::from_str(&options.url).map_err(|_| StoreError::Unusable {
            path: "in database.url".to_owned(),
            problem: "it is no PostgreSQL url".to_owned(),
            remedy: "write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters in the password percent-encoded",
        })?;
        let parsed =
            parsed.application_name("crm-dispatch").statement_cache_capacity(STATEMENTS).disable_statement_logging();
        let database = parsed.get_database().unwrap_or(parsed.get_username());
        let host = match parsed.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => parsed.get_host().to_owned(),
        };
        let shown = format!("postgres://{host}:{}/{database}", parsed.get_port());
        let milliseconds = options.statement_timeout.as_millis();
        // Every statement goes from the few keys that it is given to their rows, by an index (`plans` proves it). So a plan made
        // once is good for all parameters, and nothing shall tempt PostgreSQL to another one: no table without statistics, no
        // estimate of costs.
        let session = format!(
            "SET statement_timeout = {milliseconds}; \
             SET idle_in_transaction_session_timeout = '{SILENT_TRANSACTION_SECONDS}s'; \
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
             SET default_transaction_isolation = 'read committed'; \
             SET plan_cache_mode = force_generic_plan; SET jit = off; SET enable_seqscan = off; \
             SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; \
             SET enable_bitmapscan = off; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        );
        Ok(Self {
            options: parsed,
            shown,
            session,
            connections_max: options.connections_max,
            connect_timeout: options.connect_timeout,
            patience: options.patience,
            answer_within: options.statement_timeout + options.patience + ANSWER_MARGIN,
        })
    }

    /// A connection, or why there is none; tried once.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            connection.execute(AssertSqlSafe(self.session.clone())).await?;
            Ok(connection)
        };
        tokio::time::timeout(self.connect_timeout, connecting).await.unwrap_or_else(|_| {
            Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer while connecting")))
        })
    }

    /// The first connection of a process; what fails is said so that a person knows what to do.
    pub(super) async fn connect_first(&self) -> Result<PgConnection, StoreError> {
        self.connect().await.map_err(|error| {
            let (problem, remedy) = diagnose(&error);
            StoreError::Unusable { path: self.shown.clone(), problem, remedy }
        })
    }

    /// Refuses what cannot hold the store, before anything is done.
    pub(super) async fn inspect(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), current_setting('server_encoding'), \
             current_setting('fsync')::bool",
        )
        .fetch_one(connection)
        .await
        .map_err(fault)?;
        let version: i32 = row.try_get(0).map_err(fault)?;
        let unusable = |problem: String, remedy| StoreError::Unusable { path: self.shown.clone(), problem, remedy };
        if version < SERVER_VERSION_MIN {
            return Err(unusable(
                format!("the server is PostgreSQL {}", version / 10_000),
                "use PostgreSQL 15 or newer",
            ));
        }
        if row.try_get(1).map_err(fault)? {
            return Err(unusable("it is a read-only standby".to_owned(), "name the primary in database.url"));
        }
        let encoding: String = row.try_get(2).map_err(fault)?;
        if encoding != "UTF8" {
            return Err(unusable(format!("its encoding is {encoding}"), "create the database with ENCODING 'UTF8'"));
        }
        if !row.try_get::<bool, _>(3).map_err(fault)? {
            tracing::warn!(database = self.shown, "fsync is off in PostgreSQL: a crash loses what was acknowledged");
        }
        Ok(())
    }

    pub(super) fn foreign(&self) -> StoreError {
        StoreError::Unusable {
            path: self.shown.clone(),
            problem: "it holds tables of something else".to_owned(),
            remedy: "name an empty database, or one that crm-dispatch made, in database.url",
        }
    }

    /// Connections for reading, made when they are needed.
    pub(super) fn pool(&self) -> PgPool {
        let session = self.session.clone();
        PgPoolOptions::new()
            .max_connections(self.connections_max)
            .acquire_timeout(self.patience.max(self.connect_timeout))
            // A connection that broke while idle costs one repetition; asking before every use would cost a round trip each.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move {
                    connection.execute(AssertSqlSafe(session)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// For the one connection that listens.
    pub(super) fn listening_pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(self.connect_timeout)
            .connect_lazy_with(self.options.clone())
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { next: BACKOFF_FIRST }
    }
}

const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

/// Pauses between attempts: doubling, half of each at random, so that nodes do not come back all at once.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) async fn wait(&mut self) {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(BACKOFF_LONGEST);
        tokio::time::sleep(pause).await;
    }
}

/// What is wrong, and what helps. PostgreSQL's own messages name roles and databases, never passwords.
fn diagnose(error: &sqlx::Error) -> (String, &'static str) {
    if let sqlx::Error::Database(refusal) = error {
        let remedy = match refusal.code().as_deref() {
            Some("28P01" | "28000") => {
                "correct user and password in database.url, or let them in by pg_hba.conf on the server"
            }
            Some("3D000") => "create it first, for instance: createdb --owner=USER DATABASE",
            Some("42501") => "grant the user CONNECT on the database",
            Some("53300") => "raise max_connections in PostgreSQL, or lower database.connections_max",
            _ if is_passing(error) => "wait until PostgreSQL has started, and start again",
            _ => "see PostgreSQL's log",
        };
        return (refusal.message().to_owned(), remedy);
    }
    match error {
        sqlx::Error::Tls(_) => (error.to_string(), "correct sslmode and sslrootcert in database.url"),
        sqlx::Error::Io(cause) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
            ("nothing listens there".to_owned(), "start PostgreSQL, or correct host and port in database.url")
        }
        sqlx::Error::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            ("it does not answer".to_owned(), "correct host and port in database.url, or open the firewall")
        }
        sqlx::Error::Io(cause) => (cause.to_string(), "correct host and port in database.url"),
        _ => (error.to_string(), "correct database.url"),
    }
}
