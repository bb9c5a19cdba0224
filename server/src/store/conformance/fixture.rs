//! Commits as the stories need them: small, and telling by their content where they come from.

use crate::events::{Event, Payload};
use crate::service::commit::{
    Booking, ChangeWrite, Commit, CommitError, Committed, DeviceWrite, DispatchWrite, FactWrite, FeedNews, FeedWrite,
};
use crate::service::model::{AuditEntry, DispatchRow, ExceptionRow, Location, Technician, TechnicianStatus};
use crate::store::Store;
use sha2::{Digest as _, Sha256};
use sync_core::document::{ActorKey, ChangeHash, StateTag};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::Priority;
use sync_core::domain::{
    DeviceId, DispatchId, EventId, FactId, LocationId, Plan, Ruling, RulingReason, ServiceOrderId, TechnicianId,
    TenantId, Timestamp, Tombstone, TombstoneReason, Verdict, VisitCard, VisitState, VisitStatus, Window,
};

/// 2026-02-02T08:00:00Z.
pub const MORNING_MS: i64 = 1_770_019_200_000;
pub const MINUTE_MS: i64 = 60_000;

pub fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}
pub fn visit(id: &str) -> DispatchId {
    DispatchId::new(id).unwrap()
}
pub fn tech(id: &str) -> TechnicianId {
    TechnicianId::new(id).unwrap()
}
pub fn phone(id: &str) -> DeviceId {
    DeviceId::new(id).unwrap()
}
pub fn fact_id(id: &str) -> FactId {
    FactId::new(id).unwrap()
}
pub fn site(id: &str) -> LocationId {
    LocationId::new(id).unwrap()
}
pub fn order_of(id: &DispatchId) -> ServiceOrderId {
    ServiceOrderId::new(format!("SO-{id}")).unwrap()
}

/// Minutes after eight in the morning.
pub fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(MORNING_MS + minutes * MINUTE_MS)
}
pub fn window(from: i64, to: i64) -> Window {
    Window { start: at(from), end: at(to) }
}

pub fn tag_of(id: &DispatchId, revision: u64) -> StateTag {
    let sum = Sha256::digest(format!("{id}@{revision}"));
    StateTag(u64::from_be_bytes(sum[..8].try_into().unwrap()))
}
pub fn document_of(id: &DispatchId, revision: u64) -> Vec<u8> {
    format!("{id}@{revision}").into_bytes()
}
pub fn change_of(id: &DispatchId, revision: u64, device: Option<&DeviceId>) -> ChangeWrite {
    let bytes = format!("{id}+{revision}").into_bytes();
    ChangeWrite {
        hash: ChangeHash(Sha256::digest(&bytes).into()),
        actor: ActorKey([7; 16]),
        device: device.cloned(),
        bytes,
    }
}

/// A commit of nothing.
pub fn blank(minutes: i64) -> Commit {
    Commit {
        tenant: acme(),
        at: at(minutes),
        follows: false,
        dispatch: None,
        exceptions: Vec::new(),
        technicians: Vec::new(),
        locations: Vec::new(),
        devices: Vec::new(),
        events: Vec::new(),
        audit: Vec::new(),
        consumed: None,
        idempotency: None,
        traceparent: None,
    }
}

/// The dispatch at this revision: pending, unscheduled, nobody told. Revision 1 inserts.
pub fn write(id: &DispatchId, revision: u64) -> DispatchWrite {
    let plan = Plan { revision, service_order_id: Some(order_of(id)), title: format!("Visit {id}"), ..Plan::default() };
    let state = VisitState::default();
    DispatchWrite {
        row: DispatchRow {
            dispatch_id: id.clone(),
            service_order_id: order_of(id),
            location_id: site("LOC-1"),
            revision,
            status: VisitStatus::Pending,
            priority: Priority::Normal,
            technician_id: None,
            epoch: 0,
            scheduled: None,
            sla_deadline: None,
            created_at: at(0),
            updated_at: at(i64::try_from(revision).unwrap()),
            card: VisitCard::new(id.clone(), &plan, &state),
            plan,
            state,
        },
        expected: revision.checked_sub(1).filter(|expected| *expected > 0),
        document: document_of(id, revision),
        tag: tag_of(id, revision),
        changes: vec![change_of(id, revision, None)],
        facts: Vec::new(),
        bookings: None,
        feed: Vec::new(),
        sla: None,
    }
}

/// The same, given to a technician under an epoch, who gets to know.
pub fn assigned(id: &DispatchId, revision: u64, technician: &TechnicianId, epoch: u64) -> DispatchWrite {
    let mut write = held_by(write(id, revision), technician);
    write.row.status = VisitStatus::Assigned;
    write.row.state.status = VisitStatus::Assigned;
    write.row.technician_id = Some(technician.clone());
    write.row.epoch = epoch;
    write.row.state.epoch = epoch;
    write
}

