//! Who is logged in (rule 10): a store belongs to one technician at a time, and keeps everybody's unsent work.

use super::checksum::sum;
use super::phone::{Farewell, Phone};
use super::state::checkpoint;
use super::{OutboxPage, PageLimits, SentLane, Store, StoreError, Tx, outbox};
use crate::domain::{TechnicianId, TenantId};
use crate::protocol::{Digest, LaneAck};
use rusqlite::{Connection, OptionalExtension as _};

/// What logging in changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// Another user than before: the visits are gone from the phone and everything is fetched anew.
    pub changed: bool,
    /// The former user's unacknowledged changes, sealed now.
    pub sealed: u32,
    /// This user's changes that had been sealed, queued again.
    pub unsealed: u32,
}

/// What logging out, or a revocation, removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wiped {
    /// Visits removed.
    pub visits: u32,
    /// Unacknowledged changes, sealed.
    pub sealed: u32,
}

/// Refusals of a revoked phone's changes after which the server has them, in quarantine.
const KEPT_BY_SERVER: [&str; 2] = ["DEVICE_REVOKED", "DISPATCH_NOT_FOUND"];
/// The columns that an outbox row keeps while it is sealed.
const SEALED_COLUMNS: &str = "dispatch_id, state, hash, actor, made_at_ms, fact_id, acknowledged_at_ms, error_code, \
     error_message, edit, change, sum";

impl Store {
    /// Logs a technician in. Another one than before: the former one's outbox is sealed, never erased, and this one's is
    /// unsealed. Each technician has a device id of their own, because to the server a device is one technician's. A proof that
    /// is owed for another technician's device is given up: it would need their token.
    ///
    /// # Errors
    /// The database's.
    pub fn bind_user(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        rng: &mut dyn rand::Rng,
    ) -> Result<Bound, StoreError> {
        let user = (tenant.clone(), technician.clone());
        if self.with_writer(|writer| Ok(writer.phone.user.as_ref() == Some(&user)))? {
            return Ok(Bound::default());
        }
        self.write(|tx| {
            let mut bound = Bound { changed: true, ..Bound::default() };
            if tx.phone.user.is_some() {
                bound.sealed = tx.seal(true)?;
                tx.clear_visits()?;
                tx.phone.renew(rng)?;
            }
            if let Some(identity) = tx.sealed_identity(&user)? {
                tx.phone.device = identity.device;
                tx.phone.last_seq = identity.last_seq;
            }
            tx.phone.farewell.take_if(|owed| owed.user != user);
            tx.phone.last_sync = None;
            tx.phone.start_over();
            bound.unsealed = tx.unseal(&user)?;
            tx.phone.user = Some(user);
            Ok(bound)
        })
    }

    /// Logs the technician out: the outbox is sealed, never erased, and visits and cards are gone from the phone. When the
    /// same technician logs in again, the work is queued again under the device id that it was made with.
    ///
    /// # Errors
    /// The database's.
    pub fn unbind_user(&self, rng: &mut dyn rand::Rng) -> Result<Wiped, StoreError> {
        self.write(|tx| {
            if tx.phone.user.is_none() {
                return Ok(Wiped::default());
            }
            let sealed = tx.seal(true)?;
            let visits = tx.clear_visits()?;
            tx.phone.user = None;
            tx.phone.last_sync = None;
            tx.phone.renew(rng)?;
            tx.phone.start_over();
            Ok(Wiped { visits, sealed })
        })
    }

