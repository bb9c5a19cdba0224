//! What crosses the language border: immutable records, in the words of the field.

use crate::host::LogLevel;
use std::collections::HashMap;
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

/// How to open a client.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ClientOptions {
    /// The database file; its folder is made if there is none. Leave `<path>.install` out of backups, so that a restored copy
    /// is known for one.
    pub path: String,
    /// The server's base URL, `https://` or `wss://`, without a path (`http://` and `ws://` for a demo).
    pub server_url: String,
    /// The app's name and version, for the dispatcher's list of devices.
    pub app: String,
    /// Whether the file is encrypted.
    pub encryption: Encryption,
    /// False when the phone has no network now; see [`crate::DispatchClient::network_changed`].
    pub network_at_start: bool,
    /// The most that the log is told.
    pub log_level: LogLevel,
}

/// Whether the phone's file is encrypted at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Encryption {
    /// With a key that is drawn at the first opening and kept in the app's secure storage.
    SecureStorage,
    /// Not at all: customers' addresses and notes lie on the phone for everybody who has its files.
    Off,
}

/// What signing in changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct SignedIn {
    /// Another technician than before: the former one's visits are gone from the phone, and everything is fetched.
    pub changed: bool,
    /// The former technician's unsent actions, sealed now.
    pub sealed: u32,
    /// This technician's actions that had been sealed, queued again.
    pub unsealed: u32,
}

/// What signing out left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct SignedOut {
    /// Unsent actions, sealed until the technician signs in again on this phone.
    pub sealed: u32,
}

/// Which visits to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, uniffi::Record)]
pub struct VisitFilter {
    /// Planned start at or after; from the first when `None`.
    #[uniffi(default = None)]
    pub from: Option<SystemTime>,
    /// Planned start before; to the last when `None`.
    #[uniffi(default = None)]
    pub until: Option<SystemTime>,
    /// Those without a planned start as well; they come last.
    #[uniffi(default = false)]
    pub unscheduled: bool,
    /// Those at one of these stages; all when empty.
    #[uniffi(default = [])]
    pub stages: Vec<VisitStage>,
    /// At most this many; 0 for all.
    #[uniffi(default = 0)]
    pub limit: u32,
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
    /// A window that the office proposes and that waits for [`Action::AcknowledgeWindow`].
    pub proposed_window: Option<ProposedWindow>,
    /// Arrive before this, or the service level is breached.
    pub sla_deadline: Option<SystemTime>,
    /// Parts to bring.
    pub parts_to_bring: Vec<PartLine>,
    /// Parts used so far.
    pub parts_used: Vec<PartLine>,
    /// Time worked so far.
    pub time_worked: Vec<TimeLine>,
    /// The tenant's own fields.
    pub attributes: HashMap<String, String>,
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

/// A window that the office proposes while the visit is under way.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ProposedWindow {
    /// Names the proposal.
    pub window_revision: u32,
    /// From when.
    pub from: SystemTime,
    /// Until when.
    pub until: SystemTime,
}

/// A part, to bring or used.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct PartLine {
    /// Which part.
    pub part_number: String,
    /// How many.
    pub quantity: u32,
    /// Of a serialised part that was used.
    pub serial_number: Option<String>,
}

/// Time worked.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct TimeLine {
    /// Who worked.
    pub technician_id: String,
    /// `labour`, `travel`, … as the tenant names them.
    pub category: String,
    /// Minutes.
    pub minutes: u32,
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
    /// Has worked so long.
    LogTime {
        /// `labour`, `travel`, … as the tenant names them.
        category: String,
        /// Minutes.
        minutes: u32,
    },
    /// Has used up a part.
    UsePart {
        /// Which part.
        part_number: String,
        /// How many, at least 1.
        quantity: u32,
        /// Of a serialised part.
        serial_number: Option<String>,
    },
    /// Has taken a photo; its bytes are the app's to keep and to send.
    TakePhoto {
        /// SHA-256 of the bytes, lower-case hex.
        sha256: String,
        /// Length in bytes.
        size_bytes: u64,
        /// `image/jpeg`, ….
        media_type: String,
    },
    /// The customer has signed.
    Sign {
        /// Printed name.
        signer: String,
        /// SHA-256 of the image, lower-case hex.
        sha256: String,
    },
    /// Has seen the window that the office proposes.
    AcknowledgeWindow {
        /// [`ProposedWindow::window_revision`] that was shown.
        window_revision: u32,
    },
    /// Edits the crew's notes: replaces `delete` characters (Unicode scalar values) at `at`. Edits of others are merged.
    EditNotes {
        /// Position in characters, clamped to the end.
        at: u32,
        /// How many to delete, clamped to the end.
        delete: u32,
        /// What to insert.
        insert: String,
    },
    /// Answers an item of the checklist; the lead's answer settles different ones.
    AnswerChecklist {
        /// Which item.
        item_id: String,
        /// As entered.
        value: String,
    },
    /// Sets the closing summary.
    Summarise {
        /// The text.
        text: String,
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
    /// Who is signed in.
    pub technician_id: Option<String>,
    /// Actions that the server has not acknowledged.
    pub unsent: u32,
    /// When the oldest of them was taken, by this phone's clock.
    pub unsent_since: Option<SystemTime>,
    /// Actions that were refused, and wait for a person; see [`crate::DispatchClient::parked`].
    pub parked: u32,
    /// Visits that the next sync fetches whole.
    pub visits_to_fetch: u32,
    /// When the phone last knew that it has everything.
    pub last_sync: Option<SystemTime>,
    /// How the connection is.
    pub connection: ConnectionState,
    /// Everything is exchanged as of the last message.
    pub caught_up: bool,
    /// Why the last connection failed or ended, until the next one succeeds.
    pub problem: Option<ConnectionProblem>,
}

