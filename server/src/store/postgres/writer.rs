//! The writers: one task and one connection for each stripe of tenants.
//!
//! A tenant belongs to one of a fixed number of stripes; a stripe's writer holds the stripe's advisory lock from the first
//! statement of its transaction until the transaction is durable, whichever node it runs on. (`pg_advisory_xact_lock`: released
//! by PostgreSQL itself after the commit record is flushed and visible, or when the connection ends.) Row locks alone would let
//! nodes write for one tenant at the same time, but then events would become visible out of the order of their positions, and
//! readers would have to wait for a horizon that any long transaction holds back.
//!
//! Calls that arrive while a transaction is being made durable, or while another node has the lock, are written together in the
//! next one (group commit).

use super::commit::{self, Failure};
use super::connect::Target;
use super::rows::{fault, is_passing};
use super::{CLOSED, KnownIdentity};
use crate::service::commit::{Commit, CommitError, Committed};
use crate::store::StoreError;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use sync_core::domain::TenantId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How many stripes there are. Every node must count the same, so it is no setting; tenants of different stripes are written
/// in parallel.
const STRIPES: usize = 8;
/// The first half of all lock numbers: "crm".
pub(super) const LOCK_SPACE: i32 = 0x0063_726d;
/// Most commits in one transaction, so that its caller does not wait for too many others.
const GROUP_COMMITS_MAX: usize = 256;
/// Most bytes of documents and changes in one transaction; the call that goes beyond it is the last one.
const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most calls waiting for a writer; more wait before they are queued.
const QUEUE_CALLS_MAX: usize = 1_024;
/// Numbers taken out of the database at once.
pub(super) const NUMBER_BLOCK: u64 = 100;

type Results = Vec<Result<Committed, CommitError>>;

/// What a writer is asked for.
pub(super) enum Job {
    Commit { commits: Vec<Commit>, answer: oneshot::Sender<Results> },
    Close { answer: oneshot::Sender<()> },
}

/// The queues of the writers.
#[derive(Debug)]
pub(super) struct Stripes(Vec<mpsc::Sender<Job>>);

impl Stripes {
    pub(super) fn start(target: &Arc<Target>, identity: &KnownIdentity) -> Self {
        let start = |_| {
            let (jobs, waiting) = mpsc::channel(QUEUE_CALLS_MAX);
            let writer = Writer { target: Arc::clone(target), identity: Arc::clone(identity), connection: None };
            tokio::spawn(writer.run(waiting));
            jobs
        };
        Self((0..STRIPES).map(start).collect())
    }

    /// The queue for a call that is not empty.
    pub(super) fn of(&self, commits: &[Commit]) -> &mpsc::Sender<Job> {
        &self.0[commits.first().map_or(0, |commit| stripe(&commit.tenant))]
    }

    /// Writes what waits, and ends the writers.
    pub(super) async fn close(&self) {
        let mut ending = Vec::new();
        for jobs in &self.0 {
            let (answer, done) = oneshot::channel();
            // A queue that is gone belongs to a writer that has ended.
            if jobs.send(Job::Close { answer }).await.is_ok() {
                ending.push(done);
            }
        }
        for done in ending {
            let _ = done.await;
        }
    }
}

fn stripe(tenant: &TenantId) -> usize {
    usize::from(Sha256::digest(tenant.as_str())[0]) % STRIPES
}

/// One call, and who waits for its results.
struct Call {
    commits: Vec<Commit>,
    answer: oneshot::Sender<Results>,
}

/// How an attempt to write a group ended without results.
enum Ended {
    /// Nothing was written, and another attempt may do better.
    Again(String),
    /// Nothing was written, and nothing would be.
    Failed(String),
    /// The connection broke before the answer to COMMIT came: only the database knows.
    Unknown { transaction: String, results: Results, problem: String },
}

struct Writer {
    target: Arc<Target>,
    identity: KnownIdentity,
    connection: Option<PgConnection>,
}

