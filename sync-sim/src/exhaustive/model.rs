//! An oracle that knows the conflict rules from their wording alone. It calls nothing of what it judges: no plan, no document,
//! no fold. It hears what the office did and what the phones brought, in the order in which the server heard it.
//!
//! Where the wording leaves room, the choices of ARCHITECTURE.md are taken: presence wins when clocks cannot tell, knowledge
//! beats clocks, a crew change under the same lead continues the assignment, a window that nobody has seen lapses on arrival.

use super::step::{Act, Order, Phone, Who};
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
    /// The rules whose situation has come up.
    pub(super) touched: BTreeSet<u8>,
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
            touched: BTreeSet::new(),
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

    fn touch(&mut self, rule: u8) {
        self.touched.insert(rule);
    }

    /// Who has a visit and when it is can be changed until somebody is there, it has ended, or it is cancelled.
    fn movable(&self) -> bool {
        let story = self.story();
        !story.on_site() && !story.over() && self.standing_cancellation().is_none()
    }

    fn end_turn(&mut self, at: i64, why: Why) {
        if let Some(turn) = self.present.take().and_then(|number| self.turns.get_mut(number - 1)) {
            turn.ended = Some((at, why));
        }
    }

    /// Rule 13: what was proposed comes into force.
    fn adopt(&mut self) {
        if let Some((_, confirmed)) = self.proposal.take() {
            self.planned = MOVED;
            if confirmed {
                self.confirmed = MOVED;
            }
        }
    }

    fn assign(&mut self, now: i64, lead: Who, crew: Vec<Who>) -> bool {
        if !self.movable() {
            return false;
        }
        let continues = match (self.present, self.present_turn()) {
            (Some(number), Some(turn)) if turn.lead == lead => turn.continues.iter().copied().chain([number]).collect(),
            _ => {
                self.adopt();
                BTreeSet::new()
            }
        };
        self.end_turn(now, Why::Reassigned);
        self.turns.push(Turn { lead, crew, continues, ended: None });
        self.present = Some(self.turns.len());
        true
    }

    /// The office orders; false when it is told that this is not possible.
    pub(super) fn order(&mut self, order: Order, now: i64) -> bool {
        let held = self.holders();
        let done = self.carry_out(order, now);
        self.hand_out_cards(&held);
        done
    }

    fn holders(&self) -> Vec<Who> {
        Who::ALL.into_iter().filter(|who| self.holds(*who)).collect()
    }

    /// Who has lost the visit just now gets a card that says why.
    fn hand_out_cards(&mut self, held: &[Who]) {
        for who in Who::ALL {
            if self.holds(who) {
                self.cards.remove(&who);
            } else if held.contains(&who) {
                let present = self.present_turn().is_some_and(|turn| turn.has(who));
                let taken = || self.turns.iter().rev().filter(|turn| turn.has(who)).find_map(|turn| turn.ended);
                let gone = if present { None } else { taken() };
                self.cards.insert(who, gone.map_or(Gone::Cancelled, |(_, why)| Gone::Taken(why)));
            }
        }
    }

    fn carry_out(&mut self, order: Order, now: i64) -> bool {
        let done = match order {
            Order::AssignAnna => self.assign(now, Who::Anna, Vec::new()),
            Order::AssignBen => self.assign(now, Who::Ben, Vec::new()),
            Order::BenLeads => self.assign(now, Who::Ben, vec![Who::Anna]),
            Order::Unassign => {
                let possible = self.movable() && self.present.is_some();
                if possible {
                    self.adopt();
                    self.end_turn(now, Why::Unassigned);
                }
                possible
            }
            Order::Cancel => self.cancel(now),
            Order::CalledOff => {
                // Rule 18: it is known whatever it finds.
                self.events = true;
                self.cancel(now)
            }
            Order::CalledOffAgain => {
                if self.events {
                    self.touch(18);
                }
                false
            }
            Order::RequestAgain => {
                self.touch(18);
                false
            }
            Order::Reinstate => {
                let possible = self.standing_cancellation().is_some() && !self.story_ended_otherwise();
                if possible && let Some(cancelled) = &mut self.cancelled {
                    cancelled.effect = Effect::Void;
                }
                possible
            }
            Order::EndStopWork => {
                let possible = self.stop_work();
                if possible && let Some(cancelled) = &mut self.cancelled {
                    cancelled.effect = Effect::Cancelled;
                }
                possible
            }
            Order::MoveConfirmed | Order::Move => {
                self.movable() && {
                    self.touch(13);
                    self.windows += 1;
                    self.proposal = Some((self.windows, order == Order::MoveConfirmed));
                    if self.story().stage != Stage::EnRoute {
                        self.adopt();
                    }
                    true
                }
            }
            Order::Confirmed => {
                self.movable() && {
                    match &mut self.proposal {
                        Some((_, confirmed)) => *confirmed = true,
                        None => self.confirmed = self.planned,
                    }
                    true
                }
            }
            Order::Revoke => {
                let first = self.revoked.is_none();
                self.revoked = self.revoked.or(Some(now));
                return first;
            }
            Order::Settle => {
                let possible = self.settled < self.raised.len();
                self.settled += usize::from(possible);
                possible
            }
        };
        if done {
            self.orders += 1;
            self.look_at_deadline(now, None);
        }
        done
    }

    fn cancel(&mut self, now: i64) -> bool {
        if self.story().over() || self.standing_cancellation().is_some() {
            return false;
        }
        // Rules 1 and 17.
        let effect = if self.story().on_site() { Effect::StopWork } else { Effect::Cancelled };
        self.touch(if effect == Effect::StopWork { 17 } else { 1 });
        self.cancelled = Some(Cancelled { at: now, order: self.orders, effect });
        true
    }

    fn story_ended_otherwise(&self) -> bool {
        self.story().over() && self.stage() != Stage::Cancelled
    }

    /// A push: these of a phone's numbers are here now, and these deeds of the visit are new.
    pub(super) fn hears(&mut self, phone: Phone, numbers: &[u64], deeds: Vec<Deed>, now: i64) {
        let held = self.holders();
        self.arrived.entry(phone).or_default().extend(numbers);
        let mut all: Vec<(Deed, i64)> = Vec::new();
        self.heard.retain(|(deed, standing)| match standing {
            Standing::Waits(since) if deed.phone == phone => {
                all.push((deed.clone(), *since));
                false
            }
            _ => true,
        });
        let heard_anything = !deeds.is_empty() || all.iter().any(|(deed, _)| !self.lacks_before(deed));
        all.extend(deeds.into_iter().map(|deed| (deed, now)));
        all.sort_by_key(|(deed, _)| deed.seq);
        for (deed, since) in all {
            let lacks = self.lacks_before(&deed);
            if lacks && moves(deed.act) && self.revoked_now(deed.phone).is_none() {
                self.touch(16);
                self.heard.push((deed, Standing::Waits(since)));
                continue;
            }
            self.judge(deed, lacks, now);
        }
        if heard_anything {
            self.look_at_deadline(now, None);
        }
        self.hand_out_cards(&held);
    }

    /// Rule 16: something that this phone did before is not here yet.
    fn lacks_before(&self, deed: &Deed) -> bool {
        let here = self.arrived.get(&deed.phone);
        let given_up = self.given_up.get(&deed.phone).copied().unwrap_or(0);
        (given_up + 1..deed.seq).any(|seq| here.is_none_or(|here| !here.contains(&seq)))
    }

    /// Time alone: the wait for predecessors ends, the deadline is looked at.
    pub(super) fn sweeps(&mut self, now: i64) {
        let held = self.holders();
        let due = |standing: &Standing| matches!(standing, Standing::Waits(since) if now - since >= WAITS_FOR * MINUTE);
        let mut released: Vec<Deed> = Vec::new();
        self.heard.retain(|(deed, standing)| {
            if due(standing) {
                released.push(deed.clone());
            }
            !due(standing)
        });
        released.sort_by_key(|deed| deed.seq);
        for deed in &released {
            self.judge(deed.clone(), self.lacks_before(deed), now);
        }
        if let Some(last) = released.last() {
            self.given_up.insert(last.phone, last.seq - 1);
        }
        let lead = self.present_turn().map(|turn| turn.lead);
        let reported = self
            .reported
            .iter()
            .filter(|(phone, _)| Some(phone.who()) == lead && self.revoked_now(**phone).is_none())
            .max_by_key(|(_, (seen, _))| *seen)
            .and_then(|(_, (_, complete))| *complete);
        if now > DEADLINE * MINUTE && (!released.is_empty() || !self.story_is_settled()) {
            self.look_at_deadline(now, reported);
        }
        self.hand_out_cards(&held);
    }

    /// Nobody watches the deadline of a visit that is over or on site.
    fn story_is_settled(&self) -> bool {
        let stage = self.stage();
        let decided = self.breach.is_some_and(|breach| breach != Breach::Provisional);
        decided || (self.breach.is_none() && (stage >= Stage::Completed || self.story().arrived.is_some()))
    }

    fn revoked_now(&self, phone: Phone) -> Option<i64> {
        self.revoked.filter(|_| phone == Phone::Anna)
    }

    /// Rule 12.
    fn look_at_deadline(&mut self, now: i64, reported: Option<i64>) {
        let deadline = DEADLINE * MINUTE;
        let story = self.story();
        let there = story.first_on_site();
        let ended = match self.stage() {
            Stage::Cancelled => self.cancelled.map(|cancelled| cancelled.at),
            Stage::CannotComplete => story.ended,
            _ => None,
        };
        let retracted = self.breach.map(|_| Breach::Retracted);
        let breach = match (there, ended) {
            (None, Some(ended)) if ended <= deadline => retracted,
            (None, Some(_)) => Some(Breach::Confirmed),
            (Some(there), _) if there <= deadline => retracted,
            (Some(_), _) => Some(Breach::Confirmed),
            (None, None) if now <= deadline => retracted,
            (None, None) => {
                let silent = self.present.is_some() && reported.is_none_or(|at| at <= deadline);
                Some(if silent && self.breach != Some(Breach::Confirmed) {
                    Breach::Provisional
                } else {
                    Breach::Confirmed
                })
            }
        };
        self.breach = breach.or(self.breach);
        if self.breach.is_some() {
            self.touch(12);
        }
    }

    /// One deed that the server has heard, and need not wait with.
    fn judge(&mut self, deed: Deed, lacks: bool, now: i64) {
        if lacks {
            self.touch(16);
            self.over_gap.insert(deed.fact.clone());
        }
        if deed.clock_off {
            self.touch(6);
        }
        let standing = self.standing(&deed, lacks, now);
        match standing {
            Standing::Disputed(rule) | Standing::Exception(rule) | Standing::Quarantined(rule) => {
                self.touch(rule);
                self.raised.push((rule, Some(deed.fact.clone())));
            }
            _ => {}
        }
        // Rule 13: on arrival an unseen proposal lapses.
        let on_site =
            matches!(deed.act, Act::Arrive | Act::ClaimForeign | Act::Start | Act::Complete | Act::CompleteUnasked);
        if standing == Standing::Counts && on_site && self.is_present(&deed) {
            self.proposal = None;
        }
        self.heard.push((deed, standing));
    }

    fn standing(&mut self, deed: &Deed, lacks: bool, now: i64) -> Standing {
        let who = deed.phone.who();
        if self.revoked_now(deed.phone).is_some() {
            return Standing::Quarantined(9);
        }
        if !self.turn(deed.turn).is_some_and(|turn| turn.has(who)) {
            return Standing::Quarantined(14);
        }
        if deed.phone == Phone::Anna && self.reported.contains_key(&Phone::AnnaNew) {
            self.touch(10);
        }
        let present = self.is_present(deed);
        if !present {
            // Rule 14: judged by the rights at the time and epoch of the fact.
            self.touch(14);
        }
        match deed.act {
            Act::Labour => Standing::Counts,
            Act::Photo => {
                self.touch(8);
                Standing::Counts
            }
            Act::Newer => {
                self.touch(11);
                Standing::Counts
            }
            Act::Filter => {
                self.touch(7);
                let stock = self.filters.entry(who).or_default();
                *stock -= 1;
                if *stock < 0 {
                    self.raised.push((7, Some(deed.fact.clone())));
                }
                Standing::Counts
            }
            Act::Pump if self.pump.is_some() => Standing::Exception(7),
            Act::Pump => {
                self.touch(7);
                self.pump = Some(deed.fact.clone());
                Standing::Counts
            }
            Act::SeeWindow => self.see_window(deed, present),
            _ if present => self.of_the_present(deed, lacks, now),
            _ => self.of_a_former(deed, now),
        }
    }

    /// Rule 13.
    fn see_window(&mut self, deed: &Deed, present: bool) -> Standing {
        let is_lead = self.present_turn().is_some_and(|turn| turn.lead == deed.phone.who());
        let story = self.story();
        let seen = self.proposal.is_some_and(|(number, _)| number == deed.window);
        if !present || !is_lead || self.standing_cancellation().is_some() || !seen || story.on_site() || story.over() {
            return Standing::History;
        }
        self.adopt();
        Standing::Counts
    }

    fn of_the_present(&mut self, deed: &Deed, lacks: bool, now: i64) -> Standing {
        let is_lead = self.present_turn().is_some_and(|turn| turn.lead == deed.phone.who());
        let finishes = matches!(deed.act, Act::Complete | Act::CompleteUnasked | Act::CannotComplete | Act::Reject);
        if self.heard.iter().any(|(other, _)| other.phone.who() != deed.phone.who() && self.is_present(other)) {
            self.touch(5);
        }
        if finishes && !is_lead {
            return Standing::Exception(5);
        }
        let story = self.story();
        if story.over() && self.stage() != Stage::Cancelled {
            let before = story.ended.is_some_and(|ended| deed.at <= ended);
            return if finishes || !before { Standing::History } else { Standing::Counts };
        }
        if let Some(standing) = self.under_cancellation(deed) {
            return standing;
        }
        if deed.act == Act::Reject {
            self.touch(4);
            if story.on_site() {
                return Standing::Counts;
            }
            self.end_turn(now, Why::Rejected);
            self.adopt();
            return Standing::Counts;
        }
        if lacks && deed.act == Act::Pause && story.stage != Stage::InProgress {
            return Standing::History;
        }
        Standing::Counts
    }

    /// Rules 1, 2 and 17; `None` when the cancellation makes no difference.
    fn under_cancellation(&mut self, deed: &Deed) -> Option<Standing> {
        let cancelled = self.standing_cancellation()?;
        let knew = deed.knew > cancelled.order;
        let surely_before = deed.at + deed.unsure < cancelled.at;
        let surely_after = deed.at - deed.unsure > cancelled.at;
        let completes = matches!(deed.act, Act::Complete | Act::CompleteUnasked);
        let comes = matches!(deed.act, Act::Arrive | Act::ClaimForeign | Act::Start);
        if completes {
            self.touch(2);
            if cancelled.effect == Effect::StopWork && knew {
                return Some(Standing::Disputed(17));
            }
            if !knew && surely_before {
                self.set_effect(Effect::Void);
                return Some(Standing::Counts);
            }
            return Some(Standing::Disputed(2));
        }
        if cancelled.effect == Effect::StopWork {
            return None;
        }
        if comes && !knew && !surely_after {
            self.touch(17);
            self.set_effect(Effect::StopWork);
            return Some(Standing::Counts);
        }
        Some(Standing::History)
    }

    fn set_effect(&mut self, effect: Effect) {
        if let Some(cancelled) = &mut self.cancelled {
            cancelled.effect = effect;
        }
    }

    /// Rules 3 and 4: the visit was taken away, or given back, before this was heard.
    fn of_a_former(&mut self, deed: &Deed, now: i64) -> Standing {
        self.touch(if matches!(deed.act, Act::Accept | Act::Reject) { 4 } else { 3 });
        let Some(turn) = self.turn(deed.turn).cloned() else { return Standing::History };
        let Some((ended, why)) = turn.ended else { return Standing::History };
        let completes = matches!(deed.act, Act::Complete | Act::CompleteUnasked);
        let comes = matches!(deed.act, Act::Arrive | Act::ClaimForeign | Act::Start);
        let is_there = comes || (completes && turn.lead == deed.phone.who());
        let by_the_office = matches!(why, Why::Reassigned | Why::Unassigned);
        let had_started = is_there && by_the_office && deed.at - deed.unsure <= ended;
        let story = self.story();
        let somebody_is_there = story.on_site() || (story.over() && self.stage() != Stage::Cancelled);
        if had_started && !somebody_is_there {
            return self.keeps(deed, &turn, now);
        }
        if completes || deed.act == Act::Start || (comes && had_started) {
            Standing::Exception(3)
        } else {
            Standing::History
        }
    }

    /// Rule 3: who had started keeps the visit.
    fn keeps(&mut self, deed: &Deed, former: &Turn, now: i64) -> Standing {
        let before = (self.turns.clone(), self.present);
        self.end_turn(now, Why::Withdrawn);
        let continues = former.continues.iter().copied().chain([deed.turn]).collect();
        self.turns.push(Turn { continues, ended: None, ..former.clone() });
        self.present = Some(self.turns.len());
        match self.under_cancellation(deed) {
            None => Standing::Counts,
            // Done on a cancelled visit: nothing is given to anybody.
            Some(Standing::History) => {
                (self.turns, self.present) = before;
                Standing::History
            }
            Some(standing) => standing,
        }
    }

    /// Arrived within the window that the customer last confirmed (rule 13).
    pub(super) fn on_time(&self) -> Option<bool> {
        let arrived = self.story().arrived?;
        let (from, to) = self.confirmed;
        Some((from * MINUTE..to * MINUTE).contains(&arrived))
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
    pub(super) fn keeps_aside(&mut self, rule: u8) {
        self.touch(rule);
        self.raised.push((rule, None));
    }
}

/// Rule 5: what the lead says for everybody.
fn speaks_for_all(act: Act) -> bool {
    matches!(act, Act::Accept | Act::Reject | Act::Complete | Act::CompleteUnasked | Act::CannotComplete)
}

/// What needs what came before it (rule 16).
fn moves(act: Act) -> bool {
    !matches!(act, Act::Labour | Act::Filter | Act::Pump | Act::Photo | Act::SeeWindow | Act::Newer)
}
