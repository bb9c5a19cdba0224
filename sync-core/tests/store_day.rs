//! A technician's day on the phone: acting offline, being killed, talking to the office again.
#![cfg(feature = "store")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test says what it expects by failing, and has its files"
)]

mod store_support;

use store_support::*;
use sync_core::domain::{FactKind, TombstoneReason, VisitStatus, Window};
use sync_core::protocol::Remedy;
use sync_core::store::{ActError, NewEdit, PageLimits, PendingState, VisitQuery};

#[test]
fn a_day_made_offline_survives_being_killed_and_reaches_the_office_once() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    assert_eq!(phone.primes(&office).digest_matches, Some(true));

    let mut made = Vec::new();
    for kind in [FactKind::Accepted { eta: None }, FactKind::TravelStarted { eta: None }, FactKind::Arrived] {
        made.push(phone.states(1, kind).fact.unwrap());
    }
    let acted = phone.states(1, FactKind::WorkStarted);
    assert_eq!((acted.seq, acted.pending, acted.card.status), (Some(4), 4, VisitStatus::InProgress));
    made.push(acted.fact.unwrap());
    phone.notes(1, "The pump is loud.");
    phone.acts(1, NewEdit::Answer { item: "pressure".parse().unwrap(), value: "1.6".into() });
    phone.acts(1, NewEdit::Summary("Bled, refilled.".into()));
    made.push(phone.states(1, FactKind::Completed).fact.unwrap());
    assert_eq!(phone.pending(), 8);
    let device = phone.device();
    drop(phone);

    let opened = disk.open(2);
    assert!(opened.report.set_aside.is_none() && !opened.report.restored && !opened.report.created);
    let mut phone = Phone { store: opened.store, rng: rng(3), minute: 100 };
    assert_eq!(phone.device(), device);
    assert_eq!(phone.pending(), 8);
    assert_eq!(pending_facts(&phone.store, 1), made);
    let detail = phone.store.visit(&id(1)).unwrap();
    assert_eq!(detail.state.status, VisitStatus::Completed);
    assert_eq!(detail.report.notes, "The pump is loud.");
    assert_eq!(detail.report.summary.as_deref(), Some("Bled, refilled."));

    let applied = phone.pushes(&mut office);
    assert_eq!((applied.acknowledged, applied.parked), (8, 0));
    assert_eq!(office.accepted, made);
    assert_eq!(phone.pending(), 0);
    let state = phone.store.sync_state().unwrap();
    assert_eq!(state.digest, office.digest());
    assert!(state.needs_fetch.is_empty());
    // The next fact goes on counting.
    assert_eq!(phone.states(2, FactKind::Accepted { eta: None }).seq, Some(6));
}

#[test]
fn every_action_is_on_disk_when_it_returns() {
    let disk = Disk::new();
    let mut phone = disk.phone(1);
    phone.primes(&Office::new([1]));
    let kinds = [FactKind::Accepted { eta: None }, FactKind::TravelStarted { eta: None }, FactKind::Arrived];
    for (made, kind) in (1..).zip(kinds) {
        let fact = phone.states(1, kind).fact.unwrap();
        let crashed = disk.crashed();
        let opened = crashed.open(9);
        assert!(opened.report.set_aside.is_none());
        assert_eq!(opened.store.outbox_mark().unwrap().pending, made);
        assert_eq!(pending_facts(&opened.store, 1).last(), Some(&fact));
    }
}

#[test]
fn a_slip_of_the_thumb_becomes_no_fact() {
    let disk = Disk::new();
    let mut phone = disk.phone(1);
    phone.primes(&Office::new([1]));
    let acted = phone.store.act(&id(1), NewEdit::Fact(FactKind::Resumed), &now(1), None, &mut phone.rng);
    assert!(matches!(acted, Err(ActError::Illegal { action: "resumed", .. })), "{acted:?}");
    let acted = phone.store.act(&id(99), NewEdit::Summary("x".into()), &now(1), None, &mut phone.rng);
    assert!(matches!(acted, Err(ActError::NotFound(_))));
    assert_eq!(phone.pending(), 0);
    // And takes no sequence number.
    assert_eq!(phone.states(1, FactKind::Accepted { eta: None }).seq, Some(1));
}

