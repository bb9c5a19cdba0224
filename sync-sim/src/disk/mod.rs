//! The phone's disk: a folder whose database files lie in memory while a phone uses them, so that a simulated day costs no system
//! calls for them. Each write and sync is counted. At a chosen write the process dies, perhaps in the middle of it, or the
//! disk is full; when the power goes, what was not synced survives in parts.
//!
//! What the store looks at beside SQLite (lengths, the header's bytes, the lock, the install marker) is in the real folder:
//! [`Disk::settle`] writes the closed files there before the store is opened again, and a file is read from there when it is
//! opened for the first time after that.

mod vfs;

pub(crate) use vfs::install;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::RefCell;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::rc::Rc;

thread_local! {
    static DISKS: RefCell<Disks> = const { RefCell::new(Disks { disks: Vec::new(), handles: Vec::new(), spare: Vec::new() }) };
}

/// The disks of a thread, and who has a file of theirs open.
struct Disks {
    disks: Vec<Option<State>>,
    handles: Vec<Option<Open>>,
    /// Room of files that are no more: growing a log anew each time is dear.
    spare: Vec<Vec<u8>>,
}

struct State {
    folder: PathBuf,
    rng: SmallRng,
    /// Writes and syncs so far.
    steps: u64,
    dies_at: Option<u64>,
    full_at: Option<u64>,
    dead: bool,
    /// Whether what is not synced is remembered.
    remembers: bool,
    unsynced: Vec<Unsynced>,
    torn: u64,
    lost: u64,
    refused: u64,
    /// A file that is not here is as it is in the real folder. An open file keeps its place.
    files: Vec<Option<Content>>,
}

/// A file's bytes, and the log's index that its connections share.
struct Content {
    path: Rc<Path>,
    bytes: Vec<u8>,
    /// It is not so in the real folder.
    changed: bool,
    /// There is a file of its name in the real folder.
    real: bool,
    index: Vec<Box<[u64]>>,
}

/// A write that the disk may still lose.
struct Unsynced {
    path: Rc<Path>,
    at: usize,
    before: Vec<u8>,
    length_before: usize,
    /// `None`: the file was cut to `at`.
    after: Option<Vec<u8>>,
}

/// One connection's view of a file.
struct Open {
    disk: usize,
    /// Its place among the disk's files.
    file: usize,
    /// The lock on the file, in SQLite's numbers.
    lock: c_int,
    /// Locks on the log's index, a bit each.
    shared: u32,
    exclusive: u32,
    /// It uses the log's index.
    indexed: bool,
}

/// What the disk did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskCounts {
    pub(crate) steps: u64,
    /// Writes of which a part was written when the process died.
    pub(crate) torn: u64,
    /// Writes that the power took.
    pub(crate) lost: u64,
    /// Writes refused because the disk was full.
    pub(crate) refused: u64,
}

/// One phone's folder.
pub(crate) struct Disk {
    number: usize,
}

impl Disk {
    /// Puts this layer under every database that this thread opens in the folder.
    pub(crate) fn attach(folder: &Path, seed: u64, remembers: bool) -> Self {
        install();
        let state = State {
            folder: folder.to_path_buf(),
            rng: SmallRng::seed_from_u64(seed),
            steps: 0,
            dies_at: None,
            full_at: None,
            dead: false,
            remembers,
            unsynced: Vec::new(),
            torn: 0,
            lost: 0,
            refused: 0,
            files: Vec::new(),
        };
        DISKS.with_borrow_mut(|all| {
            all.disks.push(Some(state));
            Self { number: all.disks.len() - 1 }
        })
    }

