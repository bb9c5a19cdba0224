//! The table of outcomes: what the worlds come to, in a dispatcher's words.
//!
//! Of all worlds of a rule's scenes that end alike, the one that takes the fewest steps is the row.

use super::check::Shown;
use super::model::{Gone, Standing, Why};
use super::scene::Scene;
use super::stage::World;
use super::step::{Act, Phone, Step, Who};
use std::collections::BTreeMap;
use std::fmt;
use sync_core::domain::VisitStatus;
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::rules::sla::BreachStatus;

/// Longest story of a row, in steps before the phones connect.
const STEPS_MAX: usize = 3;

/// What decides whether two stories end alike. What is only history, and how much was booked, makes no other ending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    visit: String,
    has_it: String,
    office: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<u8, BTreeMap<Outcome, Row>>,
    found: usize,
}

#[derive(Debug)]
struct Row {
    steps: usize,
    /// In which order it was found.
    number: usize,
    story: String,
    technicians: String,
    /// What makes no other ending.
    also: Vec<String>,
}

impl Table {
    /// Considers a world that has ended.
    pub(super) fn add(&mut self, scene: &Scene, world: &World, order: &[Phone], before: &World, shown: &Shown) {
        let steps = before.taken.len();
        if steps > STEPS_MAX {
            return;
        }
        let (office, also) = office(world, shown);
        let outcome = Outcome { visit: visit(shown), has_it: has_it(world), office };
        for rule in scene.rules.iter().filter(|rule| world.model.touched.contains(rule)) {
            self.found += 1;
            let (story, technicians) = (story(before, order), technicians(world));
            let row = Row { steps, number: self.found, story, technicians, also: also.clone() };
            let rows = self.rows.entry(*rule).or_default();
            match rows.get_mut(&outcome) {
                Some(known) if known.steps <= steps => {}
                Some(known) => *known = row,
                None => drop(rows.insert(outcome.clone(), row)),
            }
        }
    }
}

/// What was done, in order, and whose unsent work came first in the end.
fn story(world: &World, order: &[Phone]) -> String {
    let mut told: Vec<String> = world.taken.iter().map(ToString::to_string).collect();
    let waiting = order.iter().filter(|phone| world.phones.get(phone).is_some_and(|set| !set.outbox.is_empty()));
    for phone in waiting {
        let last = Step::Exchange(*phone, super::step::How::Whole);
        told.push(last.to_string());
    }
    told.join(" → ")
}

fn visit(shown: &Shown) -> String {
    let state = &shown.stored.row.state;
    let status = match state.status {
        VisitStatus::Pending => "open, nobody has it",
        VisitStatus::Assigned | VisitStatus::Dispatched => "assigned",
        VisitStatus::Confirmed => "taken",
        VisitStatus::EnRoute => "on the way",
        VisitStatus::Arrived => "somebody is there",
        VisitStatus::InProgress => "in work",
        VisitStatus::Paused => "work is paused",
        VisitStatus::Completed => "**completed**",
        VisitStatus::CannotComplete => "**could not be completed**",
        VisitStatus::Cancelled => "**cancelled**",
    };
    let effect = shown.stored.row.plan.cancellation.as_ref().map(|cancellation| cancellation.effect);
    let also = match effect {
        Some(CancellationEffect::Void) => ", the cancellation is void",
        Some(CancellationEffect::StopWork) if state.stop_work => ", **asked to stop**",
        Some(CancellationEffect::StopWork) => ", after a request to stop",
        _ => "",
    };
    format!("{status}{also}")
}

fn has_it(world: &World) -> String {
    let Some(turn) = world.model.present.and_then(|number| world.model.turn(number)) else {
        return "nobody".to_owned();
    };
    match turn.crew.first() {
        Some(with) => format!("{} (lead), {with}", turn.lead),
        None => turn.lead.to_string(),
    }
}

