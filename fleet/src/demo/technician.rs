//! A simulated technician: looks at the phone, drives, works, and writes down what happened. Knows nothing of the server.

use super::board::Step;
use super::script::{Twist, cast};
use super::world::World;
use crate::city::Technician;
use crate::phone::Phone;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::collections::BTreeSet;
use std::sync::Arc;
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{
    DispatchId, FactKind, ServiceOrderId, Timestamp, TombstoneReason, VisitCard, VisitStatus, Window,
};
use sync_core::store::{ActError, Acted};

const MINUTE_MS: i64 = 60_000;
/// Leaves this much earlier than the drive takes.
const SLACK_MS: i64 = 12 * MINUTE_MS;
/// Is on site this much before the appointment.
const EARLY_MS: i64 = 2 * MINUTE_MS;
/// Looks at the phone at least this often.
const GLANCE_MS: i64 = 5 * MINUTE_MS;

/// Why a visit does not go on as planned.
enum Interrupt {
    /// It is no longer on the phone, or has ended.
    Gone,
    /// The office asks to stop (rule 17).
    Stop,
}

struct Person {
    who: Technician,
    phone: Arc<Phone>,
    world: World,
    rng: SmallRng,
    position: Coordinates,
    seen: BTreeSet<DispatchId>,
    done: BTreeSet<DispatchId>,
    answered: BTreeSet<(DispatchId, u64)>,
}

/// A technician's day, until the world's day ends.
pub(super) async fn work_a_day(who: Technician, phone: Arc<Phone>, world: World, seed: u64) {
    let position = who.home_base;
    let mut person = Person {
        who,
        phone,
        world,
        rng: SmallRng::seed_from_u64(seed),
        position,
        seen: BTreeSet::new(),
        done: BTreeSet::new(),
        answered: BTreeSet::new(),
    };
    person.day().await;
}

impl Person {
    async fn day(&mut self) {
        while self.world.clock.now() < self.world.day_end {
            let cards = self.look().await;
            let next = cards
                .into_iter()
                .filter(|card| !card.status.is_final() && !self.done.contains(&card.dispatch_id))
                .filter(|card| !self.refuses(card))
                .filter_map(|card| Some((card.scheduled?, card)))
                .min_by_key(|(scheduled, _)| scheduled.start);
            let Some((scheduled, card)) = next else {
                self.glance(self.world.day_end).await;
                continue;
            };
            let leave = self.leave_at(&card, scheduled);
            if self.world.clock.now() < leave {
                self.glance(leave).await;
                continue;
            }
            let (dispatch, order) = (card.dispatch_id.clone(), card.service_order_id.clone());
            let ended = if card.lead.as_ref() == Some(&self.who.technician_id) {
                self.visit(&card, scheduled).await
            } else {
                self.assist(&card, scheduled).await
            };
            if matches!(ended, Err(Interrupt::Stop)) {
                self.stop_work(&dispatch, scheduled).await;
            }
            self.done.insert(dispatch);
            if let Some(order) = order {
                self.world.board.step(&order, &self.who.technician_id, Step::Ended);
            }
        }
    }

    fn leave_at(&self, card: &VisitCard, scheduled: Window) -> Timestamp {
        let drive_ms = card.coordinates.map_or(0, |site| self.position.travel_millis(&site));
        // Whoever is to hear of a new window on the way leaves in good time.
        let early = if self.has(card, &Twist::AwaitNewWindow) { 2 * SLACK_MS } else { SLACK_MS };
        scheduled.start.plus_millis(-drive_ms - early)
    }

    /// Waits until `at`, at most a glance long, or until something happens on the phone.
    async fn glance(&self, at: Timestamp) {
        let mut events = self.phone.events();
        let until = at.min(self.world.clock.now().plus_millis(GLANCE_MS));
        tokio::select! {
            () = self.world.clock.sleep_until(until) => {}
            _ = events.recv() => {}
        }
    }

    /// Looks at the list, reads cards of visits that are gone, takes or refuses what is new, acknowledges moved windows.
    async fn look(&mut self) -> Vec<VisitCard> {
        match self.phone.read_tombstones().await {
            Ok(cards) => {
                for card in cards {
                    let tombstone = card.tombstone;
                    if tombstone.reason != TombstoneReason::OutOfWindow {
                        let text = format!("{}: {:?} by {}", tombstone.title, tombstone.reason, tombstone.by);
                        self.world.board.card(&self.who.technician_id, text);
                    }
                }
            }
            Err(error) => self.trouble(&error.to_string()),
        }
        let cards = match self.phone.visits().await {
            Ok(cards) => cards,
            Err(error) => {
                self.trouble(&error.to_string());
                Vec::new()
            }
        };
        for card in &cards {
            self.consider(card).await;
        }
        cards
    }

