//! What the office does not know yet.

use super::checksum::sum;
use super::phone::{Phone, random_actor};
use super::{Store, StoreError, Tx};
use crate::document::{ChangeHash, Edit, EncodedChange};
use crate::domain::{DispatchId, TechnicianId, TenantId, Timestamp};
use crate::protocol::{OutboxMark, PushLane, limits};
use rusqlite::{Connection, Row, Rows, params};
use serde_bytes::ByteBuf;
use std::collections::HashMap;

/// Bounds of one push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Most changes.
    pub changes: usize,
    /// Most change bytes; one change larger than this still makes a page.
    pub bytes: usize,
    /// Most lanes.
    pub lanes: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { changes: limits::PUSH_CHANGES_MAX, bytes: limits::PUSH_BYTES_MAX, lanes: limits::PUSH_LANES_MAX }
    }
}

/// What to push next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboxPage {
    /// The lanes, those that were never refused first. Empty when nothing can be sent now.
    pub lanes: Vec<SentLane>,
    /// There is more to send than fits.
    pub more: bool,
    /// What is unsent, the page included.
    pub mark: OutboxMark,
}

/// A lane of a push, with what the acknowledgement needs to find its changes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentLane {
    /// For the wire.
    pub lane: PushLane,
    /// The outbox's row of each change.
    pub rows: Vec<i64>,
}

/// A change that was refused, with its payload.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedItem {
    /// Which visit.
    pub dispatch: DispatchId,
    /// What the technician had done.
    pub edit: Edit,
    /// When, the phone's wall time.
    pub made_at: Timestamp,
    /// The server's stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// `outbox.state` of a change that waits to be sent.
pub(super) const QUEUED: &str = "queued";
/// `outbox.state` of a change that is durable on the server; it is kept for a while, in case the server comes back from an
/// older copy.
pub(super) const ACKNOWLEDGED: &str = "acknowledged";
/// `outbox.state` of a change that was refused.
pub(super) const PARKED: &str = "parked";

/// One row of the outbox.
#[derive(Debug, Clone)]
pub(super) struct OutboxRow {
    pub(super) id: i64,
    pub(super) parked: bool,
    pub(super) hash: ChangeHash,
    pub(super) made_at: Timestamp,
    pub(super) edit: Edit,
    pub(super) change: Vec<u8>,
    pub(super) error: Option<(String, String)>,
}

/// Columns of [`read_row`], in its order.
const COLUMNS: &str = "id, dispatch_id, state, hash, actor, made_at_ms, edit, change, sum, error_code, error_message";

impl Store {
    /// The next push: queued changes in order, without the lanes that are parked or wait for the server's copy.
    ///
    /// Lanes that the server asked to retry come last, so that one in trouble holds up nobody.
    ///
    /// # Errors
    /// The database's.
    pub fn outbox_page(&self, limits: &PageLimits) -> Result<OutboxPage, StoreError> {
        // Asked after every acknowledgement, and mostly in vain.
        match self.mark_when_nothing_is_unsent()? {
            Some(mark) => Ok(OutboxPage { mark, ..OutboxPage::default() }),
            None => self.reading_rows(|conn, bad| page(conn, limits, bad)),
        }
    }

    /// What [`mark`] reads, where that is known without reading.
    fn mark_when_nothing_is_unsent(&self) -> Result<Option<OutboxMark>, StoreError> {
        self.with_writer(|writer| {
            let high_water = writer.phone.last_seq;
            Ok((writer.pending == 0).then_some(OutboxMark { high_water, pending: 0, oldest: None }))
        })
    }

    /// What is unsent, as announced to the server.
    ///
    /// # Errors
    /// The database's.
    pub fn outbox_mark(&self) -> Result<OutboxMark, StoreError> {
        self.read(mark)
    }

