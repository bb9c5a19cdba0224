//! Technicians, sites, phones.

use super::{Coordinates, Window};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a technician is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TechnicianStatus {
    /// Not at work.
    OffShift,
    /// Ready.
    Available,
    /// Driving.
    OnRoute,
    /// At a customer's.
    OnSite,
    /// Pausing.
    OnBreak,
    /// At work, but not to be booked.
    Unavailable,
}

/// A technician's skill.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skill {
    /// Which.
    #[schema(example = "HVAC")]
    pub code: String,
    /// How well, 1 the lowest.
    pub level: u8,
    /// Not valid from then on.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// A planned absence.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Absence {
    /// When.
    pub window: Window,
    /// Why.
    pub reason: String,
}

/// A technician.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Technician {
    /// Which.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// Grows by one with every change; the `ETag`.
    pub revision: u64,
    /// Name.
    pub name: String,
    /// What they can do.
    pub skills: Vec<Skill>,
    /// Where the day starts.
    pub home_base: Option<Coordinates>,
    /// Service territory.
    pub territory: Option<String>,
    /// When they can be booked.
    pub availability: Vec<Window>,
    /// When they cannot, in spite of it.
    pub absences: Vec<Absence>,
    /// Truck stock; may go negative, which raises an exception.
    pub van_stock: BTreeMap<String, i64>,
    /// What they are doing.
    pub status: TechnicianStatus,
    /// Since when.
    #[schema(format = DateTime)]
    pub status_since: Option<String>,
}

/// A page of technicians, by id.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TechnicianPage {
    /// The technicians.
    pub items: Vec<Technician>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// A technician who could go, or why not.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// Who.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// Name.
    pub name: String,
    /// Nothing stands against it.
    pub available: bool,
    /// From the visit before, or from home.
    pub distance_km: Option<f64>,
    /// Estimated drive, milliseconds.
    pub travel_ms: Option<i64>,
    /// What stands against it: each has a `reason` like SKILL_MISSING or BOOKED.
    #[schema(value_type = Vec<Object>)]
    pub reasons: Vec<serde_json::Value>,
}

/// Who could go, nearest first.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CandidateList {
    /// The technicians.
    pub items: Vec<Candidate>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}

/// A skill and who has it.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkillSummary {
    /// Which.
    #[schema(example = "HVAC")]
    pub code: String,
    /// How many technicians have it.
    pub technicians: u32,
    /// The highest level among them.
    pub highest_level: u8,
}

/// Every skill of the tenant's technicians, by code.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkillList {
    /// The skills.
    pub items: Vec<SkillSummary>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Which.
    #[schema(example = "LOC-10")]
    pub location_id: String,
    /// Grows by one with every change; the `ETag`.
    pub revision: u64,
    /// As the customer calls it.
    pub name: String,
    /// Postal address, one line.
    pub address: String,
    /// Where it is.
    pub coordinates: Coordinates,
    /// Key box, gate code, parking.
    pub access_notes: Option<String>,
}

/// A page of sites, by id.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocationPage {
    /// The sites.
    pub items: Vec<Location>,
    /// Give it back as `cursor`; null on the last page.
    pub next_cursor: Option<String>,
}

/// A phone's health.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Which.
    pub device_id: String,
    /// Whose.
    #[schema(example = "TECH-10")]
    pub technician_id: String,
    /// App name and version.
    pub app: String,
    /// First heard.
    #[schema(format = DateTime)]
    pub registered_at: String,
    /// Last heard.
    #[schema(format = DateTime)]
    pub seen_at: String,
    /// Connected now.
    pub connected: bool,
    /// It has unsent work, missing actions, or has not taken its feed.
    pub behind: bool,
    /// Since when, as far as known.
    #[schema(format = DateTime)]
    pub behind_since: Option<String>,
    /// Actions that it announced and that have not arrived.
    pub missing_actions: u64,
    /// Unacknowledged changes on the phone.
    pub pending: u32,
    /// When the oldest of them was made.
    #[schema(format = DateTime)]
    pub oldest_pending: Option<String>,
    /// Feed entries that it has not acknowledged.
    pub feed_behind: u64,
    /// Revoked at.
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// Removed what it held, at.
    #[schema(format = DateTime)]
    pub wiped_at: Option<String>,
    /// Digest mismatches reported.
    pub digest_mismatches: u64,
}

/// The tenant's phones, those behind first.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceList {
    /// The phones.
    pub items: Vec<Device>,
    /// Always null: one page.
    pub next_cursor: Option<String>,
}
