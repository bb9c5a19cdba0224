//! A dispatch that is being changed.

use super::{audience, sla};
use crate::events::{Event, Payload};
use crate::service::clock::Ids;
use crate::service::commit::{
    Booking, ChangeWrite, Commit, DeviceWrite, DispatchWrite, FactWrite, FeedNews, FeedWrite,
};
use crate::service::error::ServiceError;
use crate::service::model::{AuditEntry, DispatchRow, ExceptionRow, Location, StoredDispatch, Technician};
use crate::store::StandingOf;
use serde_json::Value;
use std::collections::BTreeMap;
use sync_core::document::{ActorKey, EncodedChange, StateTag, VisitDoc};
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::{
    DispatchId, EventId, Fact, FactId, LocationId, Plan, Ruling, ServiceOrderId, TechnicianId, TenantId, Timestamp,
    VisitCard, VisitState, VisitView, Window,
};

/// A dispatch with its document, opened.
pub(crate) struct Opened {
    /// The projection.
    pub(crate) stored: StoredDispatch,
    /// The document.
    pub(crate) document: VisitDoc,
    /// What the document says.
    pub(crate) view: VisitView,
}

impl Opened {
    /// Opens a saved document.
    pub(crate) fn load(stored: StoredDispatch, saved: &[u8]) -> Result<Self, ServiceError> {
        let document = VisitDoc::load(saved)
            .map_err(|error| ServiceError::Internal(format!("document of {}: {error}", stored.row.dispatch_id)))?;
        let view = document.view();
        Ok(Self { stored, document, view })
    }

    /// Brought up to where the dispatch stands now, where its row and its document are what they were.
    pub(crate) fn if_it_still_is(self, now: StandingOf) -> Option<Self> {
        let Self { stored, document, view } = self;
        let same = stored.row.revision == now.revision && stored.tag == now.tag;
        same.then(|| Self { stored: StoredDispatch::new(stored.row, stored.tag, now.standing), document, view })
    }
}

/// What every decision needs, whatever it is about.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Whose data.
    pub(crate) tenant: TenantId,
    /// The server's time.
    pub(crate) now: Timestamp,
    /// Who decides: a user, a device, or `system`.
    pub(crate) by: String,
    /// The server's actor.
    pub(crate) actor: ActorKey,
    /// What ended before this is on no phone any more.
    pub(crate) oldest_held: Timestamp,
}

impl Frame {
    /// An audit entry of this decision.
    pub(crate) fn audit(&self, aggregate: String, action: &'static str, detail: Value) -> AuditEntry {
        AuditEntry { aggregate, at: self.now, actor: self.by.clone(), action, detail }
    }

    /// An event of this decision.
    pub(crate) fn event(&self, ids: &mut Ids, aggregate_id: &str, payload: Payload) -> Event {
        Event {
            event_id: ids.event(),
            timestamp: self.now,
            aggregate_id: aggregate_id.to_owned(),
            tenant_id: self.tenant.clone(),
            payload,
        }
    }
}