    fn with<T: Default>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        DISKS.with_borrow_mut(|all| all.state(self.number).map(work).unwrap_or_default())
    }

    /// The process dies at that many writes from now; 0 is the next one.
    pub(crate) fn dies_in(&self, steps: u32) {
        self.with(|state| state.dies_at = Some(state.steps + u64::from(steps)));
    }

    /// The disk is full after that many writes.
    pub(crate) fn fills_in(&self, steps: u32) {
        self.with(|state| state.full_at = Some(state.steps + u64::from(steps)));
    }

    /// There is room again, and nobody is to die.
    pub(crate) fn heal(&self) {
        self.with(|state| (state.full_at, state.dies_at) = (None, None));
    }

    pub(crate) fn is_full(&self) -> bool {
        self.with(|state| state.full_at.is_some_and(|at| state.steps >= at))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.with(|state| state.dead)
    }

    /// The process is dead from now on: nothing that it still tries reaches the disk.
    pub(crate) fn kill(&self) {
        self.with(|state| state.dead = true);
    }

    /// The process is gone. With the power, of each write that was not synced it is drawn whether it got to the disk.
    pub(crate) fn revive(&self, power: bool) {
        self.with(|state| {
            state.dead = false;
            state.dies_at = None;
            let unsynced = std::mem::take(&mut state.unsynced);
            let mut rng = SmallRng::from_rng(&mut state.rng);
            if power {
                state.lost += lose(&mut state.files, &unsynced, &mut rng);
            }
        });
    }

    /// Writes what is closed into the real folder.
    ///
    /// # Errors
    /// The machine's own disk.
    pub(crate) fn settle(&self) -> std::io::Result<()> {
        DISKS.with_borrow_mut(|all| {
            let Disks { disks, handles, spare } = all;
            let Some(Some(state)) = disks.get_mut(self.number) else { return Ok(()) };
            for (number, place) in state.files.iter_mut().enumerate() {
                if handles.iter().flatten().any(|open| open.disk == self.number && open.file == number) {
                    continue;
                }
                let Some(file) = place.take() else { continue };
                if file.changed {
                    std::fs::write(&file.path, &file.bytes)?;
                }
                keep(spare, file);
            }
            Ok(())
        })
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        self.with(|state| DiskCounts { steps: state.steps, torn: state.torn, lost: state.lost, refused: state.refused })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        DISKS.with_borrow_mut(|all| {
            let state = all.disks.get_mut(self.number).and_then(Option::take);
            for file in state.into_iter().flat_map(|state| state.files).flatten() {
                keep(&mut all.spare, file);
            }
            // A number is given again only when nobody can have it any more.
            if all.disks.iter().all(Option::is_none) && all.handles.iter().all(Option::is_none) {
                all.disks.clear();
                all.handles.clear();
            }
        });
    }
}

impl Disks {
    fn state(&mut self, number: usize) -> Option<&mut State> {
        self.disks.get_mut(number)?.as_mut()
    }

    /// The disk in whose folder the file lies.
    fn disk_of(&self, path: &Path) -> Option<usize> {
        let folder = path.parent()?.as_os_str();
        self.disks.iter().position(|disk| disk.as_ref().is_some_and(|disk| disk.folder.as_os_str() == folder))
    }

    fn open(&mut self, number: usize) -> Option<(&mut Open, &mut State)> {
        let open = self.handles.get_mut(number)?.as_mut()?;
        let state = self.disks.get_mut(open.disk)?.as_mut()?;
        Some((open, state))
    }

    fn content(&mut self, number: usize) -> Option<&mut Content> {
        let (open, state) = self.open(number)?;
        state.files.get_mut(open.file)?.as_mut()
    }

    /// The others that have the same file open.
    fn others(&self, number: usize) -> impl Iterator<Item = &Open> {
        let file = self.handles.get(number).and_then(Option::as_ref).map(|open| (open.disk, open.file));
        let others = self.handles.iter().enumerate().filter(move |(other, _)| *other != number);
        others.filter_map(|(_, open)| open.as_ref()).filter(move |open| Some((open.disk, open.file)) == file)
    }
}

