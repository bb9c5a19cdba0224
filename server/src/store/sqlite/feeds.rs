//! Reading feeds.
//!
//! # Why a phone that follows pages ends with exactly what it should hold
//! A page from cursor `after` covers the positions `(after, to]`. It takes the visits that have entries after the cursor in
//! the order of their *first* such entry, and reports each one's *latest* entry as of the read. `to` lies just before the
//! first entry of the first visit that did not fit, or is the feed's end when all fitted. So
//!
//! 1. every entry in `(after, to]` belongs to a visit that the page reports: a visit with an entry in there has its first
//!    entry there too, and so comes before those that did not fit. A phone at cursor `to` therefore knows of every visit at
//!    least what the feed said up to `to`; of some it knows more, because their latest entry lies beyond `to`.
//! 2. a page always gets on: its first visit fits, and `to` is at least that visit's first entry.
//! 3. the last page leaves no visit behind the feed's end: those without an entry after the cursor have not changed, those
//!    with one are all reported as they are now.
//!
//! (Taking the visits by their latest entry would break 1: a visit with entries at 5 and 20 would not be on a page up to 10,
//! and the next page would take entry 5 for known.)
//!
//! Changes instead of the whole document are sent when the latest entry at or before the cursor said *held, at revision r*:
//! by 1 the phone has r or later, so all changes after r lead to the present; what it has already does no harm (changes are
//! known by their hash). A page may have told the phone early of a departure that lies beyond `to`, so when any departure
//! lies after the cursor, or entry r was pruned, the visit goes whole.

use super::dispatches::json_list;
use super::journal::position;
use super::rows::{bits, cbor, corrupt, fault, get, id, json, unsigned};
use super::{SqliteStore, rows};
use crate::service::commit::{FeedEntry, FeedNews, HeldVisit};
use crate::store::{FeedNewsItem, FeedPage, Feeds, HeldPage, StoreError};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use std::collections::HashMap;
use sync_core::document::StateTag;
use sync_core::domain::{DeviceId, DispatchId, TechnicianId, TenantId, Timestamp};

pub(super) const HEAD: &str = "SELECT seq, digest, floor FROM feed_heads WHERE tenant = ?1 AND technician = ?2";

/// See the module's argument. Columns: visit, its first and latest position, the latest entry's kind, revision, digest and
/// tombstone, and the revision that the phone can build upon.
pub(super) const NEWS: &str = "WITH page AS MATERIALIZED ( \
       SELECT dispatch_id, min(seq) AS first, max(seq) AS latest, max(kind = 'gone') AS left_between \
       FROM feed WHERE tenant = ?1 AND technician = ?2 AND seq > ?3 \
       GROUP BY dispatch_id ORDER BY first LIMIT ?4) \
     SELECT p.dispatch_id, p.first, e.seq, e.kind, e.revision, e.digest, e.tombstone, \
       CASE WHEN p.left_between = 0 THEN (SELECT CASE b.kind WHEN 'held' THEN b.revision END FROM feed b \
         INDEXED BY feed_by_dispatch WHERE b.tenant = ?1 AND b.dispatch_id = p.dispatch_id AND b.technician = ?2 AND b.seq <= ?3 \
         ORDER BY b.seq DESC LIMIT 1) END \
     FROM page p CROSS JOIN feed e ON e.tenant = ?1 AND e.technician = ?2 AND e.seq = p.latest ORDER BY p.first";

/// Visits with their documents.
pub(super) const WHOLE: &str = "SELECT d.dispatch_id, d.tag, d.card, o.document FROM json_each(?2) j \
     CROSS JOIN dispatches d ON d.tenant = ?1 AND d.dispatch_id = j.value \
     CROSS JOIN documents o ON o.tenant = ?1 AND o.dispatch_id = j.value";
/// Visits without their documents.
pub(super) const CARDS: &str = "SELECT d.dispatch_id, d.tag, d.card FROM json_each(?2) j \
     CROSS JOIN dispatches d ON d.tenant = ?1 AND d.dispatch_id = j.value";
/// What came after a revision, without the phone's own.
pub(super) const CHANGES: &str = "SELECT c.dispatch_id, c.bytes FROM json_each(?2) j \
     CROSS JOIN changes c ON c.tenant = ?1 AND c.dispatch_id = j.value ->> 0 AND c.revision > j.value ->> 1 \
     WHERE c.device IS NULL OR c.device <> ?3 ORDER BY j.key, c.revision, c.idx";

pub(super) const HELD: &str = "SELECT d.dispatch_id, d.tag, d.card, o.document FROM held h \
     CROSS JOIN dispatches d ON d.tenant = ?1 AND d.dispatch_id = h.dispatch_id \
     CROSS JOIN documents o ON o.tenant = ?1 AND o.dispatch_id = h.dispatch_id \
     WHERE h.tenant = ?1 AND h.technician = ?2 AND h.dispatch_id > ?3 ORDER BY h.dispatch_id LIMIT ?4";