    async fn consider(&mut self, card: &VisitCard) {
        let Some(order) = &card.service_order_id else { return };
        let dispatch = &card.dispatch_id;
        if self.seen.insert(dispatch.clone()) {
            self.world.board.step(order, &self.who.technician_id, Step::Seen);
        }
        if card.window_proposed && !card.status.is_final() {
            self.acknowledge_window(dispatch).await;
        }
        let mine = card.lead.as_ref() == Some(&self.who.technician_id);
        let undecided = matches!(card.status, VisitStatus::Assigned | VisitStatus::Dispatched);
        if !mine || !undecided || self.answered.contains(&(dispatch.clone(), card.epoch)) {
            return;
        }
        for twist in self.twists(card) {
            match twist {
                Twist::AcceptAfter(at) if self.world.clock.now() < at => return,
                Twist::Reject(reason) => {
                    self.answered.insert((dispatch.clone(), card.epoch));
                    let said = self.state(dispatch, FactKind::Rejected { reason: reason.to_owned() }, None).await;
                    if said.is_some() {
                        self.world.board.step(order, &self.who.technician_id, Step::Ended);
                    }
                    return;
                }
                _ => {}
            }
        }
        self.answered.insert((dispatch.clone(), card.epoch));
        let eta = card.scheduled.map(|window| window.start);
        if self.state(dispatch, FactKind::Accepted { eta }, None).await.is_some() {
            self.world.board.step(order, &self.who.technician_id, Step::Accepted);
        }
    }

    async fn acknowledge_window(&self, dispatch: &DispatchId) {
        let Ok(detail) = self.phone.visit(dispatch).await else { return };
        if let Some(proposal) = detail.view.plan.proposed_window {
            let kind = FactKind::WindowAcknowledged { window_revision: proposal.window_revision };
            self.state(dispatch, kind, None).await;
        }
    }

    fn twists(&self, card: &VisitCard) -> Vec<Twist> {
        let order = card.service_order_id.as_ref();
        order.map_or_else(Vec::new, |order| self.world.script.twists(&self.who.technician_id, order).to_vec())
    }

    fn has(&self, card: &VisitCard, twist: &Twist) -> bool {
        self.twists(card).contains(twist)
    }

    /// True for what was refused, or is not taken yet.
    fn refuses(&self, card: &VisitCard) -> bool {
        self.twists(card).iter().any(|twist| match twist {
            Twist::Reject(_) => true,
            Twist::AcceptAfter(at) => self.world.clock.now() < *at,
            _ => false,
        })
    }

    fn trouble(&self, text: &str) {
        self.world.observe(0, &self.who.technician_id, format!("trouble on the phone: {text}"));
    }

    /// States a fact. What the phone does not allow is simply not stated, as a real app would grey it out.
    async fn state(&self, dispatch: &DispatchId, kind: FactKind, at: Option<Coordinates>) -> Option<Acted> {
        match self.phone.state(dispatch, kind, at).await {
            Ok(acted) => Some(acted),
            Err(ActError::NotFound(_) | ActError::Illegal { .. }) => None,
            Err(error) => {
                self.trouble(&error.to_string());
                None
            }
        }
    }

    /// As [`Self::state`], where the visit cannot go on without.
    async fn must(&self, dispatch: &DispatchId, kind: FactKind, at: Option<Coordinates>) -> Result<(), Interrupt> {
        self.state(dispatch, kind, at).await.map(drop).ok_or(Interrupt::Gone)
    }

    /// Waits until `at`, keeping an eye on the phone.
    async fn until(&mut self, at: Timestamp, dispatch: &DispatchId) -> Result<(), Interrupt> {
        loop {
            let cards = self.look().await;
            let Some(card) = cards.iter().find(|card| card.dispatch_id == *dispatch) else {
                return Err(Interrupt::Gone);
            };
            if card.stop_work && !card.status.is_final() {
                return Err(Interrupt::Stop);
            }
            if card.status.is_final() {
                return Err(Interrupt::Gone);
            }
            if self.world.clock.now() >= at {
                return Ok(());
            }
            self.glance(at).await;
        }
    }

