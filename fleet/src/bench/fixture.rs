//! The world that is measured in: technicians, one site, and visits of the agreed shape.

use super::BenchError;
use super::server::{Server, ServerCommand, tokens};
use crate::city::{OrderEvent, Site, Skill, Technician};
use crate::clock::{DayClock, PhoneClock};
use crate::office::Office;
use crate::phone::{PhoneSetup, client_config, open_store};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sync_core::client::{Client, Phase};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::plan::{ChecklistItem, Contact, PartRequirement, Plan, Priority, SkillRequirement};
use sync_core::domain::{
    BootId, ChecklistItemId, DispatchId, EventId, IdError, LocationId, PartNumber, ServiceOrderId, SkillCode,
    TechnicianId, Timestamp, Window,
};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// From the start of one visit of a technician to the next one's.
const SLOT_MS: i64 = 30 * MINUTE_MS;
/// How long a visit lasts.
const VISIT_MS: i64 = 20 * MINUTE_MS;
/// Availability is entered in windows of a day; this many of them.
const DAYS_AVAILABLE: i64 = 120;
/// Calls of the office under way at once while the world is filled.
const FILL_CONCURRENT: usize = 16;
/// Fields, items and characters of the agreed visit document.
const PLAN_FIELDS: usize = 30;
const CHECKLIST_ITEMS: usize = 20;
/// Sixty characters.
const NOTE: &str = "Ring at the porter's desk, the boiler room key hangs there. ";
/// Nothing here should take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// A server with an office.
pub(super) struct World {
    /// The server.
    pub(super) server: Server,
    /// The office.
    pub(super) office: Office,
    /// Real time.
    pub(super) clock: DayClock,
    command: ServerCommand,
    orders: std::sync::atomic::AtomicUsize,
}

/// The time, as any program reads it.
pub(super) fn real_time() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

impl World {
    /// A fresh server with one site and `technicians` technicians.
    pub(super) async fn start(command: &ServerCommand, dir: &Path, technicians: usize) -> Result<Self, BenchError> {
        let server = Server::start(command, dir).await?;
        let office = Office::new(&server.base_url(), tokens(command), 1)?;
        office.put_location(&site()?).await?;
        let world = Self {
            server,
            office,
            clock: DayClock::starting_at(real_time(), 1.0),
            command: command.clone(),
            orders: std::sync::atomic::AtomicUsize::new(0),
        };
        each((0..technicians).collect(), |index| {
            let office = world.office.clone();
            async move { Ok(office.put_technician(&technician(index)?).await?) }
        })
        .await?;
        Ok(world)
    }

    /// Hands in `count` orders, the visit of number n in slot n of its day; answers their dispatches.
    pub(super) async fn orders(&self, count: usize) -> Result<Vec<DispatchId>, BenchError> {
        let first = self.orders.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        let numbers: Vec<_> = (first..first + count).collect();
        let chunks: Vec<Vec<usize>> = numbers.chunks(50).map(<[usize]>::to_vec).collect();
        let lines = each(chunks, |chunk| {
            let office = self.office.clone();
            async move {
                let events = chunk.into_iter().map(order).collect::<Result<Vec<_>, _>>()?;
                Ok(office.ingest(&events).await?)
            }
        })
        .await?;
        let dispatches: Vec<_> = lines.into_iter().flatten().filter_map(|line| line.dispatch_id).collect();
        if dispatches.len() == count {
            Ok(dispatches)
        } else {
            Err(BenchError::World(format!("{} of {count} orders were taken", dispatches.len())))
        }
    }

    /// Assigns each visit to its technician.
    pub(super) async fn assign_all(&self, pairs: Vec<(DispatchId, TechnicianId)>) -> Result<(), BenchError> {
        each(pairs, |(dispatch, technician)| {
            let office = self.office.clone();
            async move { Ok(office.assign(&dispatch, &technician, &[]).await?) }
        })
        .await
        .map(drop)
    }

    /// One technician's phone, at `path`, that reaches the server through `base_url`.
    pub(super) fn setup(
        &self,
        technician: TechnicianId,
        base_url: String,
        seed: u64,
    ) -> Result<PhoneSetup, BenchError> {
        let boot = BootId::new("boot-bench")?;
        Ok(PhoneSetup {
            base_url,
            tenant: self.command.tenant.clone(),
            technician,
            clock: PhoneClock::new(self.clock.clone(), 0, boot),
            tokens: tokens(&self.command),
            seed,
            online: false,
        })
    }

    /// Opens a phone that has no network yet.
    pub(super) async fn phone(&self, path: &Path, setup: PhoneSetup) -> Result<Client, BenchError> {
        let (path, for_store) = (path.to_owned(), setup.clone());
        let store = blocking(move || open_store(&path, &for_store)).await??;
        Ok(Client::start(store, client_config(&setup)))
    }
}

/// Runs store work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BenchError> {
    tokio::task::spawn_blocking(work).await.map_err(|lost| BenchError::Machine(lost.to_string()))
}

/// Waits until a phone has everything.
pub(super) async fn caught_up(client: &Client) -> Result<(), BenchError> {
    match tokio::time::timeout(PATIENCE, client.caught_up()).await {
        Ok(()) => Ok(()),
        Err(_) => {
            let status = client.status().borrow().clone();
            Err(BenchError::World(format!("a phone does not catch up: {status:?}")))
        }
    }
}

/// Takes a phone's network away and waits until it knows.
pub(super) async fn disconnect(client: &Client) {
    let mut status = client.status();
    client.set_network(false);
    let _ = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.phase == Phase::NoNetwork)).await;
}

