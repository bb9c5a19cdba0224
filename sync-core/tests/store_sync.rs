//! The phone's store and the office over time: feeds, full answers, servers that went back, users that change.
#![cfg(feature = "store")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test says what it expects by failing, and has its files"
)]

mod store_support;

use rand::RngExt as _;
use store_support::*;
use sync_core::domain::{FactKind, TombstoneReason, VisitStatus};
use sync_core::protocol::{Cursor, Digest, FeedItem, Generation, LaneAck, Remedy};
use sync_core::store::{FeedBatch, PageLimits, VisitQuery};

fn listed(phone: &Phone) -> Vec<String> {
    phone.store.visits(&VisitQuery::default()).unwrap().into_iter().map(|card| card.dispatch_id.to_string()).collect()
}

#[test]
fn the_offices_changes_meet_unsent_work() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let item = office.replans(1, |plan| plan.title = "Boiler, urgent".into());
    let batch = office.batch(vec![item]);
    let applied = phone.applies(batch.clone());
    assert_eq!((applied.digest_matches, applied.cursor), (Some(true), batch.to));
    let card = phone.store.visits(&VisitQuery::default()).unwrap().remove(0);
    assert_eq!((card.title.as_str(), card.status), ("Boiler, urgent", VisitStatus::Confirmed));
    // A snapshot meets it as well.
    let items = vec![office.snapshot(&id(1))];
    let batch = office.batch(items);
    phone.applies(batch);
    let card = phone.store.visits(&VisitQuery::default()).unwrap().remove(0);
    assert_eq!((card.title.as_str(), card.status), ("Boiler, urgent", VisitStatus::Confirmed));
    assert_eq!(phone.pushes(&mut office).acknowledged, 1);
    assert!(office.has_fact(1, &fact));
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn the_open_visit_sees_what_the_office_changed() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::Accepted { eta: None });
    let item = office.replans(1, |plan| plan.title = "Boiler, urgent".into());
    let batch = office.batch(vec![item]);
    phone.applies(batch);
    assert_eq!(phone.states(1, FactKind::Arrived).card.title, "Boiler, urgent");
}

#[test]
fn an_open_visit_takes_up_what_the_server_has_added_since() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::Accepted { eta: None });
    assert_eq!(phone.pushes(&mut office).acknowledged, 1);
    for title in ["Boiler, urgent", "Boiler, today"] {
        let item = office.replans(1, |plan| plan.title = title.into());
        let batch = office.batch(vec![item]);
        phone.applies(batch);
    }
    assert_eq!(phone.states(1, FactKind::Arrived).card.title, "Boiler, today");
    // Read from the disk, it is the same.
    let view = phone.store.visit(&id(1)).unwrap().view;
    assert_eq!((view.plan.title.as_str(), view.facts.len()), ("Boiler, today", 2));
    assert_eq!(phone.pushes(&mut office).acknowledged, 1);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn changes_without_what_they_build_on_are_fetched_whole() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    office.replans(1, |plan| plan.title = "lost".into());
    let item = office.replans(1, |plan| plan.title = "arrives".into());
    let unknown = match office.snapshot(&id(1)) {
        FeedItem::Snapshot { card, tag, .. } => FeedItem::Changes { dispatch: id(77), changes: Vec::new(), card, tag },
        other => other,
    };
    let batch = office.batch(vec![item, unknown]);
    let applied = phone.applies(batch);
    assert_eq!(applied.needs_fetch, [id(1), id(77)]);
    assert_eq!(applied.digest_matches, Some(false));
    assert_eq!(phone.store.visit(&id(1)).unwrap().card.title, "Boiler 1");
    office.plans(77, at(77));
    let state = phone.store.sync_state().unwrap();
    let answer = office.fetched(&state.needs_fetch, state.cursor);
    assert!(phone.applies(answer).needs_fetch.is_empty());
    assert_eq!(phone.store.visit(&id(1)).unwrap().card.title, "arrives");
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn a_batch_from_beyond_the_cursor_is_not_applied() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let cursor = phone.store.sync_state().unwrap().cursor;
    office.head += 5;
    let item = office.replans(1, |plan| plan.title = "later".into());
    let batch = office.batch(vec![item]);
    let applied = phone.applies(batch);
    assert!(applied.cursor_gap && applied.changed.is_empty());
    assert_eq!(applied.cursor, cursor);
    assert_eq!(phone.store.visit(&id(1)).unwrap().card.title, "Boiler 1");
}

