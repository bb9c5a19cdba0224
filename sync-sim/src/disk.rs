//! The phone's disk: a folder whose database files lie in memory while a phone uses them, so that a simulated day costs no system
//! calls for them. Each write and sync is counted. At a chosen write the process dies, perhaps in the middle of it, or the
//! disk is full; when the power goes, what was not synced survives in parts.
//!
//! What the store looks at beside SQLite (lengths, the header's bytes, the lock, the install marker) is in the real folder:
//! [`Disk::settle`] writes the closed files there before the store is opened again, and a file is read from there when it is
//! opened for the first time after that.
//!
//! **Safety.** It registers a VFS that is the platform's own one with `open`, `delete` and
//! `access` in front; a database file of an attached folder gets the methods below instead of the platform's. What holds it
//! together:
//! - SQLite gives every open file `szOsFile` bytes; ours is at least a [`Handle`], and the platform's own size.
//! - The VFS is leaked and the method table is a constant: both live as long as the process.
//! - A file is ours only when its folder was [`Disk::attach`]ed on the same thread, and the phone's connections never leave
//!   the thread; all state is thread-local, so there is nothing to race for.
//! - A page of the log's index is boxed by itself and stays where it is until the last connection has let go of it.
//! - No callback unwinds: none has an index, an arithmetic or a borrow that can fail (each borrow ends within the callback,
//!   and no callback calls back into SQLite's public interface).
#![allow(unsafe_code, reason = "a VFS is a table of C functions; see the module's words on safety")]

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::ffi;
use std::cell::RefCell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

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

// --- what SQLite calls

/// A file as SQLite has it: the method table, and the number of the [`Open`].
#[repr(C)]
struct Handle {
    methods: *const ffi::sqlite3_io_methods,
    number: usize,
}

struct Platform {
    vfs: *mut ffi::sqlite3_vfs,
}

// The platform's VFS is a constant table once it is registered.
unsafe impl Send for Platform {}
unsafe impl Sync for Platform {}

static PLATFORM: OnceLock<Platform> = OnceLock::new();

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// As the platform says of its own files.
const SECTOR_BYTES: c_int = 4096;

/// Puts the layer between SQLite and the platform; nothing is done the second time.
pub(crate) fn install() {
    PLATFORM.get_or_init(|| {
        // SAFETY: the library is configured before its first use, or says that it is too late. The VFS that it answers lives for
        // ever; ours is a copy of it that is never freed, so SQLite may keep the pointer.
        unsafe {
            crate::heap::give_to_sqlite();
            // Nobody asks how much memory SQLite uses, and the count is one lock for all threads.
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0_i32);
            ffi::sqlite3_initialize();
            let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
            let ours = Box::leak(Box::new(std::ptr::read(vfs)));
            ours.szOsFile = ours.szOsFile.max(c_int::try_from(size_of::<Handle>()).unwrap_or(c_int::MAX));
            ours.pNext = std::ptr::null_mut();
            ours.zName = c"sync-sim".as_ptr();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            ours.xAccess = Some(access);
            ffi::sqlite3_vfs_register(ours, 1);
            Platform { vfs }
        }
    });
}

/// The disk of a file's folder, when this thread has one.
unsafe fn watched(name: *const c_char) -> Option<(usize, PathBuf)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a zero byte.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let disk = DISKS.with_borrow(|all| all.disk_of(path))?;
    Some((disk, path.to_path_buf()))
}

unsafe fn number(file: *mut ffi::sqlite3_file) -> usize {
    // SAFETY: these methods stand only in files that `open` has made a `Handle` of.
    unsafe { (*file.cast::<Handle>()).number }
}

