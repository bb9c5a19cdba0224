//! Events of other systems: Service Orders and Inventory.
//!
//! They come on topics of their own, so a cancellation can be here before the order it cancels. It is kept then (in the audit
//! trail, on the chain of the service order) and takes effect when the order comes: whoever writes looks for the other
//! afterwards, so that of two nodes at the same moment at least one sees both.

use crate::service::commit::CommitError;
use crate::service::decide::ingest::{self as decide, Ahead, Consumed, Effect, OnOrder, Stock};
use crate::service::decide::{Draft, bare_commit, office};
use crate::service::model::Location;
use crate::service::office::NewRequest;
use crate::service::shell::ATTEMPTS_MAX;
use crate::service::{Action, Caller, Service, ServiceError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sync_core::domain::{DispatchId, EventId, ServiceOrderId, Timestamp};

/// Longest event, bytes.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// Most events that one service order keeps from before it came.
const AHEAD_MAX: u32 = 100;
/// In the audit trail: an event that waits for its service order.
const EVENT_AHEAD: &str = "EVENT_AHEAD_OF_ORDER";

/// What a consumed event did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingested {
    /// The event.
    pub event_id: EventId,
    /// The dispatch concerned, if any.
    pub dispatch_id: Option<DispatchId>,
    /// What it came to.
    pub effect: IngestEffect,
}

/// What a consumed event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IngestEffect {
    /// It changed something.
    Applied,
    /// It had been consumed before, or its natural key had (rule 18).
    Duplicate,
    /// There is nothing for it to change: the visit had ended, or what it tells of is not dispatch's.
    NoEffect,
    /// Its service order is not known yet; it takes effect when that comes.
    Waiting,
}

impl Service {
    /// Consumes one event, an envelope in JSON. Idempotent for ever by event id and natural key (rule 18). Roles:
    /// integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::PoisonEvent`] and [`ServiceError::UnknownEvent`] for what no retry helps: a dead letter; the
    /// effect's own errors otherwise.
    pub async fn ingest(&self, caller: &Caller, json: &str) -> Result<Ingested, ServiceError> {
        caller.may(Action::Ingest)?;
        let Consumed { event_id, key, at, effect } = decide::read(&caller.tenant, json)?;
        let (dispatch_id, effect) = match effect {
            Effect::Schedule { request, location } => {
                let order = request.service_order_id.clone();
                let (dispatch, effect) = self.schedule(caller, &key, *request, location).await?;
                if let Some(dispatch) = &dispatch {
                    self.catch_up(caller, &order, dispatch, at).await?;
                }
                (dispatch, effect)
            }
            Effect::OnOrder { order, what } => self.on_order(caller, &order, Ahead { key, at, what }).await?,
            Effect::Stock(change) => (None, self.stock(caller, &key, &change).await?),
            Effect::Nothing => (None, IngestEffect::NoEffect),
        };
        Ok(Ingested { event_id, dispatch_id, effect })
    }

    /// A service order was scheduled: a dispatch request.
    async fn schedule(
        &self,
        caller: &Caller,
        event: &EventId,
        request: NewRequest,
        location: Option<Location>,
    ) -> Result<(Option<DispatchId>, IngestEffect), ServiceError> {
        let order = request.service_order_id.clone();
        for _ in 0..ATTEMPTS_MAX {
            if let Some(dispatch) = self.store().by_service_order(&caller.tenant, &order).await? {
                self.consume_only(caller, event).await?;
                return Ok((Some(dispatch), IngestEffect::Duplicate));
            }
            let known = self.store().location(&caller.tenant, &request.location_id).await?;
            let (site, new) = match (known, location.clone()) {
                (Some(known), _) => (known, None),
                (None, Some(location)) => (location.clone(), Some(location)),
                (None, None) => return Err(ServiceError::LocationNotFound(request.location_id)),
            };
            let mut draft = self.draft_request(caller, request.clone(), site).await?;
            draft.consumed = Some(event.clone());
            draft.locations.extend(new.map(|location| (None, location)));
            let finished = draft.finish();
            let dispatch = finished.after.stored.row.dispatch_id.clone();
            match self.commit_one(finished.commit).await {
                Ok(_) => {
                    self.0.documents.put(&caller.tenant, finished.after);
                    return Ok((Some(dispatch), IngestEffect::Applied));
                }
                // The event, the order or the location came another way meanwhile; the next look tells which.
                Err(CommitError::AlreadyDone("consumed event")) => {
                    let dispatch = self.store().by_service_order(&caller.tenant, &order).await?;
                    return Ok((dispatch, IngestEffect::Duplicate));
                }
                Err(CommitError::Conflict(_) | CommitError::AlreadyDone(_)) => {}
                Err(error) => return Err(ServiceError::Internal(error.to_string())),
            }
        }
        Err(ServiceError::Busy)
    }

    /// Something happened to a service order: its dispatch changes, now or when there is one.
    async fn on_order(
        &self,
        caller: &Caller,
        order: &ServiceOrderId,
        event: Ahead,
    ) -> Result<(Option<DispatchId>, IngestEffect), ServiceError> {
        let mut dispatch = self.store().by_service_order(&caller.tenant, order).await?;
        if dispatch.is_none() {
            self.keep(caller, order, &event).await?;
            dispatch = self.store().by_service_order(&caller.tenant, order).await?;
        }
        match dispatch {
            None => Ok((None, IngestEffect::Waiting)),
            Some(dispatch) => {
                let effect = self.on_dispatch(caller, &dispatch, &event).await?;
                Ok((Some(dispatch), effect))
            }
        }
    }

