//! What can happen to the file: newer, foreign, truncated, flipped, copied, opened twice.
#![cfg(feature = "store")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says what it expects by failing, and has its files"
)]

mod store_support;

use rusqlite::Connection;
use std::path::Path;
use store_support::*;
use sync_core::domain::{FactKind, VisitStatus};
use sync_core::protocol::Cursor;
use sync_core::store::{SetAsideReason, Store, StoreError, VisitQuery};

fn raw(disk: &Disk) -> Connection {
    Connection::open(disk.path()).unwrap()
}

/// A phone's database after some work, closed.
fn worked(visits: u32, actions: u32) -> (Disk, Office) {
    let disk = Disk::new();
    let office = Office::new(1..=visits);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    for visit in 1..=actions {
        phone.states(visit, FactKind::Accepted { eta: None });
    }
    phone.store.close().unwrap();
    (disk, office)
}

#[test]
fn one_engine_a_file() {
    let disk = Disk::new();
    let first = disk.open(1);
    let options = options();
    let second = Store::open(&disk.path(), &options, &mut rng(2));
    assert!(matches!(second, Err(StoreError::AlreadyOpen(path)) if path == disk.path()));
    first.store.close().unwrap();
    assert!(Store::open(&disk.path(), &options, &mut rng(3)).is_ok());
}

#[test]
fn a_newer_releases_file_is_set_aside_whole_and_a_new_store_opens() {
    let (disk, _) = worked(2, 2);
    raw(&disk).pragma_update(None, "user_version", 9_000).unwrap();
    let opened = disk.open(2);
    let aside = opened.report.set_aside.unwrap();
    assert!(matches!(aside.reason, SetAsideReason::Newer { found: 9_000, known } if known < 9_000));
    assert!(opened.report.created);
    assert_eq!(opened.store.outbox_mark().unwrap().pending, 0);
    let name = aside.path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("visits.db.set-aside-2026"), "{name}");
    let kept: i64 =
        Connection::open(aside.path).unwrap().query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2);
}

#[test]
fn files_set_aside_at_the_same_moment_do_not_replace_each_other() {
    let disk = Disk::new();
    let mut kept = Vec::new();
    for round in 0..3 {
        std::fs::write(
            disk.path(),
            format!("no database, number {round}, and long enough to have a header: {:100}", ""),
        )
        .unwrap();
        let aside = disk.open(round).report.set_aside.unwrap();
        assert!(matches!(aside.reason, SetAsideReason::Corrupt(_)));
        kept.push(aside.path);
    }
    for (round, path) in kept.iter().enumerate() {
        assert!(std::fs::read_to_string(path).unwrap().contains(&format!("number {round}")));
    }
}

#[test]
fn another_programs_database_is_set_aside() {
    let disk = Disk::new();
    raw(&disk).execute_batch("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('Gulasch')").unwrap();
    let aside = disk.open(1).report.set_aside.unwrap();
    let name: String =
        Connection::open(aside.path).unwrap().query_row("SELECT name FROM recipes", [], |row| row.get(0)).unwrap();
    assert_eq!(name, "Gulasch");
}

/// One byte of the header, and SQLite would read everything and write nothing: the technician could never act again.
#[test]
fn a_file_whose_header_forbids_writing_is_set_aside() {
    for (place, format) in [(18, 3), (18, 255), (19, 3)] {
        let disk = Disk::new();
        let mut phone = disk.phone(1);
        phone.primes(&Office::new([1]));
        phone.store.close().unwrap();
        drop(phone);
        let mut bytes = std::fs::read(disk.path()).unwrap();
        bytes[place] = format;
        std::fs::write(disk.path(), &bytes).unwrap();
        let opened = disk.open(2);
        let aside = opened.report.set_aside.unwrap();
        assert!(matches!(aside.reason, SetAsideReason::Corrupt(_)), "{:?}", aside.reason);
        assert_eq!(std::fs::read(aside.path).unwrap(), bytes);
    }
}

#[test]
fn a_log_without_its_database_is_not_thrown_away() {
    let disk = Disk::new();
    let mut phone = disk.phone(1);
    phone.primes(&Office::new([1]));
    phone.states(1, FactKind::Accepted { eta: None });
    let crashed = disk.crashed();
    let log = std::fs::read(crashed.beside("-wal")).unwrap();
    std::fs::write(crashed.path(), b"").unwrap();
    let aside = crashed.open(2).report.set_aside.unwrap();
    assert_eq!(std::fs::read(beside(&aside.path, "-wal")).unwrap(), log);
}

