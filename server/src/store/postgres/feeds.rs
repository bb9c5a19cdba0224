//! Reading feeds. Why a phone that follows pages ends with exactly what it should hold is argued where SQLite reads them
//! (`store/sqlite/feeds.rs`); the statements are the same. A page is read from one snapshot.

use super::PostgresStore;
use super::rows::{bits, cbor, fault, get, id, json, unsigned};
use crate::service::commit::{FeedEntry, FeedNews, HeldVisit};
use crate::store::forms::{corrupt, position};
use crate::store::{FeedNewsItem, FeedPage, Feeds, HeldPage, StoreError};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use std::collections::HashMap;
use sync_core::document::StateTag;
use sync_core::domain::{DeviceId, DispatchId, TechnicianId, TenantId, Timestamp};

/// A page is several statements: they see one state of the database.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub(super) const HEAD: &str = "SELECT seq, digest, floor FROM feed_heads WHERE tenant = $1 AND technician = $2";

/// Columns: visit, its first and latest position, the latest entry's kind, revision, digest and tombstone, and the revision
/// that the phone can build upon.
pub(super) const NEWS: &str = "WITH page AS MATERIALIZED ( \
       SELECT dispatch_id, min(seq) AS first, max(seq) AS latest, bool_or(kind = 'gone') AS left_between \
       FROM feed WHERE tenant = $1 AND technician = $2 AND seq > $3 \
       GROUP BY dispatch_id ORDER BY first LIMIT $4) \
     SELECT p.dispatch_id, p.first, e.seq, e.kind, e.revision, e.digest, e.tombstone, \
       CASE WHEN NOT p.left_between THEN (SELECT CASE b.kind WHEN 'held' THEN b.revision END FROM feed b \
         WHERE b.tenant = $1 AND b.dispatch_id = p.dispatch_id AND b.technician = $2 AND b.seq <= $3 \
         ORDER BY b.seq DESC LIMIT 1) END \
     FROM page p JOIN feed e ON e.tenant = $1 AND e.technician = $2 AND e.seq = p.latest ORDER BY p.first";

/// Visits with their documents.
pub(super) const WHOLE: &str = "SELECT d.dispatch_id, d.tag, d.card, o.document FROM unnest($2::text[]) j(id) \
     CROSS JOIN LATERAL (SELECT * FROM dispatches WHERE tenant = $1 AND dispatch_id = j.id COLLATE \"C\" OFFSET 0) d \
     CROSS JOIN LATERAL (SELECT document FROM documents WHERE tenant = $1 AND dispatch_id = d.dispatch_id OFFSET 0) o";
/// Visits without their documents.
pub(super) const CARDS: &str = "SELECT d.dispatch_id, d.tag, d.card FROM unnest($2::text[]) j(id) \
     CROSS JOIN LATERAL (SELECT * FROM dispatches WHERE tenant = $1 AND dispatch_id = j.id COLLATE \"C\" OFFSET 0) d";
/// What came after a revision, without the phone's own.
pub(super) const CHANGES: &str = "SELECT c.dispatch_id, c.bytes FROM unnest($2::text[], $3::bigint[]) j(id, revision) \
     CROSS JOIN LATERAL (SELECT * FROM changes WHERE tenant = $1 AND dispatch_id = j.id COLLATE \"C\" AND revision > j.revision \
       AND (device IS NULL OR device <> $4) OFFSET 0) c ORDER BY c.dispatch_id, c.revision, c.idx";

pub(super) const HELD: &str = "SELECT d.dispatch_id, d.tag, d.card, o.document FROM held h \
     CROSS JOIN LATERAL (SELECT * FROM dispatches WHERE tenant = $1 AND dispatch_id = h.dispatch_id OFFSET 0) d \
     CROSS JOIN LATERAL (SELECT document FROM documents WHERE tenant = $1 AND dispatch_id = h.dispatch_id OFFSET 0) o \
     WHERE h.tenant = $1 AND h.technician = $2 AND h.dispatch_id > $3 ORDER BY h.dispatch_id LIMIT $4";
pub(super) const HELD_SOME: &str = "SELECT d.dispatch_id, d.tag, d.card, o.document FROM unnest($2::text[]) j(id) \
     JOIN held h ON h.tenant = $1 AND h.technician = $3 AND h.dispatch_id = j.id COLLATE \"C\" \
     CROSS JOIN LATERAL (SELECT * FROM dispatches WHERE tenant = $1 AND dispatch_id = h.dispatch_id OFFSET 0) d \
     CROSS JOIN LATERAL (SELECT document FROM documents WHERE tenant = $1 AND dispatch_id = h.dispatch_id OFFSET 0) o ORDER BY d.dispatch_id";
pub(super) const OUTSIDE_WINDOW: &str = "SELECT tenant, dispatch_id FROM held WHERE until_ms < $1 \
     GROUP BY tenant, dispatch_id ORDER BY min(until_ms) LIMIT $2";
pub(super) const HOLDERS: &str =
    "SELECT technician FROM held WHERE tenant = $1 AND dispatch_id = $2 ORDER BY technician";

