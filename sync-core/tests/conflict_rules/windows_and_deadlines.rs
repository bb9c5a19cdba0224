//! Rules 12 and 13: deadlines and arrival windows.

use sync_core::domain::rules::legal::{IllegalAct, legal_next};
use sync_core::domain::rules::office::{self, OfficeError, Reschedule};
use sync_core::domain::rules::sla::{self, BreachStatus, SlaContext};
use sync_core::domain::{Fact, FactKind, RulingReason, Verdict, VisitStatus};

use crate::stage::{IN_ORDER, Phone, Visit, at, rejected, tech, travel, window};

#[test]
fn rule_12_a_breach_is_provisional_while_the_phone_is_silent_and_retracted_by_an_arrival_in_time() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:45", FactKind::Arrived);
    let breach = |visit: &Visit, now: &str, complete: Option<&str>, before| {
        sla::judge(&SlaContext {
            deadline: at("10:00"),
            arrived: visit.state().first_on_site(),
            now: at(now),
            phone_complete_at: complete.map(at),
            assigned: visit.state().lead.is_some(),
            before,
        })
    };
    assert_eq!(breach(&visit, "09:59", None, None), None);
    let provisional = breach(&visit, "10:01", Some("08:00"), None);
    assert_eq!(provisional, Some(BreachStatus::Provisional));
    visit.receives(&mut phone, "11:00");
    assert_eq!(breach(&visit, "11:00", Some("11:00"), provisional), Some(BreachStatus::Retracted));
    assert_eq!(visit.state().arrived.unwrap().at, at("09:45"), "both facts are kept");
}

#[test]
fn rule_12_a_breach_is_confirmed_when_the_phone_has_reported_and_there_was_no_arrival_in_time() {
    let context = SlaContext {
        deadline: at("10:00"),
        arrived: None,
        now: at("10:30"),
        phone_complete_at: None,
        assigned: true,
        before: Some(BreachStatus::Provisional),
    };
    assert_eq!(sla::judge(&context), Some(BreachStatus::Provisional));
    let reported = SlaContext { phone_complete_at: Some(at("10:20")), ..context };
    assert_eq!(sla::judge(&reported), Some(BreachStatus::Confirmed));
    let nobody_has_it = SlaContext { assigned: false, before: None, ..context };
    assert_eq!(sla::judge(&nobody_has_it), Some(BreachStatus::Confirmed));
    let silent_again = SlaContext { before: Some(BreachStatus::Confirmed), ..context };
    assert_eq!(sla::judge(&silent_again), Some(BreachStatus::Confirmed));
    let deadline_moved = SlaContext { deadline: at("12:00"), ..context };
    assert_eq!(sla::judge(&deadline_moved), Some(BreachStatus::Retracted));
    let moment = |when| Fact::moment(&Phone::of(&tech("TECH-10"), &Visit::planned()).does(when, FactKind::Arrived));
    let late = SlaContext { arrived: Some(moment("10:10")), ..context };
    assert_eq!(sla::judge(&late), Some(BreachStatus::Confirmed));
    let in_time = SlaContext { arrived: Some(moment("10:00")), ..context };
    assert_eq!(sla::judge(&in_time), Some(BreachStatus::Retracted));
    assert_eq!(sla::judge(&SlaContext { before: None, ..in_time }), None);
}

#[test]
fn rule_12_a_technician_who_forgot_to_state_the_arrival_was_there_when_the_work_began() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:40", FactKind::WorkStarted);
    phone.does("10:40", FactKind::Completed);
    visit.receives(&mut phone, "10:41");
    let state = visit.state();
    assert_eq!((state.arrived, state.on_time), (None, None));
    assert_eq!(state.first_on_site().unwrap().at, at("09:40"));

    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:50", FactKind::Completed);
    visit.receives(&mut phone, "09:51");
    assert_eq!(visit.state().first_on_site().unwrap().at, at("09:50"), "nor is a visit completed from afar");
}

#[test]
fn rule_13_before_travel_a_moved_window_is_in_force_at_once() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    visit.propose("08:30", window("14:00", "15:00"), false);
    let plan = &visit.view.plan;
    assert_eq!(plan.arrival_window, Some(window("14:00", "15:00")));
    assert_eq!(plan.judged_window(), Some(window("09:00", "10:00")), "the customer has not confirmed the new one");
    assert_eq!((plan.window_revision, plan.proposed_window.is_some()), (1, false));
    let confirmed = Reschedule { customer_confirmed: true, ..Reschedule::default() };
    visit.command("08:40", |plan, state, command| office::reschedule(plan, state, command, &confirmed)).unwrap();
    assert_eq!(visit.view.plan.judged_window(), Some(window("14:00", "15:00")));
}

