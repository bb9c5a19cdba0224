//! The phone's disk: the shipped store works on real files, and this layer under SQLite counts what it writes. At a chosen
//! write the process dies, perhaps in the middle of it, or the disk is full; when the power goes, what was not synced
//! survives in parts.
//!
//! **Safety.** The only unsafe code of the crate. It registers a VFS that is the platform's own one with three file methods
//! (write, truncate, sync) and two VFS methods (open, delete) in front. What holds it together:
//! - SQLite gives every open file `szOsFile` bytes. Ours is the platform's size, rounded up, plus an [`Extra`] behind it, so
//!   the platform's methods find their own structure where they expect it.
//! - The method tables and the VFS itself are leaked: they live as long as the process.
//! - A file is in front of which this layer stands only when its folder was [`Disk::attach`]ed on the same thread, and the
//!   phone's connections never leave the thread; all state is thread-local, so there is nothing to race for.
//! - No callback unwinds: none has an index, an arithmetic or a borrow that can fail (each borrow ends within the callback,
//!   and no callback calls back into SQLite's public interface).
#![allow(unsafe_code, reason = "a VFS is a table of C functions; see the module's words on safety")]

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::ffi;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

thread_local! {
    static DISKS: RefCell<BTreeMap<PathBuf, State>> = const { RefCell::new(BTreeMap::new()) };
    static FILES: RefCell<Vec<(PathBuf, PathBuf)>> = const { RefCell::new(Vec::new()) };
}

struct State {
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
}

/// A write that the disk may still lose.
struct Unsynced {
    path: PathBuf,
    at: u64,
    before: Vec<u8>,
    length_before: u64,
    /// `None`: the file was cut to `at`.
    after: Option<Vec<u8>>,
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
    folder: PathBuf,
}

impl Disk {
    /// Puts this layer under every database that this thread opens in the folder.
    pub(crate) fn attach(folder: &Path, seed: u64, remembers: bool) -> Self {
        install();
        let state = State {
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
        };
        DISKS.with_borrow_mut(|disks| disks.insert(folder.to_path_buf(), state));
        Self { folder: folder.to_path_buf() }
    }

    fn with<T: Default>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        DISKS.with_borrow_mut(|disks| disks.get_mut(&self.folder).map(work).unwrap_or_default())
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
        let (unsynced, mut rng) = self.with(|state| {
            state.dead = false;
            (state.dies_at, state.full_at) = (None, state.full_at);
            (std::mem::take(&mut state.unsynced), Some(SmallRng::from_rng(&mut state.rng)))
        });
        let Some(rng) = rng.as_mut().filter(|_| power) else { return };
        let lost = lose(&unsynced, rng);
        self.with(|state| state.lost += lost);
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        self.with(|state| DiskCounts { steps: state.steps, torn: state.torn, lost: state.lost, refused: state.refused })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        DISKS.with_borrow_mut(|disks| disks.remove(&self.folder));
        // The folder's files are closed: their numbers go with the last folder.
        if DISKS.with_borrow(BTreeMap::is_empty) {
            FILES.with_borrow_mut(Vec::clear);
        }
    }
}

/// Takes all unsynced writes back, then lets some of them happen, whole or in part, in their order.
fn lose(unsynced: &[Unsynced], rng: &mut SmallRng) -> u64 {
    for write in unsynced.iter().rev() {
        if let Ok(file) = File::options().write(true).open(&write.path) {
            // What cannot be put back was never there.
            let _ = file.write_all_at(&write.before, write.at);
            let _ = file.set_len(write.length_before);
        }
    }
    let mut lost = 0;
    for write in unsynced {
        let Ok(file) = File::options().write(true).open(&write.path) else { continue };
        match (&write.after, rng.random_range(0..3)) {
            (Some(after), 0) => drop(file.write_all_at(after, write.at)),
            (Some(after), 1) => {
                lost += 1;
                let sectors = after.len() / 512;
                let kept = rng.random_range(0..=sectors) * 512;
                drop(file.write_all_at(&after[..kept.min(after.len())], write.at));
            }
            (None, 0) => drop(file.set_len(write.at)),
            _ => lost += 1,
        }
    }
    lost
}