#[test]
fn a_full_answer_in_parts_removes_what_it_does_not_name_and_keeps_unsent_work() {
    let disk = Disk::new();
    let mut office = Office::new(1..=6);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(5, FactKind::Accepted { eta: None }).fact.unwrap();
    for number in [4, 5] {
        office.takes_away(number, TombstoneReason::OutOfWindow);
    }
    office.head += 2;
    let whole = office.everything();
    let parts =
        |range: std::ops::Range<usize>, more| FeedBatch { items: whole.items[range].to_vec(), more, ..whole.clone() };

    // The connection breaks after the first part: nothing has been removed, and the cursor has not moved.
    let cursor = phone.store.sync_state().unwrap().cursor;
    assert_eq!(phone.applies(parts(0..2, true)).cursor, cursor);
    assert_eq!(listed(&phone).len(), 6);
    phone.store.server_identity(office.generation, Cursor(office.head), at(1)).unwrap();

    phone.applies(parts(0..2, true));
    let applied = phone.applies(parts(2..4, false));
    assert_eq!((applied.cursor, applied.digest_matches), (whole.to, Some(true)));
    assert_eq!(listed(&phone), ["DSP-1", "DSP-2", "DSP-3", "DSP-6"]);
    assert!(phone.store.visit(&id(4)).is_err());
    assert_eq!(pending_facts(&phone.store, 5), std::slice::from_ref(&fact));
    phone.pushes(&mut office);
    assert!(office.has_fact(5, &fact));
    assert!(phone.store.visit(&id(5)).is_err());
}

#[test]
fn a_server_from_an_older_backup_gets_again_what_it_lost() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let first = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    phone.pushes(&mut office);
    let backup = office.clone();
    let second = phone.states(1, FactKind::TravelStarted { eta: None }).fact.unwrap();
    let third = phone.states(2, FactKind::Accepted { eta: None }).fact.unwrap();
    phone.pushes(&mut office);
    // A change of the office's that the phone builds on, and that is lost as well.
    let item = office.replans(1, |plan| plan.title = "lost".into());
    let batch = office.batch(vec![item]);
    phone.applies(batch);
    let unsent = phone.states(1, FactKind::Arrived).fact.unwrap();
    assert_eq!(phone.pending(), 1);

    let mut office = Office { generation: Generation(8), actor: sync_core::document::ActorKey([0x51; 16]), ..backup };
    let check = phone.store.server_identity(office.generation, Cursor(office.head), at(1)).unwrap();
    assert_eq!((check.changed, check.requeued, check.cursor), (true, 3, Cursor(0)));
    phone.applies(office.everything());
    phone.syncs(&mut office);
    for (visit, fact) in [(1, &first), (1, &second), (2, &third), (1, &unsent)] {
        assert!(office.has_fact(visit, fact), "{fact}");
        assert_eq!(office.accepted.iter().filter(|accepted| *accepted == fact).count(), 1);
    }
    assert_eq!(phone.pending(), 0);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
    // Told again, the same server is no news.
    assert!(!phone.store.server_identity(office.generation, Cursor(office.head), at(1)).unwrap().changed);
}

#[test]
fn a_server_that_misses_earlier_changes_is_sent_the_kept_ones() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let before = office.visits.clone();
    phone.states(1, FactKind::Accepted { eta: None });
    let page = phone.store.outbox_page(&sync_core::store::PageLimits::default()).unwrap();
    let mut acks = office.receives(&phone.device(), &[page.lanes[0].lane.clone()]);
    acks[0].update = None;
    phone.store.push_acknowledged(&page.lanes, &acks, None, at(1), &mut rng(77)).unwrap();
    let second = phone.states(1, FactKind::Arrived).fact.unwrap();
    // The same generation, and yet the first is missing: a fault, not a restore.
    office.visits = before;
    assert_eq!(phone.pushes(&mut office).resend, [id(1)]);
    phone.syncs(&mut office);
    assert!(office.has_fact(1, &second));
    assert_eq!(phone.pending(), 0);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn a_server_that_misses_more_than_was_kept_gets_the_edits_made_again() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let before = office.visits.clone();
    phone.states(1, FactKind::Accepted { eta: None });
    phone.pushes(&mut office);
    let month = 30 * 24 * 60;
    assert_eq!(phone.store.prune(at(month)).unwrap().receipts, 1);
    let second = phone.states(1, FactKind::Arrived).fact.unwrap();
    office.visits = before;
    phone.syncs(&mut office);
    assert!(office.has_fact(1, &second));
    assert_eq!(phone.pending(), 0);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn another_technicians_work_is_sealed_and_comes_back_with_them() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let mine = phone.device();
    let bound = phone.store.bind_user(&tenant(), &tech(11), &mut phone.rng).unwrap();
    assert_eq!((bound.changed, bound.sealed, bound.unsealed), (true, 1, 0));
    assert!(listed(&phone).is_empty());
    assert_eq!(phone.pending(), 0);
    assert_eq!(phone.store.sealed().unwrap(), [(tenant(), tech(10), 1)]);
    assert_ne!(phone.device(), mine, "to the server a device is one technician's");
    phone.store.close().unwrap();

    let mut phone = Phone { store: disk.open(2).store, rng: rng(3), minute: 30 };
    let bound = phone.store.bind_user(&tenant(), &tech(10), &mut phone.rng).unwrap();
    assert_eq!((bound.changed, bound.sealed, bound.unsealed), (true, 0, 1));
    assert_eq!(phone.device(), mine);
    assert!(!phone.store.bind_user(&tenant(), &tech(10), &mut phone.rng).unwrap().changed);
    phone.primes(&office);
    assert_eq!(pending_facts(&phone.store, 1), std::slice::from_ref(&fact));
    phone.syncs(&mut office);
    assert_eq!(office.accepted, [fact]);
    assert_eq!(phone.states(1, FactKind::Arrived).seq, Some(2));
}

