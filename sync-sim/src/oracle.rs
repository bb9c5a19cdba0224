//! What must hold when the day is over and everything has healed.

use crate::phone::Phone;
use crate::staff::STOCK;
use crate::world::World;
use crm_dispatch_server::events::{Event, Payload};
use crm_dispatch_server::service::model::{AuditRecord, ExceptionRow, StoredDispatch};
use crm_dispatch_server::store::audit::verify_chain;
use std::collections::{BTreeMap, BTreeSet};
use sync_core::document::VisitDoc;
use sync_core::domain::fact::FactKind;
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::{
    DispatchId, Fact, FactId, PartNumber, Report, Ruling, RulingReason, TechnicianId, Verdict, VisitCard, VisitView,
    fold,
};
use sync_core::store::{Store, VisitQuery};

/// The server's side of one visit, opened.
struct Opened {
    stored: StoredDispatch,
    document: VisitDoc,
    view: VisitView,
    report: Report,
}

const EVENTS_MAX: u32 = 100_000;

/// True when nothing is unsent, and every phone knows that it has everything.
pub(crate) fn at_rest(world: &World<'_>) -> bool {
    if !world.servers_rest() {
        return false;
    }
    let quiet = |(index, phone): (usize, &Phone)| {
        let Some(Ok(state)) = phone.store.as_ref().map(Store::sync_state) else { return false };
        let head = world.wait(world.store.feed_head(&world.tenant, &phone.technician));
        world.connected_and_caught_up(index)
            && state.outbox.pending <= state.parked
            && state.needs_fetch.is_empty()
            && head.is_ok_and(|(head, _)| head == state.cursor.0)
    };
    let held = world.wait(world.store.held_facts(&world.tenant, None, None));
    world.phones.iter().enumerate().all(quiet) && held.is_ok_and(|held| held.is_empty())
}

/// Everything that must hold.
pub(crate) fn check(world: &mut World<'_>, attempts_max: u32) {
    if let Err((oracle, detail)) = checked(world, attempts_max) {
        world.violates(oracle, detail);
    }
}

