//! What must hold in every world once everybody has had a network again.

use super::clause::Clause;
use super::model::{Breach, Effect, Gone, Stage as Reached, Standing, Why};
use super::stage::Stage;
use super::step::{Phone, Who, id};
use super::world::{World, Written};
use crm_dispatch_server::service::model::StoredDispatch;
use crm_dispatch_server::store::Dispatches as _;
use std::collections::BTreeSet;
use sync_core::document::VisitDoc;
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{
    FactId, Report, TechnicianId, Tombstone, TombstoneReason, Verdict, VisitState, VisitStatus, VisitView, fold,
};

/// A finished world as the server and the phones show it.
pub(super) struct Shown {
    pub(super) stored: StoredDispatch,
    pub(super) view: VisitView,
    pub(super) changes: Vec<Vec<u8>>,
    pub(super) document: VisitDoc,
    pub(super) report: Report,
    /// What the report and the arrival show of the rules, beside what the model has heard.
    pub(super) clauses: BTreeSet<Clause>,
}

macro_rules! same {
    ($found:expr, $expected:expr, $($what:tt)+) => {
        let (found, expected) = (&$found, &$expected);
        if found != expected {
            return Err(format!("{}: {found:?}, and by the rules {expected:?}", format!($($what)+)));
        }
    };
}

impl Stage {
    /// Checks a settled world, and answers what there is to see.
    pub(super) fn check(&self, world: &World) -> Result<Shown, String> {
        let mut all = self.store.all_dispatches(&self.tenant);
        let here = all.iter().position(|(stored, ..)| stored.row.dispatch_id == self.visit);
        let (stored, saved, changes) = all.swap_remove(here.ok_or("the visit is gone")?);
        // The changes are merged from the first to the last, in every order, by `merge`.
        let (document, view) = document_is_true(&stored, &saved)?;
        let mut made_elsewhere = Vec::new();
        for (stored, saved, changes) in &all {
            let (document, view) = document_is_true(stored, saved)?;
            changes_make(&document, changes)?;
            made_elsewhere.push((stored.row.state.pending_facts, view.facts.len()));
        }
        let sent = self.other.is_some().then_some((0, world.elsewhere));
        same!(made_elsewhere, sent.into_iter().collect::<Vec<_>>(), "facts pending and there, on the other visit");
        every_fact_has_its_ruling(world, &view)?;
        state_is_the_rules(world, &stored)?;
        let report = document.report();
        let mut clauses = report_is_whole(world, &report)?;
        self.phones_show_it(world, &stored, &view)?;
        self.exceptions(world)?;
        if world.model.window_was_moved() && world.model.on_time().is_some() {
            clauses.insert(Clause::JudgedByTheConfirmed);
        }
        Ok(Shown { stored, view, changes, document, report, clauses })
    }

    /// What waits for a person is what the rules raise, fact by fact.
    fn exceptions(&self, world: &World) -> Result<(), String> {
        let visit = Some(&self.visit);
        let rows = self.look(self.store.exceptions(&self.tenant, visit, false, 500))?;
        let mut found: Vec<(u8, Option<String>)> =
            rows.iter().map(|row| (row.rule.unwrap_or(0), row.fact_id.as_ref().map(ToString::to_string))).collect();
        let mut expected = world.model.raised.clone();
        found.sort();
        expected.sort();
        same!(found, expected, "exceptions, by rule and fact");
        let open: Vec<_> = rows.iter().filter(|row| row.resolved_at.is_none()).collect();
        same!(open.len(), expected.len() - world.model.settled, "open exceptions");
        Ok(())
    }

    /// Every phone shows what the server has, or a card that says why it is gone.
    fn phones_show_it(&self, world: &World, stored: &StoredDispatch, view: &VisitView) -> Result<(), String> {
        // A document of the same tag is the same document: it is folded once, as a phone folds it.
        same!(fold(view), stored.row.state, "the fold on the phones");
        for (phone, handset) in world.phones.iter().filter(|(_, handset)| handset.registered && !handset.dead) {
            let who = phone.who();
            match (world.model.holds(who), handset.visits.get(&self.visit)) {
                (true, Some(held)) => {
                    same!(held.doc.tag(), stored.tag, "the document on {who}'s phone");
                }
                (false, None) => {
                    let had = world.model.ever_had(who) && handset.gone.contains_key(&self.visit);
                    if had {
                        same!(handset.gone.get(&self.visit).map(reason), card(world, who), "{who}'s card");
                    }
                }
                // What he has copied is no visit that he holds.
                (false, Some(_)) if !world.model.ever_had(who) => {}
                (holds, found) => {
                    return Err(format!(
                        "{who}'s phone {} the visit, by the rules it {}",
                        if found.is_some() { "holds" } else { "does not hold" },
                        if holds { "does" } else { "does not" }
                    ));
                }
            }
        }
        let behind: Vec<&TechnicianId> = stored.undelivered_to.iter().collect();
        let silent: Vec<TechnicianId> = Who::ALL
            .into_iter()
            .filter(|who| world.phones.iter().all(|(phone, set)| phone.who() != *who || set.dead || !set.registered))
            .map(|who| id(who.id()))
            .collect();
        if behind.iter().any(|who| !silent.contains(who)) {
            return Err(format!("undelivered to {behind:?}, whose phones have all that there is"));
        }
        Ok(())
    }

