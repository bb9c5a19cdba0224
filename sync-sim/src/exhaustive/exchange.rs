//! A phone talks to the server: push, pull, acknowledge.

use super::clause::Clause;
use super::model::DEADLINE;
use super::stage::{FEED_PAGE, MINUTE, Stage, service_error};
use super::step::{How, Phone, id};
use super::world::{Queued, World};
use crm_dispatch_server::service::ServiceError;
use crm_dispatch_server::service::push::FeedAnswer;
use crm_dispatch_server::store::Feeds as _;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::rc::Rc;
use sync_core::document::{DocumentError, VisitDoc};
use sync_core::protocol::{Ack, Cursor, FeedItem, LaneAck, Push, PushLane, Remedy};

impl Stage {
    pub(super) fn worth_exchanging(&self, world: &mut World, phone: Phone, how: How) -> Result<bool, String> {
        let (head, _) = self
            .runtime
            .block_on(self.store.feed_head(&self.tenant, &id(phone.who().id())))
            .map_err(|error| error.to_string())?;
        let reported = world.model.reported.get(&phone).and_then(|(_, complete)| *complete);
        let late = self.watches_deadline
            && world.now > DEADLINE * MINUTE
            && reported.is_none_or(|at| at <= DEADLINE * MINUTE)
            && world.model.ever_had(phone.who());
        let revoked = world.model.revoked.is_some();
        let handset = world.handset(phone)?;
        if handset.dead {
            return Ok(false);
        }
        let lanes: BTreeSet<bool> = handset.sendable().map(|queued| queued.other_visit).collect();
        let behind = handset.cursor < head;
        Ok(match how {
            How::Whole => {
                !lanes.is_empty() || behind || late || !handset.registered || (revoked && phone == Phone::Anna)
            }
            How::AnswerLost => !lanes.is_empty(),
            How::OneLane => lanes.len() == 2,
        })
    }

    /// A phone talks to the server.
    pub(super) fn exchange(&self, world: &mut World, phone: Phone, how: How) -> Result<(), String> {
        let now = world.now;
        let tick = world.taken.len();
        let session = world.handset(phone)?.session.clone();
        let revoked = phone == Phone::Anna && world.model.revoked.is_some();
        let hello = world.handset(phone)?.hello();
        match self.wait(self.service.hello(&session, &hello)) {
            Ok(_) if !revoked => {}
            Err(ServiceError::DeviceRevoked(_)) if revoked => {}
            Ok(_) => return Err("a revoked phone is welcome".to_owned()),
            Err(error) => return Err(service_error(error)),
        }
        if !revoked {
            let unsent = world.handset(phone)?.outbox.len();
            let before = world.model.reported.get(&phone).and_then(|(_, complete)| *complete);
            world.model.reported.insert(phone, (now, if unsent == 0 { Some(now) } else { before }));
            world.handset(phone)?.registered = true;
        }
        self.push(world, phone, how)?;
        if how == How::AnswerLost {
            return Ok(());
        }
        if revoked {
            // It is heard once more, and destroys what it holds.
            self.wait(self.service.wiped(&session, 0)).map_err(service_error)?;
            let handset = world.handset(phone)?;
            handset.visits.clear();
            handset.outbox.clear();
            handset.dead = true;
            return Ok(());
        }
        self.pull(world, phone)?;
        let orders = world.model.orders;
        let handset = world.handset(phone)?;
        handset.knew = orders;
        handset.measured_ms = handset.ahead_ms;
        world.exchanged.insert(phone, tick + 1);
        Ok(())
    }

