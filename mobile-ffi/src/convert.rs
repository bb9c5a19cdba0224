//! Between the domain's types and the records that cross the language border; every `match` is exhaustive, so that a new
//! status cannot reach a phone under an old name.

use crate::error::PhoneError;
use crate::records::{
    Action, ChecklistAnswer, ChecklistLine, DeviceClock, GoneReason, GoneVisit, OpenNotice, PositionFix, SyncStatus,
    Urgency, VisitDetails, VisitStage, VisitSummary,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sync_core::domain::plan::Priority;
use sync_core::domain::{
    Answer, BootId, FactKind, Position, Timestamp, TombstoneReason, VisitCard, VisitStatus, Window,
};
use sync_core::store::{DeviceNow, OpenReport, PendingState, SetAsideReason, SyncState, TombstoneCard, VisitDetail};

/// To the domain's milliseconds; a time that the domain cannot say becomes its nearest.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => millis(before.duration()).saturating_neg(),
    })
}

/// From the domain's milliseconds.
pub(crate) fn system_time(time: Timestamp) -> SystemTime {
    let span = Duration::from_millis(time.millis().unsigned_abs());
    let moved = if time.millis() < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) };
    moved.unwrap_or(UNIX_EPOCH)
}

impl TryFrom<DeviceClock> for DeviceNow {
    type Error = PhoneError;
    fn try_from(clock: DeviceClock) -> Result<Self, PhoneError> {
        Ok(Self { wall: timestamp(clock.wall), monotonic_ms: clock.monotonic_ms, boot: BootId::new(clock.boot_id)? })
    }
}

impl From<PositionFix> for Position {
    fn from(fix: PositionFix) -> Self {
        Self { latitude: fix.latitude, longitude: fix.longitude, accuracy_m: fix.accuracy_m }
    }
}

impl From<Action> for FactKind {
    fn from(action: Action) -> Self {
        match action {
            Action::Accept { eta } => Self::Accepted { eta: eta.map(timestamp) },
            Action::Reject { reason } => Self::Rejected { reason },
            Action::StartTravel { eta } => Self::TravelStarted { eta: eta.map(timestamp) },
            Action::Arrive => Self::Arrived,
            Action::StartWork => Self::WorkStarted,
            Action::Pause { reason } => Self::Paused { reason },
            Action::Resume => Self::Resumed,
            Action::Complete => Self::Completed,
            Action::CannotComplete { reason } => Self::CannotComplete { reason },
        }
    }
}

impl From<OpenReport> for OpenNotice {
    fn from(report: OpenReport) -> Self {
        let (set_aside_path, set_aside_reason) = match report.set_aside {
            None => (None, None),
            Some(aside) => {
                let reason = match aside.reason {
                    SetAsideReason::Newer { found, known } => {
                        format!("made by a newer release: schema {found}, this one knows up to {known}")
                    }
                    SetAsideReason::Corrupt(detail) => format!("damaged: {detail}"),
                };
                (Some(aside.path.to_string_lossy().into_owned()), Some(reason))
            }
        };
        Self {
            created: report.created,
            restored: report.restored,
            set_aside_path,
            set_aside_reason,
            rows_quarantined: report.rows_quarantined,
        }
    }
}