    /// Everything that was refused and waits for a person, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub fn parked(&self) -> Result<Vec<ParkedItem>, StoreError> {
        self.reading_rows(|conn, bad| {
            let sql =
                format!("SELECT {COLUMNS} FROM outbox WHERE state <> 'acknowledged' AND state = 'parked' ORDER BY id");
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let mut parked = Vec::new();
            while let Some(row) = rows.next()? {
                match read_row(row)? {
                    Ok((dispatch, row)) => {
                        let (code, message) = row.error.unwrap_or_default();
                        parked.push(ParkedItem { dispatch, edit: row.edit, made_at: row.made_at, code, message });
                    }
                    Err(id) => bad.push(id),
                }
            }
            Ok(parked)
        })
    }

    /// Queues a visit's parked changes again. Answers how many.
    ///
    /// A change that was refused by itself is no part of the document any more: it is made again, after those that wait.
    ///
    /// # Errors
    /// The database's.
    pub fn retry_parked(&self, dispatch: &DispatchId, rng: &mut dyn rand::Rng) -> Result<u32, StoreError> {
        self.write(|tx| retry_parked(tx, dispatch, rng))
    }

    /// Reads outbox rows; those whose checksum is wrong are kept aside first, and the reading begins anew without them.
    pub(super) fn reading_rows<T>(
        &self,
        look: impl Fn(&Connection, &mut Vec<i64>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let mut bad = Vec::new();
            let seen = self.read(|conn| look(conn, &mut bad))?;
            if bad.is_empty() {
                return Ok(seen);
            }
            // Each turn removes at least one row, so this ends.
            self.write(|tx| bad.iter().try_for_each(|id| tx.quarantine_outbox(*id)))?;
        }
    }
}

fn page(conn: &Connection, limits: &PageLimits, bad: &mut Vec<i64>) -> Result<OutboxPage, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM outbox JOIN ( \
         SELECT o.id AS next_id, coalesce(l.attempts, 0) AS attempts FROM outbox o LEFT JOIN lanes l USING (dispatch_id) \
         WHERE o.state <> 'acknowledged' AND o.state = 'queued' AND coalesce(l.parked, 0) = 0 AND coalesce(l.rebase, 0) = 0 \
         ORDER BY attempts, next_id LIMIT ?1) ON id = next_id ORDER BY attempts, id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query([row_limit(limits)])?;
    collect_page(rows, limits, mark(conn)?, bad)
}

/// A technician's sealed changes in order. Those whose checksum is wrong are left where they are.
pub(super) fn sealed_page(
    conn: &Connection,
    (tenant, technician): &(TenantId, TechnicianId),
    limits: &PageLimits,
) -> Result<OutboxPage, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sealed_outbox WHERE tenant_id = ?1 AND technician_id = ?2 AND state = 'queued' ORDER BY id LIMIT ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query((tenant.as_str(), technician.as_str(), row_limit(limits)))?;
    collect_page(rows, limits, mark(conn)?, &mut Vec::new())
}

fn row_limit(limits: &PageLimits) -> i64 {
    i64::try_from(limits.changes).unwrap_or(i64::MAX).saturating_add(1)
}

fn collect_page(
    mut rows: Rows<'_>,
    limits: &PageLimits,
    mark: OutboxMark,
    bad: &mut Vec<i64>,
) -> Result<OutboxPage, StoreError> {
    let mut page = OutboxPage { mark, ..OutboxPage::default() };
    let mut place: HashMap<DispatchId, usize> = HashMap::new();
    let (mut changes, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        // The edit is for people; what goes to the server is the change.
        let row = match read_raw(row)? {
            Ok(row) => row,
            Err(id) => {
                bad.push(id);
                continue;
            }
        };
        let dispatch = row.dispatch;
        let lane = place.get(&dispatch).copied();
        let full = changes >= limits.changes
            || (changes > 0 && bytes + row.change.len() > limits.bytes)
            || (lane.is_none() && page.lanes.len() >= limits.lanes);
        if full {
            page.more = true;
            break;
        }
        changes += 1;
        bytes += row.change.len();
        let lane = lane.unwrap_or_else(|| {
            place.insert(dispatch.clone(), page.lanes.len());
            page.lanes.push(SentLane { lane: PushLane { dispatch, changes: Vec::new() }, rows: Vec::new() });
            page.lanes.len() - 1
        });
        if let Some(lane) = page.lanes.get_mut(lane) {
            lane.lane.changes.push(ByteBuf::from(row.change));
            lane.rows.push(row.id);
        }
    }
    Ok(page)
}

