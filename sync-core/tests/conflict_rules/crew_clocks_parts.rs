//! Rules 5, 6 and 7: crews, wrong clocks, parts.

use sync_core::domain::rules::legal::{IllegalAct, legal_next};
use sync_core::domain::rules::office::OfficeError;
use sync_core::domain::{FactKind, RulingReason, Verdict, VisitStatus, fold};

use crate::stage::{
    IN_ORDER, MINUTE, Phone, Visit, accepted, at, cannot_complete, labour, part, rejected, tech, travel,
};

#[test]
fn rule_5_facts_of_a_crew_are_united_and_only_the_lead_speaks_for_the_visit() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, std::slice::from_ref(&bob));
    let (mut anns, mut bobs) = (Phone::of(&ann, &visit), Phone::of(&bob, &visit));
    bobs.does("08:10", accepted());
    assert_eq!(visit.receives(&mut bobs, "08:11"), [IN_ORDER]);
    assert_eq!(visit.status(), VisitStatus::Assigned, "the lead has not taken it");
    bobs.does("09:00", FactKind::Arrived);
    bobs.does("09:01", labour(15));
    assert_eq!(visit.receives(&mut bobs, "09:02"), [IN_ORDER, IN_ORDER]);
    assert_eq!(visit.status(), VisitStatus::Arrived);
    let ann_arrives = legal_next(&visit.view.plan, &visit.state(), &ann, &FactKind::Arrived);
    assert_eq!(ann_arrives, Ok(()), "in a crew everybody arrives");
    anns.does("09:10", travel());
    anns.does("09:20", FactKind::WorkStarted);
    assert_eq!(visit.receives(&mut anns, "09:21"), [IN_ORDER, IN_ORDER]);

    assert_eq!(legal_next(&visit.view.plan, &visit.state(), &bob, &FactKind::Completed), Err(IllegalAct::NotLead));
    let not_lead = (Verdict::Exception, RulingReason::NotLead);
    bobs.does("10:00", FactKind::Completed);
    bobs.does("10:01", cannot_complete("no"));
    bobs.does("10:02", rejected("no"));
    assert_eq!(visit.receives(&mut bobs, "10:03"), [not_lead, not_lead, not_lead]);
    assert_eq!(visit.status(), VisitStatus::InProgress);
    anns.does("10:30", FactKind::Completed);
    assert_eq!(visit.receives(&mut anns, "10:31"), [IN_ORDER]);
    assert_eq!(visit.status(), VisitStatus::Completed);

    // The second phone was offline: what it saw before the end counts, also for the arrival.
    let mut late = Phone::named(&bob, "PHONE-OLD", &visit);
    late.does("08:50", FactKind::Arrived);
    late.does("10:45", travel());
    assert_eq!(visit.receives(&mut late, "11:00"), [IN_ORDER, (Verdict::Stale, RulingReason::AlreadyEnded)]);
    let state = visit.state();
    assert_eq!((state.status, state.arrived.unwrap().at), (VisitStatus::Completed, at("08:50")));
}

#[test]
fn rule_5_a_crew_names_nobody_twice() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::planned();
    for crew in [vec![ann.clone()], vec![bob.clone(), bob], (0..8).map(|n| tech(&format!("T-{n}"))).collect()] {
        assert_eq!(visit.assign("08:00", &ann, &crew), Err(OfficeError::Crew));
    }
}

#[test]
fn rule_6_a_devices_order_is_its_sequence_whatever_its_clock_did() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("10:00", FactKind::Arrived);
    phone.does("11:00", FactKind::WorkStarted);
    // Somebody sets the clock back by a year, and the phone does not notice.
    phone.measured = false;
    phone.ahead_ms = -365 * 24 * 60 * MINUTE;
    phone.does("11:30", FactKind::Paused { reason: None });
    assert_eq!(visit.receives(&mut phone, "11:31"), [IN_ORDER; 3]);
    assert_eq!(visit.status(), VisitStatus::Paused);
}

#[test]
fn rule_6_a_wrong_clock_is_corrected_flagged_and_still_accepted() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.ahead_ms = 3 * 60 * MINUTE;
    let fact = phone.does("09:30", FactKind::Arrived);
    assert_eq!(fact.clock.wall, at("12:30"));
    let ruling = visit.receives_one(&fact, 2, at("09:31"));
    assert!(ruling.clock_flagged);
    assert_eq!(ruling.recorded_at, at("09:31"));
    let arrived = visit.state().arrived.unwrap();
    assert_eq!((arrived.at, arrived.uncertainty_ms), (at("09:30"), 500));
    assert_eq!(visit.state().on_time, Some(true));

    phone.ahead_ms = MINUTE;
    let fact = phone.does("09:40", FactKind::WorkStarted);
    assert!(!visit.receives_one(&fact, 2, at("09:41")).clock_flagged);
}

#[test]
fn rule_7_parts_are_a_ledger_and_stock_may_go_negative() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    let first = phone.does("09:30", part(8, None));
    phone.does("09:31", part(8, None));
    assert_eq!(visit.receives(&mut phone, "09:40"), [IN_ORDER, (Verdict::Accepted, RulingReason::StockNegative)]);
    visit.receives_one(&first, 2, at("09:50"));
    assert_eq!(visit.state().parts.len(), 2, "the same entry again is the same entry");
}

#[test]
fn rule_7_a_serial_number_used_twice_is_an_exception() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, std::slice::from_ref(&bob));
    let (mut anns, mut bobs) = (Phone::of(&ann, &visit), Phone::of(&bob, &visit));
    anns.does("09:30", part(1, Some("SN-1")));
    bobs.does("09:20", part(1, Some("SN-1")));
    bobs.does("09:21", part(1, Some("SN-2")));

    // Before the server has ruled, everybody sees the same: the earlier use counts.
    let mut both = visit.view.clone();
    for (fact, _) in anns.outbox.iter().chain(&bobs.outbox) {
        both.facts.insert(fact.id.clone(), fact.clone());
    }
    let state = fold(&both);
    assert_eq!((state.parts.len(), state.exceptions.len()), (2, 1));
    assert_eq!(state.exceptions[0].technician, ann);

    assert_eq!(visit.receives(&mut anns, "09:40"), [IN_ORDER]);
    both.rulings = visit.view.rulings.clone();
    assert_eq!(fold(&both).exceptions[0].technician, bob, "what the server has accepted comes first");
    assert_eq!(visit.receives(&mut bobs, "09:50"), [(Verdict::Exception, RulingReason::SerialUsedTwice), IN_ORDER]);
    let state = visit.state();
    let serials: Vec<&str> = state.parts.iter().map(|used| used.serial.as_ref().unwrap().as_str()).collect();
    assert_eq!(serials, ["SN-2", "SN-1"], "once each; the one that reached the server first stays");
    assert_eq!(state.exceptions[0].technician, bob);
}

#[test]
fn rule_5_a_pause_that_arrives_after_its_resumption_does_not_stop_the_clock() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, std::slice::from_ref(&bob));
    let (mut anns, mut bobs) = (Phone::of(&ann, &visit), Phone::of(&bob, &visit));
    anns.does("09:00", FactKind::WorkStarted);
    visit.receives(&mut anns, "09:01");
    anns.does("10:00", FactKind::Paused { reason: None });
    bobs.does("10:30", FactKind::Resumed);
    assert_eq!(visit.receives(&mut bobs, "10:31"), [IN_ORDER]);
    assert_eq!(visit.receives(&mut anns, "11:00"), [IN_ORDER]);
    assert_eq!(visit.status(), VisitStatus::InProgress);
}
