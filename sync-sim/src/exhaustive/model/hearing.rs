//! What the server hears of the phones, in which order, and what time alone does: the wait for predecessors and the deadline.

use super::super::step::{Act, Phone};
use super::{Breach, Clause, DEADLINE, Deed, MINUTE, Model, Stage, Standing, WAITS_FOR};

impl Model {
    /// A push: these of a phone's numbers are here now, and these deeds of the visit are new.
    pub(in crate::exhaustive) fn hears(&mut self, phone: Phone, numbers: &[u64], deeds: Vec<Deed>, now: i64) {
        let held = self.holders();
        self.arrived.entry(phone).or_default().extend(numbers);
        let mut all: Vec<(Deed, Option<i64>)> = Vec::new();
        self.heard.retain(|(deed, standing)| match standing {
            Standing::Waits(since) if deed.phone == phone => {
                all.push((deed.clone(), Some(*since)));
                false
            }
            _ => true,
        });
        let heard_anything = !deeds.is_empty() || all.iter().any(|(deed, _)| !self.lacks_before(deed));
        all.extend(deeds.into_iter().map(|deed| (deed, None)));
        all.sort_by_key(|(deed, _)| deed.seq);
        for (deed, waits_since) in all {
            let lacks = self.lacks_before(&deed);
            if lacks && moves(deed.act) && self.revoked_now(deed.phone).is_none() {
                self.heard.push((deed, Standing::Waits(waits_since.unwrap_or(now))));
                continue;
            }
            if !lacks && waits_since.is_some() {
                self.decide(Clause::HeldUntilComplete);
            }
            self.judge(deed, lacks, now);
        }
        if heard_anything {
            self.look_at_deadline(now, None);
        }
        self.hand_out_cards(&held);
    }

    /// Rule 16: something that this phone did before is not here yet.
    pub(super) fn lacks_before(&self, deed: &Deed) -> bool {
        let here = self.arrived.get(&deed.phone);
        let given_up = self.given_up.get(&deed.phone).copied().unwrap_or(0);
        (given_up + 1..deed.seq).any(|seq| here.is_none_or(|here| !here.contains(&seq)))
    }

    /// Time alone: the wait for predecessors ends, the deadline is looked at.
    pub(in crate::exhaustive) fn sweeps(&mut self, now: i64) {
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
    pub(super) fn story_is_settled(&self) -> bool {
        let stage = self.stage();
        let decided = self.breach.is_some_and(|breach| breach != Breach::Provisional);
        decided || (self.breach.is_none() && (stage >= Stage::Completed || self.story().arrived.is_some()))
    }

    pub(super) fn revoked_now(&self, phone: Phone) -> Option<i64> {
        self.revoked.filter(|_| phone == Phone::Anna)
    }

    /// Rule 12.
    pub(super) fn look_at_deadline(&mut self, now: i64, reported: Option<i64>) {
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
        if let Some(breach) = self.breach {
            self.decide(match breach {
                Breach::Provisional => Clause::BreachProvisional,
                Breach::Retracted => Clause::BreachRetracted,
                Breach::Confirmed => Clause::BreachConfirmed,
            });
        }
    }
}

/// What needs what came before it (rule 16).
pub(super) fn moves(act: Act) -> bool {
    !matches!(act, Act::Labour | Act::Filter | Act::Pump | Act::Photo | Act::SeeWindow | Act::Newer)
}
