//! What the office's orders do to the plan, and who loses the visit by them.

use super::super::step::{Order, Who};
use super::{Cancelled, Clause, Effect, Gone, MOVED, Model, Stage, Standing, Turn, Why};
use std::collections::BTreeSet;

impl Model {
    /// Who has a visit and when it is can be changed until somebody is there, it has ended, or it is cancelled.
    pub(super) fn movable(&self) -> bool {
        let story = self.story();
        !story.on_site() && !story.over() && self.standing_cancellation().is_none()
    }

    pub(super) fn end_turn(&mut self, at: i64, why: Why) {
        if let Some(turn) = self.present.take().and_then(|number| self.turns.get_mut(number - 1)) {
            turn.ended = Some((at, why));
        }
    }

    /// Rule 13: what was proposed comes into force.
    pub(super) fn adopt(&mut self) {
        if let Some((_, confirmed)) = self.proposal.take() {
            self.planned = MOVED;
            if confirmed {
                self.confirmed = MOVED;
            }
        }
    }

    pub(super) fn assign(&mut self, now: i64, lead: Who, crew: Vec<Who>) -> bool {
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
    pub(in crate::exhaustive) fn order(&mut self, order: Order, now: i64) -> bool {
        let held = self.holders();
        let done = self.carry_out(order, now);
        self.hand_out_cards(&held);
        done
    }

    pub(super) fn holders(&self) -> Vec<Who> {
        Who::ALL.into_iter().filter(|who| self.holds(*who)).collect()
    }

    /// Who has lost the visit just now gets a card that says why.
    pub(super) fn hand_out_cards(&mut self, held: &[Who]) {
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

    pub(super) fn carry_out(&mut self, order: Order, now: i64) -> bool {
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
                    self.decide(Clause::EventAgain);
                }
                false
            }
            Order::RequestAgain => {
                self.decide(Clause::RequestedAgain);
                false
            }
            Order::Reinstate => {
                let possible = self.standing_cancellation().is_some() && !self.story_ended_otherwise();
                if possible && let Some(cancelled) = &mut self.cancelled {
                    cancelled.effect = Effect::Void;
                    if self.heard.iter().any(|(_, standing)| matches!(standing, Standing::Disputed(_))) {
                        self.decide(Clause::CompletedAndReinstated);
                    }
                }
                possible
            }
            Order::EndStopWork => {
                let possible = self.stop_work();
                if possible && let Some(cancelled) = &mut self.cancelled {
                    cancelled.effect = Effect::Cancelled;
                    self.decide(Clause::StoppedWorkClosed);
                }
                possible
            }
            Order::MoveConfirmed | Order::Move => {
                self.movable() && {
                    self.windows += 1;
                    self.proposal = Some((self.windows, order == Order::MoveConfirmed));
                    if self.story().stage == Stage::EnRoute {
                        self.decide(Clause::WindowProposed);
                    } else {
                        self.decide(Clause::WindowMoved);
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

    pub(super) fn cancel(&mut self, now: i64) -> bool {
        if self.story().over() || self.standing_cancellation().is_some() {
            return false;
        }
        // Rules 1 and 17.
        let effect = if self.story().on_site() { Effect::StopWork } else { Effect::Cancelled };
        self.decide(if effect == Effect::StopWork { Clause::AskedToStop } else { Clause::CancelledAtOnce });
        self.cancelled = Some(Cancelled { at: now, order: self.orders, effect });
        true
    }

    pub(super) fn story_ended_otherwise(&self) -> bool {
        self.story().over() && self.stage() != Stage::Cancelled
    }
}
