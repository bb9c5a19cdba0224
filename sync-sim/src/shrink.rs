//! Making a failing day short: events are left out while it still fails in the same way.

use crate::{Scenario, Violation};

/// The shortest list of events found that still violates the same oracle. `fails` plays a day.
pub fn shrink(
    scenario: &Scenario,
    violation: &Violation,
    mut fails: impl FnMut(&Scenario) -> Option<Violation>,
) -> Scenario {
    let mut best = scenario.clone();
    let mut still = |candidate: &Scenario| fails(candidate).is_some_and(|found| found.oracle == violation.oracle);
    let mut piece = best.events.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < best.events.len() {
            let mut candidate = best.clone();
            candidate.events.drain(at..(at + piece).min(best.events.len()));
            if still(&candidate) {
                best = candidate;
                shorter = true;
            } else {
                at += piece;
            }
        }
        if piece == 1 && !shorter {
            break;
        }
        piece = if piece > 1 { piece.div_ceil(2) } else { 1 };
    }
    for change in [|s: &mut Scenario| s.nodes = 1, |s: &mut Scenario| s.technicians = s.technicians.max(2) - 1] {
        let mut candidate = best.clone();
        change(&mut candidate);
        if candidate != best && still(&candidate) {
            best = candidate;
        }
    }
    best
}
