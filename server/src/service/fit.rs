//! Why a technician cannot take a visit.

use crate::service::model::TechnicianStatus;
use serde::{Deserialize, Serialize};
use sync_core::domain::{DispatchId, SkillCode, Timestamp, Window};

/// One thing that stands against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase")]
pub enum Unfit {
    /// The skill is missing.
    SkillMissing {
        /// Which.
        code: SkillCode,
    },
    /// The skill is not high enough.
    SkillLevelTooLow {
        /// Which.
        code: SkillCode,
        /// Needed.
        needed: u8,
        /// What the technician has.
        has: u8,
    },
    /// The skill is not valid any more on the day.
    SkillExpired {
        /// Which.
        code: SkillCode,
        /// Not valid from then on.
        expires_at: Timestamp,
    },
    /// The visit does not lie within one of the technician's availability windows.
    OutsideAvailability {
        /// When the technician would be needed, travel included.
        needed: Window,
    },
    /// The technician is absent.
    Absent {
        /// When.
        window: Window,
        /// Why.
        why: String,
    },
    /// Another visit is in the way, or too far away to drive in time.
    Booked {
        /// Which.
        dispatch: DispatchId,
        /// When the technician is busy with it.
        busy: Window,
        /// When the technician would be needed here, travel included.
        needed: Window,
    },
    /// The next visit could not be reached in time after this one.
    NextOutOfReach {
        /// Which.
        dispatch: DispatchId,
        /// When it starts.
        starts: Timestamp,
        /// The estimated drive, milliseconds.
        travel_ms: i64,
    },
    /// The technician's status says not to be booked.
    NotBookable {
        /// The status.
        status: TechnicianStatus,
    },
}
