//! Gap and duplicate detection per device (rules 9, 16, 18).

use crate::domain::FactKind;
use serde::{Deserialize, Serialize};

/// How long a fact that moves a visit's status waits for the device's missing predecessors before it is ruled on anyway
/// and flagged (rule 16).
pub const GAP_HOLD_MS: i64 = 2 * 60 * 1000;

/// Most separate runs of sequence numbers kept above the contiguous mark; more than that and the lowest gap is given up.
pub const RUNS_MAX: usize = 64;

/// True while a fact must wait for its device's missing predecessors (rule 16): it moves the status, and has been held for
/// less than [`GAP_HOLD_MS`]. Time, parts, photos and signatures never wait.
#[must_use]
pub fn must_hold(gap: bool, kind: &FactKind, held_for_ms: i64) -> bool {
    gap && kind.moves_status() && held_for_ms < GAP_HOLD_MS
}

/// Which of a device's sequence numbers have arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceLedger {
    /// Everything up to here has arrived (or was given up).
    pub contiguous: u64,
    /// Runs above the first gap, ascending, disjoint and not adjacent: `(first, last)`.
    pub runs: Vec<(u64, u64)>,
    /// The highest number the device has announced (rule 9: a lost phone leaves a known gap).
    pub announced: u64,
}

impl SequenceLedger {
    /// Notes that `seq` has arrived. True when it had not been seen before, nor given up.
    ///
    /// False alone proves no duplicate: whether a *fact* was seen before is known by its id (rule 18).
    pub fn observe(&mut self, seq: u64) -> bool {
        if seq == 0 || self.has(seq) {
            return false;
        }
        self.announced = self.announced.max(seq);
        // Runs that end before `seq`; the next one, if any, starts after it.
        let at = self.runs.partition_point(|&(_, last)| last < seq);
        let joins_left = at.checked_sub(1).filter(|&left| self.runs[left].1.checked_add(1) == Some(seq));
        let joins_right = self.runs.get(at).is_some_and(|&(first, _)| seq.checked_add(1) == Some(first));
        match (joins_left, joins_right) {
            (Some(left), true) => {
                self.runs[left].1 = self.runs[at].1;
                self.runs.remove(at);
            }
            (Some(left), false) => self.runs[left].1 = seq,
            (None, true) => self.runs[at].0 = seq,
            (None, false) => self.runs.insert(at, (seq, seq)),
        }
        self.absorb();
        if self.runs.len() > RUNS_MAX {
            // The lowest gap is the oldest one: what it lacks is the least likely still to come.
            self.contiguous = self.runs[0].1;
            self.runs.remove(0);
            self.absorb();
        }
        true
    }

    /// Notes the device's announced high-water mark.
    pub fn announce(&mut self, high_water: u64) {
        self.announced = self.announced.max(high_water);
    }

    /// True when `seq` has arrived, or was given up.
    #[must_use]
    pub fn has(&self, seq: u64) -> bool {
        seq <= self.contiguous || self.runs.iter().any(|&(first, last)| first <= seq && seq <= last)
    }

    /// True when every number below `seq` has arrived.
    #[must_use]
    pub fn has_all_before(&self, seq: u64) -> bool {
        seq <= self.contiguous.saturating_add(1)
    }

    /// How many announced numbers have not arrived.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let in_runs = self
            .runs
            .iter()
            .fold(0_u64, |sum, &(first, last)| sum.saturating_add(last.saturating_sub(first).saturating_add(1)));
        self.announced.saturating_sub(self.contiguous).saturating_sub(in_runs)
    }

    /// Lets the contiguous mark swallow the runs that it touches.
    fn absorb(&mut self) {
        while let Some(&(first, last)) = self.runs.first()
            && first <= self.contiguous.saturating_add(1)
        {
            self.contiguous = self.contiguous.max(last);
            self.runs.remove(0);
        }
    }
}
