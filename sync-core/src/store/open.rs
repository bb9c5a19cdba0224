//! Opening: what is set aside, and the identity of this install.

use super::connect::{connect, connect_reader};
use super::files::{CLOSED, FileLock, OPEN, ROOM, beside, file_error, find_room_for_another, length, log_is_empty};
use super::inspect::{Unusable, usable};
use super::key::{Found, look};
use super::phone::{Phone, random_hex};
use super::rows::{OpenVisits, digest_of_rows};
use super::schema::run_migrations;
use super::state::checkpoint;
use super::user::rewrite;
use super::{DatabaseKey, Protection, Store, StoreError, Tx, Writer, damage, outbox, schema, transact};
use crate::domain::Timestamp;
use rusqlite::Connection;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// How to open.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// App name and version, for the dispatcher's device list.
    pub app: String,
    /// The phone's wall time: names what is set aside.
    pub now: Timestamp,
    /// Whether the file is encrypted at rest.
    pub protection: Protection,
}

/// An opened store, and what was found on the way.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What the user or the office should hear of.
    pub report: OpenReport,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The file that was there could not be used: it was renamed, and a new store lies in its place.
    pub set_aside: Option<SetAside>,
    /// The store is new: nothing was there, or what was there was set aside.
    pub created: bool,
    /// The file is a copy, from a backup or another phone: it has a new device id, and everything is fetched anew.
    pub restored: bool,
    /// The schema version that the file had, when it was older than this release's.
    pub migrated_from: Option<u32>,
    /// Rows whose checksum is wrong, kept aside so far.
    pub rows_quarantined: u64,
}

/// A file that was renamed, never deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where the database file is now; its `-wal` and `-shm` lie beside it.
    pub path: PathBuf,
    /// Why.
    pub reason: SetAsideReason,
}

/// Why a file could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAsideReason {
    /// Made by a newer release.
    Newer {
        /// Its schema version.
        found: u32,
        /// The newest that this release knows.
        known: u32,
    },
    /// Not a database, truncated, or malformed. The text is for the log.
    Corrupt(String),
}

/// Set-aside files made within one second at most.
const SET_ASIDE_NAMES_MAX: u32 = 10_000;

impl Store {
    /// Opens the database at `path`, making it if there is none. Beside it lie `<path>.lock` and `<path>.install`; leave the
    /// latter out of backups, so that a restored copy is known for one.
    ///
    /// # Errors
    /// [`StoreError::AlreadyOpen`], [`StoreError::WrongKey`], [`StoreError::Encrypted`], [`StoreError::NotEncrypted`],
    /// [`StoreError::NoCipher`], or the disk's: nothing was touched. A file that cannot be used is no error: it is set aside
    /// and reported.
    pub fn open(path: &Path, options: &OpenOptions, rng: &mut dyn rand::Rng) -> Result<Opened, StoreError> {
        let store = Self {
            writer: Mutex::new(None),
            reader: Mutex::new(None),
            suspect: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
            path: path.to_path_buf(),
            app: options.app.clone(),
            protection: Mutex::new(options.protection.clone()),
        };
        let report = store.reopen(options.now, rng)?;
        Ok(Opened { store, report })
    }

