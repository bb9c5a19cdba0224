//! What SQLite calls.
//!
//! **Safety.** It registers a VFS that is the platform's own one with `open`, `delete` and
//! `access` in front; a database file of an attached folder gets the methods below instead of the platform's. What holds it
//! together:
//! - SQLite gives every open file `szOsFile` bytes; ours is at least a [`Handle`], and the platform's own size.
//! - The VFS is leaked and the method table is a constant: both live as long as the process.
//! - A file is ours only when its folder was [`attach`](super::Disk::attach)ed on the same thread, and the phone's connections never leave
//!   the thread; all state is thread-local, so there is nothing to race for.
//! - A page of the log's index is boxed by itself and stays where it is until the last connection has let go of it.
//! - No callback unwinds: none has an index, an arithmetic or a borrow that can fail (each borrow ends within the callback,
//!   and no callback calls back into SQLite's public interface).
#![allow(unsafe_code, reason = "a VFS is a table of C functions; see the module's words on safety")]

use super::{Content, DISKS, Fate, Open, keep};
use rusqlite::ffi;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;

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