/// How the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ConnectionState {
    /// Not started, or stopped.
    Stopped,
    /// The operating system says that there is no network.
    NoNetwork,
    /// Waits before the next try.
    Waiting,
    /// Fetches a token, connects, greets.
    Connecting,
    /// Connected.
    Connected,
    /// The technician must sign in again; then call [`crate::DispatchClient::start`].
    SignInNeeded,
    /// The device was revoked, and its visits are gone from the phone.
    Revoked,
}

/// Why a connection failed or ended. `reason` is for the log.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum ConnectionProblem {
    /// The URL cannot be used; only another one helps.
    Address {
        /// For the log.
        reason: String,
    },
    /// The server cannot be reached.
    Unreachable {
        /// For the log.
        reason: String,
    },
    /// No secure connection: the certificate is not trusted, or not for this host.
    Insecure {
        /// For the log.
        reason: String,
    },
    /// The server did not take the token.
    TokenRefused,
    /// The token is good, and not for a phone.
    NotAllowed,
    /// The app had no token.
    NoToken {
        /// For the log.
        reason: String,
    },
    /// The technician must sign in again.
    SignInNeeded {
        /// For the log.
        reason: String,
    },
    /// The server answered with this HTTP status.
    ServerRefused {
        /// 503, ….
        status: u16,
    },
    /// The connection broke, or the server closed it.
    Lost {
        /// For the log.
        reason: String,
    },
    /// The app must be updated: the server no longer understands this release.
    UpdateNeeded {
        /// For the log.
        reason: String,
    },
    /// The phone's own store failed.
    StoreFailed {
        /// For the log.
        reason: String,
    },
}

/// An action that the server refused. It is kept, and does not hold up other visits.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ParkedAction {
    /// Which visit.
    pub dispatch_id: String,
    /// What the technician had done: `arrived`, `part_used`, `note`, ….
    pub action: String,
    /// When, by this phone's clock.
    pub taken_at: SystemTime,
    /// The server's stable code.
    pub code: String,
    /// For people.
    pub explanation: String,
}

/// What a sync in the background came to.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct SyncReport {
    /// Everything is exchanged but what is parked.
    pub caught_up: bool,
    /// Actions that remain unsent, parked ones included.
    pub unsent: u32,
    /// When the oldest of them was taken, by this phone's clock.
    pub unsent_since: Option<SystemTime>,
    /// Actions that were refused.
    pub parked: u32,
    /// Visits that are still to be fetched.
    pub visits_to_fetch: u32,
    /// What was in the way.
    pub problem: Option<ConnectionProblem>,
}

/// What the technician should be told.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Notice {
    /// The office's rules decided otherwise than that the action simply counts.
    Ruled {
        /// Which visit.
        dispatch_id: String,
        /// What became of it.
        outcome: RulingOutcome,
        /// The stable code of the reason, `FORMER_EPOCH`, ….
        reason: String,
    },
    /// The server came back from an older copy; this many actions are given again.
    ServerReplaced {
        /// How many.
        requeued: u32,
    },
    /// The device was revoked, and its visits are gone from the phone. Shut the client down; whoever signs in next opens it
    /// anew. Comes again where the office could not hear of it at once: with the next connection, also after the app was ended.
    Revoked {
        /// Unsent actions that the server has now, in quarantine for the office.
        handed_over: u32,
        /// Unsent actions that could not be handed over: sealed on the phone, until their technician signs in again.
        sealed: u32,
        /// The file and its key are destroyed. Never while something is sealed, nor before the office has heard of the wipe.
        erased: bool,
    },
}

/// What became of a stated fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum RulingOutcome {
    /// It counts.
    Accepted,
    /// It is recorded, and changes nothing.
    Stale,
    /// It is recorded, and somebody in the office must decide.
    Exception,
}