impl From<VisitStatus> for VisitStage {
    fn from(status: VisitStatus) -> Self {
        match status {
            VisitStatus::Pending => Self::Pending,
            VisitStatus::Assigned => Self::Assigned,
            VisitStatus::Dispatched => Self::Dispatched,
            VisitStatus::Confirmed => Self::Confirmed,
            VisitStatus::EnRoute => Self::EnRoute,
            VisitStatus::Arrived => Self::Arrived,
            VisitStatus::InProgress => Self::InProgress,
            VisitStatus::Paused => Self::Paused,
            VisitStatus::Completed => Self::Completed,
            VisitStatus::CannotComplete => Self::CannotComplete,
            VisitStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Priority> for Urgency {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
            Priority::Emergency => Self::Emergency,
        }
    }
}

impl From<VisitCard> for VisitSummary {
    fn from(card: VisitCard) -> Self {
        let (scheduled_start, scheduled_end) = ends(card.scheduled);
        let (arrival_from, arrival_until) = ends(card.arrival_window);
        let (contact_name, contact_phone) = match card.contact {
            Some(contact) => (Some(contact.name), contact.phone),
            None => (None, None),
        };
        Self {
            dispatch_id: card.dispatch_id.into(),
            service_order_id: card.service_order_id.map(Into::into),
            title: card.title,
            stage: card.status.into(),
            urgency: card.priority.into(),
            scheduled_start,
            scheduled_end,
            arrival_from,
            arrival_until,
            site_name: card.site_name,
            address: card.address,
            latitude: card.coordinates.map(|at| at.latitude),
            longitude: card.coordinates.map(|at| at.longitude),
            contact_name,
            contact_phone,
            lead: card.lead.map(Into::into),
            stop_work: card.stop_work,
            window_proposed: card.window_proposed,
        }
    }
}

impl From<VisitDetail> for VisitDetails {
    fn from(visit: VisitDetail) -> Self {
        let mut answers = visit.report.answers;
        let checklist = visit
            .view
            .plan
            .checklist
            .into_iter()
            .map(|item| ChecklistLine {
                answers: answers.remove(&item.id).unwrap_or_default().into_iter().map(Into::into).collect(),
                item_id: item.id.into(),
                prompt: item.label,
                required: item.required,
            })
            .collect();
        let parked = visit.pending.iter().filter(|edit| matches!(edit.state, PendingState::Parked { .. })).count();
        Self {
            summary: visit.card.into(),
            instructions: visit.view.plan.instructions,
            access_notes: visit.view.plan.site.and_then(|site| site.access_notes),
            checklist,
            notes: visit.report.notes,
            closing_summary: visit.report.summary,
            on_time: visit.state.on_time,
            billing_hold: visit.state.billing_hold,
            unsent: count(visit.pending.len()),
            parked: count(parked),
        }
    }
}

impl From<Answer> for ChecklistAnswer {
    fn from(answer: Answer) -> Self {
        Self { value: answer.value, technician_id: answer.by.into(), at: system_time(answer.at) }
    }
}

impl From<TombstoneCard> for GoneVisit {
    fn from(card: TombstoneCard) -> Self {
        let tombstone = card.tombstone;
        Self {
            dispatch_id: tombstone.dispatch_id.into(),
            title: tombstone.title,
            reason: tombstone.reason.into(),
            note: tombstone.note,
            by: tombstone.by,
            at: system_time(tombstone.at),
            unsent: card.unsent,
        }
    }
}

impl From<TombstoneReason> for GoneReason {
    fn from(reason: TombstoneReason) -> Self {
        match reason {
            TombstoneReason::Cancelled => Self::Cancelled,
            TombstoneReason::Reassigned => Self::Reassigned,
            TombstoneReason::Unassigned => Self::Unassigned,
            TombstoneReason::Withdrawn => Self::Withdrawn,
            TombstoneReason::OutOfWindow => Self::OutOfWindow,
            TombstoneReason::Unknown => Self::Unknown,
        }
    }
}

impl From<SyncState> for SyncStatus {
    fn from(state: SyncState) -> Self {
        Self {
            device_id: state.device.into(),
            technician_id: state.user.map(|(_, technician)| technician.into()),
            unsent: state.outbox.pending,
            unsent_since: state.outbox.oldest.map(system_time),
            parked: state.parked,
            visits_to_fetch: count(state.needs_fetch.len()),
            last_sync: state.last_sync.map(system_time),
        }
    }
}

fn ends(window: Option<Window>) -> (Option<SystemTime>, Option<SystemTime>) {
    (window.map(|w| system_time(w.start)), window.map(|w| system_time(w.end)))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_crosses_the_border_unharmed() {
        for millis in [-86_400_001, -1, 0, 1, 1_770_000_000_123] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(timestamp(system_time(time)), time);
        }
    }

    #[test]
    fn a_time_that_no_calendar_has_becomes_the_nearest_one() {
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(timestamp(far), Timestamp::from_millis(i64::MAX));
    }

    #[test]
    fn a_boot_id_with_a_space_is_the_apps_fault() {
        let clock = DeviceClock { wall: UNIX_EPOCH, monotonic_ms: 1, boot_id: "boot 7".into() };
        assert!(matches!(DeviceNow::try_from(clock), Err(PhoneError::InvalidArgument { .. })));
    }
}
