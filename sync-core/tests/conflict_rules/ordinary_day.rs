//! The ordinary day, and what the office and the app may ask for.

use sync_core::domain::fold::fold_ruled;
use sync_core::domain::plan::Priority;
use sync_core::domain::rules::admission::validate_fact;
use sync_core::domain::rules::legal::{IllegalAct, legal_next};
use sync_core::domain::rules::office::{self};
use sync_core::domain::{Fact, FactKind, TechnicianId, VisitStatus, fold};

use crate::stage::{IN_ORDER, Phone, Visit, accepted, at, cannot_complete, labour, part, rejected, tech, travel};

#[test]
fn a_visit_runs_its_course() {
    let ann = tech("TECH-10");
    let mut visit = Visit::planned();
    assert_eq!(visit.status(), VisitStatus::Pending);
    visit.assign("08:00", &ann, &[]).unwrap();
    assert_eq!(visit.status(), VisitStatus::Assigned);
    let mut phone = Phone::of(&ann, &visit);
    for (when, kind, then) in [
        ("08:10", accepted(), VisitStatus::Confirmed),
        ("09:00", travel(), VisitStatus::EnRoute),
        ("09:30", FactKind::Arrived, VisitStatus::Arrived),
        ("09:35", FactKind::WorkStarted, VisitStatus::InProgress),
        ("10:00", FactKind::Paused { reason: None }, VisitStatus::Paused),
        ("10:15", FactKind::Resumed, VisitStatus::InProgress),
        ("10:40", labour(65), VisitStatus::InProgress),
        ("10:41", FactKind::Completed, VisitStatus::Completed),
    ] {
        assert_eq!(legal_next(&visit.view.plan, &visit.state(), &ann, &kind), Ok(()), "{kind:?}");
        phone.does(when, kind);
        assert_eq!(visit.receives(&mut phone, when), [IN_ORDER]);
        assert_eq!(visit.status(), then);
    }
    let state = visit.state();
    assert_eq!(state.eta, Some(at("09:30")));
    assert_eq!(state.on_time, Some(true));
    assert_eq!(state.arrived.unwrap().at, at("09:30"));
    assert_eq!(state.ended.unwrap().at, at("10:41"));
    assert_eq!((state.pending_facts, state.exceptions.len(), state.billing_hold), (0, 0, false));
    assert_eq!(state.office_status(Some(state.epoch)), VisitStatus::Completed);
}

#[test]
fn an_assigned_visit_that_has_reached_the_phone_is_dispatched_to_the_office() {
    let visit = Visit::assigned_to(&tech("TECH-10"), &[]);
    assert_eq!(visit.state().office_status(None), VisitStatus::Assigned);
    assert_eq!(visit.state().office_status(Some(1)), VisitStatus::Dispatched);
    assert_eq!(visit.state().office_status(Some(7)), VisitStatus::Assigned, "another epoch was delivered");
}

#[test]
fn the_phone_shows_its_own_actions_at_once_and_the_server_waits_for_its_ruling() {
    let ann = tech("TECH-10");
    let visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    let fact = phone.does("09:00", travel());
    let mut view = visit.view.clone();
    view.facts.insert(fact.id.clone(), fact);
    assert_eq!(fold(&view).status, VisitStatus::EnRoute);
    assert_eq!(fold(&view).pending_facts, 1);
    assert_eq!(fold_ruled(&view).status, VisitStatus::Assigned);
}

#[test]
fn a_visit_on_site_or_ended_is_not_moved_and_urgency_rises_by_steps() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    visit.command("08:30", office::escalate).unwrap();
    assert_eq!(visit.view.plan.priority, Priority::High);
    visit.command("08:31", office::escalate).unwrap();
    visit.command("08:32", office::escalate).unwrap();
    assert_eq!(visit.view.plan.priority, Priority::Emergency);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:30", FactKind::Arrived);
    visit.receives(&mut phone, "09:31");
    assert!(visit.assign("09:32", &tech("TECH-11"), &[]).is_err());
    assert!(visit.command("09:32", office::unassign).is_err());
    assert!(visit.command("09:32", office::reinstate).is_err(), "there is no cancellation to take back");
    assert!(visit.command("09:32", office::end_stop_work).is_err());
    phone.does("10:00", FactKind::Completed);
    visit.receives(&mut phone, "10:01");
    assert!(visit.cancel("10:02").is_err());
    assert!(visit.command("10:02", office::escalate).is_err());
}

#[test]
fn a_cancelled_visit_can_be_reinstated_where_it_was() {
    let ann = tech("TECH-10");
    let mut visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    phone.does("08:10", accepted());
    visit.receives(&mut phone, "08:11");
    visit.cancel("08:20").unwrap();
    visit.command("08:30", office::reinstate).unwrap();
    assert_eq!(visit.status(), VisitStatus::Confirmed);
    visit.cancel("08:40").unwrap();
    assert_eq!(visit.status(), VisitStatus::Cancelled);
}

