//! The embedded store: one SQLite file, no set-up.
//!
//! One connection writes (`writer`), a few read. The log (WAL) lets readers see a consistent past while the writer goes
//! on, and is made durable at every commit (`synchronous = FULL`).

mod commit;
mod devices;
mod directory;
mod dispatches;
mod feeds;
mod journal;
mod nodes;
mod outbox;
#[cfg(test)]
mod plans;
mod rows;
mod schema;
mod writer;

use crate::service::commit::{Commit, CommitError, Committed, IdempotencyRecord};
use crate::store::{CommitLog, Identity, StoreError};
use async_trait::async_trait;
use rows::{bits, corrupt, fault, get};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqliteConnection, SqlitePool};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use sync_core::document::ActorKey;
use sync_core::domain::{TenantId, Timestamp};
use sync_core::protocol::Generation;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use writer::{CHECKPOINT_BUSY, Checkpoint, Job, NUMBER_BLOCK, QUEUE_CALLS_MAX, Turn};

/// Connections that read.
const READERS: u32 = 4;
/// How long a connection waits for a lock that another process holds (a backup, say).
const BUSY: Duration = Duration::from_secs(30);
/// Prepared statements kept per connection; more than there are.
const STATEMENTS: usize = 200;
const CLOSED: &str = "the store is closed";

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    readers: SqlitePool,
    jobs: mpsc::Sender<Job>,
    checkpoints: mpsc::Sender<Checkpoint>,
    identity: RwLock<Identity>,
    /// Numbers taken out of the database and not given out yet, by tenant and kind.
    numbers: Mutex<HashMap<(TenantId, &'static str), Range<u64>>>,
    /// Woken by a commit with events.
    event_written: Notify,
    /// Locked by the relay whose turn it is; beside the database.
    relay_lock: PathBuf,
    sweep_lock: PathBuf,
}

impl SqliteStore {
    /// Opens the database at `path`, makes it when there is none (readable by its owner only), and brings its schema up to
    /// date. Must be called inside a tokio runtime, which then runs the writer.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the path cannot hold a database; [`StoreError::Newer`] when a newer release made it
    /// (nothing is touched then); other ones when the database fails.
    pub async fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        prepare_file(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY)
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        refuse_newer(path, &options).await?;

        let mut writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // The log is copied into the database beside the writer, never by it.
            .pragma("wal_autocheckpoint", "0")
            .pragma("cache_size", "-65536")
            // What a statement may have to take back is kept in memory, not in a file that is made and removed each time.
            .pragma("temp_store", "MEMORY")
            .connect()
            .await
            .map_err(|error| unusable(path, &error))?;
        schema::migrate(&mut writing, None).await?;
        let identity = match read_identity(&mut writing).await? {
            Some(identity) => identity,
            None => writer::write_identity(&mut writing).await?,
        };
        let checkpointing = options
            .clone()
            .busy_timeout(CHECKPOINT_BUSY)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "0")
            .connect()
            .await
            .map_err(fault)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(1)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.read_only(true).pragma("cache_size", "-16384"))
            .await
            .map_err(fault)?;

        let (jobs, waiting_jobs) = mpsc::channel(QUEUE_CALLS_MAX);
        let (checkpoints, waiting_checkpoints) = mpsc::channel(1);
        let turn = Turn::default();
        tokio::spawn(writer::run(writing, waiting_jobs, checkpoints.clone(), turn.clone()));
        tokio::spawn(writer::run_checkpoints(checkpointing, waiting_checkpoints, turn));
        Ok(Arc::new(Self {
            readers,
            jobs,
            checkpoints,
            identity: RwLock::new(identity),
            numbers: Mutex::new(HashMap::new()),
            event_written: Notify::new(),
            relay_lock: path.with_extension("relay-lock"),
            sweep_lock: path.with_extension("sweep-lock"),
        }))
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let closed = || StoreError::Database(CLOSED.to_owned());
        self.jobs.send(job(answer)).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())
    }
}

