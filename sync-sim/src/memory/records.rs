//! Dispatches, the directory and devices.

use super::{Dispatch, MemoryStore, Tenant, reused, verdict};
use async_trait::async_trait;
use crm_dispatch_server::service::model::{
    Device, DispatchSearch, ExceptionRow, Location, SlaRow, StoredDispatch, Technician,
};
use crm_dispatch_server::store::{
    Devices, Directory, Dispatches, FactKeyQuery, FactKeys, HeldFact, StandingOf, StoreError,
};
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::{
    DeviceId, DispatchId, LocationId, SerialNumber, ServiceOrderId, TechnicianId, TenantId, Timestamp, Verdict, Window,
};

#[async_trait]
impl Dispatches for MemoryStore {
    async fn dispatch(&self, tenant: &TenantId, id: &DispatchId) -> Result<Option<StoredDispatch>, StoreError> {
        self.open()?;
        Ok(self.with(tenant, |t| t.dispatches.get(id).map(|dispatch| t.stored(dispatch))))
    }

    async fn standings(&self, tenant: &TenantId, ids: &[DispatchId]) -> Result<Vec<StandingOf>, StoreError> {
        let found = |t: &Tenant| {
            let known = ids.iter().filter_map(|id| t.dispatches.get(id));
            known
                .map(|dispatch| StandingOf {
                    dispatch: dispatch.row.dispatch_id.clone(),
                    revision: dispatch.row.revision,
                    tag: dispatch.tag,
                    standing: t.standing(dispatch),
                })
                .collect()
        };
        Ok(self.with(tenant, found))
    }

    async fn documents(
        &self,
        tenant: &TenantId,
        ids: &[DispatchId],
    ) -> Result<Vec<(StoredDispatch, Vec<u8>)>, StoreError> {
        let found = |t: &Tenant| {
            let known = ids.iter().filter_map(|id| t.dispatches.get(id));
            known.map(|dispatch| (t.stored(dispatch), dispatch.document.clone())).collect()
        };
        Ok(self.with(tenant, found))
    }

    async fn by_service_order(
        &self,
        tenant: &TenantId,
        order: &ServiceOrderId,
    ) -> Result<Option<DispatchId>, StoreError> {
        Ok(self.with(tenant, |t| t.orders.get(order).cloned()))
    }

    async fn search(&self, search: &DispatchSearch) -> Result<Vec<StoredDispatch>, StoreError> {
        let wanted = |dispatch: &&Dispatch| {
            let row = &dispatch.row;
            let position = (dispatch.start_ms(), &row.dispatch_id);
            (search.statuses.is_empty() || search.statuses.contains(&dispatch.office_status()))
                && search.technician.as_ref().is_none_or(|technician| row.technician_id.as_ref() == Some(technician))
                && search.location.as_ref().is_none_or(|location| row.location_id == *location)
                && search.service_order.as_ref().is_none_or(|order| row.service_order_id == *order)
                && search.priority_min.is_none_or(|priority| row.priority >= priority)
                && search.after.as_ref().is_none_or(|after| position > (after.start_ms, &after.dispatch_id))
                && search
                    .scheduled
                    .is_none_or(|window| (window.start.millis()..window.end.millis()).contains(&dispatch.start_ms()))
        };
        Ok(self.with(&search.tenant, |t| {
            let mut found: Vec<_> = t.dispatches.values().filter(wanted).collect();
            found.sort_by_key(|dispatch| (dispatch.start_ms(), dispatch.row.dispatch_id.clone()));
            found.into_iter().take(search.limit as usize).map(|dispatch| t.stored(dispatch)).collect()
        }))
    }

