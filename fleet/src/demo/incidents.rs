//! What the office does in the course of the day, at the most unfortunate moments. Each incident waits on the board for
//! its moment, so that it happens whatever the machine's speed.

use super::board::Step;
use super::script::cast;
use super::world::World;
use crate::office::OfficeError;
use std::time::Duration;
use sync_core::domain::{DispatchId, IdError, ServiceOrderId, TechnicianId, Timestamp, Window};

const MINUTE_MS: i64 = 60_000;

/// Why an incident did not happen.
#[derive(Debug, thiserror::Error)]
enum IncidentError {
    /// The office's call failed.
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// An id in the script is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The order has no dispatch.
    #[error("{0} has no dispatch")]
    NoDispatch(ServiceOrderId),
    /// The moment never came.
    #[error("the moment never came: {0}")]
    NoMoment(&'static str),
}

type Outcome = Result<(), IncidentError>;

/// One part of the script: the order, its dispatch, and who has it.
struct Scene {
    order: ServiceOrderId,
    dispatch: DispatchId,
    who: TechnicianId,
    world: World,
}

impl Scene {
    fn new(world: &World, (order, who): (&str, &str)) -> Result<Self, IncidentError> {
        let order = ServiceOrderId::new(order)?;
        let dispatch = world.dispatches.get(&order).cloned();
        let dispatch = dispatch.ok_or_else(|| IncidentError::NoDispatch(order.clone()))?;
        Ok(Self { order, dispatch, who: TechnicianId::new(who)?, world: world.clone() })
    }

    /// Real time left until the day ends.
    fn patience(&self) -> Duration {
        self.world.clock.until(self.world.day_end)
    }

    async fn reached(&self, step: Step, moment: &'static str) -> Outcome {
        let reached = self.world.board.reached(&self.order, &self.who, step, self.patience()).await;
        reached.then_some(()).ok_or(IncidentError::NoMoment(moment))
    }

    async fn offline_at(&self, hour: i64, minute: i64, moment: &'static str) -> Outcome {
        self.world.clock.sleep_until(at(&self.world, hour, minute)).await;
        let offline = self.world.board.went_offline(&self.who, self.patience()).await;
        offline.then_some(()).ok_or(IncidentError::NoMoment(moment))
    }