/// Opens and uses what is there: whatever was damaged, nothing panics, and a row is either right or reported.
fn open_and_use(disk: &Disk, actions: u32, what: &str) {
    let before = std::fs::read(disk.path()).unwrap();
    let opened = disk.open(5);
    if let Some(aside) = &opened.report.set_aside {
        assert_eq!(std::fs::read(&aside.path).unwrap(), before, "{what}: what was set aside is as it was");
        assert_eq!(opened.store.outbox_mark().unwrap().pending, 0);
        return;
    }
    let store = opened.store;
    store.bind_user(&tenant(), &tech(10), &mut rng(6)).unwrap();
    let listed = store.visits(&VisitQuery::default());
    let parked = store.parked();
    let (mut whole, mut told) = (0, false);
    for visit in 1..=actions {
        match store.visit(&id(visit)) {
            Ok(detail) => whole += u32::from(!detail.pending.is_empty()),
            Err(StoreError::VisitDamaged(_) | StoreError::Damaged(_)) => told = true,
            Err(StoreError::NotFound(_)) => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
    for outcome in [listed.map(|_| ()), parked.map(|_| ())] {
        assert!(matches!(outcome, Ok(()) | Err(StoreError::Damaged(_))), "{what}: {outcome:?}");
    }
    // Whatever the cards say, they are cards that were written.
    if let Ok(cards) = store.visits(&VisitQuery::default()) {
        assert!(cards.iter().all(|card| card.title.starts_with("Boiler ")), "{what}");
        assert!(
            cards.iter().all(|card| matches!(card.status, VisitStatus::Assigned | VisitStatus::Confirmed)),
            "{what}"
        );
    }
    // No unsent action is missing without a word.
    told |= store.sync_state().map_or(true, |state| !state.needs_fetch.is_empty());
    drop(store);
    let again = disk.open(7);
    told |= again.report.set_aside.is_some() || again.report.rows_quarantined > 0;
    let pending = again.store.outbox_mark().map_or(0, |mark| mark.pending);
    assert!((whole == actions && pending == actions) || told, "{what}: {whole} seen, {pending} pending");
}

#[test]
fn a_truncated_database_is_set_aside_or_used_but_never_lost() {
    let (disk, _) = worked(8, 4);
    let whole = std::fs::read(disk.path()).unwrap();
    let mut set_aside = 0;
    for length in (1..whole.len()).step_by(1_201) {
        let cut = Disk::new();
        std::fs::write(cut.path(), &whole[..length]).unwrap();
        open_and_use(&cut, 4, &format!("cut to {length}"));
        set_aside += std::fs::read_dir(cut.folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("set-aside"))
            .count();
    }
    assert!(set_aside > 20, "cut in the middle, a file cannot be used: {set_aside}");
}

#[test]
fn a_truncated_log_loses_no_more_than_its_tail() {
    let disk = Disk::new();
    let mut phone = disk.phone(1);
    phone.primes(&Office::new(1..=4));
    phone.store.checkpoint().unwrap();
    for visit in 1..=4 {
        phone.states(visit, FactKind::Accepted { eta: None });
    }
    let log = std::fs::read(disk.beside("-wal")).unwrap();
    let mut seen = 0;
    for length in (0..=log.len()).step_by(513).chain([log.len()]) {
        let crashed = disk.crashed();
        std::fs::write(crashed.beside("-wal"), &log[..length]).unwrap();
        let opened = crashed.open(2);
        assert!(opened.report.set_aside.is_none(), "cut to {length}");
        let pending = opened.store.outbox_mark().unwrap().pending;
        assert!(pending >= seen, "a longer log has no less");
        seen = pending;
        for visit in 1..=4 {
            let facts = pending_facts(&opened.store, visit);
            assert_eq!(facts.len(), usize::from(visit <= pending));
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn flipped_bytes_are_noticed() {
    let (disk, _) = worked(8, 4);
    let whole = std::fs::read(disk.path()).unwrap();
    for at in (0..whole.len()).step_by(997) {
        let flipped = Disk::new();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(flipped.path(), bytes).unwrap();
        open_and_use(&flipped, 4, &format!("flipped at {at}"));
    }
}

/// Overwrites the first page of a table or an index, in a file that was closed in good order.
fn spoil(disk: &Disk, name: &str) {
    const ROOT: &str = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let page: u32 = raw(disk).query_row(ROOT, [name], |row| row.get(0)).unwrap();
    let page = usize::try_from(page).unwrap();
    let mut bytes = std::fs::read(disk.path()).unwrap();
    bytes[(page - 1) * 4_096..page * 4_096].fill(0xff);
    std::fs::write(disk.path(), bytes).unwrap();
}

#[test]
fn a_file_that_was_closed_and_damaged_afterwards_is_set_aside_at_the_first_opening() {
    for table in ["visits", "phone", "outbox", "outbox_unsent", "damaged"] {
        let (disk, _) = worked(8, 4);
        spoil(&disk, table);
        let before = std::fs::read(disk.path()).unwrap();
        let opened = disk.try_open(2).unwrap_or_else(|error| panic!("{table}: a technician cannot get on: {error}"));
        let aside = opened.report.set_aside.unwrap_or_else(|| panic!("{table}: not a word of it"));
        assert!(opened.report.created && matches!(aside.reason, SetAsideReason::Corrupt(_)), "{table}");
        assert!(std::fs::read(aside.path).unwrap() == before, "{table}: kept as it was");
    }
}

#[test]
fn a_damaged_document_is_kept_aside_and_fetched_anew_without_losing_unsent_work() {
    let (disk, mut office) = worked(2, 2);
    raw(&disk).execute("UPDATE visits SET document = zeroblob(100) WHERE dispatch_id = 'DSP-1'", []).unwrap();
    let opened = disk.open(2);
    let mut phone = Phone { store: opened.store, rng: rng(3), minute: 50 };
    assert!(matches!(phone.store.visit(&id(1)), Err(StoreError::VisitDamaged(_))));
    assert_eq!(phone.store.sync_state().unwrap().needs_fetch, [id(1)]);
    assert_eq!(phone.pending(), 2);
    phone.syncs(&mut office);
    assert_eq!(phone.pending(), 0);
    assert_eq!(office.accepted.len(), 2);
    assert_eq!(phone.store.visit(&id(1)).unwrap().state.status, VisitStatus::Confirmed);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
    phone.store.close().unwrap();
    assert_eq!(disk.open(4).report.rows_quarantined, 1);
}

#[test]
fn a_damaged_card_is_computed_again_from_its_document() {
    let (disk, office) = worked(2, 0);
    raw(&disk).execute("UPDATE visits SET status = 'CANCELLED' WHERE dispatch_id = 'DSP-1'", []).unwrap();
    let opened = disk.open(2);
    let cards = opened.store.visits(&VisitQuery::default()).unwrap();
    assert_eq!(cards.iter().map(|card| card.status).collect::<Vec<_>>(), [VisitStatus::Assigned; 2]);
    assert_eq!(opened.store.sync_state().unwrap().needs_fetch, [id(1)]);
    let mut phone = Phone { store: opened.store, rng: rng(3), minute: 0 };
    assert_eq!(phone.primes(&office).digest_matches, Some(true));
}

#[test]
fn a_damaged_outbox_row_is_kept_aside_and_its_fact_is_found_again_in_the_document() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let mut made = vec![phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap()];
    made.push(phone.states(1, FactKind::TravelStarted { eta: None }).fact.unwrap());
    made.push(phone.states(2, FactKind::Accepted { eta: None }).fact.unwrap());
    phone.store.close().unwrap();
    raw(&disk).execute("UPDATE outbox SET change = zeroblob(40) WHERE id = 1", []).unwrap();

    let mut phone = Phone { store: disk.open(2).store, rng: rng(3), minute: 50 };
    // The other lane goes on at once.
    assert_eq!(phone.pushes(&mut office).acknowledged, 1);
    assert!(office.has_fact(2, &made[2]));
    phone.syncs(&mut office);
    assert!(office.has_fact(1, &made[0]) && office.has_fact(1, &made[1]));
    assert_eq!(phone.pending(), 0);
    phone.store.close().unwrap();
    assert_eq!(disk.open(4).report.rows_quarantined, 1);
}

fn copy_everything(from: &Disk, to: &Disk) {
    for entry in std::fs::read_dir(from.folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), Path::new(to.folder.path()).join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_restored_copy_is_another_device_and_gives_its_unsent_work_again_under_its_own_name() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let sent_after_the_backup = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let never_sent = phone.states(2, FactKind::Accepted { eta: None }).fact.unwrap();
    let before = phone.store.sync_state().unwrap();
    phone.store.close().unwrap();
    // Marker and all: a backup of the whole folder.
    let backup = Disk::new();
    copy_everything(&disk, &backup);

    // The phone sends one lane, and falls into the Danube.
    let mut phone = Phone { store: disk.open(2).store, rng: rng(2), minute: 10 };
    let page = phone.store.outbox_page(&sync_core::store::PageLimits { lanes: 1, ..Default::default() }).unwrap();
    office.receives(&phone.device(), &[page.lanes[0].lane.clone()]);
    phone.minute = 11;
    drop(phone);

    let opened = backup.open(3);
    assert!(opened.report.restored && !opened.report.created);
    let mut restored = Phone { store: opened.store, rng: rng(4), minute: 20 };
    let after = restored.store.sync_state().unwrap();
    assert_ne!(after.device, before.device);
    assert_ne!(after.actor, before.actor);
    assert_eq!((after.cursor, after.outbox.pending, after.outbox.high_water), (Cursor(0), 2, 0));
    // Nothing is sent under a wrong name before the office's copies are here.
    restored.pushes(&mut office);
    assert_eq!(office.accepted, std::slice::from_ref(&sent_after_the_backup));

    restored.primes(&office);
    assert_eq!(restored.pending(), 1, "what had been sent is recognised");
    restored.syncs(&mut office);
    assert_eq!(office.accepted, [sent_after_the_backup, never_sent.clone()]);
    let fact = office.visits[&id(2)].view().facts[&never_sent].clone();
    assert_eq!((fact.device, fact.seq), (after.device, 1));
    assert_eq!(restored.store.sync_state().unwrap().digest, office.digest());

    // Opened again it is still itself.
    restored.store.close().unwrap();
    assert!(!backup.open(5).report.restored);
}