/// What is unsent.
pub(super) fn mark(conn: &Connection) -> Result<OutboxMark, StoreError> {
    let high_water = Phone::load(conn)?.map_or(0, |phone| phone.last_seq);
    let (pending, oldest): (i64, Option<i64>) = conn
        .prepare_cached("SELECT count(*), min(made_at_ms) FROM outbox WHERE state <> 'acknowledged'")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(OutboxMark {
        high_water,
        pending: u32::try_from(pending).unwrap_or(u32::MAX),
        oldest: oldest.map(Timestamp::from_millis),
    })
}

fn retry_parked(tx: &mut Tx<'_>, dispatch: &DispatchId, rng: &mut dyn rand::Rng) -> Result<u32, StoreError> {
    let rows = tx.lane_rows(dispatch)?;
    let parked: Vec<_> = rows.iter().filter(|row| row.parked).collect();
    tx.sql
        .prepare_cached("UPDATE lanes SET parked = 0, attempts = 0 WHERE dispatch_id = ?1")?
        .execute([dispatch.as_str()])?;
    let mut open = match tx.open_visit(dispatch) {
        Ok(open) => Some(open),
        // No document to make them again in: they go as they are.
        Err(StoreError::NotFound(_) | StoreError::VisitDamaged(_)) => None,
        Err(other) => return Err(other),
    };
    let mut remade = false;
    for row in &parked {
        match open.as_mut().filter(|open| !open.doc.has_change(&row.hash)) {
            None => tx.requeue(row.id)?,
            Some(open) => {
                if !remade {
                    tx.phone.actor = random_actor(rng);
                }
                remade = true;
                match open.doc.edit(tx.phone.actor, &row.edit, row.made_at) {
                    Ok(change) => {
                        open.append(&change.bytes);
                        tx.drop_row(row.id)?;
                        tx.enqueue(dispatch, &row.edit, &change, row.made_at)?;
                    }
                    Err(refusal) => tx.park(row.id, refusal.code(), &refusal.to_string())?,
                }
            }
        }
    }
    if let Some(mut open) = open {
        if remade {
            open.view = open.doc.view();
            let card = open.card(dispatch);
            tx.store_edited(dispatch, &mut open, &card)?;
        }
        tx.open.keep(dispatch, open);
    }
    Ok(u32::try_from(parked.len()).unwrap_or(u32::MAX))
}

