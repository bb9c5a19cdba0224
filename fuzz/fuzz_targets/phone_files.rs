//! Phones' files as work, a crash and a restart leave them, and what may befall them afterwards.

#![allow(dead_code, reason = "each target uses its share")]

use crate::store_support::{Office, beside, options, rng, tech, tenant};
use rusqlite::Connection;
use rusqlite::types::Value;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::PathBuf;
use sync_core::domain::{FactKind, TombstoneReason};
use sync_core::protocol::Cursor;
use sync_core::store::{NewEdit, Opened, Store, StoreError};

/// What lies around a database, in the order in which damage names it.
pub const FILES: [&str; 4] = ["", "-wal", ".lock", ".install"];
/// Visits with unsent work, one change each.
pub const WORKED: u32 = 3;

/// The files of a phone, by [`FILES`]; `None` where there is none.
pub type Image = [Option<Vec<u8>>; 4];

/// A folder in which files are put and opened again and again.
pub struct Disk {
    folder: tempfile::TempDir,
    /// Closed in good order, and cut off with everything since the last checkpoint in the log.
    pub closed: Image,
    pub crashed: Image,
}

impl Disk {
    /// Plays the work that the files hold.
    pub fn new() -> Self {
        // In memory where there is such a place: thousands of openings a minute would wear a disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let none = || [None, None, None, None];
        let mut disk = Self { folder, closed: none(), crashed: none() };
        let opened = disk.open(1).unwrap();
        let mut rng = rng(2);
        opened.store.bind_user(&tenant(), &tech(10), &mut rng).unwrap();
        let mut phone = crate::store_support::Phone { store: opened.store, rng, minute: 0 };
        let mut office = Office::new(1..=5);
        phone.primes(&office);
        let gone = office.takes_away(5, TombstoneReason::Cancelled);
        let batch = office.batch(vec![gone]);
        phone.applies(batch);
        phone.states(4, FactKind::Accepted { eta: None });
        phone.pushes(&mut office);
        phone.store.checkpoint().unwrap();
        for visit in 1..WORKED {
            phone.states(visit, FactKind::Accepted { eta: None });
        }
        phone.acts(WORKED, NewEdit::Note { at: 0, delete: 0, insert: "Pump worn".into() });
        assert_eq!((phone.pending(), office.head), (WORKED, 6));
        assert_eq!(phone.store.sync_state().unwrap().cursor, Cursor(6));
        disk.crashed = disk.image();
        phone.store.close().unwrap();
        disk.closed = disk.image();
        // Kept under another name, so that the marker can lie in its own inode again: elsewhere it would tell of a copy.
        fs::hard_link(disk.file(".install"), disk.file(".kept")).unwrap();
        disk
    }

    pub fn file(&self, suffix: &str) -> PathBuf {
        beside(&self.folder.path().join("visits.db"), suffix)
    }

    pub fn image(&self) -> Image {
        FILES.map(|suffix| fs::read(self.file(suffix)).ok())
    }

    /// Puts these files here, and no others.
    pub fn put(&self, image: &Image) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path != self.file(".kept") {
                fs::remove_file(path).unwrap();
            }
        }
        for (suffix, bytes) in FILES.iter().zip(image) {
            let Some(bytes) = bytes else { continue };
            if *suffix == ".install" {
                fs::hard_link(self.file(".kept"), self.file(suffix)).unwrap();
            }
            fs::write(self.file(suffix), bytes).unwrap();
        }
    }

    pub fn open(&self, seed: u64) -> Result<Opened, StoreError> {
        Store::open(&self.file(""), &options(), &mut rng(seed))
    }

    /// Puts bytes in the place of a value that the engine reads, with a right checksum: what another release could have written.
    pub fn rewrite(&self, which: u8, value: &[u8]) {
        let conn = Connection::open(self.file("")).unwrap();
        let blob = Value::Blob(value.to_vec());
        match which % 4 {
            0 => conn.execute("UPDATE phone SET body = ?1, sum = ?2", (blob, sum(&[value]).to_vec())),
            1 => {
                let (start, tag, status): (Option<i64>, i64, String) = conn
                    .query_row(
                        "SELECT scheduled_start_ms, tag, status FROM visits WHERE dispatch_id = 'DSP-1'",
                        [],
                        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                    )
                    .unwrap();
                let start = start.map_or(vec![0; 9], |ms| [&[1][..], &ms.to_be_bytes()].concat());
                let sum = sum(&[b"DSP-1", status.as_bytes(), &start, &[1], &tag.to_be_bytes(), value]);
                conn.execute(
                    "UPDATE visits SET card = ?1, card_sum = ?2 WHERE dispatch_id = 'DSP-1'",
                    (blob, sum.to_vec()),
                )
            }
            2 => {
                type Row = (String, Vec<u8>, Vec<u8>, i64, Vec<u8>);
                let (dispatch, hash, actor, made, change): Row = conn
                    .query_row(
                        "SELECT dispatch_id, hash, actor, made_at_ms, change FROM outbox WHERE dispatch_id = 'DSP-2'",
                        [],
                        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
                    )
                    .unwrap();
                let sum = sum(&[dispatch.as_bytes(), &hash, &actor, &made.to_be_bytes(), value, &change]);
                conn.execute("UPDATE outbox SET edit = ?1, sum = ?2 WHERE dispatch_id = 'DSP-2'", (blob, sum.to_vec()))
            }
            _ => conn.execute("UPDATE tombstones SET body = ?1, sum = ?2", (blob, sum(&[value]).to_vec())),
        }
        .unwrap();
        conn.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
    }
}

/// As the store's checksums are made.
fn sum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..8].try_into().unwrap()
}

/// Damages the files, five bytes at a time: what, where (three bytes), how much.
pub fn damage(image: &mut Image, script: &[u8]) {
    const PAGE: usize = 4_096;
    for step in script.chunks_exact(5).take(32) {
        let file = &mut image[[0, 0, 0, 0, 0, 1, 2, 3][usize::from(step[0] & 7)]];
        let Some(bytes) = file else { continue };
        let at = usize::from(step[1]) << 16 | usize::from(step[2]) << 8 | usize::from(step[3]);
        let (value, length) = (step[4], bytes.len());
        if length == 0 {
            continue;
        }
        let at = at % length;
        match step[0] >> 3 & 7 {
            0 => bytes[at] = value,
            1 => bytes[at] ^= value | 1,
            2 => bytes[at] ^= 1 << (value & 7),
            3 => bytes.truncate(at),
            4 => bytes[at..length.min(at + usize::from(value) * 16)].fill(0),
            5 => {
                // A page that was written to the wrong place.
                let (from, to) = (usize::from(value) * PAGE % length, at / PAGE * PAGE);
                let page = bytes[from..length.min(from + PAGE)].to_vec();
                let room = page.len().min(length - to);
                bytes[to..to + room].copy_from_slice(&page[..room]);
            }
            6 => bytes.extend(std::iter::repeat_n(value, at)),
            _ if value == 0xff => *file = None,
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
}
