//! Rules 3 and 4: somebody else shall go.

use sync_core::domain::plan::{AssignmentEnd, FORMER_ASSIGNMENTS_MAX};
use sync_core::domain::rules::office::{self};
use sync_core::domain::{FactKind, RulingReason, Verdict, VisitStatus};

use crate::stage::{IN_ORDER, Phone, Visit, accepted, at, labour, rejected, tech, travel};

#[test]
fn rule_3_re_assigned_while_offline_the_former_technicians_facts_are_no_ownership() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:10", accepted());
    phone.does("09:10", travel());
    visit.assign("09:00", &bob, &[]).unwrap();
    let former = (Verdict::Stale, RulingReason::FormerEpoch);
    assert_eq!(visit.receives(&mut phone, "09:20"), [former, former]);
    let state = visit.state();
    assert_eq!((state.status, state.epoch, state.lead), (VisitStatus::Assigned, 2, Some(bob.clone())));
    assert_eq!(visit.view.plan.former[0].reason, AssignmentEnd::Reassigned);

    // Arriving after the visit was taken away wins nothing; work that nobody had asked for is put before a person.
    phone.does("09:30", FactKind::Arrived);
    phone.does("09:31", FactKind::WorkStarted);
    phone.does("09:50", labour(20));
    let worked = (Verdict::Exception, RulingReason::FormerAssigneeWorked);
    assert_eq!(visit.receives(&mut phone, "10:00"), [former, worked, IN_ORDER]);
    let state = visit.state();
    assert_eq!((state.status, state.lead), (VisitStatus::Assigned, Some(bob)));
    assert_eq!(state.exceptions.len(), 1);
    assert_eq!(state.time.len(), 1, "the labour is kept all the same");
}

#[test]
fn rule_3_who_had_already_started_keeps_the_visit_and_the_other_is_withdrawn() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut anns = Phone::of(&ann, &visit);
    anns.does("08:10", accepted());
    visit.receives(&mut anns, "08:11");
    anns.does("08:55", FactKind::Arrived);
    anns.does("09:05", FactKind::WorkStarted);
    anns.does("09:45", FactKind::Completed);
    visit.assign("09:00", &bob, &[]).unwrap();
    let mut bobs = Phone::of(&bob, &visit);
    bobs.does("09:01", accepted());
    bobs.does("09:02", travel());
    assert_eq!(visit.receives(&mut bobs, "09:03"), [IN_ORDER, IN_ORDER]);
    assert_eq!(visit.status(), VisitStatus::EnRoute);

    // Only the arrival is decided; the rest of the push is judged against the plan that it made.
    let keeps = (Verdict::Accepted, RulingReason::KeepsVisit);
    assert_eq!(visit.receives(&mut anns, "10:00"), [keeps, IN_ORDER, IN_ORDER]);
    let state = visit.state();
    assert_eq!((state.status, state.epoch, state.lead), (VisitStatus::Completed, 3, Some(ann)));
    assert_eq!(state.accepted.unwrap().at, at("08:10"), "what was stated under the old epoch counts again");
    let plan = &visit.view.plan;
    assert_eq!(plan.assignment.as_ref().unwrap().continues, [1]);
    let withdrawn = plan.former.last().unwrap();
    assert_eq!((&withdrawn.assignment.lead, withdrawn.reason), (&bob, AssignmentEnd::Withdrawn));

    bobs.does("10:05", FactKind::Arrived);
    assert_eq!(visit.receives(&mut bobs, "10:06"), [(Verdict::Stale, RulingReason::FormerEpoch)]);
}

#[test]
fn rule_3_nobody_is_sent_home_from_the_site() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut anns = Phone::of(&ann, &visit);
    anns.does("08:55", FactKind::Arrived);
    visit.assign("09:00", &bob, &[]).unwrap();
    let mut bobs = Phone::of(&bob, &visit);
    bobs.does("09:20", FactKind::Arrived);
    assert_eq!(visit.receives(&mut bobs, "09:21"), [IN_ORDER]);
    assert_eq!(visit.receives(&mut anns, "09:30"), [(Verdict::Exception, RulingReason::FormerAssigneeWorked)]);
    assert_eq!(visit.state().lead, Some(bob));
    assert_eq!(visit.view.plan.epoch, 2);
}

#[test]
fn rule_3_a_visit_taken_back_while_its_technician_was_on_site_is_given_back() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:55", FactKind::Arrived);
    visit.command("09:00", office::unassign).unwrap();
    assert_eq!((visit.status(), visit.state().lead), (VisitStatus::Pending, None));
    assert_eq!(visit.receives(&mut phone, "09:30"), [(Verdict::Accepted, RulingReason::KeepsVisit)]);
    assert_eq!((visit.status(), visit.state().lead), (VisitStatus::Arrived, Some(ann)));
}

#[test]
fn rule_3_and_17_on_site_before_both_the_re_assignment_and_the_cancellation() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:55", FactKind::Arrived);
    visit.assign("09:00", &bob, &[]).unwrap();
    visit.cancel("09:10").unwrap();
    assert_eq!(visit.receives(&mut phone, "09:30"), [(Verdict::Accepted, RulingReason::OnSiteBeforeCancellation)]);
    let state = visit.state();
    assert_eq!((state.status, state.lead, state.stop_work), (VisitStatus::Arrived, Some(ann), true));
}