fn put_into_free_place<T>(places: &mut Vec<Option<T>>, thing: T) -> usize {
    match places.iter_mut().enumerate().find(|(_, place)| place.is_none()) {
        Some((free, place)) => {
            *place = Some(thing);
            free
        }
        None => {
            places.push(Some(thing));
            places.len() - 1
        }
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(platform) = PLATFORM.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the platform's open is given its own VFS, and a file of at least its own size; ours is a file of at least a
    // `Handle`, whose first field is the table, as in every SQLite file.
    unsafe {
        let Some((disk, path)) = watched(name) else {
            let Some(real) = (*platform.vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
            return real(platform.vfs, name, file, flags, out_flags);
        };
        let handle = file.cast::<Handle>();
        (*handle).methods = std::ptr::null();
        let may_make = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let opened = DISKS.with_borrow_mut(|all| {
            let state = all.disks.get_mut(disk)?.as_mut()?;
            let place = match state.place_of(&path) {
                Some(place) => place,
                None => {
                    let mut bytes = all.spare.pop().unwrap_or_default();
                    let real = match std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
                        Ok(_) => true,
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_make => false,
                        Err(_) => return None,
                    };
                    let content = Content { path: path.into(), bytes, changed: !real, real, index: Vec::new() };
                    put_into_free_place(&mut state.files, content)
                }
            };
            let open = Open { disk, file: place, lock: ffi::SQLITE_LOCK_NONE, shared: 0, exclusive: 0, indexed: false };
            Some(put_into_free_place(&mut all.handles, open))
        });
        let Some(number) = opened else { return ffi::SQLITE_CANTOPEN };
        handle.write(Handle { methods: &raw const METHODS, number });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    DISKS.with_borrow_mut(|all| {
        if let Some(open) = all.handles.get_mut(number) {
            *open = None;
        }
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `number`; SQLite gives room for `amount` bytes.
    let (number, into) = unsafe {
        (number(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(amount).unwrap_or(0)))
    };
    DISKS.with_borrow_mut(|all| {
        let Some(content) = all.content(number) else { return ffi::SQLITE_IOERR_READ };
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(content.bytes.len());
        let there = content.bytes.get(from..).unwrap_or_default();
        let there = there.get(..into.len()).unwrap_or(there);
        let (filled, rest) = into.split_at_mut(there.len());
        filled.copy_from_slice(there);
        if rest.is_empty() {
            return ffi::SQLITE_OK;
        }
        rest.fill(0);
        ffi::SQLITE_IOERR_SHORT_READ
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: as in `number`; SQLite gives `amount` bytes at `data`.
    let (number, bytes) =
        unsafe { (number(file), std::slice::from_raw_parts(data.cast::<u8>(), usize::try_from(amount).unwrap_or(0))) };
    let Ok(at) = usize::try_from(at) else { return ffi::SQLITE_IOERR_WRITE };
    DISKS.with_borrow_mut(|all| {
        let Some((open, state)) = all.open(number) else { return ffi::SQLITE_IOERR_WRITE };
        match state.fate(Some(bytes.len())) {
            Fate::Goes => {
                state.change(open.file, at, Some(bytes));
                ffi::SQLITE_OK
            }
            Fate::Dies { written } => {
                if let Some(part) = bytes.get(..written).filter(|part| !part.is_empty()) {
                    state.change(open.file, at, Some(part));
                }
                ffi::SQLITE_IOERR_WRITE
            }
            Fate::Dead => ffi::SQLITE_IOERR_WRITE,
            Fate::Full => ffi::SQLITE_FULL,
        }
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    let Ok(size) = usize::try_from(size) else { return ffi::SQLITE_IOERR_TRUNCATE };
    DISKS.with_borrow_mut(|all| {
        let Some((open, state)) = all.open(number) else { return ffi::SQLITE_IOERR_TRUNCATE };
        match state.fate(None) {
            Fate::Goes => {
                state.change(open.file, size, None);
                ffi::SQLITE_OK
            }
            _ => ffi::SQLITE_IOERR_TRUNCATE,
        }
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    DISKS.with_borrow_mut(|all| {
        let Some((open, state)) = all.open(number) else { return ffi::SQLITE_IOERR_FSYNC };
        match state.fate(None) {
            Fate::Goes => {
                let path = state.files.get(open.file).and_then(Option::as_ref).map(|file| Rc::clone(&file.path));
                path.iter().for_each(|path| state.is_safe(path));
                ffi::SQLITE_OK
            }
            _ => ffi::SQLITE_IOERR_FSYNC,
        }
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    let length = DISKS.with_borrow_mut(|all| Some(all.content(number)?.bytes.len()));
    let Some(length) = length.and_then(|length| ffi::sqlite3_int64::try_from(length).ok()) else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *size = length };
    ffi::SQLITE_OK
}

/// Locks among the connections of one file, by the rules that SQLite's documentation of `xLock` gives.
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    DISKS.with_borrow_mut(|all| {
        let highest = all.others(number).map(|open| open.lock).max().unwrap_or(ffi::SQLITE_LOCK_NONE);
        let Some((open, _)) = all.open(number) else { return ffi::SQLITE_IOERR_LOCK };
        if open.lock >= level {
            return ffi::SQLITE_OK;
        }
        let most = match level {
            ffi::SQLITE_LOCK_SHARED => ffi::SQLITE_LOCK_RESERVED,
            ffi::SQLITE_LOCK_RESERVED => ffi::SQLITE_LOCK_SHARED,
            _ => ffi::SQLITE_LOCK_NONE,
        };
        if highest <= most {
            open.lock = level;
            return ffi::SQLITE_OK;
        }
        if level == ffi::SQLITE_LOCK_EXCLUSIVE && highest == ffi::SQLITE_LOCK_SHARED {
            // Readers may end, and no new one begins.
            open.lock = ffi::SQLITE_LOCK_PENDING;
        }
        ffi::SQLITE_BUSY
    })
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    DISKS.with_borrow_mut(|all| {
        if let Some((open, _)) = all.open(number) {
            open.lock = open.lock.min(level);
        }
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, answer: *mut c_int) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    let reserved = DISKS.with_borrow_mut(|all| {
        let mine = all.open(number).map_or(ffi::SQLITE_LOCK_NONE, |(open, _)| open.lock);
        all.others(number).map(|open| open.lock).chain([mine]).any(|lock| lock >= ffi::SQLITE_LOCK_RESERVED)
    });
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *answer = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    if what != ffi::SQLITE_FCNTL_MMAP_SIZE {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: with this question SQLite gives a place for the limit, and reads from it what it became.
    unsafe { *argument.cast::<ffi::sqlite3_int64>() = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    answer: *mut *mut c_void,
) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    let (Ok(region), Ok(size)) = (usize::try_from(region), usize::try_from(size)) else {
        return ffi::SQLITE_IOERR_SHMMAP;
    };
    let place = DISKS.with_borrow_mut(|all| {
        let (open, state) = all.open(number)?;
        open.indexed = true;
        let content = state.files.get_mut(open.file)?.as_mut()?;
        while extend != 0 && content.index.len() <= region {
            content.index.push(vec![0_u64; size.div_ceil(8)].into_boxed_slice());
        }
        Some(content.index.get_mut(region).map_or(std::ptr::null_mut(), |page| page.as_mut_ptr().cast()))
    });
    let Some(place) = place else { return ffi::SQLITE_IOERR_SHMMAP };
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *answer = place };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    let ones = 1_u32.checked_shl(count.unsigned_abs()).unwrap_or(0).wrapping_sub(1);
    let bits = ones.checked_shl(offset.unsigned_abs()).unwrap_or(0);
    DISKS.with_borrow_mut(|all| {
        let (shared, exclusive) = all
            .others(number)
            .fold((0, 0), |(shared, exclusive), open| (shared | open.shared, exclusive | open.exclusive));
        let Some((open, _)) = all.open(number) else { return ffi::SQLITE_IOERR_SHMLOCK };
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            (open.shared, open.exclusive) = (open.shared & !bits, open.exclusive & !bits);
        } else if flags & ffi::SQLITE_SHM_SHARED != 0 {
            if exclusive & bits != 0 {
                return ffi::SQLITE_BUSY;
            }
            open.shared |= bits;
        } else {
            if (shared | exclusive) & bits != 0 {
                return ffi::SQLITE_BUSY;
            }
            open.exclusive |= bits;
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    // One thread has all connections of a file.
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

/// With the last connection the index goes; who opens the file next makes it anew from the log.
unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: as in `number`.
    let number = unsafe { number(file) };
    DISKS.with_borrow_mut(|all| {
        let used = all.others(number).any(|open| open.indexed);
        let Some((open, state)) = all.open(number) else { return };
        (open.indexed, open.shared, open.exclusive) = (false, 0, 0);
        if let Some(Some(content)) = state.files.get_mut(open.file).filter(|_| !used) {
            content.index.clear();
        }
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let Some(platform) = PLATFORM.get() else { return ffi::SQLITE_IOERR_DELETE };
    // SAFETY: the platform's method is given its own VFS and SQLite's name.
    unsafe {
        let Some((disk, path)) = watched(name) else {
            let Some(real) = (*platform.vfs).xDelete else { return ffi::SQLITE_IOERR_DELETE };
            return real(platform.vfs, name, sync_folder);
        };
        DISKS.with_borrow_mut(|all| {
            let Some(state) = all.state(disk) else { return ffi::SQLITE_IOERR_DELETE };
            if !matches!(state.fate(None), Fate::Goes) {
                return ffi::SQLITE_IOERR_DELETE;
            }
            state.is_safe(&path);
            let place = state.place_of(&path).and_then(|place| state.files.get_mut(place));
            if let Some(file) = place.and_then(Option::take) {
                let real = file.real;
                keep(&mut all.spare, file);
                if !real {
                    return ffi::SQLITE_OK;
                }
            }
            match std::fs::remove_file(&path) {
                Ok(()) => ffi::SQLITE_OK,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => ffi::SQLITE_IOERR_DELETE_NOENT,
                Err(_) => ffi::SQLITE_IOERR_DELETE,
            }
        })
    }
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, name: *const c_char, what: c_int, answer: *mut c_int) -> c_int {
    let Some(platform) = PLATFORM.get() else { return ffi::SQLITE_IOERR_ACCESS };
    // SAFETY: the platform's method is given its own VFS and SQLite's name and place.
    unsafe {
        let here = watched(name).and_then(|(disk, path)| {
            DISKS.with_borrow_mut(|all| {
                let state = all.state(disk)?;
                let file = state.files.get(state.place_of(&path)?)?.as_ref()?;
                // To the platform, too, an empty file is none.
                Some(what != ffi::SQLITE_ACCESS_EXISTS || !file.bytes.is_empty())
            })
        });
        if let Some(there) = here {
            *answer = c_int::from(there);
            return ffi::SQLITE_OK;
        }
        let Some(real) = (*platform.vfs).xAccess else { return ffi::SQLITE_IOERR_ACCESS };
        real(platform.vfs, name, what, answer)
    }
}
