//! Crew and office work on one visit at the same time: whatever the order in which their changes meet, every copy shows
//! the same visit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod document_support;

use automerge::ScalarValue;
use automerge::transaction::Transactable;
use document_support::{Phone, SERVER, actor, at, copy, forge, plan, retitle, visit};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use sync_core::document::{EncodedChange, StateTag, VisitDoc};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{
    Assignment, AssignmentEnd, Cancellation, CancellationEffect, ChecklistItem, Contact, FormerAssignment,
    PartRequirement, Priority, Site, SkillRequirement, WindowProposal,
};
use sync_core::domain::{
    FactKind, Plan, Report, Ruling, RulingReason, Timestamp, Verdict, VisitState, VisitView, Window, fold,
};

const PHONES: usize = 3;

/// One thing that somebody does.
#[derive(Debug, Clone)]
enum Deed {
    States { phone: usize, kind: FactKind },
    Writes { phone: usize, position: usize, delete: usize, insert: String },
    Answers { phone: usize, item: u8, value: String },
    Summarises { phone: usize, text: String },
    Plans { title: String },
    RulesOnEverything { verdict: Verdict },
    Pushes { phone: usize },
    Pulls { phone: usize },
}

fn kind() -> impl Strategy<Value = FactKind> {
    prop_oneof![
        Just(FactKind::Accepted { eta: None }),
        Just(FactKind::TravelStarted { eta: Some(at(30)) }),
        Just(FactKind::Arrived),
        Just(FactKind::WorkStarted),
        Just(FactKind::Paused { reason: Some("no key".into()) }),
        Just(FactKind::Resumed),
        Just(FactKind::Completed),
        Just(FactKind::CannotComplete { reason: "part missing".into() }),
        (1_u32..90).prop_map(|minutes| FactKind::TimeEntry { category: "labour".into(), minutes }),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let phone = 0..PHONES;
    prop_oneof![
        4 => (phone.clone(), kind()).prop_map(|(phone, kind)| Deed::States { phone, kind }),
        4 => (phone.clone(), 0_usize..30, 0_usize..6, "[a-zü🙂 ]{0,8}")
            .prop_map(|(phone, position, delete, insert)| Deed::Writes { phone, position, delete, insert }),
        2 => (phone.clone(), 0_u8..3, "[a-z]{1,4}").prop_map(|(phone, item, value)| Deed::Answers { phone, item, value }),
        1 => (phone.clone(), "[a-z]{0,4}").prop_map(|(phone, text)| Deed::Summarises { phone, text }),
        1 => "[a-z]{1,6}".prop_map(|title| Deed::Plans { title }),
        1 => prop_oneof![Just(Verdict::Accepted), Just(Verdict::Stale), Just(Verdict::Exception)]
            .prop_map(|verdict| Deed::RulesOnEverything { verdict }),
        2 => phone.clone().prop_map(|phone| Deed::Pushes { phone }),
        2 => phone.prop_map(|phone| Deed::Pulls { phone }),
    ]
}

/// Everything that a copy shows.
fn shown(doc: &VisitDoc) -> (StateTag, VisitView, Report, VisitState) {
    let view = doc.view();
    let state = fold(&view);
    (doc.tag(), view, doc.report(), state)
}

/// The office's server and the crew's phones, and every change in the order in which it was made.
struct Day {
    server: VisitDoc,
    phones: Vec<(Phone, VisitDoc, Vec<EncodedChange>)>,
    changes: Vec<EncodedChange>,
    facts: u64,
}

impl Day {
    fn new() -> Self {
        let server = visit();
        let phones = (0..PHONES).map(|n| (Phone::new(1 + n as u8), copy(&server), Vec::new())).collect();
        Self { server, phones, changes: Vec::new(), facts: 0 }
    }

    fn does(&mut self, deed: &Deed) {
        let made = match deed {
            Deed::States { phone, kind } => {
                self.facts += 1;
                let id = format!("fact-{}", self.facts);
                let (who, doc, _) = &mut self.phones[*phone];
                Some((*phone, who.states(doc, &id, self.facts, kind.clone())))
            }
            Deed::Writes { phone, position, delete, insert } => {
                let (who, doc, _) = &mut self.phones[*phone];
                Some((*phone, who.notes(doc, *position, *delete, insert)))
            }
            Deed::Answers { phone, item, value } => {
                let (who, doc, _) = &mut self.phones[*phone];
                Some((*phone, who.answers(doc, &format!("item-{item}"), value)))
            }
            Deed::Summarises { phone, text } => {
                let (who, doc, _) = &mut self.phones[*phone];
                Some((*phone, who.summarises(doc, text)))
            }
            Deed::Plans { title } => {
                let change = retitle(&mut self.server, SERVER, title);
                self.changes.push(change);
                None
            }
            Deed::RulesOnEverything { verdict } => {
                let view = self.server.view();
                let ruling = Ruling {
                    verdict: *verdict,
                    reason: RulingReason::InOrder,
                    recorded_at: at(9),
                    knew_revision: view.plan.revision,
                    clock_flagged: false,
                    gap_flagged: false,
                };
                let open = view.facts.keys().filter(|fact| !view.rulings.contains_key(fact));
                let rulings = open.map(|fact| (fact.clone(), ruling.clone())).collect();
                self.changes.extend(self.server.rule(SERVER, &rulings, at(9)));
                assert_eq!(self.server.plan(), view.plan);
                None
            }
            Deed::Pushes { phone } => {
                let (who, _, outbox) = &mut self.phones[*phone];
                let outbox: Vec<_> = std::mem::take(outbox).into_iter().map(|change| change.bytes).collect();
                let (admissions, refusal) = self.server.admit_batch(&who.author(), &outbox);
                assert_eq!((admissions.len(), refusal), (outbox.len(), None), "honest work was refused");
                None
            }
            Deed::Pulls { phone } => {
                let (_, doc, _) = &mut self.phones[*phone];
                doc.merge(&self.server.save()).unwrap();
                None
            }
        };
        if let Some((phone, change)) = made {
            self.changes.push(change.clone());
            self.phones[phone].2.push(change);
        }
    }
}

/// Applies changes to a fresh copy, each as soon as its causes are there, in the order that `ranks` says.
fn replayed(changes: &[EncodedChange], ranks: &[u32]) -> VisitDoc {
    let mut waiting: Vec<_> = changes.iter().zip(ranks.iter().cycle()).collect();
    waiting.sort_by_key(|(change, rank)| (**rank, change.hash));
    let mut doc = visit();
    let mut view = doc.view();
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|(change, _)| {
            let refused = doc.apply_and_view(&[&change.bytes], &mut view).is_err();
            assert_eq!(view, doc.view(), "what is read of a change leads to what reading all of it shows");
            refused
        });
        assert!(waiting.len() < before, "the changes have no causal order");
    }
    doc
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_meeting_shows_the_same_visit(
        deeds in vec(deed(), 1..40),
        ranks in vec(any::<u32>(), 40),
        order in Just((0..PHONES).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut day = Day::new();
        for deed in &deeds {
            day.does(deed);
        }
        // The server takes in everything, one phone after the other.
        let mut server = day.server.clone();
        for phone in &order {
            let (who, _, outbox) = &day.phones[*phone];
            for change in outbox {
                prop_assert!(server.admit(&who.author(), &change.bytes).is_ok());
            }
        }
        let expected = shown(&server);
        // Change by change in another order; all in one batch, shuffled; and copy into copy.
        prop_assert_eq!(&shown(&replayed(&day.changes, &ranks)), &expected);
        let mut batch: Vec<_> = day.changes.iter().zip(&ranks).collect();
        batch.sort_by_key(|(_, rank)| **rank);
        let batch: Vec<_> = batch.into_iter().map(|(change, _)| &change.bytes).collect();
        let mut at_once = visit();
        at_once.apply(&batch).unwrap();
        prop_assert_eq!(&shown(&at_once), &expected);
        let mut merged = day.phones[order[0]].1.clone();
        for phone in &order[1..] {
            merged.merge(&day.phones[*phone].1.save()).unwrap();
        }
        merged.merge(&day.server.save()).unwrap();
        prop_assert_eq!(&shown(&merged), &expected);
        // And it survives saving, also with changes appended.
        prop_assert_eq!(&shown(&copy(&merged)), &expected);
        let appended: Vec<u8> =
            day.changes.iter().fold(visit().save(), |saved, change| [saved, change.bytes.clone()].concat());
        prop_assert_eq!(&shown(&VisitDoc::load(&appended).unwrap()), &expected);
    }

    #[test]
    fn a_plan_reads_back_as_it_was_written(first in arbitrary_plan(), second in arbitrary_plan()) {
        let (mut doc, genesis) = VisitDoc::genesis(SERVER, &first, at(0));
        prop_assert_eq!(&doc.plan(), &first);
        prop_assert!(doc.has_change(&genesis.hash));
        prop_assert_eq!(doc.decide(SERVER, &first, &BTreeMap::new(), at(1)), None, "nothing differs");
        let changed = doc.decide(SERVER, &second, &BTreeMap::new(), at(1));
        prop_assert_eq!(changed.is_none(), first == second);
        prop_assert_eq!(&doc.plan(), &second);
        prop_assert_eq!(doc.decide(SERVER, &second, &BTreeMap::new(), at(2)), None);
        prop_assert_eq!(copy(&doc).plan(), second);
    }
}

