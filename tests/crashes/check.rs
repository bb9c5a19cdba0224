//! What was told against what is there.

use crate::office::Answered;
use crate::support::{SECRET, TENANT};
use crate::told::{Deed, SEEN, Seen, SeenVisit, TOLD, Told, read};
use crate::{STOCK, TECHNICIANS, World};
use crm_dispatch_server::app::open_store;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::events::{Event, Payload};
use crm_dispatch_server::service::model::StoredDispatch;
use crm_dispatch_server::store::Store;
use rand::seq::IteratorRandom as _;
use reqwest::Method;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::process::{Command, Stdio};
use sync_core::document::VisitDoc;
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::{
    DispatchId, FactId, FactKind, PartNumber, Report, TechnicianId, TenantId, Verdict, VisitView, fold,
};

/// How many questions are asked again.
const ASKED_AGAIN: usize = 150;

/// What of the report has one value, of the one checklist item and of the summary.
const ANSWER: &str = "answer";
const SUMMARY: &str = "summary";

/// What the story came to.
#[derive(Default)]
pub(crate) struct Counts {
    recorded: usize,
    acknowledged: usize,
    answers: usize,
    dispatches: usize,
    facts: usize,
    events: usize,
    openings: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorded, acknowledged, answers, dispatches, facts, events, openings } = self;
        write!(
            f,
            "{recorded} actions recorded on phones, {acknowledged} acknowledged, {answers} answers to dispatchers; {dispatches} visits, \
             {facts} facts, {events} events; phones were opened {openings} times"
        )
    }
}

/// Whoever asks again under the same key is answered the same.
pub(crate) async fn answers_are_remembered(world: &mut World, answered: &[Answered]) {
    let desk = world.desk(0);
    // What was refused is decided anew, and may be granted by now: the story would go on after everybody has settled.
    let granted = answered.iter().filter(|told| told.status.is_success());
    for told in granted.sample(&mut world.rng, ASKED_AGAIN) {
        let (status, answer) = desk.ask(Method::POST, &told.path, &told.key, &told.body).await;
        assert_eq!((status, &answer), (told.status, &told.answer), "{} {}", told.path, told.key);
    }
}

/// The server's side of a visit, opened.
struct Opened {
    stored: StoredDispatch,
    view: VisitView,
    report: Report,
}

/// Everything that was recorded, acknowledged, answered or shown is in the database, once, and agrees.
pub(crate) async fn everything_is_there(world: &World, answered: &[Answered]) -> Counts {
    let environment = HashMap::from([
        ("CRM_DISPATCH__AUTH__SECRET".to_owned(), SECRET.to_owned()),
        ("CRM_DISPATCH__DATABASE__URL".to_owned(), world.url.clone()),
    ]);
    let (store, _) = open_store(&Config::load(None, environment).unwrap()).await.unwrap();
    let tenant: TenantId = TENANT.parse().unwrap();
    let mut counts = Counts { answers: answered.len(), ..Counts::default() };

    let ids: Vec<_> = answered
        .iter()
        .filter(|told| told.what() == "requests" && told.status.is_success())
        .map(Answered::dispatch)
        .collect();
    let visits = opened(&*store, &tenant, &ids).await;
    counts.dispatches = visits.len();
    counts.facts = visits.values().map(|visit| visit.view.facts.len()).sum();
    for told in answered.iter().filter(|told| told.status.is_success()) {
        effect_is_there(told, answered, &visits);
    }
    work_is_there(world, &visits, &mut counts);
    for technician in TECHNICIANS {
        phone_shows_the_same(world, &*store, &tenant, technician, &visits).await;
    }
    stock_went_once(&*store, &tenant, &visits).await;
    counts.events = events_are_in_order(&*store, &tenant, &visits).await;
    let held = store.held_facts(&tenant, None, None).await.unwrap();
    assert!(held.is_empty(), "facts wait for predecessors that have all arrived: {held:?}\n{}", world.logs());
    store.close().await;
    audit_verifies(world);
    counts
}

/// All documents that dispatchers were told of; each is what its row says.
async fn opened(store: &dyn Store, tenant: &TenantId, ids: &[DispatchId]) -> BTreeMap<DispatchId, Opened> {
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "two answers name the same dispatch");
    let mut visits = BTreeMap::new();
    for ids in ids.chunks(100) {
        for (stored, saved) in store.documents(tenant, ids).await.unwrap() {
            let id = stored.row.dispatch_id.clone();
            let document = VisitDoc::load(&saved).unwrap_or_else(|error| panic!("{id} cannot be opened: {error}"));
            let view = document.view();
            assert_eq!(stored.tag, document.tag(), "{id}: the row's tag is its document's");
            assert_eq!(stored.row.plan, view.plan, "{id}: the row's plan is its document's");
            assert_eq!(stored.row.state, fold_ruled(&view), "{id}: the row's state is the fold");
            for fact in view.facts.keys() {
                assert!(view.rulings.contains_key(fact), "{id}: nobody has ruled on {fact}");
            }
            visits.insert(id, Opened { stored, view, report: document.report() });
        }
    }
    for id in ids {
        assert!(visits.contains_key(id), "{id} was answered, and is not there");
    }
    visits
}

