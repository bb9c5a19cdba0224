//! Laws of the fold, the judge and the sequence ledger, for facts and plans of any kind; and that every value survives
//! its journey through JSON and CBOR.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::domain::fold::{fold_ruled, in_order};
use sync_core::domain::plan::{
    Assignment, AssignmentEnd, Cancellation, CancellationEffect, FormerAssignment, WindowProposal,
};
use sync_core::domain::rules::admission::validate_fact;
use sync_core::domain::rules::facts::{FactContext, judge};
use sync_core::domain::rules::legal::legal_next;
use sync_core::domain::rules::office::{self, Command, Reschedule};
use sync_core::domain::rules::sequence::{RUNS_MAX, SequenceLedger};
use sync_core::domain::{
    BootId, ClockReading, DeviceId, Fact, FactId, FactKind, PartNumber, Plan, Position, Ruling, RulingReason,
    SerialNumber, TechnicianId, Timestamp, UserId, Verdict, VisitState, VisitStatus, VisitView, Window, fold,
};

// ---------------------------------------------------------------------------------------------------------------------
// Anything that may be stated, planned and ruled. Few names and numbers, so that they collide.

fn technician() -> impl Strategy<Value = TechnicianId> + Clone {
    select(vec!["TECH-1", "TECH-2", "TECH-3"]).prop_map(|name| TechnicianId::new(name).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        8 => (0_i64..20_000_000).prop_map(|ms| Timestamp::from_millis(1_770_000_000_000 + ms)),
        1 => any::<i64>().prop_map(Timestamp::from_millis),
    ]
}

fn window() -> impl Strategy<Value = Window> {
    (time(), time()).prop_map(|(start, end)| Window { start, end })
}

fn kind() -> impl Strategy<Value = FactKind> {
    let serial = || option::of(select(vec!["SN-1", "SN-2"]).prop_map(|text| SerialNumber::new(text).unwrap()));
    prop_oneof![
        option::of(time()).prop_map(|eta| FactKind::Accepted { eta }),
        "[a-zä ]{0,8}".prop_map(|reason| FactKind::Rejected { reason }),
        option::of(time()).prop_map(|eta| FactKind::TravelStarted { eta }),
        Just(FactKind::Arrived),
        Just(FactKind::WorkStarted),
        option::of("[a-z]{0,8}").prop_map(|reason| FactKind::Paused { reason }),
        Just(FactKind::Resumed),
        Just(FactKind::Completed),
        "[a-z]{0,8}".prop_map(|reason| FactKind::CannotComplete { reason }),
        any::<u32>().prop_map(|minutes| FactKind::TimeEntry { category: "labour".to_owned(), minutes }),
        (any::<u32>(), serial()).prop_map(|(quantity, serial)| FactKind::PartUsed {
            part: PartNumber::new("PART-1").unwrap(),
            quantity,
            serial
        }),
        any::<u64>().prop_map(|bytes| FactKind::Photo {
            sha256: "ab".repeat(32),
            bytes,
            media_type: "image/jpeg".to_owned()
        }),
        Just(FactKind::Signature { signer: "Mrs Gray".to_owned(), sha256: "cd".repeat(32) }),
        (0_u32..4).prop_map(|window_revision| FactKind::WindowAcknowledged { window_revision }),
        Just(FactKind::Unknown),
    ]
}

fn clock() -> impl Strategy<Value = ClockReading> {
    let offset = prop_oneof![4 => -600_000_i64..600_000, 1 => any::<i64>()];
    (time(), any::<u64>(), option::of(offset), option::of(any::<u32>())).prop_map(
        |(wall, monotonic_ms, offset_ms, uncertainty_ms)| ClockReading {
            wall,
            monotonic_ms,
            boot: BootId::new("boot").unwrap(),
            offset_ms,
            uncertainty_ms,
        },
    )
}

/// As phones report positions: degrees to the centimetre.
fn position() -> impl Strategy<Value = Position> {
    let degrees = |max: i64| (-max * 10_000_000_i64..=max * 10_000_000).prop_map(|e7| e7 as f64 / 1e7);
    (degrees(90), degrees(180), 0_u32..5_000).prop_map(|(latitude, longitude, decimetres)| Position {
        latitude,
        longitude,
        accuracy_m: f64::from(decimetres) / 10.0,
    })
}

