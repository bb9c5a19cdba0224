//! Technicians' feeds, and what each holds.

use super::{Entry, Feed, MemoryStore, Tenant};
use async_trait::async_trait;
use crm_dispatch_server::service::commit::{FeedEntry, FeedNews, HeldVisit};
use crm_dispatch_server::store::{FeedNewsItem, FeedPage, Feeds, HeldPage, StoreError};
use std::collections::BTreeSet;
use sync_core::domain::{DeviceId, DispatchId, TechnicianId, TenantId, Timestamp};

#[async_trait]
impl Feeds for MemoryStore {
    async fn feed_head(&self, tenant: &TenantId, technician: &TechnicianId) -> Result<(u64, u64), StoreError> {
        Ok(self.with(tenant, |t| t.feeds.get(technician).map_or((0, 0), |feed| (feed.seq, feed.digest.0))))
    }

    async fn feed_page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        after: u64,
        limit: u32,
    ) -> Result<FeedPage, StoreError> {
        Ok(self.with(tenant, |t| {
            let empty = Feed::default();
            let feed = t.feeds.get(technician).unwrap_or(&empty);
            let mut page =
                FeedPage { to: feed.seq, head: feed.seq, digest: feed.digest.0, news: Vec::new(), too_old: false };
            if after >= feed.seq {
                return page;
            }
            if after < feed.floor {
                return FeedPage { to: after, too_old: true, ..page };
            }
            // By a visit's first entry after the cursor; see the SQLite store's argument.
            let mut firsts: Vec<(u64, &DispatchId)> = Vec::new();
            for (seq, entry) in feed.entries.range(after + 1..) {
                if !firsts.iter().any(|(_, id)| **id == entry.dispatch) {
                    firsts.push((*seq, &entry.dispatch));
                }
            }
            let limit = limit.max(1) as usize;
            if firsts.len() > limit {
                page.to = firsts[limit].0 - 1;
                firsts.truncate(limit);
            }
            page.news = firsts.iter().filter_map(|(_, id)| t.news(technician, feed, device, after, id)).collect();
            page
        }))
    }

    async fn held(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError> {
        Ok(self.with(tenant, |t| {
            let empty = Feed::default();
            let feed = t.feeds.get(technician).unwrap_or(&empty);
            let mut page = HeldPage { visits: Vec::new(), more: false, head: feed.seq, digest: feed.digest.0 };
            let mut size = 0;
            for id in feed.held.keys().filter(|id| after.is_none_or(|after| *id > after)) {
                if page.visits.len() >= limit as usize || (size >= bytes && !page.visits.is_empty()) {
                    page.more = true;
                    break;
                }
                if let Some(dispatch) = t.dispatches.get(id) {
                    size += dispatch.document.len();
                    page.visits.push(dispatch.visit(true));
                }
            }
            page
        }))
    }

    async fn held_some(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        ids: &[DispatchId],
    ) -> Result<Vec<HeldVisit>, StoreError> {
        Ok(self.with(tenant, |t| {
            let Some(feed) = t.feeds.get(technician) else { return Vec::new() };
            let held = feed.held.keys().filter(|id| ids.contains(id));
            held.filter_map(|id| t.dispatches.get(id)).map(|dispatch| dispatch.visit(true)).collect()
        }))
    }

    async fn outside_window(&self, before: Timestamp, limit: u32) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let tables = self.tables();
        let mut found = BTreeSet::new();
        for (tenant, t) in &tables.tenants {
            for (id, held) in t.feeds.values().flat_map(|feed| &feed.held) {
                if let Some(until) = held.until.filter(|until| *until < before) {
                    found.insert((until, tenant.clone(), id.clone()));
                }
            }
        }
        let mut left: Vec<(TenantId, DispatchId)> = Vec::new();
        for (_, tenant, id) in found {
            if left.len() < limit as usize && !left.contains(&(tenant.clone(), id.clone())) {
                left.push((tenant, id));
            }
        }
        Ok(left)
    }

    async fn holders(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Vec<TechnicianId>, StoreError> {
        Ok(self.with(tenant, |t| {
            let holds = t.feeds.iter().filter(|(_, feed)| feed.held.contains_key(dispatch));
            holds.map(|(technician, _)| technician.clone()).collect()
        }))
    }
}

impl Tenant {
    /// One visit's news since a cursor.
    pub(super) fn news(
        &self,
        technician: &TechnicianId,
        feed: &Feed,
        device: &DeviceId,
        after: u64,
        id: &DispatchId,
    ) -> Option<FeedNewsItem> {
        let of_visit = |range: &mut dyn DoubleEndedIterator<Item = (&u64, &Entry)>| {
            range.filter(|(_, entry)| entry.dispatch == *id).map(|(s, e)| (*s, e.clone())).collect::<Vec<_>>()
        };
        let since = of_visit(&mut feed.entries.range(after + 1..));
        let (seq, latest) = since.last()?;
        if let FeedNews::Gone(_) = latest.news {
            return Some(FeedNewsItem::Gone(FeedEntry {
                technician: technician.clone(),
                seq: *seq,
                digest: latest.digest,
                dispatch: id.clone(),
                revision: latest.revision,
                news: latest.news.clone(),
            }));
        }
        let dispatch = self.dispatches.get(id)?;
        let left_between = since.iter().any(|(_, entry)| entry.news != FeedNews::Held);
        let before = of_visit(&mut feed.entries.range(..=after));
        let base = before.last().filter(|(_, entry)| entry.news == FeedNews::Held && !left_between);
        Some(match base {
            None => FeedNewsItem::Whole(dispatch.visit(true)),
            Some((_, base)) => FeedNewsItem::Changes {
                visit: dispatch.visit(false),
                changes: dispatch
                    .changes
                    .iter()
                    .filter(|change| change.revision > base.revision && change.device.as_ref() != Some(device))
                    .map(|change| change.bytes.clone())
                    .collect(),
            },
        })
    }
}
