//! How an ending reads for who has to do with it: technicians, office and customer.

use super::check::Shown;
use super::model::{Gone, MOVED, Standing, Why};
use super::stage::minutes;
use super::step::{Act, Who};
use super::world::World;
use sync_core::domain::VisitStatus;
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::rules::sla::BreachStatus;

/// What each technician sees who ever had the visit.
pub(super) fn technicians(world: &World) -> String {
    let model = &world.model;
    let mut seen = Vec::new();
    for who in Who::ALL.into_iter().filter(|who| model.ever_had(*who)) {
        let phones = || world.phones.iter().filter(|(phone, set)| phone.who() == who && set.registered);
        let damaged: usize = phones().map(|(_, set)| set.poison).sum();
        let mut shows = if model.holds(who) {
            held_as(world, who).to_owned()
        } else {
            match model.cards.get(&who) {
                None => "does not have it",
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

fn held_as(world: &World, who: Who) -> &'static str {
    let turn = world.model.present.and_then(|number| world.model.turn(number));
    match turn {
        Some(turn) if turn.crew.is_empty() => "has the visit",
        Some(turn) if turn.lead == who => "has the visit, leads",
        _ => "has the visit",
    }
}

/// What the office sees: where the visit stands, what waits for a decision, what is recorded.
pub(super) fn office(world: &World, shown: &Shown) -> String {
    let (model, state) = (&world.model, &shown.stored.row.state);
    let mut seen: Vec<String> = vec![visit(shown)];
    if state.billing_hold {
        seen.push("**billing hold**".to_owned());
    }
    for (rule, fact) in &model.raised {
        let act = fact.as_ref().and_then(|fact| model.heard.iter().find(|(deed, _)| deed.fact == *fact));
        let by = act.map(|(deed, _)| format!("{} {}", deed.phone.who(), deed.act.said()));
        let text = raised(*rule, by.as_deref(), model.disputes_settled());
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    if model.settled > 0 {
        seen.push("settled by hand".to_owned());
    }
    let history: Vec<String> = model
        .heard
        .iter()
        .filter(|(_, standing)| *standing == Standing::History)
        .map(|(deed, _)| format!("{} {}", deed.phone.who(), deed.act.said()))
        .collect();
    if !history.is_empty() {
        seen.push(format!("in the history only: {}", history.join(", ")));
    }
    match shown.stored.sla.as_ref().map(|row| row.status) {
        Some(BreachStatus::Provisional) => seen.push("breach, provisional".to_owned()),
        Some(BreachStatus::Confirmed) => seen.push("**breach confirmed**".to_owned()),
        Some(BreachStatus::Retracted) => seen.push("breach announced, then retracted".to_owned()),
        None => {}
    }
    if shown.view.rulings.values().any(|ruling| ruling.clock_flagged) {
        seen.push("clock flagged".to_owned());
    }
    if !model.over_gap.is_empty() {
        seen.push("flagged: something before it was missing".to_owned());
    }
    if !state.time.is_empty() {
        seen.push(format!("{} minutes of labour", model.ledgers().1));
    }
    if !state.parts.is_empty() {
        seen.push(format!("{} part{} booked", state.parts.len(), if state.parts.len() == 1 { "" } else { "s" }));
    }
    if model.heard.iter().any(|(deed, standing)| deed.act == Act::Photo && *standing == Standing::Counts) {
        seen.push("a photo".to_owned());
    }
    if model.heard.iter().any(|(deed, standing)| deed.act == Act::Newer && *standing == Standing::Counts) {
        seen.push("an action of a newer app is kept".to_owned());
    }
    seen.join("<br>")
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

/// What the customer has of it.
pub(super) fn customer(world: &World, shown: &Shown) -> String {
    let (state, plan) = (&shown.stored.row.state, &shown.stored.row.plan);
    let comes = || world.model.present.and_then(|number| world.model.turn(number)).map(|turn| turn.lead.to_string());
    let mut told: Vec<String> = vec![match state.status {
        _ if state.billing_hold => "no bill until the office has decided".to_owned(),
        VisitStatus::Completed => "served, can be billed".to_owned(),
        VisitStatus::CannotComplete => "not served".to_owned(),
        VisitStatus::Cancelled => "nobody comes, as agreed".to_owned(),
        VisitStatus::Pending => "waits until somebody has it".to_owned(),
        _ if state.stop_work => "the work is being stopped".to_owned(),
        VisitStatus::Assigned | VisitStatus::Dispatched | VisitStatus::Confirmed => {
            format!("{} will come", comes().unwrap_or_default())
        }
        VisitStatus::EnRoute => format!("{} is on the way", comes().unwrap_or_default()),
        VisitStatus::Arrived | VisitStatus::InProgress | VisitStatus::Paused => {
            format!("{} is there", comes().unwrap_or_default())
        }
    }];
    let under_way = !state.status.is_final() && state.on_time.is_none();
    if under_way && plan.arrival_window == Some(minutes(MOVED)) {
        told.push("in the new window".to_owned());
    }
    if plan.proposed_window.is_some() {
        told.push("the new window is not certain yet".to_owned());
    }
    match state.on_time {
        Some(true) if world.model.window_was_moved() => told.push("within the window that was agreed".to_owned()),
        Some(false) => told.push("outside the window that was agreed".to_owned()),
        _ => {}
    }
    match shown.stored.sla.as_ref().map(|row| row.status) {
        Some(BreachStatus::Confirmed) => told.push("later than promised".to_owned()),
        Some(BreachStatus::Retracted) => told.push("the promise was kept".to_owned()),
        _ => {}
    }
    let answers: usize = shown.report.answers.values().map(Vec::len).sum();
    if answers > 1 {
        told.push("the report shows both answers".to_owned());
    }
    told.join(", ")
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
pub(super) fn says(rule: u8) -> &'static str {
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
