//! Opened documents, kept for the next change of the same visit. Bounded: about 25 kB each.

use crate::service::decide::Opened;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use sync_core::domain::{DispatchId, TenantId};

type Key = (TenantId, DispatchId);

/// The cache. What is taken out belongs to the taker, who puts it back after the commit, or drops it: so nobody ever sees
/// a document with changes that were not committed.
pub(crate) struct Documents(Mutex<LruCache<Key, Opened>>);

impl Documents {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN))))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a document, whatever its revision: if somebody else has changed it in the store, the commit says so.
    pub(crate) fn take(&self, tenant: &TenantId, dispatch: &DispatchId) -> Option<Opened> {
        self.lock().pop(&(tenant.clone(), dispatch.clone()))
    }

    /// Puts a document back as it was committed. One that is newer stays.
    pub(crate) fn put(&self, tenant: &TenantId, opened: Opened) {
        let key = (tenant.clone(), opened.stored.row.dispatch_id.clone());
        let mut documents = self.lock();
        if documents.peek(&key).is_some_and(|kept| kept.stored.row.revision > opened.stored.row.revision) {
            return;
        }
        documents.put(key, opened);
    }
}
