//! A phone's files, damaged anywhere: the store opens, and what it cannot use it sets aside and says so.

#![no_main]

mod phone_files;
#[path = "../../sync-core/tests/store_support/mod.rs"]
mod store_support;

use libfuzzer_sys::fuzz_target;
use phone_files::{Disk, Image, WORKED, damage};
use std::cell::RefCell;
use std::fs;
use store_support::{id, rng, tech, tenant};
use sync_core::store::{OpenReport, PageLimits, Store, StoreError, VisitQuery};

thread_local! {
    static DISK: RefCell<Disk> = RefCell::new(Disk::new());
}

fuzz_target!(|data: &[u8]| {
    let Some((door, bytes)) = data.split_first() else { return };
    DISK.with_borrow(|disk| {
        let mut image = disk.closed.clone();
        // An engine that was not closed leaves a lock without its word, and its next opening reads the whole file.
        let unclosed = Some(b"open  ".to_vec());
        match door % 5 {
            // The file as somebody else made it.
            0 => image = [Some(bytes.to_vec()), None, unclosed, image[3].take()],
            1 => damage(&mut image, bytes),
            2 => {
                image[2] = unclosed;
                damage(&mut image, bytes);
            }
            3 => {
                image = disk.crashed.clone();
                damage(&mut image, bytes);
            }
            _ => {
                let Some((which, value)) = bytes.split_first() else { return };
                disk.put(&image);
                disk.rewrite(*which, value);
                image = disk.image();
            }
        }
        disk.put(&image);
        // What a log lacks was never in the database, as far as anybody can tell.
        let counts = matches!(door % 5, 1 | 2) && image[1].as_ref().is_none_or(Vec::is_empty);
        open_and_use(disk, &image, counts);
    });
});

/// Opens and uses what is there. With `counts`, no unsent change may be missing without a word.
fn open_and_use(disk: &Disk, image: &Image, counts: bool) {
    let there = |file: &Option<Vec<u8>>| file.as_ref().is_some_and(|bytes| !bytes.is_empty());
    let opened = match disk.open(3) {
        Ok(opened) => opened,
        // A page that looks like a cipher's: another app's key may open it, so nothing is touched.
        Err(StoreError::Encrypted) => return assert_eq!(fs::read(disk.file("")).ok(), image[0]),
        Err(error) => panic!("a technician cannot get on: {error:?}"),
    };
    if was_kept(&opened.report, image, there(&image[0]) || there(&image[1])) {
        assert_eq!(opened.store.outbox_mark().unwrap().pending, 0);
        return;
    }
    let (seen, mut told) = look(&opened.store);
    drop(opened);
    let again = disk.open(4).unwrap_or_else(|error| panic!("the second time a technician cannot get on: {error:?}"));
    told |= again.report.set_aside.is_some() || again.report.rows_quarantined > 0;
    let pending = again.store.outbox_mark().map_or(0, |mark| mark.pending);
    let complete = seen == WORKED && pending == WORKED;
    assert!(!counts || complete || told || !there(&image[0]), "{seen} seen, {pending} pending, and not a word");
}

/// True when the files were set aside, as they were.
fn was_kept(report: &OpenReport, image: &Image, something_was_there: bool) -> bool {
    let Some(aside) = &report.set_aside else {
        assert!(!report.created || !something_was_there, "a new store lies in the place of another");
        return false;
    };
    let kept = fs::read(&aside.path).unwrap_or_default();
    let log = fs::read(store_support::beside(&aside.path, "-wal")).unwrap_or_default();
    // SQLite may have moved the log into the database before it met the damage.
    let log_is_empty = image[1].as_ref().is_none_or(Vec::is_empty);
    assert!(!log_is_empty || Some(&kept) == image[0].as_ref(), "what was set aside is not what was there");
    assert!(!kept.is_empty() || !log.is_empty(), "nothing was set aside");
    true
}

/// How many visits show their unsent change, and whether anything was said of damage.
fn look(store: &Store) -> (u32, bool) {
    let mut told = false;
    let mut note = |outcome: Result<(), StoreError>| match outcome {
        Ok(()) => {}
        Err(StoreError::Damaged(_) | StoreError::VisitDamaged(_)) => told = true,
        Err(StoreError::NotFound(_)) => {}
        Err(error) => panic!("{error:?}"),
    };
    note(store.bind_user(&tenant(), &tech(10), &mut rng(6)).map(drop));
    let mut seen = 0;
    for visit in 1..=WORKED {
        note(store.visit(&id(visit)).map(|detail| seen += u32::from(!detail.pending.is_empty())));
    }
    note(store.visits(&VisitQuery::default()).map(drop));
    note(store.parked().map(drop));
    note(store.tombstones().map(drop));
    note(store.outbox_page(&PageLimits::default()).map(drop));
    note(store.counts().map(drop));
    let fetched = store.sync_state().map(|state| !state.needs_fetch.is_empty());
    (seen, told | fetched.unwrap_or(true))
}