#[test]
fn rule_3_changing_only_the_crew_keeps_what_the_lead_has_done() {
    let (ann, bob, cleo) = (tech("TECH-10"), tech("TECH-11"), tech("TECH-12"));
    let mut visit = Visit::assigned_to(&ann, std::slice::from_ref(&bob));
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:10", accepted());
    visit.receives(&mut phone, "08:11");
    let mut bobs = Phone::of(&bob, &visit);
    bobs.does("08:20", travel());
    visit.receives(&mut bobs, "08:21");
    assert_eq!(visit.status(), VisitStatus::EnRoute);
    visit.assign("08:30", &ann, &[cleo]).unwrap();
    assert_eq!(visit.view.plan.epoch, 2);
    assert_eq!(visit.status(), VisitStatus::Confirmed, "who was on the way is no longer on the visit");
    phone.does("08:40", travel());
    assert_eq!(visit.receives(&mut phone, "08:41"), [IN_ORDER], "stated under the epoch that the new one continues");
    bobs.does("08:50", travel());
    assert_eq!(visit.receives(&mut bobs, "08:51"), [(Verdict::Stale, RulingReason::FormerEpoch)]);
}

#[test]
fn rule_4_a_late_reject_of_an_old_epoch_does_not_take_the_visit_from_its_new_technician() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:30", rejected("van broke down"));
    visit.assign("09:00", &bob, &[]).unwrap();
    assert_eq!(visit.receives(&mut phone, "09:30"), [(Verdict::Stale, RulingReason::FormerEpoch)]);
    assert_eq!(visit.state().lead, Some(bob));
    assert_eq!(visit.view.facts.len(), 1, "recorded in the history");
}

#[test]
fn rule_4_a_rejection_gives_the_visit_back_with_its_reason() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:30", rejected("van broke down"));
    phone.does("08:31", accepted());
    assert_eq!(visit.receives(&mut phone, "08:32"), [IN_ORDER, (Verdict::Stale, RulingReason::FormerEpoch)]);
    let state = visit.state();
    assert_eq!((state.status, state.lead), (VisitStatus::Pending, None));
    assert_eq!(state.reason.as_deref(), Some("van broke down"));
    assert_eq!(visit.view.plan.former[0].reason, AssignmentEnd::Rejected);

    visit.assign("09:00", &ann, &[]).unwrap();
    assert_eq!((visit.status(), visit.state().reason), (VisitStatus::Assigned, None));
}

#[test]
fn rule_4_a_reject_after_arrival_becomes_cannot_complete() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:00", FactKind::Arrived);
    phone.does("09:10", rejected("asbestos"));
    assert_eq!(
        visit.receives(&mut phone, "09:11"),
        [IN_ORDER, (Verdict::Accepted, RulingReason::RejectedAfterArrival)]
    );
    let state = visit.state();
    assert_eq!((state.status, state.lead), (VisitStatus::CannotComplete, Some(ann)));
    assert_eq!(state.reason.as_deref(), Some("asbestos"));
}

#[test]
fn rule_3_a_job_completed_before_the_re_assignment_is_proof_enough_of_having_started() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:55", FactKind::Completed);
    visit.assign("09:00", &bob, &[]).unwrap();
    assert_eq!(visit.receives(&mut phone, "09:30"), [(Verdict::Accepted, RulingReason::KeepsVisit)]);
    assert_eq!((visit.status(), visit.state().lead), (VisitStatus::Completed, Some(ann)));
}

#[test]
fn rule_3_and_2_the_office_decides_about_a_doubtful_completion_of_who_keeps_the_visit() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.uncertainty_ms = 600_000;
    phone.does("08:58", FactKind::Completed);
    visit.assign("09:00", &bob, &[]).unwrap();
    visit.cancel("09:05").unwrap();
    assert_eq!(visit.receives(&mut phone, "09:30"), [(Verdict::Exception, RulingReason::CompletionTimeUncertain)]);
    assert_eq!((visit.status(), visit.state().lead), (VisitStatus::Cancelled, Some(ann)));
    visit.command("10:00", office::reinstate).unwrap();
    assert_eq!(visit.status(), VisitStatus::Completed);
}

#[test]
fn rule_3_the_history_of_re_assignments_is_bounded() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    for _ in 0..FORMER_ASSIGNMENTS_MAX {
        visit.assign("08:30", &bob, &[]).unwrap();
        visit.assign("08:31", &ann, &[]).unwrap();
    }
    let plan = &visit.view.plan;
    assert_eq!(plan.former.len(), FORMER_ASSIGNMENTS_MAX);
    assert_eq!(plan.former.last().unwrap().assignment.epoch, plan.epoch - 1, "the oldest are dropped");
    for _ in 0..2 * FORMER_ASSIGNMENTS_MAX {
        visit.assign("08:40", &ann, std::slice::from_ref(&bob)).unwrap();
    }
    assert_eq!(visit.view.plan.assignment.as_ref().unwrap().continues.len(), FORMER_ASSIGNMENTS_MAX);
}

#[test]
fn rule_4_the_lead_rejects_while_a_crew_member_is_on_site_already() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, std::slice::from_ref(&bob));
    let (mut anns, mut bobs) = (Phone::of(&ann, &visit), Phone::of(&bob, &visit));
    anns.does("09:05", rejected("ill"));
    bobs.does("09:10", FactKind::Arrived);
    visit.receives(&mut bobs, "09:11");
    assert_eq!(visit.receives(&mut anns, "09:30"), [(Verdict::Accepted, RulingReason::RejectedAfterArrival)]);
    assert_eq!(visit.status(), VisitStatus::CannotComplete, "though it was said before the arrival");
}