/// Behind the platform's own structure of a file.
#[repr(C)]
struct Extra {
    methods: *const ffi::sqlite3_io_methods,
    file: usize,
}

struct Platform {
    vfs: *mut ffi::sqlite3_vfs,
    /// Where [`Extra`] lies in a file.
    offset: usize,
}

// The platform's VFS is a constant table once it is registered.
unsafe impl Send for Platform {}
unsafe impl Sync for Platform {}

static PLATFORM: OnceLock<Platform> = OnceLock::new();

fn install() {
    PLATFORM.get_or_init(|| {
        // SAFETY: the library is initialised by the first call; the VFS that it answers lives for ever. Ours is a copy of it
        // that is never freed, so SQLite may keep the pointer.
        unsafe {
            ffi::sqlite3_initialize();
            let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
            let size = usize::try_from((*vfs).szOsFile).unwrap_or(0);
            let offset = size.next_multiple_of(align_of::<Extra>());
            let ours = Box::leak(Box::new(std::ptr::read(vfs)));
            ours.szOsFile = c_int::try_from(offset + size_of::<Extra>()).unwrap_or(c_int::MAX);
            ours.pNext = std::ptr::null_mut();
            ours.zName = c"sync-sim".as_ptr();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            ffi::sqlite3_vfs_register(ours, 1);
            Platform { vfs, offset }
        }
    });
}

/// The folder of a database file, when this thread watches it.
unsafe fn watched(name: *const c_char) -> Option<(PathBuf, PathBuf)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero byte.
    let path = PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let folder = path.parent()?.to_path_buf();
    DISKS.with_borrow(|disks| disks.contains_key(&folder)).then_some((folder, path))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(platform) = PLATFORM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the platform's open is given its own VFS, and a file of at least its own size.
    unsafe {
        let Some(real) = (*platform.vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let result = real(platform.vfs, name, file, flags, out_flags);
        if result == ffi::SQLITE_OK
            && !(*file).pMethods.is_null()
            && let Some(place) = watched(name)
        {
            let number = FILES.with_borrow_mut(|files| {
                files.iter().position(|known| *known == place).unwrap_or_else(|| {
                    files.push(place);
                    files.len() - 1
                })
            });
            let methods = (*file).pMethods;
            extra(file).write(Extra { methods, file: number });
            (*file).pMethods = ours(methods);
        }
        result
    }
}