    /// A visit as its lead.
    async fn visit(&mut self, card: &VisitCard, scheduled: Window) -> Result<(), Interrupt> {
        let dispatch = &card.dispatch_id;
        let Some(order) = card.service_order_id.clone() else { return Ok(()) };
        let site = card.coordinates.unwrap_or(self.position);
        let twists = self.twists(card);
        let me = self.who.technician_id.clone();
        let step = |world: &World, step| world.board.step(&order, &me, step);

        self.must(dispatch, FactKind::TravelStarted { eta: Some(scheduled.start) }, Some(self.position)).await?;
        step(&self.world, Step::Travelling);
        let drive_ms = self.position.travel_millis(&site);
        let arrival = self.world.clock.now().plus_millis(drive_ms).max(scheduled.start.plus_millis(-EARLY_MS));
        self.until(arrival, dispatch).await?;
        self.position = site;
        self.must(dispatch, FactKind::Arrived, Some(site)).await?;
        step(&self.world, Step::Arrived);
        if let Some(Twist::RejectOnSite(reason)) = twists.iter().find(|twist| matches!(twist, Twist::RejectOnSite(_))) {
            let reason = (*reason).to_owned();
            if self.state(dispatch, FactKind::Rejected { reason: reason.clone() }, Some(site)).await.is_none() {
                self.must(dispatch, FactKind::CannotComplete { reason }, Some(site)).await?;
            }
            return Ok(());
        }
        self.until(scheduled.start, dispatch).await?;
        self.must(dispatch, FactKind::WorkStarted, Some(site)).await?;
        step(&self.world, Step::Working);
        self.work(dispatch, &order, scheduled, &twists).await?;
        self.finish(dispatch, &order, scheduled, site).await
    }

    /// Between start and end of the work.
    async fn work(
        &mut self,
        dispatch: &DispatchId,
        order: &ServiceOrderId,
        scheduled: Window,
        twists: &[Twist],
    ) -> Result<(), Interrupt> {
        let total_ms = scheduled.end.millis_since(scheduled.start);
        let share = |percent: i64| scheduled.start.plus_millis(total_ms * percent / 100);
        let detail = self.phone.visit(dispatch).await.map_err(|_| Interrupt::Gone)?;
        let plan = detail.view.plan;
        let pauses = self.rng.random_range(0..100) < 25;
        for (index, item) in plan.checklist.iter().enumerate() {
            let percent = 20 + 60 * i64::try_from(index).unwrap_or(0) / plan.checklist.len().max(1) as i64;
            self.until(share(percent), dispatch).await?;
            let value = answer_to(&item.label, &mut self.rng);
            self.try_edit(self.phone.answer(dispatch, &item.id, &value).await);
            if index == 2 && pauses {
                let reason = Some("Waiting for the caretaker to switch the circuit off".to_owned());
                self.state(dispatch, FactKind::Paused { reason }, None).await;
                self.until(share(percent + 8), dispatch).await?;
                self.state(dispatch, FactKind::Resumed, None).await;
            }
        }
        if let Some(part) = plan.required_parts.first() {
            let quantity = twists.iter().find_map(|twist| match twist {
                Twist::Quantity(quantity) => Some(*quantity),
                _ => None,
            });
            let serial = twists.iter().find_map(|twist| match twist {
                Twist::Serial(serial) => Some(*serial),
                _ => None,
            });
            let kind = FactKind::PartUsed {
                part: part.part.clone(),
                quantity: quantity.unwrap_or(if serial.is_some() { 1 } else { part.quantity }),
                serial: serial.and_then(|serial| serial.parse().ok()),
            };
            self.state(dispatch, kind, None).await;
        }
        if self.rng.random_range(0..100) < 60 {
            let kind = FactKind::Photo {
                sha256: hex(&mut self.rng),
                bytes: self.rng.random_range(180_000..2_400_000),
                media_type: "image/jpeg".to_owned(),
            };
            self.state(dispatch, kind, None).await;
        }
        let note = format!("{order}: {}", NOTES[self.rng.random_range(0..NOTES.len())]);
        self.try_edit(self.phone.note(dispatch, &note).await);
        self.until(scheduled.end.plus_millis(-MINUTE_MS), dispatch).await
    }