prop_compose! {
    fn fact()(
        id in "f-[0-9a-f]{6}", epoch in 0_u64..4, technician in technician(),
        device in select(vec!["PHONE-1", "PHONE-2", "PHONE-3"]), seq in prop_oneof![9 => 1_u64..12, 1 => any::<u64>()],
        clock in clock(), kind in kind(),
        position in option::of(position()),
    ) -> Fact {
        Fact {
            schema: 1, id: FactId::new(id).unwrap(), epoch, technician, device: DeviceId::new(device).unwrap(), seq, clock,
            position, kind,
        }
    }
}

fn facts() -> impl Strategy<Value = BTreeMap<FactId, Fact>> {
    vec(fact(), 0..24).prop_map(|facts| facts.into_iter().map(|fact| (fact.id.clone(), fact)).collect())
}

const REASONS: [RulingReason; 20] = [
    RulingReason::InOrder,
    RulingReason::CompletedBeforeCancellation,
    RulingReason::CompletedAfterCancellation,
    RulingReason::CompletionTimeUncertain,
    RulingReason::AfterCancellation,
    RulingReason::OnSiteBeforeCancellation,
    RulingReason::CompletedDespiteStopWork,
    RulingReason::KeepsVisit,
    RulingReason::FormerEpoch,
    RulingReason::FormerAssigneeWorked,
    RulingReason::RejectedAfterArrival,
    RulingReason::NotLead,
    RulingReason::SerialUsedTwice,
    RulingReason::StockNegative,
    RulingReason::NoRightAtEpoch,
    RulingReason::DeviceRevoked,
    RulingReason::AlreadyEnded,
    RulingReason::OutOfOrder,
    RulingReason::SequenceReused,
    RulingReason::UnknownKind,
];

prop_compose! {
    fn ruling()(
        verdict in select(vec![Verdict::Accepted, Verdict::Stale, Verdict::Exception]), reason in select(&REASONS[..]),
        recorded_at in time(), knew_revision in 0_u64..5, clock_flagged in any::<bool>(), gap_flagged in any::<bool>(),
    ) -> Ruling {
        Ruling { verdict, reason, recorded_at, knew_revision, clock_flagged, gap_flagged }
    }
}

prop_compose! {
    fn assignment()(
        epoch in 0_u64..4, lead in technician(), crew in vec(technician(), 0..3), continues in vec(0_u64..4, 0..2),
        offered_at in time(),
    ) -> Assignment {
        Assignment { epoch, lead, crew, continues, offered_at, offered_by: UserId::new("dora").unwrap() }
    }
}

prop_compose! {
    fn former()(
        assignment in assignment(), ended_at in time(),
        reason in select(vec![
            AssignmentEnd::Reassigned, AssignmentEnd::Unassigned, AssignmentEnd::Rejected, AssignmentEnd::Withdrawn,
        ]),
    ) -> FormerAssignment {
        FormerAssignment { assignment, ended_at, ended_by: UserId::new("dora").unwrap(), reason }
    }
}

prop_compose! {
    fn cancellation()(
        at in time(), revision in 0_u64..4,
        effect in select(vec![CancellationEffect::Cancelled, CancellationEffect::StopWork, CancellationEffect::Void]),
    ) -> Cancellation {
        Cancellation { at, by: UserId::new("dora").unwrap(), reason: "called off".to_owned(), effect, revision }
    }
}

prop_compose! {
    fn proposal()(window in window(), window_revision in 0_u32..4, at in time(), customer_confirmed in any::<bool>())
        -> WindowProposal {
        WindowProposal { window, window_revision, at, by: UserId::new("dora").unwrap(), customer_confirmed }
    }
}

prop_compose! {
    fn plan()(
        revision in 0_u64..5, assignment in option::weighted(0.8, assignment()), former in vec(former(), 0..4),
        cancellation in option::weighted(0.3, cancellation()), arrival_window in option::of(window()),
        confirmed_window in option::of(window()), proposed_window in option::weighted(0.3, proposal()), epoch in 0_u64..5,
    ) -> Plan {
        Plan {
            revision, title: "Replace compressor".to_owned(), assignment, former, cancellation, arrival_window,
            confirmed_window, proposed_window, epoch, ..Plan::default()
        }
    }
}

prop_compose! {
    fn view()(plan in plan(), facts in facts())(
        rulings in btree_map(select(keys(&facts)), ruling(), 0..=facts.len()),
        plan in Just(plan), facts in Just(facts),
    ) -> VisitView {
        VisitView { plan, rulings: rulings.into_iter().filter(|(id, _)| facts.contains_key(id)).collect(), facts }
    }
}