/// A commit without content.
pub(crate) fn bare_commit(frame: &Frame) -> Commit {
    Commit {
        tenant: frame.tenant.clone(),
        at: frame.now,
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

/// A change of one dispatch, growing until it is finished into a commit.
pub(crate) struct Draft {
    pub(crate) frame: Frame,
    pub(crate) ids: Ids,
    /// The row as it was; `None` for a new dispatch.
    before: Option<StoredDispatch>,
    identity: (DispatchId, ServiceOrderId, LocationId, Timestamp),
    document: VisitDoc,
    view: VisitView,
    /// The plan is another than the document's.
    replanned: bool,
    state: VisitState,
    rulings: BTreeMap<FactId, Ruling>,
    changes: Vec<ChangeWrite>,
    pub(crate) facts: Vec<FactWrite>,
    pub(crate) bookings: Option<Vec<Booking>>,
    pub(crate) exceptions: Vec<ExceptionRow>,
    /// How many open exceptions this change closes.
    pub(crate) exceptions_closed: u32,
    pub(crate) events: Vec<Event>,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) technicians: Vec<(Option<u64>, Technician)>,
    pub(crate) locations: Vec<(Option<u64>, Location)>,
    pub(crate) devices: Vec<DeviceWrite>,
    pub(crate) consumed: Option<EventId>,
    /// When the lead's phone last had nothing unsent, where it was asked.
    pub(crate) phone_complete_at: Option<Timestamp>,
    /// Holders that the store knows of and that shall let go of the visit whatever the plan says.
    pub(crate) let_go: Vec<TechnicianId>,
}

/// What a draft has become.
pub(crate) struct Finished {
    /// To be written.
    pub(crate) commit: Commit,
    /// The dispatch as it is when the commit is durable.
    pub(crate) after: Opened,
    /// Who held the visit before: they get the changes, others get the whole.
    pub(crate) held_before: Vec<TechnicianId>,
    /// The server's own changes in this commit.
    pub(crate) decided: Option<EncodedChange>,
    /// Names the content that the server's own change was made on.
    pub(crate) base: StateTag,
}

impl Draft {
    /// Of a dispatch that exists.
    pub(crate) fn open(frame: Frame, ids: Ids, opened: Opened) -> Self {
        let Opened { stored, document, view } = opened;
        let row = &stored.row;
        let identity = (row.dispatch_id.clone(), row.service_order_id.clone(), row.location_id.clone(), row.created_at);
        let state = row.state.clone();
        Self::with(frame, ids, Some(stored), identity, document, view, state)
    }

    /// Of a dispatch that is made now.
    pub(crate) fn create(
        frame: Frame,
        ids: Ids,
        dispatch: DispatchId,
        order: ServiceOrderId,
        location: LocationId,
        plan: Plan,
    ) -> Self {
        let (document, genesis) = VisitDoc::genesis(frame.actor, &plan, frame.now);
        let identity = (dispatch, order, location, frame.now);
        let view = VisitView { plan, ..VisitView::default() };
        let state = fold_ruled(&view);
        let mut draft = Self::with(frame, ids, None, identity, document, view, state);
        draft.push_change(genesis, None);
        draft
    }

    fn with(
        frame: Frame,
        ids: Ids,
        before: Option<StoredDispatch>,
        identity: (DispatchId, ServiceOrderId, LocationId, Timestamp),
        document: VisitDoc,
        view: VisitView,
        state: VisitState,
    ) -> Self {
        Self {
            frame,
            ids,
            before,
            identity,
            document,
            view,
            replanned: false,
            state,
            rulings: BTreeMap::new(),
            changes: Vec::new(),
            facts: Vec::new(),
            bookings: None,
            exceptions: Vec::new(),
            exceptions_closed: 0,
            events: Vec::new(),
            audit: Vec::new(),
            technicians: Vec::new(),
            locations: Vec::new(),
            devices: Vec::new(),
            consumed: None,
            phone_complete_at: None,
            let_go: Vec::new(),
        }
    }

    /// Which dispatch.
    pub(crate) fn dispatch(&self) -> &DispatchId {
        &self.identity.0
    }

    /// The order behind it.
    pub(crate) fn order(&self) -> &ServiceOrderId {
        &self.identity.1
    }

    /// The audit chain of the dispatch.
    pub(crate) fn chain(&self) -> String {
        format!("dispatch:{}", self.dispatch())
    }

    /// The row as it was.
    pub(crate) fn before(&self) -> Option<&StoredDispatch> {
        self.before.as_ref()
    }

    /// The plan as decided so far.
    pub(crate) fn plan(&self) -> &Plan {
        &self.view.plan
    }

    /// The fold as decided so far.
    pub(crate) fn state(&self) -> &VisitState {
        &self.state
    }

    /// The document's facts and rulings as decided so far.
    pub(crate) fn view(&self) -> &VisitView {
        &self.view
    }

    /// Adds a fact that the document has, or gets by the same commit.
    pub(crate) fn add_fact(&mut self, fact: Fact) {
        self.view.facts.insert(fact.id.clone(), fact);
    }

    /// The document, for admitting changes.
    pub(crate) fn document_mut(&mut self) -> &mut VisitDoc {
        &mut self.document
    }

    /// Sets the fold, where it was computed on the way.
    pub(crate) fn set_state(&mut self, state: VisitState) {
        self.state = state;
    }

    /// Changes the plan.
    pub(crate) fn set_plan(&mut self, plan: Plan) {
        self.replan(plan);
        self.state = fold_ruled(&self.view);
    }

    /// Changes the plan where the fold is computed on the way.
    pub(crate) fn replan(&mut self, plan: Plan) {
        self.view.plan = plan;
        self.replanned = true;
    }

    /// Rules on a fact.
    pub(crate) fn rule(&mut self, fact: &FactId, ruling: Ruling) {
        self.view.rulings.insert(fact.clone(), ruling.clone());
        self.rulings.insert(fact.clone(), ruling);
    }

    /// Notes a change that the document has now.
    pub(crate) fn push_change(&mut self, change: EncodedChange, device: Option<sync_core::domain::DeviceId>) {
        self.changes.push(ChangeWrite { hash: change.hash, actor: change.actor, device, bytes: change.bytes });
    }

    /// Adds an event about this dispatch.
    pub(crate) fn event(&mut self, payload: Payload) {
        let event = self.frame.event(&mut self.ids, self.identity.0.as_str(), payload);
        self.events.push(event);
    }

    /// Adds an entry to this dispatch's audit chain.
    pub(crate) fn audit(&mut self, action: &'static str, detail: Value) {
        let entry = self.frame.audit(self.chain(), action, detail);
        self.audit.push(entry);
    }

    /// True when nothing has been decided yet that needs a commit.
    pub(crate) fn is_idle(&self) -> bool {
        let plan_same = self.before.as_ref().is_some_and(|before| before.row.plan == self.view.plan);
        plan_same
            && self.rulings.is_empty()
            && self.changes.is_empty()
            && self.facts.is_empty()
            && self.bookings.is_none()
            && self.exceptions.is_empty()
            && self.let_go.is_empty()
            && self.sla().is_none()
    }

    /// The service-level record afterwards, where it changes.
    pub(crate) fn sla(&self) -> Option<crate::service::model::SlaRow> {
        let before = self.before.as_ref().and_then(|stored| stored.sla.as_ref());
        sla::record(self.dispatch(), self.plan(), &self.state, before, self.phone_complete_at, self.frame.now)
    }

    /// Gives an untouched dispatch back.
    pub(crate) fn abandon(self) -> Option<Opened> {
        let stored = self.before?;
        Some(Opened { stored, document: self.document, view: self.view })
    }

    /// What it becomes.
    pub(crate) fn finish(mut self) -> Finished {
        self.state = fold_ruled(&self.view);
        let base = self.document.tag();
        let (actor, now) = (self.frame.actor, self.frame.now);
        let decided = if self.replanned {
            self.document.decide(actor, &self.view.plan, &self.rulings, now)
        } else {
            self.document.rule(actor, &self.rulings, now)
        };
        if let Some(change) = decided.clone() {
            self.push_change(change, None);
        }
        let sla = self.sla();
        let bookings = self.bookings.take().or_else(|| self.moved_bookings());
        let (held_before, feed) = self.feed();
        let row = self.row();
        let tag = self.document.tag();
        let expected = self.before.as_ref().map(|stored| stored.row.revision);
        let opened_exceptions =
            u32::try_from(self.exceptions.iter().filter(|row| row.resolved_at.is_none()).count()).unwrap_or(u32::MAX);
        let stored = StoredDispatch {
            row: row.clone(),
            tag,
            delivered_epoch: self.before.as_ref().and_then(|stored| stored.delivered_epoch),
            delivered_at: self.before.as_ref().and_then(|stored| stored.delivered_at),
            undelivered_to: undelivered(self.before.as_ref(), &feed),
            sla: sla.clone().or_else(|| self.before.as_ref().and_then(|stored| stored.sla.clone())),
            open_exceptions: self
                .before
                .as_ref()
                .map_or(0, |stored| stored.open_exceptions)
                .saturating_add(opened_exceptions)
                .saturating_sub(self.exceptions_closed),
        };
        let write = DispatchWrite {
            row,
            expected,
            document: self.document.save(),
            tag,
            changes: self.changes,
            facts: self.facts,
            bookings,
            feed,
            sla,
        };
        let commit = Commit {
            dispatch: Some(write),
            exceptions: self.exceptions,
            technicians: self.technicians,
            locations: self.locations,
            devices: self.devices,
            events: self.events,
            audit: self.audit,
            consumed: self.consumed,
            ..bare_commit(&self.frame)
        };
        Finished {
            commit,
            after: Opened { stored, document: self.document, view: self.view },
            held_before,
            base,
            decided,
        }
    }

    fn row(&self) -> DispatchRow {
        let (dispatch, order, location, created_at) = self.identity.clone();
        let (plan, state) = (&self.view.plan, &self.state);
        DispatchRow {
            card: VisitCard::new(dispatch.clone(), plan, state),
            dispatch_id: dispatch,
            service_order_id: order,
            location_id: location,
            revision: self.before.as_ref().map_or(1, |stored| stored.row.revision + 1),
            status: state.status,
            priority: plan.priority,
            technician_id: plan.assignment.as_ref().map(|assignment| assignment.lead.clone()),
            epoch: state.epoch,
            scheduled: plan.scheduled,
            sla_deadline: plan.sla_deadline,
            created_at,
            updated_at: self.frame.now,
            plan: plan.clone(),
            state: state.clone(),
        }
    }

    /// The calendar entries, where the facts have changed who is busy with the visit: nobody after its end; those who got
    /// it back by a rule. The travel in front of a visit that somebody is on already is over or under way.
    fn moved_bookings(&self) -> Option<Vec<Booking>> {
        let busy = |plan: &Plan, state: &VisitState| -> Option<(u64, Window)> {
            let epoch = plan.assignment.as_ref()?.epoch;
            plan.scheduled.filter(|_| audience::keeps_busy(plan, state)).map(|window| (epoch, window))
        };
        let before = self.before.as_ref().and_then(|stored| busy(&stored.row.plan, &stored.row.state));
        let after = busy(self.plan(), &self.state);
        if before == after {
            return None;
        }
        let Some((_, window)) = after else { return Some(Vec::new()) };
        let members = self.plan().assignment.iter().flat_map(|assignment| assignment.members());
        Some(members.map(|technician| Booking { technician: technician.clone(), span: window }).collect())
    }

    fn feed(&self) -> (Vec<TechnicianId>, Vec<FeedWrite>) {
        let held_before: Vec<TechnicianId> = self.before.as_ref().map_or_else(Vec::new, |stored| {
            audience::holders(&stored.row.plan, &stored.row.state, self.frame.oldest_held)
                .into_iter()
                .cloned()
                .collect()
        });
        let mut feed: Vec<FeedWrite> = audience::holders(self.plan(), &self.state, self.frame.oldest_held)
            .into_iter()
            .filter(|technician| !self.let_go.contains(technician))
            // What is not in the document (a settled exception, a calendar entry) is no news for a phone.
            .filter(|technician| !self.changes.is_empty() || !held_before.contains(technician))
            .map(|technician| FeedWrite { technician: technician.clone(), news: FeedNews::Held })
            .collect();
        // A former holder by the plan, not only by the last audience: what a phone should not have, it is told.
        let former = self.before.iter().flat_map(|stored| stored.row.plan.assignment.iter()).flat_map(|a| a.members());
        let cancelled_before = self.before.as_ref().is_some_and(|stored| audience::is_cancelled(&stored.row.plan));
        let losing = former.filter(|_| !cancelled_before).chain(&self.let_go);
        let staying = audience::holders(self.plan(), &self.state, self.frame.oldest_held);
        for technician in losing {
            if staying.contains(&technician) && !self.let_go.contains(technician) {
                continue;
            }
            if !feed.iter().any(|write| write.technician == *technician) {
                let tombstone = audience::tombstone(self.dispatch(), self.plan(), technician, self.frame.now);
                feed.push(FeedWrite { technician: technician.clone(), news: FeedNews::Gone(tombstone) });
            }
        }
        (held_before, feed)
    }
}

/// Who does not know the present state yet: everybody with news, and who was behind before.
fn undelivered(before: Option<&StoredDispatch>, feed: &[FeedWrite]) -> Vec<TechnicianId> {
    let mut technicians: Vec<TechnicianId> = before.map_or_else(Vec::new, |stored| stored.undelivered_to.clone());
    technicians.extend(feed.iter().map(|write| write.technician.clone()));
    technicians.sort();
    technicians.dedup();
    technicians
}
