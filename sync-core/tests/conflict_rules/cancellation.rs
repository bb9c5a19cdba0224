//! Rules 1, 2 and 17: the office cancels.

use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::rules::legal::{IllegalAct, legal_next};
use sync_core::domain::rules::office::{self, OfficeError};
use sync_core::domain::{FactKind, RulingReason, Verdict, VisitStatus};

use crate::stage::{IN_ORDER, Phone, Visit, accepted, cannot_complete, labour, tech, travel};

#[test]
fn rule_1_the_office_cancels_and_what_the_phone_did_before_it_knew_changes_nothing() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    visit.cancel("09:00").unwrap();
    assert_eq!(visit.status(), VisitStatus::Cancelled);
    assert_eq!(visit.effect(), Some(CancellationEffect::Cancelled));
    assert!(visit.view.plan.assignment.is_some(), "the assignment stays, so that late facts can be judged");

    phone.does("08:55", accepted());
    phone.does("09:05", travel());
    let stale = (Verdict::Stale, RulingReason::AfterCancellation);
    assert_eq!(visit.receives(&mut phone, "09:20"), [stale, stale]);
    assert_eq!(visit.status(), VisitStatus::Cancelled);
    assert!(!visit.state().billing_hold);

    let refused = OfficeError::IllegalTransition { status: VisitStatus::Cancelled, command: "cancelled" };
    assert_eq!(visit.cancel("09:30"), Err(refused));
    assert!(visit.assign("09:30", &tech("TECH-11"), &[]).is_err());
    phone.syncs(&visit);
    assert_eq!(legal_next(&phone.knows, &visit.state(), &ann, &FactKind::Arrived), Err(IllegalAct::Cancelled));
}

#[test]
fn rule_2_completed_before_the_cancellation_the_completion_stands() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("10:00", FactKind::Completed);
    visit.cancel("10:30").unwrap();
    assert_eq!(visit.receives(&mut phone, "11:00"), [(Verdict::Accepted, RulingReason::CompletedBeforeCancellation)]);
    assert_eq!(visit.effect(), Some(CancellationEffect::Void));
    assert_eq!(visit.status(), VisitStatus::Completed);
    assert!(!visit.state().billing_hold);
}

#[test]
fn rule_2_completed_after_the_cancellation_is_an_exception_with_a_billing_hold() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    visit.cancel("09:00").unwrap();
    phone.does("10:00", FactKind::Arrived);
    phone.does("11:00", labour(60));
    phone.does("11:01", FactKind::Completed);
    assert_eq!(
        visit.receives(&mut phone, "11:30"),
        [
            (Verdict::Stale, RulingReason::AfterCancellation),
            IN_ORDER,
            (Verdict::Exception, RulingReason::CompletedAfterCancellation),
        ]
    );
    let state = visit.state();
    assert_eq!(state.status, VisitStatus::Cancelled);
    assert!(state.billing_hold);
    assert_eq!(state.exceptions[0].reason, RulingReason::CompletedAfterCancellation);
    assert_eq!(state.time[0].minutes, 60, "the labour is kept");

    // The office lets the completion stand after all.
    visit.command("12:00", office::reinstate).unwrap();
    let state = visit.state();
    assert_eq!(state.status, VisitStatus::Completed);
    assert_eq!((state.billing_hold, state.exceptions.len()), (false, 0));
}

#[test]
fn rule_2_the_clocks_cannot_tell_so_a_person_decides() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.uncertainty_ms = 90_000;
    visit.cancel("10:00").unwrap();
    phone.does("09:59", FactKind::Completed);
    assert_eq!(visit.receives(&mut phone, "10:30"), [(Verdict::Exception, RulingReason::CompletionTimeUncertain)]);
    assert_eq!(visit.status(), VisitStatus::Cancelled);
    assert!(visit.state().billing_hold);
}

#[test]
fn rule_2_a_phone_that_never_measured_its_clock_proves_nothing_within_two_minutes() {
    let ann = tech("TECH-10");
    for (completed, reason) in [
        ("09:57", RulingReason::CompletedBeforeCancellation),
        ("09:58", RulingReason::CompletionTimeUncertain),
        ("10:02", RulingReason::CompletionTimeUncertain),
        ("10:03", RulingReason::CompletedAfterCancellation),
    ] {
        let mut visit = Visit::assigned_to(&ann, &[]);
        let mut phone = Phone::of(&ann, &visit);
        phone.measured = false;
        visit.cancel("10:00").unwrap();
        phone.does(completed, FactKind::Completed);
        assert_eq!(visit.receives(&mut phone, "10:30")[0].1, reason, "completed at {completed}");
    }
}