/// Does the same for each, a bounded number at once; answers in order.
pub(super) async fn each<I, T, F, Fut>(items: Vec<I>, work: F) -> Result<Vec<T>, BenchError>
where
    F: Fn(I) -> Fut,
    Fut: Future<Output = Result<T, BenchError>>,
{
    use futures_util::{StreamExt, TryStreamExt};
    futures_util::stream::iter(items.into_iter().map(work)).buffered(FILL_CONCURRENT).try_collect().await
}

/// `TECH-B-0007`.
pub(super) fn technician_id(index: usize) -> Result<TechnicianId, IdError> {
    TechnicianId::new(format!("TECH-B-{index:05}"))
}

fn home() -> Coordinates {
    Coordinates { latitude: 48.2082, longitude: 16.3738 }
}

fn site() -> Result<Site, IdError> {
    Ok(Site {
        location_id: LocationId::new("LOC-B-1")?,
        name: "Vienna, first district".to_owned(),
        address: "Stephansplatz 1, 1010 Wien".to_owned(),
        coordinates: home(),
        access_notes: "Ring twice".to_owned(),
    })
}

fn technician(index: usize) -> Result<Technician, BenchError> {
    let today = real_time().millis().div_euclid(DAY_MS) * DAY_MS;
    let day = |number: i64| Window {
        start: Timestamp::from_millis(today + number * DAY_MS),
        end: Timestamp::from_millis(today + (number + 1) * DAY_MS),
    };
    Ok(Technician {
        technician_id: technician_id(index)?,
        name: format!("Technician {index}"),
        skills: vec![Skill { code: SkillCode::new("HVAC")?, level: 3, expires_at: None }],
        home_base: home(),
        territory: "VIENNA".to_owned(),
        availability: (0..DAYS_AVAILABLE).map(day).collect(),
        van_stock: BTreeMap::new(),
    })
}

/// When visit number `index` takes place: one slot after the other from tomorrow on, never over midnight.
fn slot(index: usize) -> Window {
    let per_day = DAY_MS / SLOT_MS - 2;
    let index = i64::try_from(index).unwrap_or(0) % (per_day * (DAYS_AVAILABLE - 2));
    let tomorrow = (real_time().millis().div_euclid(DAY_MS) + 1) * DAY_MS;
    let start = tomorrow + (index / per_day) * DAY_MS + (1 + index % per_day) * SLOT_MS;
    Window { start: Timestamp::from_millis(start), end: Timestamp::from_millis(start + VISIT_MS) }
}

/// Order number `index`, of the agreed shape.
fn order(index: usize) -> Result<OrderEvent, BenchError> {
    let plan = plan(index)?;
    let window = plan.scheduled.unwrap_or_else(|| slot(index));
    let id = format!("SO-B-{index:06}");
    Ok(OrderEvent {
        event_type: "ServiceOrderScheduledEvent".to_owned(),
        event_id: EventId::new(format!("evt-b-{index:06}"))?,
        timestamp: real_time(),
        aggregate_id: id.clone(),
        tenant_id: "tenant-001".parse()?,
        payload: crate::city::Order {
            service_order_id: ServiceOrderId::new(id)?,
            schedule_start: window.start,
            schedule_end: window.end,
            location_id: LocationId::new("LOC-B-1")?,
            title: plan.title,
            instructions: plan.instructions,
            priority: plan.priority,
            required_skills: plan.required_skills,
            required_parts: plan.required_parts,
            sla_deadline: window.end.plus_millis(DAY_MS),
            arrival_window: window,
            contact: Contact { name: "Maria Haas".to_owned(), phone: Some("+43 1 5550100".to_owned()) },
            checklist: plan.checklist,
            attributes: plan.attributes,
        },
    })
}

/// A plan with thirty fields, twenty checklist items and a note of sixty characters.
pub(super) fn plan(index: usize) -> Result<Plan, BenchError> {
    let checklist = (0..CHECKLIST_ITEMS)
        .map(|item| {
            Ok(ChecklistItem {
                id: ChecklistItemId::new(format!("item-{item:02}"))?,
                label: format!("Step {item:02}: measured, in range, written down"),
                required: item % 2 == 0,
            })
        })
        .collect::<Result<Vec<_>, IdError>>()?;
    Ok(Plan {
        revision: 1,
        service_order_id: Some(ServiceOrderId::new(format!("SO-B-{index:06}"))?),
        title: format!("Inspection of unit {index}"),
        instructions: NOTE.to_owned(),
        priority: Priority::Normal,
        required_skills: vec![SkillRequirement { code: SkillCode::new("HVAC")?, level: 1 }],
        required_parts: vec![PartRequirement { part: PartNumber::new("PART-1")?, quantity: 1 }],
        scheduled: Some(slot(index)),
        arrival_window: Some(slot(index)),
        checklist,
        attributes: (0..PLAN_FIELDS)
            .map(|field| (format!("field{field:02}"), format!("value {index}-{field}")))
            .collect(),
        ..Plan::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_visit_has_the_agreed_shape() {
        let event = order(7).unwrap();
        assert_eq!(event.payload.attributes.len(), 30);
        assert_eq!(event.payload.checklist.len(), 20);
        assert_eq!(event.payload.instructions.len(), 60);
    }

    #[test]
    fn five_thousand_visits_of_one_technician_do_not_overlap() {
        let technician = technician(0).unwrap();
        let slots: Vec<_> = (0..5_000).map(slot).collect();
        assert!(slots.windows(2).all(|pair| pair[0].end < pair[1].start));
        for slot in slots {
            assert!(technician.availability.iter().any(|day| day.start < slot.start && slot.end < day.end));
        }
    }
}
