//! Events, the audit trail, the outbox, and turns among nodes.

use super::MemoryStore;
use async_trait::async_trait;
use crm_dispatch_server::events::Event;
use crm_dispatch_server::service::model::AuditRecord;
use crm_dispatch_server::store::verify::{AuditPlace, StoredAuditHead, StoredAuditLine};
use crm_dispatch_server::store::{
    Heard, Hint, Journal, Nodes, OUTBOX_COUNTED_MAX, Outbox, OutboxEvent, OutboxLag, RelayTurn, StoreError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use sync_core::domain::{DeviceId, TechnicianId, TenantId, Timestamp};

#[async_trait]
impl Journal for MemoryStore {
    async fn events(
        &self,
        tenant: &TenantId,
        after: u64,
        topic: Option<&str>,
        aggregate: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        let tables = self.tables();
        let numbered = tables.events.iter().zip(1..);
        let own =
            numbered.filter(|((whose, ..), _)| whose == tenant).map(|((_, event, _), position)| (position, event));
        let wanted = own.filter(|(position, event)| {
            *position > after
                && topic.is_none_or(|topic| event.payload.topic() == topic)
                && aggregate.is_none_or(|aggregate| event.aggregate_id == aggregate)
        });
        Ok(wanted.take(limit as usize).map(|(position, event)| (position, event.clone())).collect())
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        aggregate: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(self.with(tenant, |t| {
            let chain = t.audit.get(aggregate).map(Vec::as_slice).unwrap_or_default();
            chain.iter().filter(|line| line.seq > after).take(limit as usize).cloned().collect()
        }))
    }

    async fn audit_walk(&self, after: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditLine>, StoreError> {
        let lines = self.stored_audit().into_iter().filter(|line| line.place > *after);
        Ok(lines.take(limit as usize).collect())
    }

    async fn audit_heads(&self, from: &AuditPlace, limit: u32) -> Result<Vec<StoredAuditHead>, StoreError> {
        let ends = self
            .stored_audit()
            .into_iter()
            .filter(|line| line.head.as_ref().is_some_and(|head| head.0 == line.place.seq));
        let heads = ends.filter(|end| (&end.place.tenant, &end.place.aggregate) >= (&from.tenant, &from.aggregate));
        Ok(heads.take(limit as usize).map(|end| StoredAuditHead { place: end.place, has_lines: true }).collect())
    }
}

impl MemoryStore {
    /// Every line in the order of its place.
    pub(super) fn stored_audit(&self) -> Vec<StoredAuditLine> {
        let bytes = |hex: &str| {
            let digits = hex.as_bytes().chunks_exact(2).map(|pair| {
                pair.iter().fold(0, |byte, digit| byte << 4 | char::from(*digit).to_digit(16).unwrap_or_default())
            });
            digits.filter_map(|byte| u8::try_from(byte).ok()).collect::<Vec<_>>()
        };
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let tables = self.tables();
        let chains = tables.tenants.iter().flat_map(|(tenant, t)| t.audit.iter().map(move |chain| (tenant, chain)));
        chains
            .flat_map(|(tenant, (aggregate, lines))| {
                let head = lines.last().map(|line| (number(line.seq), bytes(&line.hash)));
                lines.iter().map(move |line| StoredAuditLine {
                    place: AuditPlace {
                        tenant: tenant.to_string(),
                        aggregate: aggregate.clone(),
                        seq: number(line.seq),
                    },
                    at_ms: line.at.millis(),
                    actor: line.actor.clone(),
                    action: line.action.clone(),
                    detail: line.detail.to_string(),
                    previous_hash: bytes(&line.previous_hash),
                    hash: bytes(&line.hash),
                    head: head.clone(),
                })
            })
            .collect()
    }

    /// The audit trail's chains.
    #[must_use]
    pub fn chains(&self, tenant: &TenantId) -> Vec<String> {
        self.with(tenant, |t| t.audit.keys().cloned().collect())
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn unpublished(&self, after: u64, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
        let tables = self.tables();
        let waiting = tables
            .events
            .iter()
            .zip(1..)
            .filter(|(_, position)| *position > after && !tables.published.contains(position));
        let waiting = waiting.take(limit as usize).map(|((_, event, traceparent), position)| OutboxEvent {
            position,
            event: event.clone(),
            traceparent: traceparent.clone(),
        });
        Ok(waiting.collect())
    }

    async fn mark_published(&self, positions: &[u64], _: Timestamp) -> Result<(), StoreError> {
        self.tables().published.extend(positions);
        Ok(())
    }

    async fn outbox_lag(&self) -> Result<OutboxLag, StoreError> {
        let waiting = self.unpublished(0, OUTBOX_COUNTED_MAX).await?;
        let oldest = waiting.first().map(|waiting| waiting.event.timestamp);
        Ok(OutboxLag { waiting: waiting.len() as u64, oldest })
    }

    async fn relay_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        Ok(Turn::take(&self.relay))
    }

    async fn event_written(&self) {
        self.written.notified().await;
    }
}

/// Gives a right back when it is dropped.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(right: &Arc<AtomicBool>) -> Option<Box<dyn RelayTurn>> {
        let taken = right.swap(true, Ordering::SeqCst);
        if taken { None } else { Some(Box::new(Self(Arc::clone(right)))) }
    }
}

#[async_trait]
impl RelayTurn for Turn {
    async fn is_held(&mut self) -> bool {
        true
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Nobody but this process: other nodes are told by whoever simulates them.
#[async_trait]
impl Nodes for MemoryStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn announce(&self, _: Vec<Hint>) {}

    async fn heard(&self) -> Heard {
        std::future::pending().await
    }

    async fn feed_heads(&self, of: &[(TenantId, TechnicianId)]) -> Result<Vec<u64>, StoreError> {
        let end = |(tenant, technician): &(TenantId, TechnicianId)| {
            self.with(tenant, |t| t.feeds.get(technician).map_or(0, |feed| feed.seq))
        };
        Ok(of.iter().map(end).collect())
    }

    async fn revoked(&self, among: &[(TenantId, DeviceId)]) -> Result<Vec<(TenantId, DeviceId)>, StoreError> {
        let is_revoked = |(tenant, device): &&(TenantId, DeviceId)| {
            self.with(tenant, |t| t.devices.get(device).is_some_and(|known| known.revoked_at.is_some()))
        };
        Ok(among.iter().filter(is_revoked).cloned().collect())
    }

    async fn sweep_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        Ok(Turn::take(&self.sweeper))
    }
}
