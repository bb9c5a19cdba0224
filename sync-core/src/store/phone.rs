//! The one row about this install: who it is, who is logged in, how far it has read.

use super::checksum::sum;
use super::{DeviceNow, StoreError};
use crate::document::ActorKey;
use crate::domain::fact::CLOCK_OFFSET_FLAG_MS;
use crate::domain::{BootId, ClockReading, DeviceId, TechnicianId, TenantId, Timestamp};
use crate::protocol::{Cursor, Digest, Generation};
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

/// A quartz clock drifts by less than this between two measurements, parts per million.
const CLOCK_DRIFT_PPM: u64 = 100;

/// What this install knows about itself. Written as one row, so that an action costs one statement for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Phone {
    /// Matches the install marker beside the database.
    pub(super) install: String,
    /// The marker file's inode, where there is such a thing: a copied directory has the right marker in another inode.
    #[serde(default)]
    pub(super) marker_inode: Option<u64>,
    pub(super) device: DeviceId,
    pub(super) actor: ActorKey,
    #[serde(default)]
    pub(super) user: Option<(TenantId, TechnicianId)>,
    /// The last fact sequence number given out.
    pub(super) last_seq: u64,
    #[serde(default)]
    pub(super) generation: Option<Generation>,
    pub(super) cursor: Cursor,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) last_sync: Option<Timestamp>,
    #[serde(default)]
    pub(super) clock: Option<MeasuredOffset>,
    /// Number of the last full answer.
    pub(super) run: u64,
    /// Everything is being fetched anew; lanes that wait for the server's copy are freed at its end.
    #[serde(default)]
    pub(super) resync: bool,
    /// The device that was revoked, until the office has the proof of the wipe.
    #[serde(default)]
    pub(super) farewell: Option<Farewell>,
    /// A full answer is under way. Not stored: one that a crash cuts off begins anew.
    #[serde(skip)]
    pub(super) run_open: bool,
}

/// A device that was revoked while it was this phone, and the proof of whose wipe is still owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// Whose it was.
    pub user: (TenantId, TechnicianId),
    /// Which: the phone has another device id already.
    pub device: DeviceId,
}

/// A clock measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MeasuredOffset {
    /// Server minus phone, milliseconds.
    pub(super) offset_ms: i64,
    pub(super) uncertainty_ms: u32,
    pub(super) wall: Timestamp,
    pub(super) monotonic_ms: u64,
    pub(super) boot: BootId,
}

impl Phone {
    /// A phone that nobody has heard of.
    pub(super) fn new(rng: &mut dyn rand::Rng) -> Result<Self, StoreError> {
        Ok(Self {
            install: random_hex(rng),
            marker_inode: None,
            device: random_device(rng)?,
            actor: random_actor(rng),
            user: None,
            last_seq: 0,
            generation: None,
            cursor: Cursor(0),
            digest: Digest(0),
            last_sync: None,
            clock: None,
            run: 0,
            resync: false,
            farewell: None,
            run_open: false,
        })
    }

    /// The same content on another phone: whatever was given out under the old names stays with those.
    pub(super) fn renew(&mut self, rng: &mut dyn rand::Rng) -> Result<(), StoreError> {
        self.device = random_device(rng)?;
        self.actor = random_actor(rng);
        self.last_seq = 0;
        Ok(())
    }

    /// Everything is fetched anew.
    pub(super) fn start_over(&mut self) {
        self.cursor = Cursor(0);
        self.run_open = false;
        self.resync = true;
    }

    /// What the office's clock shows while this phone's shows `wall`, by the last measurement; before the first, the phone's word
    /// is all there is. Ages are counted by it: a wall clock that somebody has set must not make things old.
    pub(super) fn office_time(&self, wall: Timestamp) -> Timestamp {
        self.clock.as_ref().map_or(wall, |measured| wall.plus_millis(measured.offset_ms))
    }

