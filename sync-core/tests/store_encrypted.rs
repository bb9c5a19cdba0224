//! The phone's file at rest: nothing readable, whatever happens to it, and never without a key that fits.
#![cfg(feature = "encrypted")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what it expects by failing, and has its files"
)]

mod store_support;

use store_support::*;
use sync_core::domain::FactKind;
use sync_core::store::{DatabaseKey, Protection, SetAsideReason, StoreError};

const SECRET: &str = "Frau Huber has the key under the third stone";

/// Everything that lies in the folder, names aside.
fn on_disk(disk: &Disk) -> Vec<u8> {
    let files = std::fs::read_dir(disk.folder.path()).unwrap();
    files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

fn is_readable(disk: &Disk) -> bool {
    let bytes = on_disk(disk);
    [SECRET, "TECH-10", "DSP-1"].iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// A phone with a day's work and a note that nobody else may read.
fn worked(disk: &Disk) -> Phone {
    let mut phone = disk.phone(1);
    phone.primes(&Office::new(1..=30));
    for visit in 1..=5 {
        phone.states(visit, FactKind::Accepted { eta: None });
    }
    phone.notes(1, SECRET);
    phone
}

#[test]
fn neither_database_nor_log_nor_sealed_work_can_be_read() {
    let disk = Disk::encrypted(1);
    let mut phone = worked(&disk);
    assert!(std::fs::metadata(disk.beside("-wal")).unwrap().len() > 0, "the log is in use");
    assert!(!is_readable(&disk));
    phone.store.bind_user(&tenant(), &tech(20), &mut phone.rng).unwrap();
    assert_eq!(phone.store.sealed().unwrap()[0].2, 6);
    assert!(!is_readable(&disk));
    phone.store.close().unwrap();
    assert!(!is_readable(&disk));

    // The same work in the clear is readable: the test would notice.
    let open_disk = Disk::new();
    let _phone = worked(&open_disk);
    assert!(is_readable(&open_disk));
}

#[test]
fn a_crash_loses_nothing() {
    let disk = Disk::encrypted(2);
    let phone = worked(&disk);
    let found = disk.crashed().open(2);
    assert_eq!(found.store.outbox_mark().unwrap().pending, phone.pending());
    assert_eq!(found.report.set_aside, None);
}

/// Whichever moment the phone dies at, one of the two keys opens the file, with all the work.
#[test]
fn a_crash_around_a_change_of_key_leaves_one_that_fits() {
    let disk = Disk::encrypted(3);
    let mut phone = worked(&disk);
    let before = disk.crashed();
    let fresh = DatabaseKey::random(&mut rng(33));
    phone.store.change_key(&fresh).unwrap();
    phone.states(6, FactKind::Accepted { eta: None });
    let mut after = disk.crashed();

    assert_eq!(before.open(1).store.outbox_mark().unwrap().pending, 6);
    assert!(matches!(after.try_open(2), Err(StoreError::WrongKey)));
    after.protection = Protection::Key(fresh);
    assert_eq!(after.open(3).store.outbox_mark().unwrap().pending, 7);
    assert!(!is_readable(&after));
}

/// A key that does not fit is not damage; damage under the right key is, and is set aside.
#[test]
fn a_flipped_bit_is_damage_and_a_wrong_key_is_not() {
    let disk = Disk::encrypted(4);
    worked(&disk).store.close().unwrap();
    let hurt = disk.crashed();
    let mut bytes = std::fs::read(hurt.path()).unwrap();
    assert!(bytes.len() > 5 * 4_096);
    bytes[2 * 4_096 + 100] ^= 1;
    std::fs::write(hurt.path(), &bytes).unwrap();

    let stranger = Disk { protection: Disk::encrypted(5).protection, ..hurt };
    assert!(matches!(stranger.try_open(1), Err(StoreError::WrongKey)));
    assert_eq!(std::fs::read(stranger.path()).unwrap(), bytes, "untouched");

    let hurt = Disk { protection: disk.protection.clone(), ..stranger };
    let aside = hurt.open(2).report.set_aside.unwrap();
    assert!(matches!(aside.reason, SetAsideReason::Corrupt(_)));
    assert_eq!(std::fs::read(aside.path).unwrap(), bytes, "kept as it was");
}

#[test]
fn a_file_that_lost_its_end_is_set_aside() {
    let disk = Disk::encrypted(6);
    worked(&disk).store.close().unwrap();
    let bytes = std::fs::read(disk.path()).unwrap();
    std::fs::write(disk.path(), &bytes[..bytes.len() - 4_096]).unwrap();
    let aside = disk.open(2).report.set_aside.unwrap();
    assert!(matches!(aside.reason, SetAsideReason::Corrupt(_)));
}

#[test]
fn an_encrypted_file_is_not_opened_without_its_key_nor_one_in_the_clear_with_one() {
    let mut disk = Disk::encrypted(7);
    worked(&disk).store.close().unwrap();
    let bytes = std::fs::read(disk.path()).unwrap();
    let key = std::mem::replace(&mut disk.protection, Protection::Unencrypted);
    assert!(matches!(disk.try_open(1), Err(StoreError::Encrypted)));
    assert_eq!(std::fs::read(disk.path()).unwrap(), bytes, "untouched");

    let clear = Disk::new();
    worked(&clear).store.close().unwrap();
    let clear = Disk { protection: key, ..clear };
    assert!(matches!(clear.try_open(1), Err(StoreError::NotEncrypted)));
    let clear = Disk { protection: Protection::Unencrypted, ..clear };
    assert_eq!(clear.open(2).store.outbox_mark().unwrap().pending, 6);
}

#[test]
fn an_encrypted_file_that_was_closed_and_damaged_afterwards_is_set_aside_at_the_first_opening() {
    let disk = Disk::encrypted(1);
    worked(&disk).store.close().unwrap();
    let whole = std::fs::read(disk.path()).unwrap();
    // Every page but the first, whose damage cannot be told from a wrong key.
    for page in 1..whole.len() / 4_096 {
        let spoiled = Disk { protection: disk.protection.clone(), ..Disk::new() };
        let mut bytes = whole.clone();
        bytes[page * 4_096 + 100] ^= 1;
        std::fs::write(spoiled.path(), &bytes).unwrap();
        std::fs::write(spoiled.beside(".lock"), "closed").unwrap();
        let opened = spoiled.try_open(2).unwrap_or_else(|error| panic!("page {page}: {error}"));
        match opened.report.set_aside {
            Some(aside) => {
                assert!(matches!(aside.reason, SetAsideReason::Corrupt(_)), "page {page}");
                assert!(std::fs::read(aside.path).unwrap() == bytes, "page {page}: kept as it was");
            }
            // A page that opening does not need: whoever comes upon it is told.
            None => assert_eq!(opened.store.outbox_mark().unwrap().pending, 6, "page {page}"),
        }
    }
}
