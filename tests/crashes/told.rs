//! What a technician was told: one JSON line each, on the disk before the next thing happens. Shared by the phone's process, which writes
//! it, and the story, which holds the server to it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::{Answer, ChecklistItemId, DispatchId, FactId, VisitState};

/// The file of these lines, beside the phone's database.
pub(crate) const TOLD: &str = "told";
/// The file of a [`Seen`], once everything was exchanged.
pub(crate) const SEEN: &str = "seen.json";

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub(crate) enum Told {
    /// The phone is on. What opening its file found.
    Opened { set_aside: Option<String>, restored: bool, quarantined: u64 },
    /// *It is recorded*: the action was taken, durable on the phone.
    Recorded { dispatch: DispatchId, deed: Deed },
    /// *The office has it*: the server has acknowledged it.
    Acknowledged { dispatch: DispatchId, deed: Deed },
    /// *Everything is exchanged.*
    Settled,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Deed {
    Fact { id: FactId, kind: String },
    Note { text: String },
    Answer { item: ChecklistItemId, value: String },
    Summary { text: String },
}

/// What a phone shows when everything is exchanged.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) visits: BTreeMap<DispatchId, SeenVisit>,
}

/// One visit as its technician sees it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeenVisit {
    pub(crate) state: VisitState,
    pub(crate) notes: String,
    pub(crate) summary: Option<String>,
    pub(crate) answers: BTreeMap<ChecklistItemId, Vec<Answer>>,
}

/// The lines of a file. The last one may be torn, where the process was killed as it wrote it, and so may the last before each start.
pub(crate) fn read(text: &str) -> Vec<Told> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
