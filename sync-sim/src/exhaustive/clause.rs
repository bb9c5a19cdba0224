//! What the conflict rules of the design decide, clause by clause. A world in which a clause decided is counted for its rule, and
//! the shortest such worlds are the rows of the table for dispatchers.

macro_rules! clauses {
    ($($name:ident ($rule:literal) $said:literal,)+) => {
        /// One thing that a rule decides.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Clause {
            $(#[doc = $said] $name,)+
        }

        impl Clause {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The rule that it belongs to.
            pub(super) fn rule(self) -> u8 {
                match self {
                    $(Self::$name => $rule,)+
                }
            }

            /// In a dispatcher's words.
            pub(super) fn said(self) -> &'static str {
                match self {
                    $(Self::$name => $said,)+
                }
            }
        }
    };
}

clauses! {
    CancelledAtOnce (1) "Nobody is there: it is cancelled at once.",
    DoneOnACancelledVisit (1) "What is done on a cancelled visit, short of completing it, is history.",
    CompletedBefore (2) "Completed before the cancellation, not knowing of it: the completion stands.",
    CompletedAfter (2) "Completed after it: the office decides, and the billing waits.",
    CompletedUnclear (2) "The clocks cannot tell which was first: the office decides.",
    CompletedKnowing (2) "Completed by somebody who knew of it: the office decides.",
    CompletedAndReinstated (2) "The office reinstates the visit: the completion stands now.",
    StartedBefore (3) "Was there before the visit was taken away: keeps it.",
    OtherIsThere (3) "Was there before, but the other has come meanwhile: the office decides.",
    StartedAfter (3) "Started or completed after the visit was taken away: the office decides.",
    NotStarted (3) "Came after the visit was taken away, or only set out before: history.",
    AnswerTooLate (4) "An answer to an assignment that is over is history.",
    RejectedInTime (4) "Rejected in time: the visit is open again.",
    RejectedOnSite (4) "Rejected on site: could not be completed.",
    BothCount (5) "Both are on the visit: what both did counts.",
    NotTheLead (5) "Only the lead ends the visit: the office decides about the other's word.",
    AfterTheEnd (5) "What a colleague did after the end is history.",
    NotesJoined (5) "Both notes are kept.",
    TwoAnswers (5) "Two answers to one question: both are shown.",
    ClockFlagged (6) "A clock more than two minutes off: corrected, flagged, and it counts.",
    NumbersBeatClocks (6) "The clock went back: the order in which the phone counted its actions is what counts.",
    PresenceWins (6) "The clocks cannot tell: who is there, is there, and is asked to stop.",
    PartBooked (7) "Booked once.",
    StockBelowZero (7) "More used than the truck had: booked, and a discrepancy.",
    SerialAgain (7) "One serial number used twice: the office decides.",
    PhotoCounts (8) "A photo counts, whatever becomes of the visit.",
    LostPhone (9) "What a lost phone sends after it was revoked is quarantined.",
    NewPhoneGoesOn (9) "The new phone goes on.",
    OldPhoneCounts (10) "What is still on the old phone counts.",
    NewerKept (11) "Kept, and in nobody's way.",
    BreachProvisional (12) "Past the deadline, the phone silent: a provisional breach.",
    BreachRetracted (12) "An arrival in time that was heard late retracts it.",
    BreachConfirmed (12) "Late indeed: the breach is confirmed.",
    WindowMoved (13) "Nobody is on the way: the window is moved at once.",
    WindowProposed (13) "Somebody is on the way: the new window is a proposal.",
    WindowSeen (13) "The technician has seen it: it is in force.",
    WindowLapsed (13) "Arrived without having seen it: the proposal lapses.",
    WindowSeenTooLate (13) "Seen when it was no proposal any more: history.",
    JudgedByTheConfirmed (13) "On time is what the customer last confirmed.",
    FormerCounts (14) "Labour, parts and photos of who had the visit then count.",
    ForeignAssignment (14) "Work under an assignment that is somebody else's is quarantined.",
    NeverHad (14) "Work of somebody who never had the visit is quarantined outside of it.",
    Damaged (15) "The damaged entry is parked with its bytes; the rest goes on.",
    HeldUntilComplete (16) "It waited for what was missing, which came in time.",
    GivenUp (16) "What was missing did not come for two minutes: it counts, flagged.",
    NeedsNothing (16) "It needs nothing before it: counts at once, flagged.",
    AskedToStop (17) "Somebody is there: asked to stop.",
    ArrivedBefore (17) "Somebody was there before the cancellation, which was heard later: asked to stop.",
    EndedAsAsked (17) "Ended as asked: could not be completed, the labour is recorded.",
    StoppedWorkClosed (17) "The office closes the stopped work: cancelled.",
    CompletedThoughAsked (17) "Completed although asked to stop: the office decides, and the billing waits.",
    EventAgain (18) "The same event again has no effect.",
    RequestedAgain (18) "The same order again is the same visit.",
    SentAgain (18) "Sent again after a lost answer: it counts once.",
}