    /// The clocks as a fact carries them (rule 6).
    ///
    /// Within one boot the monotonic clock tells how much wall time should have passed, so a wall clock that somebody has
    /// set meanwhile is corrected for. Across boots it could have been set by anything: the offset is told with the
    /// uncertainty of a clock that is merely flagged.
    pub(super) fn read_clock(&self, now: &DeviceNow) -> ClockReading {
        let measured = self.clock.as_ref().map(|m| {
            if m.boot == now.boot && now.monotonic_ms >= m.monotonic_ms {
                let age = now.monotonic_ms - m.monotonic_ms;
                let expected = m.wall.plus_millis(i64::try_from(age).unwrap_or(i64::MAX));
                (m.offset_ms.saturating_add(expected.millis_since(now.wall)), u64::from(m.uncertainty_ms) + drift(age))
            } else {
                let age = now.wall.millis_since(m.wall).unsigned_abs();
                (m.offset_ms, u64::from(m.uncertainty_ms) + drift(age) + CLOCK_OFFSET_FLAG_MS.unsigned_abs())
            }
        });
        ClockReading {
            wall: now.wall,
            monotonic_ms: now.monotonic_ms,
            boot: now.boot.clone(),
            offset_ms: measured.map(|(offset, _)| offset),
            uncertainty_ms: measured.map(|(_, uncertainty)| u32::try_from(uncertainty).unwrap_or(u32::MAX)),
        }
    }

    /// `None` when there is no row, or when it cannot be trusted.
    pub(super) fn load(conn: &Connection) -> Result<Option<Self>, StoreError> {
        let row = conn
            .prepare_cached("SELECT body, sum FROM phone WHERE one = 1")?
            .query_row([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        Ok(row.and_then(|(body, stored)| Self::from_body(&body, &stored)))
    }

    pub(super) fn save(&self, conn: &Connection) -> Result<(), StoreError> {
        let body = self.to_body()?;
        conn.prepare_cached("INSERT OR REPLACE INTO phone (one, body, sum) VALUES (1, ?1, ?2)")?
            .execute((&body, sum(&[&body])))?;
        Ok(())
    }

    pub(super) fn from_body(body: &[u8], stored: &[u8]) -> Option<Self> {
        (sum(&[body]) == stored).then(|| minicbor_serde::from_slice(body).ok()).flatten()
    }

    pub(super) fn to_body(&self) -> Result<Vec<u8>, StoreError> {
        minicbor_serde::to_vec(self).map_err(|e| StoreError::Database(e.to_string()))
    }
}

fn drift(age_ms: u64) -> u64 {
    age_ms.saturating_mul(CLOCK_DRIFT_PPM) / 1_000_000
}

pub(super) fn random_hex(rng: &mut dyn rand::Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn random_actor(rng: &mut dyn rand::Rng) -> ActorKey {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    ActorKey(bytes)
}

fn random_device(rng: &mut dyn rand::Rng) -> Result<DeviceId, StoreError> {
    DeviceId::new(format!("dev-{}", random_hex(rng))).map_err(|e| StoreError::Database(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn at(wall_ms: i64, monotonic_ms: u64, boot: &str) -> DeviceNow {
        DeviceNow { wall: Timestamp::from_millis(wall_ms), monotonic_ms, boot: BootId::new(boot).unwrap() }
    }

    fn measured(at: &DeviceNow) -> Phone {
        let mut phone = Phone::new(&mut rand::rngs::SmallRng::seed_from_u64(1)).unwrap();
        phone.clock = Some(MeasuredOffset {
            offset_ms: 500,
            uncertainty_ms: 20,
            wall: at.wall,
            monotonic_ms: at.monotonic_ms,
            boot: at.boot.clone(),
        });
        phone
    }

    #[test]
    fn a_wall_clock_set_within_one_boot_is_corrected_for() {
        let phone = measured(&at(1_000_000, 1_000, "boot-1"));
        // An hour later somebody sets the clock back by ten minutes.
        let clock = phone.read_clock(&at(1_000_000 + 3_600_000 - 600_000, 3_601_000, "boot-1"));
        assert_eq!(clock.occurred_at(), Timestamp::from_millis(1_000_000 + 3_600_000 + 500));
        assert_eq!(clock.uncertainty_ms, Some(20 + 360));
    }

    #[test]
    fn after_a_restart_the_offset_is_less_certain() {
        let phone = measured(&at(1_000_000, 1_000, "boot-1"));
        let clock = phone.read_clock(&at(2_000_000, 5, "boot-2"));
        assert_eq!(clock.offset_ms, Some(500));
        assert!(clock.uncertainty_millis() > CLOCK_OFFSET_FLAG_MS);
    }
}