    /// Keeps an event until its service order comes.
    async fn keep(&self, caller: &Caller, order: &ServiceOrderId, event: &Ahead) -> Result<(), ServiceError> {
        let frame = self.frame(&caller.tenant, caller.user.as_str());
        let mut commit = bare_commit(&frame);
        commit.audit.push(frame.audit(chain(order), EVENT_AHEAD, json!(event)));
        commit.consumed = Some(event.waiting_key()?);
        match self.commit_one(commit).await {
            Ok(_) | Err(CommitError::AlreadyDone(_)) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(ServiceError::Busy),
            Err(error) => Err(ServiceError::Internal(error.to_string())),
        }
    }

    /// Lets take effect what came before its service order. Repeated without harm.
    async fn catch_up(
        &self,
        caller: &Caller,
        order: &ServiceOrderId,
        dispatch: &DispatchId,
        scheduled: Option<Timestamp>,
    ) -> Result<(), ServiceError> {
        for record in self.store().audit(&caller.tenant, &chain(order), 0, AHEAD_MAX).await? {
            if record.action != EVENT_AHEAD {
                continue;
            }
            let event: Ahead = serde_json::from_value(record.detail)
                .map_err(|error| ServiceError::Internal(format!("an event kept for {order}: {error}")))?;
            if !event.is_older_than(scheduled) {
                self.on_dispatch(caller, dispatch, &event).await?;
            }
        }
        Ok(())
    }

    /// Changes a dispatch.
    async fn on_dispatch(
        &self,
        caller: &Caller,
        dispatch: &DispatchId,
        Ahead { key: event, what, .. }: &Ahead,
    ) -> Result<IngestEffect, ServiceError> {
        let tenant = &caller.tenant;
        for _ in 0..ATTEMPTS_MAX {
            let opened = self.open(tenant, dispatch).await?;
            let mut draft = Draft::open(self.frame(tenant, caller.user.as_str()), self.ids(), opened);
            let decided = match what {
                OnOrder::Cancel { reason } => office::cancel(&mut draft, &caller.user, reason),
                OnOrder::Escalate => office::escalate(&mut draft, &caller.user),
            };
            match decided {
                Ok(()) => {}
                Err(ServiceError::IllegalTransition { .. }) => return self.consume_only(caller, event).await,
                Err(error) => return Err(error),
            }
            draft.consumed = Some(event.clone());
            let finished = draft.finish();
            let news = self.news(&finished, None);
            match self.commit_one(finished.commit).await {
                Ok(committed) => {
                    self.tell(news, &committed.feed);
                    self.0.documents.put(tenant, finished.after);
                    return Ok(IngestEffect::Applied);
                }
                Err(CommitError::AlreadyDone("consumed event")) => return Ok(IngestEffect::Duplicate),
                Err(CommitError::Conflict(_) | CommitError::AlreadyDone(_)) => {}
                Err(error) => return Err(ServiceError::Internal(error.to_string())),
            }
        }
        Err(ServiceError::Busy)
    }

    /// Inventory changed a technician's truck stock.
    async fn stock(&self, caller: &Caller, event: &EventId, change: &Stock) -> Result<IngestEffect, ServiceError> {
        let tenant = &caller.tenant;
        for _ in 0..ATTEMPTS_MAX {
            let row = self.store().technician(tenant, &change.technician_id).await?;
            let row = row.ok_or_else(|| ServiceError::TechnicianNotFound(change.technician_id.clone()))?;
            let frame = self.frame(tenant, caller.user.as_str());
            let mut commit = bare_commit(&frame);
            let expected = row.revision;
            commit.technicians.push((Some(expected), change.applied_to(row)));
            let chain = format!("technician:{}", change.technician_id);
            commit.audit.push(frame.audit(chain, "STOCK_CHANGED", json!(change)));
            commit.consumed = Some(event.clone());
            match self.commit_one(commit).await {
                Ok(_) => return Ok(IngestEffect::Applied),
                Err(CommitError::AlreadyDone(_)) => return Ok(IngestEffect::Duplicate),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(ServiceError::Internal(error.to_string())),
            }
        }
        Err(ServiceError::Busy)
    }

    /// Remembers an event that changes nothing.
    async fn consume_only(&self, caller: &Caller, event: &EventId) -> Result<IngestEffect, ServiceError> {
        let mut commit = bare_commit(&self.frame(&caller.tenant, caller.user.as_str()));
        commit.consumed = Some(event.clone());
        match self.commit_one(commit).await {
            Ok(_) => Ok(IngestEffect::NoEffect),
            Err(CommitError::AlreadyDone(_)) => Ok(IngestEffect::Duplicate),
            Err(CommitError::Conflict(_)) => Err(ServiceError::Busy),
            Err(error) => Err(ServiceError::Internal(error.to_string())),
        }
    }
}

/// The audit chain of a service order.
fn chain(order: &ServiceOrderId) -> String {
    format!("service-order:{order}")
}