#[async_trait]
impl CommitLog for SqliteStore {
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        let count = commits.len();
        if count == 0 {
            return Vec::new();
        }
        let tells = commits.iter().any(|commit| !commit.events.is_empty());
        let results = self.ask(|answer| Job::Commit { commits, answer }).await.unwrap_or_else(|error| {
            std::iter::repeat_with(|| Err(CommitError::Store(error.to_string()))).take(count).collect()
        });
        if tells {
            self.event_written.notify_one();
        }
        results
    }

    fn identity(&self) -> Identity {
        *self.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew_identity(&self) -> Result<Identity, StoreError> {
        let identity = self.ask(|answer| Job::RenewIdentity { answer }).await??;
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        self.numbers.lock().await.clear();
        Ok(identity)
    }

    async fn remembered(&self, tenant: &TenantId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let row = sqlx::query(commit::REMEMBERED)
            .bind(tenant.as_str())
            .bind(key)
            .fetch_optional(&self.readers)
            .await
            .map_err(fault)?;
        row.as_ref().map(|row| commit::remembered(row, 0)).transpose()
    }

    async fn next_number(&self, tenant: &TenantId, kind: &'static str) -> Result<u64, StoreError> {
        // Held while a block is fetched: the others of this moment want numbers of the same block.
        let mut numbers = self.numbers.lock().await;
        let block = numbers.entry((tenant.clone(), kind)).or_default();
        if let Some(number) = block.next() {
            return Ok(number);
        }
        let tenant = tenant.clone();
        let first = self.ask(|answer| Job::Numbers { tenant, kind, answer }).await??;
        *block = first + 1..first + NUMBER_BLOCK;
        Ok(first)
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            match self.ask(|answer| Job::Prune { before, answer }).await?? {
                0 => return Ok(removed),
                more => removed += more,
            }
        }
    }

    /// Copies the log into the database, too; after a drop the next start reads the log.
    async fn close(&self) {
        let (answer, done) = oneshot::channel();
        if self.jobs.send(Job::Close { answer }).await.is_ok() {
            // An error means that the writer has ended, which is what is waited for.
            let _ = done.await;
        }
        self.readers.close().await;
        let (answer, done) = oneshot::channel();
        if self.checkpoints.send(Checkpoint::Close { answer }).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// Checks the path, and makes the file so that only its owner can read it; the log's files take over its permissions.
fn prepare_file(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Err(StoreError::Unusable {
            path: path.display().to_string(),
            problem: "it is a directory".into(),
            remedy: "name a file in it, like crm-dispatch.db",
        });
    }
    if path.exists() {
        return Ok(());
    }
    let refused = |error: std::io::Error| StoreError::Unusable {
        path: path.display().to_string(),
        problem: error.to_string(),
        remedy: "name a path that the server's user may write",
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(refused)?;
    }
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(refused(error)),
        _ => Ok(()),
    }
}

/// Looks before anything is written: a newer release's database stays as it is.
async fn refuse_newer(path: &Path, options: &SqliteConnectOptions) -> Result<(), StoreError> {
    use sqlx::Connection as _;
    let mut looking = options.clone().read_only(true).connect().await.map_err(|error| unusable(path, &error))?;
    let verdict = schema::refuse_newer(&mut looking).await;
    looking.close().await.map_err(fault)?;
    verdict.map_err(|error| match error {
        StoreError::Database(problem) => not_a_database(path, problem),
        other => other,
    })
}

fn unusable(path: &Path, error: &sqlx::Error) -> StoreError {
    not_a_database(path, error.to_string())
}

fn not_a_database(path: &Path, problem: String) -> StoreError {
    StoreError::Unusable {
        path: path.display().to_string(),
        problem,
        remedy: "check that it is a crm-dispatch database and that the server's user may read and write it and its \
                 directory; restore it from a backup if it is damaged",
    }
}

async fn read_identity(connection: &mut SqliteConnection) -> Result<Option<Identity>, StoreError> {
    let row = sqlx::query("SELECT generation, actor FROM meta").fetch_optional(connection).await.map_err(fault)?;
    row.map(|row| {
        let actor: &[u8] = get(&row, 1)?;
        let actor = actor.try_into().map_err(|_| corrupt("actor")(format!("{} bytes", actor.len())))?;
        Ok(Identity { generation: Generation(bits(&row, 0)?), actor: ActorKey(actor) })
    })
    .transpose()
}
