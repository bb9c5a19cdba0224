//! Rules 9, 11, 14 and 18: whom to believe, and what to make of other releases.

use sync_core::domain::{Fact, FactKind, RulingReason, Verdict, VisitStatus};

use crate::stage::{IN_ORDER, Phone, Visit, accepted, at, labour, part, tech};

#[test]
fn rule_9_a_lost_phone_leaves_a_known_gap_and_its_late_outbox_is_quarantined() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:00", accepted());
    visit.receives(&mut phone, "09:01");
    let ledger = visit.ledgers.get_mut(&phone.device).unwrap();
    ledger.announce(4);
    assert_eq!(ledger.missing(), 3);

    visit.revoked.insert(phone.device.clone(), at("12:00"));
    phone.does("09:30", FactKind::Arrived);
    phone.does("09:31", part(1, None));
    phone.does("13:00", FactKind::Completed);
    let quarantined = (Verdict::Exception, RulingReason::DeviceRevoked);
    assert_eq!(visit.receives(&mut phone, "14:00"), [quarantined; 3]);
    let state = visit.state();
    assert_eq!(state.status, VisitStatus::Confirmed);
    assert_eq!((state.parts.len(), state.exceptions.len()), (0, 3));
    assert_eq!(visit.view.facts.len(), 4, "quarantined, never deleted");
    assert_eq!(visit.ledgers[&phone.device].missing(), 0);
}

#[test]
fn rule_14_access_lost_with_unsent_work_is_judged_by_the_rights_at_the_epoch() {
    let (ann, bob, eve) = (tech("TECH-10"), tech("TECH-11"), tech("TECH-66"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut anns = Phone::of(&ann, &visit);
    visit.assign("09:00", &bob, &[]).unwrap();

    // Ann had the right when she acted.
    anns.does("08:30", part(1, None));
    assert_eq!(visit.receives(&mut anns, "10:00"), [IN_ORDER]);

    // Eve never had it, and Ann has none under Bob's epoch.
    let no_right = (Verdict::Exception, RulingReason::NoRightAtEpoch);
    let mut eves = Phone::of(&eve, &visit);
    for epoch in [0, 1, 2, 3] {
        let mut fact = eves.does("09:30", part(1, None));
        fact.epoch = epoch;
        let ruling = visit.receives_one(&fact, 3, at("10:00"));
        assert_eq!((ruling.verdict, ruling.reason), no_right, "epoch {epoch}");
    }
    let mut fact = anns.does("09:30", FactKind::Completed);
    fact.epoch = 2;
    let ruling = visit.receives_one(&fact, 3, at("10:00"));
    assert_eq!((ruling.verdict, ruling.reason), no_right);
    let state = visit.state();
    assert_eq!((state.status, state.parts.len(), state.exceptions.len()), (VisitStatus::Assigned, 1, 5));
}

#[test]
fn rule_18_the_same_fact_twice_is_one_and_a_reused_number_is_quarantined() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    let fact = phone.does("09:30", labour(30));
    let once = visit.receives_one(&fact, 2, at("09:31"));
    let again = visit.receives_one(&fact, 2, at("09:45"));
    assert_eq!(once, again);
    assert_eq!(visit.state().time.len(), 1);

    // A phone restored from a copy counts on from an old number.
    let mut restored = phone.does("10:00", FactKind::Arrived);
    restored.seq = 1;
    let ruling = visit.receives_one(&restored, 2, at("10:01"));
    assert_eq!((ruling.verdict, ruling.reason), (Verdict::Exception, RulingReason::SequenceReused));
    assert_eq!(visit.status(), VisitStatus::Assigned);
}

#[test]
fn rule_11_a_fact_of_a_newer_release_is_kept_and_shown_as_unknown() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    let mut fact = phone.does("09:30", FactKind::Unknown);
    fact.schema = 99;
    let ruling = visit.receives_one(&fact, 2, at("09:31"));
    assert_eq!((ruling.verdict, ruling.reason), (Verdict::Accepted, RulingReason::UnknownKind));
    let state = visit.state();
    assert_eq!((state.status, state.unknown_facts), (VisitStatus::Assigned, 1));
}

#[test]
fn rule_11_a_fact_as_the_first_release_wrote_it_is_still_understood() {
    // Literally what lies in an outbox in the field. Never change this text.
    let written = r#"{"v":1,"id":"f-1","epoch":1,"technician":"TECH-10","device":"PHONE-1","seq":1,
        "clock":{"wall":"2026-02-03T09:30:00Z","monotonic_ms":5000,"boot":"boot-1"},"kind":"arrived"}"#;
    let fact: Fact = serde_json::from_str(written).unwrap();
    let mut visit = Visit::assigned_to(&tech("TECH-10"), &[]);
    assert_eq!(visit.receives_one(&fact, 2, at("09:31")).reason, RulingReason::InOrder);
    assert_eq!(visit.status(), VisitStatus::Arrived);
}