impl Tx<'_> {
    /// Queues a change at the end of the outbox.
    pub(super) fn enqueue(
        &mut self,
        dispatch: &DispatchId,
        edit: &Edit,
        change: &EncodedChange,
        made_at: Timestamp,
    ) -> Result<(), StoreError> {
        let body = minicbor_serde::to_vec(edit).map_err(|e| StoreError::Database(e.to_string()))?;
        let fact = match edit {
            Edit::Fact { fact } => Some(fact.id.as_str()),
            Edit::Note { .. } | Edit::Answer { .. } | Edit::Summary { .. } => None,
        };
        let made_at = made_at.millis();
        self.sql
            .prepare_cached(
                "INSERT INTO outbox (dispatch_id, state, hash, actor, made_at_ms, fact_id, edit, change, sum) \
                 VALUES (?1, 'queued', ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                dispatch.as_str(),
                change.hash.0,
                change.actor.0,
                made_at,
                fact,
                body,
                change.bytes,
                row_sum(dispatch.as_str(), &change.hash.0, &change.actor.0, made_at, &body, &change.bytes),
            ])?;
        self.pending = self.pending.saturating_add(1);
        Ok(())
    }

    /// A visit's unacknowledged changes, oldest first. Rows whose checksum is wrong are kept aside.
    pub(super) fn lane_rows(&mut self, dispatch: &DispatchId) -> Result<Vec<OutboxRow>, StoreError> {
        let mut bad = Vec::new();
        let good = unsent_rows(self.sql, dispatch, &mut bad)?;
        for id in bad {
            self.quarantine_outbox(id)?;
        }
        Ok(good)
    }

    /// The server has it. Answers how many rows that was news for.
    pub(super) fn acknowledge(&mut self, id: i64, now: Timestamp) -> Result<u32, StoreError> {
        let changed = self
            .sql
            .prepare_cached(
                "UPDATE outbox SET state = 'acknowledged', acknowledged_at_ms = ?2, error_code = NULL, error_message = NULL \
                 WHERE id = ?1 AND state <> 'acknowledged'",
            )?
            .execute((id, self.phone.office_time(now).millis()))?;
        let changed = u32::try_from(changed).unwrap_or(u32::MAX);
        self.pending = self.pending.saturating_sub(changed);
        Ok(changed)
    }

    pub(super) fn park(&mut self, id: i64, code: &str, message: &str) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "UPDATE outbox SET state = 'parked', error_code = ?2, error_message = ?3 WHERE id = ?1 AND state <> 'acknowledged'",
            )?
            .execute((id, code, message))?;
        Ok(())
    }

    /// Parks what a lane has queued. Answers how many.
    pub(super) fn park_lane(&mut self, dispatch: &DispatchId, code: &str, message: &str) -> Result<u32, StoreError> {
        let parked = self
            .sql
            .prepare_cached(
                "UPDATE outbox SET state = 'parked', error_code = ?2, error_message = ?3 WHERE dispatch_id = ?1 AND state = 'queued'",
            )?
            .execute((dispatch.as_str(), code, message))?;
        self.sql
            .prepare_cached(
                "INSERT INTO lanes (dispatch_id, parked) VALUES (?1, 1) \
                 ON CONFLICT (dispatch_id) DO UPDATE SET parked = 1, rebase = 0, needs_fetch = 0",
            )?
            .execute([dispatch.as_str()])?;
        Ok(u32::try_from(parked).unwrap_or(u32::MAX))
    }

    fn requeue(&mut self, id: i64) -> Result<(), StoreError> {
        self.sql
            .prepare_cached(
                "UPDATE outbox SET state = 'queued', error_code = NULL, error_message = NULL WHERE id = ?1",
            )?
            .execute([id])?;
        Ok(())
    }

    /// Removes a row whose edit was made again. An acknowledgement of the former change finds nothing then, so it cannot be
    /// taken for one of the new change.
    pub(super) fn drop_row(&mut self, id: i64) -> Result<(), StoreError> {
        let dropped =
            self.sql.prepare_cached("DELETE FROM outbox WHERE id = ?1 AND state <> 'acknowledged'")?.execute([id])?;
        self.pending = self.pending.saturating_sub(u32::try_from(dropped).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Queues acknowledged changes again: of one visit, or of all. Answers how many.
    pub(super) fn requeue_receipts(&mut self, dispatch: Option<&DispatchId>) -> Result<u32, StoreError> {
        const AGAIN: &str =
            "UPDATE outbox SET state = 'queued', acknowledged_at_ms = NULL WHERE state = 'acknowledged'";
        let queued = match dispatch {
            Some(dispatch) => {
                self.sql.prepare_cached(&format!("{AGAIN} AND dispatch_id = ?1"))?.execute([dispatch.as_str()])?
            }
            None => self.sql.prepare_cached(AGAIN)?.execute([])?,
        };
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        self.pending = self.pending.saturating_add(queued);
        Ok(queued)
    }

    pub(super) fn recount_pending(&mut self) -> Result<(), StoreError> {
        self.pending = count_pending(self.sql)?;
        Ok(())
    }
}

/// A visit's unacknowledged changes, oldest first, and the rows whose checksum is wrong.
pub(super) fn unsent_rows(
    conn: &Connection,
    dispatch: &DispatchId,
    bad: &mut Vec<i64>,
) -> Result<Vec<OutboxRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM outbox WHERE dispatch_id = ?1 AND state <> 'acknowledged' ORDER BY id");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([dispatch.as_str()])?;
    let mut good = Vec::new();
    while let Some(row) = rows.next()? {
        match read_row(row)? {
            Ok((_, row)) => good.push(row),
            Err(id) => bad.push(id),
        }
    }
    Ok(good)
}