#[test]
fn crew_members_who_answer_at_once_are_both_heard_until_one_settles_it() {
    let mut server = visit();
    let (lead, crew) = (Phone::new(1), Phone::new(2));
    let (mut first, mut second) = (copy(&server), copy(&server));
    let yes = lead.answers(&mut first, "item-1", "7.2");
    let no = crew.answers(&mut second, "item-1", "6.9");
    server.admit(&crew.author(), &no.bytes).unwrap();
    server.admit(&lead.author(), &yes.bytes).unwrap();
    let item = "item-1".parse().unwrap();
    let values = |doc: &VisitDoc| doc.report().answers[&item].iter().map(|a| a.value.clone()).collect::<Vec<_>>();
    assert_eq!(values(&server), ["6.9", "7.2"]);
    let settled = lead.answers(&mut copy(&server), "item-1", "7.0");
    server.admit(&lead.author(), &settled.bytes).unwrap();
    assert_eq!(values(&server), ["7.0"]);
}

#[test]
fn a_ruling_alone_costs_one_operation_and_leaves_the_plan_alone() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let arrived = lead.states(&mut copy(&server), "fact-1", 1, FactKind::Arrived);
    server.admit(&lead.author(), &arrived.bytes).unwrap();
    let ruling = Ruling {
        verdict: Verdict::Accepted,
        reason: RulingReason::InOrder,
        recorded_at: at(9),
        knew_revision: 1,
        clock_flagged: true,
        gap_flagged: false,
    };
    let rulings = BTreeMap::from([("fact-1".parse().unwrap(), ruling)]);
    let change = server.decide(SERVER, &plan(), &rulings, at(9)).unwrap();
    assert_eq!(automerge::Change::from_bytes(change.bytes).unwrap().len(), 1);
    assert_eq!(server.view().rulings, rulings);
    assert_eq!(server.decide(SERVER, &plan(), &rulings, at(10)), None);
}

