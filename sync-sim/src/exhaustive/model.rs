//! An oracle that knows the conflict rules from their wording alone. It calls nothing of what it judges: no plan, no document,
//! no fold. It hears what the office did and what the phones brought, in the order in which the server heard it.
//!
//! Where the wording leaves room, the choices of ARCHITECTURE.md are taken: presence wins when clocks cannot tell, knowledge
//! beats clocks, a crew change under the same lead continues the assignment, a window that nobody has seen lapses on arrival.

mod hearing;
mod judging;
mod orders;

use super::clause::Clause;
use super::step::{Act, Phone, Who};
use std::collections::{BTreeMap, BTreeSet};

/// The customer's first window is from `WINDOW.0` to `WINDOW.1`, minutes of the day; the moved one from `MOVED.0` on.
pub(super) const WINDOW: (i64, i64) = (8 * 60, 9 * 60 + 30);
pub(super) const MOVED: (i64, i64) = (11 * 60, 12 * 60);
/// Arrive before this minute of the day.
pub(super) const DEADLINE: i64 = 10 * 60;
/// Rule 16: how long a fact waits for its predecessors, minutes.
const WAITS_FOR: i64 = 2;
/// A millisecond clock in minutes would lose what rule 6 is about.
const MINUTE: i64 = 60_000;

/// What a technician said, as it lies in the outbox.
#[derive(Debug, Clone)]
pub(super) struct Deed {
    pub(super) fact: String,
    pub(super) phone: Phone,
    pub(super) act: Act,
    /// Corrected time and the half-width of its interval, milliseconds of the day.
    pub(super) at: i64,
    pub(super) unsure: i64,
    /// How many of the office's orders the phone had seen.
    pub(super) knew: usize,
    /// The assignment it was done under, counted from 1.
    pub(super) turn: usize,
    pub(super) seq: u64,
    /// The proposal that was on the screen.
    pub(super) window: u32,
    /// By the phone's own measurement its wall clock is more than two minutes off.
    pub(super) clock_off: bool,
}

/// What became of a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Counts,
    /// Recorded, without effect.
    History,
    /// A completion against a cancellation: the office decides, and the billing waits (rules 2, 17).
    Disputed(u8),
    /// The office decides.
    Exception(u8),
    /// Recorded, and counts nowhere.
    Quarantined(u8),
    /// For its predecessors, since that minute (rule 16).
    Waits(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Reassigned,
    Unassigned,
    Rejected,
    /// The one before had started already.
    Withdrawn,
}

/// What a card says about a visit that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gone {
    Cancelled,
    Taken(Why),
}

#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) lead: Who,
    pub(super) crew: Vec<Who>,
    /// Earlier turns whose deeds still count.
    continues: BTreeSet<usize>,
    pub(super) ended: Option<(i64, Why)>,
}

impl Turn {
    fn has(&self, who: Who) -> bool {
        self.lead == who || self.crew.contains(&who)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    Cancelled,
    StopWork,
    Void,
}

#[derive(Debug, Clone, Copy)]
struct Cancelled {
    at: i64,
    /// Which order it was.
    order: usize,
    effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Breach {
    Provisional,
    Confirmed,
    Retracted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Stage {
    #[default]
    Pending,
    Assigned,
    Confirmed,
    EnRoute,
    Arrived,
    InProgress,
    Paused,
    Completed,
    CannotComplete,
    Cancelled,
}

/// How far the present assignment has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Story {
    pub(super) stage: Stage,
    pub(super) arrived: Option<i64>,
    started: Option<i64>,
    ended: Option<i64>,
}

impl Story {
    fn on_site(&self) -> bool {
        matches!(self.stage, Stage::Arrived | Stage::InProgress | Stage::Paused)
    }

    fn over(&self) -> bool {
        matches!(self.stage, Stage::Completed | Stage::CannotComplete)
    }

