//! What can happen in a small world, and how a dispatcher would say it.

use std::fmt;
use sync_core::domain::fact::FactKind;
use sync_core::domain::{PartNumber, SerialNumber};

/// A phone. Anna has two: the one that she starts with, and a new install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phone {
    Anna,
    AnnaNew,
    Ben,
}

impl Phone {
    pub(super) const ALL: [Self; 3] = [Self::Anna, Self::AnnaNew, Self::Ben];

    pub(super) fn who(self) -> Who {
        match self {
            Self::Anna | Self::AnnaNew => Who::Anna,
            Self::Ben => Who::Ben,
        }
    }
}

/// A technician.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Who {
    Anna,
    Ben,
}

impl Who {
    pub(super) const ALL: [Self; 2] = [Self::Anna, Self::Ben];

    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Anna => "ANNA",
            Self::Ben => "BEN",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anna => "Anna",
            Self::Ben => "Ben",
        })
    }
}

/// What a technician does on a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Act {
    Accept,
    Reject,
    Travel,
    Arrive,
    Start,
    Pause,
    Complete,
    /// By an app that does not ask whether it makes sense.
    CompleteUnasked,
    CannotComplete,
    Labour,
    /// One filter; the truck has one.
    Filter,
    /// The pump with the serial number 7.
    Pump,
    Photo,
    /// The proposed window was seen.
    SeeWindow,
    Answer,
    Note,
    /// A kind of fact that only a newer app knows.
    Newer,
    /// An arrival under an assignment that is somebody else's, as a manipulated app would claim it.
    ClaimForeign,
    /// An arrival at the other visit of the day.
    ArriveElsewhere,
    /// Bytes that are no change at all, into the outbox.
    Poison,
}

impl Act {
    /// The fact, where it is one.
    pub(super) fn fact(self, window_revision: u32) -> Option<FactKind> {
        Some(match self {
            Self::Accept => FactKind::Accepted { eta: None },
            Self::Reject => FactKind::Rejected { reason: "no time".to_owned() },
            Self::Travel => FactKind::TravelStarted { eta: None },
            Self::Arrive | Self::ClaimForeign | Self::ArriveElsewhere => FactKind::Arrived,
            Self::Start => FactKind::WorkStarted,
            Self::Pause => FactKind::Paused { reason: None },
            Self::Complete | Self::CompleteUnasked => FactKind::Completed,
            Self::CannotComplete => FactKind::CannotComplete { reason: "no access".to_owned() },
            Self::Labour => FactKind::TimeEntry { category: "labour".to_owned(), minutes: 15 },
            Self::Filter => FactKind::PartUsed { part: id("FILTER"), quantity: 1, serial: None },
            Self::Pump => FactKind::PartUsed {
                part: id::<PartNumber>("PUMP"),
                quantity: 1,
                serial: Some(id::<SerialNumber>("7")),
            },
            Self::Photo => {
                FactKind::Photo { sha256: "ab".repeat(32), bytes: 2_000_000, media_type: "image/jpeg".to_owned() }
            }
            Self::SeeWindow => FactKind::WindowAcknowledged { window_revision },
            Self::Newer => FactKind::Unknown,
            Self::Answer | Self::Note | Self::Poison => return None,
        })
    }

    /// In plain words, after a name.
    pub(super) fn said(self) -> &'static str {
        match self {
            Self::Accept => "takes it",
            Self::Reject => "rejects it",
            Self::Travel => "sets out",
            Self::Arrive => "arrives",
            Self::Start => "starts work",
            Self::Pause => "pauses",
            Self::Complete | Self::CompleteUnasked => "completes it",
            Self::CannotComplete => "cannot complete it",
            Self::Labour => "books labour",
            Self::Filter => "uses a filter (one in the truck)",
            Self::Pump => "uses pump no. 7",
            Self::Photo => "takes a photo",
            Self::SeeWindow => "sees the new window",
            Self::Answer => "answers the checklist",
            Self::Note => "writes a note",
            Self::Newer => "does something that only a newer app knows",
            Self::ClaimForeign => "claims an arrival under an assignment that is not theirs",
            Self::ArriveElsewhere => "arrives at the other visit",
            Self::Poison => "has a damaged entry in the outbox",
        }
    }
}