/// What a dispatcher was told has happened has happened.
fn effect_is_there(told: &Answered, answered: &[Answered], visits: &BTreeMap<DispatchId, Opened>) {
    let visit = &visits[&told.dispatch()];
    let row = &visit.stored.row;
    let plan = &row.plan;
    let revision = told.answer["revision"].as_u64().unwrap();
    assert!(
        row.revision >= revision,
        "{}: revision {} is older than what was answered, {told:?}",
        row.dispatch_id,
        row.revision
    );
    // Later words of the same office on the same visit.
    let is_last = || {
        let mut same = answered.iter().filter(|other| other.path == told.path && other.status.is_success());
        same.next_back().is_some_and(|last| last.key == told.key)
    };
    match told.what() {
        "requests" => assert_eq!(told.body["serviceOrderId"], row.service_order_id.as_str(), "{told:?}"),
        "assign" | "reassign" => {
            let epoch = told.answer["assignment"]["epoch"].as_u64().unwrap();
            let assignment = plan.assignment_at(epoch).unwrap_or_else(|| panic!("epoch {epoch} is unknown: {told:?}"));
            assert_eq!(told.body["technicianId"], assignment.lead.as_str(), "{told:?}");
        }
        "cancel" => assert!(plan.cancellation.is_some(), "{told:?}: {plan:?}"),
        "reinstate" => assert!(plan.cancellation.is_some(), "{told:?}: {plan:?}"),
        "reschedule" if is_last() => {
            let scheduled = plan.scheduled.unwrap();
            assert_eq!(told.body["scheduled"]["start"], scheduled.start.to_string(), "{told:?}");
        }
        "priority" if is_last() => {
            assert_eq!(told.body["priority"], serde_json::to_value(plan.priority).unwrap(), "{told:?}");
        }
        "reschedule" | "priority" => {}
        other => panic!("{other}?"),
    }
}

/// What technicians were told is recorded, or that the office has it, the office has: on that visit, once.
fn work_is_there(world: &World, visits: &BTreeMap<DispatchId, Opened>, counts: &mut Counts) {
    let mut facts: BTreeMap<&FactId, &DispatchId> = BTreeMap::new();
    for (id, visit) in visits {
        for fact in visit.view.facts.keys() {
            if let Some(other) = facts.insert(fact, id) {
                panic!("{fact} is on {id} and on {other}");
            }
        }
    }
    for technician in TECHNICIANS {
        let text = std::fs::read_to_string(world.dir.path().join(technician).join(TOLD)).unwrap();
        let lines = read(&text);
        assert_eq!(lines.last(), Some(&Told::Settled), "{technician}");
        let mut recorded: BTreeSet<(&DispatchId, &Deed)> = BTreeSet::new();
        let mut acknowledged = BTreeSet::new();
        let mut last: BTreeMap<(&DispatchId, &str), &Deed> = BTreeMap::new();
        for line in &lines {
            match line {
                Told::Opened { set_aside, restored, quarantined } => {
                    counts.openings += 1;
                    assert_eq!(
                        (set_aside, restored, quarantined),
                        (&None, &false, &0),
                        "{technician}: a kill damages no file\n{}",
                        world.logs()
                    );
                }
                Told::Recorded { dispatch, deed } => {
                    assert!(recorded.insert((dispatch, deed)), "{technician}: {deed:?} is recorded twice");
                    match deed {
                        Deed::Answer { .. } => drop(last.insert((dispatch, ANSWER), deed)),
                        Deed::Summary { .. } => drop(last.insert((dispatch, SUMMARY), deed)),
                        Deed::Fact { .. } | Deed::Note { .. } => {}
                    }
                }
                Told::Acknowledged { dispatch, deed } => {
                    assert!(acknowledged.insert((dispatch, deed)), "{technician}: {deed:?} is acknowledged twice");
                }
                Told::Settled => {}
            }
        }
        assert_eq!(recorded, acknowledged, "{technician}: everything recorded was acknowledged in the end");
        for (dispatch, deed) in &recorded {
            let what = || format!("{technician} was told that the office has {deed:?} of {dispatch}\n{}", world.logs());
            let visit = visits.get(*dispatch).unwrap_or_else(|| panic!("{}", what()));
            match deed {
                Deed::Fact { id, kind } => {
                    assert_eq!(facts.get(id), Some(dispatch), "{}", what());
                    assert_eq!(visit.view.facts[id].kind.name(), kind, "{}", what());
                }
                Deed::Note { text } => assert_eq!(visit.report.notes.matches(text).count(), 1, "{}", what()),
                Deed::Answer { item, .. } => assert!(visit.report.answers.contains_key(item), "{}", what()),
                Deed::Summary { .. } => assert!(visit.report.summary.is_some(), "{}", what()),
            }
        }
        for (dispatch, deed) in &recorded {
            let report = &visits[*dispatch].report;
            // Others of the crew may have the last word, and so may a deed of which the phone's death kept the news from its technician. But
            // never one that the same technician has replaced.
            let (register, stands) = match deed {
                Deed::Answer { item, value } => {
                    (ANSWER, report.answers[item].iter().any(|answer| answer.value == *value))
                }
                Deed::Summary { text } => (SUMMARY, report.summary.as_ref() == Some(text)),
                Deed::Fact { .. } | Deed::Note { .. } => continue,
            };
            assert!(
                !stands || last[&(*dispatch, register)] == *deed,
                "{technician}: {deed:?} of {dispatch} is back, after {:?}",
                last[&(*dispatch, register)]
            );
        }
        counts.recorded += recorded.len();
        counts.acknowledged += acknowledged.len();
    }
    assert!(counts.recorded > 100 && counts.answers > 30, "the story has substance: {counts}");
}