/// The platform's methods with ours in front; one table for each of the platform's.
unsafe fn ours(methods: *const ffi::sqlite3_io_methods) -> *const ffi::sqlite3_io_methods {
    thread_local! {
        static TABLES: RefCell<Vec<(usize, &'static ffi::sqlite3_io_methods)>> = const { RefCell::new(Vec::new()) };
    }
    TABLES.with_borrow_mut(|tables| {
        let key = methods as usize;
        if let Some((_, known)) = tables.iter().find(|(known, _)| *known == key) {
            return std::ptr::from_ref(*known);
        }
        // SAFETY: the platform's table is a constant.
        let mut table = unsafe { std::ptr::read(methods) };
        table.xWrite = Some(write);
        table.xTruncate = Some(truncate);
        table.xSync = Some(sync);
        let table: &'static _ = Box::leak(Box::new(table));
        tables.push((key, table));
        std::ptr::from_ref(table)
    })
}

unsafe fn extra(file: *mut ffi::sqlite3_file) -> *mut Extra {
    let offset = PLATFORM.get().map_or(0, |platform| platform.offset);
    // SAFETY: every file has `offset + size_of::<Extra>()` bytes, and the offset is aligned.
    unsafe { file.cast::<u8>().add(offset).cast() }
}

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

fn fate(folder: &Path, bytes: Option<usize>) -> Fate {
    DISKS.with_borrow_mut(|disks| {
        let Some(state) = disks.get_mut(folder) else { return Fate::Goes };
        if state.dead {
            return Fate::Dead;
        }
        if state.dies_at.is_some_and(|at| state.steps >= at) {
            state.dead = true;
            let written = bytes.map_or(0, |bytes| match state.rng.random_range(0..3) {
                0 => 0,
                1 => bytes,
                _ => state.rng.random_range(0..=bytes),
            });
            if bytes.is_some_and(|bytes| written > 0 && written < bytes) {
                state.torn += 1;
            }
            return Fate::Dies { written };
        }
        if bytes.is_some() && state.full_at.is_some_and(|at| state.steps >= at) {
            state.refused += 1;
            return Fate::Full;
        }
        state.steps += 1;
        Fate::Goes
    })
}

fn place(number: usize) -> Option<(PathBuf, PathBuf)> {
    FILES.with_borrow(|files| files.get(number).cloned())
}

/// Remembers what is there before a write, where that may be needed.
fn remember(folder: &Path, path: &Path, at: u64, length: usize, after: Option<Vec<u8>>) {
    let wanted = DISKS.with_borrow(|disks| disks.get(folder).is_some_and(|state| state.remembers));
    if !wanted {
        return;
    }
    let Ok(file) = File::open(path) else { return };
    let length_before = file.metadata().map_or(0, |data| data.len());
    let there = length_before.saturating_sub(at).min(length as u64);
    let mut before = vec![0; usize::try_from(there).unwrap_or(0)];
    if file.read_exact_at(&mut before, at).is_ok() {
        let write = Unsynced { path: path.to_path_buf(), at, before, length_before, after };
        DISKS.with_borrow_mut(|disks| {
            if let Some(state) = disks.get_mut(folder) {
                state.unsynced.push(write);
            }
        });
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: this method stands in files that `open` has given an `Extra`; SQLite gives `amount` bytes at `data`.
    unsafe {
        let Extra { methods, file: number } = extra(file).read();
        let (Some(real), Some((folder, path))) = ((*methods).xWrite, place(number)) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(amount).unwrap_or(0));
        let go = |amount: usize| {
            remember(&folder, &path, at.cast_unsigned(), amount, Some(bytes[..amount].to_vec()));
            real(file, data, c_int::try_from(amount).unwrap_or(0), at)
        };
        match fate(&folder, Some(bytes.len())) {
            Fate::Goes => go(bytes.len()),
            Fate::Dies { written } => {
                if written > 0 {
                    go(written);
                }
                ffi::SQLITE_IOERR_WRITE
            }
            Fate::Dead => ffi::SQLITE_IOERR_WRITE,
            Fate::Full => ffi::SQLITE_FULL,
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: as in `write`.
    unsafe {
        let Extra { methods, file: number } = extra(file).read();
        let (Some(real), Some((folder, path))) = ((*methods).xTruncate, place(number)) else {
            return ffi::SQLITE_IOERR_TRUNCATE;
        };
        match fate(&folder, None) {
            Fate::Goes => {
                remember(&folder, &path, size.cast_unsigned(), usize::MAX, None);
                real(file, size)
            }
            _ => ffi::SQLITE_IOERR_TRUNCATE,
        }
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: as in `write`.
    unsafe {
        let Extra { file: number, .. } = extra(file).read();
        let Some((folder, path)) = place(number) else { return ffi::SQLITE_IOERR_FSYNC };
        match fate(&folder, None) {
            // The machine does not lose its power: what is written is there. What the simulated one has synced is safe.
            Fate::Goes => {
                DISKS.with_borrow_mut(|disks| {
                    if let Some(state) = disks.get_mut(&folder) {
                        state.unsynced.retain(|write| write.path != path);
                    }
                });
                ffi::SQLITE_OK
            }
            _ => ffi::SQLITE_IOERR_FSYNC,
        }
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let Some(platform) = PLATFORM.get() else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: the platform's method is given its own VFS and SQLite's name.
    unsafe {
        let Some(real) = (*platform.vfs).xDelete else { return ffi::SQLITE_IOERR_DELETE };
        if let Some((folder, path)) = watched(name) {
            if !matches!(fate(&folder, None), Fate::Goes) {
                return ffi::SQLITE_IOERR_DELETE;
            }
            DISKS.with_borrow_mut(|disks| {
                if let Some(state) = disks.get_mut(&folder) {
                    state.unsynced.retain(|write| write.path != path);
                }
            });
        }
        real(platform.vfs, name, sync_folder)
    }
}