/// What each technician sees who ever had the visit.
fn technicians(world: &World) -> String {
    let model = &world.model;
    let mut seen = Vec::new();
    for who in Who::ALL.into_iter().filter(|who| model.ever_had(*who)) {
        let phones = || world.phones.iter().filter(|(phone, set)| phone.who() == who && set.registered);
        let damaged: usize = phones().map(|(_, set)| set.poison).sum();
        let mut shows = if model.holds(who) {
            "the visit".to_owned()
        } else {
            match model.cards.get(&who) {
                None => "nothing",
                Some(Gone::Cancelled) => "card: cancelled",
                Some(Gone::Taken(Why::Reassigned)) => "card: given to somebody else",
                Some(Gone::Taken(Why::Unassigned | Why::Rejected)) => "card: taken back",
                Some(Gone::Taken(Why::Withdrawn)) => "card: withdrawn, a colleague had started",
            }
            .to_owned()
        };
        if phones().any(|(_, set)| set.dead) {
            shows += if phones().all(|(_, set)| set.dead) {
                ", on no phone; the lost one is wiped"
            } else {
                "; the lost phone is wiped"
            };
        }
        if damaged > 0 {
            shows += "; one entry could not be sent";
        }
        seen.push(format!("{who}: {shows}"));
    }
    seen.join("<br>")
}

/// What the office sees beside status and assignment: what makes an ending, and what is only booked or recorded.
fn office(world: &World, shown: &Shown) -> (Vec<String>, Vec<String>) {
    let (model, state) = (&world.model, &shown.stored.row.state);
    let (mut seen, mut also): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    if state.billing_hold {
        seen.push("**billing hold**".to_owned());
    }
    for (rule, fact) in &model.raised {
        let act = fact.as_ref().and_then(|fact| model.heard.iter().find(|(deed, _)| deed.fact == *fact));
        let by = act.map(|(deed, _)| format!("{} {}", deed.phone.who(), deed.act.said()));
        seen.push(raised(*rule, by.as_deref(), model.disputes_settled()));
    }
    let settled = model.settled;
    if settled > 0 {
        seen.push(format!("{settled} settled by hand"));
    }
    let history: Vec<String> = model
        .heard
        .iter()
        .filter(|(_, standing)| *standing == Standing::History)
        .map(|(deed, _)| format!("{} {}", deed.phone.who(), deed.act.said()))
        .collect();
    if !history.is_empty() {
        also.push(format!("in the history only: {}", history.join(", ")));
    }
    match shown.stored.sla.as_ref().map(|row| row.status) {
        Some(BreachStatus::Provisional) => seen.push("breach, provisional".to_owned()),
        Some(BreachStatus::Confirmed) => seen.push("**breach confirmed**".to_owned()),
        Some(BreachStatus::Retracted) => seen.push("breach announced, then retracted".to_owned()),
        None => {}
    }
    if state.on_time == Some(false) {
        seen.push("outside the window the customer confirmed".to_owned());
    }
    if shown.view.rulings.values().any(|ruling| ruling.clock_flagged) {
        seen.push("clock flagged".to_owned());
    }
    if !model.over_gap.is_empty() {
        seen.push("flagged: something before it was missing".to_owned());
    }
    if !state.time.is_empty() {
        also.push(format!("{} minutes of labour", model.ledgers().1));
    }
    if !state.parts.is_empty() {
        also.push(format!("{} part{} booked", state.parts.len(), if state.parts.len() == 1 { "" } else { "s" }));
    }
    if model.heard.iter().any(|(deed, standing)| deed.act == Act::Newer && *standing == Standing::Counts) {
        seen.push("an action of a newer app is kept".to_owned());
    }
    let answers: usize = shown.document.report().answers.values().map(Vec::len).sum();
    if answers > 1 {
        seen.push("two answers to one question, both shown".to_owned());
    }
    (seen, also)
}

fn raised(rule: u8, by: Option<&str>, settled: bool) -> String {
    let by = by.unwrap_or_default();
    match rule {
        2 if settled => format!("exception: {by} on a cancelled visit; it stands now"),
        17 if settled => format!("exception: {by} although asked to stop; it stands now"),
        2 => format!("exception: {by} on a cancelled visit"),
        17 => format!("exception: {by} although asked to stop"),
        3 => format!("exception: {by}, and the visit is not theirs any more"),
        5 => format!("exception: {by}, and is not the lead"),
        7 if by.contains("pump") => format!("exception: {by}, which was used before"),
        7 => format!("discrepancy: {by}, and there was none left"),
        9 => format!("quarantined: {by} (lost phone)"),
        14 if by.is_empty() => "quarantined: work of somebody who never had the visit".to_owned(),
        14 => format!("quarantined: {by}"),
        15 => "exception: a damaged entry, kept with its bytes".to_owned(),
        _ => format!("exception: {by}"),
    }
}