#[test]
fn nobody_acts_before_somebody_is_logged_in() {
    let disk = Disk::new();
    let store = disk.open(1).store;
    let acted = store.act(&id(1), NewEdit::Summary("x".into()), &now(1), None, &mut rng(1));
    assert!(matches!(acted, Err(ActError::NoUser)));
}

#[test]
fn todays_list_is_todays_in_order_and_by_status() {
    let disk = Disk::new();
    let mut office = Office::new([30, 10, 20]);
    office.plans(500, at(60 * 24 + 5));
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(20, FactKind::Accepted { eta: None });
    let today = VisitQuery { window: Some(Window { start: at(0), end: at(60 * 24) }), ..VisitQuery::default() };
    let ids = |query: &VisitQuery| -> Vec<_> {
        phone.store.visits(query).unwrap().into_iter().map(|card| card.dispatch_id).collect()
    };
    assert_eq!(ids(&today), [id(10), id(20), id(30)]);
    assert_eq!(ids(&VisitQuery { statuses: vec![VisitStatus::Confirmed], ..today.clone() }), [id(20)]);
    assert_eq!(ids(&VisitQuery { limit: 2, ..today }), [id(10), id(20)]);
    assert_eq!(ids(&VisitQuery::default()).len(), 4);
}

#[test]
fn a_lost_acknowledgement_costs_a_resend_and_no_duplicate() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    phone.loses_the_answer(&mut office);
    assert_eq!(phone.pending(), 1);
    let applied = phone.pushes(&mut office);
    assert_eq!(applied.acknowledged, 1);
    assert_eq!(office.accepted, [fact]);
    // The ruling of the first push was lost with its answer; the tag says so, and a fetch brings it.
    phone.store.mark_for_fetch(&[id(1)]).unwrap();
    phone.syncs(&mut office);
    assert_eq!(phone.store.visit(&id(1)).unwrap().state.pending_facts, 0);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn a_poisoned_lane_is_parked_and_the_others_go_on() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2, 3]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    for visit in [1, 2, 3] {
        phone.states(visit, FactKind::Accepted { eta: None });
    }
    office.refuses.insert(id(2), refusal("CHANGE_MALFORMED", Remedy::Park));
    let applied = phone.pushes(&mut office);
    assert_eq!((applied.acknowledged, applied.parked), (2, 1));
    assert!(phone.store.outbox_page(&PageLimits::default()).unwrap().lanes.is_empty());
    let parked = phone.store.parked().unwrap();
    assert_eq!((parked.len(), &parked[0].dispatch, parked[0].code.as_str()), (1, &id(2), "CHANGE_MALFORMED"));
    assert!(matches!(
        &phone.store.visit(&id(2)).unwrap().pending[0].state,
        PendingState::Parked { code, .. } if code == "CHANGE_MALFORMED"
    ));
    // Work on the parked visit goes on, and waits behind it.
    phone.states(2, FactKind::TravelStarted { eta: None });
    assert!(phone.store.outbox_page(&PageLimits::default()).unwrap().lanes.is_empty());
    assert_eq!(phone.store.sync_state().unwrap().parked, 1);

    assert_eq!(phone.store.retry_parked(&id(2), &mut phone.rng).unwrap(), 1);
    assert_eq!(phone.pushes(&mut office).acknowledged, 2);
    assert_eq!(phone.pending(), 0);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn a_lane_in_trouble_is_tried_again_after_the_others() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    phone.states(1, FactKind::Accepted { eta: None });
    phone.states(2, FactKind::Accepted { eta: None });
    office.refuses.insert(id(1), refusal("INTERNAL", Remedy::Retry));
    let one = PageLimits { lanes: 1, ..PageLimits::default() };
    let first = phone.store.outbox_page(&one).unwrap();
    assert!(first.more);
    assert_eq!(first.lanes[0].lane.dispatch, id(1));
    let acks = office.receives(&phone.device(), &[first.lanes[0].lane.clone()]);
    let applied = phone.store.push_acknowledged(&first.lanes, &acks, None, at(1), &mut rng(77)).unwrap();
    assert_eq!((applied.acknowledged, applied.retry), (0, vec![id(1)]));
    assert_eq!(phone.store.outbox_page(&one).unwrap().lanes[0].lane.dispatch, id(2));
    assert_eq!(phone.pushes(&mut office).acknowledged, 2);
}