    fn first_on_site(&self) -> Option<i64> {
        let done = self.ended.filter(|_| self.stage == Stage::Completed);
        [self.arrived, self.started, done].into_iter().flatten().min()
    }
}

/// Everything that was heard, and what it comes to.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) turns: Vec<Turn>,
    pub(super) present: Option<usize>,
    cancelled: Option<Cancelled>,
    pub(super) orders: usize,
    pub(super) heard: Vec<(Deed, Standing)>,
    /// Facts across a gap.
    pub(super) over_gap: BTreeSet<String>,
    planned: (i64, i64),
    confirmed: (i64, i64),
    /// Which, and whether the customer has confirmed it.
    proposal: Option<(u32, bool)>,
    windows: u32,
    pub(super) breach: Option<Breach>,
    /// Seen since then with nothing unsent: phone, minute, by the phone heard last.
    pub(super) reported: BTreeMap<Phone, (i64, Option<i64>)>,
    arrived: BTreeMap<Phone, BTreeSet<u64>>,
    given_up: BTreeMap<Phone, u64>,
    pub(super) revoked: Option<i64>,
    filters: BTreeMap<Who, i64>,
    pump: Option<String>,
    /// What a person has to look at: the rule, and the fact where one raised it.
    pub(super) raised: Vec<(u8, Option<String>)>,
    pub(super) settled: usize,
    events: bool,
    /// Why the visit left who had it: what was so when it left.
    pub(super) cards: BTreeMap<Who, Gone>,
    /// What the rules have decided.
    pub(super) decided: BTreeSet<Clause>,
}

impl Model {
    /// Anna has the visit, with Ben on her crew or without him.
    pub(super) fn new(crew: bool) -> Self {
        let crew = if crew { vec![Who::Ben] } else { Vec::new() };
        Self {
            turns: vec![Turn { lead: Who::Anna, crew, continues: BTreeSet::new(), ended: None }],
            present: Some(1),
            cancelled: None,
            orders: 0,
            heard: Vec::new(),
            over_gap: BTreeSet::new(),
            planned: WINDOW,
            confirmed: WINDOW,
            proposal: None,
            windows: 0,
            breach: None,
            reported: BTreeMap::new(),
            arrived: BTreeMap::new(),
            given_up: BTreeMap::new(),
            revoked: None,
            filters: Who::ALL.into_iter().map(|who| (who, 1)).collect(),
            pump: None,
            raised: Vec::new(),
            settled: 0,
            events: false,
            cards: BTreeMap::new(),
            decided: BTreeSet::new(),
        }
    }

    pub(super) fn turn(&self, number: usize) -> Option<&Turn> {
        number.checked_sub(1).and_then(|index| self.turns.get(index))
    }

    fn present_turn(&self) -> Option<&Turn> {
        self.turn(self.present?)
    }

    fn standing_cancellation(&self) -> Option<Cancelled> {
        self.cancelled.filter(|cancelled| cancelled.effect != Effect::Void)
    }

    pub(super) fn effect(&self) -> Option<Effect> {
        self.cancelled.map(|cancelled| cancelled.effect)
    }

    /// True for who has ever had the visit.
    pub(super) fn ever_had(&self, who: Who) -> bool {
        self.turns.iter().any(|turn| turn.has(who))
    }

    fn is_present(&self, deed: &Deed) -> bool {
        let Some(number) = self.present else { return false };
        self.present_turn().is_some_and(|turn| {
            (deed.turn == number || turn.continues.contains(&deed.turn)) && turn.has(deed.phone.who())
        })
    }

    /// Rule 6: a phone's deeds in the order of their numbers, whatever its clock said; those of several by corrected time.
    fn in_order(&self) -> Vec<&(Deed, Standing)> {
        let mut deeds: Vec<(i64, &(Deed, Standing))> = self.heard.iter().map(|heard| (heard.0.at, heard)).collect();
        deeds.sort_by_key(|(_, (deed, _))| (deed.phone, deed.seq));
        let mut last: Option<(Phone, i64)> = None;
        for (at, (deed, _)) in &mut deeds {
            if let Some((phone, before)) = last
                && phone == deed.phone
            {
                *at = before.max(*at);
            }
            last = Some((deed.phone, *at));
        }
        deeds.sort_by_key(|(at, _)| *at);
        deeds.into_iter().map(|(_, heard)| heard).collect()
    }

    pub(super) fn disputes_settled(&self) -> bool {
        self.effect() == Some(Effect::Void)
    }