impl Writer {
    /// Runs until the store is closed or dropped.
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut left_over = None;
        loop {
            let job = match left_over.take() {
                Some(job) => job,
                None => match jobs.recv().await {
                    Some(job) => job,
                    None => return,
                },
            };
            match job {
                Job::Commit { commits, answer } => {
                    let mut group = vec![Call { commits, answer }];
                    let mut results = self.write_group(&mut group, &mut jobs, &mut left_over).await.into_iter();
                    for Call { commits, answer } in group {
                        // Whoever asked may have gone away; then nobody needs the answer.
                        let _ = answer.send(results.by_ref().take(commits.len()).collect());
                    }
                }
                Job::Close { answer } => {
                    jobs.close();
                    while let Ok(late) = jobs.try_recv() {
                        refuse(late);
                    }
                    if let Some(connection) = self.connection.take()
                        && let Err(error) = connection.close().await
                    {
                        tracing::debug!(%error, "a writing connection was not closed cleanly");
                    }
                    let _ = answer.send(());
                    return;
                }
            }
        }
    }

    /// Writes a group, in spite of restarts of the database, as long as the patience lasts.
    async fn write_group(
        &mut self,
        group: &mut Vec<Call>,
        jobs: &mut mpsc::Receiver<Job>,
        left_over: &mut Option<Job>,
    ) -> Results {
        let until = Instant::now() + self.target.patience;
        let mut pause = self.target.backoff();
        loop {
            let attempt = tokio::time::timeout(self.target.answer_within, self.attempt(group, jobs, left_over)).await;
            let ended = match attempt {
                Ok(Ok(results)) => return results,
                Ok(Err(ended)) => ended,
                // It may have fallen silent at any point, COMMIT included.
                Err(_) => {
                    self.connection = None;
                    Ended::Failed("the database does not answer; whether this was written is unknown".to_owned())
                }
            };
            let problem = match ended {
                Ended::Again(problem) => problem,
                Ended::Failed(problem) => return failed(group, &problem),
                Ended::Unknown { transaction, results, problem } => match self.outcome(&transaction, until).await {
                    Some(true) => return results,
                    Some(false) => problem,
                    None => {
                        let problem = format!("whether this was written is unknown: {problem}");
                        return failed(group, &problem);
                    }
                },
            };
            if Instant::now() >= until {
                return failed(group, &problem);
            }
            tracing::warn!(problem, "a group of commits was not written; it is tried again");
            pause.wait().await;
        }
    }

    /// One transaction.
    async fn attempt(
        &mut self,
        group: &mut Vec<Call>,
        jobs: &mut mpsc::Receiver<Job>,
        left_over: &mut Option<Job>,
    ) -> Result<Results, Ended> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect().await.map_err(|error| match is_passing(&error) {
                true => Ended::Again(error.to_string()),
                false => Ended::Failed(error.to_string()),
            })?,
        };
        let locked: BTreeSet<usize> = stripes(group.iter().flat_map(|call| &call.commits));
        connection.execute(AssertSqlSafe(begin(&locked))).await.map_err(ended)?;
        gather(group, jobs, left_over, &locked);
        let commits: Vec<&Commit> = group.iter().flat_map(|call| &call.commits).collect();
        let mut transaction = String::new();
        match write_all(&mut connection, &self.identity, &commits, &mut transaction).await {
            Ok(results) => match connection.execute("COMMIT").await {
                Ok(_) => {
                    self.connection = Some(connection);
                    Ok(results)
                }
                Err(error) if is_passing(&error) => {
                    Err(Ended::Unknown { transaction, results, problem: error.to_string() })
                }
                Err(error) => Err(Ended::Failed(error.to_string())),
            },
            Err(ended) => {
                // Whatever is open ends with the connection, if not by this.
                if connection.execute("ROLLBACK").await.is_ok() {
                    self.connection = Some(connection);
                }
                Err(ended)
            }
        }
    }

    /// Whether a transaction was committed; `None` when the database cannot say, or not in time.
    async fn outcome(&mut self, transaction: &str, until: Instant) -> Option<bool> {
        let mut pause = self.target.backoff();
        while Instant::now() < until {
            if let Ok(mut connection) = self.target.connect().await {
                let status = sqlx::query("SELECT pg_xact_status($1::text::xid8)")
                    .bind(transaction)
                    .fetch_one(&mut connection)
                    .await
                    .and_then(|row| row.try_get::<Option<String>, _>(0));
                match status.as_ref().map(|status| status.as_deref()) {
                    Ok(Some("committed")) => return Some(true),
                    Ok(Some("aborted")) => return Some(false),
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) if is_passing(error) => {}
                    // After a fail-over the new primary may never have heard of it.
                    Err(_) => return None,
                }
            }
            pause.wait().await;
        }
        None
    }
}

