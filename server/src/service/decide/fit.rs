//! Whether a technician can take a visit: skills, working time, calendar, and the drive between.

use crate::service::commit::Booking;
use crate::service::error::ServiceError;
use crate::service::fit::Unfit;
use crate::service::model::{Technician, TechnicianStatus};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::SkillRequirement;
use sync_core::domain::{DispatchId, Timestamp, Window};

/// How far around a visit the calendar is looked at for neighbours to drive from and to.
pub(crate) const NEIGHBOURS_WITHIN_MS: i64 = 16 * 60 * 60 * 1000;

/// A visit in a technician's calendar.
#[derive(Debug, Clone)]
pub(crate) struct Neighbour {
    /// Which.
    pub(crate) dispatch: DispatchId,
    /// When the technician is busy with it, travel to it included.
    pub(crate) busy: Window,
    /// Where, if known.
    pub(crate) site: Option<Coordinates>,
    /// When the work there starts; its booking's start where that is not known.
    pub(crate) starts: Timestamp,
}

/// A technician with their calendar around the visit, by start; the visit itself is not in it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) technician: Technician,
    pub(crate) calendar: Vec<Neighbour>,
}

/// The visit that somebody is sought for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need<'a> {
    pub(crate) skills: &'a [SkillRequirement],
    pub(crate) window: Option<Window>,
    pub(crate) site: Option<Coordinates>,
    pub(crate) now: Timestamp,
}

/// What was found out about a candidate.
#[derive(Debug, Clone)]
pub(crate) struct Fitness {
    /// When the technician would be busy, travel included; `None` for a visit without a window.
    pub(crate) span: Option<Window>,
    /// From where the technician would drive.
    pub(crate) from: Option<Coordinates>,
    /// The estimated drive, milliseconds.
    pub(crate) travel_ms: Option<i64>,
    /// What stands against it.
    pub(crate) reasons: Vec<Unfit>,
}

/// Looks at a candidate. Only the lead needs the skills.
pub(crate) fn examine(candidate: &Candidate, need: &Need<'_>, lead: bool) -> Fitness {
    let technician = &candidate.technician;
    let mut reasons = Vec::new();
    let day = need.window.map_or(need.now, |window| window.start);
    if lead {
        reasons.extend(need.skills.iter().filter_map(|needed| lacking(technician, needed, day)));
    }
    if technician.status == TechnicianStatus::Unavailable {
        reasons.push(Unfit::NotBookable { status: technician.status });
    }
    let previous = candidate.calendar.iter().rfind(|neighbour| neighbour.busy.start <= day);
    let from = match previous {
        Some(previous) => previous.site.or(technician.home_base),
        None => technician.home_base,
    };
    let travel_ms = from.zip(need.site).map(|(from, to)| from.travel_millis(&to));
    let span =
        need.window.map(|window| Window { start: window.start.plus_millis(-travel_ms.unwrap_or(0)), end: window.end });
    if let (Some(window), Some(span)) = (need.window, span) {
        let works = working_time(technician).iter().any(|shift| shift.start <= window.start && window.end <= shift.end);
        if !works {
            reasons.push(Unfit::OutsideAvailability { needed: window });
        }
        for absence in technician.absences.iter().filter(|absence| absence.window.overlaps(&window)) {
            reasons.push(Unfit::Absent { window: absence.window, why: absence.reason.clone() });
        }
        for neighbour in candidate.calendar.iter().filter(|neighbour| neighbour.busy.overlaps(&span)) {
            reasons.push(Unfit::Booked { dispatch: neighbour.dispatch.clone(), busy: neighbour.busy, needed: span });
        }
        reasons.extend(next_out_of_reach(candidate, need, window));
    }
    Fitness { span, from, travel_ms, reasons }
}

/// The visit after this one, when it cannot be reached in time.
fn next_out_of_reach(candidate: &Candidate, need: &Need<'_>, window: Window) -> Option<Unfit> {
    let next = candidate.calendar.iter().find(|neighbour| neighbour.busy.start >= window.end)?;
    let travel_ms = need.site?.travel_millis(&next.site?);
    let late = window.end.plus_millis(travel_ms) > next.starts;
    late.then(|| Unfit::NextOutOfReach { dispatch: next.dispatch.clone(), starts: next.starts, travel_ms })
}

fn lacking(technician: &Technician, needed: &SkillRequirement, day: Timestamp) -> Option<Unfit> {
    let valid = |expires: Option<Timestamp>| expires.is_none_or(|at| day < at);
    let of_code = || technician.skills.iter().filter(|skill| skill.code == needed.code);
    if of_code().any(|skill| skill.level >= needed.level && valid(skill.expires_at)) {
        return None;
    }
    let code = needed.code.clone();
    if let Some(expired) = of_code().find(|skill| skill.level >= needed.level).and_then(|skill| skill.expires_at) {
        return Some(Unfit::SkillExpired { code, expires_at: expired });
    }
    Some(match of_code().map(|skill| skill.level).max() {
        Some(has) => Unfit::SkillLevelTooLow { code, needed: needed.level, has },
        None => Unfit::SkillMissing { code },
    })
}

/// The availability windows, those that touch each other joined.
fn working_time(technician: &Technician) -> Vec<Window> {
    let mut windows = technician.availability.clone();
    windows.sort_by_key(|window| window.start);
    let mut joined: Vec<Window> = Vec::with_capacity(windows.len());
    for window in windows {
        match joined.last_mut() {
            Some(last) if window.start <= last.end => last.end = last.end.max(window.end),
            _ => joined.push(window),
        }
    }
    joined
}

/// The members' bookings, or what stands against the first who cannot go. A visit that overlaps another one's time is a
/// conflict; one that only the drive makes impossible, or anything else, is unavailability.
pub(crate) fn book(candidates: &[Candidate], need: &Need<'_>) -> Result<Vec<Booking>, ServiceError> {
    let mut bookings = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let technician = candidate.technician.technician_id.clone();
        let fitness = examine(candidate, need, index == 0);
        if !fitness.reasons.is_empty() {
            let conflict = match fitness.reasons.as_slice() {
                [Unfit::Booked { dispatch, busy, .. }, ..]
                    if fitness
                        .reasons
                        .iter()
                        .all(|reason| matches!(reason, Unfit::Booked { .. } | Unfit::NextOutOfReach { .. }))
                        && need.window.is_some_and(|window| window.overlaps(busy)) =>
                {
                    Some(dispatch.clone())
                }
                _ => None,
            };
            return Err(match conflict {
                Some(dispatch) => ServiceError::AssignmentConflict { technician, dispatch },
                None => ServiceError::TechnicianNotAvailable { technician, reasons: fitness.reasons },
            });
        }
        bookings.extend(fitness.span.map(|span| Booking { technician, span }));
    }
    Ok(bookings)
}