    /// How far the present assignment has come, a cancellation left out.
    pub(super) fn story(&self) -> Story {
        let Some(turn) = self.present_turn() else { return Story::default() };
        let mut story = Story { stage: Stage::Assigned, ..Story::default() };
        for (deed, standing) in self.in_order() {
            let counts = match standing {
                Standing::Counts => true,
                Standing::Disputed(_) => self.disputes_settled(),
                _ => false,
            };
            // Rule 5: the lead alone takes, rejects and ends the visit.
            if !counts || !self.is_present(deed) || (speaks_for_all(deed.act) && deed.phone.who() != turn.lead) {
                continue;
            }
            let mut reach = |stage: Stage| story.stage = story.stage.max(stage);
            match deed.act {
                Act::Accept => reach(Stage::Confirmed),
                Act::Travel => reach(Stage::EnRoute),
                Act::Arrive | Act::ClaimForeign => {
                    reach(Stage::Arrived);
                    story.arrived.get_or_insert(deed.at);
                }
                Act::Start | Act::Pause => {
                    if deed.act == Act::Start {
                        story.started.get_or_insert(deed.at);
                    }
                    if !story.over() {
                        story.stage = if deed.act == Act::Start { Stage::InProgress } else { Stage::Paused };
                    }
                }
                Act::Complete | Act::CompleteUnasked if !story.over() => {
                    (story.stage, story.ended) = (Stage::Completed, Some(deed.at));
                }
                // Rule 4: a rejection that counts here came after the arrival.
                Act::CannotComplete | Act::Reject if !story.over() => {
                    (story.stage, story.ended) = (Stage::CannotComplete, Some(deed.at));
                }
                _ => {}
            }
        }
        story
    }

    /// Where the visit stands.
    pub(super) fn stage(&self) -> Stage {
        if self.standing_cancellation().is_some_and(|cancelled| cancelled.effect == Effect::Cancelled) {
            return Stage::Cancelled;
        }
        self.story().stage
    }

    /// Rule 17: asked to stop, and not at an end.
    pub(super) fn stop_work(&self) -> bool {
        self.standing_cancellation().is_some_and(|cancelled| cancelled.effect == Effect::StopWork)
            && !self.story().over()
    }

    /// A clause decides.
    pub(super) fn decide(&mut self, clause: Clause) {
        self.decided.insert(clause);
    }

    /// Arrived within the window that the customer last confirmed (rule 13).
    pub(super) fn on_time(&self) -> Option<bool> {
        let arrived = self.story().arrived?;
        let (from, to) = self.confirmed;
        Some((from * MINUTE..to * MINUTE).contains(&arrived))
    }

    /// The office has moved the window at least once (rule 13).
    pub(super) fn window_was_moved(&self) -> bool {
        self.windows > 0
    }

    /// The visit's open disputes hold the billing (rule 2).
    pub(super) fn billing_hold(&self) -> bool {
        !self.disputes_settled() && self.heard.iter().any(|(_, standing)| matches!(standing, Standing::Disputed(_)))
    }

    /// What the visit shows as exceptions: the fact and the rule.
    pub(super) fn exceptions(&self) -> BTreeSet<(String, u8)> {
        self.heard
            .iter()
            .filter_map(|(deed, standing)| match standing {
                Standing::Disputed(rule) if !self.disputes_settled() => Some((deed.fact.clone(), *rule)),
                Standing::Exception(rule) | Standing::Quarantined(rule) => Some((deed.fact.clone(), *rule)),
                _ => None,
            })
            .collect()
    }

    /// Parts that are booked, and the minutes of labour: ledgers, whoever has the visit now (rules 7, 17).
    pub(super) fn ledgers(&self) -> (BTreeSet<String>, u32) {
        let counted = self.heard.iter().filter(|(_, standing)| *standing == Standing::Counts);
        let parts = counted.clone().filter(|(deed, _)| matches!(deed.act, Act::Filter | Act::Pump));
        let labour = counted.filter(|(deed, _)| deed.act == Act::Labour).count();
        (parts.map(|(deed, _)| deed.fact.clone()).collect(), 15 * u32::try_from(labour).unwrap_or(u32::MAX))
    }

    /// Who should hold the visit on the phone.
    pub(super) fn holds(&self, who: Who) -> bool {
        self.effect() != Some(Effect::Cancelled) && self.present_turn().is_some_and(|turn| turn.has(who))
    }

    /// Someone who never had the visit, or a phone's damaged bytes: kept for the office, outside of the visit.
    pub(super) fn keeps_aside(&mut self, clause: Clause) {
        self.decide(clause);
        self.raised.push((clause.rule(), None));
    }
}

/// Rule 5: what the lead says for everybody.
fn speaks_for_all(act: Act) -> bool {
    matches!(act, Act::Accept | Act::Reject | Act::Complete | Act::CompleteUnasked | Act::CannotComplete)
}