pub fn scheduled(mut write: DispatchWrite, span: Window) -> DispatchWrite {
    write.row.scheduled = Some(span);
    write
}
pub fn booked(mut write: DispatchWrite, technician: &TechnicianId, span: Window) -> DispatchWrite {
    write.bookings.get_or_insert_default().push(Booking { technician: technician.clone(), span });
    write
}
pub fn held_by(mut write: DispatchWrite, technician: &TechnicianId) -> DispatchWrite {
    write.feed.push(FeedWrite { technician: technician.clone(), news: FeedNews::Held });
    write
}
pub fn gone_from(mut write: DispatchWrite, technician: &TechnicianId) -> DispatchWrite {
    let news = FeedNews::Gone(tombstone(&write.row.dispatch_id));
    write.feed.push(FeedWrite { technician: technician.clone(), news });
    write
}
pub fn tombstone(id: &DispatchId) -> Tombstone {
    Tombstone {
        dispatch_id: id.clone(),
        title: format!("Visit {id}"),
        reason: TombstoneReason::Reassigned,
        note: Some("closer by".into()),
        by: "dispatcher@acme".into(),
        at: at(5),
    }
}

pub fn fact(id: &str, device: &DeviceId, seq: u64, ruling: Option<Ruling>) -> FactWrite {
    FactWrite {
        fact: fact_id(id),
        device: device.clone(),
        seq,
        knew_revision: 3,
        kind: "arrived",
        occurred_at: at(1),
        serial: None,
        ruling,
    }
}
pub fn ruling(verdict: Verdict, reason: RulingReason) -> Ruling {
    Ruling { verdict, reason, recorded_at: at(2), knew_revision: 3, clock_flagged: false, gap_flagged: false }
}
pub fn in_order() -> Option<Ruling> {
    Some(ruling(Verdict::Accepted, RulingReason::InOrder))
}

pub fn exception(id: &str, dispatch: &DispatchId, minutes: i64) -> ExceptionRow {
    ExceptionRow {
        exception_id: id.into(),
        dispatch_id: dispatch.clone(),
        fact_id: Some(fact_id(id)),
        reason: RulingReason::NotLead,
        rule: Some(5),
        technician_id: Some(tech("TECH-10")),
        raised_at: at(minutes),
        detail: serde_json::json!({"kind": "completed", "position": [48.2, 16.372_819_4]}),
        resolved_at: None,
        resolved_by: None,
        resolution: None,
    }
}

pub fn device(device: &DeviceId, technician: &TechnicianId) -> DeviceWrite {
    DeviceWrite {
        device: device.clone(),
        technician: technician.clone(),
        app: None,
        seen_at: None,
        ledger: None,
        expected_ledger: None,
        pending: None,
        acknowledged: None,
        revoked_at: None,
        wiped_at: None,
        digest_mismatch: false,
    }
}

pub fn event(id: &str, dispatch: &DispatchId, technician: &TechnicianId) -> Event {
    Event {
        event_id: EventId::new(id).unwrap(),
        timestamp: at(0),
        aggregate_id: dispatch.to_string(),
        tenant_id: acme(),
        payload: Payload::TechnicianAssigned {
            dispatch_id: dispatch.clone(),
            service_order_id: order_of(dispatch),
            technician_id: technician.clone(),
            status: "ASSIGNED".into(),
        },
    }
}
pub fn status_event(id: &str, technician: &TechnicianId) -> Event {
    Event {
        event_id: EventId::new(id).unwrap(),
        timestamp: at(0),
        aggregate_id: technician.to_string(),
        tenant_id: acme(),
        payload: Payload::TechnicianStatusChanged {
            technician_id: technician.clone(),
            dispatch_id: None,
            status: "AVAILABLE".into(),
            occurred_at: at(0),
            recorded_at: at(0),
        },
    }
}

pub fn audit(aggregate: &str, minutes: i64, detail: serde_json::Value) -> AuditEntry {
    AuditEntry {
        aggregate: aggregate.into(),
        at: at(minutes),
        actor: "dispatcher@acme".into(),
        action: "DISPATCH_ASSIGNED",
        detail,
    }
}

pub fn technician(id: &str) -> Technician {
    Technician {
        technician_id: tech(id),
        revision: 0,
        name: format!("Technician {id}"),
        skills: Vec::new(),
        home_base: Some(Coordinates { latitude: 48.208_174_3, longitude: 16.373_819_1 }),
        territory: Some("Vienna".into()),
        availability: vec![window(0, 480)],
        absences: Vec::new(),
        van_stock: std::collections::BTreeMap::new(),
        status: TechnicianStatus::Available,
        status_since: Some(at(0)),
    }
}
pub fn location(id: &str) -> Location {
    Location {
        location_id: site(id),
        revision: 0,
        name: format!("Site {id}"),
        address: "Ring 1, Vienna".into(),
        coordinates: Coordinates { latitude: 48.2, longitude: 16.37 },
        access_notes: None,
    }
}

/// Commits one, and answers what came of it.
pub async fn try_commit(store: &dyn Store, commit: Commit) -> Result<Committed, CommitError> {
    let mut results = store.commit(vec![commit]).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

/// Commits one that must succeed.
pub async fn commit(store: &dyn Store, commit: Commit) -> Committed {
    try_commit(store, commit).await.unwrap()
}

/// Commits a dispatch that must succeed.
pub async fn commit_dispatch(store: &dyn Store, minutes: i64, write: DispatchWrite) -> Committed {
    commit(store, Commit { dispatch: Some(write), ..blank(minutes) }).await
}