    async fn later(&self, minutes: i64) {
        self.world.clock.sleep_until(self.world.clock.now().plus_millis(minutes * MINUTE_MS)).await;
    }
}

/// A time of the day, UTC.
fn at(world: &World, hour: i64, minute: i64) -> Timestamp {
    const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
    let midnight = world.day_end.millis().div_euclid(DAY_MS) * DAY_MS;
    Timestamp::from_millis(midnight + (hour * 60 + minute) * MINUTE_MS)
}

/// Lets all of them happen; each failure becomes a note in the report.
pub(super) async fn run(world: World) {
    let mut running = tokio::task::JoinSet::new();
    macro_rules! incident {
        ($name:literal, $future:expr) => {{
            let future = $future;
            let world = world.clone();
            running.spawn(async move {
                if let Err(error) = future.await {
                    world.observe(0, $name, format!("did not happen as scripted: {error}"));
                }
            });
        }};
    }
    incident!("unstarted visit cancelled", cancel_unstarted(world.clone()));
    incident!("completed, then cancelled", cancel_after_completion(world.clone()));
    incident!("cancelled, then completed", cancel_before_completion(world.clone()));
    incident!("re-assigned after offline start", reassign_started(world.clone()));
    incident!("re-assigned before the start", reassign_unstarted(world.clone()));
    incident!("window moved", move_window(world.clone()));
    incident!("stop work", stop_work(world.clone()));
    incident!("rejected visit", replan_rejected(world.clone()));
    while running.join_next().await.is_some() {}
}

/// Rule 1: cancelled at once, shown as not yet delivered until the phone has heard of it.
async fn cancel_unstarted(world: World) -> Outcome {
    let scene = Scene::new(&world, cast::CANCELLED_UNSTARTED)?;
    scene.offline_at(8, 20, "the phone is offline").await?;
    world.office.cancel(&scene.dispatch, "Customer closes early today").await?;
    let view = world.office.dispatch(&scene.dispatch).await?.value;
    let delivered = view.cancellation.is_some_and(|cancellation| cancellation.delivered);
    let seen = if delivered { "delivered at once" } else { "cancelled, not yet delivered" };
    world.observe(1, &scene.dispatch, format!("{seen}; the phone shows a card when it is back"));
    Ok(())
}

/// Rule 2: the completion came first and stands.
async fn cancel_after_completion(world: World) -> Outcome {
    let scene = Scene::new(&world, cast::COMPLETED_THEN_CANCELLED)?;
    scene.reached(Step::Ended, "the visit is completed offline").await?;
    scene.later(6).await;
    world.office.cancel(&scene.dispatch, "Duplicate order, another company was called").await?;
    Ok(())
}

/// Rule 2: the cancellation came first; a person must decide about the bill.
async fn cancel_before_completion(world: World) -> Outcome {
    let scene = Scene::new(&world, cast::CANCELLED_THEN_COMPLETED)?;
    scene.offline_at(8, 54, "the phone is offline").await?;
    world.office.cancel(&scene.dispatch, "Exhibition hall closed for an event").await?;
    Ok(())
}

/// Rule 3: whoever had started keeps the visit.
async fn reassign_started(world: World) -> Outcome {
    let (order, from, to) = cast::REASSIGNED_STARTED;
    let scene = Scene::new(&world, (order, from))?;
    scene.reached(Step::Working, "work has started offline").await?;
    scene.later(5).await;
    world.assign(&scene.dispatch, &TechnicianId::new(to)?, &[]).await?;
    Ok(())
}

/// Rules 3 and 4: re-assigned before the start; the acceptance of the old epoch comes late.
async fn reassign_unstarted(world: World) -> Outcome {
    let (order, from, to) = cast::REASSIGNED_UNSTARTED;
    let scene = Scene::new(&world, (order, from))?;
    scene.offline_at(6, 45, "the phone is offline").await?;
    world.assign(&scene.dispatch, &TechnicianId::new(to)?, &[]).await?;
    Ok(())
}

/// Rule 13: a window moved while travelling is a proposal until the phone has acknowledged it.
async fn move_window(world: World) -> Outcome {
    let scene = Scene::new(&world, cast::WINDOW_MOVED)?;
    scene.reached(Step::Travelling, "the technician is travelling").await?;
    let ordered = world.city.orders.iter().map(|event| &event.payload);
    let Some(order) = ordered.into_iter().find(|order| order.service_order_id == scene.order) else {
        return Err(IncidentError::NoDispatch(scene.order));
    };
    let window = Window {
        start: order.arrival_window.start.plus_millis(20 * MINUTE_MS),
        end: order.arrival_window.end.plus_millis(20 * MINUTE_MS),
    };
    // The departure may still be on its way to the office; the visit only counts as under way once it is known there.
    let mut travelling = false;
    for _ in 0..50 {
        let view = world.office.dispatch(&scene.dispatch).await?.value;
        travelling = view.status == sync_core::domain::VisitStatus::EnRoute;
        if travelling {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if !travelling {
        return Err(IncidentError::NoMoment("the office knows of the departure"));
    }
    world.office.move_window(&scene.dispatch, window, true).await?;
    let proposed = world.office.dispatch(&scene.dispatch).await?.value.proposed_window;
    let state = if proposed == Some(window) { "a proposal first" } else { "acknowledged within the call" };
    world.observe(13, &scene.dispatch, format!("moved by 20 minutes on the way: {state}, in force when acknowledged"));
    Ok(())
}

/// Rule 17: somebody is on site, so that cancelling is a request to stop.
async fn stop_work(world: World) -> Outcome {
    let scene = Scene::new(&world, cast::STOP_WORK)?;
    scene.reached(Step::Working, "work has started").await?;
    scene.later(12).await;
    world.office.cancel(&scene.dispatch, "Security desk withdraws the work permit").await?;
    Ok(())
}

/// No conflict, but the day's ordinary trouble: a rejected visit moves to the afternoon and to somebody else.
async fn replan_rejected(world: World) -> Outcome {
    let (order, from, to) = cast::REJECTED;
    let scene = Scene::new(&world, (order, from))?;
    scene.reached(Step::Ended, "the visit is rejected").await?;
    let mut pending = false;
    for _ in 0..500 {
        let view = world.office.dispatch(&scene.dispatch).await?.value;
        pending = view.status == sync_core::domain::VisitStatus::Pending;
        if pending {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if !pending {
        return Err(IncidentError::NoMoment("the rejection has reached the office"));
    }
    let scheduled = Window { start: at(&world, 14, 50), end: at(&world, 15, 30) };
    let window = Window { start: at(&world, 14, 30), end: at(&world, 15, 30) };
    world.office.reschedule(&scene.dispatch, scheduled, window).await?;
    world.assign(&scene.dispatch, &TechnicianId::new(to)?, &[]).await?;
    world.observe(0, &scene.dispatch, format!("rejected by {from}, moved to 14:50 and given to {to}"));
    Ok(())
}