/// What the office does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Order {
    AssignAnna,
    AssignBen,
    /// Ben leads, Anna is on his crew.
    BenLeads,
    Unassign,
    Cancel,
    /// Service Orders tells of a cancelled order, each time by an event of its own.
    CalledOff,
    /// The very same event once more.
    CalledOffAgain,
    /// The order's visit is asked for once more.
    RequestAgain,
    Reinstate,
    EndStopWork,
    /// To a later window, which the customer has confirmed, or has not.
    MoveConfirmed,
    Move,
    /// The customer confirms what is planned or proposed.
    Confirmed,
    /// Anna's first phone is lost.
    Revoke,
    /// The oldest open exception is settled by a person.
    Settle,
}

impl Order {
    pub(super) fn said(self) -> &'static str {
        match self {
            Self::AssignAnna => "office assigns Anna",
            Self::AssignBen => "office assigns Ben",
            Self::BenLeads => "office makes Ben the lead, Anna crew",
            Self::Unassign => "office takes it back",
            Self::Cancel => "office cancels",
            Self::CalledOff => "the service order is cancelled",
            Self::CalledOffAgain => "the same cancellation comes again",
            Self::RequestAgain => "the visit is requested again",
            Self::Reinstate => "office reinstates",
            Self::EndStopWork => "office closes the stopped work",
            Self::MoveConfirmed => "office moves the window, customer agreed",
            Self::Move => "office moves the window, customer not asked",
            Self::Confirmed => "the customer agrees to the window",
            Self::Revoke => "office revokes Anna's lost phone",
            Self::Settle => "office settles the exception",
        }
    }
}

/// How a phone's exchange with the server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum How {
    Whole,
    /// The server's answer is lost: the phone sends the same again.
    AnswerLost,
    /// Only this visit's lane gets through, the other visit's does not.
    OneLane,
}

/// One step of a world. Everything that happens takes five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    Does(Phone, Act),
    Office(Order),
    /// Not counted as an action, but bounded too.
    Exchange(Phone, How),
    /// The deadline passes, and with it every wait.
    Wait,
    /// The wall clock of Anna's phone is set back an hour, and nobody has measured it yet.
    ClockBack,
}

impl Step {
    pub(super) fn is_action(self) -> bool {
        !matches!(self, Self::Exchange(..))
    }

    /// How often a world has it. What always counts, or has no effect, shows nothing new the second time.
    pub(super) fn times_max(self) -> usize {
        match self {
            Self::Does(
                _,
                Act::Labour | Act::Photo | Act::Newer | Act::ClaimForeign | Act::ArriveElsewhere | Act::Poison,
            )
            | Self::Office(Order::CalledOffAgain | Order::RequestAgain | Order::Revoke)
            | Self::Wait
            | Self::ClockBack => 1,
            Self::Does(..) | Self::Office(_) => 2,
            Self::Exchange(..) => usize::MAX,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phone = |phone: Phone| match phone {
            Phone::Anna => "Anna",
            Phone::AnnaNew => "Anna (on her new phone)",
            Phone::Ben => "Ben",
        };
        match *self {
            Self::Does(by, act) => write!(f, "{} {}", phone(by), act.said()),
            Self::Office(order) => f.write_str(order.said()),
            Self::Exchange(Phone::AnnaNew, How::Whole) => f.write_str("Anna's new phone connects"),
            Self::Exchange(by, How::Whole) => write!(f, "{}'s phone connects", by.who()),
            Self::Exchange(by, How::AnswerLost) => write!(f, "{}'s phone sends, the answer is lost", by.who()),
            Self::Exchange(by, How::OneLane) => write!(f, "{}'s phone gets only this visit's work through", by.who()),
            Self::Wait => f.write_str("the deadline passes"),
            Self::ClockBack => f.write_str("Anna's phone clock is set back an hour"),
        }
    }
}

/// An id of this module's own names.
pub(super) fn id<T: TryFrom<String>>(text: impl Into<String>) -> T {
    T::try_from(text.into()).unwrap_or_else(|_| unreachable!("the small worlds' names are ids"))
}