type Checked = Result<(), (&'static str, String)>;

fn checked(world: &mut World<'_>, attempts_max: u32) -> Checked {
    live(world, attempts_max)?;
    let visits = projection(world)?;
    nothing_lost(world, &visits)?;
    nothing_twice(world, &visits)?;
    replicas(world, &visits)?;
    tombstones(world)?;
    audit(world, &visits)?;
    for oracle in [
        "liveness",
        "projection equals the fold",
        "no acknowledged work is lost",
        "no effect twice",
        "replicas agree",
        "tombstones explain",
        "audit chains hold",
        "events are in order",
    ] {
        world.looked(oracle);
    }
    Ok(())
}

/// Within a bounded number of exchanges after the last fault everything is delivered, without anybody doing anything.
fn live(world: &World<'_>, attempts_max: u32) -> Checked {
    const ORACLE: &str = "liveness";
    if at_rest(world) {
        for (index, phone) in world.phones.iter().enumerate() {
            if phone.attempts > attempts_max {
                return Err((ORACLE, format!("phone {index} needed {} connections", phone.attempts)));
            }
        }
        return Ok(());
    }
    let mut why = String::new();
    for (index, phone) in world.phones.iter().enumerate() {
        let state = phone.store.as_ref().map(Store::sync_state);
        let state = state.map(|state| state.map(|s| (s.outbox.pending, s.parked, s.needs_fetch, s.cursor)));
        let (attempts, caught_up) = (phone.attempts, world.connected_and_caught_up(index));
        why += &format!("phone {index}: {state:?}, {attempts} connections, caught up: {caught_up}; ");
    }
    let held = world.wait(world.store.held_facts(&world.tenant, None, None));
    Err((ORACLE, format!("{why}held {held:?}, servers at rest: {}", world.servers_rest())))
}

/// The server's projection is what its documents say, and those are what their changes say.
fn projection(world: &World<'_>) -> Result<BTreeMap<DispatchId, Opened>, (&'static str, String)> {
    const ORACLE: &str = "projection equals the fold";
    let mut visits = BTreeMap::new();
    let all = match &world.memory {
        Some(memory) => memory.all_dispatches(&world.tenant),
        None => {
            let ids: Vec<_> = (1..500).filter_map(|n| DispatchId::new(format!("DSP-{n}")).ok()).collect();
            let found = world.wait(world.store.documents(&world.tenant, &ids));
            let found = found.map_err(|error| (ORACLE, error.to_string()))?;
            found.into_iter().map(|(stored, document)| (stored, document, Vec::new())).collect()
        }
    };
    for (stored, saved, changes) in all {
        let id = stored.row.dispatch_id.clone();
        let document = VisitDoc::load(&saved).map_err(|error| (ORACLE, format!("{id}: {error}")))?;
        let view = document.view();
        let state = fold_ruled(&view);
        if stored.tag != document.tag() {
            return Err((ORACLE, format!("{id}: the row's tag is not the document's")));
        }
        if stored.row.plan != view.plan || stored.row.state != state || stored.row.status != state.status {
            return Err((ORACLE, format!("{id}: row {:?}, fold {:?}", stored.row.state, state)));
        }
        if stored.row.card != VisitCard::new(id.clone(), &view.plan, &state) {
            return Err((ORACLE, format!("{id}: the card is not the fold's")));
        }
        let report = document.report();
        if !changes.is_empty() {
            let rebuilt = VisitDoc::load(&changes.concat()).map_err(|error| (ORACLE, format!("{id}: {error}")))?;
            let same = rebuilt.tag() == document.tag() && rebuilt.view() == view && rebuilt.report() == report;
            if !same {
                return Err((ORACLE, format!("{id}: the changes make another document")));
            }
        }
        visits.insert(id, Opened { stored, document, view, report });
    }
    Ok(visits)
}

/// What a technician was told is stored is in the server's document, with a ruling; or the office has it in quarantine, with
/// its payload, and an exception says so.
fn nothing_lost(world: &World<'_>, visits: &BTreeMap<DispatchId, Opened>) -> Checked {
    const ORACLE: &str = "no acknowledged work is lost";
    let quarantine = Quarantine::read(world).map_err(|error| (ORACLE, error))?;
    for (index, phone) in world.phones.iter().enumerate() {
        let parked = phone.store.as_ref().map(Store::parked).and_then(Result::ok).unwrap_or_default();
        for item in &parked {
            // The office's database came back from before the visit was made or given to this technician: the work waits
            // for a person, on both sides.
            if !(world.restored && item.code == "DISPATCH_NOT_FOUND") {
                return Err((ORACLE, format!("phone {index} has parked {item:?}")));
            }
        }
        for done in &phone.done {
            // A revoked phone keeps nothing that it could give again to a database that comes back from a copy.
            if world.restored && done.given_up {
                continue;
            }
            let what = || format!("phone {index}: {} of {}: {:?} {:?}", done.kind, done.dispatch, done.fact, done.note);
            let visit = visits.get(&done.dispatch);
            if let Some(fact) = &done.fact
                && !quarantine.has(&done.dispatch, fact.as_str())
            {
                let Some(visit) = visit else { return Err((ORACLE, format!("{}: there is no such visit", what()))) };
                match (visit.view.facts.get(fact), visit.view.rulings.get(fact)) {
                    (Some(_), Some(_)) => {}
                    (Some(_), None) => return Err((ORACLE, format!("{}: nobody has ruled on it", what()))),
                    (None, _) => return Err((ORACLE, format!("{}: the office does not have it", what()))),
                }
            }
            if let Some(note) = &done.note
                && !visit.is_some_and(|visit| visit.report.notes.contains(note.as_str()))
                && !quarantine.has(&done.dispatch, note)
            {
                return Err((ORACLE, format!("{}: the office does not have it", what())));
            }
        }
    }
    Ok(())
}

/// The payloads that the office keeps because they could not be let in.
struct Quarantine(Vec<(DispatchId, String)>);

impl Quarantine {
    fn read(world: &World<'_>) -> Result<Self, String> {
        let rows = world.wait(world.store.exceptions(&world.tenant, None, false, EVENTS_MAX));
        let rows = rows.map_err(|error| error.to_string())?;
        let payload = |row: ExceptionRow| Some((row.dispatch_id, row.detail.get("payloadHex")?.as_str()?.to_owned()));
        Ok(Self(rows.into_iter().filter_map(payload).collect()))
    }

    /// Short texts stand in a change as they are.
    fn has(&self, dispatch: &DispatchId, text: &str) -> bool {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.0.iter().any(|(of, payload)| of == dispatch && payload.contains(&hex))
    }
}

/// Stock, serial numbers, sequence numbers and events count once.
fn nothing_twice(world: &World<'_>, visits: &BTreeMap<DispatchId, Opened>) -> Checked {
    const ORACLE: &str = "no effect twice";
    let mut used: BTreeMap<(TechnicianId, PartNumber), i64> = BTreeMap::new();
    let mut seen: BTreeSet<&FactId> = BTreeSet::new();
    let mut serials = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let ruled = |opened: &Opened| -> Vec<(Fact, Ruling)> {
        let facts = opened.view.facts.values();
        facts.filter_map(|fact| Some((fact.clone(), opened.view.rulings.get(&fact.id)?.clone()))).collect()
    };
    for opened in visits.values() {
        for fact in opened.view.facts.keys() {
            if !seen.insert(fact) {
                return Err((ORACLE, format!("{fact} is on two visits")));
            }
        }
        for (fact, ruling) in ruled(opened) {
            if ruling.reason != RulingReason::SequenceReused && !numbers.insert((fact.device.clone(), fact.seq)) {
                return Err((ORACLE, format!("{} has the number {} twice", fact.device, fact.seq)));
            }
            if let FactKind::PartUsed { part, quantity, serial } = &fact.kind
                && ruling.verdict == Verdict::Accepted
            {
                *used.entry((fact.technician.clone(), part.clone())).or_default() += i64::from(*quantity);
                if let Some(serial) = serial
                    && !serials.insert(serial.clone())
                {
                    return Err((ORACLE, format!("the part {serial} was used twice")));
                }
            }
        }
    }
    for phone in &world.phones {
        let row = world.wait(world.store.technician(&world.tenant, &phone.technician));
        let Ok(Some(row)) = row else { return Err((ORACLE, format!("{} is unknown", phone.technician))) };
        for (part, left) in &row.van_stock {
            let taken = used.get(&(phone.technician.clone(), part.clone())).copied().unwrap_or(0);
            if *left != STOCK - taken {
                return Err((ORACLE, format!("{}: {taken} {part} used, {left} left", phone.technician)));
            }
        }
    }
    events(world, visits)
}

/// Every event has its own id, tells something that happened, once; those of one dispatch are in order.
fn events(world: &World<'_>, visits: &BTreeMap<DispatchId, Opened>) -> Checked {
    const ORACLE: &str = "events are in order";
    let events = world.wait(world.store.events(&world.tenant, 0, None, None, EVENTS_MAX));
    let events = events.map_err(|error| (ORACLE, error.to_string()))?;
    let mut ids = BTreeSet::new();
    let mut told = BTreeSet::new();
    let mut last: BTreeMap<&str, (u64, &Event)> = BTreeMap::new();
    let mut epochs: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, event) in &events {
        if !ids.insert(&event.event_id) {
            return Err(("no effect twice", format!("{} is there twice", event.event_id)));
        }
        if let Some((before, earlier)) = last.insert(event.aggregate_id.as_str(), (*position, event))
            && (before >= *position || earlier.timestamp > event.timestamp)
        {
            return Err((ORACLE, format!("{earlier:?} before {event:?}")));
        }
        if let Payload::TechnicianAssigned { .. } = event.payload {
            *epochs.entry(event.aggregate_id.as_str()).or_default() += 1;
        }
        if let Payload::TechnicianStatusChanged {
            technician_id,
            dispatch_id: Some(dispatch),
            status,
            occurred_at,
            ..
        } = &event.payload
        {
            let fits = visits.get(dispatch).is_some_and(|opened| {
                opened.view.facts.values().any(|fact| {
                    fact.technician == *technician_id && fact.occurred_at() == *occurred_at && fact.kind.moves_status()
                })
            });
            if !fits {
                return Err((ORACLE, format!("{event:?} tells of nothing")));
            }
            let tells = visits.get(dispatch).map_or(0, |opened| {
                let same = |fact: &&Fact| fact.technician == *technician_id && fact.occurred_at() == *occurred_at;
                opened.view.facts.values().filter(same).count()
            });
            let key = (technician_id.clone(), dispatch.clone(), status.clone(), *occurred_at);
            if !told.insert(key) && tells < 2 {
                return Err(("no effect twice", format!("{event:?} is told twice")));
            }
        }
    }
    for opened in visits.values() {
        let row = &opened.stored.row;
        let told = epochs.get(row.dispatch_id.as_str()).copied().unwrap_or(0) as u64;
        if told != row.plan.epoch {
            return Err((ORACLE, format!("{}: {told} assignments told, epoch {}", row.dispatch_id, row.plan.epoch)));
        }
    }
    Ok(())
}