    async fn exceptions(
        &self,
        tenant: &TenantId,
        dispatch: Option<&DispatchId>,
        open_only: bool,
        limit: u32,
    ) -> Result<Vec<ExceptionRow>, StoreError> {
        let mut found: Vec<_> = self.with(tenant, |t| t.exceptions.values().cloned().collect());
        found.retain(|row: &ExceptionRow| {
            dispatch.is_none_or(|id| row.dispatch_id == *id) && (!open_only || row.resolved_at.is_none())
        });
        found.sort_by(|a, b| (b.raised_at, &b.exception_id).cmp(&(a.raised_at, &a.exception_id)));
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn due(
        &self,
        now: Timestamp,
        held_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let tables = self.tables();
        let (mut passed, mut held, mut provisional) = (Vec::new(), Vec::new(), Vec::new());
        for (tenant, t) in &tables.tenants {
            for (id, dispatch) in &t.dispatches {
                let key = || (tenant.clone(), id.clone());
                match (&dispatch.sla, dispatch.watched()) {
                    (None, Some(watch)) if watch < now => passed.push((watch.millis(), key())),
                    (Some(sla), watch) if sla.status == BreachStatus::Provisional => {
                        let reported = t.devices.values().any(|device| {
                            Some(&device.technician) == dispatch.row.technician_id.as_ref()
                                && device.complete_at.is_some_and(|at| at >= sla.deadline)
                        });
                        let decidable = watch.is_none() || dispatch.row.technician_id.is_none() || reported;
                        provisional.push(((!decidable, sla.deadline), key()));
                    }
                    _ => {}
                }
            }
            for fact in t.facts.values() {
                if let Some(since) = fact.held_since.filter(|since| *since < held_before) {
                    held.push((since.millis(), (tenant.clone(), fact.dispatch.clone())));
                }
            }
        }
        passed.sort();
        held.sort();
        provisional.sort();
        let keys = passed.into_iter().chain(held).map(|(_, key)| key);
        let keys = keys.chain(provisional.into_iter().map(|(_, key)| key));
        let mut found = Vec::new();
        for key in keys {
            if found.len() < limit as usize && !found.contains(&key) {
                found.push(key);
            }
        }
        Ok(found)
    }

    async fn sla(&self, tenant: &TenantId, window: Window) -> Result<Vec<SlaRow>, StoreError> {
        let mut rows: Vec<_> =
            self.with(tenant, |t| t.dispatches.values().filter_map(|dispatch| dispatch.sla.clone()).collect());
        rows.retain(|row: &SlaRow| row.announced_at >= window.start && row.announced_at < window.end);
        rows.sort_by(|a, b| (a.announced_at, &a.dispatch_id).cmp(&(b.announced_at, &b.dispatch_id)));
        Ok(rows)
    }

    async fn fact_keys(&self, tenant: &TenantId, query: &FactKeyQuery) -> Result<FactKeys, StoreError> {
        Ok(self.with(tenant, |t| {
            let mut keys = FactKeys::default();
            for (id, fact) in &t.facts {
                let number = (fact.write.device.clone(), fact.write.seq);
                if !reused(&fact.write) && query.sequence.contains(&number) {
                    keys.sequence.push((number, id.clone()));
                }
                if let Some(serial) = &fact.write.serial
                    && query.serials.contains(serial)
                    && (verdict(&fact.write) == Some(Verdict::Accepted) || fact.held_since.is_some())
                {
                    keys.serials.push((SerialNumber::clone(serial), id.clone()));
                }
            }
            keys
        }))
    }
}

#[async_trait]
impl Directory for MemoryStore {
    async fn technician(&self, tenant: &TenantId, id: &TechnicianId) -> Result<Option<Technician>, StoreError> {
        Ok(self.with(tenant, |t| t.technicians.get(id).cloned()))
    }

    async fn technicians(
        &self,
        tenant: &TenantId,
        after: Option<&TechnicianId>,
        limit: u32,
    ) -> Result<Vec<Technician>, StoreError> {
        Ok(self.with(tenant, |t| {
            let rows = t.technicians.values().filter(|row| after.is_none_or(|after| row.technician_id > *after));
            rows.take(limit as usize).cloned().collect()
        }))
    }

    async fn location(&self, tenant: &TenantId, id: &LocationId) -> Result<Option<Location>, StoreError> {
        Ok(self.with(tenant, |t| t.locations.get(id).cloned()))
    }

    async fn locations(
        &self,
        tenant: &TenantId,
        after: Option<&LocationId>,
        limit: u32,
    ) -> Result<Vec<Location>, StoreError> {
        Ok(self.with(tenant, |t| {
            let rows = t.locations.values().filter(|row| after.is_none_or(|after| row.location_id > *after));
            rows.take(limit as usize).cloned().collect()
        }))
    }

    async fn bookings(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        window: Window,
    ) -> Result<Vec<(DispatchId, Window, LocationId)>, StoreError> {
        Ok(self.with(tenant, |t| {
            let mut found = Vec::new();
            for dispatch in t.dispatches.values() {
                for booking in dispatch.bookings.iter().filter(|booking| booking.technician == *technician) {
                    if booking.span.start < window.end && booking.span.end > window.start {
                        let row = &dispatch.row;
                        found.push((row.dispatch_id.clone(), booking.span, row.location_id.clone()));
                    }
                }
            }
            found.sort_by_key(|(_, span, _)| span.start);
            found
        }))
    }
}

#[async_trait]
impl Devices for MemoryStore {
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        Ok(self.with(tenant, |t| t.devices.get(device).cloned()))
    }

    async fn devices(&self, tenant: &TenantId, technician: Option<&TechnicianId>) -> Result<Vec<Device>, StoreError> {
        Ok(self.with(tenant, |t| {
            let of = t.devices.values().filter(|device| technician.is_none_or(|wanted| device.technician == *wanted));
            of.cloned().collect()
        }))
    }

    async fn held_facts(
        &self,
        tenant: &TenantId,
        device: Option<&DeviceId>,
        dispatch: Option<&DispatchId>,
    ) -> Result<Vec<HeldFact>, StoreError> {
        let mut held: Vec<HeldFact> = self.with(tenant, |t| {
            let waiting = t.facts.values().filter_map(|fact| Some((fact, fact.held_since?)));
            waiting
                .map(|(fact, since)| HeldFact {
                    dispatch: fact.dispatch.clone(),
                    fact: fact.write.fact.clone(),
                    device: fact.write.device.clone(),
                    seq: fact.write.seq,
                    knew_revision: fact.write.knew_revision,
                    since,
                })
                .filter(|fact| device.is_none_or(|wanted| fact.device == *wanted))
                .filter(|fact| dispatch.is_none_or(|wanted| fact.dispatch == *wanted))
                .collect()
        });
        match (device, dispatch) {
            (None, None) => held.sort_by(|a, b| (&a.device, a.seq).cmp(&(&b.device, b.seq))),
            _ => held.sort_by(|a, b| (a.seq, &a.device).cmp(&(b.seq, &b.device))),
        }
        Ok(held)
    }
}