#[test]
fn a_revoked_phone_keeps_nothing_readable_but_its_sealed_work() {
    let disk = Disk::new();
    let office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.notes(1, "Hofrat Novak, door code 1683");
    let wiped = phone.store.wipe_after_revocation(&mut phone.rng).unwrap();
    assert_eq!((wiped.visits, wiped.sealed), (2, 1));
    assert_eq!(phone.store.sync_state().unwrap().user, None);
    assert!(listed(&phone).is_empty());
    assert_eq!(phone.store.sealed().unwrap(), [(tenant(), tech(10), 1)]);
    for suffix in ["", "-wal"] {
        let bytes = std::fs::read(disk.beside(suffix)).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!has("Stubenring"), "the visits' pages are overwritten");
    }
}

/// The app was ended between the wipe and the rewriting of the file: what had been freed lies there still.
#[test]
fn an_opening_finishes_a_wipe_that_was_cut_off() {
    let disk = Disk::new();
    let office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let device = phone.device();
    phone.store.wipe_after_revocation(&mut phone.rng).unwrap();
    phone.store.close().unwrap();
    let file = rusqlite::Connection::open(disk.beside("")).unwrap();
    file.pragma_update(None, "secure_delete", false).unwrap();
    file.execute_batch("CREATE TABLE freed (text); INSERT INTO freed VALUES ('Stubenring 24'); DROP TABLE freed;")
        .unwrap();
    file.close().unwrap();
    let has_it = || {
        ["", "-wal"].iter().any(|suffix| {
            let bytes = std::fs::read(disk.beside(suffix)).unwrap_or_default();
            bytes.windows(10).any(|window| window == b"Stubenring")
        })
    };
    assert!(has_it());

    let opened = disk.open(2);
    assert!(!has_it());
    assert!(opened.report.set_aside.is_none());
    // The proof is owed until it was given.
    let owed = opened.store.sync_state().unwrap().farewell.unwrap();
    assert_eq!((owed.user, owed.device), ((tenant(), tech(10)), device));
    opened.store.wipe_proven().unwrap();
    drop(opened);
    assert_eq!(disk.open(3).store.sync_state().unwrap().farewell, None);
}

#[test]
fn another_technician_owes_nobodys_proof() {
    let disk = Disk::new();
    let mut phone = disk.phone(1);
    phone.primes(&Office::new([1]));
    phone.store.wipe_after_revocation(&mut phone.rng).unwrap();
    phone.store.bind_user(&tenant(), &tech(10), &mut phone.rng).unwrap();
    assert!(phone.store.sync_state().unwrap().farewell.is_some(), "the same one does");
    phone.store.bind_user(&tenant(), &tech(20), &mut phone.rng).unwrap();
    assert_eq!(phone.store.sync_state().unwrap().farewell, None);
}

#[test]
fn old_receipts_and_seen_tombstones_are_pruned() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::Accepted { eta: None });
    phone.states(2, FactKind::Accepted { eta: None });
    phone.pushes(&mut office);
    phone.states(2, FactKind::Arrived);
    let item = office.takes_away(1, TombstoneReason::Cancelled);
    let batch = office.batch(vec![item]);
    phone.applies(batch);
    phone.store.acknowledge_tombstone(&id(1), at(31)).unwrap();
    assert_eq!(phone.store.prune(at(60)).unwrap(), Default::default());
    let pruned = phone.store.prune(at(60 * 24 * 60)).unwrap();
    assert_eq!((pruned.receipts, pruned.tombstones), (2, 1));
    assert_eq!(phone.pending(), 1, "what the server does not have stays for ever");
}