#[test]
fn the_app_catches_slips_of_the_thumb_and_lets_paperwork_through() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    let next =
        |visit: &Visit, who: &TechnicianId, kind: FactKind| legal_next(&visit.view.plan, &visit.state(), who, &kind);
    assert_eq!(next(&visit, &bob, accepted()), Err(IllegalAct::NotAssigned));
    assert_eq!(next(&visit, &bob, labour(5)), Err(IllegalAct::NotAssigned));
    assert_eq!(next(&visit, &ann, FactKind::Resumed), Err(IllegalAct::NotPaused));
    assert_eq!(next(&visit, &ann, FactKind::Paused { reason: None }), Err(IllegalAct::NotInProgress));
    assert_eq!(next(&visit, &ann, FactKind::Unknown), Err(IllegalAct::UnknownKind));
    assert_eq!(next(&visit, &ann, FactKind::Completed), Ok(()), "people forget to press buttons");
    let mut phone = Phone::of(&ann, &visit);
    phone.does("09:30", FactKind::Arrived);
    visit.receives(&mut phone, "09:31");
    assert_eq!(next(&visit, &ann, FactKind::Arrived), Err(IllegalAct::AlreadyDone { status: VisitStatus::Arrived }));
    phone.does("10:30", FactKind::Completed);
    visit.receives(&mut phone, "10:31");
    assert_eq!(next(&visit, &ann, cannot_complete("late thought")), Err(IllegalAct::AlreadyEnded));
    for paperwork in [labour(60), part(1, None)] {
        assert_eq!(next(&visit, &ann, paperwork), Ok(()));
    }
}

#[test]
fn a_visit_taken_away_still_takes_the_paperwork_of_who_had_it() {
    let (ann, bob) = (tech("TECH-10"), tech("TECH-11"));
    let mut visit = Visit::assigned_to(&ann, &[]);
    visit.assign("09:00", &bob, &[]).unwrap();
    let mut phone = Phone::of(&ann, &visit);
    assert_eq!(legal_next(&visit.view.plan, &visit.state(), &ann, &labour(5)), Ok(()));
    assert_eq!(legal_next(&visit.view.plan, &visit.state(), &ann, &FactKind::Arrived), Err(IllegalAct::NotAssigned));
    assert_eq!(phone.does("09:10", labour(5)).epoch, 1);
    assert_eq!(visit.receives(&mut phone, "09:11"), [IN_ORDER]);
}

#[test]
fn what_has_no_form_is_not_let_in() {
    let ann = tech("TECH-10");
    let mut phone = Phone::of(&ann, &Visit::assigned_to(&ann, &[]));
    let mut refuse = |kind: FactKind| validate_fact(&phone.does("09:30", kind)).is_err();
    assert!(refuse(part(0, None)));
    assert!(refuse(part(2, Some("SN-1"))));
    assert!(refuse(rejected(&"x".repeat(1_001))));
    assert!(!refuse(rejected(&"x".repeat(1_000))));
    assert!(refuse(FactKind::Signature { signer: "Mrs Gray".to_owned(), sha256: "AB".repeat(32) }));
    assert!(!refuse(FactKind::Signature { signer: "Mrs Gray".to_owned(), sha256: "ab".repeat(32) }));
    let sound = phone.does("09:30", FactKind::Arrived);
    let position = sync_core::domain::Position { latitude: 52.0, longitude: 13.0, accuracy_m: f64::NAN };
    assert!(validate_fact(&Fact { position: Some(position), ..sound.clone() }).is_err());
    let position = sync_core::domain::Position { latitude: 91.0, accuracy_m: 5.0, ..position };
    assert!(validate_fact(&Fact { position: Some(position), ..sound.clone() }).is_err());
    assert!(validate_fact(&Fact { seq: 0, ..sound.clone() }).is_err());
    assert!(validate_fact(&Fact { seq: u64::MAX, ..sound.clone() }).is_err());
    assert!(validate_fact(&Fact { schema: 0, ..sound }).is_err());
}

#[test]
fn a_visit_that_was_just_rejected_on_this_phone_is_no_longer_its_own() {
    let ann = tech("TECH-10");
    let visit = Visit::assigned_to(&ann, &[]);
    let mut phone = Phone::of(&ann, &visit);
    let fact = phone.does("08:30", rejected("van broke down"));
    let mut view = visit.view.clone();
    view.facts.insert(fact.id.clone(), fact);
    let state = fold(&view);
    assert_eq!((state.status, state.reason.as_deref()), (VisitStatus::Pending, Some("van broke down")));
    assert_eq!(legal_next(&view.plan, &state, &ann, &FactKind::Arrived), Err(IllegalAct::NotAssigned));
}
