//! What the back office reads.

use crate::events::Event;
use crate::service::decide;
use crate::service::decide::fit::{self, Need};
use crate::service::model::{
    AuditRecord, Device, DispatchSearch, ExceptionRow, Location, SearchPosition, StoredDispatch, Technician,
};
use crate::service::view::{CandidateView, DeviceView, DispatchPage, DispatchView, SlaReport};
use crate::service::{Action, Caller, Service, ServiceError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::domain::plan::SkillRequirement;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{DispatchId, LocationId, TechnicianId, Window};
use sync_core::protocol::limits::SILENCE_MAX_MS;

/// Most items of one page.
pub const PAGE_MAX: u32 = 500;
/// Most candidates of one answer.
const CANDIDATES_MAX: usize = 500;
const HOUR_MS: i64 = 60 * 60 * 1000;
/// A connected phone is heard, and written down, at least once in this time: it pings when it is idle, and the first ping after a
/// minute is stored.
const HEARD_WITHIN_MS: i64 = SILENCE_MAX_MS;

/// Whom to look for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateSearch {
    /// Where to go.
    pub location_id: LocationId,
    /// When; `None`: the hour from now on.
    #[serde(default)]
    pub window: Option<Window>,
    /// What they must be able to do.
    #[serde(default, deserialize_with = "crate::service::office::skills")]
    pub required_skills: Vec<SkillRequirement>,
    /// For this visit: its own booking does not count against anybody.
    #[serde(default)]
    pub dispatch_id: Option<DispatchId>,
    /// Also list who cannot, and why.
    #[serde(default)]
    pub include_unavailable: bool,
}

impl Service {
    /// One dispatch. Roles: dispatcher, integration, admin; a technician their own.
    ///
    /// # Errors
    /// [`ServiceError::DispatchNotFound`].
    pub async fn dispatch(&self, caller: &Caller, dispatch: &DispatchId) -> Result<DispatchView, ServiceError> {
        let own = caller.only_own(Action::ReadDispatch)?;
        let stored = self.store().dispatch(&caller.tenant, dispatch).await?;
        let theirs = |stored: &StoredDispatch| own.is_none_or(|own| stored.row.plan.epoch_for(own).is_some());
        let stored = stored.filter(theirs).ok_or_else(|| ServiceError::DispatchNotFound(dispatch.clone()))?;
        Ok(DispatchView::new(&stored))
    }

