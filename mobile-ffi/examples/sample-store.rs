//! Writes a store with a technician's morning, as if it had just been synced: for the tests of the bindings, and for looking
//! at an app without a server.
//!
//! ```text
//! cargo run -p mobile-ffi --example sample-store -- PATH
//! ```
//! 3 February 2026, technician `TECH-10` of `tenant-001`: `DSP-100` at 08:00 UTC, `DSP-101` at 10:00, `DSP-102` on the next day,
//! and `DSP-103`, which was given to somebody else.

use std::path::Path;
use std::process::ExitCode;
use sync_core::document::{ActorKey, VisitDoc};
use sync_core::domain::plan::{Assignment, ChecklistItem, Contact, Priority, Site};
use sync_core::domain::{
    ChecklistItemId, DispatchId, LocationId, Plan, ServiceOrderId, TechnicianId, TenantId, Timestamp, Tombstone,
    TombstoneReason, UserId, VisitCard, Window, fold, geo::Coordinates,
};
use sync_core::protocol::{Cursor, FeedItem};
use sync_core::store::{FeedBatch, OpenOptions, Protection, Store};

type Failure = Box<dyn std::error::Error>;

const HOUR_MS: i64 = 3_600_000;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        return fail("usage: sample-store PATH");
    };
    match write(Path::new(&path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

#[allow(clippy::print_stderr, reason = "a program's own words to its user")]
fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}

pub(crate) fn write(path: &Path) -> Result<(), Failure> {
    let midnight: Timestamp = "2026-02-03T00:00:00Z".parse()?;
    let mut rng = rand::rng();
    let options = OpenOptions { app: "sample-store 1.0".into(), now: midnight, protection: Protection::Unencrypted };
    let store = Store::open(path, &options, &mut rng)?.store;
    store.bind_user(&TenantId::new("tenant-001")?, &TechnicianId::new("TECH-10")?, &mut rng)?;

    let items = vec![
        visit("DSP-100", "SO-100", "Replace the circulation pump", midnight.plus_millis(8 * HOUR_MS))?,
        visit("DSP-101", "SO-101", "No hot water on the third floor", midnight.plus_millis(10 * HOUR_MS))?,
        visit("DSP-102", "SO-102", "Yearly inspection", midnight.plus_millis(32 * HOUR_MS))?,
        FeedItem::Gone {
            tombstone: Tombstone {
                dispatch_id: DispatchId::new("DSP-103")?,
                title: "Leaking valve".into(),
                reason: TombstoneReason::Reassigned,
                note: Some("Closer to Anna".into()),
                by: "dispatcher-1".into(),
                at: midnight.plus_millis(7 * HOUR_MS),
            },
        },
    ];
    let to = Cursor(u64::try_from(items.len())?);
    let batch = FeedBatch { from: Cursor(0), to, reset: false, more: false, digest: None, items };
    store.apply_batch(batch, midnight, &mut rng)?;
    store.note_synced(midnight)?;
    store.close()?;
    Ok(())
}

/// A visit of two hours as the server sends it, assigned to `TECH-10`.
fn visit(dispatch: &str, order: &str, title: &str, start: Timestamp) -> Result<FeedItem, Failure> {
    let dispatch = DispatchId::new(dispatch)?;
    let scheduled = Window { start, end: start.plus_millis(2 * HOUR_MS) };
    let plan = Plan {
        revision: 1,
        service_order_id: Some(ServiceOrderId::new(order)?),
        title: title.into(),
        instructions: "Ring twice.".into(),
        priority: Priority::High,
        site: Some(Site {
            location_id: LocationId::new("LOC-10")?,
            name: "Prater house".into(),
            address: "Praterstraße 1, 1020 Wien".into(),
            coordinates: Coordinates { latitude: 48.2137, longitude: 16.3835 },
            access_notes: Some("Key box left of the door".into()),
        }),
        contact: Some(Contact { name: "Frau Huber".into(), phone: Some("+43 1 000000".into()) }),
        scheduled: Some(scheduled),
        arrival_window: Some(scheduled),
        assignment: Some(Assignment {
            epoch: 1,
            lead: TechnicianId::new("TECH-10")?,
            crew: Vec::new(),
            continues: Vec::new(),
            offered_at: start.plus_millis(-24 * HOUR_MS),
            offered_by: UserId::new("dispatcher-1")?,
        }),
        epoch: 1,
        checklist: vec![ChecklistItem {
            id: ChecklistItemId::new("pressure")?,
            label: "Pressure in bar?".into(),
            required: true,
        }],
        ..Plan::default()
    };
    let (document, _) = VisitDoc::genesis(ActorKey([7; 16]), &plan, start);
    let card = VisitCard::new(dispatch.clone(), &plan, &fold(&document.view()));
    Ok(FeedItem::Snapshot { dispatch, document: document.save().into(), card, tag: document.tag() })
}
