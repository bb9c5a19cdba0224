//! Between the domain's types and the records that cross the language border; every `match` is exhaustive, so that a new
//! status cannot reach a phone under an old name.

use crate::error::PhoneError;
use crate::records::{
    Action, ChecklistAnswer, ChecklistLine, ConnectionProblem, ConnectionState, GoneReason, GoneVisit, Notice,
    OpenNotice, ParkedAction, PartLine, PositionFix, ProposedWindow, RulingOutcome, SignedIn, SignedOut, SyncReport,
    SyncStatus, TimeLine, Urgency, VisitDetails, VisitStage, VisitSummary,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sync_core::client::{ConnectionError, Event, Phase, Revoked, Status, SyncOutcome, TokenError};
use sync_core::domain::plan::Priority;
use sync_core::domain::{
    Answer, ChecklistItemId, FactKind, PartNumber, Position, SerialNumber, Timestamp, TombstoneReason, Verdict,
    VisitCard, VisitStatus, Window,
};
use sync_core::store::{
    Bound, NewEdit, OpenReport, ParkedItem, PendingState, SetAsideReason, SyncState, TombstoneCard, VisitDetail, Wiped,
};

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

impl From<PositionFix> for Position {
    fn from(fix: PositionFix) -> Self {
        Self { latitude: fix.latitude, longitude: fix.longitude, accuracy_m: fix.accuracy_m }
    }
}

/// What the technician does, as the store wants it.
pub(crate) fn new_edit(action: Action) -> Result<NewEdit, PhoneError> {
    Ok(NewEdit::Fact(match action {
        Action::Accept { eta } => FactKind::Accepted { eta: eta.map(timestamp) },
        Action::Reject { reason } => FactKind::Rejected { reason },
        Action::StartTravel { eta } => FactKind::TravelStarted { eta: eta.map(timestamp) },
        Action::Arrive => FactKind::Arrived,
        Action::StartWork => FactKind::WorkStarted,
        Action::Pause { reason } => FactKind::Paused { reason },
        Action::Resume => FactKind::Resumed,
        Action::Complete => FactKind::Completed,
        Action::CannotComplete { reason } => FactKind::CannotComplete { reason },
        Action::LogTime { category, minutes } => FactKind::TimeEntry { category, minutes },
        Action::UsePart { part_number, quantity, serial_number } => FactKind::PartUsed {
            part: PartNumber::new(part_number)?,
            quantity,
            serial: serial_number.map(SerialNumber::new).transpose()?,
        },
        Action::TakePhoto { sha256, size_bytes, media_type } => {
            FactKind::Photo { sha256, bytes: size_bytes, media_type }
        }
        Action::Sign { signer, sha256 } => FactKind::Signature { signer, sha256 },
        Action::AcknowledgeWindow { window_revision } => FactKind::WindowAcknowledged { window_revision },
        Action::EditNotes { at, delete, insert } => {
            return Ok(NewEdit::Note { at: length(at), delete: length(delete), insert });
        }
        Action::AnswerChecklist { item_id, value } => {
            return Ok(NewEdit::Answer { item: ChecklistItemId::new(item_id)?, value });
        }
        Action::Summarise { text } => return Ok(NewEdit::Summary(text)),
    }))
}

impl From<Bound> for SignedIn {
    fn from(bound: Bound) -> Self {
        Self { changed: bound.changed, sealed: bound.sealed, unsealed: bound.unsealed }
    }
}

impl From<Wiped> for SignedOut {
    fn from(wiped: Wiped) -> Self {
        Self { sealed: wiped.sealed }
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

impl From<VisitStage> for VisitStatus {
    fn from(stage: VisitStage) -> Self {
        match stage {
            VisitStage::Pending => Self::Pending,
            VisitStage::Assigned => Self::Assigned,
            VisitStage::Dispatched => Self::Dispatched,
            VisitStage::Confirmed => Self::Confirmed,
            VisitStage::EnRoute => Self::EnRoute,
            VisitStage::Arrived => Self::Arrived,
            VisitStage::InProgress => Self::InProgress,
            VisitStage::Paused => Self::Paused,
            VisitStage::Completed => Self::Completed,
            VisitStage::CannotComplete => Self::CannotComplete,
            VisitStage::Cancelled => Self::Cancelled,
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
        let plan = visit.view.plan;
        let checklist = plan
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
            instructions: plan.instructions,
            access_notes: plan.site.and_then(|site| site.access_notes),
            proposed_window: plan.proposed_window.map(|proposal| ProposedWindow {
                window_revision: proposal.window_revision,
                from: system_time(proposal.window.start),
                until: system_time(proposal.window.end),
            }),
            sla_deadline: plan.sla_deadline.map(system_time),
            parts_to_bring: plan
                .required_parts
                .into_iter()
                .map(|part| PartLine { part_number: part.part.into(), quantity: part.quantity, serial_number: None })
                .collect(),
            parts_used: visit
                .state
                .parts
                .into_iter()
                .map(|used| PartLine {
                    part_number: used.part.into(),
                    quantity: used.quantity,
                    serial_number: used.serial.map(Into::into),
                })
                .collect(),
            time_worked: visit
                .state
                .time
                .into_iter()
                .map(|worked| TimeLine {
                    technician_id: worked.technician.into(),
                    category: worked.category,
                    minutes: worked.minutes,
                })
                .collect(),
            attributes: plan.attributes.into_iter().collect(),
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

/// What is on disk, and how the connection is.
pub(crate) fn sync_status(state: SyncState, status: Status) -> SyncStatus {
    SyncStatus {
        device_id: state.device.into(),
        technician_id: state.user.map(|(_, technician)| technician.into()),
        unsent: state.outbox.pending,
        unsent_since: state.outbox.oldest.map(system_time),
        parked: state.parked,
        visits_to_fetch: count(state.needs_fetch.len()),
        last_sync: state.last_sync.map(system_time),
        connection: status.phase.into(),
        caught_up: status.caught_up,
        problem: status.error.map(Into::into),
    }
}

impl From<Phase> for ConnectionState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Starting | Phase::Stopped => Self::Stopped,
            Phase::NoNetwork => Self::NoNetwork,
            Phase::Waiting => Self::Waiting,
            Phase::Connecting => Self::Connecting,
            Phase::Connected => Self::Connected,
            Phase::SignInNeeded => Self::SignInNeeded,
            Phase::Revoked => Self::Revoked,
        }
    }
}

impl From<ConnectionError> for ConnectionProblem {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Address(reason) => Self::Address { reason },
            ConnectionError::Unreachable(reason) => Self::Unreachable { reason },
            ConnectionError::Tls(reason) => Self::Insecure { reason },
            ConnectionError::Unauthorized => Self::TokenRefused,
            ConnectionError::Forbidden => Self::NotAllowed,
            ConnectionError::Refused(status) => Self::ServerRefused { status },
            ConnectionError::Token(TokenError::Unavailable(reason)) => Self::NoToken { reason },
            ConnectionError::Token(TokenError::SignInNeeded(reason)) => Self::SignInNeeded { reason },
            ConnectionError::Lost(reason) | ConnectionError::Closed(reason) => Self::Lost { reason },
            ConnectionError::Version(reason) => Self::UpdateNeeded { reason },
            ConnectionError::Store(reason) => Self::StoreFailed { reason },
        }
    }
}

impl From<SyncOutcome> for SyncReport {
    fn from(outcome: SyncOutcome) -> Self {
        Self {
            caught_up: outcome.caught_up,
            unsent: outcome.pending,
            unsent_since: outcome.oldest_pending.map(system_time),
            parked: outcome.parked,
            visits_to_fetch: outcome.to_fetch,
            problem: outcome.error.map(Into::into),
        }
    }
}

pub(crate) fn parked_action(item: ParkedItem) -> ParkedAction {
    ParkedAction {
        dispatch_id: item.dispatch.into(),
        action: item.edit.name().to_owned(),
        taken_at: system_time(item.made_at),
        code: item.code,
        explanation: item.message,
    }
}

/// `None` for what the lists show by themselves.
pub(crate) fn notice(event: Event) -> Option<Notice> {
    match event {
        Event::VisitsChanged(_) | Event::CaughtUp | Event::Refreshed => None,
        Event::Ruled { dispatch, verdict } => Some(Notice::Ruled {
            dispatch_id: dispatch.into(),
            outcome: match verdict.verdict {
                Verdict::Accepted => RulingOutcome::Accepted,
                Verdict::Stale => RulingOutcome::Stale,
                Verdict::Exception => RulingOutcome::Exception,
            },
            reason: verdict.reason.code().to_owned(),
        }),
        Event::ServerReplaced { requeued } => Some(Notice::ServerReplaced { requeued }),
        Event::Revoked(Revoked { handed_over, sealed, erased }) => {
            Some(Notice::Revoked { handed_over, sealed, erased })
        }
    }
}

/// A position or length in a text.
fn length(characters: u32) -> usize {
    usize::try_from(characters).unwrap_or(usize::MAX)
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
    fn a_part_number_with_a_space_is_the_apps_fault() {
        let action = Action::UsePart { part_number: "pump 7".into(), quantity: 1, serial_number: None };
        assert!(matches!(new_edit(action), Err(PhoneError::InvalidArgument { .. })));
    }
}