    /// Sealed changes of every user that the server has not acknowledged: whose, and how many.
    ///
    /// # Errors
    /// The database's.
    pub fn sealed(&self) -> Result<Vec<(TenantId, TechnicianId, u32)>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT tenant_id, technician_id, count(*) FROM sealed_outbox WHERE state <> 'acknowledged' \
                 GROUP BY tenant_id, technician_id ORDER BY tenant_id, technician_id",
            )?;
            let mut rows = statement.query([])?;
            let mut sealed = Vec::new();
            while let Some(row) = rows.next()? {
                if let (Ok(tenant), Ok(technician)) =
                    (TenantId::new(row.get::<_, String>(0)?), TechnicianId::new(row.get::<_, String>(1)?))
                {
                    sealed.push((tenant, technician, u32::try_from(row.get::<_, i64>(2)?).unwrap_or(u32::MAX)));
                }
            }
            Ok(sealed)
        })
    }

    /// A technician's sealed changes that were never refused, as a revoked phone hands them over.
    ///
    /// # Errors
    /// The database's.
    pub fn sealed_page(&self, user: &(TenantId, TechnicianId), limits: &PageLimits) -> Result<OutboxPage, StoreError> {
        self.read(|conn| outbox::sealed_page(conn, user, limits))
    }

    /// The server has these sealed changes: accepted, or kept in quarantine. Answers how many.
    ///
    /// # Errors
    /// The database's.
    pub fn sealed_taken(&self, sent: &[SentLane], acks: &[LaneAck]) -> Result<u32, StoreError> {
        self.write(|tx| {
            let mut taken = 0;
            for ack in acks {
                let Some(lane) = sent.iter().find(|lane| lane.lane.dispatch == ack.dispatch) else { continue };
                let kept = ack.refusal.as_ref().is_some_and(|refusal| KEPT_BY_SERVER.contains(&refusal.code.as_str()));
                let accepted = usize::try_from(ack.accepted).unwrap_or(usize::MAX);
                let rows = if kept { lane.rows.len() } else { accepted.min(lane.rows.len()) };
                for row in lane.rows.iter().take(rows) {
                    taken += tx.sql.execute("DELETE FROM sealed_outbox WHERE id = ?1", [row])?;
                }
            }
            Ok(u32::try_from(taken).unwrap_or(u32::MAX))
        })
    }

    /// True when the file holds nobody's unsent work, nor anything damaged that could be some.
    ///
    /// # Errors
    /// The database's.
    pub fn holds_nothing_unsent(&self) -> Result<bool, StoreError> {
        self.read(|conn| {
            Ok(conn.query_row(
                "SELECT NOT EXISTS (SELECT 1 FROM outbox WHERE state <> 'acknowledged') \
                 AND NOT EXISTS (SELECT 1 FROM sealed_outbox WHERE state <> 'acknowledged') \
                 AND NOT EXISTS (SELECT 1 FROM damaged WHERE kind = 'outbox')",
                [],
                |row| row.get(0),
            )?)
        })
    }

    /// The device was revoked: seals the outbox, removes visits, documents and cards from the file, and logs the
    /// technician out. The device id is not used again. [`SyncState::farewell`](super::SyncState::farewell) says whose proof is
    /// owed, until [`Self::wipe_proven`]; an opening in between finishes what a crash cut off here. Called again, it does what
    /// is left.
    ///
    /// # Errors
    /// The database's.
    pub fn wipe_after_revocation(&self, rng: &mut dyn rand::Rng) -> Result<Wiped, StoreError> {
        // A power cut before the log is cut below may undo all of this: then the next connection is told of the revocation
        // again. So one wait for the disk is enough. After the end of the process alone the transaction stands.
        self.with_writer(|writer| Ok(writer.conn.pragma_update(None, "synchronous", "NORMAL")?))?;
        let wiped = self.remove_all(rng);
        self.with_writer(|writer| {
            let rewritten = wiped.and_then(|wiped| rewrite(&writer.conn).map(|()| wiped));
            writer.conn.pragma_update(None, "synchronous", "FULL")?;
            rewritten
        })
    }

    /// The wipe's transaction. What it frees is still in the file.
    fn remove_all(&self, rng: &mut dyn rand::Rng) -> Result<Wiped, StoreError> {
        self.write(|tx| {
            if tx.phone.farewell.is_none()
                && let Some(user) = tx.phone.user.clone()
            {
                tx.phone.farewell = Some(Farewell { user, device: tx.phone.device.clone() });
            }
            let sealed = if tx.phone.user.is_some() { tx.seal(false)? } else { 0 };
            let visits = tx.clear_visits()?;
            // Copies of documents; the work on them lies in the outbox.
            tx.sql.execute("UPDATE damaged SET card = NULL, document = NULL", [])?;
            tx.phone.user = None;
            tx.phone.last_sync = None;
            tx.phone.renew(rng)?;
            tx.phone.start_over();
            Ok(Wiped { visits, sealed })
        })
    }

    /// The office knows that the revoked device was wiped, or has forgotten that it was revoked: nothing is owed any more.
    ///
    /// # Errors
    /// The database's.
    pub fn wipe_proven(&self) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.phone.farewell = None;
            Ok(())
        })
    }
}