    pub(super) fn push(&self, world: &mut World, phone: Phone, how: How) -> Result<(), String> {
        let (now, tick) = (world.now, world.taken.len());
        let ever_had = world.model.ever_had(phone.who());
        let handset = world.handset(phone)?;
        handset.pushes += 1;
        let mut lanes: Vec<(bool, PushLane)> = Vec::new();
        for queued in handset.sendable() {
            if how == How::OneLane && queued.other_visit {
                continue;
            }
            let dispatch = match (&self.other, queued.other_visit) {
                (Some(other), true) => other.clone(),
                _ => self.visit.clone(),
            };
            match lanes.iter_mut().find(|(other, _)| *other == queued.other_visit) {
                Some((_, lane)) => lane.changes.push(ByteBuf::from(queued.bytes.clone())),
                None => {
                    let lane = PushLane { dispatch, changes: vec![ByteBuf::from(queued.bytes.clone())] };
                    lanes.push((queued.other_visit, lane));
                }
            }
        }
        if lanes.is_empty() {
            return Ok(());
        }
        let push = Push {
            id: handset.pushes,
            lanes: lanes.iter().map(|(_, lane)| lane.clone()).collect(),
            outbox: handset.mark(),
        };
        let pending = handset.outbox.len();
        let session = handset.session.clone();
        let outcome = self.wait(self.service.push(&session, &push)).map_err(service_error)?;
        let mut accepted_all = 0;
        let (mut numbers, mut deeds, mut heard_report) = (Vec::new(), Vec::new(), Vec::new());
        for ((other, lane), ack) in lanes.iter().zip(&outcome.ack.lanes) {
            // What the rules let in: everything up to what is damaged; nothing of somebody who never had the visit.
            let of_lane = |queued: &&mut Queued| queued.other_visit == *other;
            let handset = world.phones.get_mut(&phone).ok_or("there is no such phone")?;
            let parked_already = handset.parked.contains(other);
            let mut queue: Vec<&mut Queued> = handset.outbox.iter_mut().filter(of_lane).collect();
            let damaged = queue.iter().position(|queued| queued.poison);
            let expected = if ever_had { damaged.unwrap_or(queue.len()) } else { 0 };
            if parked_already || ack.accepted as usize != expected || lane.dispatch != ack.dispatch {
                return Err(format!(
                    "{} of {} changes are let in, and not {expected}: {ack:?}",
                    ack.accepted,
                    queue.len()
                ));
            }
            accepted_all += expected;
            for queued in queue.iter_mut().take(expected) {
                numbers.extend(queued.seq);
                if !queued.heard {
                    deeds.extend(queued.deed.clone());
                    heard_report.push(queued.bytes.clone());
                } else {
                    world.model.decide(Clause::SentAgain);
                }
                queued.heard = true;
            }
            let refused = queue.len() - expected;
            if !ever_had {
                for queued in queue.iter_mut().filter(|queued| !queued.aside) {
                    queued.aside = true;
                    world.model.keeps_aside(Clause::NeverHad);
                }
            } else if damaged.is_some() {
                world.model.keeps_aside(Clause::Damaged);
            }
            if (refused > 0) != (ack.refusal.as_ref().is_some_and(|refusal| refusal.remedy == Remedy::Park)) {
                return Err(format!("what is damaged or foreign is not parked: {ack:?}"));
            }
        }
        numbers.sort_unstable();
        // What is written into the report reaches the server as well.
        if !heard_report.is_empty() && ever_had && !(phone == Phone::Anna && world.model.revoked.is_some()) {
            for written in world.written.iter_mut().filter(|written| written.phone == phone) {
                written.heard.get_or_insert(tick);
            }
        }
        world.model.hears(phone, &numbers, deeds, now);
        if accepted_all == pending && !(phone == Phone::Anna && world.model.revoked.is_some()) {
            world.model.reported.insert(phone, (now, Some(now)));
        }
        if how != How::AnswerLost {
            for (other, ack) in lanes.iter().map(|(other, _)| *other).zip(&outcome.ack.lanes) {
                self.acknowledged(world, phone, other, ack)?;
            }
        }
        Ok(())
    }

    pub(super) fn acknowledged(
        &self,
        world: &mut World,
        phone: Phone,
        other: bool,
        ack: &LaneAck,
    ) -> Result<(), String> {
        let handset = world.handset(phone)?;
        let mut left = ack.accepted;
        handset.outbox.retain(|queued| {
            let done = queued.other_visit == other && left > 0;
            left -= u32::from(done);
            !done
        });
        if ack.refusal.is_some() {
            handset.parked.insert(other);
        }
        let (Some(update), Some(doc)) = (&ack.update, handset.visits.get(&ack.dispatch)) else { return Ok(()) };
        let mut doc = doc.doc.clone();
        match doc.apply(&update.changes) {
            Ok(()) => {
                handset.visits.insert(ack.dispatch.clone(), Rc::new(doc.into()));
            }
            // The feed brings what it builds upon.
            Err(DocumentError::CausallyOpen) => {}
            Err(error) => return Err(format!("the server's answer cannot be applied: {error}")),
        }
        Ok(())
    }

    /// Takes the feed to its end.
    pub(super) fn pull(&self, world: &mut World, phone: Phone) -> Result<(), String> {
        let session = world.handset(phone)?.session.clone();
        loop {
            let after = Cursor(world.handset(phone)?.cursor);
            let page = self.wait(self.service.feed_page(&session, after, FEED_PAGE)).map_err(service_error)?;
            let FeedAnswer::Items { items, to, head, .. } = page else {
                return Err("a feed of a few entries is too old".to_owned());
            };
            for item in items {
                self.take(world, phone, item)?;
            }
            world.handset(phone)?.cursor = to.0;
            if to >= head {
                break;
            }
        }
        let cursor = Cursor(world.handset(phone)?.cursor);
        self.wait(self.service.ack(&session, &Ack { cursor, digest_matched: true })).map_err(service_error)
    }

    pub(super) fn take(&self, world: &mut World, phone: Phone, item: FeedItem) -> Result<(), String> {
        let handset = world.handset(phone)?;
        match item {
            FeedItem::Snapshot { dispatch, document, .. } => {
                let mut doc = VisitDoc::load(&document).map_err(|error| error.to_string())?;
                // Unsent work stays on top of what the server gives.
                let own = handset.outbox.iter().filter(|queued| !queued.poison && !queued.other_visit);
                let own: Vec<&Vec<u8>> = own.map(|queued| &queued.bytes).collect();
                if dispatch == self.visit && !own.is_empty() {
                    doc.apply(&own).map_err(|error| format!("unsent work does not fit a snapshot: {error}"))?;
                }
                handset.gone.remove(&dispatch);
                handset.visits.insert(dispatch, Rc::new(doc.into()));
            }
            FeedItem::Changes { dispatch, changes, .. } => {
                let doc = handset.visits.get(&dispatch).ok_or("changes of a visit that the phone does not hold")?;
                let mut doc = doc.doc.clone();
                doc.apply(&changes).map_err(|error| format!("the feed's changes cannot be applied: {error}"))?;
                handset.visits.insert(dispatch, Rc::new(doc.into()));
            }
            FeedItem::Gone { tombstone } => {
                handset.visits.remove(&tombstone.dispatch_id);
                handset.gone.insert(tombstone.dispatch_id.clone(), tombstone);
            }
        }
        Ok(())
    }
}
