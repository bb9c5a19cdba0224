//! What callers send. Strict: a field that is not known is an error, so that a typing error cannot lose a wish.

mod directory;
mod dispatch;

pub use directory::{
    AbsenceBody, AvailabilityBody, LocationBody, SkillBody, SkillsBody, TechnicianBody, TechnicianStatusBody,
};
pub use dispatch::{
    AssignBody, ChecklistItemBody, ConfirmBody, ContactBody, CreateRequestBody, EmptyBody, PartBody, PriorityBody,
    ReasonBody, RequiredSkillBody, RescheduleBody, ResolveBody, SkillLevelBody,
};

use super::error::ApiError;
use serde::Deserialize;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{Timestamp, Window};
use utoipa::ToSchema;

/// Longest reason, resolution or name, bytes.
pub const TEXT_BYTES_MAX: usize = 1_000;
/// Longest instructions, bytes.
pub const INSTRUCTIONS_BYTES_MAX: usize = 20_000;
/// Most entries of a list or map in a request.
pub const LIST_ITEMS_MAX: usize = 200;

/// Needs words, and not too many.
pub(in crate::http) fn check_text(field: &str, text: &str) -> Result<(), ApiError> {
    if text.trim().is_empty() {
        return Err(ApiError::invalid(field, "must not be empty"));
    }
    check_length(field, text, TEXT_BYTES_MAX)
}

fn check_length(field: &str, text: &str, bytes_max: usize) -> Result<(), ApiError> {
    if text.len() > bytes_max {
        return Err(ApiError::invalid(field, format!("has {} bytes; at most {bytes_max}", text.len())));
    }
    Ok(())
}

fn check_count(field: &str, count: usize) -> Result<(), ApiError> {
    if count > LIST_ITEMS_MAX {
        return Err(ApiError::invalid(field, format!("has {count} entries; at most {LIST_ITEMS_MAX}")));
    }
    Ok(())
}

/// A span of time.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowBody {
    /// First instant inside.
    #[schema(value_type = String, format = DateTime, example = "2026-02-03T08:00:00Z")]
    start: Timestamp,
    /// First instant after.
    #[schema(value_type = String, format = DateTime, example = "2026-02-03T10:00:00Z")]
    end: Timestamp,
}

impl WindowBody {
    fn check(self, field: &str) -> Result<Window, ApiError> {
        if self.end <= self.start {
            return Err(ApiError::invalid(field, "must end after it starts"));
        }
        Ok(Window { start: self.start, end: self.end })
    }
}

fn window(field: &str, body: Option<WindowBody>) -> Result<Option<Window>, ApiError> {
    body.map(|window| window.check(field)).transpose()
}

/// A place on Earth, WGS 84 degrees.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CoordinatesBody {
    /// Degrees north.
    #[schema(minimum = -90, maximum = 90, example = 48.2082)]
    latitude: f64,
    /// Degrees east.
    #[schema(minimum = -180, maximum = 180, example = 16.3738)]
    longitude: f64,
}

impl CoordinatesBody {
    fn check(self, field: &str) -> Result<Coordinates, ApiError> {
        let place = Coordinates { latitude: self.latitude, longitude: self.longitude };
        if place.is_valid() {
            Ok(place)
        } else {
            Err(ApiError::invalid(field, "latitude is -90 to 90, longitude -180 to 180"))
        }
    }
}

fn lowest_level() -> u8 {
    1
}