    /// Opens the store again after [`Self::close`]; nothing is done when it is open. `now` is the phone's wall time.
    ///
    /// # Errors
    /// As [`Self::open`]; the store stays closed.
    pub fn reopen(&self, now: Timestamp, rng: &mut dyn rand::Rng) -> Result<OpenReport, StoreError> {
        let mut slot = self.writer();
        if slot.is_some() {
            return Ok(OpenReport::default());
        }
        if self.destroyed.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        let path = self.path.as_path();
        let protection = self.protection();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(file_error("making the store's folder"))?;
        }
        let mut lock = FileLock::take(path)?;
        let trusted = lock.was_closed()? && log_is_empty(path);
        lock.write(OPEN)?;
        // What a change of the key that was cut off had looked for. It holds zeros, and whoever writes it has the lock; where it
        // cannot be removed, what follows says what is wrong with the folder.
        let _ = std::fs::remove_file(beside(path, ROOM));
        // Damage that a trusted file shows while it is taken into use may be such as a reading of the whole mends: an index that lacks rows.
        let taken = match take_up(path, trusted, &protection, rng) {
            Err(Unusable::Unfit(SetAsideReason::Corrupt(_))) if trusted => take_up(path, false, &protection, rng),
            other => other,
        };
        let (taken, set_aside) = match taken {
            Ok(taken) => (taken, None),
            Err(Unusable::Error(error)) => return Err(error),
            Err(Unusable::Unfit(reason)) => {
                let aside = set_aside(path, reason, now)?;
                (take_up(path, false, &protection, rng).map_err(StoreError::from)?, Some(aside))
            }
        };
        let Taken { conn, reader, phone, pending, report } = taken;
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        *slot = Some(Writer { conn, phone, open: OpenVisits::default(), pending, lock });
        Ok(OpenReport { set_aside, ..report })
    }

    /// True when something lies at `path`; its key must be kept then.
    ///
    /// # Errors
    /// The disk's.
    pub fn exists(path: &Path) -> Result<bool, StoreError> {
        let database = length(path).map_err(file_error("looking at the store"))?;
        Ok(database > 0 || !log_is_empty(path))
    }

    /// True when a database lies at `path` that is not encrypted.
    ///
    /// # Errors
    /// The disk's.
    pub fn is_in_the_clear(path: &Path) -> Result<bool, StoreError> {
        Ok(look(path).map_err(file_error("looking at the store"))? == Found::Plain)
    }

    /// Encrypts everything anew, in one transaction: cut off, the former key still opens the file.
    ///
    /// # Errors
    /// [`StoreError::NotEncrypted`] when the store was opened without a key, [`StoreError::DiskFull`], or the disk's; the former
    /// key stays. Where the file cannot even be opened again, the store is closed.
    pub fn change_key(&self, key: &DatabaseKey) -> Result<(), StoreError> {
        let mut slot = self.writer();
        let former = self.protection();
        let Some(writer) = slot.as_ref() else { return Err(StoreError::Closed) };
        if former == Protection::Unencrypted {
            return Err(StoreError::NotEncrypted);
        }
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // It knows the former key only, and would hold up the log.
        drop(reader.take());
        let told = checkpoint(&writer.conn)
            .map_err(StoreError::from)
            .and_then(|()| find_room_for_another(&self.path))
            .and_then(|()| key.take_over(&writer.conn));
        // SQLCipher says that all went well when the disk had refused, and then goes on under the new key on a file that has the
        // former one. So its word counts for nothing: connections that begin anew find out which key the file has.
        let Some(Writer { conn, phone, open, pending, lock }) = slot.take() else { return Err(StoreError::Closed) };
        drop(conn);
        let connections = |protection: &Protection| {
            let conn = connect(&self.path, protection)?;
            Ok::<_, StoreError>((conn, connect_reader(&self.path, protection)?))
        };
        let fresh = Protection::Key(key.clone());
        let (changed, (conn, fresh_reader)) = match connections(&fresh) {
            Ok(both) => (true, both),
            Err(StoreError::WrongKey) => (false, connections(&former)?),
            Err(error) => return Err(error),
        };
        if changed {
            *self.protection.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        *reader = Some(fresh_reader);
        let writer = slot.insert(Writer { conn, phone, open, pending, lock });
        if changed {
            // The log may hold pages under the former key.
            return Ok(checkpoint(&writer.conn)?);
        }
        told.and(Err(StoreError::Database("the disk refused the pages under the new key".into())))
    }

    /// Closes the store and removes its file for good, with everything in it. Only for a phone that was wiped and whose
    /// unsent work is with the server.
    ///
    /// # Errors
    /// The disk's.
    pub fn destroy(&self) -> Result<(), StoreError> {
        let mut slot = self.writer();
        // Whoever wakes it up must not make a new file under the former key.
        self.destroyed.store(true, Ordering::Relaxed);
        drop(self.reader.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The lock is held until everything is gone.
        let lock = slot.take().map(|Writer { conn, lock, .. }| {
            drop(conn);
            lock
        });
        for suffix in ["-wal", "-shm", "", ".install"] {
            match std::fs::remove_file(beside(&self.path, suffix)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(file_error("removing the store")(error)),
            }
        }
        drop(lock);
        Ok(())
    }

    pub(super) fn protection(&self) -> Protection {
        self.protection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lengths of the database file and of its write-ahead log; 0 where there is none.
    pub(super) fn file_lengths(&self) -> (u64, u64) {
        (length(&self.path).unwrap_or(0), length(&beside(&self.path, "-wal")).unwrap_or(0))
    }

    /// Writes everything into the database file, closes it and lets go of its lock, as when the app is closed or sent to
    /// sleep. From then on every call is [`StoreError::Closed`], until [`Self::reopen`]. Dropping the store is safe as well,
    /// and costs the next opening a check of the file.
    ///
    /// # Errors
    /// The disk's; what was acknowledged is safe in the write-ahead log. The store is closed all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let mut slot = self.writer();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What is bound last is dropped first: an error lets go of the lock after the connection.
        let Some(Writer { mut lock, conn, .. }) = slot.take() else { return Ok(()) };
        if let Some(reader) = reader {
            reader.close().map_err(|(_, error)| error)?;
        }
        checkpoint(&conn)?;
        conn.close().map_err(|(_, error)| error)?;
        if !self.suspect.swap(false, Ordering::Relaxed) {
            lock.write(CLOSED)?;
        }
        Ok(())
    }
}

/// A file that was taken into use.
struct Taken {
    conn: Connection,
    reader: Connection,
    phone: Phone,
    pending: u32,
    report: OpenReport,
}

/// Opens what is there, or makes what is not, up to the point where the store is ready. Everything that reads of the file what
/// opening needs is in here, so that damage met on the way has the file set aside at once, not at the next opening.
fn take_up(path: &Path, trusted: bool, protection: &Protection, rng: &mut dyn rand::Rng) -> Result<Taken, Unusable> {
    let mut conn = usable(path, trusted, protection)?;
    let from = schema::version(&conn)?;
    let mut report = OpenReport {
        created: from == 0,
        migrated_from: (0 < from && from < schema::VERSION).then_some(from),
        ..OpenReport::default()
    };
    run_migrations(&mut conn, from, schema::VERSION)?;
    // Read before anything is written: what is set aside then is as it was.
    let digest = digest_of_rows(&conn)?;
    let mut pending = outbox::count_pending(&conn)?;
    let lost = outbox::rows_in_no_state(&conn)?;
    damage::quarantined(&conn)?;
    // The index alone would do for counting; the rows themselves are what must be there.
    conn.query_row("SELECT count(hash) FROM outbox WHERE state <> 'acknowledged'", [], |row| row.get::<_, i64>(0))?;
    let mut phone = identify(&mut conn, path, &mut report, rng)?;
    // A row that was lost without a word shows in the comparison with the server then, and is fetched.
    if digest != phone.digest {
        phone.digest = digest;
        phone.save(&conn)?;
    }
    if !lost.is_empty() {
        let mut open = OpenVisits::default();
        transact(&mut conn, &mut phone, &mut open, &mut pending, |tx| {
            lost.iter().try_for_each(|id| tx.quarantine_outbox(*id))
        })?;
    }
    report.rows_quarantined = damage::quarantined(&conn)?;
    if phone.farewell.is_some() {
        // The wipe may have been cut off before what it had freed was gone. What a full disk prevents here the farewell tries again.
        let _ = rewrite(&conn);
    }
    let reader = connect_reader(path, protection)?;
    Ok(Taken { conn, reader, phone, pending, report })
}

/// Renames the database and its companions. The database goes first: a crash in between leaves a log without a database,
/// which is set aside too, and never a database that has silently lost its log.
fn set_aside(path: &Path, reason: SetAsideReason, now: Timestamp) -> Result<SetAside, StoreError> {
    let stamp: String = now.to_string().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let taken = |to: &Path| ["", "-wal", "-shm"].iter().any(|suffix| beside(to, suffix).exists());
    let to = (1..=SET_ASIDE_NAMES_MAX)
        .map(|n| beside(path, &format!(".set-aside-{stamp}-{n}")))
        .find(|to| !taken(to))
        .ok_or_else(|| StoreError::Database("no name is free for the file to be set aside".into()))?;
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::rename(beside(path, suffix), beside(&to, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error("setting a database aside")(error)),
        }
    }
    Ok(SetAside { path: to, reason })
}

