//! What time alone decides: service levels, held facts, the window that phones hold.

use crate::service::commit::CommitError;
use crate::service::decide::facts::{Books, Stated, judge_all};
use crate::service::decide::{Draft, sweep as decide};
use crate::service::model::Device;
use crate::service::push::touch;
use crate::service::shell::ATTEMPTS_MAX;
use crate::service::{PhoneSession, Service, ServiceError};
use crate::store::{FactKeyQuery, HeldFact, RelayTurn};
use crate::telemetry::metrics::{BREACHES, SWEEP_FAILURES, SWEEP_SECONDS};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;
use sync_core::domain::rules::sequence::GAP_HOLD_MS;
use sync_core::domain::{DeviceId, DispatchId, FactKind, TechnicianId, TenantId, UserId};

/// Most dispatches that one sweep looks at, of each kind.
const SWEEP_MAX: u32 = 500;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// Dispatches looked at.
    pub examined: u32,
    /// Breaches announced, confirmed or retracted.
    pub breaches: u32,
    /// Held facts that were ruled on.
    pub facts_released: u32,
    /// Visits that left their technicians' phones.
    pub let_go: u32,
    /// Dispatches that failed; they are tried again by the next sweep.
    pub failed: u32,
    /// Old idempotency keys and feed entries removed.
    pub pruned: u64,
}

/// What looking at one dispatch did.
#[derive(Default)]
struct Looked {
    breach: bool,
    released: u32,
}

impl Service {
    /// One sweep, if it is this node's turn among all nodes of the database; `None` while another node sweeps. Keep `turn`
    /// from call to call.
    ///
    /// # Errors
    /// [`ServiceError::Internal`] when the store does not answer.
    pub async fn sweep_in_turn(&self, turn: &mut Option<Box<dyn RelayTurn>>) -> Result<Option<Swept>, ServiceError> {
        if let Some(held) = turn
            && !held.is_held().await
        {
            *turn = None;
        }
        if turn.is_none() {
            *turn = self.store().sweep_turn().await?;
        }
        match turn {
            Some(_) => self.sweep().await.map(Some),
            None => Ok(None),
        }
    }

    /// One sweep, over all tenants, of a bounded number of dispatches. Call it every few seconds.
    ///
    /// # Errors
    /// [`ServiceError::Internal`] when the store does not answer.
    pub async fn sweep(&self) -> Result<Swept, ServiceError> {
        let began = Instant::now();
        let now = self.now();
        let mut swept = Swept::default();
        for (tenant, dispatch) in self.store().due(now, now.plus_millis(-GAP_HOLD_MS), SWEEP_MAX).await? {
            swept.examined += 1;
            match self.look_at(&tenant, &dispatch).await {
                Ok(looked) => {
                    swept.breaches += u32::from(looked.breach);
                    swept.facts_released += looked.released;
                }
                Err(error) => swept.failed += self.failed(&dispatch, &error),
            }
        }
        let oldest = now.plus_millis(-self.0.config.held_after_end_ms);
        for (tenant, dispatch) in self.store().outside_window(oldest, SWEEP_MAX).await? {
            swept.examined += 1;
            match self.let_go(&tenant, &dispatch).await {
                Ok(()) => swept.let_go += 1,
                Err(error) => swept.failed += self.failed(&dispatch, &error),
            }
        }
        swept.pruned = self.store().prune(now.plus_millis(-self.0.config.remembered_ms)).await?;
        metrics::histogram!(SWEEP_SECONDS).record(began.elapsed());
        metrics::counter!(BREACHES).increment(swept.breaches.into());
        metrics::counter!(SWEEP_FAILURES).increment(swept.failed.into());
        Ok(swept)
    }

    fn failed(&self, dispatch: &DispatchId, error: &ServiceError) -> u32 {
        tracing::error!(%dispatch, ?error, "a sweep failed on a dispatch");
        1
    }