/// Writes the file anew without the pages that were freed, and cuts it, as well as the log that still has them.
pub(super) fn rewrite(conn: &Connection) -> Result<(), StoreError> {
    conn.execute_batch("VACUUM")?;
    Ok(checkpoint(conn)?)
}

impl Tx<'_> {
    /// Moves the outbox aside under its user's name, receipts included. Answers how many were not acknowledged.
    fn seal(&mut self, keep_identity: bool) -> Result<u32, StoreError> {
        let Some((tenant, technician)) = self.phone.user.clone() else { return Ok(0) };
        self.sql.execute(
            &format!(
                "INSERT INTO sealed_outbox (tenant_id, technician_id, {SEALED_COLUMNS}) \
                 SELECT ?1, ?2, {SEALED_COLUMNS} FROM outbox ORDER BY id"
            ),
            (tenant.as_str(), technician.as_str()),
        )?;
        self.sql.execute("DELETE FROM outbox", [])?;
        if keep_identity {
            let body = self.phone.to_body()?;
            self.sql.execute(
                "INSERT OR REPLACE INTO sealed_identities (tenant_id, technician_id, body, sum) VALUES (?1, ?2, ?3, ?4)",
                (tenant.as_str(), technician.as_str(), &body, sum(&[&body])),
            )?;
        } else {
            self.sql.execute(
                "DELETE FROM sealed_identities WHERE tenant_id = ?1 AND technician_id = ?2",
                (tenant.as_str(), technician.as_str()),
            )?;
        }
        Ok(std::mem::take(&mut self.pending))
    }

    fn unseal(&mut self, user: &(TenantId, TechnicianId)) -> Result<u32, StoreError> {
        let (tenant, technician) = user;
        self.sql.execute(
            &format!(
                "INSERT INTO outbox ({SEALED_COLUMNS}) SELECT {SEALED_COLUMNS} FROM sealed_outbox \
                 WHERE tenant_id = ?1 AND technician_id = ?2 ORDER BY id"
            ),
            (tenant.as_str(), technician.as_str()),
        )?;
        self.sql.execute(
            "DELETE FROM sealed_outbox WHERE tenant_id = ?1 AND technician_id = ?2",
            (tenant.as_str(), technician.as_str()),
        )?;
        self.recount_pending()?;
        // Their documents are gone from here, and their device id perhaps as well.
        self.rebase_lanes_if_copied()?;
        Ok(self.pending)
    }

    fn sealed_identity(&self, (tenant, technician): &(TenantId, TechnicianId)) -> Result<Option<Phone>, StoreError> {
        let found: Option<(Vec<u8>, Vec<u8>)> = self
            .sql
            .query_row(
                "SELECT body, sum FROM sealed_identities WHERE tenant_id = ?1 AND technician_id = ?2",
                (tenant.as_str(), technician.as_str()),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        Ok(found.and_then(|(body, stored)| Phone::from_body(&body, &stored)))
    }

    /// Removes visits, tombstones and what is known of lanes. Answers how many visits there were.
    fn clear_visits(&mut self) -> Result<u32, StoreError> {
        let visits = self.sql.execute("DELETE FROM visits", [])?;
        self.sql.execute("DELETE FROM tombstones", [])?;
        self.sql.execute("DELETE FROM lanes", [])?;
        self.open.clear();
        self.phone.digest = Digest(0);
        Ok(u32::try_from(visits).unwrap_or(u32::MAX))
    }
}