#[test]
fn a_refused_change_is_parked_and_what_came_after_it_is_made_again() {
    let disk = Disk::new();
    let mut office = Office::new([1]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let refused = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let kept = phone.states(1, FactKind::TravelStarted { eta: None }).fact.unwrap();
    phone.notes(1, "Gate code 4711.");
    let actor = phone.store.sync_state().unwrap().actor;

    office.refuses.insert(id(1), refusal("CHANGE_FORBIDDEN", Remedy::Rebase));
    let applied = phone.pushes(&mut office);
    assert_eq!((applied.acknowledged, applied.parked, applied.needs_fetch), (0, 1, vec![id(1)]));
    // Until the server's copy is here the lane waits; work goes on.
    assert!(phone.store.outbox_page(&PageLimits::default()).unwrap().lanes.is_empty());
    let later = phone.states(1, FactKind::Arrived).fact.unwrap();

    phone.syncs(&mut office);
    assert_ne!(phone.store.sync_state().unwrap().actor, actor);
    assert!(office.has_fact(1, &kept) && office.has_fact(1, &later) && !office.has_fact(1, &refused));
    assert_eq!(office.visits[&id(1)].report().notes, "Gate code 4711.");
    assert_eq!(phone.pending(), 1, "the refused one is kept");
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());

    // A person looks at it, and has it sent after all.
    assert_eq!(phone.store.retry_parked(&id(1), &mut phone.rng).unwrap(), 1);
    phone.syncs(&mut office);
    assert!(office.has_fact(1, &refused));
    assert_eq!(phone.pending(), 0);
    assert_eq!(phone.store.sync_state().unwrap().digest, office.digest());
}

#[test]
fn a_visit_taken_away_leaves_a_card_and_keeps_unsent_work_until_it_is_acknowledged() {
    let disk = Disk::new();
    let mut office = Office::new([1, 2, 3]);
    let mut phone = disk.phone(1);
    phone.primes(&office);
    let fact = phone.states(1, FactKind::Accepted { eta: None }).fact.unwrap();
    let items = vec![
        office.takes_away(1, TombstoneReason::Reassigned),
        office.takes_away(2, TombstoneReason::Cancelled),
        office.takes_away(3, TombstoneReason::OutOfWindow),
    ];
    let batch = office.batch(items);
    assert_eq!(phone.applies(batch.clone()).digest_matches, Some(true));
    assert!(phone.store.visits(&VisitQuery::default()).unwrap().is_empty());
    let cards = phone.store.tombstones().unwrap();
    assert_eq!(
        cards.iter().map(|card| (card.tombstone.dispatch_id.clone(), card.unsent)).collect::<Vec<_>>(),
        [(id(1), 1), (id(2), 0)]
    );
    assert_eq!(pending_facts(&phone.store, 1), std::slice::from_ref(&fact));
    let acted = phone.store.act(&id(1), NewEdit::Summary("x".into()), &now(9), None, &mut phone.rng);
    assert!(matches!(acted, Err(ActError::NotFound(_))));

    assert_eq!(phone.pushes(&mut office).acknowledged, 1);
    assert!(office.has_fact(1, &fact));
    assert!(phone.store.visit(&id(1)).is_err(), "its document is gone with its last unsent change");

    assert!(phone.store.acknowledge_tombstone(&id(1), at(40)).unwrap());
    assert!(!phone.store.acknowledge_tombstone(&id(1), at(41)).unwrap());
    // The same news told again stays seen.
    phone.applies(sync_core::store::FeedBatch { from: phone.store.sync_state().unwrap().cursor, ..batch });
    assert_eq!(phone.store.tombstones().unwrap().len(), 1);
}
