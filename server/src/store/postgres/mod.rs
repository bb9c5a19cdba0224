//! The production store: PostgreSQL, shared by any number of nodes.
//!
//! **One writer a tenant.** Whoever writes for a tenant first takes the tenant's lock (an advisory one, held until the
//! transaction is durable), over all nodes; see `writer`. It makes the rest simple: nobody else writes between the look at the
//! rows and the writes, feeds count without gaps, a tenant's events become visible in the order of their positions, and since every
//! key begins with the tenant, two transactions never wait for each other's rows: there is nothing to deadlock. What it costs,
//! group commit gives back: calls that wait for the lock are written together, with a constant number of statements.
//!
//! The database's own rules (exclusion constraint, unique keys, the audit trail's triggers) hold against everybody else.

mod commit;
mod connect;
mod devices;
mod directory;
mod dispatches;
mod feeds;
mod journal;
mod nodes;
mod outbox;
#[cfg(test)]
mod plans;
mod prune;
mod rows;
mod schema;
mod writer;

pub use connect::PostgresOptions;

use crate::service::commit::{Commit, CommitError, Committed, IdempotencyRecord};
use crate::store::{CommitLog, Identity, NUMBERS_SKIPPED, StoreError, forms};
use async_trait::async_trait;
use connect::Target;
use rows::{bits, fault, get};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, PgPool, Postgres};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use sync_core::document::ActorKey;
use sync_core::domain::{TenantId, Timestamp};
use sync_core::protocol::Generation;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use writer::{Job, NUMBER_BLOCK, Stripes};

const CLOSED: &str = "the store is closed";

/// A statement with its parameters.
type Statement = Query<'static, Postgres, PgArguments>;

/// The identity as this node knows it; the writers renew it when they find another one.
type KnownIdentity = Arc<RwLock<Identity>>;

/// A store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    /// For reading, and for what needs no commit.
    pool: PgPool,
    target: Arc<Target>,
    stripes: Stripes,
    wire: nodes::Wire,
    identity: KnownIdentity,
    /// Numbers taken out of the database and not given out yet, by tenant and kind.
    numbers: Mutex<HashMap<(TenantId, &'static str), Range<u64>>>,
    /// Woken by a commit with events.
    event_written: Notify,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date: several nodes may do so at once. Must be called inside a tokio runtime,
    /// which then runs the writers.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when there is no such database, or it is somebody else's; [`StoreError::Newer`] when a newer
    /// release made it (nothing is touched then); other ones when the database fails. None repeats the password.
    pub async fn open(options: &PostgresOptions) -> Result<Arc<Self>, StoreError> {
        let target = Arc::new(Target::new(options)?);
        let mut connection = target.connect_first().await?;
        target.inspect(&mut connection).await?;
        // A migration may take longer than any other statement.
        sqlx::query("SET statement_timeout = 0").execute(&mut connection).await.map_err(fault)?;
        if schema::migrate(&mut connection, None).await?.is_none() {
            return Err(target.foreign());
        }
        let identity = Arc::new(RwLock::new(make_identity(&mut connection).await?));
        drop(connection);
        let pool = target.pool();
        Ok(Arc::new(Self {
            wire: nodes::Wire::new(&target),
            stripes: Stripes::start(&target, &identity),
            pool,
            target,
            identity,
            numbers: Mutex::new(HashMap::new()),
            event_written: Notify::new(),
        }))
    }

    /// Does something that may be repeated, again while the database cannot be reached, as long as the patience lasts.
    async fn again<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = self.target.backoff();
        let until = Instant::now() + self.target.patience;
        // Every connection of the pool may have broken while it was idle; only what fails beyond that is waited for.
        for failed in 0_u32.. {
            match tokio::time::timeout(self.target.answer_within, attempt()).await {
                Ok(Err(StoreError::Unreachable(problem))) if Instant::now() < until && !self.pool.is_closed() => {
                    tracing::debug!(problem, "the database cannot be reached; it is tried again");
                    if failed >= self.pool.options().get_max_connections() {
                        pause.wait().await;
                    }
                }
                Ok(result) => return result,
                Err(_) => break,
            }
        }
        Err(StoreError::Unreachable("the database does not answer".to_owned()))
    }

    /// Reads one row.
    async fn one(&self, query: impl Fn() -> Statement) -> Result<Option<PgRow>, StoreError> {
        self.again(|| async { query().fetch_optional(&self.pool).await.map_err(fault) }).await
    }

    /// Reads all rows.
    async fn all(&self, query: impl Fn() -> Statement) -> Result<Vec<PgRow>, StoreError> {
        self.again(|| async { query().fetch_all(&self.pool).await.map_err(fault) }).await
    }
}