/// Every phone holds exactly what the server says it should, and reads it alike.
fn replicas(world: &World<'_>, visits: &BTreeMap<DispatchId, Opened>) -> Checked {
    const ORACLE: &str = "replicas agree";
    for (index, phone) in world.phones.iter().enumerate() {
        let Some(store) = &phone.store else { return Err((ORACLE, format!("phone {index} is off"))) };
        let fault = |error: sync_core::store::StoreError| (ORACLE, format!("phone {index}: {error}"));
        let query = VisitQuery { unscheduled: true, ..VisitQuery::default() };
        let cards = store.visits(&query).map_err(fault)?;
        let listed: BTreeSet<_> = cards.iter().map(|card| card.dispatch_id.clone()).collect();
        let held = world.wait(world.store.held(&world.tenant, &phone.technician, None, 10_000, usize::MAX));
        let held = held.map_err(|error| (ORACLE, error.to_string()))?;
        let should: BTreeSet<_> = held.visits.iter().map(|visit| visit.dispatch.clone()).collect();
        if listed != should {
            return Err((ORACLE, format!("phone {index} lists {listed:?}, should hold {should:?}")));
        }
        let state = store.sync_state().map_err(fault)?;
        if state.parked == 0 && (state.digest.0 != held.digest || state.cursor.0 != held.head) {
            let (digest, cursor) = (state.digest, state.cursor);
            return Err((
                ORACLE,
                format!("phone {index}: {digest:?} at {cursor:?}, server {} at {}", held.digest, held.head),
            ));
        }
        for card in cards {
            let Some(opened) = visits.get(&card.dispatch_id) else { continue };
            let detail = store.visit(&card.dispatch_id).map_err(fault)?;
            if !detail.pending.is_empty() {
                continue;
            }
            let same = detail.view == opened.view
                && detail.report == opened.report
                && detail.state == fold(&opened.view)
                && card == opened.stored.row.card;
            if !same {
                return Err((
                    ORACLE,
                    format!(
                        "phone {index} reads {} otherwise than the office: {:?} {:?}; {:?} {:?}",
                        card.dispatch_id, detail.state, detail.report, opened.stored.row.state, opened.report
                    ),
                ));
            }
        }
    }
    // However the changes are merged, they say the same. Where the store gives them, `projection` has made the document anew from
    // them already.
    for (id, opened) in visits.iter().filter(|_| world.memory.is_none()) {
        let mut again = opened.document.clone();
        if again.merge(&opened.document.save()).is_err() || again.view() != opened.view {
            return Err((ORACLE, format!("{id}: merging with itself changes it")));
        }
    }
    Ok(())
}