/// A feed's end, its digest, and where it begins.
#[derive(Clone, Copy, Default)]
struct Head {
    seq: u64,
    digest: u64,
    floor: u64,
}

async fn head(connection: &mut PgConnection, tenant: &TenantId, technician: &TechnicianId) -> Result<Head, StoreError> {
    let row = sqlx::query(HEAD)
        .bind(tenant.as_str())
        .bind(technician.as_str())
        .fetch_optional(connection)
        .await
        .map_err(fault)?;
    row.as_ref().map_or(Ok(Head::default()), read_head)
}

fn read_head(row: &PgRow) -> Result<Head, StoreError> {
    Ok(Head { seq: unsigned(row, 0)?, digest: bits(row, 1)?, floor: unsigned(row, 2)? })
}

fn card(row: &PgRow) -> Result<HeldVisit, StoreError> {
    Ok(HeldVisit {
        dispatch: id(row, 0)?,
        tag: StateTag(bits(row, 1)?),
        card: cbor(row, 2, "visit card")?,
        document: Vec::new(),
    })
}

fn whole(row: &PgRow) -> Result<HeldVisit, StoreError> {
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

fn latest(row: &PgRow) -> Result<Latest, StoreError> {
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
impl Feeds for PostgresStore {
    async fn feed_head(&self, tenant: &TenantId, technician: &TechnicianId) -> Result<(u64, u64), StoreError> {
        let row = self.one(|| sqlx::query(HEAD).bind(tenant.as_str()).bind(technician.as_str())).await?;
        let head = row.as_ref().map_or(Ok(Head::default()), read_head)?;
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
        self.again(|| self.page(tenant, technician, device, after, limit)).await
    }

    async fn held(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError> {
        self.again(|| self.held_page(tenant, technician, after, limit, bytes)).await
    }

    async fn held_some(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        ids: &[DispatchId],
    ) -> Result<Vec<HeldVisit>, StoreError> {
        let ids: Vec<&str> = ids.iter().map(DispatchId::as_str).collect();
        let rows =
            self.all(|| sqlx::query(HELD_SOME).bind(tenant.as_str()).bind(&ids).bind(technician.as_str())).await?;
        rows.iter().map(whole).collect()
    }

    async fn outside_window(&self, before: Timestamp, limit: u32) -> Result<Vec<(TenantId, DispatchId)>, StoreError> {
        let rows = self.all(|| sqlx::query(OUTSIDE_WINDOW).bind(before.millis()).bind(i64::from(limit))).await?;
        rows.iter().map(|row| Ok((id(row, 0)?, id(row, 1)?))).collect()
    }

    async fn holders(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Vec<TechnicianId>, StoreError> {
        let rows = self.all(|| sqlx::query(HOLDERS).bind(tenant.as_str()).bind(dispatch.as_str())).await?;
        rows.iter().map(|row| id(row, 0)).collect()
    }
}

impl PostgresStore {
    async fn page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        device: &DeviceId,
        after: u64,
        limit: u32,
    ) -> Result<FeedPage, StoreError> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await.map_err(fault)?;
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

    async fn held_page(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldPage, StoreError> {
        let mut snapshot = self.pool.begin_with(SNAPSHOT).await.map_err(fault)?;
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
}

/// Reads the visits' content: changes where the phone has something to build upon, whole documents where it has not.
async fn news(
    snapshot: &mut PgConnection,
    tenant: &TenantId,
    technician: &TechnicianId,
    device: &DeviceId,
    visits: Vec<Latest>,
) -> Result<Vec<FeedNewsItem>, StoreError> {
    let (mut missing, mut behind, mut bases) = (Vec::new(), Vec::new(), Vec::new());
    for visit in visits.iter().filter(|visit| visit.news == FeedNews::Held) {
        match visit.base {
            None => missing.push(visit.dispatch.as_str()),
            Some(base) => {
                behind.push(visit.dispatch.as_str());
                bases.push(position(base));
            }
        }
    }
    let mut content: HashMap<DispatchId, HeldVisit> = HashMap::new();
    let mut changes: HashMap<DispatchId, Vec<Vec<u8>>> = HashMap::new();
    if !missing.is_empty() {
        let query = sqlx::query(WHOLE).bind(tenant.as_str()).bind(&missing);
        for row in query.fetch_all(&mut *snapshot).await.map_err(fault)? {
            let visit = whole(&row)?;
            content.insert(visit.dispatch.clone(), visit);
        }
    }
    if !behind.is_empty() {
        let query = sqlx::query(CARDS).bind(tenant.as_str()).bind(&behind);
        for row in query.fetch_all(&mut *snapshot).await.map_err(fault)? {
            let visit = card(&row)?;
            content.insert(visit.dispatch.clone(), visit);
        }
        let query = sqlx::query(CHANGES).bind(tenant.as_str()).bind(&behind).bind(&bases).bind(device.as_str());
        for row in query.fetch_all(&mut *snapshot).await.map_err(fault)? {
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