/// Takes all unsynced writes back, then lets some of them happen, whole or in part, in their order.
fn lose(files: &mut [Option<Content>], unsynced: &[Unsynced], rng: &mut SmallRng) -> u64 {
    for write in unsynced.iter().rev() {
        if let Some(file) = named(files, &write.path) {
            file.put(write.at, &write.before);
            file.bytes.resize(write.length_before, 0);
        }
    }
    let mut lost = 0;
    for write in unsynced {
        let Some(file) = named(files, &write.path) else { continue };
        match (&write.after, rng.random_range(0..3)) {
            (Some(after), 0) => file.put(write.at, after),
            (Some(after), 1) => {
                lost += 1;
                let sectors = after.len() / 512;
                let kept = rng.random_range(0..=sectors) * 512;
                file.put(write.at, &after[..kept.min(after.len())]);
            }
            (None, 0) => file.bytes.resize(write.at, 0),
            _ => lost += 1,
        }
    }
    lost
}

fn named<'a>(files: &'a mut [Option<Content>], path: &Path) -> Option<&'a mut Content> {
    files.iter_mut().flatten().find(|file| same(&file.path, path))
}

/// Keeps a file's room for another.
fn keep(spare: &mut Vec<Vec<u8>>, file: Content) {
    if spare.len() < SPARE_MAX {
        let mut bytes = file.bytes;
        bytes.clear();
        spare.push(bytes);
    }
}

/// Letter by letter, which is all that SQLite's names need, and fast.
fn same(one: &Path, other: &Path) -> bool {
    one.as_os_str() == other.as_os_str()
}

impl Content {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.changed = true;
        let end = at.saturating_add(bytes.len());
        if !bytes.is_empty() && end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(at..end) {
            place.copy_from_slice(bytes);
        }
    }
}

/// Files of two or three phones, and their logs.
const SPARE_MAX: usize = 8;

/// What becomes of one step on a disk.
enum Fate {
    Goes,
    /// The process dies here; so much of the write is still done.
    Dies {
        written: usize,
    },
    Dead,
    Full,
}

impl State {
    fn fate(&mut self, bytes: Option<usize>) -> Fate {
        if self.dead {
            return Fate::Dead;
        }
        if self.dies_at.is_some_and(|at| self.steps >= at) {
            self.dead = true;
            let written = bytes.map_or(0, |bytes| match self.rng.random_range(0..3) {
                0 => 0,
                1 => bytes,
                _ => self.rng.random_range(0..=bytes),
            });
            if bytes.is_some_and(|bytes| written > 0 && written < bytes) {
                self.torn += 1;
            }
            return Fate::Dies { written };
        }
        if bytes.is_some() && self.full_at.is_some_and(|at| self.steps >= at) {
            self.refused += 1;
            return Fate::Full;
        }
        self.steps += 1;
        Fate::Goes
    }

    fn place_of(&self, path: &Path) -> Option<usize> {
        self.files.iter().position(|file| file.as_ref().is_some_and(|file| same(&file.path, path)))
    }

    /// Writes, or cuts the file to `at` where there is nothing to write; what was there before is remembered where the power
    /// may still take it.
    fn change(&mut self, file: usize, at: usize, after: Option<&[u8]>) {
        let Some(Some(file)) = self.files.get_mut(file) else { return };
        if self.remembers {
            let end = after.map_or(usize::MAX, |after| at.saturating_add(after.len())).min(file.bytes.len());
            let before = file.bytes.get(at..end).unwrap_or_default().to_vec();
            let (path, length_before) = (Rc::clone(&file.path), file.bytes.len());
            self.unsynced.push(Unsynced { path, at, before, length_before, after: after.map(<[u8]>::to_vec) });
        }
        match after {
            Some(after) => file.put(at, after),
            None => {
                file.changed = true;
                file.bytes.truncate(at);
            }
        }
    }

    fn is_safe(&mut self, path: &Path) {
        self.unsynced.retain(|write| !same(&write.path, path));
    }
}