    /// A page of dispatches, ordered by scheduled start. The search's tenant is overridden by the caller's.
    /// Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn search_dispatches(
        &self,
        caller: &Caller,
        search: DispatchSearch,
    ) -> Result<DispatchPage, ServiceError> {
        caller.may(Action::SearchDispatches)?;
        let limit = search.limit.clamp(1, PAGE_MAX);
        let search = DispatchSearch { tenant: caller.tenant.clone(), limit, ..search };
        let found = self.store().search(&search).await?;
        let full = found.len() >= limit as usize;
        let next = found.last().filter(|_| full).map(|last| SearchPosition {
            start_ms: last.row.scheduled.map_or(i64::MAX, |window| window.start.millis()),
            dispatch_id: last.row.dispatch_id.clone(),
        });
        Ok(DispatchPage { items: found.iter().map(DispatchView::new).collect(), next })
    }

    /// Who could go, nearest first; then, if asked for, who could not and why. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::LocationNotFound`].
    pub async fn available_technicians(
        &self,
        caller: &Caller,
        search: CandidateSearch,
    ) -> Result<Vec<CandidateView>, ServiceError> {
        caller.may(Action::ListTechnicians)?;
        decide::office::window("window", search.window)?;
        let (store, tenant, now) = (self.store(), &caller.tenant, self.now());
        let location = store.location(tenant, &search.location_id).await?;
        let location = location.ok_or_else(|| ServiceError::LocationNotFound(search.location_id.clone()))?;
        let window = search.window.unwrap_or(Window { start: now, end: now.plus_millis(HOUR_MS) });
        let need =
            Need { skills: &search.required_skills, window: Some(window), site: Some(location.coordinates), now };
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.technicians(tenant, after.as_ref(), PAGE_MAX).await?;
            let full = page.len() >= PAGE_MAX as usize;
            after = page.last().map(|last| last.technician_id.clone());
            for technician in page {
                let candidate = self.candidate(tenant, technician, Some(window), search.dispatch_id.as_ref()).await?;
                let fitness = fit::examine(&candidate, &need, true);
                if fitness.reasons.is_empty() || search.include_unavailable {
                    found.push(CandidateView {
                        technician_id: candidate.technician.technician_id,
                        name: candidate.technician.name,
                        available: fitness.reasons.is_empty(),
                        distance_km: fitness.from.map(|from| from.distance_km(&location.coordinates)),
                        travel_ms: fitness.travel_ms,
                        reasons: fitness.reasons,
                    });
                }
            }
            if !full || found.len() >= CANDIDATES_MAX {
                break;
            }
        }
        let far = |view: &CandidateView| view.travel_ms.unwrap_or(i64::MAX);
        found.sort_by(|a, b| (!a.available, far(a), &a.technician_id).cmp(&(!b.available, far(b), &b.technician_id)));
        found.truncate(CANDIDATES_MAX);
        Ok(found)
    }

    /// One technician. Roles: dispatcher, admin; a technician their own.
    ///
    /// # Errors
    /// [`ServiceError::TechnicianNotFound`].
    pub async fn technician(&self, caller: &Caller, technician: &TechnicianId) -> Result<Technician, ServiceError> {
        let own = caller.only_own(Action::ReadTechnician)?;
        let missing = || ServiceError::TechnicianNotFound(technician.clone());
        if own.is_some_and(|own| own != technician) {
            return Err(missing());
        }
        self.store().technician(&caller.tenant, technician).await?.ok_or_else(missing)
    }

    /// Technicians by id, from `after` on. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn technicians(
        &self,
        caller: &Caller,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, ServiceError> {
        caller.may(Action::ListTechnicians)?;
        Ok(self.store().technicians(&caller.tenant, after, limit.clamp(1, PAGE_MAX)).await?)
    }

    /// One location. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::LocationNotFound`].
    pub async fn location(&self, caller: &Caller, location: &LocationId) -> Result<Location, ServiceError> {
        caller.may(Action::ReadLocations)?;
        let found = self.store().location(&caller.tenant, location).await?;
        found.ok_or_else(|| ServiceError::LocationNotFound(location.clone()))
    }

    /// Locations by id, from `after` on. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn locations(
        &self,
        caller: &Caller,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, ServiceError> {
        caller.may(Action::ReadLocations)?;
        Ok(self.store().locations(&caller.tenant, after, limit.clamp(1, PAGE_MAX)).await?)
    }

    /// A chain of the audit trail (`dispatch:DSP-1`, `technician:TECH-1`, `device:…`, `location:LOC-1`), oldest first.
    /// Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn audit(
        &self,
        caller: &Caller,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, ServiceError> {
        caller.may(Action::ReadAudit)?;
        Ok(self.store().audit(&caller.tenant, aggregate, after, limit.clamp(1, PAGE_MAX)).await?)
    }

    /// The event journal after a position, oldest first, each with its position. Roles: integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn events(
        &self,
        caller: &Caller,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, ServiceError> {
        caller.may(Action::ReadEvents)?;
        Ok(self.store().events(&caller.tenant, after, topic, aggregate, limit.clamp(1, PAGE_MAX)).await?)
    }

    /// The phones' health, those behind first. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn devices(
        &self,
        caller: &Caller,
        technician: Option<&TechnicianId>,
    ) -> Result<Vec<DeviceView>, ServiceError> {
        caller.may(Action::ReadDevices)?;
        let (store, tenant, now) = (self.store(), &caller.tenant, self.now());
        let mut heads = BTreeMap::new();
        let mut views = Vec::new();
        for device in store.devices(tenant, technician).await? {
            let owner = device.technician.clone();
            let head = match heads.get(&owner) {
                Some(head) => *head,
                None => {
                    let (head, _) = store.feed_head(tenant, &owner).await?;
                    heads.insert(owner.clone(), head);
                    head
                }
            };
            let here = self.hub().is_device_connected(tenant, &owner, &device.device);
            let connected = here || (store.is_shared() && now.millis_since(device.seen_at) < HEARD_WITHIN_MS);
            views.push(device_view(device, head, connected));
        }
        views.sort_by(|a, b| (!a.behind, &a.device_id).cmp(&(!b.behind, &b.device_id)));
        Ok(views)
    }

    /// What a person must decide, newest first. Roles: dispatcher, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn exceptions(
        &self,
        caller: &Caller,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, ServiceError> {
        caller.may(Action::ReadExceptions)?;
        Ok(self.store().exceptions(&caller.tenant, dispatch, open_only, limit.clamp(1, PAGE_MAX)).await?)
    }

    /// Service-level breaches announced in a window. Roles: dispatcher, integration, admin.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn sla_report(&self, caller: &Caller, window: Window) -> Result<SlaReport, ServiceError> {
        caller.may(Action::ReadSla)?;
        let breaches = self.store().sla(&caller.tenant, window).await?;
        let count =
            |status| u32::try_from(breaches.iter().filter(|row| row.status == status).count()).unwrap_or(u32::MAX);
        Ok(SlaReport {
            window,
            provisional: count(BreachStatus::Provisional),
            confirmed: count(BreachStatus::Confirmed),
            retracted: count(BreachStatus::Retracted),
            breaches,
        })
    }
}

/// A phone's health: behind when it has unsent work, missing actions, or has not taken its feed.
pub(crate) fn device_view(device: Device, head: u64, connected: bool) -> DeviceView {
    let missing = device.ledger.missing();
    let feed_behind = head.saturating_sub(device.acknowledged);
    let active = device.revoked_at.is_none();
    let behind = active && (device.pending > 0 || missing > 0 || feed_behind > 0);
    let since = device.oldest_pending.unwrap_or(device.complete_at.unwrap_or(device.seen_at));
    DeviceView {
        device_id: device.device,
        technician_id: device.technician,
        app: device.app,
        registered_at: device.registered_at,
        seen_at: device.seen_at,
        connected,
        behind,
        behind_since: behind.then_some(since),
        missing_actions: missing,
        pending: device.pending,
        oldest_pending: device.oldest_pending,
        feed_behind,
        revoked_at: device.revoked_at,
        wiped_at: device.wiped_at,
        digest_mismatches: device.digest_mismatches,
    }
}