// ---- newer releases

#[test]
fn a_plan_of_a_newer_release_is_read_as_far_as_it_is_understood_and_kept() {
    let mut server = visit();
    let newer = forge::bytes(&server, SERVER, |tx, o| {
        tx.put(&o.plan, "carbon_budget", 12).unwrap();
        tx.put(&o.plan, "priority", "CATASTROPHE").unwrap();
        tx.put(&o.plan, "contact", ScalarValue::Bytes(b"{\"handle\":\"@novak\"}".to_vec())).unwrap();
    });
    server.apply(&[newer]).unwrap();
    let expected = Plan { priority: Priority::Normal, contact: None, ..plan() };
    assert_eq!(server.plan(), expected);
    // An older server's edit leaves what it does not know.
    retitle(&mut server, actor(0x51), "Boiler is cold");
    let (raw, objects) = forge::automerge(&server);
    assert!(automerge::ReadDoc::get(&raw, &objects.plan, "carbon_budget").unwrap().is_some());
}

#[test]
fn a_fact_of_a_newer_release_is_kept_and_shown_as_unknown() {
    #[derive(serde::Serialize)]
    struct Newer<'a> {
        v: u16,
        id: &'a str,
        epoch: u64,
        technician: &'a str,
        device: &'a str,
        seq: u64,
        clock: sync_core::domain::ClockReading,
        kind: &'a str,
        quantity: BTreeMap<&'a str, f64>,
        drone: bool,
    }
    let (mut server, lead) = (visit(), Phone::new(1));
    let fact = |id, kind| Newer {
        v: 7,
        id,
        epoch: 1,
        technician: "TECH-1",
        device: "phone-1",
        seq: 1,
        clock: lead.fact("fact-1", 1, FactKind::Arrived).clock,
        kind,
        quantity: BTreeMap::from([("litres", 2.5)]),
        drone: true,
    };
    // A kind that is not known, and a known one whose content has become another.
    for (id, kind) in [("fact-1", "inspected_by_drone"), ("fact-2", "part_used")] {
        let bytes = forge::bytes(&server, lead.actor, |tx, o| {
            let value = minicbor_serde::to_vec(fact(id, kind)).unwrap();
            tx.put(&o.facts, id, ScalarValue::Bytes(value)).unwrap();
        });
        let admission = server.admit(&lead.author(), &bytes).unwrap();
        assert_eq!((admission.facts[0].0.schema, &admission.facts[0].0.kind), (7, &FactKind::Unknown));
    }
    assert_eq!((server.view().facts.len(), server.unreadable()), (2, 0));
    assert_eq!(fold(&server.view()).unknown_facts, 2);
}