    async fn finish(
        &mut self,
        dispatch: &DispatchId,
        order: &ServiceOrderId,
        scheduled: Window,
        site: Coordinates,
    ) -> Result<(), Interrupt> {
        self.record_labour(dispatch, scheduled).await;
        let scripted = cast::ALL_ORDERS.contains(&order.as_str());
        if !scripted && self.rng.random_range(0..100) < 5 {
            let reason = "Spare part does not fit this model, second visit needed".to_owned();
            return self.must(dispatch, FactKind::CannotComplete { reason }, Some(site)).await;
        }
        let signer = self.phone.visit(dispatch).await.ok().and_then(|detail| detail.card.contact);
        let signer = signer.map_or_else(|| "Reception".to_owned(), |contact| contact.name);
        let signature = FactKind::Signature { signer, sha256: hex(&mut self.rng) };
        self.state(dispatch, signature, Some(site)).await;
        self.try_edit(self.phone.summary(dispatch, "Done, tested, handed over").await);
        self.must(dispatch, FactKind::Completed, Some(site)).await
    }

    async fn record_labour(&self, dispatch: &DispatchId, scheduled: Window) {
        let worked_ms = self.world.clock.now().min(scheduled.end).millis_since(scheduled.start).max(MINUTE_MS);
        let minutes = u32::try_from(worked_ms / MINUTE_MS).unwrap_or(1);
        let kind = FactKind::TimeEntry { category: "labour".to_owned(), minutes };
        self.state(dispatch, kind, None).await;
    }

    /// Rule 17: what was done is recorded, the visit ends.
    async fn stop_work(&mut self, dispatch: &DispatchId, scheduled: Window) {
        self.record_labour(dispatch, scheduled).await;
        let reason = "Stopped at the office's request".to_owned();
        self.state(dispatch, FactKind::CannotComplete { reason }, Some(self.position)).await;
    }

    /// A visit as a member of the crew: answers what the lead answers too (rule 5).
    async fn assist(&mut self, card: &VisitCard, scheduled: Window) -> Result<(), Interrupt> {
        let dispatch = &card.dispatch_id;
        let total_ms = scheduled.end.millis_since(scheduled.start);
        self.until(scheduled.start.plus_millis(total_ms / 5), dispatch).await?;
        self.position = card.coordinates.unwrap_or(self.position);
        let detail = self.phone.visit(dispatch).await.map_err(|_| Interrupt::Gone)?;
        if let Some(item) = detail.view.plan.checklist.first() {
            self.try_edit(self.phone.answer(dispatch, &item.id, "no, the breaker has no lock").await);
        }
        self.try_edit(self.phone.note(dispatch, "Second pair of hands at the landing doors").await);
        self.until(scheduled.start.plus_millis(total_ms / 2), dispatch).await?;
        self.record_labour(dispatch, scheduled).await;
        // A crew member may not complete; the phone, or at the latest the server, sees to that.
        self.state(dispatch, FactKind::Completed, Some(self.position)).await;
        Ok(())
    }

    fn try_edit(&self, edited: Result<Acted, ActError>) {
        match edited {
            Ok(_) | Err(ActError::NotFound(_) | ActError::Illegal { .. }) => {}
            Err(error) => self.trouble(&error.to_string()),
        }
    }
}

const NOTES: [&str; 8] = [
    "bearing audible above 1,200 rpm, replace at the next service",
    "cable duct shares the wall with the old pneumatic post, careful when drilling",
    "customer asks for a quote for a second unit",
    "isolation valve is stiff, works after greasing",
    "label in the cabinet was wrong, corrected",
    "measured twice, second reading counts",
    "ladder stays in the plant room, caretaker knows",
    "firmware was two versions behind, updated",
];

/// An answer that fits the question: a reading where a unit is asked for.
fn answer_to(label: &str, rng: &mut SmallRng) -> String {
    if label.contains("(Pa)") {
        format!("{}", rng.random_range(80..220))
    } else if label.contains("(°C)") {
        format!("{:.1}", rng.random_range(10..90) as f64 / 10.0)
    } else if label.contains("(dB)") || label.contains("(kg)") {
        format!("{:.2}", rng.random_range(2..60) as f64 / 100.0)
    } else if label.contains("(MΩ)") {
        format!("{}", rng.random_range(20..900))
    } else {
        "yes".to_owned()
    }
}

fn hex(rng: &mut SmallRng) -> String {
    (0..4).map(|_| format!("{:016x}", rng.random::<u64>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_a_reading_gets_one() {
        let mut rng = SmallRng::seed_from_u64(3);
        assert!(answer_to("Loss upstream (dB)", &mut rng).parse::<f64>().is_ok());
        assert!(answer_to("Differential pressure before (Pa)", &mut rng).parse::<u32>().is_ok());
        assert_eq!(answer_to("Log book signed", &mut rng), "yes");
        assert_eq!(hex(&mut rng).len(), 64);
    }
}
