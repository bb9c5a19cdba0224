//! The conflict rules as a dispatcher would tell them: one story each, played against the pure rules alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::plan::{AssignmentEnd, CancellationEffect, Priority};
use sync_core::domain::rules::admission::validate_fact;
use sync_core::domain::rules::facts::{FactContext, judge};
use sync_core::domain::rules::legal::{IllegalAct, legal_next};
use sync_core::domain::rules::office::{self, Command, OfficeError, Reschedule};
use sync_core::domain::rules::sequence::{GAP_HOLD_MS, RUNS_MAX, SequenceLedger, must_hold};
use sync_core::domain::rules::sla::{self, BreachStatus, SlaContext};
use sync_core::domain::{
    BootId, ClockReading, DeviceId, Fact, FactId, FactKind, PartNumber, Plan, Ruling, RulingReason, SerialNumber,
    TechnicianId, Timestamp, UserId, Verdict, VisitState, VisitStatus, VisitView, Window, fold,
};

// ---------------------------------------------------------------------------------------------------------------------
// The stage: an office with one visit, and phones that are mostly offline.

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

/// A time on the day of the stories: `at("09:30")`.
fn at(clock: &str) -> Timestamp {
    format!("2026-02-03T{clock}:00Z").parse().unwrap()
}

fn window(from: &str, to: &str) -> Window {
    Window { start: at(from), end: at(to) }
}

fn tech(name: &str) -> TechnicianId {
    TechnicianId::new(name).unwrap()
}

/// The office and the server: one plan, everything that arrived, every ruling.
#[derive(Default)]
struct Visit {
    view: VisitView,
    dispatcher: Option<UserId>,
    ledgers: BTreeMap<DeviceId, SequenceLedger>,
    used: BTreeMap<(DeviceId, u64), FactId>,
    revoked: BTreeMap<DeviceId, Timestamp>,
    stock: BTreeMap<PartNumber, i64>,
}

impl Visit {
    fn planned() -> Self {
        let plan = Plan {
            revision: 1,
            title: "Replace compressor".to_owned(),
            arrival_window: Some(window("09:00", "10:00")),
            confirmed_window: Some(window("09:00", "10:00")),
            sla_deadline: Some(at("10:00")),
            ..Plan::default()
        };
        Self {
            view: VisitView { plan, ..VisitView::default() },
            dispatcher: Some(UserId::new("dora").unwrap()),
            ..Self::default()
        }
    }

    fn assigned_to(lead: &TechnicianId, crew: &[TechnicianId]) -> Self {
        let mut visit = Self::planned();
        visit.assign("08:00", lead, crew).unwrap();
        visit
    }

    fn state(&self) -> VisitState {
        fold_ruled(&self.view)
    }

    fn status(&self) -> VisitStatus {
        self.state().status
    }

    fn command(
        &mut self,
        now: &str,
        command: impl FnOnce(&Plan, &VisitState, &Command<'_>) -> Result<Plan, OfficeError>,
    ) -> Result<(), OfficeError> {
        let by = self.dispatcher.clone().unwrap();
        let before = self.view.plan.revision;
        self.view.plan = command(&self.view.plan, &self.state(), &Command { by: &by, now: at(now) })?;
        assert_eq!(self.view.plan.revision, before + 1, "every command is one revision");
        Ok(())
    }

    fn assign(&mut self, now: &str, lead: &TechnicianId, crew: &[TechnicianId]) -> Result<(), OfficeError> {
        self.command(now, |plan, state, command| office::assign(plan, state, command, lead, crew))
    }

    fn cancel(&mut self, now: &str) -> Result<(), OfficeError> {
        self.command(now, |plan, state, command| office::cancel(plan, state, command, "customer called it off"))
    }

    fn propose(&mut self, now: &str, arrival: Window, customer_confirmed: bool) {
        let change = Reschedule { arrival_window: Some(arrival), customer_confirmed, ..Reschedule::default() };
        self.command(now, |plan, state, command| office::reschedule(plan, state, command, &change)).unwrap();
    }

    fn effect(&self) -> Option<CancellationEffect> {
        self.view.plan.cancellation.as_ref().map(|cancellation| cancellation.effect)
    }

    /// The phone is online at last: its outbox is judged in order, as one push.
    fn receives(&mut self, phone: &mut Phone, now: &str) -> Vec<(Verdict, RulingReason)> {
        let outbox = std::mem::take(&mut phone.outbox);
        let rulings: Vec<Ruling> = outbox.iter().map(|(fact, knew)| self.receives_one(fact, *knew, at(now))).collect();
        rulings.into_iter().map(|ruling| (ruling.verdict, ruling.reason)).collect()
    }

    fn receives_one(&mut self, fact: &Fact, knew_revision: u64, now: Timestamp) -> Ruling {
        assert_eq!(validate_fact(fact), Ok(()));
        if let Some(ruling) = self.view.rulings.get(&fact.id) {
            return ruling.clone();
        }
        let ledger = self.ledgers.entry(fact.device.clone()).or_default();
        let gap = !ledger.has_all_before(fact.seq);
        ledger.observe(fact.seq);
        let owner = self.used.entry((fact.device.clone(), fact.seq)).or_insert_with(|| fact.id.clone());
        let sequence_reused = *owner != fact.id;
        let mut stock_falls_negative = false;
        let mut serial_used_before = false;
        if let FactKind::PartUsed { part, quantity, serial } = &fact.kind {
            let stock = self.stock.entry(part.clone()).or_insert(10);
            *stock -= i64::from(*quantity);
            stock_falls_negative = *stock < 0;
            serial_used_before =
                self.state().parts.iter().any(|used| used.part == *part && serial.is_some() && used.serial == *serial);
        }
        let state = self.state();
        let judgement = judge(&FactContext {
            plan: &self.view.plan,
            state: &state,
            fact,
            knew_revision,
            now,
            device_revoked_at: self.revoked.get(&fact.device).copied(),
            sequence_reused,
            gap,
            serial_used_before,
            stock_falls_negative,
        });
        if let Some(plan) = judgement.plan {
            assert_eq!(plan.revision, self.view.plan.revision + 1);
            self.view.plan = plan;
        }
        self.view.facts.insert(fact.id.clone(), fact.clone());
        self.view.rulings.insert(fact.id.clone(), judgement.ruling.clone());
        judgement.ruling
    }
}

/// A technician's phone. It knows the plan as of its last sync.
struct Phone {
    technician: TechnicianId,
    device: DeviceId,
    knows: Plan,
    seq: u64,
    /// How far the wall clock runs ahead, and whether the phone has measured it.
    ahead_ms: i64,
    measured: bool,
    uncertainty_ms: u32,
    outbox: Vec<(Fact, u64)>,
}

impl Phone {
    fn of(technician: &TechnicianId, visit: &Visit) -> Self {
        Self::named(technician, &format!("PHONE-{technician}"), visit)
    }

