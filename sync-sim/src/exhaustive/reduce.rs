//! Which words need not be played, because another one is the same world.
//!
//! **Commuting steps.** Two steps commute when, wherever both orders are possible, they leave the same server, phones and oracle,
//! but for clock times that no rule compares. Words that differ only in the order of neighbours which commute are one world; the
//! one that is played is the least of them (the lexicographic normal form of the trace): a step is not taken after one that it
//! commutes with, and everything between, if it sorts before it. Every word has such a form, and each beginning of a normal
//! word is normal, so that a search forward meets every world.
//!
//! Times: every step takes five minutes, and a world has some ten of them from eight o'clock on, so that no step crosses the end
//! of the window or the deadline by changing places; `Wait` does, and commutes with nothing. What is compared is when something
//! was done with when the office cancelled or took the visit away, and within one assignment what was done with each other. Where
//! the clocks are less sure than a step is long, a place makes a difference to that, and nothing commutes.
//!
//! **Endings.** A word that ends with a phone's connecting ends as the word without it, in the order in which that phone comes
//! first: it is played on, but has no ending of its own.
//!
//! **Mirrored scenes.** Where both technicians may do the same, and neither what they do nor the office's orders tell the lead from
//! the crew, a word in which Ben acts first is the mirror image of one in which Anna does.
//!
//! **Two scenes, one world.** A word that an earlier scene of the same setting has, has ended there.
//!
//! `compare` plays the same worlds without all this, and finds the same endings.

use super::scene::Scene;
use super::step::{Act, How, Order, Phone, Step, Who};

/// Whether the steps may change places in a scene.
pub(super) fn commute(scene: &Scene, a: Step, b: Step) -> bool {
    !scene.clocks_are_vague() && (one_way(scene, a, b) || one_way(scene, b, a))
}

fn one_way(scene: &Scene, a: Step, b: Step) -> bool {
    match (a, b) {
        // A phone that acts offline touches itself alone, and another's connection touches everything but it.
        (Step::Does(by, _), Step::Exchange(other, _)) => by != other,
        (Step::Does(by, act), Step::Does(other, also)) => {
            by != other && (is_timeless(act) || is_timeless(also) || !scene.compares(by, act, other, also))
        }
        (Step::Does(_, act), Step::Office(order)) => is_timeless(act) || !is_dated(order),
        // What is known already changes nothing, whoever says it when.
        (Step::Exchange(..), Step::Office(order)) => order == Order::RequestAgain,
        _ => false,
    }
}

/// Counts, or is quarantined, whenever it was done: what the rules look at is under which assignment, and in which order it
/// was heard.
fn is_timeless(act: Act) -> bool {
    match act {
        Act::Labour
        | Act::Filter
        | Act::Pump
        | Act::Photo
        | Act::SeeWindow
        | Act::Answer
        | Act::Note
        | Act::Newer
        | Act::ArriveElsewhere
        | Act::Poison => true,
        Act::Accept
        | Act::Reject
        | Act::Travel
        | Act::Arrive
        | Act::Start
        | Act::Pause
        | Act::Complete
        | Act::CompleteUnasked
        | Act::CannotComplete
        | Act::ClaimForeign => false,
    }
}

/// The rules compare the time of the order with that of what a technician did.
fn is_dated(order: Order) -> bool {
    match order {
        Order::AssignAnna
        | Order::AssignBen
        | Order::BenLeads
        | Order::Unassign
        | Order::Cancel
        | Order::CalledOff
        | Order::CalledOffAgain => true,
        Order::RequestAgain
        | Order::Reinstate
        | Order::EndStopWork
        | Order::MoveConfirmed
        | Order::Move
        | Order::Confirmed
        | Order::Revoke
        | Order::Settle => false,
    }
}

impl Scene {
    fn clocks_are_vague(&self) -> bool {
        i64::from(self.uncertainty_ms) >= super::stage::STEP
    }

    /// Whether the fold compares the times of the two: they are of one assignment, and not both arrivals (the first of which
    /// counts, whosever it is).
    fn compares(&self, by: Phone, act: Act, other: Phone, also: Act) -> bool {
        let one_assignment = by.who() == other.who() || self.crew || self.has(Step::Office(Order::BenLeads));
        let both_arrive = act == Act::Arrive && also == Act::Arrive && by.who() != other.who();
        one_assignment && !both_arrive
    }

    /// The morning, and what the world does by itself: words of scenes that have these in common are the same worlds.
    pub(super) fn setting(&self) -> String {
        let facts = (
            (self.crew, self.second, self.mirrored, &self.opening),
            (self.ahead_ms, self.uncertainty_ms, self.phones()),
            (self.has(Step::Wait), self.has(Step::Office(Order::BenLeads))),
            self.has(Step::Does(Phone::Ben, Act::ClaimForeign)),
        );
        format!("{facts:?}")
    }

    /// Every step of the word is one of this scene's, and they are not too many.
    fn plays(&self, word: &[Step]) -> bool {
        let actions = word.iter().filter(|step| step.is_action()).count();
        actions <= self.actions && word.len() - actions <= self.exchanges && word.iter().all(|step| self.has(*step))
    }
}

/// Whether the word goes on with this step: its other forms are played elsewhere.
pub(super) fn goes_on(scene: &Scene, word: &[Step], next: Step) -> bool {
    is_normal(scene, word, next) && !is_mirror_image(scene, word, next)
}

fn is_normal(scene: &Scene, word: &[Step], next: Step) -> bool {
    for earlier in word.iter().rev() {
        if !commute(scene, *earlier, next) {
            return true;
        }
        if next < *earlier {
            return false;
        }
    }
    true
}

fn is_mirror_image(scene: &Scene, word: &[Step], next: Step) -> bool {
    let by = |step: &Step| match step {
        Step::Does(phone, _) | Step::Exchange(phone, _) => Some(phone.who()),
        _ => None,
    };
    scene.mirrored && by(&next) == Some(Who::Ben) && !word.iter().any(|step| by(step).is_some())
}

/// Whether the word has an ending that no other has.
pub(super) fn ends(scenes: &[Scene], index: usize, word: &[Step], knew_last: bool) -> bool {
    let Some(scene) = scenes.get(index) else { return false };
    let connects = matches!(word.last(), Some(Step::Exchange(_, How::Whole)));
    if connects && knew_last && !scene.clocks_are_vague() {
        return false;
    }
    let setting = scene.setting();
    !scenes.iter().take(index).any(|earlier| earlier.plays(word) && earlier.setting() == setting)
}