    /// Service level and held facts of one dispatch.
    async fn look_at(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Looked, ServiceError> {
        let mut unbooked = false;
        for _ in 0..ATTEMPTS_MAX {
            let opened = self.open(tenant, dispatch).await?;
            let breach_before = opened.stored.sla.as_ref().map(|row| row.status);
            let lead = opened.view.plan.assignment.as_ref().map(|assignment| assignment.lead.clone());
            let mut draft = Draft::open(self.frame(tenant, "system"), self.ids(), opened);
            draft.phone_complete_at = match &lead {
                Some(lead) => decide::phone_complete_at(&self.store().devices(tenant, Some(lead)).await?),
                None => None,
            };
            let released = self.release_held(&mut draft, tenant).await?;
            if draft.is_idle() {
                if let Some(opened) = draft.abandon() {
                    self.0.documents.put(tenant, opened);
                }
                return Ok(Looked::default());
            }
            if unbooked {
                draft.bookings = Some(Vec::new());
                draft.audit("CALENDAR_COLLISION", json!({}));
            }
            if let Some(row) = draft.sla() {
                let detail = json!({ "deadline": row.deadline, "status": row.status, "arrivedAt": row.arrived_at });
                draft.audit("SLA_JUDGED", detail);
            }
            let finished = draft.finish();
            let breach = finished.after.stored.sla.as_ref().map(|row| row.status) != breach_before;
            let news = self.news(&finished, None);
            match self.commit_one(finished.commit).await {
                Ok(committed) => {
                    self.tell(news, &committed.feed);
                    self.0.documents.put(tenant, finished.after);
                    return Ok(Looked { breach, released });
                }
                Err(CommitError::Conflict(_) | CommitError::AlreadyDone(_)) => {}
                Err(CommitError::Overlap { .. }) => unbooked = true,
                Err(error) => return Err(ServiceError::Internal(error.to_string())),
            }
        }
        Err(ServiceError::Busy)
    }

    /// Rules on the facts that have waited long enough (rule 16), and gives their gaps up, so that what the device sends
    /// next need not wait for the same gap again.
    async fn release_held(&self, draft: &mut Draft, tenant: &TenantId) -> Result<u32, ServiceError> {
        let held = self.store().held_facts(tenant, None, Some(draft.dispatch())).await?;
        let mut by_device: BTreeMap<DeviceId, Vec<HeldFact>> = BTreeMap::new();
        for held in held {
            by_device.entry(held.device.clone()).or_default().push(held);
        }
        let mut released = 0;
        for (id, held) in by_device {
            let Some(device) = self.store().device(tenant, &id).await? else { continue };
            released += self.release_of(draft, tenant, &device, held).await?;
        }
        Ok(released)
    }

    async fn release_of(
        &self,
        draft: &mut Draft,
        tenant: &TenantId,
        device: &Device,
        held: Vec<HeldFact>,
    ) -> Result<u32, ServiceError> {
        let mut query = FactKeyQuery::default();
        let mut stated = Vec::new();
        for held in held {
            let Some(fact) = draft.view().facts.get(&held.fact) else { continue };
            query.sequence.push((fact.device.clone(), fact.seq));
            if let FactKind::PartUsed { serial: Some(serial), .. } = &fact.kind {
                query.serials.push(serial.clone());
            }
            let fact = fact.clone();
            stated.push(Stated { fact, knew_revision: held.knew_revision, held_since: Some(held.since) });
        }
        let keys = self.store().fact_keys(tenant, &query).await?;
        let last = decide::last_due(&stated, draft.frame.now);
        let mut books = Books {
            sequence: keys.sequence.into_iter().collect(),
            serials: keys.serials.into_iter().collect(),
            technician: self.store().technician(tenant, &device.technician).await?,
            arrived: device.ledger.clone(),
            device_revoked_at: device.revoked_at,
        };
        let judged = judge_all(draft, stated, &mut books);
        if let Some((technician, true)) = books.technician.map(|row| (row, judged.technician_changed)) {
            let expected = technician.revision;
            let row = crate::service::model::Technician { revision: expected + 1, ..technician };
            draft.technicians.push((Some(expected), row));
        }
        if let Some(last) = last {
            let mut ledger = device.ledger.clone();
            let given_up = decide::give_up_before(&mut ledger, last);
            if given_up > 0 {
                let session = PhoneSession {
                    tenant: tenant.clone(),
                    user: UserId::from(&device.technician),
                    technician: device.technician.clone(),
                    device: device.device.clone(),
                };
                let mut write = touch(&session, draft.frame.now);
                write.seen_at = None;
                write.ledger = Some(ledger);
                write.expected_ledger = Some(device.ledger_version);
                draft.devices.push(write);
                let detail = json!({ "before": last, "count": given_up });
                let entry = draft.frame.audit(format!("device:{}", device.device), "MISSING_ACTIONS_GIVEN_UP", detail);
                draft.audit.push(entry);
            }
        }
        Ok(judged.released)
    }

    /// Takes a visit that has left the time window from the phones (partial sync).
    async fn let_go(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<(), ServiceError> {
        for _ in 0..ATTEMPTS_MAX {
            let holders: Vec<TechnicianId> = self.store().holders(tenant, dispatch).await?;
            if holders.is_empty() {
                return Ok(());
            }
            let opened = self.open(tenant, dispatch).await?;
            let mut draft = Draft::open(self.frame(tenant, "system"), self.ids(), opened);
            draft.let_go = holders;
            let finished = draft.finish();
            let news = self.news(&finished, None);
            match self.commit_one(finished.commit).await {
                Ok(committed) => {
                    self.tell(news, &committed.feed);
                    // It is not expected to change any more: its document need not stay open.
                    return Ok(());
                }
                Err(CommitError::Conflict(_) | CommitError::AlreadyDone(_)) => {}
                Err(error) => return Err(ServiceError::Internal(error.to_string())),
            }
        }
        Err(ServiceError::Busy)
    }
}
