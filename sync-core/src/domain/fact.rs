//! Facts: what physically happened, stated by a technician's phone. Append-only, never dropped.

use super::state::Moment;
use super::{BootId, DeviceId, FactId, PartNumber, Plan, SerialNumber, TechnicianId, Timestamp};
use serde::{Deserialize, Serialize};

/// The fact schema that this release writes. Facts of every released version are accepted; they are self-describing
/// and never migrated in place (rule 11).
pub const FACT_SCHEMA: u16 = 1;
/// A clock that is off by more than this is flagged, and still accepted (rule 6).
pub const CLOCK_OFFSET_FLAG_MS: i64 = 2 * 60 * 1000;
/// Longest free text in a fact (a reason, a signer's name), in bytes.
pub const FACT_TEXT_BYTES_MAX: usize = 1_000;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Schema version, [`FACT_SCHEMA`] when written by this release.
    #[serde(rename = "v")]
    pub schema: u16,
    /// The key in the document's `facts` map.
    pub id: FactId,
    /// The assignment epoch the technician acted under.
    pub epoch: u64,
    /// Who states it.
    pub technician: TechnicianId,
    /// The device that recorded it.
    pub device: DeviceId,
    /// Per-device sequence number over *all* visits, from 1, without gaps. Orders a device's facts whatever its clock says.
    pub seq: u64,
    /// When, by the device's clocks.
    pub clock: ClockReading,
    /// Where, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What.
    #[serde(flatten)]
    pub kind: FactKind,
}

/// What a device knew about time when a fact happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// The device's wall clock. May be wrong.
    pub wall: Timestamp,
    /// Milliseconds since `boot`; never jumps.
    pub monotonic_ms: u64,
    /// The boot that `monotonic_ms` counts from.
    pub boot: BootId,
    /// Last measured `server - device` offset in milliseconds, if ever measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_ms: Option<i64>,
    /// Half-width of the interval around the corrected time, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty_ms: Option<u32>,
}

impl ClockReading {
    /// `occurredAt`: wall time corrected by the measured offset (rule 6). The wall time itself where none was measured.
    #[must_use]
    pub fn occurred_at(&self) -> Timestamp {
        self.wall.plus_millis(self.offset_ms.unwrap_or(0))
    }

    /// Half-width of the interval around [`Self::occurred_at`]. A device that never measured is taken to be as far off
    /// as what is merely flagged.
    #[must_use]
    pub fn uncertainty_millis(&self) -> i64 {
        self.uncertainty_ms.map_or(CLOCK_OFFSET_FLAG_MS, i64::from)
    }

    /// True when the device's clock is off by more than [`CLOCK_OFFSET_FLAG_MS`].
    #[must_use]
    pub fn is_flagged(&self) -> bool {
        self.offset_ms.is_some_and(|offset| offset.unsigned_abs() > CLOCK_OFFSET_FLAG_MS.unsigned_abs())
    }
}

/// A position fix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Radius of the 68 % circle, metres.
    pub accuracy_m: f64,
}

/// What happened. The tag is `kind`; a kind that this release does not know is kept in the document and folds to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "snake_case")]
pub enum FactKind {
    /// The technician takes the visit; `eta` is the expected arrival.
    Accepted {
        /// Expected arrival.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eta: Option<Timestamp>,
    },
    /// The technician refuses the visit.
    Rejected {
        /// In the technician's words.
        reason: String,
    },
    /// On the way.
    TravelStarted {
        /// Expected arrival.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        eta: Option<Timestamp>,
    },
    /// On site.
    Arrived,
    /// Work has begun.
    WorkStarted,
    /// Work is interrupted.
    Paused {
        /// In the technician's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Work goes on.
    Resumed,
    /// The work is done. Only the lead completes (rule 5).
    Completed,
    /// The work cannot be done.
    CannotComplete {
        /// In the technician's words.
        reason: String,
    },
    /// Labour or travel time worked.
    TimeEntry {
        /// `labour`, `travel`, … as the tenant names them.
        category: String,
        /// Minutes worked.
        minutes: u32,
    },
    /// A part used up. A ledger entry: the fact's id makes it idempotent (rule 7).
    PartUsed {
        /// Which part.
        part: PartNumber,
        /// How many, at least 1.
        quantity: u32,
        /// For serialised parts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial: Option<SerialNumber>,
    },
    /// A photo was taken; the bytes travel in their own queue (rule 8).
    Photo {
        /// SHA-256 of the bytes, lower-case hex.
        sha256: String,
        /// Length in bytes.
        bytes: u64,
        /// `image/jpeg`, ….
        media_type: String,
    },
    /// The customer signed.
    Signature {
        /// Printed name.
        signer: String,
        /// SHA-256 of the image, lower-case hex.
        sha256: String,
    },
    /// The technician has seen the window that the office proposed while the visit was under way (rule 13).
    WindowAcknowledged {
        /// [`Plan::window_revision`] that was shown.
        window_revision: u32,
    },
    /// A kind of a newer release. Kept, shown as unknown, never dropped.
    #[serde(other)]
    Unknown,
}

/// A fact as an action: what the app hands in, before the store adds id, sequence number and clocks.
pub type FactAction = FactKind;

impl Fact {
    /// See [`ClockReading::occurred_at`].
    #[must_use]
    pub fn occurred_at(&self) -> Timestamp {
        self.clock.occurred_at()
    }

    /// When it happened, with the uncertainty of the device's clock (rule 6).
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { at: self.occurred_at(), uncertainty_ms: self.clock.uncertainty_millis() }
    }

    /// True when the fact was stated under the plan's current assignment, or one that it continues.
    #[must_use]
    pub fn is_current(&self, plan: &Plan) -> bool {
        plan.assignment.as_ref().is_some_and(|a| a.epoch == self.epoch || a.continues.contains(&self.epoch))
    }
}

impl FactKind {
    /// The stable name, as in the `kind` tag.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Rejected { .. } => "rejected",
            Self::TravelStarted { .. } => "travel_started",
            Self::Arrived => "arrived",
            Self::WorkStarted => "work_started",
            Self::Paused { .. } => "paused",
            Self::Resumed => "resumed",
            Self::Completed => "completed",
            Self::CannotComplete { .. } => "cannot_complete",
            Self::TimeEntry { .. } => "time_entry",
            Self::PartUsed { .. } => "part_used",
            Self::Photo { .. } => "photo",
            Self::Signature { .. } => "signature",
            Self::WindowAcknowledged { .. } => "window_acknowledged",
            Self::Unknown => "unknown",
        }
    }

    /// True for the kinds that may change a visit's status; the others (time, parts, photos, signatures) need no
    /// predecessor (rule 16).
    #[must_use]
    pub fn moves_status(&self) -> bool {
        match self {
            Self::Accepted { .. }
            | Self::Rejected { .. }
            | Self::TravelStarted { .. }
            | Self::Arrived
            | Self::WorkStarted
            | Self::Paused { .. }
            | Self::Resumed
            | Self::Completed
            | Self::CannotComplete { .. } => true,
            Self::TimeEntry { .. }
            | Self::PartUsed { .. }
            | Self::Photo { .. }
            | Self::Signature { .. }
            | Self::WindowAcknowledged { .. }
            | Self::Unknown => false,
        }
    }

    /// True for the kinds in which the lead speaks for the whole visit: taking it, refusing it, ending it (rule 5). Stated
    /// by a crew member they change nothing.
    #[must_use]
    pub fn needs_lead(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Rejected { .. } | Self::Completed | Self::CannotComplete { .. })
    }
}
