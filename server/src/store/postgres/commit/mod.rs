//! Writing commits together.
//!
//! A statement costs a round trip and a start, however little it does; so the number of statements does not depend on the
//! number of commits. First one look reads every row that decides anything ([`look`]); nobody else writes for these tenants now.
//! Then the commits are applied one after the other to what was found, in memory ([`apply`]): what one of them did, the next one
//! meets. Then the outcome is written, each table once, nearly all of it in one statement ([`flush`], [`statement`]).
//!
//! What only the database can refuse (an overlap, a natural key) fails the statement; the caller then writes the halves. So
//! two visits whose bookings change places in one group both succeed, as they should.

mod apply;
mod flush;
mod look;
mod statement;

use super::KnownIdentity;
use super::rows::{id, is_passing};
use crate::service::commit::{Commit, CommitError, Committed};
use crate::store::{BEFORE_IT, StoreError, forms};
use apply::Writes;
use sqlx::PgConnection;
use std::sync::PoisonError;

#[cfg(test)]
pub(super) use flush::{BOOKED_BY, BOOKINGS_GONE, MARK_DELIVERED};
#[cfg(test)]
pub(super) use look::{LOOK, LOOK_AT_DEVICES};
#[cfg(test)]
pub(super) use statement::whole;

pub(super) const REMEMBERED: &str =
    "SELECT key, request_hash, status, etag, body FROM idempotency_keys WHERE tenant = $1 AND key = $2";

/// Why commits were not written.
#[derive(Debug)]
pub(super) enum Failure {
    /// One of them cannot be written as it is.
    Refused(sqlx::Error),
    /// The database's fault.
    Fatal(sqlx::Error),
    /// A row that makes no sense.
    Unreadable(StoreError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        // Class 21, 22, 23: the data, or a rule; 54: too large for an index; P0: a trigger. All others are no commit's fault.
        let refused = ["21", "22", "23", "54", "P0"].iter().any(|class| code.starts_with(class));
        if refused && !is_passing(&error) { Self::Refused(error) } else { Self::Fatal(error) }
    }
}

/// Writes commits, and says which transaction it is; `stands`: the one before them was written. On an error the caller undoes the
/// savepoint.
pub(super) async fn write(
    connection: &mut PgConnection,
    identity: &KnownIdentity,
    commits: &[&Commit],
    mut stands: bool,
    transaction: &mut String,
) -> Result<Vec<Result<Committed, CommitError>>, Failure> {
    let mut found = look::look(connection, commits).await?;
    transaction.clone_from(&found.transaction);
    let known = *identity.read().unwrap_or_else(PoisonError::into_inner);
    if known != found.identity {
        // The database was restored under a running node, and told so: what was decided may carry the former actor.
        *identity.write().unwrap_or_else(PoisonError::into_inner) = found.identity;
        return Ok(commits.iter().map(|_| Err(CommitError::Conflict("database's identity"))).collect());
    }
    let mut writes = Writes::default();
    let mut results = Vec::with_capacity(commits.len());
    for commit in commits {
        let result = match commit.follows && !stands {
            true => Err(CommitError::Conflict(BEFORE_IT)),
            false => apply::apply(commit, &mut found, &mut writes)?,
        };
        stands = result.is_ok();
        results.push(result);
    }
    flush::flush(connection, &found, &writes).await?;
    Ok(results)
}

/// What the database's refusal of this one commit means.
pub(super) async fn explain(
    connection: &mut PgConnection,
    commit: &Commit,
    refusal: sqlx::Error,
) -> Result<CommitError, sqlx::Error> {
    let constraint = refusal.as_database_error().and_then(|error| error.constraint()).unwrap_or_default();
    Ok(match constraint {
        "bookings_overlap" => match flush::booked_by(connection, commit).await? {
            Some(row) => match (id(&row, 0), id(&row, 1)) {
                (Ok(technician), Ok(dispatch)) => CommitError::Overlap { technician, dispatch },
                (Err(error), _) | (_, Err(error)) => CommitError::Store(error.to_string()),
            },
            None => CommitError::Store(refusal.to_string()),
        },
        "dispatches_pkey" => CommitError::Conflict("dispatch"),
        "dispatches_tenant_service_order_id_key" => CommitError::AlreadyDone("service order"),
        "changes_tenant_dispatch_id_hash_key" => CommitError::AlreadyDone("change"),
        "facts_sequence" => CommitError::Conflict("device's sequence"),
        "facts_serial_accepted" => CommitError::Conflict("serial number"),
        "events_tenant_event_id_key" => CommitError::AlreadyDone("event"),
        flush::FACT_KNOWN => CommitError::AlreadyDone("fact"),
        _ => CommitError::Store(refusal.to_string()),
    })
}

/// A remembered answer's status.
pub(super) fn http_status(value: i64) -> Result<u16, StoreError> {
    u16::try_from(value).map_err(|_| forms::corrupt("status of an answer")(value.to_string()))
}