/// What a rule is about.
pub(super) fn title(rule: u8) -> &'static str {
    match rule {
        1 => "The office cancels before anybody is there",
        2 => "A cancelled visit is completed",
        3 => "Given to somebody else while the first is out of reach",
        4 => "Taken or rejected, and rejected too late",
        5 => "Two people on one visit",
        6 => "Wrong clocks",
        7 => "Parts",
        8 => "Photos",
        9 => "A lost phone",
        10 => "A new phone",
        11 => "A newer app",
        12 => "The deadline",
        13 => "A moved window",
        14 => "Work of somebody who has lost the visit, or never had it",
        15 => "Something damaged in the outbox",
        16 => "Something is missing in between",
        17 => "Cancelled while somebody is there",
        _ => "The same thing twice",
    }
}

/// The rule in a sentence.
fn says(rule: u8) -> &'static str {
    match rule {
        1 => {
            "The cancellation counts at once. Until the phones know, it is shown as not yet delivered; then they show a card."
        }
        2 => {
            "Nothing is lost. Completed before the cancellation, by corrected time and not knowing of it: the completion stands. \
              Otherwise the office decides, and nothing is billed meanwhile."
        }
        3 => {
            "Who had started before the visit was taken away keeps it, unless the other is there already. All else of the former \
              technician is history, or, where work was done, for the office to decide."
        }
        4 => "An answer to an old assignment changes nothing. A rejection on site becomes \"could not be completed\".",
        5 => {
            "What both did is joined. Only the lead takes, rejects and ends the visit; two answers to one question are both kept."
        }
        6 => {
            "A phone's actions count in the order in which they were done. Times are corrected by what was measured; more than two \
              minutes off is flagged. When the clocks cannot tell, being there wins, and a completion is for the office to decide."
        }
        7 => {
            "Each use is an entry, once. Stock may go below zero, as a discrepancy; a serial number used twice is for the office."
        }
        8 => "Photos travel by themselves. Nothing waits for them, and they count whatever becomes of the visit.",
        9 => "What a lost phone sends after it was revoked is kept apart, and counts nowhere. The new phone goes on.",
        10 => "What is still on the old phone counts like everything else.",
        11 => "What only a newer app knows is kept, and stands in nobody's way.",
        12 => {
            "Past the deadline, a breach is provisional while the phone is silent. An arrival in time that comes late retracts it."
        }
        13 => {
            "A window that is moved on the way is a proposal until it was seen. On time is what the customer last confirmed."
        }
        14 => {
            "Judged by what they had when they did it: parts and labour count, the visit is not theirs. Who never had it is \
               quarantined, never deleted."
        }
        15 => "Parked on both sides, with its bytes. Other visits go on, and the rest of this one after another try.",
        16 => {
            "Held two minutes for what is missing, then it counts and is flagged. What needs nothing before it never waits."
        }
        17 => "Becomes a request to stop. It ends as \"could not be completed\", with the labour recorded.",
        _ => "Once, for ever: whatever comes again is known.",
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What becomes of it\n")?;
        writeln!(
            f,
            "Two technicians, Anna and Ben, and one office. At eight o'clock the visit is Anna's (with Ben, where two are on it), both \
             phones know it, and then they are offline: a phone knows what the office did only after it has connected. \"Not \
             knowing\" means that the office's last order had not reached the phone. Each row is the shortest story with its \
             outcome, after all phones have been online.\n"
        )?;
        writeln!(
            f,
            "This page is written by the code that it describes: `cargo run --release -p sync-sim -- exhaustive --outcomes \
             docs/outcomes.md`. The stories are chosen from all small worlds that there are; see \
             `sync-sim/src/exhaustive`."
        )?;
        for (rule, rows) in &self.rows {
            writeln!(f, "\n## {rule}. {}\n\n{}\n", title(*rule), says(*rule))?;
            writeln!(
                f,
                "| What happened | The visit | Who has it | The technicians see | The office sees |\n|---|---|---|---|---|"
            )?;
            let mut rows: Vec<(&Outcome, &Row)> = rows.iter().collect();
            rows.sort_by_key(|(_, row)| (row.steps, row.number));
            for (outcome, row) in rows {
                let Outcome { visit, has_it, office } = outcome;
                let seen: Vec<&str> = office.iter().chain(&row.also).map(String::as_str).collect();
                let seen = if seen.is_empty() { "nothing to decide".to_owned() } else { seen.join("<br>") };
                writeln!(f, "| {} | {visit} | {has_it} | {} | {seen} |", row.story, row.technicians)?;
            }
        }
        Ok(())
    }
}
