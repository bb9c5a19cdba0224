//! How a deed is ruled.

use super::super::step::{Act, Phone};
use super::hearing::moves;
use super::{Clause, Deed, Effect, Model, Stage, Standing, Turn, Why};

impl Model {
    /// One deed that the server has heard, and need not wait with.
    pub(super) fn judge(&mut self, deed: Deed, lacks: bool, now: i64) {
        if lacks {
            self.decide(if moves(deed.act) { Clause::GivenUp } else { Clause::NeedsNothing });
            self.over_gap.insert(deed.fact.clone());
        }
        if deed.clock_off {
            self.decide(Clause::ClockFlagged);
        }
        let later_by_clock =
            |(other, _): &(Deed, Standing)| other.phone == deed.phone && other.seq < deed.seq && other.at > deed.at;
        if self.heard.iter().any(later_by_clock) {
            self.decide(Clause::NumbersBeatClocks);
        }
        let standing = self.standing(&deed, lacks, now);
        match standing {
            Standing::Disputed(rule) | Standing::Exception(rule) | Standing::Quarantined(rule) => {
                self.raised.push((rule, Some(deed.fact.clone())));
            }
            Standing::Counts if deed.phone == Phone::AnnaNew && self.revoked.is_some() => {
                self.decide(Clause::NewPhoneGoesOn);
            }
            _ => {}
        }
        // Rule 13: on arrival an unseen proposal lapses.
        let on_site =
            matches!(deed.act, Act::Arrive | Act::ClaimForeign | Act::Start | Act::Complete | Act::CompleteUnasked);
        let lapses = standing == Standing::Counts && on_site && self.is_present(&deed);
        if lapses && self.proposal.take().is_some() {
            self.decide(Clause::WindowLapsed);
        }
        self.heard.push((deed, standing));
    }

    pub(super) fn standing(&mut self, deed: &Deed, lacks: bool, now: i64) -> Standing {
        let who = deed.phone.who();
        if self.revoked_now(deed.phone).is_some() {
            self.decide(Clause::LostPhone);
            return Standing::Quarantined(9);
        }
        if !self.turn(deed.turn).is_some_and(|turn| turn.has(who)) {
            self.decide(Clause::ForeignAssignment);
            return Standing::Quarantined(14);
        }
        if deed.phone == Phone::Anna && self.reported.contains_key(&Phone::AnnaNew) {
            self.decide(Clause::OldPhoneCounts);
        }
        let present = self.is_present(deed);
        if !present && matches!(deed.act, Act::Labour | Act::Photo | Act::Filter | Act::Pump) {
            // Rule 14: judged by the rights at the time and epoch of the fact.
            self.decide(Clause::FormerCounts);
        }
        match deed.act {
            Act::Labour => Standing::Counts,
            Act::Photo => {
                self.decide(Clause::PhotoCounts);
                Standing::Counts
            }
            Act::Newer => {
                self.decide(Clause::NewerKept);
                Standing::Counts
            }
            Act::Filter => {
                let stock = self.filters.entry(who).or_default();
                *stock -= 1;
                if *stock < 0 {
                    self.raised.push((7, Some(deed.fact.clone())));
                    self.decide(Clause::StockBelowZero);
                } else {
                    self.decide(Clause::PartBooked);
                }
                Standing::Counts
            }
            Act::Pump if self.pump.is_some() => {
                self.decide(Clause::SerialAgain);
                Standing::Exception(7)
            }
            Act::Pump => {
                self.decide(Clause::PartBooked);
                self.pump = Some(deed.fact.clone());
                Standing::Counts
            }
            Act::SeeWindow => self.see_window(deed, present),
            _ if present => self.of_the_present(deed, lacks, now),
            _ => self.of_a_former(deed, now),
        }
    }

    /// Rule 13.
    pub(super) fn see_window(&mut self, deed: &Deed, present: bool) -> Standing {
        let is_lead = self.present_turn().is_some_and(|turn| turn.lead == deed.phone.who());
        let story = self.story();
        let seen = self.proposal.is_some_and(|(number, _)| number == deed.window);
        if !present || !is_lead || self.standing_cancellation().is_some() || !seen || story.on_site() || story.over() {
            self.decide(Clause::WindowSeenTooLate);
            return Standing::History;
        }
        self.decide(Clause::WindowSeen);
        self.adopt();
        Standing::Counts
    }

