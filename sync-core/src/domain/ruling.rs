//! Rulings: the server's final word on a fact, with a machine-readable reason.

use super::Timestamp;
use serde::{Deserialize, Serialize};

/// The server's final word on one fact. Written once, by the server only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// What it means for the visit.
    pub verdict: Verdict,
    /// Why.
    pub reason: RulingReason,
    /// `recordedAt`: the server's time (rule 6).
    pub recorded_at: Timestamp,
    /// The plan revision that the fact's causal history contained: what the technician *knew* when acting.
    pub knew_revision: u64,
    /// The device's clock was off by more than two minutes (rule 6).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clock_flagged: bool,
    /// The device's facts before this one have not all arrived (rule 16).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap_flagged: bool,
}

/// What a ruling means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It is recorded in the history and changes nothing.
    Stale,
    /// It is recorded, and a person in the office must decide.
    Exception,
}

/// Why a fact got its verdict. Each names the rule of `ARCHITECTURE.md`'s table that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RulingReason {
    /// Nothing stood against it.
    InOrder,
    /// Completed before the cancellation by corrected time: the completion stands (rule 2).
    CompletedBeforeCancellation,
    /// Completed after the cancellation: billing hold (rule 2).
    CompletedAfterCancellation,
    /// Completed so close to the cancellation that the clocks cannot tell: billing hold (rule 2).
    CompletionTimeUncertain,
    /// Done on a visit that was already cancelled; recorded (rules 1, 2).
    AfterCancellation,
    /// On site before the cancellation: it becomes a stop-work request (rule 17).
    OnSiteBeforeCancellation,
    /// Completed in spite of a stop-work request (rule 17): billing hold.
    CompletedDespiteStopWork,
    /// The former technician had already started and keeps the visit (rule 3).
    KeepsVisit,
    /// Stated under an epoch that is no longer current (rules 3, 4).
    FormerEpoch,
    /// The former technician did work after losing the visit; the office must decide (rule 3).
    FormerAssigneeWorked,
    /// Rejected after arrival: becomes cannot-complete (rule 4).
    RejectedAfterArrival,
    /// Only the lead completes (rule 5).
    NotLead,
    /// The serial number was used before (rule 7).
    SerialUsedTwice,
    /// More parts used than were in stock (rule 7); the use is accepted, the discrepancy raised.
    StockNegative,
    /// The sender had no right to this visit at that epoch: quarantined (rule 14).
    NoRightAtEpoch,
    /// The device was revoked before the fact arrived: quarantined (rule 9).
    DeviceRevoked,
    /// The visit had already ended.
    AlreadyEnded,
    /// Not possible from the visit's status then; recorded.
    OutOfOrder,
    /// The device had used this sequence number for another fact (rule 18).
    SequenceReused,
    /// A kind that this release does not know; kept.
    UnknownKind,
    /// A reason of a newer release.
    #[serde(other)]
    Unknown,
}

/// The conflict rules by number, as in the owner's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rule(pub u8);

impl RulingReason {
    /// The stable code, as stored and sent.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InOrder => "IN_ORDER",
            Self::CompletedBeforeCancellation => "COMPLETED_BEFORE_CANCELLATION",
            Self::CompletedAfterCancellation => "COMPLETED_AFTER_CANCELLATION",
            Self::CompletionTimeUncertain => "COMPLETION_TIME_UNCERTAIN",
            Self::AfterCancellation => "AFTER_CANCELLATION",
            Self::OnSiteBeforeCancellation => "ON_SITE_BEFORE_CANCELLATION",
            Self::CompletedDespiteStopWork => "COMPLETED_DESPITE_STOP_WORK",
            Self::KeepsVisit => "KEEPS_VISIT",
            Self::FormerEpoch => "FORMER_EPOCH",
            Self::FormerAssigneeWorked => "FORMER_ASSIGNEE_WORKED",
            Self::RejectedAfterArrival => "REJECTED_AFTER_ARRIVAL",
            Self::NotLead => "NOT_LEAD",
            Self::SerialUsedTwice => "SERIAL_USED_TWICE",
            Self::StockNegative => "STOCK_NEGATIVE",
            Self::NoRightAtEpoch => "NO_RIGHT_AT_EPOCH",
            Self::DeviceRevoked => "DEVICE_REVOKED",
            Self::AlreadyEnded => "ALREADY_ENDED",
            Self::OutOfOrder => "OUT_OF_ORDER",
            Self::SequenceReused => "SEQUENCE_REUSED",
            Self::UnknownKind => "UNKNOWN_KIND",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The conflict rule behind the reason; `None` where no conflict was decided.
    #[must_use]
    pub fn rule(self) -> Option<Rule> {
        let number = match self {
            Self::InOrder | Self::AlreadyEnded | Self::OutOfOrder | Self::Unknown => return None,
            Self::CompletedBeforeCancellation | Self::CompletedAfterCancellation | Self::CompletionTimeUncertain => 2,
            Self::AfterCancellation => 1,
            Self::OnSiteBeforeCancellation | Self::CompletedDespiteStopWork => 17,
            Self::KeepsVisit | Self::FormerAssigneeWorked => 3,
            Self::FormerEpoch | Self::RejectedAfterArrival => 4,
            Self::NotLead => 5,
            Self::SerialUsedTwice | Self::StockNegative => 7,
            Self::NoRightAtEpoch => 14,
            Self::DeviceRevoked => 9,
            Self::SequenceReused => 18,
            Self::UnknownKind => 11,
        };
        Some(Rule(number))
    }

    /// True for facts that are recorded, and count nowhere, not even in a ledger: their sender could not be trusted with
    /// them (rules 9, 14, 18).
    #[must_use]
    pub fn is_quarantine(self) -> bool {
        matches!(self, Self::NoRightAtEpoch | Self::DeviceRevoked | Self::SequenceReused)
    }

    /// True for a completion that runs into a cancellation: it holds the billing until a person has decided (rules 2, 17).
    #[must_use]
    pub fn is_disputed_completion(self) -> bool {
        matches!(
            self,
            Self::CompletedAfterCancellation | Self::CompletionTimeUncertain | Self::CompletedDespiteStopWork
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_is_stored_and_sent() {
        for reason in [
            RulingReason::InOrder,
            RulingReason::CompletedBeforeCancellation,
            RulingReason::CompletedAfterCancellation,
            RulingReason::CompletionTimeUncertain,
            RulingReason::AfterCancellation,
            RulingReason::OnSiteBeforeCancellation,
            RulingReason::CompletedDespiteStopWork,
            RulingReason::KeepsVisit,
            RulingReason::FormerEpoch,
            RulingReason::FormerAssigneeWorked,
            RulingReason::RejectedAfterArrival,
            RulingReason::NotLead,
            RulingReason::SerialUsedTwice,
            RulingReason::StockNegative,
            RulingReason::NoRightAtEpoch,
            RulingReason::DeviceRevoked,
            RulingReason::AlreadyEnded,
            RulingReason::OutOfOrder,
            RulingReason::SequenceReused,
            RulingReason::UnknownKind,
            RulingReason::Unknown,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
    }
}