#[test]
fn receipts_are_pruned_on_the_day_after_they_grew_old_whatever_the_phones_clock_says() {
    const DAY: i64 = 24 * 60;
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::Accepted { eta: None });
    phone.pushes(&mut office);
    assert_eq!(phone.store.note_synced(at(60)).unwrap().receipts, 0);
    // Somebody sets the clock a year ahead, and the phone finds out at its next connection.
    let year = 365 * DAY;
    phone.store.set_clock_offset(-year * 60_000, 50, &now(year + 90)).unwrap();
    assert_eq!(phone.store.note_synced(at(year + 90)).unwrap().receipts, 0, "it is still the same day");
    assert_eq!(phone.store.note_synced(at(year + 60 * DAY)).unwrap().receipts, 1, "now it is old");
    assert_eq!(phone.pending(), 0);
}

#[test]
fn the_digest_that_is_kept_is_the_digest_of_what_is_held() {
    for seed in 0..6 {
        let disk = Disk::new();
        let mut office = Office::new(1..=8);
        let mut phone = disk.phone(seed);
        phone.primes(&office);
        let mut dice = rng(seed);
        for step in 0..60 {
            let number = dice.random_range(1..=8_u32);
            let gone = office.gone.contains(&id(number));
            match dice.random_range(0..6_u8) {
                0 if !gone => {
                    phone.notes(number, "x");
                }
                1 if !gone => {
                    let item = office.replans(number, |plan| plan.title = format!("Boiler {number}, step {step}"));
                    let batch = office.batch(vec![item]);
                    phone.applies(batch);
                }
                2 if !gone => {
                    let item = office.takes_away(number, TombstoneReason::Unassigned);
                    let batch = office.batch(vec![item]);
                    phone.applies(batch);
                }
                3 if gone => {
                    office.gone.remove(&id(number));
                    let item = office.snapshot(&id(number));
                    let batch = office.batch(vec![item]);
                    phone.applies(batch);
                }
                4 => {
                    phone.pushes(&mut office);
                }
                _ => {
                    phone.loses_the_answer(&mut office);
                    phone.store.mark_for_fetch(&office.held().map(|(id, _)| id.clone()).collect::<Vec<_>>()).unwrap();
                    phone.syncs(&mut office);
                }
            }
        }
        phone.store.mark_for_fetch(&office.held().map(|(id, _)| id.clone()).collect::<Vec<_>>()).unwrap();
        phone.syncs(&mut office);
        assert_eq!(phone.store.sync_state().unwrap().digest, office.digest(), "seed {seed}");
        assert_eq!(phone.pending(), 0, "seed {seed}");
        for (dispatch, doc) in office.held() {
            assert_eq!(phone.store.visit(dispatch).unwrap().report, doc.report(), "seed {seed}, {dispatch}");
        }
    }
}

#[test]
fn what_was_appended_without_opening_is_the_offices_document() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    for round in 0..40 {
        let item = office.replans(1, |plan| plan.title = format!("Boiler, plan {round}"));
        let batch = office.batch(vec![item]);
        assert_eq!(phone.applies(batch).digest_matches, Some(true));
        if round % 3 == 0 {
            phone.notes(1, "drip ");
            phone.pushes(&mut office);
        }
    }
    let detail = phone.store.visit(&id(1)).unwrap();
    let doc = &office.visits[&id(1)];
    assert_eq!((detail.view, detail.report), (doc.view(), doc.report()));
    assert_eq!(detail.card.title, "Boiler, plan 39");
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn after_an_answer_that_was_lost_the_next_one_is_not_appended_to_what_lacks_it() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::Accepted { eta: None });
    phone.loses_the_answer(&mut office);
    // Sent again, the server has it, and adds nothing: its ruling was in the answer that was lost.
    let page = phone.store.outbox_page(&PageLimits::default()).unwrap();
    let acks = [LaneAck { dispatch: id(1), accepted: 1, refusal: None, verdicts: Vec::new(), update: None }];
    phone.store.push_acknowledged(&page.lanes, &acks, None, at(1), &mut rng(77)).unwrap();
    // The next answer builds on that ruling, which the phone has never seen.
    phone.states(1, FactKind::Arrived);
    assert_eq!(phone.pushes(&mut office).needs_fetch, [id(1)]);
    assert_eq!(phone.store.counts().unwrap().quarantined, 0);
    assert!(phone.store.visit(&id(1)).is_ok());
    phone.syncs(&mut office);
    assert_eq!((phone.pending(), phone.store.sync_state().unwrap().digest), (0, office.digest()));
}