/// The facts' ids, and one that is not there, so that there is always something to select.
fn keys(facts: &BTreeMap<FactId, Fact>) -> Vec<FactId> {
    facts.keys().cloned().chain([FactId::new("nothing").unwrap()]).collect()
}

/// What two phones make of the same facts: they merge them in another order, and in parts.
fn merged_in_another_order(view: &VisitView, seed: u64) -> VisitView {
    let mut ids: Vec<&FactId> = view.facts.keys().collect();
    ids.sort_by_key(|id| {
        id.as_str()
            .bytes()
            .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17))
    });
    let mut merged = VisitView { plan: view.plan.clone(), ..VisitView::default() };
    for id in ids.iter().chain(ids.iter().take(3)) {
        merged.facts.insert((*id).clone(), view.facts[*id].clone());
    }
    for (id, ruling) in view.rulings.iter().rev() {
        merged.rulings.insert(id.clone(), ruling.clone());
    }
    merged
}

fn context<'a>(plan: &'a Plan, state: &'a VisitState, fact: &'a Fact, knew_revision: u64) -> FactContext<'a> {
    FactContext {
        plan,
        state,
        fact,
        knew_revision,
        now: Timestamp::from_millis(1_770_030_000_000),
        device_revoked_at: None,
        sequence_reused: false,
        gap: false,
        serial_used_before: false,
        stock_falls_negative: false,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The fold.

proptest! {
    #[test]
    fn everybody_computes_the_same_state_whatever_arrived_first(view in view(), seed in any::<u64>()) {
        let other = merged_in_another_order(&view, seed);
        prop_assert_eq!(fold(&view), fold(&other));
        prop_assert_eq!(fold_ruled(&view), fold_ruled(&other));
    }

    #[test]
    fn the_fold_never_contradicts_the_plan(view in view()) {
        let state = fold(&view);
        prop_assert_eq!(&state.lead, &view.plan.assignment.as_ref().map(|assignment| assignment.lead.clone()));
        let cancelled = view.plan.standing_cancellation().map(|cancellation| cancellation.effect)
            == Some(CancellationEffect::Cancelled);
        prop_assert_eq!(state.status == VisitStatus::Cancelled, cancelled);
        if view.plan.assignment.is_none() && !cancelled {
            prop_assert_eq!(state.status, VisitStatus::Pending);
        }
        prop_assert!(!(state.stop_work && state.status.is_final()));
        prop_assert_ne!(state.status, VisitStatus::Dispatched);
        prop_assert_eq!(state.ended.is_some(), matches!(state.status, VisitStatus::Completed | VisitStatus::CannotComplete));
    }

    #[test]
    fn a_devices_facts_keep_their_order_under_any_clock(facts in facts()) {
        let ordered = in_order(&facts);
        prop_assert_eq!(ordered.len(), facts.len());
        let mut last: BTreeMap<&DeviceId, u64> = BTreeMap::new();
        for (_, fact) in ordered {
            let before = last.insert(&fact.device, fact.seq).unwrap_or(0);
            prop_assert!(before <= fact.seq, "{} after {before}", fact.seq);
        }
    }

    #[test]
    fn a_day_told_by_one_phone_ends_where_it_ended(clocks in vec(clock(), 6), steps in 1_usize..=6) {
        let day = [
            (FactKind::Accepted { eta: None }, VisitStatus::Confirmed),
            (FactKind::TravelStarted { eta: None }, VisitStatus::EnRoute),
            (FactKind::Arrived, VisitStatus::Arrived),
            (FactKind::WorkStarted, VisitStatus::InProgress),
            (FactKind::Paused { reason: None }, VisitStatus::Paused),
            (FactKind::Completed, VisitStatus::Completed),
        ];
        let mut view = assigned();
        for (seq, (clock, (kind, _))) in (1..).zip(clocks.into_iter().zip(day.clone())).take(steps) {
            let fact = Fact { clock, kind, ..stated(seq) };
            view.facts.insert(fact.id.clone(), fact);
        }
        prop_assert_eq!(fold(&view).status, day[steps - 1].1);
    }

    #[test]
    fn what_this_release_does_not_know_changes_nothing_else(view in view(), extra in fact()) {
        prop_assume!(!view.facts.contains_key(&extra.id));
        let before = fold(&view);
        let mut with_unknown = view;
        // From another device, because a device's clock readings decide how its facts lie between those of others.
        let device = DeviceId::new("PHONE-9").unwrap();
        with_unknown.facts.insert(extra.id.clone(), Fact { kind: FactKind::Unknown, device, ..extra });
        let expected = VisitState {
            unknown_facts: before.unknown_facts + 1, pending_facts: before.pending_facts + 1, ..before
        };
        prop_assert_eq!(fold(&with_unknown), expected);
    }

    #[test]
    fn stale_facts_and_undisputed_exceptions_move_no_status(view in view()) {
        let mut silenced = view.clone();
        for (id, fact) in &mut silenced.facts {
            if let Some(ruling) = view.rulings.get(id)
                && ruling.verdict != Verdict::Accepted
                && !ruling.reason.is_disputed_completion()
            {
                fact.kind = FactKind::Unknown;
            }
        }
        let (with, without) = (fold(&view), fold(&silenced));
        prop_assert_eq!((with.status, with.arrived, with.ended), (without.status, without.arrived, without.ended));
    }

    #[test]
    fn ledgers_keep_everything_that_is_not_quarantined_and_each_serial_once(view in view()) {
        let state = fold(&view);
        let trusted = |id: &FactId| !view.rulings.get(id).is_some_and(|ruling| ruling.reason.is_quarantine());
        let worked = view.facts.iter().filter(|(id, fact)| matches!(fact.kind, FactKind::TimeEntry { .. }) && trusted(id));
        prop_assert_eq!(state.time.len(), worked.count());
        let mut serials = BTreeSet::new();
        for used in &state.parts {
            prop_assert!(trusted(&used.fact));
            if let Some(serial) = &used.serial {
                prop_assert!(serials.insert(serial.clone()), "{serial} twice");
            }
        }
        for (id, fact) in &view.facts {
            let unserialised = matches!(&fact.kind, FactKind::PartUsed { serial: None, .. });
            if unserialised && trusted(id) {
                prop_assert!(state.parts.iter().any(|used| used.fact == *id));
            }
        }
    }
}

fn assigned() -> VisitView {
    let by = UserId::new("dora").unwrap();
    let command = Command { by: &by, now: Timestamp::from_millis(1_770_000_000_000) };
    let lead = TechnicianId::new("TECH-1").unwrap();
    let plan = office::assign(&Plan::default(), &VisitState::default(), &command, &lead, &[]).unwrap();
    VisitView { plan, ..VisitView::default() }
}

fn stated(seq: u64) -> Fact {
    Fact {
        schema: 1,
        // Ids that sort against the sequence, so that only the sequence can order them.
        id: FactId::new(format!("f-{}", 100 - seq)).unwrap(),
        epoch: 1,
        technician: TechnicianId::new("TECH-1").unwrap(),
        device: DeviceId::new("PHONE-1").unwrap(),
        seq,
        clock: ClockReading {
            wall: Timestamp::from_millis(1_770_000_000_000),
            monotonic_ms: 0,
            boot: BootId::new("boot").unwrap(),
            offset_ms: None,
            uncertainty_ms: None,
        },
        position: None,
        kind: FactKind::Unknown,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The judge and the office: total, and true to the plan's invariants.

proptest! {
    #[test]
    fn judging_any_fact_on_any_visit_answers(
        view in view(), fact in fact(), knew in 0_u64..5, revoked in option::weighted(0.1, time()), flags in 0_u8..16,
    ) {
        let state = fold_ruled(&view);
        let judgement = judge(&FactContext {
            device_revoked_at: revoked,
            sequence_reused: flags & 1 != 0,
            gap: flags & 2 != 0,
            serial_used_before: flags & 4 != 0,
            stock_falls_negative: flags & 8 != 0,
            ..context(&view.plan, &state, &fact, knew)
        });
        prop_assert_eq!(judgement.ruling.gap_flagged, flags & 2 != 0);
        prop_assert_eq!(judgement.ruling.clock_flagged, fact.clock.is_flagged());
        if let Some(plan) = judgement.plan {
            prop_assert_eq!(plan.revision, view.plan.revision + 1);
            prop_assert!(plan.epoch >= view.plan.epoch);
            prop_assert!(!judgement.ruling.reason.is_quarantine(), "who is not believed changes no plan");
        }
        let _ = (validate_fact(&fact), legal_next(&view.plan, &state, &fact.technician, &fact.kind));
    }

    #[test]
    fn nothing_is_moved_under_a_cancellation(view in view(), cancellation in cancellation(), lead in technician()) {
        let plan = Plan { cancellation: Some(cancellation), ..view.plan };
        prop_assume!(plan.standing_cancellation().is_some());
        let state = fold_ruled(&VisitView { plan: plan.clone(), ..view });
        let by = UserId::new("dora").unwrap();
        let command = Command { by: &by, now: Timestamp::from_millis(1_770_030_000_000) };
        prop_assert!(office::assign(&plan, &state, &command, &lead, &[]).is_err());
        prop_assert!(office::unassign(&plan, &state, &command).is_err());
        prop_assert!(office::reschedule(&plan, &state, &command, &Reschedule::default()).is_err());
        prop_assert!(office::cancel(&plan, &state, &command, "once more").is_err());
    }

    #[test]
    fn whatever_is_commanded_and_stated_the_fencing_token_only_grows(
        steps in vec((0_u8..7, fact(), window(), any::<bool>()), 1..24),
    ) {
        let by = UserId::new("dora").unwrap();
        let mut view = VisitView::default();
        for (what, fact, window, flag) in steps {
            let before = view.plan.clone();
            let state = fold_ruled(&view);
            let command = Command { by: &by, now: fact.clock.wall };
            let change = Reschedule { scheduled: None, arrival_window: Some(window), customer_confirmed: flag };
            let planned = match what {
                0 => office::assign(&before, &state, &command, &fact.technician, &[]),
                1 => office::unassign(&before, &state, &command),
                2 if flag => office::cancel(&before, &state, &command, "called off"),
                2 => office::reinstate(&before, &state, &command),
                3 => office::reschedule(&before, &state, &command, &change),
                _ => {
                    let epoch = before.epoch_for(&fact.technician).unwrap_or(fact.epoch);
                    let fact = Fact { epoch, ..fact };
                    let judgement = judge(&context(&before, &state, &fact, before.revision));
                    view.rulings.insert(fact.id.clone(), judgement.ruling);
                    view.facts.insert(fact.id.clone(), fact);
                    Ok(judgement.plan.unwrap_or_else(|| before.clone()))
                }
            };
            if let Ok(plan) = planned {
                view.plan = plan;
            }
            let plan = &view.plan;
            prop_assert!(plan.epoch >= before.epoch && plan.revision >= before.revision);
            prop_assert!(plan.assignment.as_ref().is_none_or(|assignment| assignment.epoch == plan.epoch));
            let epochs: Vec<u64> = plan.former.iter().map(|former| former.assignment.epoch).collect();
            prop_assert!(epochs.is_sorted_by(|a, b| a < b), "each epoch was given out once: {epochs:?}");
            // Nobody on site loses the visit, whatever the office wants.
            if state.status.is_on_site() {
                prop_assert_eq!(&plan.assignment, &before.assignment);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The sequence ledger.

proptest! {
    #[test]
    fn the_ledger_knows_exactly_what_arrived(numbers in vec(1_u64..80, 0..80)) {
        let mut ledger = SequenceLedger::default();
        let mut seen = BTreeSet::new();
        for number in numbers {
            prop_assert_eq!(ledger.observe(number), seen.insert(number));
        }
        let highest = seen.last().copied().unwrap_or(0);
        prop_assert_eq!(ledger.missing(), highest - seen.len() as u64);
        for number in 1..82 {
            prop_assert_eq!(ledger.has(number), seen.contains(&number));
            prop_assert_eq!(ledger.has_all_before(number), (1..number).all(|below| seen.contains(&below)));
        }
    }

    #[test]
    fn the_ledger_stays_bounded_and_tidy(numbers in vec(prop_oneof![any::<u64>(), 1_u64..400], 0..300)) {
        let mut ledger = SequenceLedger::default();
        let mut contiguous = 0;
        for number in numbers {
            ledger.observe(number);
            prop_assert!(!ledger.observe(number), "a number is new once");
            prop_assert!(ledger.runs.len() <= RUNS_MAX);
            prop_assert!(ledger.contiguous >= contiguous);
            contiguous = ledger.contiguous;
            let mut end = contiguous;
            for &(first, last) in &ledger.runs {
                prop_assert!(first > end + 1 && last >= first, "{:?}", ledger);
                end = last;
            }
            prop_assert!(ledger.announced >= end);
        }
    }

    #[test]
    fn a_ledger_from_anywhere_does_no_harm(
        contiguous in any::<u64>(), runs in vec((any::<u64>(), any::<u64>()), 0..70), announced in any::<u64>(), seq in any::<u64>(),
    ) {
        let mut ledger = SequenceLedger { contiguous, runs, announced };
        ledger.observe(seq);
        ledger.announce(seq);
        prop_assert!(ledger.missing() <= ledger.announced);
        prop_assert!(ledger.has_all_before(0));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The journey through JSON and CBOR.

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_slice(&serde_json::to_vec(value).unwrap()).unwrap()
}

fn through_cbor<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    minicbor_serde::from_slice(&minicbor_serde::to_vec(value).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn facts_survive_the_journey(fact in fact()) {
        prop_assert_eq!(&through_cbor(&fact), &fact);
        prop_assert_eq!(&through_json(&fact), &fact);
    }

    #[test]
    fn plans_rulings_and_states_survive_the_journey(view in view(), ruling in ruling()) {
        prop_assert_eq!(&through_cbor(&view.plan), &view.plan);
        prop_assert_eq!(&through_json(&view.plan), &view.plan);
        prop_assert_eq!(&through_cbor(&ruling), &ruling);
        prop_assert_eq!(&through_json(&ruling), &ruling);
        let state = fold(&view);
        prop_assert_eq!(&through_cbor(&state), &state);
        prop_assert_eq!(&through_json(&state), &state);
    }
}

#[test]
fn every_time_there_is_survives_the_journey() {
    for extreme in [i64::MIN, -1, 0, i64::MAX] {
        let time = Timestamp::from_millis(extreme);
        assert_eq!(through_json(&time), time);
        assert_eq!(through_cbor(&time), time);
    }
}

/// A fact as a newer release writes it: a kind and fields that this one does not know.
fn from_the_future() -> serde_json::Value {
    serde_json::json!({
        "v": 9, "id": "f-1", "epoch": 1, "technician": "TECH-1", "device": "PHONE-1", "seq": 1,
        "clock": {"wall": 1_770_000_000_000_i64, "monotonic_ms": 1, "boot": "boot", "source": "gps"},
        "kind": "drone_flown", "altitude_m": 12.5, "path": [[1, 2], [3, 4]], "pilot": {"licence": null},
        "weather": "fair",
    })
}

#[test]
fn a_kind_of_a_newer_release_is_read_as_unknown() {
    let written = from_the_future();
    let from_json: Fact = serde_json::from_value(written.clone()).unwrap();
    let from_cbor: Fact = minicbor_serde::from_slice(&minicbor_serde::to_vec(&written).unwrap()).unwrap();
    assert_eq!(from_json.kind, FactKind::Unknown);
    assert_eq!(from_json.schema, 9);
    assert_eq!(from_cbor, from_json);
}

#[test]
fn a_known_kind_with_fields_of_a_newer_release_is_read_as_far_as_it_is_known() {
    let mut written = from_the_future();
    written["kind"] = "rejected".into();
    written["reason"] = "van broke down".into();
    let from_json: Fact = serde_json::from_value(written.clone()).unwrap();
    let from_cbor: Fact = minicbor_serde::from_slice(&minicbor_serde::to_vec(&written).unwrap()).unwrap();
    assert_eq!(from_json.kind, FactKind::Rejected { reason: "van broke down".to_owned() });
    assert_eq!(from_cbor, from_json);
}

#[test]
fn rulings_and_plans_of_a_newer_release_are_read_as_far_as_they_are_known() {
    let ruling = serde_json::json!({
        "verdict": "stale", "reason": "ECLIPSED_BY_DRONE", "recorded_at": "2026-02-03T09:30:00Z", "knew_revision": 3,
        "confidence": 0.5,
    });
    let read: Ruling = serde_json::from_value(ruling.clone()).unwrap();
    assert_eq!(read.reason, RulingReason::Unknown);
    assert_eq!(read, minicbor_serde::from_slice(&minicbor_serde::to_vec(&ruling).unwrap()).unwrap());

    let plan = serde_json::json!({
        "revision": 2, "title": "Replace compressor", "drone": {"bay": 3},
        "former": [{
            "epoch": 1, "lead": "TECH-1", "offered_at": "2026-02-03T08:00:00Z", "offered_by": "dora", "van": 4,
            "ended_at": "2026-02-03T09:00:00Z", "ended_by": "dora", "reason": "promoted",
        }],
        "cancellation": {"at": "2026-02-03T09:30:00Z", "by": "dora", "reason": "called off", "effect": "cancelled"},
    });
    let read: Plan = serde_json::from_value(plan.clone()).unwrap();
    assert_eq!(read.former[0].reason, AssignmentEnd::Unknown);
    assert_eq!(read.cancellation.as_ref().unwrap().revision, 0);
    assert_eq!(read, minicbor_serde::from_slice(&minicbor_serde::to_vec(&plan).unwrap()).unwrap());
}
