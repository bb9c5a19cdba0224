//! Rule 16: what is missing.

use sync_core::domain::rules::sequence::{GAP_HOLD_MS, RUNS_MAX, SequenceLedger, must_hold};
use sync_core::domain::{FactKind, RulingReason, Verdict, VisitStatus};

use crate::stage::{IN_ORDER, Phone, Visit, at, labour, part, tech};

#[test]
fn rule_16_a_fact_whose_predecessor_is_missing_waits_a_bounded_time() {
    assert!(must_hold(true, &FactKind::Completed, 0));
    assert!(must_hold(true, &FactKind::Completed, GAP_HOLD_MS - 1));
    assert!(!must_hold(true, &FactKind::Completed, GAP_HOLD_MS));
    assert!(!must_hold(false, &FactKind::Completed, 0));
    assert!(!must_hold(true, &labour(5), 0), "time needs no predecessor");
    assert!(!must_hold(true, &part(1, None), 0));
}

#[test]
fn rule_16_after_the_wait_what_needs_no_predecessor_is_applied_and_flagged() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:30", FactKind::Arrived);
    phone.does("10:00", FactKind::Paused { reason: None });
    let resumed = phone.does("10:15", FactKind::Resumed);
    let completed = phone.does("10:40", FactKind::Completed);

    let ruling = visit.receives_one(&resumed, 2, at("10:45"));
    assert_eq!((ruling.verdict, ruling.reason), (Verdict::Stale, RulingReason::OutOfOrder), "nothing known to resume");
    assert!(ruling.gap_flagged);
    let ruling = visit.receives_one(&completed, 2, at("10:45"));
    assert_eq!((ruling.verdict, ruling.reason), IN_ORDER, "a completion implies the steps before it");
    assert!(ruling.gap_flagged);
    assert_eq!(visit.status(), VisitStatus::Completed);

    // The missing ones come after all, and complete the picture without changing the end.
    visit.receives(&mut phone, "11:00");
    let state = visit.state();
    assert_eq!((state.status, state.arrived.unwrap().at), (VisitStatus::Completed, at("09:30")));
}

#[test]
fn rule_16_the_ledger_knows_what_is_missing_and_stays_small() {
    let mut ledger = SequenceLedger::default();
    assert!(ledger.observe(1) && ledger.observe(3));
    assert!(!ledger.observe(3) && !ledger.observe(1) && !ledger.observe(0));
    assert!(ledger.has_all_before(2) && !ledger.has_all_before(4));
    assert_eq!(ledger.missing(), 1);
    assert!(ledger.observe(2));
    assert_eq!((ledger.contiguous, ledger.runs.len(), ledger.missing()), (3, 0, 0));

    // Every second number is lost.
    for n in 0..2 * RUNS_MAX as u64 {
        ledger.observe(5 + 2 * n);
    }
    assert_eq!(ledger.runs.len(), RUNS_MAX);
    assert_eq!(ledger.contiguous, 5 + 2 * (RUNS_MAX as u64 - 1), "the lowest gaps were given up");
    assert!(!ledger.observe(4));
}
