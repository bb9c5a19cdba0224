//! What time alone decides.

use super::facts::Stated;
use crate::service::model::Device;
use sync_core::domain::Timestamp;
use sync_core::domain::rules::sequence::{GAP_HOLD_MS, SequenceLedger};

/// When the responsible phone last had nothing unsent: that of the device heard last, for an old one that lies in a
/// drawer would keep a breach provisional for ever.
pub(crate) fn phone_complete_at(devices: &[Device]) -> Option<Timestamp> {
    let active = devices.iter().filter(|device| device.revoked_at.is_none());
    active.max_by_key(|device| device.seen_at).and_then(|device| device.complete_at)
}

/// The highest sequence number among the facts that have waited long enough.
pub(crate) fn last_due(stated: &[Stated], now: Timestamp) -> Option<u64> {
    let due =
        stated.iter().filter(|stated| stated.held_since.is_some_and(|since| now.millis_since(since) >= GAP_HOLD_MS));
    due.map(|stated| stated.fact.seq).max()
}

/// Waits no longer for the numbers below `seq` that have not arrived; how many those are. What still arrives is judged as
/// ever: whether a fact is new is known by its id.
pub(crate) fn give_up_before(ledger: &mut SequenceLedger, seq: u64) -> u64 {
    let missing = ledger.missing();
    ledger.contiguous = ledger.contiguous.max(seq.saturating_sub(1));
    while let Some((first, last)) = ledger.runs.first().copied()
        && first <= ledger.contiguous.saturating_add(1)
    {
        ledger.contiguous = ledger.contiguous.max(last);
        ledger.runs.remove(0);
    }
    missing.saturating_sub(ledger.missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_that_is_given_up_is_counted_once_and_holds_nothing_up() {
        let mut ledger = SequenceLedger::default();
        for seq in [1, 2, 5, 6, 9] {
            ledger.observe(seq);
        }
        assert_eq!(ledger.missing(), 4, "3, 4, 7 and 8");
        assert_eq!(give_up_before(&mut ledger, 5), 2);
        assert!(ledger.has_all_before(7));
        assert!(!ledger.has_all_before(8));
        assert_eq!(give_up_before(&mut ledger, 5), 0);
        assert_eq!(give_up_before(&mut ledger, 9), 2);
        assert_eq!((ledger.contiguous, ledger.missing()), (9, 0));
    }
}