#[test]
fn a_database_that_never_heard_of_the_technician_leaves_a_card_for_each_visit() {
    let disk = Disk::new();
    let office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let check = phone.store.server_identity(Generation(8), Cursor(0), at(5)).unwrap();
    assert_eq!((check.changed, check.gone), (true, vec![id(1), id(2)]));
    assert_eq!(listed(&phone), [""; 0]);
    assert_eq!(phone.store.sync_state().unwrap().digest, Digest(0));
    let cards = phone.store.tombstones().unwrap();
    assert_eq!(cards.iter().map(|card| card.tombstone.reason).collect::<Vec<_>>(), [TombstoneReason::Unassigned; 2]);
}

/// Found by a simulated day: `sync-sim/cases/a-clock-set-ahead-hides-no-visit-that-has-gone.json`.
#[test]
fn a_clock_set_ahead_hides_no_visit_that_has_gone() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::CannotComplete { reason: "no access".into() });
    phone.pushes(&mut office);
    // By the phone's clock it is the day after tomorrow, when nobody needs a card of a visit that has ended.
    let ahead = 40 * 60;
    phone.store.set_clock_offset(-ahead * 60_000, 50, &now(ahead + 5)).unwrap();
    let check = phone.store.server_identity(Generation(8), Cursor(0), at(ahead + 5)).unwrap();
    assert_eq!(check.gone, [id(1)]);
    let cards = phone.store.tombstones().unwrap();
    assert_eq!(
        cards.iter().map(|card| card.tombstone.at).collect::<Vec<_>>(),
        [at(5)],
        "when it left, by the office's clock"
    );
}

#[test]
fn work_that_the_server_had_no_visit_for_goes_out_when_the_visit_comes_back() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let page = phone.store.outbox_page(&PageLimits::default()).unwrap();
    let refused = Some(refusal("DISPATCH_NOT_FOUND", Remedy::Park));
    let acks = [LaneAck { dispatch: id(1), accepted: 0, refusal: refused, verdicts: Vec::new(), update: None }];
    phone.store.push_acknowledged(&page.lanes, &acks, None, at(1), &mut rng(77)).unwrap();
    assert_eq!(phone.store.sync_state().unwrap().parked, 1);
    phone.applies(office.everything());
    assert_eq!(phone.store.sync_state().unwrap().parked, 0);
    phone.syncs(&mut office);
    assert!(office.has_fact(1, &fact));
    assert_eq!(phone.pending(), 0);
}

#[test]
fn work_on_a_visit_that_left_is_made_again_on_what_the_server_still_has_of_it() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let known = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    phone.pushes(&mut office);
    let before = office.visits.clone();
    // A plan that the phone builds on, and that the server will have lost; and then the visit leaves.
    let item = office.replans(1, |plan| plan.title = "lost".into());
    let batch = office.batch(vec![item]);
    phone.applies(batch);
    let fact = phone.states(1, FactKind::Arrived).fact.unwrap();
    let item = office.takes_away(1, TombstoneReason::Reassigned);
    let batch = office.batch(vec![item]);
    phone.applies(batch);
    office.visits = before;
    for _ in 0..4 {
        phone.pushes(&mut office);
    }
    assert!(office.has_fact(1, &fact));
    assert_eq!((phone.pending(), phone.store.sync_state().unwrap().parked), (0, 0));
    assert_eq!(office.accepted, [known, fact]);
}

#[test]
fn work_from_before_a_revocation_is_stated_anew_also_for_a_visit_that_has_left() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let item = office.takes_away(1, TombstoneReason::Reassigned);
    let batch = office.batch(vec![item]);
    phone.applies(batch);
    let before = phone.device();
    assert_eq!(phone.store.wipe_after_revocation(&mut phone.rng).unwrap().sealed, 1);
    assert_eq!(phone.store.bind_user(&tenant(), &tech(10), &mut phone.rng).unwrap().unsealed, 1);
    assert_ne!(phone.device(), before);
    phone.primes(&office);
    for _ in 0..3 {
        phone.pushes(&mut office);
    }
    assert!(office.has_fact(1, &fact));
    assert_eq!((phone.pending(), phone.store.sync_state().unwrap().parked), (0, 0));
}
