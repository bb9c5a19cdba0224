//! Lists and details.

use super::outbox::unsent_rows;
use super::rows::card_sum;
use super::{Store, StoreError, rows};
use crate::document::{Edit, VisitDoc};
use crate::domain::{DispatchId, Report, Timestamp, VisitCard, VisitState, VisitStatus, VisitView, Window, fold};
use rusqlite::{Connection, Rows};

/// Which visits to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VisitQuery {
    /// Those whose planned start lies inside; all when `None`.
    pub window: Option<Window>,
    /// Those without a planned time as well. They come last.
    pub unscheduled: bool,
    /// Those in one of these statuses; any when empty.
    pub statuses: Vec<VisitStatus>,
    /// At most this many; 0 for as many as there are.
    pub limit: u32,
}

/// One visit, looked into.
#[derive(Debug, Clone, PartialEq)]
pub struct VisitDetail {
    /// For the headline.
    pub card: VisitCard,
    /// Plan, facts and rulings.
    pub view: VisitView,
    /// Their fold, this phone's pending facts included.
    pub state: VisitState,
    /// The shared report.
    pub report: Report,
    /// This phone's edits that the server has not acknowledged, oldest first.
    pub pending: Vec<PendingEdit>,
}

/// An edit that the server has not acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingEdit {
    /// The edit.
    pub edit: Edit,
    /// When it was made, the phone's wall time.
    pub made_at: Timestamp,
    /// Where it stands.
    pub state: PendingState,
}

/// Where an unacknowledged edit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingState {
    /// Waits to be sent.
    Queued,
    /// Refused; a person must look.
    Parked {
        /// The server's stable code.
        code: String,
        /// For people.
        message: String,
    },
}

/// Visits with a planned start, those of a window; by start.
const SCHEDULED: &str = "SELECT visit, dispatch_id, status, scheduled_start_ms, tag, card, card_sum FROM visits \
     WHERE held = 1 AND scheduled_start_ms >= ?1 AND scheduled_start_ms < ?2 ORDER BY scheduled_start_ms, dispatch_id";
/// Visits without one.
const UNSCHEDULED: &str = "SELECT visit, dispatch_id, status, scheduled_start_ms, tag, card, card_sum FROM visits \
     WHERE held = 1 AND scheduled_start_ms IS NULL ORDER BY dispatch_id";
/// A damaged row is healed and the list read again, at most this often; after that it is left out.
const HEALING_TURNS_MAX: usize = 2;

impl Store {
    /// Visits for a list, by planned start; opens no document.
    ///
    /// # Errors
    /// The database's.
    pub fn visits(&self, query: &VisitQuery) -> Result<Vec<VisitCard>, StoreError> {
        let mut turn = 0;
        loop {
            let (cards, bad) = self.read(|conn| list(conn, query))?;
            if bad.is_empty() || turn == HEALING_TURNS_MAX {
                return Ok(cards);
            }
            turn += 1;
            self.write(|tx| bad.iter().try_for_each(|visit| tx.quarantine_visit_row(*visit)))?;
        }
    }

    /// One visit. A visit that has left the phone but has unsent work is still answered.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::VisitDamaged`], or the database's.
    pub fn visit(&self, dispatch: &DispatchId) -> Result<VisitDetail, StoreError> {
        let detail = self.reading_rows(|conn, bad| detail(conn, dispatch, bad));
        if let Err(StoreError::VisitDamaged(_)) = &detail {
            self.write(|tx| tx.quarantine_visit(dispatch))?;
        }
        detail
    }
}

/// The cards, and the rows whose checksum is wrong.
fn list(conn: &Connection, query: &VisitQuery) -> Result<(Vec<VisitCard>, Vec<i64>), StoreError> {
    let (from, to) = query.window.map_or((i64::MIN, i64::MAX), |window| (window.start.millis(), window.end.millis()));
    let limit = if query.limit == 0 { usize::MAX } else { usize::try_from(query.limit).unwrap_or(usize::MAX) };
    let (mut cards, mut bad) = (Vec::new(), Vec::new());
    collect(conn.prepare_cached(SCHEDULED)?.query((from, to))?, query, limit, &mut cards, &mut bad)?;
    if query.unscheduled {
        collect(conn.prepare_cached(UNSCHEDULED)?.query([])?, query, limit, &mut cards, &mut bad)?;
    }
    Ok((cards, bad))
}

fn collect(
    mut rows: Rows<'_>,
    query: &VisitQuery,
    limit: usize,
    cards: &mut Vec<VisitCard>,
    bad: &mut Vec<i64>,
) -> Result<(), StoreError> {
    while cards.len() < limit {
        let Some(row) = rows.next()? else { break };
        let dispatch = row.get_ref(1)?.as_str().unwrap_or_default();
        let status = row.get_ref(2)?.as_str().unwrap_or_default();
        let card = row.get_ref(5)?.as_blob().unwrap_or_default();
        let stored = row.get_ref(6)?.as_blob().unwrap_or_default();
        if card_sum(dispatch, status, row.get(3)?, true, row.get(4)?, card) != *stored {
            bad.push(row.get(0)?);
            continue;
        }
        if !query.statuses.is_empty() && !query.statuses.iter().any(|wanted| wanted.name() == status) {
            continue;
        }
        match minicbor_serde::from_slice(card) {
            Ok(card) => cards.push(card),
            Err(_) => bad.push(row.get(0)?),
        }
    }
    Ok(())
}

fn detail(conn: &Connection, dispatch: &DispatchId, bad: &mut Vec<i64>) -> Result<VisitDetail, StoreError> {
    let (_, bytes) = rows::document(conn, dispatch)?;
    let doc = VisitDoc::load(&bytes).map_err(|_| StoreError::VisitDamaged(dispatch.clone()))?;
    let view = doc.view();
    let state = fold(&view);
    let pending = unsent_rows(conn, dispatch, bad)?
        .into_iter()
        .map(|row| PendingEdit {
            state: match row.error {
                Some((code, message)) if row.parked => PendingState::Parked { code, message },
                _ => PendingState::Queued,
            },
            edit: row.edit,
            made_at: row.made_at,
        })
        .collect();
    let card = VisitCard::new(dispatch.clone(), &view.plan, &state);
    Ok(VisitDetail { card, report: doc.report(), view, state, pending })
}
