//! Master data, checked.

use super::office::{TEXT_BYTES_MAX, text};
use crate::service::directory::{LocationInput, TechnicianInput};
use crate::service::error::ServiceError;
use crate::service::model::{Absence, Technician, TechnicianStatus};
use std::collections::BTreeMap;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{TechnicianId, Window};

/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 200;
/// Most skills, availability windows or absences of one technician.
const LIST_MAX: usize = 1_000;

/// A technician of whom nothing is known yet.
pub(crate) fn new_technician(id: &TechnicianId) -> Technician {
    Technician {
        technician_id: id.clone(),
        revision: 0,
        name: String::new(),
        skills: Vec::new(),
        home_base: None,
        territory: None,
        availability: Vec::new(),
        absences: Vec::new(),
        van_stock: BTreeMap::new(),
        status: TechnicianStatus::default(),
        status_since: None,
    }
}

/// Applies what the office entered.
pub(crate) fn technician(row: &mut Technician, input: &TechnicianInput) -> Result<(), ServiceError> {
    if let Some(name) = &input.name {
        row.name.clone_from(name);
    }
    text("name", &row.name, NAME_BYTES_MAX)?;
    if row.name.trim().is_empty() {
        return Err(ServiceError::invalid("name", "a technician needs a name"));
    }
    if let Some(skills) = &input.skills {
        few("skills", skills.len())?;
        if skills.iter().any(|skill| skill.level == 0) {
            return Err(ServiceError::invalid("skills", "a level is at least 1"));
        }
        row.skills.clone_from(skills);
    }
    if let Some(home) = input.home_base {
        place("homeBase", home)?;
        row.home_base = Some(home);
    }
    if let Some(territory) = &input.territory {
        text("territory", territory, NAME_BYTES_MAX)?;
        row.territory = Some(territory.clone());
    }
    if let Some(availability) = &input.availability {
        few("availability", availability.len())?;
        for window in availability {
            forward("availability", *window)?;
        }
        row.availability.clone_from(availability);
    }
    if let Some(absences) = &input.absences {
        row.absences.clear();
        for entry in absences {
            absence(row, entry)?;
        }
    }
    if let Some(stock) = &input.van_stock {
        few("vanStock", stock.len())?;
        row.van_stock.clone_from(stock);
    }
    Ok(())
}

/// Adds an absence.
pub(crate) fn absence(row: &mut Technician, absence: &Absence) -> Result<(), ServiceError> {
    forward("absences", absence.window)?;
    text("absences", &absence.reason, TEXT_BYTES_MAX)?;
    if !row.absences.contains(absence) {
        few("absences", row.absences.len() + 1)?;
        row.absences.push(absence.clone());
        row.absences.sort_by_key(|absence| absence.window);
    }
    Ok(())
}

/// Checks a location.
pub(crate) fn location(input: &LocationInput) -> Result<(), ServiceError> {
    text("name", &input.name, NAME_BYTES_MAX)?;
    text("address", &input.address, TEXT_BYTES_MAX)?;
    text("accessNotes", input.access_notes.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)?;
    if input.name.trim().is_empty() {
        return Err(ServiceError::invalid("name", "a location needs a name"));
    }
    place("coordinates", input.coordinates)
}

fn place(field: &'static str, place: Coordinates) -> Result<(), ServiceError> {
    if place.is_valid() {
        Ok(())
    } else {
        Err(ServiceError::invalid(field, "degrees on Earth: -90 to 90, -180 to 180"))
    }
}

fn forward(field: &'static str, window: Window) -> Result<(), ServiceError> {
    if window.start < window.end {
        Ok(())
    } else {
        Err(ServiceError::invalid(field, "a window must end after it starts"))
    }
}

fn few(field: &'static str, count: usize) -> Result<(), ServiceError> {
    if count > LIST_MAX {
        return Err(ServiceError::invalid(field, format!("at most {LIST_MAX}, these are {count}")));
    }
    Ok(())
}