#[test]
fn rule_2_who_had_seen_the_cancellation_completed_after_it_whatever_the_clock_says() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    visit.cancel("10:00").unwrap();
    phone.syncs(&visit);
    phone.does("09:00", FactKind::Arrived);
    phone.does("09:30", FactKind::Completed);
    assert_eq!(
        visit.receives(&mut phone, "10:30"),
        [
            (Verdict::Stale, RulingReason::AfterCancellation),
            (Verdict::Exception, RulingReason::CompletedAfterCancellation),
        ]
    );
    assert_eq!(visit.effect(), Some(CancellationEffect::Cancelled));
}

#[test]
fn rule_17_cancelled_after_arrival_is_a_stop_work_request_that_ends_in_cannot_complete() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:30", FactKind::Arrived);
    phone.does("09:40", FactKind::WorkStarted);
    visit.receives(&mut phone, "09:41");
    visit.cancel("10:00").unwrap();
    assert_eq!(visit.effect(), Some(CancellationEffect::StopWork));
    assert_eq!((visit.status(), visit.state().stop_work), (VisitStatus::InProgress, true));
    assert!(visit.assign("10:01", &tech("TECH-11"), &[]).is_err());

    phone.syncs(&visit);
    let next = |kind: &FactKind| legal_next(&visit.view.plan, &visit.state(), &ann, kind);
    assert_eq!(next(&FactKind::Completed), Err(IllegalAct::StopWork));
    assert_eq!(next(&cannot_complete("stopped")), Ok(()));

    phone.does("10:10", labour(30));
    phone.does("10:11", cannot_complete("stopped by the office"));
    assert_eq!(visit.receives(&mut phone, "10:12"), [IN_ORDER, IN_ORDER]);
    let state = visit.state();
    assert_eq!((state.status, state.stop_work), (VisitStatus::CannotComplete, false));
    assert_eq!(state.reason.as_deref(), Some("stopped by the office"));
    assert_eq!(state.time[0].minutes, 30);
    assert!(!state.billing_hold);
}

#[test]
fn rule_17_on_site_offline_before_the_cancellation_turns_it_into_a_stop_work_request() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:30", FactKind::Arrived);
    visit.cancel("10:00").unwrap();
    assert_eq!(visit.receives(&mut phone, "10:30"), [(Verdict::Accepted, RulingReason::OnSiteBeforeCancellation)]);
    assert_eq!(visit.effect(), Some(CancellationEffect::StopWork));
    assert_eq!((visit.status(), visit.state().stop_work), (VisitStatus::Arrived, true));
}

#[test]
fn rule_17_physical_presence_wins_when_the_clocks_cannot_tell() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.uncertainty_ms = 90_000;
    visit.cancel("10:00").unwrap();
    phone.does("10:01", FactKind::Arrived);
    assert_eq!(visit.receives(&mut phone, "10:30"), [(Verdict::Accepted, RulingReason::OnSiteBeforeCancellation)]);
}

#[test]
fn rule_17_completing_in_spite_of_a_stop_work_request_is_told_apart_from_not_knowing_of_it() {
    let ann = tech("TECH-10");
    for (knew, reason) in
        [(true, RulingReason::CompletedDespiteStopWork), (false, RulingReason::CompletedAfterCancellation)]
    {
        let mut visit = Visit::assigned_to(&ann, &[]);
        let mut phone = Phone::of(&ann, &visit);
        phone.does("09:30", FactKind::Arrived);
        visit.receives(&mut phone, "09:31");
        visit.cancel("10:00").unwrap();
        if knew {
            phone.syncs(&visit);
        }
        phone.does("11:00", FactKind::Completed);
        assert_eq!(visit.receives(&mut phone, "11:30"), [(Verdict::Exception, reason)]);
        let state = visit.state();
        assert_eq!((state.status, state.stop_work, state.billing_hold), (VisitStatus::Arrived, true, true));

        // Nobody will report cannot-complete any more: the office closes the visit itself.
        visit.command("12:00", office::end_stop_work).unwrap();
        assert_eq!(visit.status(), VisitStatus::Cancelled);
        assert!(visit.state().billing_hold);
    }
}

#[test]
fn rule_2_and_17_a_whole_job_done_offline_before_the_cancellation_voids_it() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:00", FactKind::Arrived);
    phone.does("09:05", FactKind::WorkStarted);
    phone.does("09:50", FactKind::Completed);
    visit.cancel("10:00").unwrap();
    assert_eq!(
        visit.receives(&mut phone, "12:00"),
        [
            (Verdict::Accepted, RulingReason::OnSiteBeforeCancellation),
            IN_ORDER,
            (Verdict::Accepted, RulingReason::CompletedBeforeCancellation),
        ]
    );
    assert_eq!((visit.status(), visit.effect()), (VisitStatus::Completed, Some(CancellationEffect::Void)));
    assert!(visit.cancel("12:30").is_err());
}