/// Reads who this install is, and finds out whether the file is a copy: the marker beside it must be the one that the
/// database remembers, in the same inode.
fn identify(
    conn: &mut Connection,
    path: &Path,
    report: &mut OpenReport,
    rng: &mut dyn rand::Rng,
) -> Result<Phone, StoreError> {
    let marker = beside(path, ".install");
    let stored = Phone::load(conn)?;
    if let Some(phone) = &stored
        && std::fs::read_to_string(&marker).is_ok_and(|text| text == phone.install)
        && inode(&marker) == phone.marker_inode
    {
        return Ok(phone.clone());
    }
    report.restored = !report.created;
    let mut phone = match stored {
        Some(mut phone) => {
            phone.renew(rng)?;
            phone.install = random_hex(rng);
            phone
        }
        None => Phone::new(rng)?,
    };
    // The marker first: a crash before the row is written leaves a mismatch, and this is done again.
    let fresh = beside(path, ".install-new");
    std::fs::write(&fresh, &phone.install)
        .and_then(|()| File::open(&fresh)?.sync_all())
        .and_then(|()| std::fs::rename(&fresh, &marker))
        .map_err(file_error("writing the install marker"))?;
    phone.marker_inode = inode(&marker);
    phone.start_over();
    let sql = conn.transaction()?;
    let mut open = OpenVisits::default();
    let mut tx = Tx { sql: &sql, phone, open: &mut open, pending: 0 };
    tx.rebase_lanes_if_copied()?;
    tx.sql.execute("DELETE FROM sealed_identities", [])?;
    tx.recompute_digest()?;
    let phone = tx.phone;
    phone.save(&sql)?;
    sql.commit()?;
    Ok(phone)
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|data| data.ino())
}

#[cfg(not(unix))]
fn inode(_: &Path) -> Option<u64> {
    None
}