    pub(super) fn of_the_present(&mut self, deed: &Deed, lacks: bool, now: i64) -> Standing {
        let is_lead = self.present_turn().is_some_and(|turn| turn.lead == deed.phone.who());
        let finishes = matches!(deed.act, Act::Complete | Act::CompleteUnasked | Act::CannotComplete | Act::Reject);
        let of_a_colleague = |(other, standing): &(Deed, Standing)| {
            other.phone.who() != deed.phone.who() && *standing == Standing::Counts && self.is_present(other)
        };
        let beside_a_colleague = self.heard.iter().any(of_a_colleague);
        if finishes && !is_lead {
            self.decide(Clause::NotTheLead);
            return Standing::Exception(5);
        }
        let story = self.story();
        if story.over() && self.stage() != Stage::Cancelled {
            let before = story.ended.is_some_and(|ended| deed.at <= ended);
            if finishes || !before {
                if beside_a_colleague {
                    self.decide(Clause::AfterTheEnd);
                }
                return Standing::History;
            }
            return Standing::Counts;
        }
        if beside_a_colleague {
            self.decide(Clause::BothCount);
        }
        if let Some(standing) = self.under_cancellation(deed) {
            return standing;
        }
        if deed.act == Act::Reject {
            if story.on_site() {
                self.decide(Clause::RejectedOnSite);
                return Standing::Counts;
            }
            self.decide(Clause::RejectedInTime);
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
    pub(super) fn under_cancellation(&mut self, deed: &Deed) -> Option<Standing> {
        let cancelled = self.standing_cancellation()?;
        let knew = deed.knew > cancelled.order;
        let surely_before = deed.at + deed.unsure < cancelled.at;
        let surely_after = deed.at - deed.unsure > cancelled.at;
        let completes = matches!(deed.act, Act::Complete | Act::CompleteUnasked);
        let comes = matches!(deed.act, Act::Arrive | Act::ClaimForeign | Act::Start);
        if completes {
            if cancelled.effect == Effect::StopWork && knew {
                self.decide(Clause::CompletedThoughAsked);
                return Some(Standing::Disputed(17));
            }
            if !knew && surely_before {
                self.decide(Clause::CompletedBefore);
                self.set_effect(Effect::Void);
                return Some(Standing::Counts);
            }
            self.decide(if knew {
                Clause::CompletedKnowing
            } else if surely_after {
                Clause::CompletedAfter
            } else {
                Clause::CompletedUnclear
            });
            return Some(Standing::Disputed(2));
        }
        if cancelled.effect == Effect::StopWork {
            if deed.act == Act::CannotComplete {
                self.decide(Clause::EndedAsAsked);
            }
            return None;
        }
        if comes && !knew && !surely_after {
            self.decide(if surely_before { Clause::ArrivedBefore } else { Clause::PresenceWins });
            self.set_effect(Effect::StopWork);
            return Some(Standing::Counts);
        }
        self.decide(Clause::DoneOnACancelledVisit);
        Some(Standing::History)
    }

    pub(super) fn set_effect(&mut self, effect: Effect) {
        if let Some(cancelled) = &mut self.cancelled {
            cancelled.effect = effect;
        }
    }

    /// Rules 3 and 4: the visit was taken away, or given back, before this was heard.
    pub(super) fn of_a_former(&mut self, deed: &Deed, now: i64) -> Standing {
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
            self.decide(if had_started { Clause::OtherIsThere } else { Clause::StartedAfter });
            return Standing::Exception(3);
        }
        let answers = matches!(deed.act, Act::Accept | Act::Reject);
        self.decide(if answers { Clause::AnswerTooLate } else { Clause::NotStarted });
        Standing::History
    }

    /// Rule 3: who had started keeps the visit.
    pub(super) fn keeps(&mut self, deed: &Deed, former: &Turn, now: i64) -> Standing {
        let before = (self.turns.clone(), self.present);
        self.end_turn(now, Why::Withdrawn);
        let continues = former.continues.iter().copied().chain([deed.turn]).collect();
        self.turns.push(Turn { continues, ended: None, ..former.clone() });
        self.present = Some(self.turns.len());
        match self.under_cancellation(deed) {
            None => {
                self.decide(Clause::StartedBefore);
                Standing::Counts
            }
            // Done on a cancelled visit: nothing is given to anybody.
            Some(Standing::History) => {
                (self.turns, self.present) = before;
                Standing::History
            }
            Some(standing) => {
                self.decide(Clause::StartedBefore);
                standing
            }
        }
    }
}