fn ended(error: sqlx::Error) -> Ended {
    let again = is_passing(&error) || is_undone(&error);
    let problem = fault(error).to_string();
    if again { Ended::Again(problem) } else { Ended::Failed(problem) }
}

/// PostgreSQL undid the transaction for another one's sake. Nothing of ours makes it do so, but a person at a console may.
fn is_undone(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| matches!(&*code, "40001" | "40P01"))
}

fn stripes<'a>(commits: impl Iterator<Item = &'a Commit>) -> BTreeSet<usize> {
    commits.map(|commit| stripe(&commit.tenant)).collect()
}

/// Begins, and waits for the stripes' locks, in their order, so that two calls about several tenants do not wait for each other.
fn begin(locked: &BTreeSet<usize>) -> String {
    use std::fmt::Write as _;
    let mut sql = "BEGIN".to_owned();
    for stripe in locked {
        // Writing to a string cannot fail.
        let _ = write!(sql, "; SELECT pg_advisory_xact_lock({LOCK_SPACE}, {stripe})");
    }
    sql.push_str("; SAVEPOINT part");
    sql
}

/// Takes what waits and fits; a job that ends the group is left over.
fn gather(
    group: &mut Vec<Call>,
    jobs: &mut mpsc::Receiver<Job>,
    left_over: &mut Option<Job>,
    locked: &BTreeSet<usize>,
) {
    let mut count = group.iter().map(|call| call.commits.len()).sum::<usize>();
    let mut size = group.iter().map(|call| bytes(&call.commits)).sum::<usize>();
    while left_over.is_none() && count < GROUP_COMMITS_MAX && size < GROUP_BYTES_MAX {
        match jobs.try_recv() {
            Ok(Job::Commit { commits, answer }) if stripes(commits.iter()).is_subset(locked) => {
                count += commits.len();
                size += bytes(&commits);
                group.push(Call { commits, answer });
            }
            Ok(other) => *left_over = Some(other),
            Err(_) => return,
        }
    }
}

fn bytes(commits: &[Commit]) -> usize {
    let content = |commit: &Commit| {
        commit.dispatch.as_ref().map_or(0, |dispatch| {
            dispatch.document.len() + dispatch.changes.iter().map(|change| change.bytes.len()).sum::<usize>()
        })
    };
    commits.iter().map(content).sum()
}

/// Writes all commits: at once if they can be, else in halves, down to the ones that cannot be written, which fail alone.
/// Each part is a savepoint.
async fn write_all(
    connection: &mut PgConnection,
    identity: &KnownIdentity,
    commits: &[&Commit],
    transaction: &mut String,
) -> Result<Results, Ended> {
    let mut results: Results = Vec::with_capacity(commits.len());
    let mut parts = vec![commits];
    while let Some(part) = parts.pop() {
        let stands = results.last().is_none_or(Result::is_ok);
        match commit::write(connection, identity, part, stands, transaction).await {
            Ok(written) => {
                results.extend(written);
                if !parts.is_empty() {
                    connection.execute("RELEASE part; SAVEPOINT part").await.map_err(ended)?;
                }
            }
            Err(Failure::Fatal(error)) => return Err(ended(error)),
            Err(Failure::Unreadable(error)) => return Err(Ended::Failed(error.to_string())),
            Err(Failure::Refused(refusal)) => {
                connection.execute("ROLLBACK TO part").await.map_err(ended)?;
                match part {
                    [commit] => results.push(Err(commit::explain(connection, commit, refusal).await.map_err(ended)?)),
                    _ => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                }
            }
        }
    }
    Ok(results)
}

fn failed(group: &[Call], problem: &str) -> Results {
    tracing::error!(problem, "a group of commits was not written");
    let count = group.iter().map(|call| call.commits.len()).sum();
    std::iter::repeat_with(|| Err(CommitError::Store(problem.to_owned()))).take(count).collect()
}

fn refuse(job: Job) {
    match job {
        Job::Commit { commits, answer } => {
            let closed = commits.iter().map(|_| Err(CommitError::Store(CLOSED.to_owned()))).collect();
            let _ = answer.send(closed);
        }
        Job::Close { answer } => {
            let _ = answer.send(());
        }
    }
}

/// For [`StoreError`]s met while writing.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error)
    }
}