/// Every visit that a technician has seen in the list and that is gone has a card that says why.
fn tombstones(world: &World<'_>) -> Checked {
    const ORACLE: &str = "tombstones explain";
    for (index, phone) in world.phones.iter().enumerate() {
        let Some(store) = &phone.store else { continue };
        let query = VisitQuery { unscheduled: true, ..VisitQuery::default() };
        let cards = store.visits(&query).unwrap_or_default();
        let tombstones = store.tombstones().unwrap_or_default();
        for seen in &phone.seen {
            let listed = cards.iter().any(|card| card.dispatch_id == *seen);
            let explained = tombstones.iter().any(|card| card.tombstone.dispatch_id == *seen);
            if !listed && !explained {
                return Err((ORACLE, format!("phone {index}: {seen} is gone without a word")));
            }
        }
    }
    Ok(())
}

/// Every line of the audit trail follows the one before.
fn audit(world: &World<'_>, visits: &BTreeMap<DispatchId, Opened>) -> Checked {
    const ORACLE: &str = "audit chains hold";
    let mut chains: BTreeSet<String> = visits.keys().map(|id| format!("dispatch:{id}")).collect();
    if let Some(memory) = &world.memory {
        chains.extend(memory.chains(&world.tenant));
    }
    for chain in chains {
        let lines = world.wait(world.store.audit(&world.tenant, &chain, 0, EVENTS_MAX));
        let lines: Vec<AuditRecord> = lines.map_err(|error| (ORACLE, error.to_string()))?;
        if lines.first().is_some_and(|line| line.seq != 1) {
            return Err((ORACLE, format!("{chain} has lost its beginning")));
        }
        if let Err(line) = verify_chain(&world.tenant, &lines) {
            return Err((ORACLE, format!("{chain} breaks at line {line}")));
        }
    }
    Ok(())
}