    fn look<T>(
        &self,
        call: impl Future<Output = Result<T, crm_dispatch_server::store::StoreError>>,
    ) -> Result<T, String> {
        self.block_on(call).map_err(|error| error.to_string())
    }
}

/// The stored document, the projection and a fold from scratch are the same.
fn document_is_true(stored: &StoredDispatch, saved: &[u8]) -> Result<(VisitDoc, VisitView), String> {
    let document = VisitDoc::load(saved).map_err(|error| error.to_string())?;
    same!(document.tag(), stored.tag, "the stored document's tag");
    let view = document.view();
    same!(view.plan, stored.row.plan, "the plan");
    same!(stored.row.state, fold_ruled(&view), "the projection against a fold from scratch");
    same!(document.unreadable(), 0, "unreadable entries");
    Ok((document, view))
}

/// The stored changes make the stored document.
fn changes_make(document: &VisitDoc, changes: &[Vec<u8>]) -> Result<(), String> {
    let (first, rest) = changes.split_first().ok_or("a visit without a change")?;
    let mut again = VisitDoc::load(first).map_err(|error| error.to_string())?;
    again.apply(rest).map_err(|error| error.to_string())?;
    same!(again.tag(), document.tag(), "the document made of the stored changes");
    same!(again.view(), document.view(), "what the document made of the stored changes says");
    Ok(())
}

/// No fact is lost, none is there twice, and each has exactly the ruling that the rules give it.
fn every_fact_has_its_ruling(world: &World, view: &VisitView) -> Result<(), String> {
    let expected: BTreeSet<&str> = world.model.heard.iter().map(|(deed, _)| deed.fact.as_str()).collect();
    let found: BTreeSet<&str> = view.facts.keys().map(AsRef::as_ref).collect();
    same!(found, expected, "the facts");
    let ruled: BTreeSet<&str> = view.rulings.keys().map(AsRef::as_ref).collect();
    same!(ruled, expected, "the rulings");
    for (deed, standing) in &world.model.heard {
        let Some(ruling) = view.rulings.get(&id::<FactId>(deed.fact.clone())) else { continue };
        let rule = ruling.reason.rule().map(|rule| rule.0);
        let what = || format!("\"{}\" of {} ({:?})", deed.act.said(), deed.fact, ruling.reason);
        let fits = match standing {
            Standing::Counts => ruling.verdict == Verdict::Accepted,
            Standing::History => ruling.verdict == Verdict::Stale,
            Standing::Disputed(number) | Standing::Exception(number) | Standing::Quarantined(number) => {
                ruling.verdict == Verdict::Exception && rule == Some(*number)
            }
            Standing::Waits(_) => false,
        };
        if !fits {
            return Err(format!("{} is ruled {:?}, by the rules it is {standing:?}", what(), ruling.verdict));
        }
        same!(ruling.clock_flagged, deed.clock_off, "the clock flag of {}", what());
        same!(ruling.gap_flagged, world.model.over_gap.contains(&deed.fact), "the gap flag of {}", what());
    }
    Ok(())
}

fn status(stage: Reached) -> VisitStatus {
    match stage {
        Reached::Pending => VisitStatus::Pending,
        Reached::Assigned => VisitStatus::Assigned,
        Reached::Confirmed => VisitStatus::Confirmed,
        Reached::EnRoute => VisitStatus::EnRoute,
        Reached::Arrived => VisitStatus::Arrived,
        Reached::InProgress => VisitStatus::InProgress,
        Reached::Paused => VisitStatus::Paused,
        Reached::Completed => VisitStatus::Completed,
        Reached::CannotComplete => VisitStatus::CannotComplete,
        Reached::Cancelled => VisitStatus::Cancelled,
    }
}