/// Unacknowledged changes, parked ones included.
pub(super) fn count_pending(conn: &Connection) -> Result<u32, StoreError> {
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM outbox WHERE state <> 'acknowledged'")?
        .query_row([], |row| row.get(0))?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Rows whose state is none: no query would find them again.
pub(super) fn rows_in_no_state(conn: &Connection) -> Result<Vec<i64>, StoreError> {
    let mut statement =
        conn.prepare("SELECT id FROM outbox WHERE state <> 'acknowledged' AND state NOT IN ('queued', 'parked')")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// A row as it is stored, checksum verified.
struct RawRow {
    id: i64,
    dispatch: DispatchId,
    state: String,
    hash: ChangeHash,
    made_at: Timestamp,
    edit: Vec<u8>,
    change: Vec<u8>,
    error: Option<(String, String)>,
}

/// Reads a row of [`COLUMNS`]; the inner error is the id of a row whose checksum is wrong.
fn read_raw(row: &Row<'_>) -> Result<Result<RawRow, i64>, StoreError> {
    let id: i64 = row.get(0)?;
    let (dispatch, hash, actor): (String, Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(3)?, row.get(4)?);
    let made_at_ms: i64 = row.get(5)?;
    let (edit, change, sum): (Vec<u8>, Vec<u8>, Vec<u8>) = (row.get(6)?, row.get(7)?, row.get(8)?);
    if row_sum(&dispatch, &hash, &actor, made_at_ms, &edit, &change) != *sum {
        return Ok(Err(id));
    }
    let (Ok(dispatch), Ok(hash)) = (DispatchId::new(dispatch), hash.try_into()) else { return Ok(Err(id)) };
    let state: String = row.get(2)?;
    if ![QUEUED, ACKNOWLEDGED, PARKED].contains(&state.as_str()) {
        return Ok(Err(id));
    }
    let code: Option<String> = row.get(9)?;
    let message: Option<String> = row.get(10)?;
    Ok(Ok(RawRow {
        id,
        dispatch,
        state,
        hash: ChangeHash(hash),
        made_at: Timestamp::from_millis(made_at_ms),
        edit,
        change,
        error: code.map(|code| (code, message.unwrap_or_default())),
    }))
}

/// As [`read_raw`], with the edit decoded.
fn read_row(row: &Row<'_>) -> Result<Result<(DispatchId, OutboxRow), i64>, StoreError> {
    let raw = match read_raw(row)? {
        Ok(raw) => raw,
        Err(id) => return Ok(Err(id)),
    };
    let RawRow { id, dispatch, state, hash, made_at, edit, change, error } = raw;
    Ok(minicbor_serde::from_slice(&edit)
        .map(|edit| (dispatch, OutboxRow { id, parked: state == PARKED, hash, made_at, edit, change, error }))
        .map_err(|_| id))
}

fn row_sum(dispatch: &str, hash: &[u8], actor: &[u8], made_at_ms: i64, edit: &[u8], change: &[u8]) -> [u8; 8] {
    sum(&[dispatch.as_bytes(), hash, actor, &made_at_ms.to_be_bytes(), edit, change])
}