pub(super) const HELD_SOME: &str = "SELECT d.dispatch_id, d.tag, d.card, o.document FROM json_each(?2) j \
     CROSS JOIN held h ON h.tenant = ?1 AND h.technician = ?3 AND h.dispatch_id = j.value \
     CROSS JOIN dispatches d ON d.tenant = ?1 AND d.dispatch_id = j.value \
     CROSS JOIN documents o ON o.tenant = ?1 AND o.dispatch_id = j.value ORDER BY d.dispatch_id";
pub(super) const OUTSIDE_WINDOW: &str = "SELECT DISTINCT tenant, dispatch_id FROM held INDEXED BY held_until \
     WHERE until_ms < ?1 ORDER BY until_ms LIMIT ?2";
pub(super) const HOLDERS: &str = "SELECT technician FROM held INDEXED BY held_by_dispatch \
     WHERE tenant = ?1 AND dispatch_id = ?2 ORDER BY technician";

/// A feed's end, its digest, and where it begins.
#[derive(Clone, Copy, Default)]
struct Head {
    seq: u64,
    digest: u64,
    floor: u64,
}

async fn head(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    technician: &TechnicianId,
) -> Result<Head, StoreError> {
    let row = sqlx::query(HEAD)
        .bind(tenant.as_str())
        .bind(technician.as_str())
        .fetch_optional(connection)
        .await
        .map_err(fault)?;
    row.map_or(Ok(Head::default()), |row| {
        Ok(Head { seq: unsigned(&row, 0)?, digest: bits(&row, 1)?, floor: unsigned(&row, 2)? })
    })
}

fn card(row: &SqliteRow) -> Result<HeldVisit, StoreError> {
    Ok(HeldVisit {
        dispatch: id(row, 0)?,
        tag: StateTag(bits(row, 1)?),
        card: cbor(row, 2, "visit card")?,
        document: Vec::new(),
    })
}

fn whole(row: &SqliteRow) -> Result<HeldVisit, StoreError> {
    Ok(HeldVisit { document: get(row, 3)?, ..card(row)? })
}

/// One visit of a page, before its content is read.
struct Latest {
    dispatch: DispatchId,
    first: u64,
    seq: u64,
    revision: u64,
    digest: u64,
    news: FeedNews,
    /// The phone has this revision, or a later one.
    base: Option<u64>,
}

fn latest(row: &SqliteRow) -> Result<Latest, StoreError> {
    let news = match get::<&str>(row, 3)? {
        "held" => FeedNews::Held,
        _ => FeedNews::Gone(json(row, 6, "tombstone")?),
    };
    Ok(Latest {
        dispatch: id(row, 0)?,
        first: unsigned(row, 1)?,
        seq: unsigned(row, 2)?,
        revision: unsigned(row, 4)?,
        digest: bits(row, 5)?,
        news,
        base: get::<Option<i64>>(row, 7)?.map(i64::cast_unsigned),
    })
}

#[async_trait]
impl Feeds for SqliteStore {
    async fn feed_head(&self, tenant: &TenantId, technician: &TechnicianId) -> Result<(u64, u64), StoreError> {
        let mut connection = self.readers.acquire().await.map_err(fault)?;
        let head = head(&mut connection, tenant, technician).await?;
        Ok((head.seq, head.digest))
    }