    fn named(technician: &TechnicianId, device: &str, visit: &Visit) -> Self {
        Self {
            technician: technician.clone(),
            device: DeviceId::new(device).unwrap(),
            knows: visit.view.plan.clone(),
            seq: 0,
            ahead_ms: 0,
            measured: true,
            uncertainty_ms: 500,
            outbox: Vec::new(),
        }
    }

    fn syncs(&mut self, visit: &Visit) {
        self.knows = visit.view.plan.clone();
    }

    fn does(&mut self, when: &str, kind: FactKind) -> Fact {
        self.seq += 1;
        let fact = Fact {
            schema: 1,
            id: FactId::new(format!("{}-{}", self.device, self.seq)).unwrap(),
            epoch: self.knows.epoch_for(&self.technician).unwrap_or_default(),
            technician: self.technician.clone(),
            device: self.device.clone(),
            seq: self.seq,
            clock: ClockReading {
                wall: at(when).plus_millis(self.ahead_ms),
                monotonic_ms: self.seq * 1_000,
                boot: BootId::new("boot-1").unwrap(),
                offset_ms: self.measured.then_some(-self.ahead_ms),
                uncertainty_ms: self.measured.then_some(self.uncertainty_ms),
            },
            position: None,
            kind,
        };
        self.outbox.push((fact.clone(), self.knows.revision));
        fact
    }
}

fn accepted() -> FactKind {
    FactKind::Accepted { eta: Some(at("09:30")) }
}

fn travel() -> FactKind {
    FactKind::TravelStarted { eta: None }
}

fn rejected(reason: &str) -> FactKind {
    FactKind::Rejected { reason: reason.to_owned() }
}

fn cannot_complete(reason: &str) -> FactKind {
    FactKind::CannotComplete { reason: reason.to_owned() }
}

fn labour(minutes: u32) -> FactKind {
    FactKind::TimeEntry { category: "labour".to_owned(), minutes }
}

fn part(quantity: u32, serial: Option<&str>) -> FactKind {
    FactKind::PartUsed {
        part: PartNumber::new("PART-55").unwrap(),
        quantity,
        serial: serial.map(|serial| SerialNumber::new(serial).unwrap()),
    }
}

const IN_ORDER: (Verdict, RulingReason) = (Verdict::Accepted, RulingReason::InOrder);

// ---------------------------------------------------------------------------------------------------------------------
// The ordinary day.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rules 1, 2 and 17: cancellation.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rules 3 and 4: re-assignment.

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
    visit.assign("08:30", &ann, &[cleo]).unwrap();
    assert_eq!((visit.status(), visit.view.plan.epoch), (VisitStatus::Confirmed, 2));
    phone.does("08:40", travel());
    assert_eq!(visit.receives(&mut phone, "08:41"), [IN_ORDER], "stated under the epoch that the new one continues");
    let mut bobs = Phone::of(&bob, &visit);
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

// ---------------------------------------------------------------------------------------------------------------------
// Rule 5: crews.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rule 6: clocks.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rule 7: parts.

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
    assert_eq!(visit.receives(&mut bobs, "09:50"), [(Verdict::Exception, RulingReason::SerialUsedTwice), IN_ORDER]);
    let state = visit.state();
    let serials: Vec<&str> = state.parts.iter().map(|used| used.serial.as_ref().unwrap().as_str()).collect();
    assert_eq!(serials, ["SN-2", "SN-1"], "once each; the one that reached the server first stays");
    assert_eq!(state.exceptions[0].technician, bob);
}

// ---------------------------------------------------------------------------------------------------------------------
// Rules 9, 14 and 18: whom to believe.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rule 11: versions.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rule 12: the service level on two clocks.

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
}

// ---------------------------------------------------------------------------------------------------------------------
// Rule 13: windows.

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

// ---------------------------------------------------------------------------------------------------------------------
// Rule 16: missing predecessors.

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

// ---------------------------------------------------------------------------------------------------------------------
// Around the rules: what the office and the app may ask for.

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
