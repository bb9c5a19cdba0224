//! The office's morning: master data, the day's orders, the plan.

use super::DemoError;
use super::script::cast;
use super::world::{Note, World};
use crate::city::City;
use crate::office::Office;
use std::collections::BTreeMap;
use sync_core::domain::{DispatchId, EventId, ServiceOrderId, TechnicianId};

/// Registers sites and technicians, hands the orders in, one of them twice, and looks up their dispatches.
///
/// # Errors
/// [`DemoError`].
pub(super) async fn open(
    office: &Office,
    city: &City,
) -> Result<(BTreeMap<ServiceOrderId, DispatchId>, Vec<Note>), DemoError> {
    for site in city.sites.values() {
        office.put_location(site).await?;
    }
    for technician in city.technicians.values() {
        office.put_technician(technician).await?;
    }
    let lines = office.ingest(&city.orders).await?;
    if let Some((line, event)) = lines.iter().zip(&city.orders).find(|(line, _)| line.error.is_some()) {
        let why = line.error.as_ref().map(ToString::to_string).unwrap_or_default();
        return Err(DemoError::Setup(format!("{} was not taken: {why}", event.payload.service_order_id)));
    }
    let notes = hand_in_again(office, city).await?;
    let visits = office.search_all("").await?;
    let dispatches: BTreeMap<_, _> =
        visits.into_iter().map(|visit| (visit.service_order_id, visit.dispatch_id)).collect();
    for event in &city.orders {
        let order = &event.payload.service_order_id;
        if !dispatches.contains_key(order) {
            return Err(DemoError::Setup(format!("{order} has no dispatch")));
        }
    }
    Ok((dispatches, notes))
}

/// Rule 18: the same event once more, and the same order under another event id.
async fn hand_in_again(office: &Office, city: &City) -> Result<Vec<Note>, DemoError> {
    let mut notes = Vec::new();
    let again = city.orders.iter().find(|event| event.payload.service_order_id.as_str() == cast::SEEN_TWICE);
    let Some(event) = again else { return Ok(notes) };
    let mut renamed = event.clone();
    renamed.event_id = EventId::new(format!("{}-again", event.event_id))?;
    for (what, event) in [("same event id", event.clone()), ("same order, other event id", renamed)] {
        let line = office.ingest(&[event]).await?.pop();
        let effect = line.as_ref().and_then(|line| line.effect.clone()).unwrap_or_else(|| "refused".to_owned());
        let dispatch = line.and_then(|line| line.dispatch_id).map_or_else(|| cast::SEEN_TWICE.to_owned(), String::from);
        notes.push(Note { rule: 18, dispatch, outcome: format!("{what}: {effect}") });
    }
    Ok(notes)
}

/// Assigns every order as planned the day before.
///
/// # Errors
/// [`DemoError`].
pub(super) async fn assign_all(world: &World) -> Result<(), DemoError> {
    let crew = TechnicianId::new(cast::CREW.2)?;
    for event in &world.city.orders {
        let order = &event.payload;
        let (Some(dispatch), Some(lead)) =
            (world.dispatches.get(&order.service_order_id), world.city.plan.get(&order.service_order_id))
        else {
            continue;
        };
        let with = if order.service_order_id.as_str() == cast::CREW.0 { std::slice::from_ref(&crew) } else { &[] };
        world.assign(dispatch, lead, with).await?;
    }
    Ok(())
}