    async fn feed_page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        after: u64,
        limit: u32,
    ) -> Result<FeedPage, StoreError> {
        let mut snapshot = self.readers.begin().await.map_err(fault)?;
        let head = head(&mut snapshot, tenant, technician).await?;
        let mut page = FeedPage { to: head.seq, head: head.seq, digest: head.digest, news: Vec::new(), too_old: false };
        if after >= head.seq {
            return Ok(page);
        }
        if after < head.floor {
            return Ok(FeedPage { to: after, too_old: true, ..page });
        }
        let limit = limit.max(1);
        let found = sqlx::query(NEWS)
            .bind(tenant.as_str())
            .bind(technician.as_str())
            .bind(position(after))
            .bind(i64::from(limit) + 1)
            .fetch_all(&mut *snapshot)
            .await
            .map_err(fault)?;
        let mut visits = found.iter().map(latest).collect::<Result<Vec<_>, _>>()?;
        if visits.len() > limit as usize {
            page.to = visits[limit as usize].first - 1;
            visits.truncate(limit as usize);
        }
        page.news = news(&mut snapshot, tenant, technician, device, visits).await?;
        Ok(page)
    }

    async fn held(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError> {
        let mut snapshot = self.readers.begin().await.map_err(fault)?;
        let head = head(&mut snapshot, tenant, technician).await?;
        let mut page = HeldPage { visits: Vec::new(), more: false, head: head.seq, digest: head.digest };
        let mut rows = sqlx::query(HELD)
            .bind(tenant.as_str())
            .bind(technician.as_str())
            .bind(after.map_or("", DispatchId::as_str))
            .bind(i64::from(limit) + 1)
            .fetch(&mut *snapshot);
        let mut size = 0;
        while let Some(row) = rows.try_next().await.map_err(fault)? {
            // At least one visit a page, however large it is.
            if page.visits.len() >= limit as usize || (size >= bytes && !page.visits.is_empty()) {
                page.more = true;
                break;
            }
            let visit = whole(&row)?;
            size += visit.document.len();
            page.visits.push(visit);
        }
        Ok(page)
    }

    async fn held_some(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        ids: &[DispatchId],
    ) -> Result<Vec<HeldVisit>, StoreError> {
        let rows = sqlx::query(HELD_SOME)
            .bind(tenant.as_str())
            .bind(json_list(ids)?)
            .bind(technician.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?;
        rows.iter().map(whole).collect()
    }

    async fn outside_window(&self, before: Timestamp, limit: u32) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let rows = sqlx::query(OUTSIDE_WINDOW)
            .bind(before.millis())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?;
        rows.iter().map(|row| Ok((id(row, 0)?, id(row, 1)?))).collect()
    }

    async fn holders(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Vec<TechnicianId>, StoreError> {
        let rows = sqlx::query(HOLDERS)
            .bind(tenant.as_str())
            .bind(dispatch.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(fault)?;
        rows.iter().map(|row| id(row, 0)).collect()
    }
}

/// Reads the visits' content: changes where the phone has something to build upon, whole documents where it has not.
async fn news(
    snapshot: &mut SqliteConnection,
    tenant: &TenantId,
    technician: &TechnicianId,
    device: &DeviceId,
    visits: Vec<Latest>,
) -> Result<Vec<FeedNewsItem>, StoreError> {
    let held = |visit: &&Latest| visit.news == FeedNews::Held;
    let missing: Vec<_> = visits.iter().filter(held).filter(|v| v.base.is_none()).map(|v| &v.dispatch).collect();
    let behind: Vec<_> = visits.iter().filter(held).filter_map(|v| v.base.map(|base| (&v.dispatch, base))).collect();

    let mut content: HashMap<DispatchId, HeldVisit> = HashMap::new();
    let mut changes: HashMap<DispatchId, Vec<Vec<u8>>> = HashMap::new();
    if !missing.is_empty() {
        for row in read_list(snapshot, WHOLE, tenant, json_list(&missing)?, None).await? {
            let visit = whole(&row)?;
            content.insert(visit.dispatch.clone(), visit);
        }
    }
    if !behind.is_empty() {
        let ids: Vec<_> = behind.iter().map(|(dispatch, _)| dispatch).collect();
        for row in read_list(snapshot, CARDS, tenant, json_list(&ids)?, None).await? {
            let visit = card(&row)?;
            content.insert(visit.dispatch.clone(), visit);
        }
        for row in read_list(snapshot, CHANGES, tenant, json_list(&behind)?, Some(device)).await? {
            changes.entry(id(&row, 0)?).or_default().push(get(&row, 1)?);
        }
    }
    visits
        .into_iter()
        .map(|visit| {
            if let FeedNews::Gone(_) = visit.news {
                return Ok(FeedNewsItem::Gone(FeedEntry {
                    technician: technician.clone(),
                    seq: visit.seq,
                    digest: visit.digest,
                    dispatch: visit.dispatch,
                    revision: visit.revision,
                    news: visit.news,
                }));
            }
            let found = content
                .remove(&visit.dispatch)
                .ok_or_else(|| corrupt("feed entry")(format!("{} has no document", visit.dispatch)))?;
            Ok(match visit.base {
                None => FeedNewsItem::Whole(found),
                Some(_) => {
                    let changes = changes.remove(&visit.dispatch).unwrap_or_default();
                    FeedNewsItem::Changes { visit: found, changes }
                }
            })
        })
        .collect()
}

async fn read_list(
    snapshot: &mut SqliteConnection,
    sql: &'static str,
    tenant: &TenantId,
    list: String,
    device: Option<&DeviceId>,
) -> Result<Vec<SqliteRow>, StoreError> {
    let mut query = sqlx::query(sql).bind(tenant.as_str()).bind(list);
    if let Some(device) = device {
        query = query.bind(device.as_str());
    }
    query.fetch_all(snapshot).await.map_err(rows::fault)
}
