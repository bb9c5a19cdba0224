//! What a release left behind: phones' files, frames, a server's databases, events. `record.rs` makes such a folder, `old_versions.rs`
//! replays every one that there is.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by the recorder and the stories"
)]

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use sync_core::document::Edit;
use sync_core::domain::{DispatchId, Timestamp};
use sync_core::store::{DatabaseKey, OpenOptions, Opened, Protection, Store, VisitQuery};

use crate::support::TENANT;
use rand::{SeedableRng as _, rngs::StdRng};

/// The key of the encrypted files.
pub const KEY: [u8; 32] = [0x0b; 32];

/// Every recorded version, oldest first.
pub fn versions() -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(home()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A recording that was cut off begins with a dot.
    found.retain(|path| path.is_dir() && !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    found.sort();
    assert!(!found.is_empty(), "no version is recorded; see CONTRIBUTING.md");
    found
}

pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// What a folder holds: `story.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Story {
    /// The release that wrote it.
    pub version: String,
    /// The server's time at its end, milliseconds since the Unix epoch.
    pub ended_at_ms: i64,
    /// Phones of `server.sqlite`.
    pub phones: Vec<RecordedPhone>,
    /// The phone of `server.sql`.
    pub postgres_phones: Vec<RecordedPhone>,
}

/// A phone's file, and what it must show to whoever opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPhone {
    /// Name of the file in the version's folder.
    pub file: String,
    /// Whose unsent work it holds.
    pub technician: String,
    /// Encrypted with [`KEY`].
    pub encrypted: bool,
    /// Another technician is signed in, and the work is sealed.
    pub sealed: bool,
    /// Visits that it lists, once that technician is signed in.
    pub visits: BTreeSet<String>,
    /// Unsent facts: visit and fact id. Parked ones too.
    pub facts: BTreeSet<(String, String)>,
    /// Other unsent edits: visit and text.
    pub texts: BTreeSet<(String, String)>,
    /// Unsent changes.
    pub pending: u32,
    /// Refused changes among them.
    pub parked: u32,
    /// Visits with a card that says why they left.
    pub cards: BTreeSet<String>,
}

impl RecordedPhone {
    pub fn protection(&self) -> Protection {
        if self.encrypted { Protection::Key(DatabaseKey::from_bytes(&KEY).unwrap()) } else { Protection::Unencrypted }
    }

    /// Reads off an opened store what it shows of the technician's work.
    pub fn of(file: &str, technician: &str, encrypted: bool, store: &Store) -> Self {
        let cards = store.visits(&VisitQuery::default()).unwrap();
        let visits: BTreeSet<_> = cards.iter().map(|card| card.dispatch_id.to_string()).collect();
        let (mut facts, mut texts) = (BTreeSet::new(), BTreeSet::new());
        let mut note = |dispatch: &str, edit: &Edit| match edit {
            Edit::Fact { fact } => drop(facts.insert((dispatch.to_owned(), fact.id.to_string()))),
            Edit::Note { insert, .. } => drop(texts.insert((dispatch.to_owned(), insert.clone()))),
            Edit::Answer { answer, .. } => drop(texts.insert((dispatch.to_owned(), answer.value.clone()))),
            Edit::Summary { text } => drop(texts.insert((dispatch.to_owned(), text.clone()))),
        };
        for visit in &visits {
            let id: DispatchId = visit.parse().unwrap();
            store.visit(&id).unwrap().pending.iter().for_each(|pending| note(visit, &pending.edit));
        }
        let parked = store.parked().unwrap();
        parked.iter().for_each(|item| note(item.dispatch.as_str(), &item.edit));
        Self {
            file: file.to_owned(),
            technician: technician.to_owned(),
            encrypted,
            sealed: false,
            visits,
            facts,
            texts,
            pending: store.outbox_mark().unwrap().pending,
            parked: u32::try_from(parked.len()).unwrap(),
            cards: store.tombstones().unwrap().iter().map(|card| card.tombstone.dispatch_id.to_string()).collect(),
        }
    }
}

pub fn open(path: &Path, protection: Protection, now: Timestamp, seed: u64) -> Opened {
    let options = OpenOptions { app: "story 1.0".into(), now, protection };
    Store::open(path, &options, &mut StdRng::seed_from_u64(seed)).unwrap()
}

/// Signs a technician in.
pub fn bind(store: &Store, technician: &str, seed: u64) {
    let technician = technician.parse().unwrap();
    store.bind_user(&TENANT.parse().unwrap(), &technician, &mut StdRng::seed_from_u64(seed)).unwrap();
}

/// Makes the file at `path` believe that it was never copied, as one that an update of the app finds: the install marker that it
/// remembers lies beside it, in the inode that it remembers.
///
/// The row is patched as bytes. A later release may keep it in another form; then this learns that form, and keeps the present one.
pub fn settle(path: &Path, phone: &RecordedPhone) {
    let conn = Connection::open(path).unwrap();
    if phone.encrypted {
        let key: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        conn.execute_batch(&format!("PRAGMA key = \"x'{key}'\"")).unwrap();
    }
    let body: Vec<u8> = conn.query_row("SELECT body FROM phone", [], |row| row.get(0)).unwrap();
    // CBOR: a text of 7 bytes; then one of 32 bytes, with its length in a byte of its own.
    let at = after(&body, b"\x67install");
    assert_eq!(body[at..at + 2], [0x78, 32], "the marker is 32 letters");
    let marker = PathBuf::from(format!("{}.install", path.display()));
    std::fs::write(&marker, &body[at + 2..at + 34]).unwrap();
    let at = after(&body, b"\x6cmarker_inode");
    let length = match body[at] {
        0x18 => 2,
        0x19 => 3,
        0x1a => 5,
        0x1b => 9,
        other => panic!("no inode was recorded: {other:#x}"),
    };
    let inode = inode(&marker);
    let patched = [&body[..at], &[0x1b], &inode.to_be_bytes(), &body[at + length..]].concat();
    let mut hash = Sha256::new();
    hash.update((patched.len() as u64).to_be_bytes());
    hash.update(&patched);
    let sum = &hash.finalize()[..8];
    assert_eq!(conn.execute("UPDATE phone SET body = ?1, sum = ?2", (&patched, sum)).unwrap(), 1);
    conn.close().unwrap();
}

fn after(body: &[u8], key: &[u8]) -> usize {
    body.windows(key.len()).position(|window| window == key).expect("the row has it") + key.len()
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().ino()
}