#[test]
fn rule_13_a_window_moved_while_travelling_is_a_proposal_until_the_phone_has_acknowledged() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:40", travel());
    visit.receives(&mut phone, "08:41");
    visit.propose("08:50", window("10:00", "11:00"), true);
    let plan = &visit.view.plan;
    assert_eq!(plan.arrival_window, Some(window("09:00", "10:00")));
    assert_eq!(plan.judged_window(), Some(window("09:00", "10:00")));
    assert_eq!(plan.proposed_window.as_ref().unwrap().window_revision, 1);

    phone.syncs(&visit);
    let acknowledge = |window_revision| FactKind::WindowAcknowledged { window_revision };
    assert_eq!(legal_next(&visit.view.plan, &visit.state(), &ann, &acknowledge(7)), Err(IllegalAct::NoProposal));
    assert_eq!(legal_next(&visit.view.plan, &visit.state(), &ann, &acknowledge(1)), Ok(()));
    phone.does("08:54", acknowledge(7));
    phone.does("08:55", acknowledge(1));
    phone.does("10:30", FactKind::Arrived);
    assert_eq!(visit.receives(&mut phone, "10:31"), [(Verdict::Stale, RulingReason::OutOfOrder), IN_ORDER, IN_ORDER]);
    assert_eq!(visit.view.plan.judged_window(), Some(window("10:00", "11:00")));
    assert_eq!(visit.state().on_time, Some(true));
    assert!(visit.view.plan.proposed_window.is_none());
}

#[test]
fn rule_13_an_arrival_that_had_not_seen_the_proposal_is_judged_by_the_window_it_came_for() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:40", travel());
    visit.receives(&mut phone, "08:41");
    visit.propose("08:50", window("10:00", "11:00"), true);
    phone.does("09:30", FactKind::Arrived);
    phone.does("09:31", FactKind::WindowAcknowledged { window_revision: 1 });
    assert_eq!(visit.receives(&mut phone, "09:32"), [IN_ORDER, (Verdict::Stale, RulingReason::OutOfOrder)]);
    assert_eq!(visit.state().on_time, Some(true));
    assert!(visit.view.plan.proposed_window.is_none(), "the proposal has lapsed");
}

#[test]
fn rule_13_a_proposal_comes_into_force_when_its_traveller_loses_the_visit() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:40", travel());
    visit.receives(&mut phone, "08:41");
    visit.propose("08:50", window("10:00", "11:00"), true);
    visit.assign("08:55", &bob, &[]).unwrap();
    assert_eq!(visit.view.plan.judged_window(), Some(window("10:00", "11:00")));
    assert!(visit.view.plan.proposed_window.is_none());
}

#[test]
fn rule_13_a_window_must_make_sense() {
    let mut visit = Visit::planned();
    for impossible in [window("10:00", "10:00"), window("11:00", "10:00")] {
        let change = Reschedule { scheduled: Some(impossible), ..Reschedule::default() };
        let refused = visit.command("08:00", |plan, state, command| office::reschedule(plan, state, command, &change));
        assert_eq!(refused, Err(OfficeError::Window));
    }
}

#[test]
fn rule_13_a_proposal_comes_into_force_when_its_traveller_rejects_the_visit() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:40", travel());
    visit.receives(&mut phone, "08:41");
    visit.propose("08:50", window("10:00", "11:00"), true);
    phone.does("08:55", rejected("too late for me"));
    visit.receives(&mut phone, "08:56");
    assert_eq!(visit.status(), VisitStatus::Pending);
    assert_eq!(visit.view.plan.arrival_window, Some(window("10:00", "11:00")));
}

#[test]
fn rule_13_on_site_without_having_said_so_is_too_late_for_another_window() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:40", travel());
    visit.receives(&mut phone, "08:41");
    visit.propose("08:50", window("10:00", "11:00"), true);
    phone.does("09:30", FactKind::Paused { reason: Some("waiting for the key".to_owned()) });
    phone.does("09:31", FactKind::WindowAcknowledged { window_revision: 1 });
    assert_eq!(visit.receives(&mut phone, "09:32"), [IN_ORDER, (Verdict::Stale, RulingReason::OutOfOrder)]);
}
