//! Gap and duplicate detection per device (rules 9, 16, 18).

use serde::{Deserialize, Serialize};

/// How long a fact that moves a visit's status waits for the device's missing predecessors before it is ruled on anyway
/// and flagged (rule 16).
pub const GAP_HOLD_MS: i64 = 2 * 60 * 1000;

/// Most separate runs of sequence numbers kept above the contiguous mark; more than that and the lowest gap is given up.
pub const RUNS_MAX: usize = 64;

/// Which of a device's sequence numbers have arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceLedger {
    /// Everything up to here has arrived (or was given up).
    pub contiguous: u64,
    /// Runs above the first gap, ascending, disjoint: `(first, last)`.
    pub runs: Vec<(u64, u64)>,
    /// The highest number the device has announced (rule 9: a lost phone leaves a known gap).
    pub announced: u64,
}

impl SequenceLedger {
    /// Notes that `seq` has arrived. True when it had not been seen before.
    pub fn observe(&mut self, seq: u64) -> bool {
        let _ = seq;
        unimplemented!()
    }

    /// Notes the device's announced high-water mark.
    pub fn announce(&mut self, high_water: u64) {
        self.announced = self.announced.max(high_water);
    }

    /// True when every number below `seq` has arrived.
    #[must_use]
    pub fn has_all_before(&self, seq: u64) -> bool {
        let _ = seq;
        unimplemented!()
    }

    /// How many announced numbers have not arrived.
    #[must_use]
    pub fn missing(&self) -> u64 {
        unimplemented!()
    }
}
