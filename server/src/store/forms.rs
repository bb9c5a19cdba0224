//! How both databases write what has a name or a rank: one table for the two, because their contents mean the same.

use super::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::domain::plan::Priority;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{Ruling, RulingReason, Verdict, VisitStatus};

/// What an unscheduled visit has for a start: it comes last.
pub(super) const UNSCHEDULED_MS: i64 = i64::MAX;

/// A value that cannot be what this release, or an older one, wrote.
pub(super) fn corrupt(what: &'static str) -> impl Fn(String) -> StoreError {
    move |detail| StoreError::Corrupt { what, detail }
}

/// A JSON column's text.
pub(super) fn to_json<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt(what)(error.to_string()))
}

/// Reads a JSON column's text.
pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(what)(error.to_string()))
}

/// Reads a CBOR column's bytes.
pub(super) fn from_cbor<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    minicbor_serde::from_slice(bytes).map_err(|error| corrupt(what)(error.to_string()))
}

/// A counter's column: databases have signed numbers only.
pub(super) fn counter(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| corrupt("counter")(value.to_string()))
}

/// A position as a database compares it; one beyond its numbers is after everything.
pub(super) fn position(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

/// A status by its stable name.
pub(super) fn status(name: &str) -> Result<VisitStatus, StoreError> {
    VisitStatus::ALL
        .into_iter()
        .find(|status| status.name() == name)
        .ok_or_else(|| corrupt("visit status")(name.to_owned()))
}

const PRIORITIES: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Emergency];

/// Lowest 0.
pub(super) fn priority_rank(priority: Priority) -> i64 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
        Priority::Emergency => 3,
    }
}

/// The priority of a rank.
pub(super) fn priority(rank: i64) -> Result<Priority, StoreError> {
    usize::try_from(rank)
        .ok()
        .and_then(|rank| PRIORITIES.get(rank).copied())
        .ok_or_else(|| corrupt("priority")(rank.to_string()))
}

/// Name in the database; the same as on the wire.
pub(super) fn breach_name(status: BreachStatus) -> &'static str {
    match status {
        BreachStatus::Provisional => "PROVISIONAL",
        BreachStatus::Confirmed => "CONFIRMED",
        BreachStatus::Retracted => "RETRACTED",
    }
}

/// A breach's status by its name.
pub(super) fn breach(name: &str) -> Result<BreachStatus, StoreError> {
    [BreachStatus::Provisional, BreachStatus::Confirmed, BreachStatus::Retracted]
        .into_iter()
        .find(|status| breach_name(*status) == name)
        .ok_or_else(|| corrupt("service-level status")(name.to_owned()))
}

/// Name of a ruling's verdict in the database.
pub(super) fn verdict_name(ruling: &Ruling) -> &'static str {
    match ruling.verdict {
        Verdict::Accepted => "accepted",
        Verdict::Stale => "stale",
        Verdict::Exception => "exception",
    }
}

/// True where the ruling says that the device had used the sequence number before.
pub(super) fn reuses_sequence(ruling: Option<&Ruling>) -> bool {
    ruling.is_some_and(|ruling| ruling.reason == RulingReason::SequenceReused)
}