#[async_trait]
impl CommitLog for PostgresStore {
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        let count = commits.len();
        if count == 0 {
            return Vec::new();
        }
        let (answer, results) = tokio::sync::oneshot::channel();
        let failed = |problem: &str| {
            let problem = problem.to_owned();
            std::iter::repeat_with(|| Err(CommitError::Store(problem.clone()))).take(count).collect()
        };
        let tells = commits.iter().any(|commit| !commit.events.is_empty());
        let queue = self.stripes.of(&commits);
        if queue.send(Job::Commit { commits, answer }).await.is_err() {
            return failed(CLOSED);
        }
        let results = results.await.unwrap_or_else(|_| failed("the writer ended"));
        if tells {
            self.event_written.notify_one();
        }
        results
    }

    fn identity(&self) -> Identity {
        *self.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew_identity(&self) -> Result<Identity, StoreError> {
        let identity = Identity::draw();
        let row = self
            .one(|| {
                sqlx::query(
                    "WITH later AS (INSERT INTO counters AS c (tenant, kind, next) VALUES ('', '', $3) \
                         ON CONFLICT (tenant, kind) DO UPDATE SET next = c.next + $3), \
                       present AS (UPDATE counters SET next = next + $3 WHERE tenant <> '') \
                     UPDATE meta SET generation = $1, actor = $2 WHERE singleton = 1 RETURNING generation, actor",
                )
                .bind(identity.generation.0.cast_signed())
                .bind(identity.actor.0.as_slice())
                .bind(NUMBERS_SKIPPED.cast_signed())
            })
            .await?
            .ok_or_else(|| forms::corrupt("identity")("there is none".to_owned()))?;
        let identity = read_identity(&row, 0, 1)?;
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        self.numbers.lock().await.clear();
        Ok(identity)
    }

    async fn remembered(&self, tenant: &TenantId, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let row = self.one(|| sqlx::query(commit::REMEMBERED).bind(tenant.as_str()).bind(key)).await?;
        row.as_ref()
            .map(|row| {
                Ok(IdempotencyRecord {
                    key: get(row, 0)?,
                    request_hash: get(row, 1)?,
                    status: commit::http_status(get(row, 2)?)?,
                    etag: get(row, 3)?,
                    body: get(row, 4)?,
                })
            })
            .transpose()
    }

    async fn next_number(&self, tenant: &TenantId, kind: &'static str) -> Result<u64, StoreError> {
        // Held while a block is fetched: the others of this moment want numbers of the same block.
        let mut numbers = self.numbers.lock().await;
        let block = numbers.entry((tenant.clone(), kind)).or_default();
        if let Some(number) = block.next() {
            return Ok(number);
        }
        // An answer that was lost costs its block: gaps are allowed.
        let row = self
            .one(|| {
                sqlx::query(
                    "INSERT INTO counters AS c (tenant, kind, next) \
                       VALUES ($1, $2, 1 + $3 + coalesce((SELECT next FROM counters WHERE tenant = '' AND kind = ''), 0)) \
                     ON CONFLICT (tenant, kind) DO UPDATE SET next = c.next + $3 RETURNING next - $3",
                )
                .bind(tenant.as_str())
                .bind(kind)
                .bind(NUMBER_BLOCK.cast_signed())
            })
            .await?
            .ok_or_else(|| forms::corrupt("counter")("none was returned".to_owned()))?;
        let first = rows::unsigned(&row, 0)?;
        *block = first + 1..first + NUMBER_BLOCK;
        Ok(first)
    }

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.prune_all(before).await
    }

    async fn close(&self) {
        self.stripes.close().await;
        self.wire.close().await;
        self.pool.close().await;
    }
}

/// The database's identity; the first node draws it.
async fn make_identity(connection: &mut PgConnection) -> Result<Identity, StoreError> {
    let drawn = Identity::draw();
    sqlx::query("INSERT INTO meta (singleton, generation, actor) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(drawn.generation.0.cast_signed())
        .bind(drawn.actor.0.as_slice())
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    let row = sqlx::query("SELECT generation, actor FROM meta").fetch_one(connection).await.map_err(fault)?;
    read_identity(&row, 0, 1)
}

fn read_identity(row: &PgRow, generation: usize, actor: usize) -> Result<Identity, StoreError> {
    let bytes: &[u8] = get(row, actor)?;
    let actor = bytes.try_into().map_err(|_| forms::corrupt("actor")(format!("{} bytes", bytes.len())))?;
    Ok(Identity { generation: Generation(bits(row, generation)?), actor: ActorKey(actor) })
}
