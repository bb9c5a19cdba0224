//! What crosses the language border: immutable records, in the words of the field.

use std::time::SystemTime;

/// What opening found. Tell the technician and the office what is not `None` or `false`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct OpenNotice {
    /// The store is new and empty.
    pub created: bool,
    /// The file is a copy, from a backup or another phone; everything is fetched anew.
    pub restored: bool,
    /// A file that could not be used was renamed to this path, and a new store lies in its place. It may hold work that the
    /// office has not seen: keep it, and offer to send it in.
    pub set_aside_path: Option<String>,
    /// Why, in words for the log.
    pub set_aside_reason: Option<String>,
    /// Rows whose checksum is wrong, kept aside so far.
    pub rows_quarantined: u64,
}

/// What the phone's clocks say at this moment.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct DeviceClock {
    /// Wall time, as the phone shows it; it may be wrong.
    pub wall: SystemTime,
    /// Milliseconds since the boot, sleep included (`SystemClock.elapsedRealtime`, `mach_continuous_time`).
    pub monotonic_ms: u64,
    /// Which boot that counts from (Android's `BOOT_COUNT`, `kern.bootsessionuuid`).
    pub boot_id: String,
}

/// A position fix.
#[derive(Debug, Clone, Copy, PartialEq, uniffi::Record)]
pub struct PositionFix {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Radius of the 68 % circle, metres.
    pub accuracy_m: f64,
}

/// Where a visit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum VisitStage {
    /// Nobody has it.
    Pending,
    /// A technician has it.
    Assigned,
    /// It has reached the phone.
    Dispatched,
    /// The technician takes it.
    Confirmed,
    /// On the way.
    EnRoute,
    /// On site.
    Arrived,
    /// Working.
    InProgress,
    /// Work interrupted.
    Paused,
    /// Done.
    Completed,
    /// Could not be done.
    CannotComplete,
    /// Cancelled before anybody was on site.
    Cancelled,
}

/// How urgent a visit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Urgency {
    /// When somebody passes by.
    Low,
    /// As planned.
    Normal,
    /// Before normal work.
    High,
    /// Now.
    Emergency,
}

/// One visit, as a list shows it.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct VisitSummary {
    /// Which visit.
    pub dispatch_id: String,
    /// The order behind it.
    pub service_order_id: Option<String>,
    /// Headline.
    pub title: String,
    /// Where it stands, this phone's unsent actions included.
    pub stage: VisitStage,
    /// How urgent it is.
    pub urgency: Urgency,
    /// Planned start of the work.
    pub scheduled_start: Option<SystemTime>,
    /// Planned end of the work.
    pub scheduled_end: Option<SystemTime>,
    /// From when the customer expects somebody.
    pub arrival_from: Option<SystemTime>,
    /// Until when the customer expects somebody.
    pub arrival_until: Option<SystemTime>,
    /// The site's name.
    pub site_name: String,
    /// The site's address, one line.
    pub address: String,
    /// Degrees north.
    pub latitude: Option<f64>,
    /// Degrees east.
    pub longitude: Option<f64>,
    /// Whom to ask for.
    pub contact_name: Option<String>,
    /// How to reach them.
    pub contact_phone: Option<String>,
    /// The technician who leads.
    pub lead: Option<String>,
    /// The office asks to stop work.
    pub stop_work: bool,
    /// The office has moved the window and waits for the technician to have seen it.
    pub window_proposed: bool,
}

/// One visit, looked into.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct VisitDetails {
    /// As in the list.
    pub summary: VisitSummary,
    /// What to do.
    pub instructions: String,
    /// Key box, gate code, parking.
    pub access_notes: Option<String>,
    /// What to tick off.
    pub checklist: Vec<ChecklistLine>,
    /// The crew's shared notes.
    pub notes: String,
    /// The closing summary.
    pub closing_summary: Option<String>,
    /// Arrived within the window that the customer last confirmed; `None` before arrival.
    pub on_time: Option<bool>,
    /// Not to be billed before the office has decided.
    pub billing_hold: bool,
    /// This phone's edits that the server has not acknowledged.
    pub unsent: u32,
    /// How many of them were refused, and wait for a person.
    pub parked: u32,
}

/// One item of the checklist with its answers.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ChecklistLine {
    /// Which item.
    pub item_id: String,
    /// The question.
    pub prompt: String,
    /// The visit should not be completed without an answer.
    pub required: bool,
    /// More than one when crew members answered at the same time; the lead answers again to settle it.
    pub answers: Vec<ChecklistAnswer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ChecklistAnswer {
    /// As entered.
    pub value: String,
    /// Who answered.
    pub technician_id: String,
    /// When, by that phone's clock.
    pub at: SystemTime,
}

/// "Why is my job gone?"
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct GoneVisit {
    /// Which visit.
    pub dispatch_id: String,
    /// Its headline.
    pub title: String,
    /// Why it is gone.
    pub reason: GoneReason,
    /// In the office's words, where there are any.
    pub note: Option<String>,
    /// Who took it away.
    pub by: String,
    /// When.
    pub at: SystemTime,
    /// This phone's unsent edits on it; they are kept, and sent.
    pub unsent: u32,
}

/// Why a visit left the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum GoneReason {
    /// The office cancelled it.
    Cancelled,
    /// Somebody else has it now.
    Reassigned,
    /// Nobody has it now.
    Unassigned,
    /// The former technician had started already and keeps it.
    Withdrawn,
    /// It lies outside of the days that the phone holds.
    OutOfWindow,
    /// A reason of a newer release.
    Unknown,
}

/// What the technician does.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Action {
    /// Takes the visit.
    Accept {
        /// Expected arrival.
        eta: Option<SystemTime>,
    },
    /// Refuses the visit.
    Reject {
        /// In the technician's words.
        reason: String,
    },
    /// Sets off.
    StartTravel {
        /// Expected arrival.
        eta: Option<SystemTime>,
    },
    /// Is on site.
    Arrive,
    /// Begins to work.
    StartWork,
    /// Interrupts the work.
    Pause {
        /// In the technician's words.
        reason: Option<String>,
    },
    /// Goes on.
    Resume,
    /// Is done.
    Complete,
    /// Cannot do it.
    CannotComplete {
        /// In the technician's words.
        reason: String,
    },
}

/// An action that is on the phone's disk.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct ActionTaken {
    /// The visit afterwards.
    pub visit: VisitSummary,
    /// Unsent edits on this phone, this one included.
    pub unsent: u32,
}

/// How much the office does not know yet, and the phone neither.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct SyncStatus {
    /// This install.
    pub device_id: String,
    /// Who is logged in.
    pub technician_id: Option<String>,
    /// Edits that the server has not acknowledged.
    pub unsent: u32,
    /// When the oldest of them was made, by this phone's clock.
    pub unsent_since: Option<SystemTime>,
    /// Edits that were refused, and wait for a person.
    pub parked: u32,
    /// Visits that the next sync fetches whole.
    pub visits_to_fetch: u32,
    /// When the phone last knew that it has everything.
    pub last_sync: Option<SystemTime>,
}