/// A phone holds what the server says it should, and reads it as the server does.
async fn phone_shows_the_same(
    world: &World,
    store: &dyn Store,
    tenant: &TenantId,
    technician: &str,
    visits: &BTreeMap<DispatchId, Opened>,
) {
    let seen = std::fs::read(world.dir.path().join(technician).join(SEEN)).unwrap();
    let seen: Seen = serde_json::from_slice(&seen).unwrap();
    let id: TechnicianId = technician.parse().unwrap();
    let held = store.held(tenant, &id, None, 100_000, usize::MAX).await.unwrap();
    let should: BTreeSet<_> = held.visits.into_iter().map(|visit| visit.dispatch).collect();
    let lists: BTreeSet<_> = seen.visits.keys().cloned().collect();
    assert_eq!(lists, should, "{technician} holds what they should");
    for (dispatch, shown) in seen.visits {
        let Opened { view, report, .. } = &visits[&dispatch];
        let Report { notes, summary, answers } = report.clone();
        let office = SeenVisit { state: fold(view), notes, summary, answers };
        assert_eq!(shown, office, "{technician} reads {dispatch} as the office does");
    }
}

/// Each part that was used left its truck once.
async fn stock_went_once(store: &dyn Store, tenant: &TenantId, visits: &BTreeMap<DispatchId, Opened>) {
    let mut used: BTreeMap<(&TechnicianId, &PartNumber), i64> = BTreeMap::new();
    for visit in visits.values() {
        for fact in visit.view.facts.values() {
            if let FactKind::PartUsed { part, quantity, .. } = &fact.kind
                && visit.view.rulings[&fact.id].verdict == Verdict::Accepted
            {
                *used.entry((&fact.technician, part)).or_default() += i64::from(*quantity);
            }
        }
    }
    assert!(!used.is_empty(), "the story has substance");
    for ((technician, part), quantity) in used {
        let row = store.technician(tenant, technician).await.unwrap().unwrap();
        assert_eq!(row.van_stock[part], STOCK - quantity, "{technician} used {quantity} {part}");
    }
}

/// Every event is there once; a dispatch's are in order; every assignment is told.
async fn events_are_in_order(store: &dyn Store, tenant: &TenantId, visits: &BTreeMap<DispatchId, Opened>) -> usize {
    let mut events: Vec<(u64, Event)> = Vec::new();
    loop {
        let after = events.last().map_or(0, |(position, _)| *position);
        let page = store.events(tenant, after, None, None, 1_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        events.extend(page);
    }
    let (mut ids, mut told) = (BTreeSet::new(), BTreeSet::new());
    let mut last: BTreeMap<&str, &Event> = BTreeMap::new();
    let mut assignments: BTreeMap<&str, u64> = BTreeMap::new();
    for (position, event) in &events {
        assert!(ids.insert(&event.event_id), "{} is in the journal twice", event.event_id);
        if let Some(earlier) = last.insert(&event.aggregate_id, event) {
            assert!(earlier.timestamp <= event.timestamp, "at {position}: {earlier:?} before {event:?}");
        }
        match &event.payload {
            Payload::TechnicianAssigned { .. } => *assignments.entry(&event.aggregate_id).or_default() += 1,
            Payload::TechnicianStatusChanged {
                technician_id,
                dispatch_id: Some(dispatch),
                status,
                occurred_at,
                ..
            } => {
                let same = |fact: &&sync_core::domain::Fact| {
                    fact.technician == *technician_id && fact.occurred_at() == *occurred_at && fact.kind.moves_status()
                };
                let facts = visits[dispatch].view.facts.values().filter(same).count();
                let first = told.insert((technician_id, dispatch, status, occurred_at));
                assert!(facts > usize::from(!first), "{event:?} is told twice, or tells of nothing");
            }
            _ => {}
        }
    }
    for (id, visit) in visits {
        let told = assignments.get(id.as_str()).copied().unwrap_or(0);
        assert_eq!(told, visit.stored.row.plan.epoch, "{id}: an event for each assignment");
    }
    events.len()
}

/// As an operator asks.
fn audit_verifies(world: &World) {
    let output = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
        .args(["audit", "verify"])
        .env("CRM_DISPATCH__DATABASE__URL", &world.url)
        .env("CRM_DISPATCH__AUTH__SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("the audit trail is unbroken"), "{said}");
}
