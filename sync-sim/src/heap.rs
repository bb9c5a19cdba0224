//! The simulator's memory, for Rust's values ([`mimalloc::MiMalloc`] in `main.rs`) and for SQLite: half of a day is small
//! allocations that live shortly, and the platform's allocator is dear at that.
//!
//! **Safety.** The functions are mimalloc's, whose contract is `malloc`'s; what one of them has given another takes back.
#![allow(unsafe_code, reason = "SQLite's memory methods are C functions; see the module's words on safety")]

// Nothing of it is named here; its functions are.
use mimalloc as _;
use rusqlite::ffi;
use std::ffi::{c_int, c_long, c_void};

unsafe extern "C" {
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_realloc(place: *mut c_void, size: usize) -> *mut c_void;
    fn mi_free(place: *mut c_void);
    fn mi_usable_size(place: *const c_void) -> usize;
    fn mi_option_set(option: c_int, value: c_long);
}

/// What a day has used, the next one needs: nothing is given back to the machine in between.
pub fn keep_memory() {
    /// `mi_option_purge_delay`: milliseconds until free memory goes back, never below 0.
    const PURGE_DELAY: c_int = 15;
    // SAFETY: see the module; the option is taken at any time.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}

const METHODS: ffi::sqlite3_mem_methods = ffi::sqlite3_mem_methods {
    xMalloc: Some(allocate),
    xFree: Some(free),
    xRealloc: Some(reallocate),
    xSize: Some(size),
    xRoundup: Some(round_up),
    xInit: Some(init),
    xShutdown: Some(shut_down),
    pAppData: std::ptr::null_mut(),
};

/// Has SQLite allocate here. Nothing changes when it is in use already.
pub(crate) fn give_to_sqlite() {
    let methods = METHODS;
    // SAFETY: SQLite copies the table, and refuses it once it is initialised.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
}

unsafe extern "C" fn allocate(bytes: c_int) -> *mut c_void {
    // SAFETY: see the module.
    unsafe { mi_malloc(usize::try_from(bytes).unwrap_or(0)) }
}

unsafe extern "C" fn reallocate(place: *mut c_void, bytes: c_int) -> *mut c_void {
    // SAFETY: see the module; the place was allocated here.
    unsafe { mi_realloc(place, usize::try_from(bytes).unwrap_or(0)) }
}

unsafe extern "C" fn free(place: *mut c_void) {
    // SAFETY: see the module; the place was allocated here, or is null.
    unsafe { mi_free(place) }
}

unsafe extern "C" fn size(place: *mut c_void) -> c_int {
    // SAFETY: see the module; the place was allocated here, or is null.
    c_int::try_from(unsafe { mi_usable_size(place) }).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn round_up(bytes: c_int) -> c_int {
    bytes.saturating_add(7) & !7
}

unsafe extern "C" fn init(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shut_down(_: *mut c_void) {}