#[test]
fn what_cannot_be_read_at_all_is_counted_and_breaks_nothing() {
    let mut server = visit();
    let lead = Phone::new(1);
    let arrived = lead.states(&mut copy(&server), "fact-1", 1, FactKind::Arrived);
    server.admit(&lead.author(), &arrived.bytes).unwrap();
    let newer = forge::bytes(&server, SERVER, |tx, o| {
        tx.put(&o.facts, "fact-2", ScalarValue::Bytes(vec![0xa0])).unwrap();
        tx.put(&o.rulings, "fact-1", ScalarValue::Bytes(vec![0xa0])).unwrap();
    });
    server.apply(&[newer]).unwrap();
    assert_eq!((server.view().facts.len(), server.view().rulings.len(), server.unreadable()), (1, 0, 2));
}

// ---- arbitrary plans

fn id<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9._:@-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<i64>(), 0_i64..4_000_000_000_000].prop_map(Timestamp::from_millis)
}

fn window() -> impl Strategy<Value = Window> {
    (time(), time()).prop_map(|(start, end)| Window { start, end })
}

fn assignment() -> impl Strategy<Value = Assignment> {
    (any::<u64>(), id(), vec(id(), 0..3), vec(any::<u64>(), 0..3), time(), id()).prop_map(
        |(epoch, lead, crew, continues, offered_at, offered_by)| Assignment {
            epoch,
            lead,
            crew,
            continues,
            offered_at,
            offered_by,
        },
    )
}

fn site() -> impl Strategy<Value = Site> {
    (id(), any::<String>(), ".{0,20}", -90.0_f64..=90.0, -180.0_f64..=180.0, option::of(".{0,20}")).prop_map(
        |(location_id, name, address, latitude, longitude, access_notes)| Site {
            location_id,
            name,
            address,
            coordinates: Coordinates { latitude, longitude },
            access_notes,
        },
    )
}

fn arbitrary_plan() -> impl Strategy<Value = Plan> {
    let head = (any::<u64>(), option::of(id()), any::<String>(), ".{0,30}", 0_usize..4, option::of(site()));
    let wants = (
        option::of((any::<String>(), option::of(".{0,12}"))),
        vec((id(), any::<u8>()), 0..3),
        vec((id(), any::<u32>()), 0..3),
        vec((id(), ".{0,12}", any::<bool>()), 0..3),
        btree_map(any::<String>(), any::<String>(), 0..4),
    );
    let times = (
        option::of(window()),
        option::of(time()),
        option::of(window()),
        option::of(window()),
        any::<u32>(),
        option::of((window(), any::<u32>(), time(), id(), any::<bool>())),
    );
    let who = (
        option::of(assignment()),
        any::<u64>(),
        vec((assignment(), time(), id()), 0..2),
        option::of((time(), id(), any::<String>(), any::<u64>())),
        option::of(id()),
    );
    (head, wants, times, who).prop_map(|(head, wants, times, who)| Plan {
        revision: head.0,
        service_order_id: head.1,
        title: head.2,
        instructions: head.3,
        priority: [Priority::Low, Priority::Normal, Priority::High, Priority::Emergency][head.4],
        site: head.5,
        contact: wants.0.map(|(name, phone)| Contact { name, phone }),
        required_skills: wants.1.into_iter().map(|(code, level)| SkillRequirement { code, level }).collect(),
        required_parts: wants.2.into_iter().map(|(part, quantity)| PartRequirement { part, quantity }).collect(),
        checklist: wants.3.into_iter().map(|(id, label, required)| ChecklistItem { id, label, required }).collect(),
        attributes: wants.4,
        scheduled: times.0,
        sla_deadline: times.1,
        arrival_window: times.2,
        confirmed_window: times.3,
        window_revision: times.4,
        proposed_window: times.5.map(|(window, window_revision, at, by, customer_confirmed)| WindowProposal {
            window,
            window_revision,
            at,
            by,
            customer_confirmed,
        }),
        assignment: who.0,
        epoch: who.1,
        former: who
            .2
            .into_iter()
            .map(|(assignment, ended_at, ended_by)| FormerAssignment {
                assignment,
                ended_at,
                ended_by,
                reason: AssignmentEnd::Reassigned,
            })
            .collect(),
        cancellation: who.3.map(|(at, by, reason, revision)| Cancellation {
            at,
            by,
            reason,
            effect: CancellationEffect::Void,
            revision,
        }),
        route_id: who.4,
    })
}