fn state_is_the_rules(world: &World, stored: &StoredDispatch) -> Result<(), String> {
    let (model, state, plan) = (&world.model, &stored.row.state, &stored.row.plan);
    same!(state.status, status(model.stage()), "the status");
    let turn = model.present.and_then(|number| model.turn(number));
    let names = |whos: &[Who]| whos.iter().map(|who| id(who.id())).collect::<Vec<TechnicianId>>();
    same!(state.lead, turn.map(|turn| id::<TechnicianId>(turn.lead.id())), "who has it");
    let crew = plan.assignment.as_ref().map(|assignment| assignment.crew.clone());
    same!(crew, turn.map(|turn| names(&turn.crew)), "the crew");
    // Rule 3: every assignment is an epoch of its own, and the latest counts.
    same!(plan.epoch, model.turns.len() as u64, "the highest epoch");
    same!(plan.assignment.as_ref().map(|a| a.epoch), model.present.map(|number| number as u64), "the epoch");
    let effect = plan.cancellation.as_ref().map(|cancellation| match cancellation.effect {
        CancellationEffect::Cancelled => Effect::Cancelled,
        CancellationEffect::StopWork => Effect::StopWork,
        CancellationEffect::Void => Effect::Void,
    });
    same!(effect, model.effect(), "the cancellation");
    same!(state.stop_work, model.stop_work(), "the request to stop");
    same!(state.billing_hold, model.billing_hold(), "the billing hold");
    same!(exceptions(state), model.exceptions(), "the visit's exceptions");
    let parts: BTreeSet<String> = state.parts.iter().map(|part| part.fact.to_string()).collect();
    let minutes: u32 = state.time.iter().map(|time| time.minutes).sum();
    same!((parts, minutes), model.ledgers(), "the ledgers of parts and labour");
    same!(state.on_time, model.on_time(), "on time");
    let breach = stored.sla.as_ref().map(|row| match row.status {
        BreachStatus::Provisional => Breach::Provisional,
        BreachStatus::Confirmed => Breach::Confirmed,
        BreachStatus::Retracted => Breach::Retracted,
    });
    same!(breach, model.breach, "the breach of the service level");
    Ok(())
}

fn exceptions(state: &VisitState) -> BTreeSet<(String, u8)> {
    let rule = |reason: sync_core::domain::RulingReason| reason.rule().map_or(0, |rule| rule.0);
    state.exceptions.iter().map(|exception| (exception.fact.to_string(), rule(exception.reason))).collect()
}

fn reason(tombstone: &Tombstone) -> TombstoneReason {
    tombstone.reason
}

/// The card that explains a visit which is gone (rules 1 and 3).
fn card(world: &World, who: Who) -> Option<TombstoneReason> {
    Some(match world.model.cards.get(&who)? {
        Gone::Cancelled => TombstoneReason::Cancelled,
        Gone::Taken(Why::Reassigned) => TombstoneReason::Reassigned,
        Gone::Taken(Why::Unassigned | Why::Rejected) => TombstoneReason::Unassigned,
        Gone::Taken(Why::Withdrawn) => TombstoneReason::Withdrawn,
    })
}

/// Rule 5: every note is there once, and an answer stands until somebody who has seen it answers again.
fn report_is_whole(world: &World, report: &Report) -> Result<BTreeSet<Clause>, String> {
    let there = |written: &&Written| written.heard.is_some();
    for written in world.written.iter().filter(there) {
        if let Some(note) = &written.note {
            same!(report.notes.matches(note.as_str()).count(), 1, "how often the note {note} is there");
        }
    }
    let answers: Vec<&Written> =
        world.written.iter().filter(there).filter(|written| written.answer.is_some()).collect();
    let saw = |later: &Written, earlier: &Written| {
        let own = later.phone == earlier.phone && earlier.made < later.made;
        own || earlier.heard.is_some_and(|heard| heard < later.knew)
    };
    let expected: BTreeSet<&str> = answers
        .iter()
        .filter(|answer| !answers.iter().any(|later| saw(later, answer)))
        .filter_map(|answer| answer.answer.as_deref())
        .collect();
    let found: BTreeSet<&str> = report.answers.values().flatten().map(|answer| answer.value.as_str()).collect();
    same!(found, expected, "the answers that stand");
    let wrote = |phone: Phone| world.written.iter().filter(there).any(|w| w.phone == phone && w.note.is_some());
    let mut clauses = BTreeSet::new();
    if wrote(Phone::Anna) && wrote(Phone::Ben) {
        clauses.insert(Clause::NotesJoined);
    }
    if expected.len() > 1 {
        clauses.insert(Clause::TwoAnswers);
    }
    Ok(clauses)
}

/// Both orders in which two phones with unsent work can come back.
pub(super) fn orders(world: &World) -> Vec<Vec<Phone>> {
    let with_work: Vec<Phone> =
        world.phones.iter().filter(|(_, handset)| !handset.outbox.is_empty()).map(|(phone, _)| *phone).collect();
    let rest: Vec<Phone> = world.phones.keys().copied().filter(|phone| !with_work.contains(phone)).collect();
    let mut orders = permutations(&with_work);
    for order in &mut orders {
        order.extend(&rest);
    }
    orders
}

fn permutations(phones: &[Phone]) -> Vec<Vec<Phone>> {
    if phones.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (index, first) in phones.iter().enumerate() {
        let mut others = phones.to_vec();
        others.remove(index);
        for mut order in permutations(&others) {
            order.insert(0, *first);
            all.push(order);
        }
    }
    all
}
